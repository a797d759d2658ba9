"""A made history, and the figures it must give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import validate
from night import said
from rows import row
from test_due import dead, live, unsure

from lapse.commands import ingest
from lapse.commands.setup import Setup
from lapse.config import load
from lapse.diff import diff, since
from lapse.exits import Stop
from lapse.ledger import Select
from lapse.output.schema import schema
from lapse.owners import Owners
from verifier.ports import Judged

if TYPE_CHECKING:
    from night import Folder

    from lapse.diff import DiffOut, KeyDelta
    from verifier.model import Verdict

DAY = timedelta(days=1)


class History:
    """Keys 0 to 9 (4 and 5 in images), seen now; `tell` adds verdicts some days later."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        rows: list[dict[str, Any]] = [row(n) for n in range(10)]
        for n, namespace in ((4, "acme"), (5, "acme-dev")):
            held = {"source": "docker", "image": f"{namespace}/api:1", "path": "a", "line": n}
            rows[n]["place"] = held
        folder.report(rows)
        self._ingest("reports/a.jsonl")
        self._ledger = folder.ledger()
        keys = {(p.place.path, p.place.line): k for k in self._ledger.keys(Select()) for p in self._ledger.places(k.id)}
        self.keys = [keys.get(("app.env", n + 1)) or keys["a", n] for n in range(10)]
        self.seen = self.keys[0].first_seen

    def _ingest(self, name: str) -> None:
        with said():
            ingest.run([name], None, None, None, self.folder.config, partial=False, json=True, quiet=True)

    def tell(self, n: int, verdict: Verdict, days: float) -> None:
        key = self.keys[n]
        self._ledger.record([Judged(key.id, key.provider, verdict, self.seen + days * DAY)])

    def diff(self, begin: float, now: float) -> DiffOut:
        setup = Setup(load(self.folder.config))
        owners = Owners.of(setup.config)
        span = (self.seen + begin * DAY, self.seen + now * DAY)
        return diff(self._ledger, setup.catalogue, owners, setup.config, span)

    def names(self, items: tuple[KeyDelta, ...]) -> list[int]:
        return sorted(next(n for n, k in enumerate(self.keys) if k.id == d.id) for d in items)


@pytest.fixture
def history(folder: Folder) -> History:
    folder.also('[[owner]]\nname = "pay"\nimages = ["acme/*"]\nsla = "1d"\n[nightly]\nsla = "3d"')
    h = History(folder)
    for n in range(6):
        h.tell(n, live(), 1)
    h.tell(6, dead(confirmed=True), 1)
    h.tell(0, dead(confirmed=False), 2.5)
    h.tell(0, dead(confirmed=True), 3.5)
    h.tell(1, dead(confirmed=False), 2.6)
    h.tell(2, dead(confirmed=True), 1.2)
    h.tell(2, live(), 2.7)
    h.tell(3, unsure(), 2.8)
    h.tell(7, live(), 2.9)
    h.tell(8, live(), 2.2)
    h.tell(8, dead(confirmed=False), 2.3)
    h.tell(8, live(), 2.4)
    return h


def test_a_made_history_gives_its_figures(history: History) -> None:
    d = history.diff(2, 4)
    assert history.names(d.new) == [7, 8]
    assert history.names(d.died) == [0], "proven within the time, though refused before"
    assert history.names(d.unproven) == [1]
    assert history.names(d.revived) == [2], "a refusal that was never believed is no death (8)"
    assert history.names(d.still_live) == [2, 3, 4, 5]
    assert d.total.live == 6
    assert history.names(d.breaches) == [2, 3, 4, 5, 7, 8]
    assert (d.total.revoke_mean_days, d.total.revoke_p90_days) == (2.5, 2.5)


def test_times_to_revoke_are_by_group_and_the_p90_is_one_of_them(history: History) -> None:
    for n, days in ((3, 3.1), (4, 3.2), (5, 3.3)):
        history.tell(n, dead(confirmed=True), days)
    d = history.diff(3, 4)
    assert (d.total.died, d.total.revoke_p90_days) == (4, 3.3)
    assert d.total.revoke_mean_days == pytest.approx((2.5 + 3.1 + 3.2 + 3.3) / 4, abs=1e-3)
    assert d.by_owner["pay"].revoke_mean_days == 3.2
    assert d.by_namespace["docker.io/acme-dev"].died == 1
    assert d.by_provider["sendgrid"] == d.total


def test_owners_have_their_own_sla_and_strangers_are_shadows(history: History) -> None:
    d = history.diff(1.5, 2)
    assert history.names(d.breaches) == [4], "a day for pay, three for the others"
    assert [b.limit_days for b in d.breaches] == [1.0]
    assert d.shadow_registries == {"docker.io/acme-dev": 1}


def test_nothing_changed_when_nothing_did(history: History) -> None:
    d = history.diff(5, 6)
    assert (d.new, d.died, d.unproven, d.revived) == ((), (), (), ())


def test_the_json_is_in_the_published_schema(history: History) -> None:
    validate(history.folder.diff("30d"), schema())


def test_the_table_names_the_most_urgent_first(history: History) -> None:
    from lapse.commands.diff import tell  # this test only

    with said() as (out, _):
        tell(history.diff(2, 4))
    text = out.getvalue()
    assert text.index("BACK FROM THE DEAD") < text.index("NEW LIVE") < text.index("PROVEN DEAD") < text.index("SHADOW")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("7d", datetime(2026, 11, 3, 12, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 10, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T06:00+02:00", datetime(2026, 11, 1, 4, tzinfo=UTC)),
    ],
)
def test_since_is_a_date_or_a_span(text: str, told: datetime) -> None:
    assert since(text, datetime(2026, 11, 10, 12, tzinfo=UTC)) == told


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "7 weeks", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Stop, match="is no time"):
        since(text, datetime.now(UTC))
