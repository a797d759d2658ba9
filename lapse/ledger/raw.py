"""What the ledger's hot paths ask of a driver, whichever database is behind it: SQL with `?`, and a few bulk moves.

SQL is shared wherever the two databases read it alike. What they don't (bulk look-ups, `COPY`) has a method here and
one implementation in `sqlite` and in `postgres` each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Rows(Protocol):
    """The rows of one query."""

    def fetchone(self) -> Any:  # noqa: ANN401  # a tuple of the columns, None at the end
        """Return the next row, None at the end."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Yield all rows that are left."""
        ...


class Raw(Protocol):
    """One connection inside a transaction. `told` is number and hash of the event that was appended in it last.

    Table and column names are the schema's own words; values always travel apart from the SQL.
    """

    told: tuple[int, bytes] | None

    def execute(self, sql: str, args: Sequence[Any] = ()) -> Rows:
        """Run one statement with `?` for each value."""
        ...

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        ...

    def stream(self, sql: str, args: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query, which need not fit into memory; other statements may run in between."""
        ...

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], same: Mapping[str, int] | None = None
    ) -> None:
        """Insert many rows; `same` are further columns with one number for all of them."""
        ...

    def put(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of many rows. Each of `rows` is the new values, then the key's; each key comes once."""
        ...

    def add(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Add to columns of many rows. Each of `rows` is what to add, then the key's value; each key comes once."""
        ...

    def near(self, ranges: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes, str, int, int, int]]:
        """Yield id, hash, vendor, digits, kept and last scan of the credentials whose hash lies in [low, high)."""
        ...

    def known(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int, int | None, int]]:
        """Return credential, place, id, last scan, removed and whole of the findings at these (credential, place)."""
        ...
