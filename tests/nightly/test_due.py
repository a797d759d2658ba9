"""When the next verdict is wanted, by a clock of the test's own: the schedule that [nightly] describes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from night import said
from rows import row

from lapse.commands import ingest
from verifier.model import Dead, Doubt, Evidence, Live, Undecided, Verdict
from verifier.ports import Judged

if TYPE_CHECKING:
    from night import Folder

    from lapse.ledger import Ledger

START = datetime(2027, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PROOF = Evidence("GET https://x.test/", 401, "", "0" * 64, "x@0", START, "x.test")


def live() -> Verdict:
    return Live(PROOF)


def dead(*, confirmed: bool) -> Verdict:
    return Dead(PROOF, confirmed=confirmed)


def unsure(why: Doubt = Doubt.UNREACHABLE, after: timedelta | None = None) -> Verdict:
    return Undecided(why, retry_after=after)


CASES = [
    pytest.param([(live(), START)], timedelta(0), id="live: every night"),
    pytest.param([(dead(confirmed=False), START)], timedelta(milliseconds=10), id="a first refusal: confirm_after"),
    pytest.param(
        [(dead(confirmed=False), START), (dead(confirmed=False), START + HOUR)], 2 * HOUR, id="unconfirmed: an hour on"
    ),
    pytest.param([(dead(confirmed=True), START)], 7 * DAY, id="proven dead: a week on"),
    pytest.param(
        [(dead(confirmed=True), START), (dead(confirmed=True), START + 7 * DAY)], 37 * DAY, id="then ever more rarely"
    ),
    pytest.param([(dead(confirmed=True), START), (live(), START + 7 * DAY)], 7 * DAY, id="revived: every night"),
    pytest.param([(unsure(), START)], timedelta(minutes=5), id="unreachable: five minutes"),
    pytest.param(
        [(unsure(), START), (unsure(), START + HOUR), (unsure(), START + 2 * HOUR)],
        2 * HOUR + timedelta(minutes=20),
        id="and twice as long each time",
    ),
    pytest.param(
        [(unsure(), START + n * DAY) for n in range(12)], 12 * DAY, id="a day at most"
    ),
    pytest.param([(unsure(Doubt.THROTTLED, 3 * HOUR), START)], 3 * HOUR, id="not before the provider asked for"),
    pytest.param([(unsure(Doubt.UNSUPPORTED), START)], 7 * DAY, id="hopeless: a week"),
]  # fmt: skip


@pytest.fixture
def ledger(folder: Folder) -> Ledger:
    folder.report([row(1)])
    with said():
        ingest.run(["reports/a.jsonl"], None, None, None, folder.config, partial=False, json=True, quiet=True)
    return folder.ledger()


@pytest.mark.parametrize(("history", "due"), CASES)
def test_a_key_is_due_when_its_history_says(
    ledger: Ledger, history: list[tuple[Verdict, datetime]], due: timedelta
) -> None:
    (key,) = ledger.keys()
    for verdict, at in history:
        ledger.record([Judged(key.id, key.provider, verdict, at)])
    moment, last = START + due, history[-1][1]
    assert [d.credential.id for d in ledger.due(max(moment, last))] == [key.id]
    just_before = moment - timedelta(microseconds=1)
    if just_before >= last:
        assert list(ledger.due(just_before)) == []


def test_the_config_sets_the_figures(folder: Folder) -> None:
    folder.also('[nightly]\nretry_first = "1h"\ndead_again = "2d"')
    folder.report([row(1), row(2)])
    with said():
        ingest.run(["reports/a.jsonl"], None, None, None, folder.config, partial=False, json=True, quiet=True)
    with folder.ledger() as ledger:
        one, two = ledger.keys()
        ledger.record(
            [Judged(one.id, one.provider, unsure(), START), Judged(two.id, two.provider, dead(confirmed=True), START)]
        )
        assert [d.credential.id for d in ledger.due(START + HOUR)] == [one.id]
        assert len(list(ledger.due(START + 2 * DAY))) == 2
