"""One SQLite file, opened the same way everywhere: WAL, short transactions, nothing readable by others.

What is committed outlives a killed process. A power cut may take the last moments (`synchronous=NORMAL`), never more:
the chain then ends earlier, and is whole.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, create_engine, event

from lapse.ledger.errors import LedgerError, explained

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_MS = 30_000
_CACHE_KIB = 16_384
_WAL_PAGES = 8_000
_OPEN_TRIES = 60


def path_of(address: str | Path) -> Path:
    """Return the file that `address` (a path or `sqlite:///PATH`) names; another database's URL is a `LedgerError`."""
    if isinstance(address, Path):
        return address
    scheme, found, rest = address.partition("://")
    if not found:
        return Path(address)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Path(rest[1:])
    raise LedgerError(f"the ledger cannot be kept in {scheme}:// yet; give a file path or sqlite:///PATH")


class Database:
    """The file and its connections. Safe to share among threads; one writer at a time, in and across processes."""

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

    def close(self) -> None:
        """Close every connection; the last process to do so leaves no `-wal` file behind."""
        self._engine.dispose()


def driver(connection: Connection) -> sqlite3.Connection:
    """Return the driver's own connection, for the hot paths."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise LedgerError("the hot paths speak SQLite only")
    return raw


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
