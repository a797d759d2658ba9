"""The JSON schema of `json-v1`, made from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from lapse.commands.policy import PolicyOut
from lapse.diff import DiffOut
from lapse.nightly.night import Night
from lapse.output import jsonv1
from lapse.output.storyline import KeyShown

TITLES = (jsonv1.KeyLine, jsonv1.IngestOut, jsonv1.StatusOut, jsonv1.ReportOut, KeyShown, DiffOut, PolicyOut, Night)


def schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) that any `json-v1` document satisfies."""
    forms, components = msgspec.json.schema_components(TITLES, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lapse json-v1",
        "description": "A line of `verify --format jsonl`, or what another command prints with --format json.",
        "anyOf": list(forms),
        "$defs": components,
    }
