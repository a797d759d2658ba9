"""What goes wrong with files is told in one sentence, and never with what was in them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ledger_making import KEY, finding, ingest, judged, live, made, name_of, scan, set_key
from sqlalchemy.exc import DBAPIError

from lapse.ledger import LedgerError, NewerSchema, Select, open_ledger, schema
from lapse.ledger.db import database, path_of
from lapse.ledger.errors import explained, sentence
from lapse.ledger.migrations import migrate, version_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection


def broken(path: Path) -> str:
    with pytest.raises(LedgerError) as caught, open_ledger(path, KEY) as ledger:  # noqa: PT012  # any may be first
        ledger.status()
        ingest(ledger, [(number, 0) for number in range(100)])
        list(ledger.keys(Select()))
        assert ledger.check().ok
    assert caught.value.__cause__ is None
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"PK\x03\x04" * 2000)
    assert "not a database at all" in broken(path)
    path.unlink()
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE other (id)")
    raw.close()
    assert "not a ledger of Lapse" in broken(path)
    assert "is not a file" in broken(tmp_path)
    (tmp_path / "plain").touch()
    assert "cannot be opened" in broken(tmp_path / "plain" / "x.db")


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(number, 0) for number in range(500)])
        path = ledger.path
    content = bytearray(path.read_bytes())
    for page in range(4096 * 3, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    assert "damaged" in broken(path)


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0)])
        raw = ledger._db._engine.raw_connection()
        pages = raw.cursor().execute("PRAGMA page_count").fetchone()[0]
        raw.cursor().execute(f"PRAGMA max_page_count={pages + 2}")  # pooled: the next writer gets it
        raw.close()
        with pytest.raises(LedgerError, match="is full"):
            ingest(ledger, [(number, 0) for number in range(2000)])
        raw = ledger._db._engine.raw_connection()
        raw.cursor().execute("PRAGMA max_page_count=1000000")
        raw.close()
        assert ledger.status().keys == 1
        assert ingest(ledger, [(number, 0) for number in range(2000)]).new == 1999
        assert ledger.check().ok


def test_a_writer_that_never_ends_is_named_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lapse.ledger.sqlite.BUSY_MS", 50)
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0)])
        raw = sqlite3.connect(ledger.path, isolation_level=None)
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process has held"):
            ledger.record([judged(1, live())])
        assert ledger.status().unchecked == 1, "readers go on"
        raw.execute("ROLLBACK")
        raw.close()
        ledger.record([judged(1, live())])


def test_every_code_of_the_driver_has_its_sentence() -> None:
    for code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR | 3 << 8, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        error = sqlite3.OperationalError("SECRET")
        error.sqlite_errorcode = code  # type: ignore[misc]  # an error as the driver would make it
        assert "ledger x" in str(sentence(error, "x"))
    error = sqlite3.OperationalError("SECRET")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_ERROR, "SQLITE_ERROR"  # type: ignore[misc]  # an error as the driver would make it
    said = [str(sentence(error, "x")), str(sentence(sqlite3.ProgrammingError("SECRET"), "x"))]
    for raised in (DBAPIError("SECRET", {}, error), DBAPIError("SECRET", {}, ValueError("SECRET"))):  # type: ignore[arg-type]  # SQLAlchemy types its driver errors more narrowly
        with pytest.raises(LedgerError) as caught, explained("x"):
            raise raised
        said.append(str(caught.value))
    assert all("SECRET" not in text and "ledger x" in text for text in said)


def test_other_databases_are_refused_without_repeating_the_address() -> None:
    for address in ("mysql://u:hunter2@h/db", "sqlite://", "sqlite:///"):
        with pytest.raises(LedgerError, match="file path, sqlite") as caught:
            path_of(address)
        assert "hunter2" not in str(caught.value)
    assert path_of("sqlite:////var/l.db") == Path("/var/l.db")
    assert path_of("sqlite:///l.db") == path_of("l.db") == path_of(Path("l.db")) == Path("l.db")


# ── migrations ─────────────────────────────────────────────────────────────────────────────────────────


def tables(path: Path) -> list[str]:
    raw = sqlite3.connect(path)
    found = [row[0] for row in raw.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")]
    raw.close()
    return found


def test_an_empty_file_becomes_the_present_version(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.touch()
    with open_ledger(path) as ledger:
        with ledger._db.read() as connection:
            assert version_of(connection, ledger._db) == schema.VERSION
        assert ledger.check().ok
    first = tables(path)
    with open_ledger(path) as ledger:
        assert ledger.head().seq == 1, "opening again changes nothing"
    assert tables(path) == first
    assert len(first) > 15


def test_older_schemas_go_up_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0)])
        path = ledger.path
    taken: list[int] = []

    def step(version: int) -> Callable[[Connection], None]:
        def add(connection: Connection) -> None:
            taken.append(version)
            connection.exec_driver_sql(f"CREATE TABLE new_{version} (id INTEGER)")

        return add

    one, two = schema.VERSION + 1, schema.VERSION + 2
    monkeypatch.setattr("lapse.ledger.store.VERSION", two)
    monkeypatch.setattr(
        "lapse.ledger.store.migrate", lambda c, db: migrate(c, db, two, {n: step(n) for n in (one, two)})
    )
    with open_ledger(path, KEY) as ledger:
        assert taken == [one, two]
        assert ledger.check().ok
        assert ledger.status().events == 5, "made, scan, findings, scan-ended, migrated"
    with open_ledger(path, KEY):
        assert taken == [one, two]


def test_a_ledger_of_version_one_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0)])
        path = ledger.path
    fresh = tables(path)
    raw = sqlite3.connect(path)
    for index in ("credentials_provider", "findings_holder", "states_urgency"):
        raw.execute(f"DROP INDEX {index}")
    raw.execute("DROP TABLE rotations")
    raw.execute("UPDATE schema_version SET version=1")
    raw.commit()
    raw.close()
    assert len(tables(path)) == len(fresh) - 6
    with open_ledger(path, KEY) as ledger:
        assert ledger.check().ok
        assert ledger.status().keys == 1
    assert tables(path) == fresh


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        path = ledger.path
    before = tables(path)

    def fails(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (id INTEGER)")
        raise OSError

    db = database(path)
    with pytest.raises(OSError), db.write() as connection:  # noqa: PT011  # whatever the step raises
        migrate(connection, db, schema.VERSION + 1, {schema.VERSION + 1: fails})
    db.close()
    assert tables(path) == before


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        path = ledger.path
    raw = sqlite3.connect(path)
    raw.execute("UPDATE schema_version SET version=70")
    raw.commit()
    raw.close()
    with pytest.raises(NewerSchema, match=f"schema 70, this one knows {schema.VERSION}"):
        open_ledger(path, set_key())


def test_no_error_quotes_what_was_being_written(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        raw = sqlite3.connect(ledger.path)
        raw.execute("DROP TABLE sealed")
        raw.commit()
        raw.close()
        with pytest.raises(LedgerError) as caught:
            ledger.ingest(scan(), [(finding(1), name_of(1), "hint-of-it")])
        assert "planted" not in repr(caught.value)
        assert "hint-of-it" not in repr(caught.value)
