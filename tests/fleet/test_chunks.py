"""Chunks, the empty bucket a chunk begins with, and what the ledger knows of a run: small tables."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_making import START, dead, ingest, judged, live, made, name_of

from lapse.fleet.chunk import LEAST, MOST, Chunk, cut, packed, size, unpacked
from lapse.ledger import Run, Select
from verifier.egress.limiter import Limiter, Limits
from verifier.model import CredentialID

if TYPE_CHECKING:
    from pathlib import Path


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 300)), st.integers(1, 120))
def test_every_key_is_in_one_chunk_and_every_chunk_has_its_share_of_each_kind(kinds: dict[str, int], most: int) -> None:
    ids = {kind: [CredentialID(f"{kind}-{n}") for n in range(many)] for kind, many in kinds.items()}
    chunks = cut(ids, most)
    assert Counter(name for chunk in chunks for name in chunk) == Counter(x for names in ids.values() for x in names)
    for kind, many in kinds.items():
        shares = [sum(name.startswith(kind) for name in chunk) for chunk in chunks]
        assert not shares or max(shares) <= -(-many // len(chunks))
    assert all(len(chunk) <= most + len(kinds) for chunk in chunks)


@pytest.mark.parametrize(("rate", "keys"), [(0.1, LEAST), (20.0, 1200), (5000.0, MOST)])
def test_a_chunk_is_about_a_minute_within_bounds(rate: float, keys: int) -> None:
    assert size(rate) == keys
    assert size(rate, 25) == 25


def test_a_chunk_goes_through_the_queue_as_it_is() -> None:
    chunk = Chunk(3, START, "aws", (name_of(1), name_of(2)), 2, START + timedelta(hours=6))
    assert unpacked(packed(chunk)) == chunk


def test_whoever_takes_a_provider_over_begins_without_a_burst() -> None:
    now = [100.0]
    limiter = Limiter(Limits(rate=10.0, burst=8), clock=lambda: now[0])
    limiter.drain()
    passed = 0
    for _ in range(1000):
        passed += limiter._take() == 0.0
        now[0] += 0.001
    assert passed <= 10, "the rate and nothing on top of it"
    limiter.drain()
    now[0] += 5
    assert [limiter._take() == 0.0 for _ in range(9)] == [True] * 8 + [False], "a rest gives the burst back"


# ── what the ledger knows of a run ─────────────────────────────────────────────────────────────────────


def test_what_a_run_judged_is_not_due_in_it_whatever_the_clock_said(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(key, 0) for key in range(3)])
        run = ledger.begin_run("nightly")
        ledger.record([judged(0, live())], run)  # long before the run began, by its clock
        far = run.started + timedelta(days=3650)
        due = lambda since: {d.credential.id for d in ledger.due(far, since=since)}  # noqa: E731  # the same, twice
        assert due(run) == {name_of(1), name_of(2)}
        assert due(run.started) == {name_of(0), name_of(1), name_of(2)}, "by the clock alone it was before"
        assert due(Run(run.id + 1, run.started)) == due(run.started), "another run did not judge it"


def test_a_run_writes_each_look_once_whoever_writes_it(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(key, 0) for key in range(3)])
        run, other = ledger.begin_run("nightly"), ledger.begin_run("nightly")

        def attempts() -> list[int]:
            found = {key.id: key.attempts for key in ledger.keys(Select())}
            return [found[name_of(n)] for n in range(3)]

        first = [judged(0, live(), 1), judged(1, dead(), 1)]
        for _ in range(2):
            ledger.record(first, run, once=True)
        assert attempts() == [1, 1, 0]
        ledger.record([judged(1, dead(), 1.5)], run, once=True)
        assert attempts() == [1, 1, 0], "too soon for a second look"
        for _ in range(2):
            ledger.record([judged(1, dead(confirmed=True), 3)], run, once=True)
        assert attempts() == [1, 2, 0], "a confirmation is news, once"
        ledger.record([*first, judged(2, live(), 1)], other, once=True)
        assert attempts() == [2, 3, 1], "another run has its own looks"
        assert ledger.lived(run) == {"aws": 1}
        assert ledger.lived(other) == {"aws": 2}
        assert ledger.check().ok
