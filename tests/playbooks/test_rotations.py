"""The journal in the ledger: on disk at once, in the chain, the same after reopening, and nothing can be slipped in."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from ledger_made import credential_in, journal, made
from stage import drive, planned
from world import Small

from lapse.ledger import open_ledger
from lapse.ledger.model import Noted
from lapse.ledger.schema import credentials_provider, findings_holder, states_urgency
from playbooks.engine import Engine
from playbooks.journal import End, Taken, Unknown, What

if TYPE_CHECKING:
    from pathlib import Path


def finished(folder: Path) -> tuple[str, Small]:
    small = Small()
    small.set(clock=0.0)
    small.begin()
    with made(folder) as ledger:
        credential_in(ledger)
        engine = Engine(journal(ledger, small.now), small.world(), small.now)
        engine.start("r-1", planned(small), "bob")
        drive(engine, small, "r-1")
        assert engine.state("r-1").end is End.FINISHED
        return str(ledger.path), small


def test_a_whole_rotation_is_in_the_chain_and_in_the_story(tmp_path: Path) -> None:
    path, small = finished(tmp_path)
    with open_ledger(path, "env:LAPSE_TEST_KEK") as ledger:
        assert ledger.check().ok
        assert ledger.check().rows > 50
        key = next(iter(ledger.keys()))
        told = [n.text for n in ledger.story(key.id) if isinstance(n, Noted) and n.kind == "rotation"]
        assert told[0].startswith("rotation r-1: started")
        assert any("delete approved: ann agrees: destroys" in t for t in told)
        assert told[-1].endswith("ended: the old key is proven dead")
        state = Engine(ledger.rotations, small.world()).state("r-1")
        assert state.end is End.FINISHED
        assert ledger.rotations.runs(key.id) == ["r-1"]
        assert ledger.rotations.runs() == ["r-1"]
        assert ledger.rotations.open_runs() == []
        assert ledger.rotations.credential("r-1") == key.id
        assert ledger.rotations.resolve("r-") == "r-1"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE rotations SET text='x' WHERE id=3",
        "DELETE FROM rotations WHERE id=5",
        "UPDATE rotations SET data='{}' WHERE what='approved'",
        "INSERT INTO rotations SELECT max(id)+1, run, credential, at, 'delete', 'approved', '', '{}' FROM rotations",
    ],
)
def test_whoever_edits_the_journal_is_found_out(tmp_path: Path, sql: str) -> None:
    path, _ = finished(tmp_path)
    raw = sqlite3.connect(path)
    raw.execute(sql)
    raw.commit()
    raw.close()
    with open_ledger(path, "env:LAPSE_TEST_KEK") as ledger:
        problems = ledger.check().problems
        assert problems
        assert problems[0].table == "rotations"


def test_one_open_run_a_key_and_one_holder_a_resource(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        one, two = credential_in(ledger), credential_in(ledger, 2)
        log = ledger.rotations
        log.start("r-1", one, "", {})
        with pytest.raises(Taken, match="r-1 holds this key"):
            log.start("r-2", one, "", {})
        log.start("r-2", two, "", {})
        log.claim("r-1", "aws bob")
        log.claim("r-1", "aws bob")
        with pytest.raises(Taken, match="r-1 holds aws bob"):
            log.claim("r-2", "aws bob")
        log.append("r-1", "", What.ENDED, "", {"how": "finished"})
        log.claim("r-2", "aws bob")
        log.start("r-3", one, "", {})
        assert log.open_runs() == ["r-2", "r-3"]
        with pytest.raises(Taken):
            log.start("r-3", two, "", {})
        assert [e.what for e in log.entries("r-1")] == [What.STARTED, What.CLAIMED, What.ENDED]


def test_unknown_runs_are_named(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        log = ledger.rotations
        for ask in (log.entries, log.credential, log.resolve, lambda r: log.append(r, "", What.NOTE)):
            with pytest.raises(Unknown, match="nobody"):
                ask("nobody")


def test_a_ledger_of_version_one_gets_the_journal(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        one = credential_in(ledger)
        path = ledger.path
    raw = sqlite3.connect(path)
    raw.execute("DROP TABLE rotations")
    for index in (credentials_provider, findings_holder, states_urgency):  # which came with version 3
        raw.execute(f"DROP INDEX {index.name}")
    raw.execute("UPDATE schema_version SET version=1")
    raw.commit()
    raw.close()
    with open_ledger(path, "env:LAPSE_TEST_KEK") as ledger:
        ledger.rotations.start("r-1", one, "", {})
        assert ledger.check().ok
    raw = sqlite3.connect(path)
    names = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE tbl_name='rotations'")}
    raw.close()
    assert {"rotations", "rotations_run", "rotations_what"} <= names
