"""Rows out of bytes: lines, JSON arrays, CSV, XML; in bounded memory, never stopped by one bad row."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from verifier.ingest.interface import Row, Source
    from verifier.model import Claim, Skipped

T = TypeVar("T")


def jsonl(source: Source, into: type[T], *, noise: Callable[[bytes], bool] | None = None) -> Iterator[Row[T] | Skipped]:
    """Yield one row a line, decoded into `into`; blank lines are passed over.

    A line for which `noise` is true (a log line, a summary) is passed over without a word; it is asked first about
    lines that fail to decode only, unless they decode. Any other bad line is a `Skipped`.
    """
    raise NotImplementedError


def json_items(source: Source, into: type[T], *path: str) -> Iterator[Row[T] | Skipped]:
    """Yield what lies at `path` in a JSON document, decoded: `("*",)` the elements of a top-level array,
    `("findings", "*")` those of the array under a key, `("runs", "*", "results", "*")` of SARIF.

    `*` stands for each element of an array or each value of an object. Only one item is held at a time.
    """
    raise NotImplementedError


def json_entries(source: Source, into: type[T], *path: str) -> Iterator[Row[tuple[str, T]] | Skipped]:
    """Like `json_items`, for the entries of an object (`path` ends in `*`): key and decoded value."""
    raise NotImplementedError


def csv_rows(source: Source, *required: str) -> Iterator[Row[dict[str, str]] | Skipped]:
    """Yield the rows of a CSV file with a header; a row that lacks a `required` column is a `Skipped`."""
    raise NotImplementedError


def xml_texts(source: Source, element: str) -> Iterator[Row[str] | Skipped]:
    """Yield the text of each `element`. A document type or an entity declaration ends the file."""
    raise NotImplementedError


def claims(
    rows: Iterable[Row[T] | Skipped], build: Callable[[int, T], Claim | Skipped | None]
) -> Iterator[Claim | Skipped]:
    """Turn each row into its claim with `build(row number, item)`; `Skipped` pass through, None is no finding."""
    raise NotImplementedError
