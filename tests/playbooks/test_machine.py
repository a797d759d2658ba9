"""A machine that crashes at every boundary, in every style of rotation, forward and back, as a durable executor does.

`Office` plays the executor: a phase keeps the agenda that it began with, a crash in a step has that step taken again,
and phases from before a resume or an undo are gone on with after it. What the world and the journal hold outlives it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stage import BOOK, IN_PLACE, MANAGED, PERSON, REVOKE, Remembered, planned
from world import OLD, Small

from playbooks.engine import Engine, Refused
from playbooks.journal import End, What
from playbooks.plan import Mode
from rotators.step import Done, Effect, Outcome, Waiting
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "r-test"
WAS = "old-planted-secret"
FRESH = "planted-by-a-person"


class Crash(BaseException):
    """kill -9, as far as Python can have it: nothing below may catch it."""


@dataclass(frozen=True)
class Style:
    """One sort of rotation."""

    text: str = BOOK
    mode: Mode = Mode.GRACEFUL
    settings: dict[str, object] = field(default_factory=dict)


_FIXED: dict[str, object] = {"reversible": False}
STYLES = {
    "displace": Style(),
    "displace, no marks": Style(settings={"marks": False}),
    "displace, emergency": Style(mode=Mode.EMERGENCY),
    "displace, cannot disable": Style(settings=_FIXED),
    "replace": Style(IN_PLACE, settings={**_FIXED, "style": "replace"}),
    "replace, emergency": Style(IN_PLACE, Mode.EMERGENCY, {**_FIXED, "style": "replace"}),
    "managed": Style(MANAGED, settings={**_FIXED, "style": "replace", "managed": True}),
    "revoke": Style(REVOKE, settings={**_FIXED, "style": "revoke"}),
    "person": Style(PERSON),
}
BACK = [name for name, style in STYLES.items() if style.text in {BOOK, IN_PLACE, PERSON}]


@dataclass
class Phase:
    """What the executor's tables keep of a phase: its agenda once it was asked for, and how far it is recorded."""

    turn: int
    names: list[str] | None = None
    at: int = 0


class Office:
    """One rotation, its world, its journal, and an executor that can die at any tick."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.fuse = 0
        self.ticks = 0
        self.broken: list[str] = []
        self.small = Small()
        self.small.set(clock=0.0, lag_new=1, lag_dead=2, propagation=1, **style.settings)
        self.small.begin()
        if style.text == PERSON:  # somebody has made the new secret; the old one goes on until somebody ends it
            self.small.db.execute("UPDATE keys SET secret=?, dead_from=1e9 WHERE id=?", (FRESH, OLD))
            self.small.db.execute("INSERT INTO touched VALUES (?,?)", (OLD, f"was:{WAS}"))
        self.before = self.small.stored()
        self.journal = Remembered(self.small.now, self.tick)
        self.small.tick = self.tick
        self.phases: deque[Phase] = deque()
        self.boot()

    def tick(self, what: str) -> None:
        self.ticks += 1
        if what.startswith("after "):  # in the middle of a step: whoever reads the store now must get what works
            self.broken += [f"{what}: {said}" for said in [self.unsound()] if said]
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                raise Crash(what)

    def boot(self) -> None:
        """Start a process: it knows what is in the world, the journal and the executor's tables, and nothing else."""
        self.engine = Engine(self.journal, self.small.world(lambda _: Secret(FRESH)), self.small.now)

    @property
    def begun(self) -> bool:
        return bool(self.journal.entries(RUN))

    @property
    def end(self) -> End | None:
        return self.engine.state(RUN).end if self.begun else None

    # ── what people do ─────────────────────────────────────────────────────────────────────────────────

    def say(self, what: Callable[[], int]) -> None:
        """Record what a person says, and hand the turn to the executor; either may be cut off."""
        try:
            self.phases.append(Phase(what()))
        except Crash:
            self.boot()

    def start(self) -> None:
        text = self.style.text.replace("times = 3", "times = 2").replace('window = "6s"', 'window = "2s"')
        plan = planned(self.small, text, self.style.mode)
        self.say(lambda: self.engine.start(RUN, plan, "bob"))

    def resume(self) -> None:
        self.say(lambda: self.engine.resume(RUN, "bob"))

    def undo(self) -> None:
        self.say(lambda: self.engine.undo(RUN, "bob"))

    def approve(self) -> None:
        def turn() -> int:
            self.engine.approve(RUN, "ann")
            return self.engine.state(RUN).turn

        self.say(turn)

    # ── what the executor does ─────────────────────────────────────────────────────────────────────────

    def work(self, most: int = 1000) -> Outcome | None:
        """Take up to `most` steps of what is in the tables; return the last outcome, None after a crash.

        Asking for an agenda is a step of its own: a process may die between that and the first one.
        """
        outcome: Outcome | None = None
        try:
            while self.phases and most:
                phase = self.phases[0]
                if phase.names is None:
                    phase.names = self.engine.agenda(RUN, phase.turn)
                    most -= 1
                    continue
                if phase.at == len(phase.names):
                    self.phases.popleft()
                    continue
                most -= 1
                outcome = self.engine.take(RUN, phase.names[phase.at])
                if isinstance(outcome, Done):
                    phase.at += 1
                    continue
                if isinstance(outcome, Waiting) and outcome.on == "time" and outcome.until is not None:
                    self.small.pass_time(max(0.01, (outcome.until - self.small.now()).total_seconds()))
                    self.phases.append(Phase(self.engine.state(RUN).turn))
                self.phases.popleft()
        except Crash:
            self.boot()
            return None
        return outcome

    def finish(self, most: int = 60) -> None:
        """Go on without further crashes until it ends, whoever is waited for comes."""
        self.fuse = 0
        self.boot()
        for _ in range(most):
            if not self.begun:
                self.start()
            elif self.end is not None:
                return
            else:
                self.resume()
            outcome = self.work()
            if isinstance(outcome, Waiting) and outcome.on == "approval":
                self.approve()
            if isinstance(outcome, Waiting) and outcome.on == "person":
                self.person()
            self.work()
        raise AssertionError(f"no end: {self.engine.state(RUN).last}")

    def person(self) -> None:
        self.small.db.execute("UPDATE keys SET dead_from=? WHERE id=?", (self.small.seconds(), OLD))

    # ── what must hold ─────────────────────────────────────────────────────────────────────────────────

    def unsound(self) -> str | None:
        """Say, at any moment, if neither what is stored works nor, where that may be, the key from before."""
        if self.style.text == REVOKE:
            return None
        held, old = self.small.stored(), self.small.accepted(OLD, WAS)
        if self.style.text == BOOK and self.style.mode is Mode.GRACEFUL and self.begun:
            used = self.small.at_consumer()
            found = self.small.db.execute("SELECT secret, state FROM keys WHERE id=?", (used["key_id"],)).fetchone()
            if found != (used["key_secret"], "active"):
                return f"the consumer's key does not work: {used}"
        if held == self.before:
            contained = self.style.mode is Mode.EMERGENCY and self.end is not End.UNDONE
            return None if old or contained else "the store holds the old key, and that is refused"
        applying = self.style.text == IN_PLACE and self.engine.state(RUN).done("apply") is None
        return None if self.small.store_works() or (applying and old) else f"what is stored does not work: {held}"

    def sound(self) -> None:
        """Assert that whoever reads the store gets what works, now and whenever somebody acted until now."""
        assert self.broken == []
        assert self.unsound() is None

    def ended(self) -> None:
        """Assert all that was promised."""
        state = self.engine.state(RUN)
        assert self.small.harmed() == []
        if state.end is End.UNDONE:
            held = self.small.stored()
            assert held == self.before, "taken back, but the store does not hold what it held"
            assert self.small.accepted(OLD, WAS), "taken back, but the old key is refused"
            assert set(self.small.keys()) - set(self.small.keys("colleague")) == {OLD}, "taken back, but a key is left"
            return
        assert state.end is End.FINISHED, state.end
        done = [e.step for e in state.entries if e.what is What.DONE]
        assert done == [s.name for s in state.plan.steps], "every step once, in order"
        for step in state.plan.steps:
            begun = state.intent(step.name)
            assert begun is not None
            if step.effect is Effect.DESTROYS and step.approvals:
                named = (e for e in state.entries if e.what is What.APPROVED and e.step == step.name)
                assert any(e.seq < begun.seq for e in named), f"{step.name} destroyed without a name"
        assert not self.small.accepted(OLD, WAS), "the old key still works"
        ours = set(self.small.keys()) - set(self.small.keys("colleague"))
        match self.style.text:
            case t if t == REVOKE:
                assert ours == set()
                assert self.small.stored() == self.before
            case t if t == BOOK:
                assert len(ours) == 1
                assert OLD not in ours, "exactly one new key"
                assert self.small.at_consumer() == self.small.stored()
            case _:
                assert ours == {OLD}, "one account, one secret"
        if self.style.text == MANAGED:
            versions = self.small.db.execute("SELECT count(*) FROM store").fetchone()[0]
            assert versions == 2, "rotated once"
        if self.style.text != REVOKE:
            assert self.small.store_works()


# ── every boundary, one after the other ────────────────────────────────────────────────────────────────


def whole(style: Style, fuse: int = 0) -> Office:
    """Rotate with one crash, `fuse` ticks after the start."""
    office = Office(style)
    office.fuse = fuse
    office.start()
    while office.fuse and office.end is None:
        if not office.begun:
            office.start()
        outcome = office.work()
        office.sound()
        if isinstance(outcome, Waiting) and outcome.on == "approval":
            office.approve()
        if isinstance(outcome, Waiting) and outcome.on == "person":
            office.person()
            office.resume()
        if outcome is None and office.begun and office.fuse:
            office.resume()
    office.sound()
    office.finish()
    office.ended()
    return office


@pytest.mark.parametrize("name", STYLES)
def test_a_crash_at_every_boundary(name: str) -> None:
    total = whole(STYLES[name]).ticks
    assert total > 30
    for fuse in range(1, total + 1):
        whole(STYLES[name], fuse)


def taken_back(style: Style, until: str, fuse: int = 0) -> Office | None:
    """Take a rotation back once `until` is done, with one crash on the way back; None once it was too late for that."""
    office = Office(style)
    office.start()
    while office.engine.state(RUN).done(until) is None:
        outcome = office.work(1)
        if isinstance(outcome, Waiting) and outcome.on == "approval":
            office.approve()
        if isinstance(outcome, Waiting) and outcome.on == "person":
            return None
        if not office.phases:
            office.resume()
    office.resume()
    office.phases.rotate(1)
    office.work(1)  # a phase with the agenda of before, and nothing of it taken
    office.ticks, office.fuse = 0, fuse
    try:
        office.undo()
    except Refused:
        return None
    while office.fuse and office.end is None:
        if not office.engine.state(RUN).undoing:
            office.undo()
        office.work()
        office.sound()
        if office.fuse and office.end is None:
            office.resume()
    office.finish()
    office.ended()
    undoing = office.engine.state(RUN).undoing
    assert office.end is (End.UNDONE if undoing else End.FINISHED)
    return office


@pytest.mark.parametrize("name", BACK)
def test_a_crash_at_every_boundary_of_the_way_back(name: str) -> None:
    style = STYLES[name]
    steps = [s.name for s in planned(Office(style).small, style.text, style.mode).steps]
    turned = 0
    for until in steps:
        office = taken_back(style, until)
        if office is None:
            break
        turned += 1
        for fuse in range(1, office.ticks + 1):
            taken_back(style, until, fuse)
    assert turned >= 3


# ── anything, in any order ─────────────────────────────────────────────────────────────────────────────


class Machine(RuleBasedStateMachine):
    """Crashes, people and lost answers in any order; in the end everything holds."""

    def __init__(self) -> None:
        super().__init__()
        self.office: Office | None = None

    @precondition(lambda self: self.office is None)
    @rule(name=st.sampled_from(sorted(STYLES)), flaps=st.booleans(), colleague=st.booleans())
    def open(self, name: str, flaps: bool, colleague: bool) -> None:
        style = STYLES[name]
        self.office = Office(Style(style.text, style.mode, {**style.settings, "flaps": flaps}))
        if colleague:
            self.office.small.colleague_makes()
        self.office.start()

    @precondition(lambda self: self.office is not None)
    @rule(ticks=st.integers(1, 25))
    def light_the_fuse(self, ticks: int) -> None:
        assert self.office is not None
        self.office.fuse = ticks

    @precondition(lambda self: self.office is not None)
    @rule(most=st.integers(1, 12))
    def work(self, most: int) -> None:
        assert self.office is not None
        self.office.work(most)

    @precondition(lambda self: self.office is not None)
    @rule()
    def crash(self) -> None:
        assert self.office is not None
        self.office.boot()

    @precondition(lambda self: self.office is not None and self.office.begun and self.office.end is None)
    @rule(what=st.sampled_from(["resume", "resume", "approve", "undo"]))
    def say(self, what: str) -> None:
        assert self.office is not None
        try:
            getattr(self.office, what)()
        except Refused:
            assert what != "resume"

    @precondition(lambda self: self.office is not None)
    @rule(op=st.sampled_from(["mint", "put", "disable", "retire", "push", "deny", "apply", "restore", "enable"]))
    def lose_an_answer(self, op: str) -> None:
        assert self.office is not None
        self.office.small.trouble(op, "lost")

    @precondition(lambda self: self.office is not None and len(self.office.phases) > 1)
    @rule()
    def take_the_phases_in_another_order(self) -> None:
        assert self.office is not None
        self.office.phases.rotate(1)

    @invariant()
    def sound(self) -> None:
        if self.office is not None:
            self.office.sound()

    def teardown(self) -> None:
        if self.office is not None:
            self.office.finish()
            self.office.sound()
            self.office.ended()
            self.office.small.db.close()


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnythingInAnyOrder = Machine.TestCase
