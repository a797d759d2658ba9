"""Concurrent hands, awkward worlds, approvals and undo: what the engine does when it is not alone and not lucky."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from stage import BOOK, IN_PLACE, PERSON, REVOKE, WAY, Remembered, drive, planned
from world import OLD, Small

from playbooks.engine import MOST_TRIES, Engine, Refused, claims
from playbooks.journal import End, Status, Taken, What
from playbooks.plan import Action, Mode
from rotators.interface import ProviderError, Style, Trouble
from rotators.step import Done, Effect, Failed, Outcome, Waiting
from verifier.secret import Secret

RUN = "r-1"


class Desk:
    def __init__(self, text: str = BOOK, mode: Mode = Mode.GRACEFUL, **settings: object) -> None:
        self.small = Small()
        self.small.set(**{"clock": 0.0, "lag_new": 3, "lag_dead": 15, **settings})
        self.small.begin()
        self.journal = Remembered(self.small.now)
        self.text, self.mode = text, mode
        self.typed: Secret | None = None

    @property
    def engine(self) -> Engine:
        return Engine(self.journal, self.small.world(lambda _: self.typed), self.small.now)

    def start(self, run: str = RUN, by: str = "bob") -> None:
        self.engine.start(run, planned(self.small, self.text, self.mode), by)

    def drive(self, run: str = RUN, approve: str | None = "ann", most: int = 400) -> Outcome:
        return drive(self.engine, self.small, run, approve=approve, most=most)

    def until(self, step: str) -> None:
        """Go on until `step` is done."""
        for name in self.engine.agenda(RUN, self.engine.state(RUN).turn):
            for _ in range(100):
                outcome = self.engine.take(RUN, name)
                if isinstance(outcome, Done):
                    break
                assert isinstance(outcome, Waiting)
                assert outcome.until is not None
                self.small.pass_time(max(0.01, (outcome.until - self.small.now()).total_seconds()))
            if name == step:
                return
        raise AssertionError(step)


# ── concurrent hands ───────────────────────────────────────────────────────────────────────────────────


def test_a_second_rotation_of_one_key_is_refused() -> None:
    desk = Desk()
    desk.start()
    with pytest.raises(Taken, match="r-1 holds this key"):
        desk.start("r-2")


def test_two_rotations_of_one_owner_do_not_make_keys_at_once() -> None:
    desk = Desk()
    desk.start()
    desk.until("create")
    desk.journal.rows.append(("r-2", "sim-2", desk.journal.rows[0][2]))  # type: ignore[arg-type]  # another key
    said = drive(desk.engine, desk.small, "r-2")
    assert isinstance(said, Failed)
    assert "r-1 holds sim bot" in said.reason
    assert len(desk.small.keys("us")) == 1


def test_tokens_that_only_end_themselves_are_rotated_side_by_side() -> None:
    plan = planned(Desk().small)
    asked = {"preflight": {"owner": "GitHub"}}
    assert claims(plan, asked)[0] == "sim GitHub"
    free = claims(structs.replace(plan, style=Style.REVOKE), asked)
    assert [what.partition(" ")[0] for what in free] == ["simstore"]


def test_a_colleagues_key_in_the_middle_is_left_alone() -> None:
    desk = Desk(marks=False)
    desk.start()
    desk.until("snapshot")
    theirs = desk.small.colleague_makes()
    desk.small.trouble("mint", "lost")
    assert isinstance(desk.drive(), Done)
    live = desk.small.keys()
    assert theirs in live
    assert desk.small.harmed() == []


def test_a_colleagues_key_is_no_orphan_though_nothing_tells_whose_it_is() -> None:
    desk = Desk(marks=False, no_audit=True)
    desk.start()
    desk.until("snapshot")
    theirs = desk.small.colleague_makes()  # between the snapshot and the mint, and never used
    assert isinstance(desk.drive(), Done)
    assert set(desk.small.keys("colleague")) == {theirs}
    assert desk.small.harmed() == []


def test_two_keys_of_which_one_is_ours_are_left_to_a_person() -> None:
    desk = Desk(marks=False, no_audit=True)
    desk.start()
    desk.until("snapshot")
    desk.small.trouble("mint", "lost")
    desk.engine.advance(RUN)
    theirs = desk.small.colleague_makes()
    ours = desk.small.keys("us")
    said = desk.drive()
    assert isinstance(said, Waiting)
    assert "none says which" in said.instructions
    assert desk.engine.state(RUN).status is Status.WAITING, "not ended as if nothing had been made"
    assert set(desk.small.keys()) == {OLD, theirs, *ours}
    desk.small.db.execute("DELETE FROM keys WHERE creator='us'")
    desk.small.db.execute("UPDATE keys SET used=1 WHERE creator='colleague'")
    desk.engine.resume(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.harmed() == []


def test_a_key_made_long_after_a_lost_attempt_is_not_of_it() -> None:
    desk = Desk(marks=False, no_audit=True)
    desk.start()
    desk.until("snapshot")
    desk.small.trouble("mint", Trouble.LATER)  # it was never made, but nobody here knows
    desk.engine.advance(RUN)
    desk.small.pass_time(400)
    theirs = desk.small.colleague_makes()
    assert isinstance(desk.drive(), Done)
    assert set(desk.small.keys("colleague")) == {theirs}


def test_a_mint_that_was_refused_leaves_nothing_to_look_for() -> None:
    desk = Desk(marks=False, no_audit=True)
    desk.start()
    desk.until("snapshot")
    desk.small.trouble("mint", Trouble.DENIED)
    assert isinstance(desk.drive(), Failed)
    theirs = desk.small.colleague_makes()
    if desk.engine.state(RUN).end is None:
        desk.engine.undo(RUN, "bob")
        desk.drive()
    assert theirs in set(desk.small.keys())


def test_a_key_that_could_not_be_stored_is_retired_by_its_note_alone() -> None:
    desk = Desk(blind=True, marks=False)
    desk.small.trouble("put", Trouble.LATER, 3)
    desk.start()
    assert isinstance(desk.drive(), Done)
    assert desk.small.keys("us") == [desk.small.stored()["key_id"]]


def test_a_key_that_is_gone_already_changes_nothing() -> None:
    desk = Desk()
    desk.small.db.execute("UPDATE keys SET state='gone'")
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert desk.engine.state(RUN).end is End.FAILED
    assert "lapse verify" in said.hint
    desk.start("r-2")  # the way is free


def test_a_key_deleted_by_somebody_in_the_middle_is_proven_all_the_same() -> None:
    desk = Desk()
    desk.start()
    desk.until("consumer-1")
    desk.small.db.execute("UPDATE keys SET state='gone', dead_from=0 WHERE id=?", (OLD,))
    assert isinstance(desk.drive(), Done)
    assert desk.engine.state(RUN).end is End.FINISHED


def test_a_store_that_changed_since_the_snapshot_stops_before_anything_is_made() -> None:
    desk = Desk()
    desk.start()
    desk.until("snapshot")
    desk.small.colleague_writes()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert desk.small.keys("us") == []
    assert desk.engine.state(RUN).end is End.FAILED


def test_a_lost_race_for_the_store_takes_the_new_key_back() -> None:
    desk = Desk(rival=True)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "deleted again" in said.reason
    assert desk.small.keys("us") == []
    assert desk.small.stored() == {"key_id": "x", "key_secret": "y"}
    assert desk.engine.state(RUN).end is End.FAILED
    assert desk.small.accepted(OLD, "old-planted-secret")


@pytest.mark.parametrize("step", ["create", "verify", "soak"])
def test_whoever_overwrites_the_stored_key_stops_the_run(step: str) -> None:
    desk = Desk()
    desk.start()
    desk.until(step)
    desk.small.colleague_writes()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "somebody else wrote" in said.reason
    live = desk.small.keys()
    assert OLD in live
    assert desk.engine.state(RUN).status is Status.STOPPED


# ── awkward worlds ─────────────────────────────────────────────────────────────────────────────────────


def test_a_deleted_key_that_works_for_twenty_minutes_is_waited_out() -> None:
    desk = Desk(reversible=False, lag_dead=1200)
    desk.start()
    assert isinstance(desk.drive(), Done)
    state = desk.engine.state(RUN)
    proof = state.done("prove")
    deleted = state.done("delete")
    assert proof is not None
    assert deleted is not None
    assert proof.at - deleted.at >= timedelta(seconds=1200)
    assert proof.data["last_acceptance"] > deleted.at.isoformat()
    assert proof.data["first_stable_refusal"] > proof.data["last_acceptance"]


def test_a_new_key_that_fails_for_ten_seconds_and_flaps_is_waited_for() -> None:
    desk = Desk(lag_new=10, flaps=True)
    desk.start()
    assert isinstance(desk.drive(), Done)
    state = desk.engine.state(RUN)
    made, seen = state.done("create"), state.done("verify")
    assert made is not None
    assert seen is not None
    assert (seen.at - made.at).total_seconds() >= 10


def test_a_202_that_never_happens_is_no_death() -> None:
    desk = Desk(f'{REVOKE}give_up = "3h"\n', style="revoke", reversible=False, deaf=True)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "still not refused" in said.reason
    state = desk.engine.state(RUN)
    assert state.done("delete") is not None, "it was told that it was done"
    assert state.done("prove") is None
    assert state.status is Status.STOPPED
    desk.small.set(deaf=False)
    desk.small.db.execute("UPDATE keys SET state='gone', dead_from=0")
    desk.engine.resume(RUN, "bob")
    assert isinstance(desk.drive(), Done)


def test_a_provider_that_throttles_is_asked_when_it_says() -> None:
    desk = Desk()
    desk.start()
    desk.until("consumer-1")
    desk.small.set(retry_after=777)
    desk.small.trouble("disable", Trouble.LATER, 2)
    desk.engine.approve(RUN, "ann")
    waited = [w for w in iter_waits(desk) if "disable" in w.instructions]
    assert len(waited) == 2
    assert desk.engine.state(RUN).end is End.FINISHED


def iter_waits(desk: Desk) -> list[Waiting]:
    """Go to the end, and return every wait for time; each must be as long as the provider asked for."""
    found = []
    for _ in range(200):
        outcome = desk.engine.advance(RUN)
        if not isinstance(outcome, Waiting):
            return found
        assert outcome.until is not None
        if "disable" in outcome.instructions:
            assert (outcome.until - desk.small.now()).total_seconds() >= 777
        found.append(outcome)
        desk.small.pass_time(max(0.01, (outcome.until - desk.small.now()).total_seconds()))
    raise AssertionError


@pytest.mark.parametrize("skew", [-600, -50, 50, 600])
@pytest.mark.parametrize("step", ["snapshot", "consumer-1", "soak"])
def test_a_machine_whose_clock_is_wrong_goes_on_where_another_stopped(step: str, skew: int) -> None:
    desk = Desk(marks=False)
    desk.start()
    desk.until(step)
    wrong = timedelta(seconds=skew)

    def ours() -> datetime:
        return desk.small.now() + wrong

    desk.journal.now = ours
    world = desk.small.world()
    engine = Engine(desk.journal, lambda plan: dataclasses.replace(world(plan), now=ours), ours)
    outcome: Outcome = Done()
    for _ in range(3000):
        outcome = engine.advance(RUN)
        if not isinstance(outcome, Waiting):
            break
        if outcome.on == "approval":
            engine.approve(RUN, "ann")
        elif outcome.until is not None:
            desk.small.pass_time(max(0.01, (outcome.until - ours()).total_seconds()))
    assert isinstance(outcome, Done)
    state = engine.state(RUN)
    assert state.end is End.FINISHED
    assert desk.small.keys() == desk.small.keys("us")
    assert len(desk.small.keys()) == 1
    assert desk.small.store_works()
    assert not desk.small.accepted(OLD, "old-planted-secret")


def test_a_new_key_that_never_works_kills_nothing() -> None:
    desk = Desk(lag_new=9e9)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "not accepted" in said.reason
    assert desk.small.accepted(OLD, "old-planted-secret")
    assert desk.engine.state(RUN).status is Status.STOPPED


def test_a_new_key_that_dies_before_the_delete_saves_the_old_one() -> None:
    desk = Desk()
    desk.start()
    desk.until("soak")
    desk.small.db.execute("UPDATE keys SET state='gone', dead_from=0 WHERE creator='us'")
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "nothing was destroyed" in said.reason
    live = desk.small.keys()
    assert OLD in live
    desk.engine.undo(RUN, "bob")  # still possible
    assert isinstance(desk.drive(), Done)
    assert desk.small.accepted(OLD, "old-planted-secret")


@pytest.mark.parametrize("op", ["locate", "mint", "put", "push", "disable", "retire", "deny"])
def test_an_api_that_is_down_for_an_hour_is_waited_for(op: str) -> None:
    desk = Desk()
    desk.small.trouble(op, Trouble.LATER, 12)
    desk.start()
    assert isinstance(desk.drive(), Done)
    assert desk.engine.state(RUN).end is End.FINISHED
    assert len(desk.small.keys("us")) == 1


def test_a_verifier_that_is_down_is_no_proof_of_anything() -> None:
    desk = Desk()
    desk.start()
    desk.small.trouble("probe", "down", 30)
    assert isinstance(desk.drive(), Done)
    assert desk.engine.state(RUN).end is End.FINISHED


def test_what_never_gets_better_is_given_up_and_can_be_resumed() -> None:
    desk = Desk()
    desk.small.trouble("disable", Trouble.LATER, MOST_TRIES + 2)
    desk.start()
    assert isinstance(desk.drive(), Failed)
    assert desk.engine.state(RUN).status is Status.STOPPED
    desk.engine.resume(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.engine.state(RUN).end is End.FINISHED


@pytest.mark.parametrize(("trouble", "end"), [(Trouble.DENIED, End.FAILED), (Trouble.FULL, End.FAILED)])
def test_missing_rights_and_full_slots_are_found_before_the_first_change(trouble: Trouble, end: End) -> None:
    desk = Desk()
    desk.small.trouble("preflight", trouble)
    desk.start()
    assert isinstance(desk.drive(), Failed)
    assert desk.engine.state(RUN).end is end
    assert desk.small.keys() == [OLD]


@pytest.mark.parametrize(("op", "text"), [("consumer preflight", BOOK), ("way preflight", WAY)])
def test_what_a_later_step_lacks_is_found_before_the_first_change(op: str, text: str) -> None:
    desk = Desk(text, mode=Mode.EMERGENCY)
    desk.small.trouble(op, Trouble.DENIED)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "right that the plan names" in said.hint
    state = desk.engine.state(RUN)
    assert state.end is End.FAILED
    assert not state.changed()
    assert desk.small.denied() == 0


def test_rights_lost_at_the_delete_leave_a_run_that_goes_on() -> None:
    desk = Desk()
    desk.small.trouble("retire", Trouble.DENIED)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "right that the plan names" in said.hint
    desk.engine.resume(RUN, "bob")
    assert isinstance(desk.drive(), Done)


def test_evidence_is_bounded_and_never_a_blocker() -> None:
    desk = Desk(BOOK + '[evidence]\nwithin = "100ms"\n', slow_evidence=0.5)
    desk.start()
    desk.until("preflight")
    done = desk.engine.state(RUN).done("evidence")
    assert done is not None
    assert "no answer within" in done.text
    desk = Desk()
    desk.small.trouble("evidence", Trouble.DENIED)
    desk.start()
    assert isinstance(desk.drive(), Done)


# ── the new key, this very moment ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", Mode)
def test_a_new_key_refused_for_a_moment_before_the_delete_is_looked_at_again(mode: Mode) -> None:
    desk = Desk(mode=mode)
    desk.start()
    desk.until(_before_delete(desk))
    (new,) = set(desk.small.keys()) - {OLD}
    back = desk.small.seconds() + 7
    desk.small.db.execute("UPDATE keys SET live_from=? WHERE id=?", (back, new))
    while not isinstance(outcome := desk.engine.take(RUN, "delete"), Done):
        assert isinstance(outcome, Waiting), outcome
        if outcome.on == "approval":
            desk.engine.approve(RUN, "ann")
            continue
        assert "nothing destroyed" in outcome.instructions
        assert OLD in set(desk.small.keys())
        assert outcome.until is not None
        desk.small.pass_time(max(0.01, (outcome.until - desk.small.now()).total_seconds()))
    looks = [e.text for e in desk.engine.state(RUN).entries if e.step == "delete" and e.what is What.NOTE]
    assert looks[0] == "fresh: dead"
    assert looks[-4:] == ["fresh: dead", *["fresh: live"] * 3]
    assert isinstance(desk.drive(), Done)


def test_a_new_key_refused_for_good_ends_nothing_old() -> None:
    desk = Desk()
    desk.start()
    desk.until(_before_delete(desk))
    (new,) = set(desk.small.keys()) - {OLD}
    desk.small.db.execute("UPDATE keys SET live_from=? WHERE id=?", (desk.small.seconds() + 3600, new))
    said = desk.drive()
    assert isinstance(said, Failed)
    assert said.reason == "the new key is refused; nothing was destroyed"
    assert OLD in set(desk.small.keys())
    desk.small.pass_time(3600)
    desk.engine.resume(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.keys() == [new]


def _before_delete(desk: Desk) -> str:
    names = [s.name for s in desk.engine.state(RUN).plan.steps]
    return names[names.index("delete") - 1]


# ── what fails in the middle leaves nothing behind ─────────────────────────────────────────────────────

DEFINITE = [Trouble.DENIED, Trouble.REFUSED, Trouble.GONE, Trouble.FULL]


@pytest.mark.parametrize("trouble", DEFINITE)
def test_a_store_that_refuses_the_new_key_costs_only_that(trouble: Trouble) -> None:
    desk = Desk(marks=False, blind=True)
    desk.small.trouble("put", trouble)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "deleted again" in said.reason
    assert desk.small.keys() == [OLD]
    assert desk.engine.state(RUN).end is End.FAILED


@pytest.mark.parametrize("then", ["resume", "undo"])
@pytest.mark.parametrize("blind", [True, False])
def test_a_new_key_that_can_be_neither_stored_nor_deleted_is_not_forgotten(then: str, *, blind: bool) -> None:
    desk = Desk(marks=False, blind=blind)
    desk.small.trouble("put", Trouble.DENIED)
    desk.small.trouble("retire", Trouble.DENIED)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Waiting)
    (stuck,) = desk.small.keys("us")
    assert f"the new key {stuck} is in no store" in said.instructions
    assert desk.engine.state(RUN).end is None
    getattr(desk.engine, then)(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert stuck not in set(desk.small.keys())
    assert len(desk.small.keys()) == 1


def test_an_issuer_that_will_not_list_after_a_lost_answer_ends_nothing() -> None:
    desk = Desk(marks=False)
    desk.start()
    desk.until("snapshot")
    desk.small.trouble("mint", "lost")
    desk.engine.advance(RUN)
    desk.small.trouble("orphans", Trouble.DENIED)
    said = desk.drive()
    assert isinstance(said, Failed)
    assert desk.engine.state(RUN).status is Status.STOPPED, "a key may be there: not ended as if none were"
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.keys() == [OLD]


@pytest.mark.parametrize(("op", "mode"), [("deny", Mode.EMERGENCY), ("push", Mode.GRACEFUL), ("setup", Mode.GRACEFUL)])
def test_half_a_step_is_taken_back_too(op: str, mode: Mode) -> None:
    """Some hands take several calls for one step; a refusal at the second leaves what the first did."""
    desk = Desk(WAY if op == "setup" else BOOK, mode=mode)
    before = desk.small.stored()
    half = desk.small.act

    def act(name: str, work: Any) -> Any:
        result = half(name, work)
        if name == op and not desk.small.get("whole"):
            desk.small.set(whole=True)
            raise ProviderError(Trouble.REFUSED, "the second call")
        return result

    desk.small.act = act  # type: ignore[method-assign]  # the world breaks in the middle
    desk.start()
    assert isinstance(desk.drive(), Failed)
    assert desk.engine.state(RUN).end is None
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert (desk.small.denied(), desk.small.way()) == (0, None)
    assert desk.small.at_consumer() == desk.small.stored() == before
    assert desk.small.keys() == [OLD]


@pytest.mark.parametrize("op", ["mint", "put", "push", "disable", "retire", "deny", "orphans"])
@pytest.mark.parametrize("mode", Mode)
def test_an_admin_login_that_expires_in_the_middle_is_renewed_and_the_run_goes_on(op: str, mode: Mode) -> None:
    desk = Desk(mode=mode)
    desk.small.trouble(op, Trouble.DENIED)
    desk.start()
    said = desk.drive()
    if isinstance(said, Failed) and desk.engine.state(RUN).end is None:
        desk.engine.resume(RUN, "bob")
        said = desk.drive()
    elif isinstance(said, Failed):
        assert desk.small.keys() == [OLD], "ended only where nothing had been changed"
        assert desk.small.accepted(OLD, "old-planted-secret")
        assert desk.small.stored()["key_id"] == OLD
        return
    assert isinstance(said, Done)
    assert len(desk.small.keys()) == 1


# ── emergency ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_emergency_stops_the_old_key_before_anything_else() -> None:
    desk = Desk(mode=Mode.EMERGENCY)
    desk.start()
    assert isinstance(desk.drive(), Done)
    done = [e.step for e in desk.engine.state(RUN).entries if e.what is What.DONE]
    assert done[:5] == ["evidence", "preflight", "contain", "sessions-1", "snapshot"]
    assert "soak" not in done
    assert "drain" not in done


QUARANTINE = {"stops_new": True, "lift_after": 30}


def test_what_stops_the_new_key_too_is_lifted_before_that_is_looked_at() -> None:
    desk = Desk(mode=Mode.EMERGENCY, **QUARANTINE)
    desk.start()
    steps = [s.name for s in desk.engine.state(RUN).plan.steps]
    assert steps.index("sessions-1") < steps.index("create") < steps.index("lift-1") < steps.index("verify")
    assert not desk.engine.state(RUN).plan.step("lift-1").approvals, "the old key is disabled by itself"
    desk.until("create")
    assert desk.small.denied() == 1
    said = desk.engine.advance(RUN)
    assert isinstance(said, Waiting)
    assert "sessions are not over" in said.instructions
    assert isinstance(desk.drive(), Done)
    assert desk.small.denied() == 2
    assert desk.small.store_works()
    state = desk.engine.state(RUN)
    killed, lifted = state.done("sessions-1"), state.done("lift-1")
    assert killed is not None
    assert lifted is not None
    assert (lifted.at - killed.at).total_seconds() >= 30


def test_where_nothing_else_holds_the_old_key_somebody_agrees_to_the_lift() -> None:
    desk = Desk(mode=Mode.EMERGENCY, reversible=False, **QUARANTINE)
    desk.start()
    lift = desk.engine.state(RUN).plan.step("lift-1")
    assert lift.approvals == 1
    assert "works again from here until it is retired" in lift.title
    assert isinstance(desk.drive(approve=None), Waiting)
    assert not desk.small.accepted(OLD, "old-planted-secret")
    assert isinstance(desk.drive(), Done)


def test_a_stop_of_somebody_elses_is_never_lifted() -> None:
    desk = Desk(mode=Mode.EMERGENCY, **QUARANTINE)
    desk.small.db.execute("INSERT INTO sessions VALUES (1, 1)")
    desk.start()
    said = desk.drive()
    assert isinstance(said, Waiting)
    assert said.on == "person"
    assert "by somebody else" in said.instructions
    assert desk.small.denied() == 1
    desk.engine.undo(RUN, "bob")
    desk.small.set(stops_new=False)  # so that the old key can be seen to work again
    assert isinstance(desk.drive(), Done)
    assert desk.small.denied() == 1, "nor by an undo"


def test_a_stop_that_somebody_lifts_is_lifted() -> None:
    desk = Desk(mode=Mode.EMERGENCY, **QUARANTINE)
    desk.small.db.execute("INSERT INTO sessions VALUES (1, 1)")
    desk.start()
    assert isinstance(desk.drive(), Waiting)
    desk.small.db.execute("UPDATE sessions SET denied=0")
    desk.engine.resume(RUN, "bob")
    assert isinstance(desk.drive(), Done)


def test_in_no_hurry_nobody_is_quarantined_and_the_plan_says_so() -> None:
    desk = Desk(**QUARANTINE)
    desk.start()
    plan = desk.engine.state(RUN).plan
    assert not {Action.SESSIONS, Action.LIFT} & {s.action for s in plan.steps}
    assert "simsessions is left out" in plan.notes[0]
    assert isinstance(desk.drive(), Done)
    assert desk.small.denied() == 0


@pytest.mark.parametrize("step", ["sessions-1", "create", "lift-1", "verify", "consumer-1"])
def test_a_quarantine_is_gone_after_an_undo(step: str) -> None:
    desk = Desk(mode=Mode.EMERGENCY, **QUARANTINE)
    desk.start()
    desk.until(step)
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.denied() == 0
    assert desk.small.accepted(OLD, "old-planted-secret")
    assert desk.small.keys() == [OLD]


# ── room ───────────────────────────────────────────────────────────────────────────────────────────────


def test_full_slots_are_found_before_the_first_change() -> None:
    desk = Desk(slots=1)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "no room" in said.reason
    assert desk.engine.state(RUN).end is End.FAILED


def test_room_is_made_in_a_step_of_its_own_with_a_name_under_it() -> None:
    desk = Desk()
    spare = desk.small.spare()
    desk.start()
    plan = desk.engine.state(RUN).plan
    assert plan.step("room").effect is Effect.DESTROYS
    assert plan.index("room") < plan.index("create")
    said = desk.drive(approve=None)
    assert isinstance(said, Waiting)
    assert said.on == "approval"
    assert f"(now {spare})" in said.instructions, "who agrees sees which key it is"
    assert desk.small.keys() == [OLD, spare]
    desk.engine.approve(RUN, "ann")
    desk.until("create")
    assert desk.small.keys() == [OLD, *desk.small.keys("us")]
    desk.engine.undo(RUN, "bob")  # the old key can still be brought back
    assert isinstance(desk.drive(), Done)
    assert desk.small.keys() == [OLD]
    assert desk.small.accepted(OLD, "old-planted-secret")


def test_room_that_is_there_already_costs_nobodys_key() -> None:
    desk = Desk(makes_room=True)
    desk.start()
    said = desk.drive(approve=None)
    assert isinstance(said, Waiting)
    assert "now there is room" in said.instructions
    assert isinstance(desk.drive(), Done)
    assert len(desk.small.keys()) == 1


def test_another_key_than_the_one_agreed_on_is_left() -> None:
    desk = Desk()
    spare = desk.small.spare()
    desk.start()
    desk.engine.approve(RUN, "ann", ("room",))
    desk.until("preflight")
    desk.small.db.execute("UPDATE keys SET id='K-other' WHERE id=?", (spare,))
    said = desk.drive()
    assert isinstance(said, Failed)
    assert "nobody agreed to" in said.reason
    assert desk.small.keys() == [OLD, "K-other"]


# ── approvals ──────────────────────────────────────────────────────────────────────────────────────────

TWO = BOOK + '[approvals]\ndestroys = "two"\nexpire = "1h"\n'


def test_two_people_and_the_starter_is_none_of_them() -> None:
    desk = Desk(TWO)
    desk.start(by="Bob")
    assert isinstance(desk.drive(approve=None), Waiting)
    with pytest.raises(Refused, match="who started"):
        desk.engine.approve(RUN, " bob ")
    assert [s.name for s in desk.engine.approve(RUN, "ann")] == ["delete"]
    with pytest.raises(Refused, match="somebody else as well"):
        desk.engine.approve(RUN, "ANN")
    said = desk.drive(approve=None)
    assert isinstance(said, Waiting)
    assert said.on == "approval"
    desk.engine.approve(RUN, "cleo")
    assert isinstance(desk.drive(approve=None), Done)


def test_an_approval_of_the_starter_that_got_in_otherwise_counts_for_nothing() -> None:
    desk = Desk(TWO)
    desk.start()
    until = (desk.small.now() + timedelta(days=1)).isoformat()
    for who in ("ann", "Bob"):
        desk.journal.append(RUN, "delete", What.APPROVED, "", {"who": who, "until": until})
    said = desk.drive(approve=None)
    assert isinstance(said, Waiting)
    assert said.on == "approval"


def test_an_approval_ends_and_can_be_taken_back() -> None:
    desk = Desk(TWO)
    desk.start()
    desk.drive(approve=None)
    desk.engine.approve(RUN, "ann")
    desk.engine.approve(RUN, "cleo")
    desk.small.pass_time(3601)
    assert isinstance(desk.drive(approve=None), Waiting), "expired"
    desk.engine.approve(RUN, "ann")
    desk.engine.approve(RUN, "cleo")
    assert desk.engine.withdraw(RUN, "Cleo") == ["delete"]
    assert isinstance(desk.drive(approve=None), Waiting), "withdrawn"
    live = desk.small.keys()
    assert OLD in live
    with pytest.raises(Refused, match="approved nothing"):
        desk.engine.withdraw(RUN, "dora")
    with pytest.raises(Refused, match="needs no approval"):
        desk.engine.approve(RUN, "ann", ("verify",))
    with pytest.raises(Refused, match="needs a name"):
        desk.engine.approve(RUN, "  ")


# ── undo ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "step", ["preflight", "snapshot", "create", "verify", "consumer-1", "drain", "disable", "soak"]
)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("lag", [0, 15])
def test_undo_at_any_point_before_the_delete(step: str, mode: Mode, lag: int) -> None:
    desk = Desk(mode=mode, lag_dead=lag)
    before = desk.small.stored()
    desk.start()
    if mode is Mode.EMERGENCY:
        step = {"drain": "contain", "disable": "sessions-1", "soak": "consumer-1"}.get(step, step)
    desk.until(step)
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.engine.state(RUN).end is End.UNDONE
    assert desk.small.keys() == [OLD]
    assert desk.small.accepted(OLD, "old-planted-secret")
    assert desk.small.stored() == before
    assert desk.small.at_consumer() == before
    assert desk.small.db.execute("SELECT denied FROM sessions").fetchall() in ([], [(0,)])


def test_after_the_delete_there_is_only_forward() -> None:
    desk = Desk()
    desk.start()
    desk.drive(approve=None)
    desk.engine.approve(RUN, "ann")
    desk.until("delete")
    with pytest.raises(Refused, match="past the point of no return"):
        desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    with pytest.raises(Refused, match="has ended"):
        desk.engine.undo(RUN, "bob")


@pytest.mark.parametrize("op", ["enable", "restore", "push", "retire"])
@pytest.mark.parametrize("kind", ["lost", Trouble.LATER])
def test_undo_survives_lost_answers(op: str, kind: str) -> None:
    desk = Desk()
    desk.start()
    desk.until("soak")
    desk.small.trouble(op, kind, 2)
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.keys() == [OLD]


def test_undo_that_cannot_bring_the_old_key_back_keeps_the_new_one() -> None:
    desk = Desk()
    desk.start()
    desk.until("soak")
    desk.small.db.execute("UPDATE keys SET state='gone', dead_from=0 WHERE id=?", (OLD,))
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Failed)
    assert len(desk.small.keys("us")) == 1
    assert desk.small.store_works()
    assert desk.engine.state(RUN).status is Status.STOPPED


def test_in_place_undo_works_until_the_secret_is_set() -> None:
    desk = Desk(IN_PLACE, style="replace", reversible=False)
    before = desk.small.stored()
    desk.start()
    desk.until("create")
    desk.engine.undo(RUN, "bob")
    assert isinstance(desk.drive(), Done)
    assert desk.small.stored() == before
    assert desk.small.accepted(OLD, "old-planted-secret")


# ── by hand ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_person_who_enters_the_leaked_key_again_is_told() -> None:
    desk = Desk(PERSON)
    desk.start()
    said = desk.drive()
    assert isinstance(said, Waiting)
    assert "https://provider.example/keys" in said.instructions
    desk.typed = Secret("old-planted-secret")
    said = desk.drive()
    assert isinstance(said, Waiting)
    assert "the leaked key itself" in said.instructions
    desk.typed = Secret(" fresh \n")
    desk.small.db.execute("UPDATE keys SET secret='fresh'")
    assert isinstance(desk.drive(), Done)
    assert desk.small.stored()["key_secret"] == "fresh"


def test_no_step_before_its_turn() -> None:
    desk = Desk()
    desk.start()
    assert isinstance(desk.engine.take(RUN, "delete"), Failed)
    assert desk.small.keys() == [OLD]
