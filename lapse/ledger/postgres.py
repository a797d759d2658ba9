"""A PostgreSQL database, spoken to so that a lost connection, a frozen writer or a pooler between does no harm.

- The tables stand in a schema of their own (`lapse`, or `?schema=NAME`), so that a database may be shared.
- Writers work one at a time under an advisory lock of the transaction; readers never wait. What a transaction needs is
  said at its beginning, in one message, with `SET LOCAL`: no state of the session is relied upon, and PgBouncer in
  transaction mode does no harm.
- A writer that froze, or whose machine is gone, loses its lock after `IDLE_S`; one that waits gives up after `LOCK_S`.
- A server that went away is waited for, `PATIENCE_S` at most, at the beginning of a transaction, where nothing is
  written yet. In the middle of one it is `Lost`, and `Database.transact` begins again.

The password comes with the address, or by libpq's own ways: PGPASSWORD, ~/.pgpass, PGSERVICE.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import BigInteger, Connection, Integer, Text, create_engine, event
from sqlalchemy.exc import DBAPIError

from lapse.ledger.db import Database, shown
from lapse.ledger.errors import LedgerError, Lost
from lapse.ledger.pgerrors import passing, sentence, unreached
from lapse.ledger.schema import TURNED, metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.engine.interfaces import ExecutionContext

TURNED.dialect_options["postgresql"]["where"] = TURNED.dialect_options["sqlite"]["where"]

SCHEMA = "lapse"
PATIENCE_S = 60.0
LOCK_S = 30
IDLE_S = 10
READ_S = 3600
_FEW = 4
_FETCH = 5_000
_CONNECT: Mapping[str, str] = {
    "application_name": "lapse",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}
"""What a connection is made with, unless the address says otherwise: a dead server is noticed within 15 s."""


class Postgres(Database):
    """The database and its connections."""

    few_findings = "CROSS JOIN LATERAL (SELECT * FROM findings WHERE credential = c.id LIMIT ?) f"

    def __init__(self, address: str, state: Path) -> None:
        """Take the address; nobody is spoken to yet. One that cannot be read is a `LedgerError`."""
        self._address, self._state = address, state
        self.name = shown(address)
        self._params, self.schema = _read(address)
        self._writing = threading.RLock()
        self._met = False
        # Pages are read on from a key: a merge join would begin at the first one each time. Compiling plans never pays.
        local = (
            f'SET LOCAL search_path = "{self.schema}", pg_temp; SET LOCAL jit = off; SET LOCAL enable_mergejoin = off;'
            " SET LOCAL idle_in_transaction_session_timeout"
        )
        self._begin_read = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {local} = '{READ_S}s'"
        # Every look-up of a writer goes by an index; plans must not turn to whole tables because statistics are old.
        self._begin_write = (
            f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {local} = '{IDLE_S}s';"
            f" SET LOCAL lock_timeout = '{LOCK_S}s'; SET LOCAL tcp_user_timeout = '{IDLE_S}s';"
            " SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
            f" SELECT pg_advisory_xact_lock({_number(self.schema, 'write')})"
        )
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            hide_parameters=True,
            use_native_hstore=False,
            pool_size=4,
            max_overflow=28,
            pool_use_lifo=True,
        )
        event.listen(self._engine, "begin", self._begin)
        event.listen(self._engine, "before_cursor_execute", _translate, retval=True)

    def _connect(self) -> psycopg.Connection[Any]:
        # BEGIN is ours to say; a pooler need not keep prepared statements.
        return psycopg.connect(**cast("Any", self._params), autocommit=True, prepare_threshold=None)

    def _begin(self, connection: Connection) -> None:
        write = connection.get_execution_options().get("lapse_write", False)
        connection.exec_driver_sql(self._begin_write if write else self._begin_read)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent state until the block ends."""
        with self._within(write=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that holds the write lock; commits at the end of the block, rolls back on any exception."""
        with self._writing, self._within(write=True) as connection:
            yield connection

    @contextmanager
    def _within(self, *, write: bool) -> Iterator[Connection]:
        connection = self._begun(write=write)
        try:
            yield connection
            connection.commit()
        except (psycopg.Error, DBAPIError) as error:
            origin = error.orig if isinstance(error, DBAPIError) else error
            if self._gone(connection):
                connection.invalidate()
                raise Lost(f"the connection to the ledger {self.name} was lost; run the command again") from None
            raise sentence(origin, self.name) from None
        finally:
            connection.close()

    def _begun(self, *, write: bool) -> Connection:
        """Return a connection with a transaction begun.

        A server that went away is waited for, unless it was never met: a wrong address should be told at once.
        """
        started = time.monotonic()
        for attempt in count():
            connection: Connection | None = None
            try:
                connection = self._engine.connect().execution_options(lapse_write=write)
                connection.begin()
            except DBAPIError as error:
                lost = connection is not None and self._gone(connection)
                if connection is not None:
                    connection.close()
                away = lost or unreached(error.orig)
                patience = PATIENCE_S if lost or self._met or passing(error.orig) else 0.0
                if not away or time.monotonic() - started >= patience:
                    raise sentence(error.orig, self.name) from None
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            else:
                self._met = True
                return connection
            time.sleep(min(1.0, 0.05 * attempt))
        raise AssertionError  # it counts for ever

    @staticmethod
    def _gone(connection: Connection) -> bool:
        if connection.invalidated:
            return True
        raw = connection.connection.driver_connection
        return raw is None or bool(raw.closed)

    def raw(self, connection: Connection) -> PostgresRaw:
        """Return the driver's own connection, for the hot paths."""
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)  # noqa: S101  # made by this class
        return PostgresRaw(raw)

    def tables(self, connection: Connection) -> frozenset[str]:
        """Return the names of the tables that are there."""
        sql = (
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = ? AND c.relkind IN ('r', 'p')"
        )
        return frozenset(str(row[0]) for row in connection.exec_driver_sql(sql, (self.schema,)))

    def prepare(self, connection: Connection) -> None:
        """Make the schema. Asked for first: to make one needs a right that a user of a ready one may lack."""
        if not connection.exec_driver_sql("SELECT 1 FROM pg_namespace WHERE nspname = ?", (self.schema,)).first():
            connection.exec_driver_sql(f'CREATE SCHEMA "{self.schema}"')

    def beside(self, ledger: str) -> Path:
        """Return a path in this machine's state folder, which is made."""
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise LedgerError(f"the folder {self._state} cannot be made: {reason}; set XDG_DATA_HOME") from None
        return self._state / f"ledger-{ledger}"

    @contextmanager
    def alone(self, ledger: str) -> Iterator[bool]:
        """Hold an advisory lock in a transaction of its own, which sees nothing and hinders nobody.

        It goes with the connection: with the process, and with the server too.
        """
        number = _number(self.schema, f"alone {ledger}")
        begin = (
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0;"
            f" SET LOCAL tcp_keepalives_idle = {IDLE_S}; SET LOCAL tcp_keepalives_interval = {IDLE_S};"
            " SET LOCAL tcp_keepalives_count = 3"
        )
        try:
            held = self._connect()
        except psycopg.Error as error:
            raise sentence(error, self.name) from None
        try:
            try:
                held.execute(begin)
                row = held.execute(f"SELECT pg_try_advisory_xact_lock({number})").fetchone()
            except psycopg.Error as error:
                raise sentence(error, self.name) from None
            yield bool(row and row[0])
        finally:
            held.close()

    def flush(self) -> bool:
        """Vacuum deleted secrets away. Always False: the server's log, backups and replicas keep them for a time."""
        try:
            with self._connect() as own:
                own.execute(f'VACUUM "{self.schema}".sealed')
        except psycopg.Error:
            pass  # autovacuum will come by
        return False

    def again(self) -> Postgres:
        """Open the database a second time."""
        return Postgres(self._address, self._state)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class PostgresRaw:
    """`lapse.ledger.raw.Raw` on psycopg."""

    __slots__ = ("_raw", "_streams", "told")

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        """Take the driver's connection."""
        self._raw = raw
        self._streams = 0
        self.told: tuple[int, bytes] | None = None

    def execute(self, sql: str, args: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Run one statement."""
        return self._raw.execute(_placed(sql), tuple(args))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of values, without waiting for each answer."""
        if rows:
            with self._raw.cursor() as cursor:
                cursor.executemany(_placed(sql), rows)

    def stream(self, sql: str, args: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query by a cursor of the server's."""
        self._streams += 1
        with self._raw.cursor(f"stream_{self._streams}") as cursor:
            cursor.itersize = _FETCH
            cursor.execute(_placed(sql), tuple(args), binary=True)
            yield from cursor

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], same: Mapping[str, int] | None = None
    ) -> None:
        """Insert many rows by COPY, a few by themselves."""
        more = tuple((same or {}).values())
        names = ",".join(f'"{name}"' for name in (*columns, *(same or {})))
        if len(rows) <= _FEW:
            marks = ",".join(["?"] * (len(columns) + len(more)))
            self.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", [(*row, *more) for row in rows])
            return
        with self._raw.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([*_kinds(table, columns), *_kinds(table, tuple(same or {}))])
            write = copy.write_row
            if more:
                for row in rows:
                    write((*row, *more))
            else:
                for row in rows:
                    write(row)

    def put(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of many rows in one statement."""
        self._change(table, key, columns, rows, "{0}=v.{0}")

    def add(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Add to columns of many rows in one statement."""
        self._change(table, key, columns, rows, "{0}=t.{0}+v.{0}")

    def _change(self, table: str, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], change: str) -> None:
        if not rows:
            return
        names = (*columns, key)
        changes = ",".join(change.format(name) for name in columns)
        arrays = ",".join(f"?::{kind}[]" for kind in _kinds(table, names))
        sql = f"UPDATE {table} t SET {changes} FROM unnest({arrays}) v({','.join(names)}) WHERE t.{key}=v.{key}"
        self.execute(sql, [list(column) for column in zip(*rows, strict=True)])

    def near(self, ranges: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes, str, int, int, int]]:
        """Yield the credentials in these ranges of hashes."""
        if ranges:
            yield from self.execute(_NEAR, [list(side) for side in zip(*ranges, strict=True)])

    def known(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int, int | None, int]]:
        """Return those of the (credential, place) pairs that are in the table."""
        if not pairs:
            return []
        return self.execute(_KNOWN, [list(side) for side in zip(*pairs, strict=True)]).fetchall()


# OFFSET 0 and the small queries keep the planner to one range of the index a pair, however wrong its guesses are.
_NEAR = (
    "SELECT n.id, n.hash, n.vendor, n.digits, (SELECT s.kept FROM states s WHERE s.credential = n.id),"
    " (SELECT s.last_scan FROM states s WHERE s.credential = n.id)"
    " FROM unnest(?::bytea[], ?::bytea[]) k(low, high) CROSS JOIN LATERAL (SELECT c.id, c.hash, c.vendor, c.digits"
    " FROM credentials c WHERE c.hash >= k.low AND c.hash < k.high OFFSET 0) n"
)
_KNOWN = (
    "SELECT f.credential, f.place, f.id, f.last_scan, f.removed, f.whole FROM unnest(?::bigint[], ?::bigint[]) k(c, p)"
    " JOIN findings f ON f.credential = k.c AND f.place = k.p"
)


@lru_cache(512)
def _placed(sql: str) -> str:
    """Return a statement with psycopg's placeholders."""
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(256)
def _kinds(table: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return what PostgreSQL calls the types of columns."""
    found = []
    for name in columns:
        kind = metadata.tables[table].columns[name].type
        if isinstance(kind, Text):
            found.append("text")
        elif isinstance(kind, BigInteger):
            found.append("bigint")
        else:
            found.append("integer" if isinstance(kind, Integer) else "bytea")
    return tuple(found)


def _translate(  # SQLAlchemy's own signature
    _connection: Connection,
    _cursor: object,
    statement: str,
    parameters: Any,  # noqa: ANN401  # whatever the statement takes
    context: ExecutionContext | None,
    _many: bool,  # noqa: FBT001  # as above
) -> tuple[str, Any]:
    """Give the driver its own placeholders where a statement was written by hand."""
    by_hand = context is None or context.compiled is None
    return (_placed(statement) if by_hand else statement), parameters


def _read(address: str) -> tuple[dict[str, Any], str]:
    """Return libpq's parameters and the schema of an address. The address is never repeated in what is said."""
    try:
        url = urlsplit(address)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        schema = query.pop("schema", SCHEMA)
        plain = urlunsplit(("postgresql", url.netloc, url.path, urlencode(query), ""))
        params = dict(_CONNECT) | conninfo_to_dict(plain)
    except (ValueError, psycopg.Error):
        said = "the ledger's PostgreSQL address cannot be read; write postgresql://USER@HOST:PORT/DATABASE"
        raise LedgerError(said) from None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
        raise LedgerError("the schema in the ledger's address must be a plain name: letters, digits and underscores")
    return params, schema


def _number(schema: str, what: str) -> int:
    """Return the number of an advisory lock; they are the whole database's, so schema and purpose are in it."""
    return int.from_bytes(blake2b(f"lapse {schema} {what}".encode(), digest_size=8).digest(), "big", signed=True)
