"""Nothing in the file changes unnoticed: every edit, removal, insertion and reordering is found, and located."""

# tables are named by the tests themselves; parametrised

from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_making import KEY, dead, ingest, judged, live, name_of, rows, scan, set_key, unsure

from lapse.ledger import Canary, EventKind, Kept, Ledger, Ownership, Problem, Select, open_ledger
from lapse.ledger.chain import event_hash, head_message, pack_ids, unpack_ids
from lapse.ledger.check import check
from lapse.ledger.rowlog import segment
from lapse.ledger.schema import LOGS
from lapse.ledger.sqlite import SqliteRaw

FOLDS = ("states", "sealed", "mentions", "head", "meta", "scans", "runs", "findings")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a ledger with rows in every table, closed, all in one file."""
    path = tmp_path_factory.mktemp("full") / "ledger.db"
    with open_ledger(path, set_key()) as ledger:
        for batch in (3, 5):
            ingest(ledger, [(key, place) for key in range(batch) for place in (0, 1)], complete=True)
        ingest(ledger, [(1, 0), (9, 0)], complete=True)
        ingest(ledger, [(2, 0)])
        run = ledger.begin_run()
        ledger.record([judged(1, live()), judged(2, dead()), judged(3, unsure())], run)
        ledger.record([judged(2, dead(confirmed=True), 2)], run)
        ledger.end_run(run)
        ledger.begin_run()
        ledger.purge([name_of(2)])
        ledger.mark([name_of(1)], owner=Ownership.FOREIGN, canary=Canary.NO)
        ledger.note(EventKind.REVEALED, "shown", [name_of(1)])
        ledger.note(EventKind.NOTE, "the end")
        assert ledger.check().ok
    return path


def tampered(full: Path, *statements: tuple[str, tuple[Any, ...]] | str) -> tuple[Problem, ...]:
    """Return what the check says of a copy in which `statements` were run."""
    disk, raw = sqlite3.connect(full), sqlite3.connect(":memory:")
    disk.backup(raw)
    disk.close()
    for one in statements:
        raw.execute(*((one,) if isinstance(one, str) else one))
    problems = check(SqliteRaw(raw), None).problems
    raw.close()
    return problems


def cells(full: Path, tables: tuple[str, ...]) -> list[tuple[str, int, str]]:
    raw = sqlite3.connect(full)
    found = []
    for table in tables:
        cursor = raw.execute(
            f"SELECT rowid, * FROM {table}" if table != "mentions" else f"SELECT credential, * FROM {table}"
        )
        names = [column[0] for column in cursor.description][1:]
        found += [(table, row[0], name) for row in cursor for name in names]
    raw.close()
    return found


def other(value: Any) -> Any:
    match value:
        case int():
            return value + 1_000_003
        case str():
            return value + "x"
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:] if value else b"\x01"
        case _:
            return 7


def edit(full: Path, table: str, row: int, column: str) -> tuple[str, tuple[Any, ...]]:
    where = "rowid=?"
    if table == "mentions":
        where = "credential=? AND seq=(SELECT max(m.seq) FROM mentions m WHERE m.credential=mentions.credential)"
    raw = sqlite3.connect(full)
    old = raw.execute(f'SELECT "{column}" FROM {table} WHERE {where}', (row,)).fetchone()[0]
    raw.close()
    return f'UPDATE {table} SET "{column}"=? WHERE {where}', (other(old), row)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_edit_of_any_cell_of_a_log_is_found_where_it_was_made(full: Path, data: st.DataObject) -> None:
    table, row, column = data.draw(st.sampled_from(cells(full, (*LOGS, "events"))))
    problems = tampered(full, edit(full, table, row, column))
    at = (table, row)
    if table in LOGS and column == "id":
        at = (table, row)  # reported as missing there
    assert at in {(p.table, p.row) for p in problems}, problems


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_edit_of_any_cell_of_a_fold_is_found(full: Path, data: st.DataObject) -> None:
    every = [c for c in cells(full, ("states", "mentions", "head", "meta")) if c[2] not in {"keys", "kek", "id"}]
    table, row, column = data.draw(st.sampled_from(every))
    if (table, column) == ("meta", "ledger"):
        return  # the bundle names its ledger: opening refuses (tested with the seal)
    problems = tampered(full, edit(full, table, row, column))
    tables = {p.table for p in problems}
    assert table in tables or (table == "head" and tables & {"head", "events"}), problems


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_row_taken_out_is_found_missing(full: Path, data: st.DataObject) -> None:
    table, row, _ = data.draw(st.sampled_from(cells(full, (*LOGS, "events", "states", "sealed", "mentions", "head"))))
    key = "credential" if table == "mentions" else "rowid"
    problems = tampered(full, (f"DELETE FROM {table} WHERE {key}=?", (row,)))
    assert any(p.table == table and p.row in {row, None} for p in problems), problems


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_rows_that_changed_places_are_found(full: Path, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(["events", "findings", "verdicts", "credentials"]))
    key = "seq" if table == "events" else "id"
    raw = sqlite3.connect(full)
    ids = [row[0] for row in raw.execute(f"SELECT {key} FROM {table}")]
    raw.close()
    one, two = sorted(data.draw(st.lists(st.sampled_from(ids), min_size=2, max_size=2, unique=True)))
    swap = [
        (f"UPDATE {table} SET {key}=? WHERE {key}=?", (-1, one)),
        (f"UPDATE {table} SET {key}=? WHERE {key}=?", (one, two)),
        (f"UPDATE {table} SET {key}=? WHERE {key}=?", (two, -1)),
    ]
    found = {p.row for p in tampered(full, *swap) if p.table == table}
    assert {one, two} <= found


@pytest.mark.parametrize("table", [*LOGS, "states", "sealed", "mentions"])
def test_a_row_put_in_by_hand_is_found(full: Path, table: str) -> None:
    raw = sqlite3.connect(full)
    columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
    raw.close()

    def value(column: str) -> str:
        match column:
            case "id" | "credential":
                return f'coalesce(max("{column}"), 0) + 1'
            case "mark" | "hash":
                return "x'00'"
            case "scanner":
                return "'another'"
            case _:
                return f'coalesce(max("{column}"), 1)'

    values = ",".join(map(value, columns))
    problems = tampered(full, f"INSERT INTO {table} SELECT {values} FROM {table}")
    assert table in {p.table for p in problems}, problems


def test_an_event_put_in_by_hand_is_found(full: Path) -> None:
    insert = "INSERT INTO events SELECT max(seq) + 1, at, kind, payload, refs, hash, hash FROM events"
    [first, *_] = tampered(full, insert)
    assert first.table == "events"
    [problem] = tampered(full, insert.replace("max(seq) + 1", "0 * max(seq)"))
    assert (problem.table, problem.row) == ("events", 0)


@pytest.mark.parametrize("seq", [1, 5])
def test_an_event_rewritten_with_its_own_true_hash_breaks_the_chain_after_it(full: Path, seq: int) -> None:
    raw = sqlite3.connect(full)
    row = raw.execute("SELECT prev, seq, at, kind, payload, refs FROM events WHERE seq=?", (seq,)).fetchone()
    raw.close()
    digest = event_hash(row[0], seq, row[2] + 1, *row[3:])
    problems = tampered(full, ("UPDATE events SET at=at+1, hash=? WHERE seq=?", (digest, seq)))
    assert (problems[0].table, problems[0].row, problems[0].event) == ("events", seq, seq + 1)


def test_the_newest_events_cut_off_are_missed(full: Path) -> None:
    problems = tampered(full, "DELETE FROM events WHERE seq > (SELECT max(seq) - 2 FROM events)")
    assert any("are missing" in p.what for p in problems)


@pytest.mark.parametrize("column", ["credential", "verdict", "at", "confirmed", "identity"])
def test_a_value_of_another_type_stops_nothing_from_being_told(full: Path, column: str) -> None:
    problems = tampered(full, f"UPDATE verdicts SET {column}=x'80' WHERE id=2")
    assert ("verdicts", 2) in {(p.table, p.row) for p in problems}


def test_a_hundred_problems_are_enough(full: Path) -> None:
    count = "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1300)"
    assert len(tampered(full, f"{count} INSERT INTO runs SELECT i, 'x', 1, NULL FROM n")) == 100


def rechained(full: Path) -> Path:
    """Return a copy in which somebody who has the key rewrote history: a verdict changed, every hash made anew."""
    path = full.parent / "rechained.db"
    shutil.copy(full, path)
    with open_ledger(path, KEY) as ledger:
        seal, name = ledger._seal, ledger.name
    raw = sqlite3.connect(path)
    raw.execute("UPDATE runs SET what='forged' WHERE id=1")
    raw.row_factory = None
    prev = bytes(32)
    for seq, at, kind, payload, refs in raw.execute(
        "SELECT seq, at, kind, payload, refs FROM events ORDER BY seq"
    ).fetchall():
        said, bulk = payload, refs
        if kind == "run" and '["runs",1,' in payload:
            told, marks = segment("runs", raw.execute("SELECT id, what, started FROM runs WHERE id=1").fetchall())
            said = msgspec.json.encode(msgspec.json.decode(payload) | {"rows": [told]}, order="deterministic").decode()
            bulk = msgspec.msgpack.encode([[marks], b"", b""])
        digest = event_hash(prev, seq, at, kind, said, bulk)
        raw.execute("UPDATE events SET payload=?, refs=?, prev=?, hash=? WHERE seq=?", (said, bulk, prev, digest, seq))
        prev = digest
        signature = seal.sign(head_message(name, seq, at, digest))
        raw.execute("UPDATE head SET seq=?, at=?, hash=?, signature=?", (seq, at, digest, signature))
    raw.commit()
    raw.close()
    return path


def test_an_exported_head_proves_what_came_before_even_against_the_keys_holder(full: Path) -> None:
    with open_ledger(full, KEY) as ledger:
        head = ledger.head()
        assert ledger.check(head).ok
    with open_ledger(rechained(full), KEY) as forged:
        assert forged.check().ok, "who has the key can forge; only the exported head tells"
        [problem] = forged.check(head).problems
        assert (problem.table, problem.event) == ("events", head.seq)
        forged.note(EventKind.NOTE, "later")
        assert not forged.check(head).ok


def test_an_exported_head_of_another_ledger_or_without_a_true_signature_proves_nothing(
    full: Path, tmp_path: Path
) -> None:
    with open_ledger(full, KEY) as ledger, open_ledger(tmp_path / "other.db") as stranger:
        head = msgspec.json.decode(msgspec.json.encode(ledger.head()), type=type(ledger.head()))
        replace = msgspec.structs.replace
        for wrong, said in [
            (stranger.head(), "another ledger"),
            (replace(head, hash="00" * 32), "own signature"),
            (replace(head, signature="zz"), "own signature"),
            (replace(head, at=head.at + 1), "own signature"),
        ]:
            [problem] = ledger.check(wrong).problems
            assert said in problem.what
        forged = stranger._seal
        text = f"lapse ledger head 1\n{head.ledger}\n{head.seq}\n{head.at}\n{head.hash}\n".encode()
        own = replace(head, public_key=forged.public_key.hex(), signature=forged.sign(text).hex())
        [problem] = ledger.check(own).problems
        assert "never had" in problem.what


def test_a_head_from_before_a_new_key_still_proves_its_past(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "l.db") as ledger:
        ingest(ledger, [(1, 0)])
        bare = ledger.head()
        ledger.rewrap(set_key())
        assert ledger.head().public_key != bare.public_key, "the old signing key lay bare in the file"
        ledger.rewrap(set_key("LAPSE_TEST_KEK_2"))
        assert ledger.check(bare).ok
        assert ledger.check(ledger.head()).ok


@given(st.sets(st.integers(1, 2**40)))
def test_packed_ids_come_back(ids: set[int]) -> None:
    assert unpack_ids(pack_ids(ids)) == sorted(ids)


class Machine(RuleBasedStateMachine):
    """Any history of scans, verdicts, purges, marks and new keys checks out and agrees with a simple model of it."""

    @initialize(key=st.booleans())
    def begin(self, key: bool) -> None:
        self.folder = Path(mkdtemp())
        self.ledger: Ledger = open_ledger(self.folder / "l.db", set_key() if key else None)
        self.places: dict[tuple[int, int], bool] = {}  # → seen by a complete scan
        self.gone: set[tuple[int, int]] = set()
        self.known: dict[int, str] = {}
        self.kept: dict[int, Kept] = {}
        self.heads = [self.ledger.head()]
        self.minute = 0

    @rule(
        pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=8),
        complete=st.booleans(),
        whole=st.booleans(),
    )
    def scan(self, pairs: list[tuple[int, int]], complete: bool, whole: bool) -> None:
        what = scan(complete=complete, origin="git:acme/app")
        count = self.ledger.ingest(what, rows(pairs), whole=lambda: whole)
        assert (count.findings, count.keys) == (len(pairs), len({key for key, _ in pairs}))
        assert count.places == len(set(pairs) - set(self.places))
        for pair in pairs:
            self.places[pair] = self.places.get(pair, False) or complete
            self.gone.discard(pair)
            if self.kept.get(pair[0], Kept.NEVER) is Kept.NEVER:
                self.kept[pair[0]] = Kept.SEALED if self.ledger.keeps_secrets else Kept.NEVER
        if complete and whole:
            lost = {p for p, had in self.places.items() if had and p not in pairs and p not in self.gone}
            assert count.removed == len(lost)
            self.gone |= lost

    @rule(key=st.integers(0, 4), verdict=st.sampled_from([live(), dead(), dead(confirmed=True), unsure()]))
    def judge(self, key: int, verdict: Any) -> None:
        if key in self.kept:
            self.minute += 1
            self.ledger.record([judged(key, verdict, self.minute)])
            word = type(verdict).__name__.lower()
            if word != "undecided":
                self.known[key] = word

    @rule(keys=st.sets(st.integers(0, 4)))
    def purge(self, keys: set[int]) -> None:
        there = [key for key in keys if key in self.kept]
        count = self.ledger.purge([name_of(key) for key in there]).keys
        held = [key for key in there if self.kept[key] is Kept.SEALED]
        assert count == len(held)
        self.kept |= dict.fromkeys(held, Kept.PURGED)

    @rule(key=st.integers(0, 4), owner=st.sampled_from(Ownership))
    def mark(self, key: int, owner: Ownership) -> None:
        if key in self.kept:
            self.ledger.mark([name_of(key)], owner=owner)
            assert self.ledger.key(name_of(key)).owner is owner

    @rule()
    def rewrap(self) -> None:
        self.ledger.rewrap(set_key(f"LAPSE_TEST_KEK_{len(self.heads)}"))
        self.heads.append(self.ledger.head())

    @rule()
    def run(self) -> None:
        self.ledger.end_run(self.ledger.begin_run(resume_within=timedelta(hours=1)))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "ledger"):
            return
        checked = self.ledger.check(self.heads[-1])
        assert checked.ok, checked.problems
        assert self.ledger.check(self.heads[0]).ok
        keys = {key.id: key for key in self.ledger.keys(Select())}
        assert len(keys) == len(self.kept)
        for number, kept in self.kept.items():
            key = keys[name_of(number)]
            mine = [pair for pair in self.places if pair[0] == number]
            assert (key.findings, key.present) == (len(mine), len([p for p in mine if p not in self.gone]))
            assert key.kept is kept
            assert (None if key.known is None else type(key.known).__name__.lower()) == self.known.get(number)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestHistories = Machine.TestCase
