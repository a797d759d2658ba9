"""The chain of events: each holds the hash of the one before; the newest is signed.

`hash = SHA-256(prev ‖ seq ‖ at ‖ len(kind) ‖ kind ‖ len(payload) ‖ payload ‖ refs)`, numbers as 8 bytes big-endian.
One event speaks for many rows: its payload holds, for each log that got rows, the first id, their number and the
SHA-256 over their encodings (`rowlog`); its `refs` hold four bytes for each row, so that a check can name the very
row, and the ids of older rows that the event touched.
"""

from __future__ import annotations

import zlib
from array import array
from enum import StrEnum
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from lapse.ledger.errors import LedgerError
from lapse.ledger.rowlog import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lapse.ledger.raw import Raw
    from lapse.ledger.seal import Seal

GENESIS = bytes(32)


class EventKind(StrEnum):
    """What can happen to a ledger."""

    MADE = "made"
    MIGRATED = "migrated"
    SCAN = "scan"
    FINDINGS = "findings"
    REMOVED = "removed"
    SCAN_ENDED = "scan-ended"
    RUN = "run"
    VERDICTS = "verdicts"
    RUN_ENDED = "run-ended"
    ROTATION = "rotation"
    MARKED = "marked"
    PURGED = "purged"
    REWRAPPED = "rewrapped"
    REVEALED = "revealed"
    SCOPE = "scope"
    ALARM = "alarm"
    NOTE = "note"


class Payload(Struct, frozen=True, omit_defaults=True):
    """What an event says, never with a secret. Fields that its kind does not use stay at their default.

    `rows` are the log rows it brought; `scan` and `run` which one it belongs to; `figures` the totals of a scan or
    purge; `text` what a note, alarm or scope change says; `detail` names and values of the same.
    """

    rows: tuple[Segment, ...] = ()
    scan: int = 0
    run: int = 0
    whole: bool = False
    owner: str = ""
    canary: str = ""
    text: str = ""
    public_key: str = ""
    kek: str = ""
    figures: dict[str, int] = {}
    detail: dict[str, str] = {}


class Refs(Struct, frozen=True, array_like=True):
    """The bulky half of an event. `marks[i]` belongs to `rows[i]`: CRC-32 of each row, 4 bytes little-endian.

    `touched` are the ids of older rows: findings for findings and removed, credentials for every other kind;
    `sealed` the credentials whose parts were sealed. Both packed by `pack_ids`.
    """

    marks: tuple[bytes, ...] = ()
    touched: bytes = b""
    sealed: bytes = b""


_payload = msgspec.json.Encoder(order="deterministic")
_refs = msgspec.msgpack.Encoder()
read_payload = msgspec.json.Decoder(Payload).decode
read_refs = msgspec.msgpack.Decoder(Refs).decode


def pack_ids(ids: Iterable[int]) -> bytes:
    """Pack ids (any order, each once) as compressed differences: about 1.5 bytes each."""
    ordered = sorted(ids)
    if not ordered:
        return b""
    steps = array("Q", [ordered[0], *(b - a for a, b in pairwise(ordered))])
    return zlib.compress(steps.tobytes(), 1)


def unpack_ids(blob: bytes) -> list[int]:
    """Return what `pack_ids` packed, ascending."""
    if not blob:
        return []
    steps = array("Q")
    steps.frombytes(zlib.decompress(blob))
    total = 0
    return [total := total + step for step in steps]


def event_hash(prev: bytes, seq: int, at: int, kind: str, payload: str, refs: bytes) -> bytes:
    """Return the hash of one event, 32 bytes."""
    body = payload.encode()
    name = kind.encode()
    parts = (prev, seq.to_bytes(8, "big"), at.to_bytes(8, "big", signed=True))
    sizes = (len(name).to_bytes(8, "big"), name, len(body).to_bytes(8, "big"), body)
    return sha256(b"".join((*parts, *sizes, refs))).digest()


def head_message(ledger: str, seq: int, at: int, digest: bytes) -> bytes:
    """Return the bytes that a head's signature covers."""
    return f"lapse ledger head 1\n{ledger}\n{seq}\n{at}\n{digest.hex()}\n".encode()


_END = (
    "SELECT m.public_key, h.seq, h.hash, (SELECT max(seq) FROM events) FROM meta m"
    " LEFT JOIN head h ON h.id = 1 WHERE m.id = 1"
)
_HEAD = (
    "INSERT INTO head VALUES (1,?,?,?,?) ON CONFLICT (id) DO UPDATE SET"
    " seq = excluded.seq, at = excluded.at, hash = excluded.hash, signature = excluded.signature"
)


def append(  # an event has this many parts
    raw: Raw,
    seal: Seal,
    ledger: str,
    kind: EventKind,
    payload: Payload,
    *,
    at: int,
    refs: Refs | None = None,
) -> int:
    """Append one event inside the caller's write transaction, sign the new head, return its number."""
    key, last, prev, newest = raw.execute(_END).fetchone()
    if bytes(key) != seal.public_key:
        raise LedgerError("another process gave the ledger a new key just now; run the command again")
    last, prev, newest = last or 0, prev or GENESIS, newest or 0
    if newest != last:
        raise LedgerError(f"the chain ends at event {newest}, the head says {last}; run `lapse ledger check`")
    seq = last + 1
    text = _payload.encode(payload).decode()
    bulk = _refs.encode(refs or Refs())
    digest = event_hash(prev, seq, at, kind.value, text, bulk)
    raw.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?)", (seq, at, kind.value, text, bulk, prev, digest))
    signature = seal.sign(head_message(ledger, seq, at, digest))
    raw.execute(_HEAD, (seq, at, digest, signature))
    raw.told = (seq, digest)
    return seq
