"""Many crashes in one rotation, with lost answers and colleagues; orphans; phases that are older than an undo.

One crash at every single boundary, in every style and on the way back, is in `test_machine`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import BOOK, IN_PLACE, Remembered, drive, planned
from world import OLD, Small

from playbooks.engine import Engine
from playbooks.journal import End, What
from playbooks.plan import Mode
from rotators.step import Done, Failed

RUN = "r-test"


class Crash(BaseException):
    """kill -9, as far as Python can have it: nothing below may catch it."""


@dataclass
class Scene:
    """One rotation in a small world whose process dies at the chosen ticks."""

    crashes: frozenset[int] = frozenset()
    settings: dict[str, object] = field(default_factory=dict)
    text: str = BOOK
    mode: Mode = Mode.GRACEFUL
    ticks: int = 0
    stored_once: bool = False
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.small = Small(tick=lambda _: None)
        self.small.set(clock=0.0, lag_new=3, lag_dead=15, **self.settings)
        self.small.begin()
        self.journal = Remembered(self.small.now, self.tick)
        self.small.tick = self.tick

    def tick(self, what: str) -> None:
        self.ticks += 1
        if what == "after put":
            self.stored_once = True
        if self.stored_once and not self.small.store_works():
            self.broken.append(what)
        if self.ticks in self.crashes:
            raise Crash(what)

    def engine(self) -> Engine:
        """Return what a new process has: nothing is remembered but the journal and the world."""
        return Engine(self.journal, self.small.world(), self.small.now)

    def run(self) -> None:
        for _ in range(len(self.crashes) + 1):
            try:
                if not self.journal.entries(RUN):
                    self.engine().start(RUN, planned(self.small, self.text, self.mode), "bob")
                outcome = drive(self.engine(), self.small, RUN)
            except Crash:
                continue
            assert isinstance(outcome, Done), outcome
            return
        raise AssertionError("more crashes than planned")

    def finished(self) -> None:
        """Assert what must hold at the end, whatever happened on the way."""
        state = self.engine().state(RUN)
        assert state.end is End.FINISHED
        assert not self.broken, f"the store's value did not work at: {self.broken}"
        assert self.small.harmed() == []
        ours = self.small.keys("us")
        assert len(ours) == 1, f"exactly one new live key, not {ours}"
        held = self.small.stored()
        assert held["key_id"] == ours[0]
        assert self.small.accepted(held["key_id"], held["key_secret"])
        assert not self.small.accepted(OLD, "old-planted-secret")
        assert self.small.at_consumer() == held
        done = [e.step for e in state.entries if e.what is What.DONE]
        assert done == [s.name for s in state.plan.steps], "every step once, in order"
        killed = next(e for e in state.entries if e.step == "delete" and e.what is What.DONE)
        assert any(e.what is What.APPROVED and e.step == "delete" and e.seq < killed.seq for e in state.entries)


@settings(max_examples=60, deadline=None)
@given(
    crashes=st.frozensets(st.integers(1, 260), max_size=12),
    marks=st.booleans(),
    flaps=st.booleans(),
    mode=st.sampled_from(Mode),
    reversible=st.booleans(),
    lost=st.frozensets(st.sampled_from(["mint", "put", "disable", "retire", "push", "deny", "lift"]), max_size=4),
    colleagues=st.integers(0, 2),
    stops_new=st.booleans(),
    full=st.booleans(),
)
def test_many_crashes_and_lost_answers(  # noqa: PLR0913, PLR0917  # what hypothesis draws
    crashes: frozenset[int],
    marks: bool,
    flaps: bool,
    mode: Mode,
    reversible: bool,
    lost: frozenset[str],
    colleagues: int,
    stops_new: bool,
    full: bool,
) -> None:
    more: dict[str, object] = {"stops_new": stops_new, "lift_after": 5}
    scene = Scene(crashes, {"marks": marks, "flaps": flaps, "reversible": reversible, **more}, mode=mode)
    if full:
        scene.small.spare()
        colleagues = 0
    for op in lost:
        scene.small.trouble(op, "lost")
    for _ in range(colleagues):
        scene.small.colleague_makes()
    scene.run()
    scene.finished()
    assert len(scene.small.keys("colleague")) == colleagues


def test_an_orphan_is_retired_never_adopted() -> None:
    seen = []

    def tick(what: str) -> None:
        seen.append(what)

    scene = Scene()
    scene.small.tick = tick
    scene.engine().start(RUN, planned(scene.small), "bob")
    drive(scene.engine(), scene.small, RUN)
    at = seen.index("after mint") + 1
    scene = Scene()
    count = 0

    def boom(what: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise Crash(what)

    scene.small.tick = boom
    scene.engine().start(RUN, planned(scene.small), "bob")
    with pytest.raises(Crash):
        drive(scene.engine(), scene.small, RUN)
    lost = scene.small.keys("us")
    assert len(lost) == 1
    scene.small.colleague_makes()
    drive(scene.engine(), scene.small, RUN)
    live = scene.small.keys()
    assert lost[0] not in live
    scene.finished()


def came_out_late(scene: Scene, dies: str, moment: str, what: str, *, again: bool) -> int:
    """Rotate to the end: killed at `dies`, the act comes out at `moment`, `again` with a kill; return the kills."""
    crashes = 0

    def tick(at: str) -> None:
        nonlocal crashes
        if at == dies:
            crashes += 1
            raise Crash(at)
        if at == moment and scene.small.get(what):
            scene.small.land()
            if again and crashes == 1:
                crashes += 1
                raise Crash(at)

    scene.small.tick = tick
    scene.engine().start(RUN, planned(scene.small), "bob")
    outcome = None
    while outcome is None:
        with contextlib.suppress(Crash):
            outcome = drive(scene.engine(), scene.small, RUN)
    assert isinstance(outcome, Done), outcome
    return crashes


BESIDE = ("before retire", "after retire", "before mint", "after mint", "before put")


@pytest.mark.parametrize(("moment", "again"), [*((m, False) for m in BESIDE), *((m, True) for m in BESIDE[:-1])])
def test_a_write_that_was_under_way_at_the_kill_and_comes_out_late_is_no_colleague(moment: str, again: bool) -> None:
    """The next process looked before it came out. What was written late is a key that was given up: it goes."""
    scene = Scene(settings={"put_late": True})
    assert came_out_late(scene, "during put", moment, "under_way", again=again) == 1 + again
    scene.finished()


@pytest.mark.parametrize("moment", ["before mint", "after mint", "before put", "after put"])
@pytest.mark.parametrize("again", [False, True])
def test_a_key_that_was_asked_for_at_the_kill_and_is_made_late_is_no_orphan(moment: str, again: bool) -> None:
    """The next process looked for it before it was there; nobody has its secret."""
    scene = Scene(settings={"mint_late": True})
    scene.small.colleague_makes()
    assert came_out_late(scene, "during mint", moment, "asked_for", again=again) == 1 + again
    scene.finished()
    assert len(scene.small.keys("colleague")) == 1


@pytest.mark.parametrize("moment", ["before retire", "after retire"])
def test_an_undo_takes_back_a_write_that_comes_out_late(moment: str) -> None:
    scene = Scene(settings={"put_late": True})

    def tick(what: str) -> None:
        if what == "during put":
            raise Crash(what)
        if what == moment:
            scene.small.land()

    scene.small.tick = tick
    scene.engine().start(RUN, planned(scene.small), "bob")
    with pytest.raises(Crash):
        drive(scene.engine(), scene.small, RUN)
    scene.engine().undo(RUN, "bob")
    assert isinstance(drive(scene.engine(), scene.small, RUN), Done)
    assert scene.small.stored() == {"key_id": OLD, "key_secret": "old-planted-secret"}
    assert scene.small.keys() == [OLD]


def test_an_undo_that_was_under_way_and_comes_out_late_is_no_colleague() -> None:
    scene = Scene(settings={"restore_late": True})

    def tick(what: str) -> None:
        if what == "during restore":
            raise Crash(what)
        if what == "before restore":
            scene.small.land()

    scene.small.tick = tick
    scene.engine().start(RUN, planned(scene.small), "bob")
    while scene.engine().state(RUN).done("create") is None:
        scene.engine().advance(RUN)
    scene.engine().undo(RUN, "bob")
    with pytest.raises(Crash):
        drive(scene.engine(), scene.small, RUN)
    assert isinstance(drive(scene.engine(), scene.small, RUN), Done)
    assert scene.small.stored() == {"key_id": OLD, "key_secret": "old-planted-secret"}
    assert scene.small.keys() == [OLD]


def test_a_value_for_a_secret_replaced_in_place_that_is_written_late_is_written_over() -> None:
    scene = Scene(settings={"style": "replace", "put_late": True}, text=IN_PLACE)

    def tick(what: str) -> None:
        if what == "during put":
            raise Crash(what)
        if what == "before put":
            scene.small.land()

    scene.small.tick = tick
    scene.engine().start(RUN, planned(scene.small, IN_PLACE), "bob")
    with pytest.raises(Crash):
        drive(scene.engine(), scene.small, RUN)
    assert isinstance(drive(scene.engine(), scene.small, RUN), Done)
    assert scene.small.store_works()
    assert not scene.small.accepted(OLD, "old-planted-secret")


def test_another_value_of_this_very_run_stops_it_before_anything_is_destroyed() -> None:
    """A store that compares and sets in two calls lets a late write of ours over a newer one of ours."""
    scene = Scene()
    scene.engine().start(RUN, planned(scene.small), "bob")
    while scene.engine().state(RUN).done("soak") is None:
        scene.engine().advance(RUN)
        scene.small.pass_time(1)
    held = scene.small.db.execute("SELECT max(version), run FROM store").fetchone()
    scene.small.db.execute("INSERT INTO store VALUES (?, ?, ?)", (held[0] + 1, '{"key_id": "x"}', held[1]))
    said = drive(scene.engine(), scene.small, RUN)
    assert isinstance(said, Failed)
    assert "another value than this rotation's last" in said.reason
    assert scene.small.accepted(OLD, "old-planted-secret")


@pytest.mark.parametrize("until", ["create", "consumer-1", "disable"])
def test_a_phase_from_before_an_undo_takes_nothing_back_out_of_order_and_ends_nothing(until: str) -> None:
    """DBOS goes on with the phase that a crash cut off: its agenda is the one of before, from the first step on."""
    scene = Scene()
    scene.engine().start(RUN, planned(scene.small), "bob")
    agenda = scene.engine().agenda(RUN, scene.engine().state(RUN).turn)
    while scene.engine().state(RUN).done(until) is None:
        scene.engine().advance(RUN)
        scene.small.pass_time(1)
    scene.engine().undo(RUN, "bob")
    for name in agenda:
        if not isinstance(scene.engine().take(RUN, name), Done):
            break
    assert scene.engine().state(RUN).end is None, "nothing was taken back in the right order"
    assert isinstance(drive(scene.engine(), scene.small, RUN), Done)
    assert scene.engine().state(RUN).end is End.UNDONE
    assert scene.small.keys() == [OLD]
    assert scene.small.stored()["key_id"] == OLD
    assert scene.small.accepted(OLD, "old-planted-secret")
