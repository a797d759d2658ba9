"""The JSON schema of an evidence file, made from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from lapse.evidence.model import EvidenceFile


def schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) that every evidence file of version 1 satisfies."""
    (form,), components = msgspec.json.schema_components([EvidenceFile], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lapse evidence of a rotation, version 1",
        "description": "What `lapse report --run RUN -o FILE.json` writes, and what a page of it has inside.",
        **form,
        "$defs": components,
    }
