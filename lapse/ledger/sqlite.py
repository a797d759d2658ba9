"""One SQLite file, opened the same way everywhere: WAL, short transactions, nothing readable by others.

What is committed outlives a killed process. A power cut may take the last moments (`synchronous=NORMAL`), never more:
the chain then ends earlier, and is whole.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, create_engine, event

from lapse.ledger.db import Database
from lapse.ledger.errors import LedgerError, explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

BUSY_MS = 30_000
_CACHE_KIB = 16_384
_WAL_PAGES = 8_000
_OPEN_TRIES = 60
_PAIRS = 256


class Sqlite(Database):
    """The file and its connections. Safe to share among threads; one writer at a time, in and across processes."""

    few_findings = "JOIN findings f ON f.id IN (SELECT id FROM findings WHERE credential = c.id LIMIT ?)"

    def __init__(self, path: Path) -> None:
        """Open `path`, making it (mode 0600) where it is not there."""
        self.path = path
        self.name = str(path)
        self._writing = threading.RLock()
        self._make_private()
        self._engine = create_engine(
            URL.create("sqlite+pysqlite", database=self.name),
            hide_parameters=True,
            connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)

    def _make_private(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.touch(mode=0o600)
            elif self.path.is_file() and self.path.stat().st_mode & 0o077:
                self.path.chmod(0o600)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise LedgerError(f"the ledger {self.name} cannot be opened: {reason}; check the folder's owner") from None
        if not self.path.is_file():
            raise LedgerError(f"the ledger {self.name} is not a file; give the path of a file")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent state until the block ends."""
        with explained(self.name), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that holds the write lock; commits at the end of the block, rolls back on any exception."""
        with (
            self._writing,
            explained(self.name),
            self._engine.connect().execution_options(lapse_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def raw(self, connection: Connection) -> SqliteRaw:
        """Return the driver's own connection, for the hot paths."""
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)  # noqa: S101  # made by this class
        return SqliteRaw(raw)

    def tables(self, connection: Connection) -> frozenset[str]:
        """Return the names of the tables that are there."""
        found = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type='table'")
        return frozenset(str(row[0]) for row in found)

    def prepare(self, connection: Connection) -> None:
        """Do nothing: the file is there."""

    def beside(self, ledger: str) -> Path:  # noqa: ARG002  # a file is one ledger
        """Return the file itself."""
        return self.path

    @contextmanager
    def alone(self, ledger: str) -> Iterator[bool]:  # noqa: ARG002  # a file is one ledger
        """Hold `PATH.lock`, which the system lets go when the process ends, however it does."""
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def flush(self) -> bool:
        """Copy the write-ahead log into the file and empty it; False when a reader of another process held it back."""
        for attempt in range(5):
            with self._writing, explained(self.name):
                raw = self._engine.raw_connection()
                try:
                    busy = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                finally:
                    raw.close()
            if not busy:
                return True
            time.sleep(0.05 * attempt)
        return False

    def again(self) -> Sqlite:
        """Open the file a second time."""
        return Sqlite(self.path)

    def close(self) -> None:
        """Close every connection; the last process to do so leaves no `-wal` file behind."""
        self._engine.dispose()


class SqliteRaw:
    """`lapse.ledger.raw.Raw` on sqlite3."""

    __slots__ = ("_raw", "told")

    def __init__(self, raw: sqlite3.Connection) -> None:
        """Take the driver's connection."""
        self._raw = raw
        self.told: tuple[int, bytes] | None = None

    def execute(self, sql: str, args: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._raw.execute(sql, args)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        self._raw.executemany(sql, rows)

    def stream(self, sql: str, args: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a query: SQLite's rows always come one by one."""
        return self._raw.execute(sql, args)

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], same: Mapping[str, int] | None = None
    ) -> None:
        """Insert many rows; numbers that are the same in all of them stand in the statement."""
        same = same or {}
        names = ",".join(f'"{name}"' for name in (*columns, *same))
        marks = ",".join(["?"] * len(columns) + [str(int(value)) for value in same.values()])
        self._raw.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)

    def put(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of many rows."""
        changes = ",".join(f"{name}=?" for name in columns)
        self._raw.executemany(f"UPDATE {table} SET {changes} WHERE {key}=?", rows)

    def add(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Add to columns of many rows."""
        changes = ",".join(f"{name}={name}+?" for name in columns)
        self._raw.executemany(f"UPDATE {table} SET {changes} WHERE {key}=?", rows)

    def near(self, ranges: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes, str, int, int, int]]:
        """Yield the credentials in these ranges of hashes."""
        for start in range(0, len(ranges), _PAIRS):
            yield from self._raw.execute(_NEAR, _flat(ranges[start : start + _PAIRS]))

    def known(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int, int | None, int]]:
        """Return those of the (credential, place) pairs that are in the table."""
        found: list[tuple[int, int, int, int, int | None, int]] = []
        for start in range(0, len(pairs), _PAIRS):
            found += self._raw.execute(_KNOWN, _flat(pairs[start : start + _PAIRS]))
        return found


# One statement for any number of pairs: what is prepared once is used again. CROSS JOIN holds SQLite to this order.
_NEAR = (
    "WITH k(low, high) AS (VALUES "  # fixed text
    + ",".join(["(?,?)"] * _PAIRS)
    + ") SELECT c.id, c.hash, c.vendor, c.digits, s.kept, s.last_scan FROM k CROSS JOIN credentials c"
    " ON c.hash >= k.low AND c.hash < k.high JOIN states s ON s.credential = c.id"
)
_KNOWN = (
    "WITH k(c, p) AS (VALUES "  # fixed text
    + ",".join(["(?,?)"] * _PAIRS)
    + ") SELECT f.credential, f.place, f.id, f.last_scan, f.removed, f.whole FROM k CROSS JOIN findings f"
    " ON f.credential = k.c AND f.place = k.p"
)


def _flat(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Return the values one after another, filled up with nulls, which match nothing."""
    flat = [value for pair in pairs for value in pair]
    return flat + [None] * (2 * _PAIRS - len(flat))


def _prepare(raw: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401  # SQLAlchemy's own record, unused
    raw.isolation_level = None  # BEGIN is ours to say
    raw.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    for attempt in range(_OPEN_TRIES):
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:  # the switch to WAL does not wait by itself
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or attempt == _OPEN_TRIES - 1:
                raise
            time.sleep(0.05)
    for pragma in (
        "synchronous=NORMAL",
        "secure_delete=ON",
        f"cache_size=-{_CACHE_KIB}",
        f"wal_autocheckpoint={_WAL_PAGES}",
        "journal_size_limit=67108864",
    ):
        raw.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("lapse_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
