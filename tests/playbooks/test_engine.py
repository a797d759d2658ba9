"""Concurrent hands, awkward worlds, approvals and undo: what the engine does when it is not alone and not lucky."""

from __future__ import annotations

from datetime import timedelta

import pytest
from stage import BOOK, IN_PLACE, PERSON, Remembered, drive, planned
from world import OLD, Small

from playbooks.engine import MOST_TRIES, Engine, Refused
from playbooks.journal import End, Status, Taken, What
from playbooks.plan import Mode
from rotators.interface import Trouble
from rotators.step import Done, Failed, Outcome, Waiting
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


# ── emergency ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_emergency_stops_the_old_key_before_anything_else() -> None:
    desk = Desk(mode=Mode.EMERGENCY)
    desk.start()
    assert isinstance(desk.drive(), Done)
    done = [e.step for e in desk.engine.state(RUN).entries if e.what is What.DONE]
    assert done[:5] == ["evidence", "preflight", "contain", "sessions-1", "snapshot"]
    assert "soak" not in done
    assert "drain" not in done


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
