"""A role takes the static key's place: set up with a name under it, seen to work, and only then is anything destroyed.

Beside a new key, instead of one, in place, and where the set-up itself ends the old key; killed at every boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stage import BOTH, WAY, drive, facts, planned
from test_crash import RUN, Scene
from test_engine import Desk
from world import OLD

from playbooks.engine import Refused
from playbooks.journal import End, Status, What
from playbooks.plan import Action, Mode, Unfit, plan
from playbooks.settle import settled
from playbooks.specfile import PlaybookError, lint, parse
from rotators.interface import Trouble
from rotators.step import Done, Effect, Failed, Waiting


@dataclass(frozen=True)
class Sort:
    """One way of a key to be replaced by a role. `account`: the old key's account stays, with another secret."""

    text: str
    more: dict[str, object]
    account: bool = False


SORTS = {
    "beside": Sort(BOTH, {}),
    "instead": Sort(WAY, {}),
    "irreversible": Sort(WAY, {"reversible": False}),
    "in place": Sort(WAY, {"style": "replace"}, account=True),
    "displaces": Sort(WAY, {"style": "replace", "way_displaces": True}, account=True),
    "by itself": Sort(WAY, {"style": "revoke", "reversible": False}),
}


def scene(sort: Sort, crashes: frozenset[int] = frozenset(), mode: Mode = Mode.GRACEFUL, **more: object) -> Scene:
    return Scene(crashes, {**sort.more, **more}, sort.text, mode)


def finished(made: Scene, sort: Sort) -> None:
    """Assert what must hold at the end, whatever happened on the way."""
    small, state = made.small, made.engine().state(RUN)
    assert state.end is End.FINISHED
    assert small.way() == (f"lapse-{RUN}", "wanted")
    assert not small.accepted(OLD, "old-planted-secret")
    assert small.harmed() == []
    assert not made.broken
    ours = small.keys("us")
    assert len(ours) == (1 if sort.text == BOTH else 0)
    left = small.keys()
    assert (OLD in left) is sort.account
    done = [e.step for e in state.entries if e.what is What.DONE]
    assert done == [s.name for s in state.plan.steps], "every step once, in order"
    named = {"successor"} | {s.name for s in state.plan.steps if s.effect is Effect.DESTROYS}
    for name in named:
        over = next(e for e in state.entries if e.step == name and e.what is What.DONE)
        assert any(e.what is What.APPROVED and e.step == name and e.seq < over.seq for e in state.entries), name


@pytest.mark.parametrize("name", SORTS)
def test_the_new_way_is_up_and_seen_before_the_old_key_goes(name: str) -> None:
    sort = SORTS[name]
    made = scene(sort)
    steps = planned(made.small, sort.text).steps
    names = [s.name for s in steps]
    set_up, seen = names.index("successor"), names.index("successor-check")
    assert set_up + 1 == seen
    assert steps[set_up].approvals >= 1
    assert steps[set_up].effect is (Effect.DESTROYS if name == "displaces" else Effect.CHANGES)
    for i, s in enumerate(steps):
        if s.effect is Effect.DESTROYS and s.action is not Action.SETUP:
            assert i > seen
    if name == "displaces":
        for mode in Mode:
            actions = {s.action for s in planned(made.small, sort.text, mode).steps}
            assert not {Action.DELETE, Action.DISABLE} & actions, (
                "that would stop the new way, which is the same account"
            )
    made.run()
    finished(made, sort)


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("mode", Mode)
def test_a_crash_at_every_single_boundary(name: str, mode: Mode) -> None:
    sort = SORTS[name]
    whole = scene(sort, mode=mode)
    whole.run()
    step = 3 if name in {"instead", "displaces"} else 8  # hypothesis draws the others
    for at in range(1 + whole.ticks % step, whole.ticks + 1, step):
        made = scene(sort, frozenset({at}), mode)
        made.run()
        finished(made, sort)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(SORTS)),
    crashes=st.frozensets(st.integers(1, 220), max_size=10),
    mode=st.sampled_from(Mode),
    lost=st.frozensets(st.sampled_from(["setup", "disable", "retire", "apply", "deny", "mint", "put"]), max_size=4),
    earlier=st.booleans(),
)
def test_many_crashes_and_lost_answers(
    name: str, crashes: frozenset[int], mode: Mode, lost: frozenset[str], earlier: bool
) -> None:
    sort = SORTS[name]
    made = scene(sort, crashes, mode)
    if earlier:
        made.small.db.execute("INSERT INTO ways VALUES ('app', 'lapse-r-before', 'former')")
    for op in lost:
        made.small.trouble(op, "lost")
    made.run()
    finished(made, sort)


@pytest.mark.parametrize("former", [None, ("lapse-r-before", "former")])
@pytest.mark.parametrize("at", ["successor", "successor-check", "disable", "soak"])
@pytest.mark.parametrize("mode", Mode)
def test_undo_takes_the_new_way_back_once_the_old_key_works(
    former: tuple[str, str] | None, at: str, mode: Mode
) -> None:
    made = scene(SORTS["instead"], mode=mode)
    small = made.small
    if former:
        small.db.execute("INSERT INTO ways VALUES ('app', ?, ?)", former)
    plan_of = planned(small, WAY, mode)
    if at not in [s.name for s in plan_of.steps]:
        at = "successor-check"
    made.engine().start(RUN, plan_of, "bob")
    for s in plan_of.steps:
        drive_to(made, s.name)
        if s.name == at:
            break
    seen: list[bool] = []
    small.tick = lambda what: seen.append(small.accepted(OLD, "old-planted-secret")) if what == "before unset" else None
    made.engine().undo(RUN, "bob")
    assert isinstance(drive(made.engine(), small, RUN), Done)
    assert made.engine().state(RUN).end is End.UNDONE
    assert small.way() == former
    assert small.accepted(OLD, "old-planted-secret")
    assert seen == [True], "it went when the old key worked again, not before"


def drive_to(made: Scene, name: str) -> None:
    for _ in range(100):
        outcome = made.engine().take(RUN, name)
        if isinstance(outcome, Done):
            return
        assert isinstance(outcome, Waiting)
        if outcome.on == "approval":
            made.engine().approve(RUN, "ann", (name,))
        else:
            assert outcome.until is not None
            made.small.pass_time(max(0.01, (outcome.until - made.small.now()).total_seconds()))
    raise AssertionError(name)


def test_undo_crashes_anywhere_and_goes_on() -> None:
    for at in range(1, 60, 2):
        made = scene(SORTS["instead"])
        made.small.db.execute("INSERT INTO ways VALUES ('app', 'lapse-r-before', 'former')")
        made.engine().start(RUN, planned(made.small, WAY), "bob")
        for s in made.engine().state(RUN).plan.steps:
            drive_to(made, s.name)
            if s.name == "soak":
                break
        made.engine().undo(RUN, "bob")
        made.crashes = frozenset({made.ticks + at})
        for _ in range(2):
            try:
                outcome = drive(made.engine(), made.small, RUN)
            except BaseException as e:  # noqa: BLE001  # the scene's own death
                assert type(e).__name__ == "Crash"  # noqa: PT017  # it is no exception that pytest could expect
        assert isinstance(outcome, Done)
        assert made.small.way() == ("lapse-r-before", "former")
        assert made.small.accepted(OLD, "old-planted-secret")


def test_undo_keeps_the_new_way_while_nobody_can_say_that_the_old_key_works() -> None:
    desk = Desk(WAY)
    desk.start()
    desk.engine.approve(RUN_1, "ann")
    desk.until("soak")
    desk.engine.undo(RUN_1, "bob")
    desk.small.trouble("probe", "down", 2)
    said = desk.engine.advance(RUN_1)
    assert isinstance(said, Waiting)
    assert "not back yet" in said.instructions
    assert desk.small.way() is not None
    assert isinstance(desk.drive(), Done)
    assert desk.small.way() is None


# ── what stops it ──────────────────────────────────────────────────────────────────────────────────────


def test_without_a_name_nothing_is_set_up() -> None:
    desk = Desk(WAY)
    desk.start()
    said = desk.drive(approve=None)
    assert isinstance(said, Waiting)
    assert said.on == "approval"
    assert "changes — Set up what makes this key unnecessary: the role app" in said.instructions
    assert desk.small.way() is None


def test_somebody_elses_role_stops_the_run_before_anything_changes() -> None:
    desk = Desk(WAY)
    desk.small.db.execute("INSERT INTO ways VALUES ('app', '', 'theirs')")
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "somebody else has the role app" in said.reason
    assert desk.engine.state(RUN_1).end is End.FAILED
    assert desk.small.way() == ("", "theirs")


RUN_1 = "r-1"


def test_somebody_who_takes_the_name_meanwhile_stops_it_too() -> None:
    desk = Desk(WAY)
    desk.start()
    desk.until("preflight")
    desk.small.db.execute("INSERT INTO ways VALUES ('app', '', 'theirs')")
    said = desk.drive()
    assert isinstance(said, Failed)
    assert desk.small.way() == ("", "theirs")
    assert desk.small.accepted(OLD, "old-planted-secret")


@pytest.mark.parametrize("text", [WAY, BOTH])
def test_a_new_way_that_does_not_work_destroys_nothing(text: str) -> None:
    desk = Desk(text, way_works=False)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert desk.small.accepted(OLD, "old-planted-secret")
    assert desk.engine.state(RUN_1).status is Status.STOPPED
    desk.engine.undo(RUN_1, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.way() is None


@pytest.mark.parametrize("how", [False, "unseen", "changed", "down"])
def test_a_new_way_that_stops_working_before_the_delete_saves_the_old_key(how: object) -> None:
    desk = Desk(WAY)
    desk.start()
    desk.drive(approve=None)
    desk.engine.approve(RUN_1, "ann")
    desk.until("soak")
    if how == "changed":
        desk.small.db.execute("UPDATE ways SET spec='changed'")
    elif how == "down":
        desk.small.trouble("way", Trouble.LATER, 99)
    else:
        desk.small.set(way_works=how)
    said = desk.drive(most=30) if how != "down" else desk.engine.advance(RUN_1)
    if how == "down":
        desk.engine.approve(RUN_1, "ann")
        said = desk.engine.advance(RUN_1)
    assert isinstance(said, Waiting if how in {"unseen", "down"} else Failed)
    left = desk.small.keys()
    assert OLD in left
    desk.small.db.execute("UPDATE ways SET spec='wanted'")
    desk.small.db.execute("DELETE FROM trouble")
    desk.small.set(way_works=True)
    desk.engine.resume(RUN_1, "bob")
    assert isinstance(desk.drive(), Done)


def test_where_only_a_person_can_let_it_be_seen_the_run_waits() -> None:
    desk = Desk(WAY, way_works="unseen")
    desk.start()
    said = desk.drive()
    assert isinstance(said, Waiting)
    assert said.on == "person"
    assert desk.small.accepted(OLD, "old-planted-secret")
    desk.small.set(way_works=True)
    desk.engine.resume(RUN_1, "bob")
    assert isinstance(desk.drive(), Done)


def test_two_rotations_do_not_make_one_role() -> None:
    desk = Desk(WAY)
    desk.start()
    desk.engine.approve(RUN_1, "ann", ("successor",))
    desk.until("successor")
    desk.journal.rows.append(("r-2", "sim-2", desk.journal.rows[0][2]))  # type: ignore[arg-type]  # another key
    assert isinstance(desk.engine.take("r-2", "evidence"), Done)
    assert isinstance(desk.engine.take("r-2", "preflight"), Done)
    desk.engine.approve("r-2", "ann", ("successor",))
    said = desk.engine.take("r-2", "successor")
    assert isinstance(said, Failed)
    assert "r-1 holds" in said.reason


# ── the playbook ───────────────────────────────────────────────────────────────────────────────────────


def test_a_role_that_takes_the_keys_own_place_needs_no_new_key() -> None:
    made = scene(Sort(BOTH, {"way_displaces": True}))
    book = parse(BOTH.encode(), "b.toml")
    with pytest.raises(Unfit, match="leave out"):
        plan(book, Mode.GRACEFUL, facts(made.small, BOTH))
    assert book.replace is not None
    only = replace(book, replace=replace(book.replace, use=""))
    assert plan(only, Mode.GRACEFUL, facts(made.small, BOTH)).steps[-1].action is Action.SUGGEST


def test_replace_is_settable_and_linted() -> None:
    book = parse(WAY.encode(), "b.toml")
    laid = settled(book, {"replace.use": "vault_jwt_role", "replace.role": "ci", "replace.suggest": "x"})
    assert laid.replace is not None
    assert (laid.replace.use, laid.replace.settings, laid.replace.suggest) == ("vault_jwt_role", {"role": "ci"}, "x")
    bare = settled(replace(book, replace=None), {"replace.use": "own.module"})
    assert bare.replace is not None
    assert bare.replace.use == "own.module"
    with pytest.raises(PlaybookError, match="settings go with use"):
        settled(replace(book, replace=None), {"replace.role": "ci"})
    wrong = WAY.replace('use = "simsuccessor"', 'use = "simsuccessor"\nsettings = { role = "{old.secret}" }')
    said = list(lint(wrong.encode(), "b.toml"))
    assert len(said) == 1
    assert "must not hold `{old.secret}`" in said[0]
    no_issuer = WAY.replace('issuer = "sim"\n', "")
    assert "without an issuer" in next(lint(no_issuer.encode(), "b.toml"))
    by_hand = no_issuer.replace("[retire]", '[retire]\nopen = "https://provider.example/keys"')
    assert list(lint(by_hand.encode(), "b.toml")) == []


def test_by_name_only() -> None:
    text = WAY.replace('issuer = "sim"', 'issuer = "sim"\nnamed = true')
    assert parse(text.encode(), "b.toml").named


def test_a_refused_undo_names_the_step() -> None:
    desk = Desk(WAY, style="replace", way_displaces=True, reversible=False)
    desk.start()
    desk.drive()
    with pytest.raises(Refused):
        desk.engine.undo(RUN_1, "bob")
