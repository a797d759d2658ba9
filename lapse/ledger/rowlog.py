"""Append-only tables: how their rows are encoded, and what an event keeps of them."""

from __future__ import annotations

import struct
import zlib
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapse.ledger.raw import Raw

Value: TypeAlias = int | str | bytes | None
Row: TypeAlias = tuple[Value, ...]
"""A log row: id first, then the columns of the table's `info["log"]`, in order."""

MARK_BYTES = 4
encode_row = msgspec.msgpack.Encoder().encode
"""The canonical encoding of a row: MessagePack of the tuple."""


class Segment(Struct, frozen=True, array_like=True):
    """Rows `first … first+count-1` of `table`, and the SHA-256 (hex) over their encodings, one after another."""

    table: str
    first: int
    count: int
    digest: str


def segment(table: str, rows: Sequence[Row]) -> tuple[Segment, bytes]:
    """Return what an event says of new rows (ids without a gap) and their marks."""
    encoded = [encode_row(row) for row in rows]
    first = rows[0][0]
    assert isinstance(first, int)  # noqa: S101  # logs count their rows
    return (
        Segment(table, first, len(rows), sha256(b"".join(encoded)).hexdigest()),
        struct.pack(f"<{len(rows)}I", *map(zlib.crc32, encoded)),
    )


def next_id(raw: Raw, table: str) -> int:
    """Return the id that the next row of a log gets. Call inside a write transaction only."""
    newest = raw.execute(f"SELECT max(id) FROM {table}").fetchone()[0]  # our own table names
    return int(newest or 0) + 1
