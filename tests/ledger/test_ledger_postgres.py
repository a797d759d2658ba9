"""What only a database server can do to a ledger: go away, come back, refuse, keep somebody waiting."""

from __future__ import annotations

import subprocess
import traceback
from threading import Thread
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import servers
from ledger_making import KEY, dead, finding, fresh, ingest, judged, live, made, name_of, rows, scan
from ledger_wire import Cut, Wire
from presence import started

from lapse.ledger import Busy, Kept, LedgerError, NewerSchema, Scan, Select, Told, open_ledger, postgres, schema
from lapse.ledger import made as is_there
from lapse.ledger.check import check
from lapse.ledger.db import database, shown
from lapse.ledger.errors import Lost
from lapse.ledger.pgerrors import sentence
from lapse.ledger.schema import LOGS, metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

    from lapse.ledger import Ledger
    from lapse.ledger.raw import Raw


@pytest.fixture
def ledger(pg: str) -> Iterator[Ledger]:
    with made(pg) as opened:
        ingest(opened, [(key, 0) for key in range(5)])
        yield opened
        checked = opened.check()
        assert checked.ok, checked.problems


def tell(address: str, sql: str) -> list[Any]:
    """Run one statement by hand, in the ledger's schema."""
    url, _, name = address.partition("&schema=")
    with psycopg.connect(url, autocommit=True, options=f"-c search_path={name}") as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def told(ledger: Ledger, key: int = 1) -> int:
    return sum(isinstance(line, Told) for line in ledger.story(name_of(key)))


# ── a connection that breaks ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def wire(postgresql: Server) -> Iterator[Wire]:
    with Wire(postgresql) as wire:
        yield wire


@pytest.mark.parametrize("moment", list(Cut))
def test_a_commit_nobody_heard_of_is_written_once(pg: str, postgresql: Server, wire: Wire, moment: Cut) -> None:
    with made(pg.replace(f":{postgresql.port}/", f":{wire.port}/")) as ledger:
        ingest(ledger, [(key, 0) for key in range(5)])
        before, commits = ledger.head().seq, wire.commits
        wire.cut = moment
        ledger.record([judged(1, live())])
        assert wire.cut is None, "the wire was cut"
        assert ledger.head().seq == before + 1
        assert told(ledger) == 1
        wire.cut = moment
        count = ledger.ingest(scan(complete=True), rows([(7, 0), (8, 0), (1, 1)]))
        assert (count.findings, count.keys, count.new, count.places) == (3, 3, 2, 3)
        wire.cut = moment
        ledger.rotations.start("r-1", name_of(1), "begun", {})
        assert len(ledger.rotations.entries("r-1")) == 1
        assert ledger.status().keys == 7
        assert wire.commits > commits
        assert ledger.check().ok


def test_an_id_that_was_rolled_back_is_not_remembered(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(pg) as ledger, open_ledger(pg, KEY) as other:
        ingest(ledger, [(1, 0)], complete=True)
        insert, cut = postgres.PostgresRaw.insert, iter([True])

        def once(self: postgres.PostgresRaw, table: str, *more: Any) -> None:
            if table == "findings" and next(cut, False):
                self._raw.close()  # and with it goes the id that `acme/new` just got
                other.ingest(scan(complete=True), rows([(3, 0)], origin="acme/third"))
            insert(self, table, *more)

        monkeypatch.setattr(postgres.PostgresRaw, "insert", once)
        ledger.ingest(scan(complete=True), rows([(4, 0)], origin="acme/new"))
        ledger.ingest(scan(complete=True), rows([(3, 0)], origin="acme/third"))
        assert [key.removed_from_source for key in ledger.keys(Select())] == [False] * 3
        assert ledger.check().ok


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, str]]:
    """Run a server that may be restarted, and give a ledger's address in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with started(servers.postgresql) as server:
        try:
            yield server, fresh(server)
        finally:
            control(server, "stop")


def control(server: Server, *words: str) -> None:
    """Speak to a server as its own administrator does."""
    mode, _ = servers._as_user("postgres")
    command = [*mode, str(servers.find("pg_ctl")), "-D", str(server.folder / "data"), "-w", "-s", "-m", "fast"]
    log = ["-l", str(server.folder / "again.log")]
    subprocess.run([*command, *words, *(log if "restart" in words else [])], check=True, cwd=server.folder, timeout=60)


def test_a_server_restarted_in_the_middle_costs_nothing_but_time(own: tuple[Server, str]) -> None:
    server, address = own
    with made(address) as ledger:
        ingest(ledger, [(key, 0) for key in range(5)])
        troubles: list[BaseException] = []
        wanted, done = 40, [0]

        def work() -> None:
            try:
                for number in range(wanted):
                    ledger.record([judged(1, live(), number)])
                    done[0] = number + 1
                    assert ledger.status().keys >= 5
            except BaseException as error:  # noqa: BLE001  # told below
                troubles.append(error)

        def read() -> None:
            try:
                ledger.ingest(Scan("s", "f", "x"), (r for n in range(10_000) for r in rows([(n % 50, n)])))
            except BaseException as error:  # noqa: BLE001  # told below
                troubles.append(error)

        threads = [Thread(target=work), Thread(target=read)]
        for thread in threads:
            thread.start()
        while done[0] < 5:
            threads[0].join(0.01)
        control(server, "restart")
        for thread in threads:
            thread.join()
        assert not troubles, troubles
        assert told(ledger) == wanted
        assert ledger.status().findings == 10_000 + 4
        assert ledger.check().ok


def test_a_server_that_was_never_there_is_told_at_once(postgresql: Server) -> None:
    nobody = servers.free_port()
    address = fresh(postgresql)
    with pytest.raises(LedgerError, match="nothing listens there") as caught:
        open_ledger(address.replace(f":{postgresql.port}/", f":{nobody}/"))
    assert postgresql.admin["password"] not in str(caught.value)


# ── writers in line ────────────────────────────────────────────────────────────────────────────────────


def test_a_writer_that_froze_loses_its_lock_and_begins_again(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "IDLE_S", 0.3)
    with made(pg) as frozen, open_ledger(pg, KEY) as other:
        ingest(frozen, [(1, 0)])
        seen: list[int] = []

        def body(raw: Raw) -> int:
            seen.append(raw.execute("SELECT max(seq) FROM events").fetchone()[0])
            if len(seen) == 1:
                other.record([judged(1, live())])  # waits until the server has had enough of us
            return seen[-1]

        assert frozen._db.transact(body) == seen[0] + 1
        assert seen == [seen[0], seen[0] + 1]
        with pytest.raises(Lost), frozen._db.write():
            other.record([judged(1, dead())])


def test_who_waits_for_ever_is_told_who_is_in_the_way(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(pg) as holder:
        monkeypatch.setattr(postgres, "LOCK_S", 0.1)
        with open_ledger(pg, KEY) as other, holder._db.write():
            with pytest.raises(LedgerError, match="another process has held"):
                other.note("note", "x")  # type: ignore[arg-type]  # a kind by its word
            assert other.status().keys == 0, "readers go on"


def test_one_at_a_time_may_be_alone_wherever_it_runs(address: str) -> None:
    with made(address) as one, open_ledger(address, KEY) as two:
        with one.alone():
            with pytest.raises(Busy, match="at work on") as caught, two.alone():
                pass
            assert "password" not in str(caught.value)
            ingest(two, [(1, 0)])
        with two.alone():
            pass


# ── what a server refuses ──────────────────────────────────────────────────────────────────────────────


def test_refusals_are_told_in_a_sentence_without_the_password(postgresql: Server, pg: str) -> None:
    password = postgresql.admin["password"]
    tell(pg, "DROP ROLE IF EXISTS narrow")
    tell(pg, f"CREATE ROLE narrow LOGIN PASSWORD '{password}'")
    for old, new, said in [
        (f":{password}@", ":wrong-one@", "does not let us log in"),
        (f":{password}@", "@", "does not let us log in"),
        ("/postgres?", "/nothing?", "no such database"),
        ("admin:", "narrow:", "lacks rights"),
        ("127.0.0.1", "nowhere.invalid", "no such host"),
        ("sslmode=disable", "sslmode=verify-full&sslrootcert=/none.pem", "TLS"),
        ("sslmode=disable", "colour=red", "cannot be read"),
        ("schema=", "schema=a;b", "plain name"),
    ]:
        assert old in pg
        with pytest.raises(LedgerError) as caught:
            open_ledger(pg.replace(old, new))
        assert said in str(caught.value), caught.value
        assert password not in repr(caught.value)
        assert password not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (psycopg.errors.DiskFull, "disk that holds the ledger x is full"),
        (psycopg.errors.TooManyConnections, "max_connections"),
        (psycopg.errors.ReadOnlySqlTransaction, "name the primary"),
        (psycopg.errors.DataCorrupted, "is damaged"),
        (psycopg.errors.OutOfMemory, "out of memory"),
        (psycopg.errors.AdminShutdown, "was stopped"),
        (psycopg.errors.IoError, "error of its system"),
        (psycopg.errors.ConnectionFailure, "broke"),
        (psycopg.errors.DivisionByZero, "unknown trouble (22012)"),
        (psycopg.ProgrammingError, "unknown trouble (ProgrammingError)"),
        (psycopg.OperationalError, "the connection failed"),
    ],
)
def test_every_class_of_error_has_its_sentence(code: type[psycopg.Error], said: str) -> None:
    text = str(sentence(code("SECRET"), "x"))
    assert said in text
    assert "SECRET" not in text


def test_an_address_is_shown_without_what_opens_it() -> None:
    assert shown("postgresql://u:p%40w@h:1/db?sslmode=require&password=x") == "postgresql://h:1/db"
    assert shown("postgres://h1:1,h2:2/db") == "postgresql://h1:1,h2:2/db"
    assert shown("postgresql://u:p@[bad/db") == "postgresql://…"


# ── the tables ─────────────────────────────────────────────────────────────────────────────────────────


def made_of(address: str) -> list[Any]:
    """Return every table, column and index of a schema."""
    name = address.partition("&schema=")[2]
    columns = f"SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema='{name}'"
    indexes = f"SELECT replace(indexdef, '{name}', '') FROM pg_indexes WHERE schemaname='{name}'"
    return sorted(map(repr, tell(address, columns))) + sorted(map(repr, tell(address, indexes)))


def test_a_ledger_of_version_one_becomes_what_a_new_one_is(pg: str) -> None:
    with made(pg) as ledger:
        ingest(ledger, [(1, 0)])
    new = made_of(pg)
    tell(pg, "DROP INDEX credentials_provider, findings_holder, states_urgency; DROP TABLE rotations")
    tell(pg, "UPDATE schema_version SET version = 1")
    assert len(made_of(pg)) < len(new)
    with open_ledger(pg, KEY) as ledger:
        assert ledger.check().ok
        assert ledger.head().seq == 5, "made, scan, findings, scan-ended, migrated"
    assert made_of(pg) == new
    tell(pg, "UPDATE schema_version SET version = 70")
    with pytest.raises(NewerSchema, match=f"schema 70, this one knows {schema.VERSION}"):
        open_ledger(pg, KEY)


def test_what_is_no_ledger_is_said_to_be_none_and_nothing_is_made_by_looking(pg: str) -> None:
    assert not is_there(pg)
    name = pg.partition("&schema=")[2]
    assert tell(pg, f"SELECT 1 FROM pg_namespace WHERE nspname = '{name}'") == []
    tell(pg, f"CREATE SCHEMA {name} CREATE TABLE other (id int)")
    with pytest.raises(LedgerError, match="not a ledger of Lapse"):
        open_ledger(pg)


def test_a_user_with_rights_on_the_tables_alone_can_work(postgresql: Server, pg: str) -> None:
    with made(pg):
        pass
    name, password = pg.partition("&schema=")[2], postgresql.admin["password"]
    tell(pg, "DROP ROLE IF EXISTS clerk")
    tell(pg, f"CREATE ROLE clerk LOGIN PASSWORD '{password}'; GRANT USAGE ON SCHEMA {name} TO clerk")
    tell(pg, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO clerk")
    with open_ledger(pg.replace("admin:", "clerk:"), KEY) as ledger:
        ingest(ledger, [(1, 0), (2, 0)])
        assert ledger.purge([name_of(1)]).keys == 1
        assert ledger.check().ok
    tell(pg, "DROP OWNED BY clerk; DROP ROLE clerk")


def test_any_edit_in_the_tables_is_found_where_it_was_made(ledger: Ledger) -> None:
    ingest(ledger, [(1, 0), (9, 3)], complete=True)
    run = ledger.begin_run()
    ledger.record([judged(1, live()), judged(2, dead())], run)
    ledger.mark([name_of(1)], owner=None)
    ledger.rotations.start("r-1", name_of(1), "begun", {})
    db = ledger._db

    class Back(Exception):  # noqa: N818  # takes the edit back
        pass

    def found(table: str, *statements: str) -> bool:
        problems: set[str] = set()
        with pytest.raises(Back), db.write() as connection:  # noqa: PT012  # the block is the test
            for one in statements:
                connection.exec_driver_sql(one)
            problems = {p.table for p in check(db.raw(connection), None).problems}
            raise Back
        return table in problems

    for name, table in metadata.tables.items():
        key = next(iter(table.primary_key.columns)).name
        first = f"{key} = (SELECT min({key}) FROM {name})"
        if name in LOGS or name == "events":
            column = next(c.name for c in table.columns if c.type.python_type is str and not c.nullable)
            assert found(name, f"UPDATE {name} SET {column} = {column} || 'x' WHERE {first}"), name
            assert found(name, f"DELETE FROM {name} WHERE {first}"), name
        elif name in {"states", "mentions", "sealed", "head"}:
            assert found(name, f"DELETE FROM {name} WHERE {first}"), name
    assert found("states", "UPDATE states SET due = due + 1 WHERE credential = 1")
    assert found("events", "UPDATE events SET refs = refs || '\\x00' WHERE seq = 2")
    assert found("head", "UPDATE head SET signature = hash")
    assert not found("events", "UPDATE schema_version SET version = version")


def test_what_no_database_stores_and_what_is_large_goes_in(ledger: Ledger) -> None:
    ledger.ingest(scan(), [(finding(n % 200, n), name_of(n % 200), "h\x00i") for n in range(5_000)])
    assert ledger.key(name_of(77)).hint == "h?i"
    assert ledger.status().findings == 5_004
    assert sum(1 for _ in ledger.keys(Select())) == 200
    assert ledger.key(name_of(1)).kept is Kept.SEALED
    assert ledger.ingest(scan(), [(finding(n % 200, n), name_of(n % 200), "") for n in range(5_000)]).places == 0


def test_an_address_opens_nothing_until_it_is_asked(postgresql: Server) -> None:
    db = database(fresh(postgresql))
    assert db.again().name == db.name == f"postgresql://127.0.0.1:{postgresql.port}/postgres"
    db.close()
