"""The small world's key as a kind that the verifier knows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import KIND, Small

from verifier.spec import Kind

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Small world"
KINDS = (
    Kind(
        id=KIND,
        title="A key of the small world",
        category="test",
        docs="https://example.com/",
        parts=("id", "secret"),
        probe="code",
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    del kind, door, base_url
    return Small(os.environ["LAPSE_TEST_WORLD"]).probe(credential)
