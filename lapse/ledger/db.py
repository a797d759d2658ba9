"""The database behind a ledger: SQLite in a file, or PostgreSQL. What both promise, and how an address names one.

Transactions are short. A read sees one consistent state and never waits for a writer; writers work one at a time, in
and across processes and machines, because each event holds the hash of the one before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from platformdirs import user_data_path

from lapse.ledger.errors import LedgerError, Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from lapse.ledger.raw import Raw

T = TypeVar("T")
TRIES = 5
"""How often one transaction is begun again when the server goes away in the middle of it."""

POSTGRES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
"""The schemes of an address that names a PostgreSQL database."""


class Database(ABC):
    """The database and its connections. Safe to share among threads. `name` may be shown: it holds no password."""

    name: str
    few_findings: str
    """SQL that joins to `credentials c` at most `?` findings `f` of each."""

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """Give a connection that sees one consistent state until the block ends."""

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """Give a connection that holds the write lock; commits at the end of the block, rolls back on any exception."""

    @abstractmethod
    def raw(self, connection: Connection) -> Raw:
        """Return the driver's own connection, for the hot paths."""

    @abstractmethod
    def tables(self, connection: Connection) -> frozenset[str]:
        """Return the names of the tables that are there."""

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Make what the tables will stand in, inside a write transaction."""

    @abstractmethod
    def beside(self, ledger: str) -> Path:
        """Return the path that files of this machine about the ledger (locks, the engine's tables) stand beside."""

    @abstractmethod
    def alone(self, ledger: str) -> AbstractContextManager[bool]:
        """Give whether the caller is the only one, anywhere, who holds this while the block lasts."""

    @abstractmethod
    def flush(self) -> bool:
        """Get rid of what deleted rows leave behind; False where that cannot be promised."""

    @abstractmethod
    def again(self) -> Database:
        """Open a second way into the same database."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of one query."""
        return self.look(lambda connection: self.raw(connection).execute(sql, tuple(args)).fetchall())

    def look(self, body: Callable[[Connection], T]) -> T:
        """Run `body` on one consistent state, again where the server went away in the middle of it."""
        for attempt in range(1, TRIES + 1):
            try:
                with self.read() as connection:
                    return body(connection)
            except Lost:
                if attempt == TRIES:
                    raise
        raise AssertionError  # the loop returns or raises

    def stream(self, sql: str, args: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of one query, of one consistent state, however many; the transaction lasts as long."""
        with self.read() as connection:
            streaming = connection.execution_options(stream_results=True)
            with streaming.exec_driver_sql(sql, tuple(args)) as result:
                yield from result

    def transact(self, body: Callable[[Raw], T]) -> T:
        """Run `body` in a write transaction and return what it returned, committed.

        Where the server goes away in the middle, `body` is called again. Where it goes away at the very commit, the
        event that `body` appended tells whether the commit came through: nothing is ever written twice.
        """
        for attempt in range(1, TRIES + 1):
            raw: Raw | None = None
            said: list[T] = []
            try:
                with self.write() as connection:
                    raw = self.raw(connection)
                    said.append(body(raw))
            except Lost:
                told = None if raw is None else raw.told
                if told is not None and self._holds(*told):
                    return said[0]
                if attempt == TRIES:
                    raise
            else:
                return said[0]
        raise AssertionError  # the loop returns or raises

    def _holds(self, seq: int, digest: bytes) -> bool:
        """Say whether an event is there. Asked with the write lock: whoever was writing it has ended then."""
        for attempt in range(1, TRIES + 1):
            try:
                with self.write() as connection:
                    row = self.raw(connection).execute("SELECT hash FROM events WHERE seq=?", (seq,)).fetchone()
                    return row is not None and bytes(row[0]) == digest
            except Lost:
                if attempt == TRIES:
                    raise
        raise AssertionError  # the loop returns or raises


def database(address: str | Path, state: Path | None = None) -> Database:
    """Open what `address` names: a path, `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`.

    A file is made where there is none; PostgreSQL is not spoken to yet. `state` is the folder for files of this machine
    that a file ledger keeps beside itself (the user's data folder by default). Anything else is a `LedgerError`, which
    never repeats the address.
    """
    if is_postgres(address):
        from lapse.ledger.postgres import Postgres  # noqa: PLC0415  # psycopg is slow to import

        return Postgres(str(address), state or user_data_path("lapse"))
    from lapse.ledger.sqlite import Sqlite  # noqa: PLC0415  # not needed beside PostgreSQL

    return Sqlite(path_of(address))


def is_postgres(address: str | Path) -> bool:
    """Say whether an address names a PostgreSQL database."""
    return isinstance(address, str) and address.partition("://")[0] in POSTGRES and "://" in address


def path_of(address: str | Path) -> Path:
    """Return the file that `address` (a path or `sqlite:///PATH`) names; another database's URL is a `LedgerError`."""
    if isinstance(address, Path):
        return address
    scheme, found, rest = address.partition("://")
    if not found:
        return Path(address)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Path(rest[1:])
    raise LedgerError("the ledger's address is none; give a file path, sqlite:///PATH or postgresql://USER@HOST/DB")


def shown(address: str | Path) -> str:
    """Return an address as it may be shown: without user, password and parameters."""
    if not is_postgres(address):
        return str(path_of(address))
    try:
        url = urlsplit(str(address))
    except ValueError:  # brackets that are no IPv6 address
        return "postgresql://…"
    return f"postgresql://{url.netloc.rpartition('@')[2]}{url.path}"
