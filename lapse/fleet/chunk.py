"""A chunk: what a worker is handed and what it hands back. Ids and figures only: the engine's tables hold no secret."""

from __future__ import annotations

from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.model import CredentialID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORKFLOW = "chunk"
"""The name of the workflow that takes one."""

LEAST, MOST = 500, 2000
"""Keys of one vendor in a chunk: enough that taking one costs nothing beside it, few enough to begin anew."""

SPAN = 60.0
"""Seconds that a chunk should take at its vendor's limit, between `LEAST` and `MOST`."""


class Chunk(Struct, frozen=True):
    """Keys of one vendor, to be asked about in one run.

    `look` is 2 for those that were refused in this run and are looked at again. `until`: begin nothing after it.
    `trace` is the night's W3C traceparent where it is traced.
    """

    run: int
    started: datetime
    vendor: str
    ids: tuple[CredentialID, ...]
    look: int = 1
    until: datetime | None = None
    trace: str = ""


class Told(Struct, frozen=True):
    """What came of a chunk: verdicts by word; calls, and refusals of our pace, by kind of key.

    `alarms` are vendor, number of keys, and the sentence.

    `left`: the time was up before all was asked.
    """

    said: dict[str, int] = {}
    calls: dict[str, int] = {}
    throttled: dict[str, int] = {}
    alarms: tuple[tuple[str, int, str], ...] = ()
    left: bool = False


def size(rate: float, most: int = MOST) -> int:
    """Return how many keys a chunk of a vendor with this limit (requests a second) holds, `most` at most."""
    return max(1, min(most, MOST, max(LEAST, round(rate * SPAN))))


def cut(kinds: Mapping[str, Sequence[CredentialID]], most: int) -> list[tuple[CredentialID, ...]]:
    """Cut one vendor's keys into chunks of at most `most`, each with the same share of every kind.

    Kinds have limits of their own and are asked side by side: in a chunk of one kind alone the others would stand idle.
    """
    total = sum(map(len, kinds.values()))
    n = -(-total // max(1, most))
    shares = ([ids[len(ids) * i // n : len(ids) * (i + 1) // n] for ids in kinds.values()] for i in range(n))
    found = (tuple(chain.from_iterable(share)) for share in shares)
    return [ids for ids in found if ids]


def packed(chunk: Chunk) -> str:
    """Return a chunk as the text that goes through the queue."""
    return msgspec.json.encode(chunk).decode()


def unpacked(text: str) -> Chunk:
    """Return the chunk of such a text."""
    return msgspec.json.decode(text, type=Chunk)
