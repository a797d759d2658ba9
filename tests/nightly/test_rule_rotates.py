"""Rotations that a rule opens: on the small world of `tests/playbooks`, by the commands themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from night import said as caught

sys.path.insert(0, str(Path(__file__).parents[1] / "playbooks"))

from ledger_made import credential_in, made  # of tests/playbooks
from rotor import QUICK
from stage import planned
from world import Small

from lapse.commands import approve, nightly, resume
from lapse.exits import Exit, Stop
from lapse.ledger import open_ledger
from lapse.policy import raised
from playbooks.journal import End, Status, state_of
from playbooks.plan import Mode
from rotators.step import Effect

if TYPE_CHECKING:
    from playbooks.journal import RunState

PLAN = planned(Small())
BOOK = QUICK
for hand in ("store", "consumer", "sessions"):
    BOOK = BOOK.replace(f'"sim{hand}"', f'"simhands.{hand}"')
BOOK = BOOK.replace('issuer = "sim"', 'issuer = "simhands.issuer"')
CONFIG = """
[ledger]
url = "ledger.db"
key = "env:LAPSE_TEST_KEK"
[catalogue]
modules = ["simhands.provider"]
[rotate]
playbooks = ["books"]
modules = ["simhands.issuer", "simhands.store", "simhands.consumer", "simhands.sessions"]
wait = "10s"
[[policy]]
name = "two must agree"
action = "rotate"
playbook = "sim"
"""


@given(
    asked=st.lists(st.integers(0, 2), min_size=len(PLAN.steps), max_size=len(PLAN.steps)),
    people=st.integers(1, 2),
    emergency=st.booleans(),
)
def test_a_rule_raises_what_a_plan_asks_and_never_lowers_it(asked: list[int], people: int, *, emergency: bool) -> None:
    plan = planned(Small(), mode=Mode.EMERGENCY) if emergency else PLAN
    steps = [replace(s, approvals=max(n, s.effect is Effect.DESTROYS)) for s, n in zip(plan.steps, asked, strict=False)]
    plan = replace(plan, steps=tuple(steps))
    got = raised(plan, people)
    assert [replace(s, approvals=0) for s in got.steps] == [replace(s, approvals=0) for s in plan.steps]
    for before, after in zip(plan.steps, got.steps, strict=True):
        assert after.approvals >= before.approvals
        assert after.approvals in {before.approvals, people}
        if after.effect is Effect.DESTROYS:
            assert after.approvals >= people
    changing = [s for s in got.steps if s.effect is not Effect.READS]
    assert changing[0].approvals >= people, "nothing at all is changed before so many agreed"


class Night:
    """A folder with the small world, its leaked key, and a rule."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.chdir(folder)
        patch.setenv("LAPSE_TEST_WORLD", str(folder / "world.db"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        self.small = Small(folder / "world.db")
        self.small.set(lag_new=0.1, lag_dead=0.1, propagation=0)
        self.small.begin()
        with made(folder) as ledger:
            self.key = credential_in(ledger)
        (folder / "books").mkdir()
        self.config = folder / "lapse.toml"
        self.write("approvals = 2\n")

    def write(self, rule: str, book: str = BOOK) -> None:
        (self.folder / "books" / "sim.toml").write_text(book)
        self.config.write_text(CONFIG + rule)

    def run(self, code: Exit = Exit.LIVE) -> list[dict[str, Any]]:
        """Run a night; return what was done by policy."""
        with caught() as (out, err):
            ended = nightly.run(nightly.Options(json=True, sources=False), self.config)
        assert ended is code, err.getvalue()
        acted: list[dict[str, Any]] = json.loads(out.getvalue())["acted"]
        return acted

    def approve(self, who: str) -> Exit:
        with caught():
            return approve.run(self.state().run, who, (), self.config, withdraw=False)

    def resume(self) -> Exit:
        with caught():
            return resume.run(None, "cron", self.config, None, (None, None), quiet=True)

    def state(self) -> RunState:
        with open_ledger(self.folder / "ledger.db") as ledger:
            (run,) = ledger.rotations.runs()
            return state_of(run, ledger.rotations.entries(run))


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(tmp_path, monkeypatch)


def test_a_rotation_that_a_rule_opens_waits_for_as_many_as_the_rule_says(night: Night) -> None:
    """The playbook asks one person, before the delete alone; the rule asks two, before anything is changed."""
    before = night.small.stored()
    (acted,) = night.run()
    state = night.state()
    assert (state.status, state.last.step, state.by) == (Status.WAITING, "create", "policy: two must agree")
    said = f"rotation {state.run} opened; it changes nothing before 2 people agreed: lapse approve {state.run}"
    assert acted["said"] == said
    assert (night.small.stored(), night.small.keys()) == (before, ["K-old"])

    (again,) = night.run()
    assert again["again"], "one rotation a key, whatever the night"
    assert night.approve("ann") is Exit.WAITING
    with pytest.raises(Stop, match="needs somebody else as well"):
        night.approve(" ANN ")
    assert night.resume() is Exit.WAITING, "one is not two"
    assert night.small.keys() == ["K-old"]
    assert night.approve("bob") is Exit.OK

    assert night.resume() is Exit.WAITING
    state = night.state()
    assert (state.last.step, state.plan.step("delete").approvals) == ("delete", 2)
    assert night.approve("ann") is Exit.WAITING
    assert night.approve("bob") is Exit.OK
    assert night.resume() is Exit.OK
    assert night.state().end is End.FINISHED
    left = night.small.keys()
    assert "K-old" not in left


def test_what_cannot_be_opened_is_said_with_the_reason_and_costs_no_night(night: Night) -> None:
    night.write("approvals = 2\n", BOOK.replace('for = ["sim_key"]', 'for = ["other"]'))
    (acted,) = night.run()
    assert "2 people must approve; not opened: the playbook sim is for other, not sim_key" in acted["said"]
    with open_ledger(night.folder / "ledger.db") as ledger:
        assert ledger.rotations.runs() == []


def test_a_rotation_that_stops_before_it_changed_anything_is_told(night: Night) -> None:
    night.small.trouble("locate", "denied", 99)
    (acted,) = night.run(Exit.BROKE)
    assert "opened" in acted["said"]
    assert night.state().end is End.FAILED
