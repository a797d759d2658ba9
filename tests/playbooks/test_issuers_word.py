"""Keys that nobody can ask about, or whose refusal could mean two things: there the issuer's word counts as well."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from stage import PERSON, Remembered, drive, planned
from world import OLD, Small

from playbooks.engine import Engine
from playbooks.journal import End
from rotators.step import Done, Failed, Outcome, Waiting
from verifier.model import Dead, Doubt, Evidence, Live, Undecided
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from playbooks.plan import Plan
    from playbooks.world import World
    from verifier.model import Credential, Verdict

RUN = "r-test"


class Desk:
    """A rotation whose verifier says of a credential what `probe` makes of the world's own word."""

    def __init__(self, probe: Callable[[Verdict], Verdict]) -> None:
        self.small = Small()
        self.small.set(clock=0.0, lag_new=0, lag_dead=5)
        self.small.begin()
        journal = Remembered(self.small.now)

        def asked(credential: Credential) -> Verdict:
            return probe(self.small.probe(credential))

        def world(plan: Plan) -> World:
            return dataclasses.replace(self.small.world()(plan), probe=asked)

        self.engine = Engine(journal, world, self.small.now)

    def rotate(self) -> Outcome:
        self.engine.start(RUN, planned(self.small), "bob")
        return drive(self.engine, self.small, RUN)


def unsupported(_said: Verdict) -> Verdict:
    return Undecided(Doubt.UNSUPPORTED, note="no call is read-only")


def mumbling(said: Verdict) -> Verdict:
    """As OpenBao: the words for a dead token are also those for a live one that may not look itself up."""
    return Undecided(Doubt.AMBIGUOUS, said.evidence) if isinstance(said, Dead) else said


def test_a_kind_without_a_probe_is_rotated_by_its_issuers_word() -> None:
    desk = Desk(unsupported)
    assert isinstance(desk.rotate(), Done)
    assert desk.engine.state(RUN).end is End.FINISHED
    assert not set(desk.small.keys()) & {OLD}
    assert desk.small.store_works()


@pytest.mark.parametrize(
    ("harm", "fails"),
    [
        ("UPDATE keys SET state='gone' WHERE id != ?", True),
        ("UPDATE store SET run='x' WHERE ? != ''", True),
        ("UPDATE store SET fields=json_set(fields, '$.key_id', ?)", False),
    ],
)
def test_without_a_probe_nothing_is_destroyed_when_the_issuer_does_not_know_what_is_stored(
    harm: str, fails: bool
) -> None:
    desk = Desk(unsupported)
    desk.engine.start(RUN, planned(desk.small), "bob")
    drive(desk.engine, desk.small, RUN, approve=None)
    assert desk.engine.state(RUN).last.step == "delete"
    desk.small.db.execute(harm, (OLD,))
    desk.engine.approve(RUN, "ann")
    said = desk.engine.advance(RUN)
    assert isinstance(said, Failed if fails else Waiting)
    assert set(desk.small.keys()) >= {OLD}


def test_a_refusal_that_could_mean_two_things_proves_a_death_once_the_issuer_says_that_it_is_gone() -> None:
    desk = Desk(mumbling)
    assert isinstance(desk.rotate(), Done)
    state = desk.engine.state(RUN)
    assert state.end is End.FINISHED
    looks = [n.text for n in state.notes("prove") if n.text in {"live", "dead", "undecided"}]
    assert looks[-3:] == ["dead"] * 3
    assert state.outputs()["prove"]["last_acceptance"]


def test_it_proves_nothing_while_the_issuer_still_has_the_key() -> None:
    desk = Desk(mumbling)
    desk.engine.start(RUN, planned(desk.small), "bob")
    said: Outcome = drive(desk.engine, desk.small, RUN, approve=None)
    assert isinstance(said, Waiting)
    desk.engine.approve(RUN, "ann")
    desk.small.trouble("retire", "lost")
    desk.small.tick = lambda what: desk.small.set(back=True) if what == "after retire" else None
    for _ in range(40):
        said = desk.engine.advance(RUN)
        if desk.small.get("back"):  # the provider took the delete for a moment only
            desk.small.db.execute("UPDATE keys SET state='disabled' WHERE id=?", (OLD,))
        if not isinstance(said, Waiting) or said.until is None:
            break
        desk.small.pass_time((said.until - desk.small.now()).total_seconds())
    assert desk.engine.state(RUN).end is None


def test_a_drain_needs_no_issuer() -> None:
    desk = Desk(lambda said: said)
    text = PERSON.replace("[retire]", '[retire]\ndrain = "10s"')
    desk.engine.start(RUN, planned(desk.small, text), "bob")
    world = desk.engine._world
    desk.engine._world = lambda plan: dataclasses.replace(world(plan), ask=lambda _: Secret("fresh"))
    desk.small.db.execute("UPDATE keys SET secret='fresh'")
    began = desk.small.now()
    assert isinstance(drive(desk.engine, desk.small, RUN), Done)
    assert (desk.small.now() - began).total_seconds() >= 10


def test_the_words_of_the_evidence_say_so() -> None:
    said: list[Verdict] = []
    desk = Desk(mumbling)
    world = desk.engine._world

    def keeping(plan: Plan) -> World:
        def record(verdict: Verdict, **_: bool) -> None:
            said.append(verdict)

        return dataclasses.replace(world(plan), record=record)

    desk.engine._world = keeping
    assert isinstance(desk.rotate(), Done)
    last = said[-1]
    assert isinstance(last, Dead)
    assert isinstance(last.evidence, Evidence)
    assert last.evidence.rule.endswith("its issuer says that it is gone")
    assert not any(isinstance(v, Live) for v in said[-3:])
