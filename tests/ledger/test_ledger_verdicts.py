"""Verdicts: how they fold, what is due next, what a killed run has left."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_making import START, dead, finding, ingest, judged, live, made, name_of, scan, unsure
from msgspec.structs import replace
from sqlalchemy import event

from lapse.ledger import (
    Canary,
    EventKind,
    Kept,
    Noted,
    Order,
    Ownership,
    Schedule,
    Seen,
    Select,
    State,
    Told,
    Turn,
    UnknownKey,
)
from lapse.ledger.clock import stamp
from lapse.ledger.fold import Facts, Knowledge, fold, turn, wait
from verifier.model import Credential, Doubt, KindID, Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.ledger import Ledger
    from verifier.model import Verdict

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WORDS = {"L": live(), "l": live(restricted=True), "d": dead(), "D": dead(confirmed=True), "?": unsure()}


@pytest.fixture
def ledger(address: str) -> Iterator[Ledger]:
    with made(address) as opened:
        ingest(opened, [(1, 0), (1, 1), (2, 0), (3, 0)])
        yield opened
        checked = opened.check()
        assert checked.ok, checked.problems


def told(ledger: Ledger, *words: str, key: int = 1) -> None:
    """Record one verdict a minute."""
    for minute, word in enumerate("".join(words)):
        ledger.record([judged(key, WORDS[word], minute)])


# history → known, confirmed, minute of dead_since, of confirmed_at, of first live, of last live, length of the last row
FOLDS = [
    ("L", "live", False, None, None, 0, 0, 1),
    ("LL", "live", False, None, None, 0, 1, 2),
    ("d", "dead", False, 0, None, None, None, 1),
    ("dd", "dead", False, 0, None, None, None, 2),
    ("dD", "dead", True, 0, 1, None, None, 2),
    ("dDd", "dead", True, 0, 1, None, None, 3),
    ("dDL", "live", False, None, None, 2, 2, 1),
    ("Ld", "dead", False, 1, None, 0, 0, 1),
    ("L?", "live", False, None, None, 0, 0, 1),
    ("dD?", "dead", True, 0, 1, None, None, 1),
    ("dD?d", "dead", True, 0, 1, None, None, 1),
    ("d?d", "dead", False, 2, None, None, None, 1),
    ("?", None, False, None, None, None, None, 1),
    ("?L?L", "live", False, None, None, 1, 3, 1),
    ("dLd", "dead", False, 2, None, 1, 1, 1),
]


@pytest.mark.parametrize(("words", "known", "confirmed", "since", "sure", "first", "last", "row"), FOLDS)
def test_what_is_known_after_a_history(  # noqa: PLR0913, PLR0917  # the columns of the table
    ledger: Ledger, words: str, known: str, confirmed: bool, since: int, sure: int, first: int, last: int, row: int
) -> None:
    told(ledger, words)
    key = ledger.key(name_of(1))
    assert type(key.last).__name__.lower() == {"L": "live", "?": "undecided"}.get(words[-1], "dead")
    assert key.last_at == START + (len(words) - 1) * MINUTE
    assert (None if key.known is None else type(key.known).__name__.lower()) == known
    assert key.confirmed is confirmed
    times = (key.dead_since, key.confirmed_at, key.first_live, key.last_live)
    assert times == tuple(None if m is None else START + m * MINUTE for m in (since, sure, first, last))
    assert key.attempts == row
    [due] = ledger.due(START, ids=[name_of(1)])
    assert due.last == key.last
    assert due.last_live == key.last_live
    assert due.dead_since == (key.dead_since if words[-1] in "dD" else None)
    assert due.credential.parts["secret"].reveal().startswith("planted-1-")


@given(st.text("LldD?", min_size=1, max_size=12))
def test_the_fold_keeps_its_promises(history: str) -> None:
    state = Knowledge()
    for number, word in enumerate(history, 1):
        verdict = {"L": "live", "l": "live", "d": "dead", "D": "dead", "?": "undecided"}[word]
        before = state
        state = fold(state, Facts(number, number, verdict, None, int(word == "D"), int(word == "l"), None, 0))
        turned = turn(before, verdict)
        assert (turned is None) == (before.known == state.known)
        if word == "?":
            assert (state.known, state.confirmed, state.last_live) == (before.known, before.confirmed, before.last_live)
        if state.confirmed:
            assert state.known == "dead"
            assert "D" in history[:number].replace("l", "L").rpartition("L")[2]
        assert (state.dead_since is not None) == (state.known == "dead")
        assert (state.confirmed_at is not None) == bool(state.confirmed)
        assert state.streak >= 1


DUE = [
    ("", "L", timedelta(0)),
    ("", "d", MINUTE),
    ("d", "d", HOUR),
    ("dd", "d", 6 * HOUR),
    ("dddd", "d", 6 * HOUR),
    ("d", "D", 7 * DAY),
    ("dD", "D", 30 * DAY),
    ("dD", "d", 30 * DAY),
    ("", "?", 5 * MINUTE),
    ("??", "?", 20 * MINUTE),
    ("?" * 12, "?", DAY),
    ("L", "?", 5 * MINUTE),
]


@pytest.mark.parametrize(("before", "word", "pause"), DUE)
def test_when_the_next_verdict_is_wanted(ledger: Ledger, before: str, word: str, pause: timedelta) -> None:
    told(ledger, before, word)
    key = ledger.key(name_of(1))
    assert key.last_at is not None
    assert key.due - key.last_at == pause


@pytest.mark.parametrize(
    ("why", "after", "pause"),
    [
        (Doubt.THROTTLED, 3600, HOUR),
        (Doubt.BLOCKED, 1, 5 * MINUTE),
        (Doubt.UNSUPPORTED, None, 7 * DAY),
        (Doubt.INCOMPLETE, None, 7 * DAY),
        (Doubt.REFUSED, None, DAY),
        (Doubt.AMBIGUOUS, None, 5 * MINUTE),
        (Doubt.UNREACHABLE, None, 5 * MINUTE),
    ],
)
def test_every_doubt_has_its_pause(why: Doubt, after: int | None, pause: timedelta) -> None:
    assert wait(Schedule(), Knowledge(), unsure(why, after)) == stamp(datetime(1970, 1, 1, tzinfo=UTC) + pause)


def numbers(ledger: Ledger, minutes: float, **how: object) -> list[str]:
    return [due.credential.id for due in ledger.due(START + minutes * MINUTE, **how)]  # type: ignore[arg-type]  # keyword arguments of many types


def test_a_run_goes_on_where_it_stood(ledger: Ledger) -> None:
    since = START + timedelta(seconds=1)
    assert len(numbers(ledger, 0)) == 3
    ledger.record([judged(1, live(), 1), judged(2, dead(), 1)])
    assert numbers(ledger, 1.5, since=since) == [name_of(3)]
    assert numbers(ledger, 2, since=since) == [name_of(2), name_of(3)], "a first death waits for its confirmation"
    ledger.record([judged(2, dead(), 2)])
    assert numbers(ledger, 3, since=since) == [name_of(3)], "and is not asked a third time in the same run"
    assert numbers(ledger, 3) == [name_of(1), name_of(3)]
    assert numbers(ledger, 3, ids=[name_of(2)]) == [name_of(2)]
    assert numbers(ledger, 3, ids=[name_of(1)], since=since) == []
    assert numbers(ledger, 3, provider="other") == []
    assert len(numbers(ledger, 3, provider="aws_access_key")) == 2


def test_due_goes_by_pages_and_bears_records_between(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapse.ledger.record.PAGE", 2)
    ingest(ledger, [(key, 0) for key in range(10, 20)])
    seen = []
    for due in ledger.due(datetime.now(UTC)):
        seen.append(due.credential.id)
        ledger.record([judged(1, unsure())] if len(seen) == 1 else [judged(15, dead())])
    assert len(seen) == len(set(seen)) == 13
    assert len(list(ledger.due(START, ids=[name_of(k) for k in (1, 2, 3, 10)]))) == 4
    credentials = [Credential(name_of(k), KindID("x"), {}) for k in (1, 2, 3, 99)]
    assert [due.last is None for due in ledger.recall(credentials)] == [False, True, True, True]


def test_runs_are_resumed_while_they_are_young(ledger: Ledger) -> None:
    first = ledger.begin_run()
    assert not first.resumed
    again = ledger.begin_run(resume_within=HOUR)
    assert (again.id, again.started, again.resumed) == (first.id, first.started, True)
    assert ledger.begin_run("nightly", resume_within=HOUR).id != first.id
    assert ledger.begin_run(resume_within=timedelta(0)).id != first.id
    ledger.record([judged(1, live())], first)
    [line] = [line for line in ledger.story(name_of(1)) if isinstance(line, Told)]
    assert (line.run, line.turn, line.verdict) == (first.id, Turn.FOUND_LIVE, live())
    for run in (first, again):
        ledger.end_run(run)
    ledger.end_run(ledger.begin_run(resume_within=HOUR))
    assert not ledger.begin_run(resume_within=HOUR).resumed


def test_recall_remembers_for_callers_who_hold_the_secret(address: str) -> None:
    with made(address, key=False) as ledger:
        ingest(ledger, [(1, 0), (2, 0)])
        assert list(ledger.due(datetime.now(UTC))) == []
        assert ledger.lacking(datetime.now(UTC)) == 2
        ledger.record([judged(1, dead(), 0)])
        assert ledger.lacking(START) == 1
        mine = [Credential(name_of(k), KindID("aws_access_key"), finding(k).parts) for k in (1, 2, 3)]
        one, two, three = ledger.recall(mine)
        assert (one.credential.id, one.last, one.dead_since) == (name_of(1), dead(), START)
        assert (two.last, three.last) == (None, None)
        assert [d.credential.id for d in ledger.recall(mine, since=START - HOUR)] == [
            name_of(1),
            name_of(2),
            name_of(3),
        ]
        ledger.record([judged(1, dead(confirmed=True), 1)])
        assert [d.credential.id for d in ledger.recall(mine, since=START - HOUR)] == [name_of(2), name_of(3)]


def test_a_verdict_on_a_stranger_is_refused_whole(ledger: Ledger) -> None:
    with pytest.raises(UnknownKey, match="ingest the report"):
        ledger.record([judged(1, live()), judged(99, live())])
    assert ledger.status().live == 0
    ledger.record([])


def test_two_verdicts_on_one_key_in_one_batch_fold_in_order(ledger: Ledger) -> None:
    ledger.record([judged(1, live(), 0), judged(1, dead(), 1)])
    key = ledger.key(name_of(1))
    assert (key.last, key.last_live, key.dead_since) == (dead(), START, START + MINUTE)


def test_status_counts_what_matters(ledger: Ledger) -> None:
    ingest(ledger, [(key, 0) for key in range(4, 9)])
    for key, words in {1: "L", 2: "l?", 3: "dD", 4: "d", 5: "?", 6: "L"}.items():
        told(ledger, words, key=key)
    every = [(key, 0) for key in range(1, 9) if key != 6]
    ingest(ledger, [*every, (6, 0)], complete=True)
    ingest(ledger, every, complete=True)
    ledger.mark([name_of(1)], owner=Ownership.FOREIGN)
    ledger.mark([name_of(7)], canary=Canary.YES)
    status = ledger.status()
    assert (status.keys, status.findings, status.present) == (8, 9, 8)
    assert (status.removed_never_revoked, status.live, status.live_restricted, status.live_unsure) == (1, 3, 1, 1)
    assert (status.dead, status.dead_unconfirmed, status.undecided, status.unchecked) == (1, 1, 1, 2)
    assert (status.foreign, status.canaries, status.secrets) == (1, 1, 8)


def test_lists_are_narrowed_ordered_and_cut(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapse.ledger.views._PAGE", 2)
    for key, words in {1: "dD", 2: "L"}.items():
        told(ledger, words, key=key)
    ledger.mark([name_of(3)], owner=Ownership.OURS)

    def ids(**how: object) -> list[str]:
        return [key.id for key in ledger.keys(Select(**how))]  # type: ignore[arg-type]  # keyword arguments of many types

    one, two, three = name_of(1), name_of(2), name_of(3)
    assert ids() == [one, two, three]
    assert ids(order=Order.NEWEST) == [three, two, one]
    assert ids(order=Order.RISK) == [two, three, one]
    assert ids(limit=1, offset=1) == [two]
    assert ids(states=frozenset({State.LIVE, State.DEAD})) == [one, two]
    assert ids(states=frozenset({State.UNCHECKED})) == [three]
    assert ids(states=frozenset({State.UNDECIDED})) == []
    assert ids(confirmed=True) == [one]
    assert ids(owner=Ownership.OURS) == [three]
    assert ids(owner=Ownership.UNKNOWN) == [one, two]
    assert ids(removed=True) == []
    assert ids(removed=False) == [one, two, three]
    assert ids(provider="aws_access_key", ids=(three, one)) == [one, three]
    assert ids(provider="none") == []
    last = ledger.ingest(scan(), []).scan
    assert ids(scan=last) == []
    ids_of_places = [found.place.line for found in ledger.places(one)]
    assert ids_of_places == [1, 2]
    ingest(ledger, [(1, place) for place in range(7)])
    assert len(list(ledger.places(one))) == 7


def test_turns_tell_what_changed_since(ledger: Ledger) -> None:
    told(ledger, "L?dL")
    told(ledger, "dD", key=2)
    one, two = name_of(1), name_of(2)
    turns = [(t.id, t.turn) for t in ledger.turns(START)]
    assert turns == [(one, Turn.FOUND_LIVE), (one, Turn.DIED), (one, Turn.REVIVED), (two, Turn.FOUND_DEAD)]
    assert [t.turn for t in ledger.turns(START + 3 * MINUTE)] == [Turn.REVIVED]


def test_the_story_of_a_key_has_every_event_that_names_it(ledger: Ledger) -> None:
    told(ledger, "L")
    ledger.note(EventKind.REVEALED, "shown on a terminal", [name_of(1)], {"who": "ann"})
    ledger.note(EventKind.ALARM, "30 keys of one provider died at once")
    ledger.mark([name_of(1)], owner=Ownership.FOREIGN)
    ledger.purge([name_of(1)])
    story = ledger.story(name_of(1))
    assert [type(line) for line in story].count(Seen) == 1
    noted = [(line.kind, line.text, line.detail) for line in story if isinstance(line, Noted)]
    assert noted == [
        ("revealed", "shown on a terminal", {"who": "ann"}),
        ("marked", "", {"owner": "foreign"}),
        ("purged", "", {}),
    ]
    with pytest.raises(ValueError, match="own to write"):
        ledger.note(EventKind.PURGED, "")


def test_the_dead_are_purged_after_their_time_and_not_sealed_again(ledger: Ledger) -> None:
    told(ledger, "dD")
    told(ledger, "d", key=2)
    assert ledger.purge_dead(timedelta(days=365 * 100)).keys == 0
    gone = ledger.purge_dead(timedelta(0))
    assert (gone.keys, gone.flushed) == (1, "://" not in ledger.where)
    assert ledger.purge([name_of(1)]).keys == 0
    assert numbers(ledger, 0, ids=[name_of(1), name_of(2)]) == [name_of(2)]
    ingest(ledger, [(1, 5)])
    assert ledger.key(name_of(1)).kept is Kept.PURGED
    assert ledger.lacking(START + timedelta(days=365)) == 0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(WORDS.values())), st.booleans())
def test_a_verdict_comes_back_as_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, verdict: Verdict, note: bool
) -> None:
    given_one = replace(verdict, evidence=None, note="why") if note and isinstance(verdict, Undecided) else verdict
    with made(tmp_path_factory.mktemp("ledger")) as ledger:
        ingest(ledger, [(1, 0)])
        ledger.record([judged(1, given_one)])
        assert ledger.key(name_of(1)).last == given_one


def test_a_page_of_one_kind_sorts_nothing(tmp_path: Path) -> None:
    """Each page would otherwise read every key of its kind, again and again: a tenth of a second at a million keys."""
    asked: list[str] = []
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0), (2, 0)])
        engine = ledger._db._engine  # type: ignore[attr-defined]  # SQLite's
        event.listen(engine, "checkout", lambda connection, *_: connection.set_trace_callback(asked.append))
        kind = "aws_access_key"
        list(ledger.due(START + DAY, provider=kind))
        list(ledger.names(Select(provider=kind)))
        list(ledger.keys(Select(provider=kind)))
        pages = [sql for sql in asked if "LIMIT" in sql]
        assert len(pages) == 3
        with sqlite3.connect(ledger.path) as plain:
            for sql in pages:
                plan = " / ".join(row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {sql}"))
                assert "credentials_provider" in plan
                assert "TEMP B-TREE" not in plan
        plain.close()
