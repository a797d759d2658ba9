"""One ledger in two databases: the same doings leave the same rows, events, hashes and figures."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from ledger_making import START, dead, docker_finding, finding, judged, live, name_of, rows, scan, set_key, unsure
from msgspec.structs import replace

from lapse.figures import figures
from lapse.history import events, jobs, scans
from lapse.keypages import Ask, Group, Sort, first_places, page
from lapse.ledger import Canary, EventKind, Ledger, Order, Ownership, Select, State, open_ledger
from lapse.ledger.schema import metadata
from lapse.ledger.seal import Bundle
from lapse.names import names
from lapse.output import html
from playbooks.journal import What
from verifier.model import Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.ledger.db import Database
    from verifier.model import Doubt

NAME = "ab" * 16
FIXED = Bundle(NAME, b"d" * 32, b"i" * 32, b"s" * 32)
CELLS = {"meta": "id, ledger, public_key, kek", "sealed": "credential"}


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take chance and time out of a ledger: its keys are made up, its clock ticks once a look."""

    class Clock:
        ticks = count()

        def __call__(self) -> datetime:
            return START + timedelta(seconds=next(self.ticks))

    def restart(*_: object) -> Bundle:
        Clock.ticks = count()
        return FIXED

    for module in ("store", "writer"):
        monkeypatch.setattr(f"lapse.ledger.{module}.now", Clock())
    monkeypatch.setattr("lapse.ledger.store.fresh_bundle", restart)
    monkeypatch.setattr("lapse.ledger.store.secrets.token_hex", lambda _: NAME)


def lived(ledger: Ledger) -> None:
    """Let everything happen to a ledger that can."""
    ledger.rotations._clock = lambda: START + timedelta(days=1)
    odd = finding(7)
    odd = replace(odd, place=replace(odd.place, path="a\x00b", author="A\x00nn"), rule="r\x00", scanner="s\x00")
    ledger.ingest(scan(complete=True), rows((key, place) for key in range(30) for place in range(3)))
    ledger.ingest(scan(complete=True), [*rows((key, 0) for key in range(1, 28)), (odd, name_of(7), "h\x00")])
    ledger.ingest(scan(scanner="kingfisher"), [(docker_finding(k, k % 3), name_of(k), "") for k in range(20, 40)])
    ledger.ingest(scan(), rows([(2, 2), (28, 0)]))
    run = ledger.begin_run()
    ledger.record([judged(key, live(), key) for key in range(10)], run)
    ledger.record([judged(key, dead(), 20 + key) for key in range(5, 20)], run)
    note = Undecided(doubt(), None, None, "proxy said \x00")
    ledger.record([judged(key, note, 50) for key in (1, 20, 21)] + [judged(22, unsure(after=9), 51)], run)
    ledger.record([judged(key, dead(confirmed=True), 60) for key in (5, 6, 11)], run, once=True)
    ledger.end_run(run)
    ledger.begin_run(resume_within=timedelta(days=9999))
    ledger.mark([name_of(1), name_of(2)], owner=Ownership.OURS)
    ledger.mark([name_of(3)], owner=Ownership.FOREIGN, canary=Canary.YES)
    ledger.note(EventKind.ALARM, "many died \x00 at once", [name_of(5), name_of(6)], {"who": "ann"})
    ledger.purge([name_of(5), name_of(30)])
    ledger.rotations.start("r-1", name_of(1), "begun", {"mode": "graceful"})
    ledger.rotations.claim("r-1", "store:ci")
    ledger.rotations.append("r-1", "mint", What.INTENT, "about to", {"id": "AKIA…"})
    ledger.rotations.append("r-1", "", What.ENDED, "done", {"how": "finished"})
    ledger.rotations.start("r-2", name_of(2), "begun", {"say": '"how":"finished"'})
    ledger.rotations.append("r-2", "", What.ENDED, "done", {"how": "undone", "x": '"how":"finished"'})


def doubt() -> Doubt:
    return unsure().why


def contents(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    with db.read() as connection:
        return {
            name: sorted(
                (tuple(row) for row in connection.exec_driver_sql(f"SELECT {CELLS.get(name, '*')} FROM {name}")),
                key=repr,
            )
            for name in metadata.tables
        }


@pytest.fixture
def twins(fixed: None, tmp_path: Path, pg: str) -> Iterator[tuple[Ledger, Ledger]]:
    key = set_key()
    with open_ledger(tmp_path / "ledger.db", key) as one:
        lived(one)
        with open_ledger(pg, key) as two:
            lived(two)
            yield one, two


def test_the_same_doings_leave_the_same_rows_events_and_hashes(twins: tuple[Ledger, Ledger]) -> None:
    one, two = twins
    left, right = contents(one._db), contents(two._db)
    assert len(left["events"]) > 20
    for table, held in left.items():
        assert held == right[table], table
    assert one.head() == two.head(), "number, hash and signature"
    for ledger in twins:
        for head in (one.head(), two.head()):
            checked = ledger.check(head)
            assert checked.ok, checked.problems


def test_what_is_shown_is_the_same(twins: tuple[Ledger, Ledger]) -> None:
    def seen(ledger: Ledger) -> Iterator[Any]:
        at = datetime(2030, 1, 1, tzinfo=UTC)
        yield ledger.status()
        yield ledger.providers()
        for select in (
            Select(),
            Select(order=Order.RISK),
            Select(order=Order.NEWEST, limit=7, offset=3),
            Select(states=frozenset({State.LIVE, State.UNCHECKED}), removed=False, owner=Ownership.UNKNOWN, scan=1),
        ):
            yield list(ledger.keys(select))
        ids = [name_of(n) for n in range(40)]
        yield [list(ledger.places(name)) for name in ids]
        yield list(ledger.places_of(ids, 2))
        yield list(ledger.remarks(ids))
        yield [ledger.story(name) for name in ids]
        yield list(ledger.turns(START))
        yield ledger.fallen(START)
        yield ledger.lacking(at)
        for due in (ledger.due(at), ledger.due(at, ids[:9]), ledger.due(at, provider="aws_access_key", since=START)):
            yield [(d.credential.id, d.credential.parts["secret"].reveal(), d.last, d.dead_since) for d in due]
        yield ledger.rotations.runs(), ledger.rotations.entries("r-1"), ledger.rotations.open_runs()
        yield ledger.resolve(name_of(3)[:9])
        db = ledger.reader()
        try:
            yield replace(figures(ledger, db), at=at)
            known = names(db)
            for ask in (
                Ask(),
                Ask(Group.LIVE, limit=3),
                Ask(provider="aws_access_key", sort=Sort.OLDEST, limit=5),
                Ask(text="ACME/app", limit=5),
                Ask(text="ann"),
                Ask(text=name_of(3)[:9]),
            ):
                found = page(ledger, db, ask, known)
                yield found
                if found.after:
                    yield page(ledger, db, replace(ask, after=found.after), known)
            yield {name: sorted(texts) for name, texts in first_places(db, ids, 99).items()}
            yield {name: len(texts) for name, texts in first_places(db, ids, 2).items()}
            yield jobs(db), scans(db), events(db)
        finally:
            db.close()

    one, two = twins
    for left, right in zip(seen(one), seen(two), strict=True):
        assert left == right


def test_the_report_is_the_same(twins: tuple[Ledger, Ledger], tmp_path: Path) -> None:
    texts = []
    for n, ledger in enumerate(twins):
        with (tmp_path / f"{n}.html").open("w") as out:
            html.write(ledger, out)
        texts.append((tmp_path / f"{n}.html").read_text())
    assert len(texts[0]) > 10_000
    lines = [[re.sub(r"chart\d+", "chart", x) for x in text.splitlines() if "UTC" not in x] for text in texts]
    assert lines[0] == lines[1]
