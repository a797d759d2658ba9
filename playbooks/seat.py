"""A seat at one PostgreSQL: which executor is alive, who goes on for a dead one, and an end for who lost touch.

Each process start has an id of its own, never used again, and a session that holds an advisory lock on it. The lock is
the only sign of life: the server lets go of it when the process dies, when its machine is cut off, and when the session
is silent for `LEASE` seconds because the process is frozen. Whoever then gets the lock has DBOS recover the dead one's
work (`playbooks.recover`). A process that could not refresh its session for `FENCE` seconds, which is less, ends
itself: what it was about may already be in other hands.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, NoReturn

import psycopg
from dbos import DBOS

if TYPE_CHECKING:
    from collections.abc import Iterable

BEAT = 1.0
"""Seconds between two signs of life."""

FENCE = 6.0
"""Seconds without an answer after which a process ends itself."""

LEASE = 10.0
"""Seconds of silence after which the server ends the session and so frees the lock."""

LOST = 70
"""Exit code of a process that ended itself. Whoever supervises it starts it again."""

PREFIX = "lapse-seat-"
_SEATS = "lapse/seat"
_TRIES = 3
_PATIENCE = 60.0


class NoSeatError(Exception):
    """The database cannot be what several executors share; one sentence says why and what to do."""


class Seat:
    """This process's place among the executors of a database. `take`, then launch DBOS, then `guard`; `leave` at last.

    `roles` are further names, such as "rotations of ledger x", by which `seated` counts who is there.
    """

    def __init__(self, url: str, roles: Iterable[str] = (), *, spare: bool = False) -> None:
        """Take the database's URL; connects to nothing yet.

        `spare`: keep a process ready that recovers for the dead (some 70 MB): a takeover then takes no start of Python.
        """
        self._url = libpq(url)
        self._keep = spare
        self._spare: subprocess.Popen[bytes] | None = None
        self._roles = tuple(roles)
        self._held = threading.Lock()
        self._over = threading.Event()
        self._session: psycopg.Connection[tuple[object, ...]] | None = None
        self._seen = time.monotonic()
        self.executor = _fresh()

    def take(self) -> None:
        """Connect, refuse what cannot work (`NoSeatError`), and take the lock."""
        session = connect(self._url)
        try:
            refuse_pools(session, self._url)
            while not _lock(session, _SEATS, self.executor):
                self.executor = _fresh()  # another id has the same number: one in four thousand million
            for role in self._roles:
                _lock(session, role, self.executor)
        except BaseException:
            session.close()
            raise
        self._session, self._seen = session, time.monotonic()
        threading.Thread(target=self._beat, daemon=True, name="seat-beat").start()
        threading.Thread(target=self._watchdog, daemon=True, name="seat-watchdog").start()

    def guard(self) -> None:
        """Look from now on for executors that died, and have their work gone on with. Call it after `DBOS.launch`."""
        threading.Thread(target=self._watch, daemon=True, name="seat-watch").start()

    def clock(self) -> float:
        """Return the monotonic time; a process that was out of touch for too long ends here instead of going on."""
        now = time.monotonic()
        if now - self._seen > FENCE and not self._over.is_set():
            _end("was frozen or cut off")
        return now

    def leave(self) -> None:
        """Let go of the lock: what this process left unfinished is anybody's from now on."""
        self._over.set()
        with self._held, contextlib.suppress(psycopg.Error):
            if self._session is not None:
                self._session.close()
        if self._spare is not None:
            self._spare.kill()
            self._spare.communicate()

    # ── signs of life ──────────────────────────────────────────────────────────────────────────────────

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            at = time.monotonic()
            try:
                with self._held:
                    self._ask("SELECT 1")
            except psycopg.Error:
                if not self._over.is_set():
                    _end("lost its session at the database")
                return
            self._seen = at

    def _watchdog(self) -> None:
        while not self._over.wait(0.2):
            self.clock()

    def _ask(self, sql: str, args: tuple[object, ...] = ()) -> object:
        if self._session is None:
            raise psycopg.OperationalError("no session")
        row = self._session.execute(sql, args).fetchone()
        return None if row is None else row[0]

    # ── going on for the dead ──────────────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        if self._keep:
            self._spare = helper()
        while not self._over.wait(random.uniform(0.35, 0.65)):  # noqa: S311  # so that not all look at once
            with contextlib.suppress(Exception):  # the database is away: `_beat` decides what that means
                for dead, version in self._others():
                    self._go_on_for(dead, version)

    def _others(self) -> set[tuple[str, str]]:
        found = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        others = {(w.executor_id, w.app_version) for w in found if w.executor_id and w.app_version}
        return {(e, v) for e, v in others if e.startswith(PREFIX) and e != self.executor}

    def _go_on_for(self, dead: str, version: str) -> None:
        with self._held:
            free = self._ask("SELECT pg_try_advisory_lock(%s, %s)", _numbers(_SEATS, dead))
        if not free:
            return
        try:
            # Again, under the lock: somebody else may have been here a moment ago.
            if DBOS.list_workflows(executor_id=dead, status="PENDING", load_input=False, load_output=False):
                ready, self._spare = self._spare or helper(), None
                recover(ready, self._url, dead, version)
        finally:
            with self._held:
                self._ask("SELECT pg_advisory_unlock(%s, %s)", _numbers(_SEATS, dead))
            if self._keep and self._spare is None and not self._over.is_set():
                self._spare = helper()


def helper() -> subprocess.Popen[bytes]:
    """Start the process that `recover` speaks to; it ends by itself when this one does."""
    words = [sys.executable, "-m", "playbooks.recover"]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603  # our own words


def recover(ready: subprocess.Popen[bytes], url: str, dead: str, version: str) -> None:
    """Have DBOS recover what a dead executor left, in a process of its own: DBOS knows one executor id a process.

    The URL goes in by stdin: it may hold a password, and everybody can read a command line. Its patience begins when
    the helper is up, which takes a machine with too much to do longer than any patience: begun anew each time, it would
    never be.
    """
    if ready.stdout is not None:
        ready.stdout.readline()
    try:
        ready.communicate(json.dumps([url, dead, version]).encode(), timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        ready.kill()
        ready.communicate()


def seated(url: str, role: str) -> int:
    """Count the executors in a role that are alive now. Raises `NoSeatError`."""
    sql = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
        " AND classid = %s::bigint::oid"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with connect(libpq(url)) as session:
        row = session.execute(sql, (_number(role) & 0xFFFFFFFF,)).fetchone()
    return int(str(row[0])) if row else 0


def libpq(url: str) -> str:
    """Return a URL as PostgreSQL's own library reads it: without SQLAlchemy's `+driver` and a ledger's `schema`."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    kept = "&".join(word for word in query.split("&") if word and not word.startswith("schema="))
    return f"{scheme.partition('+')[0]}://{rest}{'?' if kept else ''}{kept}"


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Open a session that the server ends when it is silent or cut off. Raises `NoSeatError`, without the password."""
    try:
        session = psycopg.connect(
            url, autocommit=True, connect_timeout=5, application_name="lapse seat",
            keepalives_idle=4, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=3000,
        )  # fmt: skip
    except psycopg.Error as e:
        raise NoSeatError(f"PostgreSQL cannot be reached ({_reason(e)}); look at the URL and at the server") from None
    try:
        session.execute(f"SET idle_session_timeout = {round(LEASE * 1000)}")
        for name, value in (("idle", 4), ("interval", 2), ("count", 3)):
            session.execute(f"SET tcp_keepalives_{name} = {value}")
        session.execute("SET tcp_user_timeout = 10000")
    except psycopg.errors.UndefinedObject:
        session.close()
        raise NoSeatError("PostgreSQL 14 or newer is needed: older ones never end a silent session") from None
    except psycopg.Error as e:
        session.close()
        raise NoSeatError(f"PostgreSQL does not take our session ({_reason(e)})") from None
    return session


def refuse_pools(session: psycopg.Connection[tuple[object, ...]], url: str) -> None:
    """Refuse a pool that gives one session to several clients (PgBouncer's transaction mode): locks there hold nothing.

    Two connections each take the same lock inside a transaction of theirs. Only one session gets it twice.
    """
    probe = (_number("lapse/pool"), _number(uuid.uuid4().hex))
    for _ in range(_TRIES):
        session.execute("SELECT pg_try_advisory_lock(%s, %s)", probe)
        with connect(url) as other, other.transaction():
            row = other.execute("SELECT pg_try_advisory_lock(%s, %s)", probe).fetchone()
            shared = row is None or bool(row[0])
        row = session.execute("SELECT pg_advisory_unlock(%s, %s)", probe).fetchone()
        if shared or row is None or not row[0]:
            raise NoSeatError(
                "this address is a pool in transaction mode (PgBouncer?), where a lock holds nothing; "
                "give the address of PostgreSQL itself, or of a pool in session mode"
            )


def _lock(session: psycopg.Connection[tuple[object, ...]], group: str, name: str) -> bool:
    row = session.execute("SELECT pg_try_advisory_lock(%s, %s)", _numbers(group, name)).fetchone()
    return row is not None and bool(row[0])


def _numbers(group: str, name: str) -> tuple[int, int]:
    return _number(group), _number(name)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big", signed=True)


def _fresh() -> str:
    return f"{PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _reason(error: psycopg.Error) -> str:
    """Return what may be told of an error: never the connection string."""
    said = " ".join(str(error).split())
    if "unsupported startup parameter" in said:
        return "a pool refuses our settings"
    for word in ("password authentication failed", "does not exist", "no pg_hba.conf entry", "timeout", "refused"):
        if word in said:
            return word
    return type(error).__name__


def _end(why: str) -> NoReturn:
    """End this process on the spot: no clean-up, for its work may be in other hands."""
    said = f"lapse: this process {why}; it ends here, others go on with its work\n"
    with contextlib.suppress(OSError):
        os.write(2, said.encode())
    os._exit(LOST)
