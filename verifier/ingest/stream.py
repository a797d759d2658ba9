"""Rows out of bytes: lines, JSON, CSV, XML; in bounded memory, never stopped by one bad row.

Every reader yields a `Row` for what could be decoded and a `Skipped` for what could not. A `Skipped` never quotes the
report: it names the row, the field where that is one of ours, what is wrong and what to do.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from xml.parsers import expat  # declarations are refused below: nothing to expand

import msgspec

from verifier.ingest.interface import Row
from verifier.ingest.plain import damaged
from verifier.ingest.walk import MAX_ROW, Ended, Path, Walker
from verifier.model import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from verifier.ingest.interface import Source
    from verifier.model import Claim

T = TypeVar("T")

Notes: TypeAlias = "Mapping[Path, Callable[[bytes], None]]"

_MAX_CSV_ROW = 1 << 20
_UNCHANGED = "give the scanner's own report, unchanged"
_AGAIN = "run the scan again, or fetch the file again"
_WHERE = re.compile(r"required field `([A-Za-z0-9_.-]{1,40})`|at `\$((?:\.[A-Za-z0-9_]{1,40}|\[\.\.\.\])+)`")


def claims(
    rows: Iterable[Row[T] | Skipped], build: Callable[[int, T], Claim | Skipped | None]
) -> Iterator[Claim | Skipped]:
    """Turn each row into its claim with `build(row number, item)`; `Skipped` pass through, None is no finding."""
    for row in rows:
        if isinstance(row, Skipped):
            yield row
        elif (claim := build(row[0], row[1])) is not None:
            yield claim


# ── lines ──────────────────────────────────────────────────────────────────────────────────────────────


def jsonl(source: Source, into: type[T], *, noise: Callable[[bytes], bool] | None = None) -> Iterator[Row[T] | Skipped]:
    """Yield one row a line, decoded into `into`; blank lines are passed over.

    A line that does not decode and for which `noise` is true (a log line, a summary) is passed over without a word;
    any other is a `Skipped`.
    """
    decode = msgspec.json.Decoder(into).decode
    number = 0
    for number, line in lines(source):
        if line is None:
            yield _too_long(number)
            continue
        try:
            item = decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if not line.strip() or (noise and noise(line)):
                continue
            ragged = not line.endswith(b"\n")
            if ragged:
                source.cut()
                if source.damage:  # said once, below
                    continue
            yield (
                _ended(number)
                if ragged and not isinstance(error, msgspec.ValidationError)
                else bad(number, line, error)
            )
            continue
        yield Row(number, item)
    if source.damage:
        yield damaged(source.damage, number + 1)


def lines(source: Source) -> Iterator[tuple[int, bytes | None]]:
    """Yield line number and line, with its line feed; None for a line of over 16 MiB, which is never held whole."""
    number, tail, long = 0, b"", False
    for block in source.blocks():
        for piece in _split(block):
            if not long:
                tail = tail + piece if tail else piece
                long = len(tail) > MAX_ROW
            if piece.endswith(b"\n"):
                number += 1
                yield number, None if long else tail
                tail, long = b"", False
            elif long:
                tail = b""
    if tail or long:
        yield number + 1, None if long else tail


def _split(block: bytes) -> list[bytes]:
    """Split at line feeds only: `bytes.splitlines` would split at a lone carriage return, too."""
    pieces = [piece + b"\n" for piece in block.split(b"\n")]
    last = pieces.pop()[:-1]
    return [*pieces, last] if last else pieces


# ── JSON documents ─────────────────────────────────────────────────────────────────────────────────────


def json_items(source: Source, into: type[T], *path: str, notes: Notes | None = None) -> Iterator[Row[T] | Skipped]:
    """Yield what lies at `path` in a JSON text, decoded: `("*",)` the elements of a top-level array,
    `("findings", "*")` those of the array under a key, `("runs", "*", "results", "*")` of SARIF.

    `*` stands for each element of an array (or, below the top, each value of an object). Rows count from 1 over the
    whole text, which may hold several documents one after another. Only one item is held at a time. `notes` maps other
    paths to functions that get the raw bytes of what lies there (a summary, a tool's name), in the text's order.
    """  # noqa: D205  # the forms of a path come first
    for row in _walked(source, into, path, notes or {}):
        yield row if isinstance(row, Skipped) else Row(row.number, row.item[1])


def json_entries(source: Source, into: type[T], *path: str) -> Iterator[Row[tuple[str, T]] | Skipped]:
    """Like `json_items`, for the entries of an object (`path` ends in `*`): key and decoded value."""
    return _walked(source, into, path, {})


def _walked(source: Source, into: type[T], path: Path, notes: Notes) -> Iterator[Row[tuple[str, T]] | Skipped]:
    decode = msgspec.json.Decoder(into).decode
    walker = Walker(source.blocks())
    number = 0
    try:
        for found in walker.documents(path, *notes):
            raw = found.raw
            if found.index:
                if raw is not None:
                    notes[tuple(notes)[found.index - 1]](raw)
                continue
            number += 1
            if raw is None:
                yield _too_long(number) if found.fits else _misfit(number, source)
                if walker.at_top and not found.fits:
                    return
                continue
            try:
                item = decode(raw)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                yield bad(number, raw, error)
                continue
            yield Row(number, (found.key, item))
    except Ended:
        if not source.damage:
            source.cut()
            yield _ended(number + 1)
    if source.damage:
        yield damaged(source.damage, number + 1)


# ── CSV ────────────────────────────────────────────────────────────────────────────────────────────────


def csv_rows(source: Source, *required: str) -> Iterator[Row[dict[str, str]] | Skipped]:
    """Yield the rows of a CSV text with a header, numbered by their first line; `,`, `;` and tab separate.

    A header that lacks a `required` column is the one `Skipped` of the text; a row that does not fit the header, one.
    """
    table = _Table()
    number = 0
    for record in _csv_records(source, table):
        if isinstance(record, Skipped):
            number = record.row
            yield record
        elif not table.header:
            number, table.header = record
            if lacking := [name for name in required if name not in table.header]:
                source.cut()
                yield Skipped(number, lacking[0], "the header lacks this column", _UNCHANGED)
                return
        else:
            number, fields = record
            yield Row(number, dict(zip(table.header, fields, strict=True)))
    if source.damage:
        yield damaged(source.damage, number + 1)


class _Table:
    """What is known of a CSV text: its separator and, once read, its header."""

    def __init__(self) -> None:
        self.separator = ""
        self.header: list[str] = []

    def split(self, row: int, raw: bytes) -> list[str] | Skipped:
        if not self.separator:
            self.separator = max(",;\t", key=lambda mark: raw.count(mark.encode()))
        try:
            # A carriage return alone is no line end here, or the reader would stop at it.
            (fields,) = csv.reader((raw.decode().rstrip("\r\n"),), delimiter=self.separator, strict=True)
        except (csv.Error, ValueError) as error:
            return bad(row, raw, error)
        if self.header and len(fields) != len(self.header):
            reason = f"it has {len(fields)} columns where the header has {len(self.header)}"
            return Skipped(row, None, reason, "quote fields that hold a separator, a quote or a line break")
        return fields


def _csv_records(source: Source, table: _Table) -> Iterator[tuple[int, list[str]] | Skipped]:
    """Join lines until their quotes pair up. What makes no row then costs its first line; the rest is read anew."""
    held: list[tuple[int, bytes]] = []
    size = quotes = 0
    queue: deque[tuple[int, bytes | None]] = deque()
    fresh = lines(source)
    while True:
        number, text = queue.popleft() if queue else next(fresh, (0, None))
        if text is not None:
            if not held and not text.strip():
                continue
            held.append((number, text))
            size += len(text)
            quotes += text.count(b'"')
            if quotes % 2 and size <= _MAX_CSV_ROW:
                continue
        elif not held:
            if not number:
                return
            yield _too_long(number)
            continue
        elif number:  # a line too long to be held, within a quote
            queue.appendleft((number, None))
        first = held[0][0]
        record = table.split(first, b"".join(piece for _, piece in held))
        if isinstance(record, Skipped):
            yield record
            queue.extendleft(reversed(held[1:]))
        else:
            yield first, record
        held, size, quotes = [], 0, 0


# ── XML ────────────────────────────────────────────────────────────────────────────────────────────────


class _DeclarationError(Exception):
    """The document declares a type or an entity."""


class _Texts:
    """Collects the text of each `element`; texts over `MAX_ROW` are dropped and counted as None."""

    def __init__(self, element: str) -> None:
        self.found: list[str | None] = []
        self._element = element
        self._pieces: list[str] | None = None
        self._size = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        raise _DeclarationError

    def _start(self, name: str, _: object) -> None:
        if name == self._element:
            self._pieces, self._size = [], 0

    def _text(self, data: str) -> None:
        if self._pieces is not None:
            self._size += len(data)
            self._pieces.append(data)
            if self._size > MAX_ROW:
                self._pieces = []

    def _end(self, name: str) -> None:
        if name == self._element and self._pieces is not None:
            self.found.append("".join(self._pieces) if self._size <= MAX_ROW else None)
            self._pieces = None


def xml_texts(source: Source, element: str) -> Iterator[Row[str] | Skipped]:
    """Yield the text of each `element`, counted from 1. A document type or an entity declaration ends the text."""
    texts = _Texts(element)
    number = 0
    trouble: tuple[str, str] | None = None
    blocks = source.blocks()
    while trouble is None:
        block = next(blocks, b"")
        try:
            texts.parser.Parse(block, not block)
        except _DeclarationError:
            trouble = ("it declares a document type, which no scanner's report does", _UNCHANGED)
        except expat.ExpatError:
            trouble = ("the XML is damaged or ends too early here", _AGAIN)
        for text in texts.found:
            number += 1
            yield _too_long(number) if text is None else Row(number, text)
        texts.found.clear()
        if not block:
            break
    if trouble or source.damage:
        source.cut()
        yield damaged(source.damage or trouble or ("", ""), number + 1)


# ── sentences ──────────────────────────────────────────────────────────────────────────────────────────


def bad(row: int, raw: bytes, error: Exception) -> Skipped:
    """Say why `raw` did not decode, in words that hold nothing of it; the field only where it is one of our own."""
    field = None
    if isinstance(error, msgspec.ValidationError):
        names = [a or b.lstrip(".") for a, b in _WHERE.findall(str(error))]
        field = names[0] if names else None
        reason, remedy = "it is not a finding as this format has it", "check the format, or name it with --as"
    elif isinstance(error, RecursionError):
        reason, remedy = "it is nested too deeply", _UNCHANGED
    elif b"\0" in raw:
        reason, remedy = "it holds NUL bytes", _AGAIN
    elif isinstance(error, UnicodeError) or not _is_utf8(raw):
        reason, remedy = "it is not valid UTF-8", "save the report as UTF-8"
    else:
        kind = "CSV" if isinstance(error, csv.Error | StopIteration) else "JSON"
        reason, remedy = f"it is not valid {kind}", _UNCHANGED
    return Skipped(row=row, field=field, reason=reason, remedy=remedy)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _too_long(row: int) -> Skipped:
    return Skipped(
        row, None, f"it is longer than {MAX_ROW >> 20} MiB", "no scanner writes such a row; look at the file"
    )


def _ended(row: int) -> Skipped:
    return Skipped(row, None, "the file ends in the middle of this row; all that follows is missing", _AGAIN)


def _misfit(row: int, source: Source) -> Skipped:
    source.cut()
    return Skipped(row, None, "something of another format follows here", "give each report in a file of its own")
