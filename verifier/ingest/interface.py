"""What a report format is, and what it is given to read.

A format is one file in `verifier/ingest/formats/` that exposes `FORMATS: tuple[Format, ...]`; there is no list to
edit. `parse` is handed a `Source` and turns its rows into claims, streaming. The row machinery of `stream`
(`jsonl`, `json_items`, `csv_rows`, `xml_texts`) does the reading, the limits and the sentences about bad rows.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verifier.model import Claim, Skipped

T = TypeVar("T")

Sniff: TypeAlias = "Callable[[bytes], Likelihood]"
Parse: TypeAlias = "Callable[[Source], Iterator[Claim | Skipped]]"


class Likelihood(IntEnum):
    """How surely the first bytes of a file are of this format. The highest wins; a tie at the top is an error."""

    NO = 0
    GENERIC = 1
    """Any file of this container would say so (generic SARIF, JSONL, CSV): a scanner's own format goes first."""
    LIKELY = 2
    """Field names that this scanner uses, which another might use as well."""
    CERTAIN = 3
    """The scanner names itself, or field names that only it uses."""


class Source(Protocol):
    """One report's bytes, made plain: unpacked, without byte order mark, in UTF-8 if it was UTF-16 or UTF-32."""

    name: str
    """The file's name, or `-` for stdin."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the whole text in pieces of about 1 MiB, once. Damage ends it early and fills `damage`."""
        ...

    @property
    def damage(self) -> tuple[str, str] | None:
        """Why the bytes end early (truncated gzip, a read error, a bomb) and the remedy, one sentence each, or None."""
        ...

    def cut(self) -> None:
        """Record that the report does not hold the whole scan, so that what it lacks is not taken as removed."""
        ...


class Row(NamedTuple, Generic[T]):
    """One decoded row: its line in the file (lines), or its ordinal in its array, from 1; and what was in it."""

    number: int
    item: T


class Format(Struct, frozen=True):
    """One report format.

    `name` is what `--as` and the output say (`gitleaks-json`); `scanner` the id that claims carry; `summary` one line
    for `lapse formats`. `sniff` gets the first 64 KiB (plain, as in `Source`; may end in mid-row) and never raises.
    """

    name: str
    scanner: str
    summary: str
    sniff: Sniff
    parse: Parse


class UnreadableReport(Exception):  # noqa: N818  # reads as what it says: `except UnreadableReport`
    """A file of which nothing can be read. Its text is one sentence that names the file, the reason and the remedy."""

    def __init__(self, file: str, reason: str, remedy: str) -> None:
        """Take the file's name as given, why it can't be read, and what to do (an imperative, no full stop)."""
        super().__init__(f"{file}: {reason}; {remedy}.")
        self.file = file
        self.reason = reason
        self.remedy = remedy
