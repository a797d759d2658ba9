"""What evidence says is what the journal and the record say, whichever way a rotation went."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from evidence_made import BOOK, KEK, LEAKED, Office, made
from ledger_made import credential_in
from stage import BOTH, IN_PLACE, MANAGED, PERSON, REVOKE, WAY, drive, planned

from lapse.evidence.audit import audit
from lapse.evidence.extract import extract
from lapse.evidence.fold import evidence_of
from lapse.evidence.page import headline, points, said
from lapse.ledger import EventKind, open_ledger
from lapse.ledger.clock import moment
from playbooks.engine import Engine
from playbooks.journal import Entry, What, state_of
from playbooks.plan import Mode
from rotators.interface import Trouble
from verifier.model import CredentialID, Dead, Doubt, Evidence, How, Undecided
from verifier.ports import Judged
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

    from lapse.evidence.model import RunEvidence
    from playbooks.plan import Plan
    from playbooks.world import World


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with made(tmp_path) as ledger:
        yield Office.at(ledger)


WORKS = "New way works"
NEW = {"New key made", "New key stored", "New key accepted", "Deployed"}


def names(e: RunEvidence) -> list[str]:
    """Return the moments that were reached, in order of time."""
    return [p.name for p in points(e.moments) if p.at is not None]


def test_a_graceful_rotation_from_the_leak_to_the_proof(office: Office) -> None:
    office.small.set(lag_dead=7)
    office.rotate()
    e = office.evidence()
    m = e.moments
    assert (e.run.run, e.run.started_by, e.run.outcome, e.run.mode) == ("r-1", "bob", "finished", "graceful")
    assert e.run.playbook_digest == planned(office.small).digest
    assert (e.key.key, e.key.provider, e.key.principal, e.key.owner) == ("sim-000000", "sim_key", "bot", "ours")
    assert e.exposure.earliest == m.exposed == LEAKED
    assert e.exposure.earliest_place == f"acme/app a.env:3 at {('c0ffee' * 2)}"
    assert e.exposure.first_scanner == "gitleaks"
    ways = [m.exposed, m.first_seen, m.first_live, m.started, m.minted, m.stored, m.verified, m.deployed, m.contained]
    ways += [m.deleted, m.last_acceptance, m.first_stable_refusal, m.proven]
    reached = [at for at in ways if at is not None]
    assert len(reached) == len(ways)
    assert reached == sorted(reached)
    assert m.contained == m.disabled
    assert m.last_acceptance is not None
    assert m.contained is not None
    assert m.last_acceptance > m.contained, "the world is slow to believe it, and that is told"
    assert m.sessions_until is not None
    assert m.accepted_since is None
    assert e.spans.exposed_to_proven_ms == round((reached[-1] - LEAKED).total_seconds() * 1000)
    assert e.spans.live_to_contained_ms is not None
    assert [(f.about, f.text) for f in e.next_keys] == [("could read", "secret/other")]
    assert [(a.who, a.step, a.effect, a.withdrawn) for a in e.approvals] == [("ann", "delete", "destroys", None)]
    assert e.proof is not None
    assert e.proof.by == "refusals"
    assert e.proof.in_a_row >= e.proof.wanted == 3
    assert e.proof.held_ms >= e.proof.window_ms == 6000
    assert e.proof.accepted > 0
    assert e.proof.looks == e.proof.accepted + e.proof.refused
    assert {s.state for s in e.steps} == {"done"}
    assert all(s.intended is not None and s.done is not None and s.intended <= s.done for s in e.steps)


def test_an_emergency_contains_first(office: Office) -> None:
    office.rotate(mode=Mode.EMERGENCY)
    m = office.evidence().moments
    assert m.contained is not None
    assert m.minted is not None
    assert m.contained <= m.minted


@pytest.mark.parametrize(
    ("text", "style", "lacks"),
    [
        (IN_PLACE, "replace", {"Deleted", WORKS}),
        (MANAGED, "replace", {"Deleted", "New key made", WORKS}),
        (REVOKE, "revoke", {*NEW, WORKS}),
        (WAY, "replace", {*NEW, "Deleted"}),
        (BOTH, "displace", set()),
    ],
    ids=["in place", "managed", "revoked by itself", "a way that takes its place", "a way besides"],
)
def test_other_shapes_of_providers(office: Office, text: str, style: str, lacks: set[str]) -> None:
    office.small.set(style=style, reversible=False, managed=text is MANAGED, way_displaces=text is WAY)
    office.rotate(text=text)
    e = office.evidence()
    every = {p.name for p in points(e.moments)}
    assert e.run.outcome == "finished"
    assert every - set(names(e)) == lacks
    assert e.moments.disabled is None
    assert e.moments.contained is not None
    assert audit(office.json()).problems == ()


def test_a_person_who_makes_and_deletes_the_key(office: Office) -> None:
    world = office.small.world(lambda _: Secret("typed-planted-new"))
    office.engine = Engine(office.engine.journal, world, office.small.now)
    office.engine.start("r-1", planned(office.small, PERSON), "bob")
    office.small.db.execute("UPDATE keys SET secret='typed-planted-new'")
    drive(office.engine, office.small, "r-1")
    e = office.evidence()
    assert e.run.outcome == "finished"
    assert {"New key made", "New key stored", "Deleted", "Proof complete"} <= set(names(e))
    assert b"typed-planted-new" not in office.json() + office.page()


def test_the_issuers_word_is_not_told_as_refusals(office: Office) -> None:
    def blind(plan: Plan) -> World:
        return replace(office.small.world()(plan), probe=lambda _: Undecided(Doubt.UNSUPPORTED, note="no probe"))

    office.engine = Engine(office.engine.journal, blind, office.small.now)
    office.rotate()
    e = office.evidence()
    assert e.run.outcome == "finished"
    assert e.proof is not None
    assert (e.proof.by, e.proof.looks, e.proof.in_a_row, e.proof.how) == ("issuer", 0, 0, None)
    assert e.moments.first_stable_refusal is None
    assert headline(e) == "sim-000000 is dead by its issuer's word"
    assert b"its issuer's alone" in office.page()


def test_what_was_taken_back_did_not_happen(office: Office) -> None:
    office.engine.start("r-1", planned(office.small), "bob")
    drive(office.engine, office.small, "r-1", approve=None)
    before = office.evidence()
    assert before.run.status == "waiting"
    assert before.moments.contained is not None
    assert before.moments.proven is None
    assert headline(before) == "The rotation of sim-000000 is not over: waiting"
    office.engine.undo("r-1", "bob")
    drive(office.engine, office.small, "r-1")
    e = office.evidence()
    m = e.moments
    assert e.run.outcome == "undone"
    assert (m.contained, m.minted, m.stored, m.deployed, m.disabled, m.proven) == (None,) * 6
    assert {s.name: s.state for s in e.steps}["disable"] == "taken back"
    assert headline(e) == "The rotation of sim-000000 was taken back"
    assert b"This is no proof of a death" in office.page()


def test_a_run_that_failed_before_it_began(office: Office) -> None:
    office.small.trouble("preflight", Trouble.DENIED, 9)
    office.rotate()
    e = office.evidence()
    assert e.run.outcome == "failed"
    assert headline(e) == "The rotation of sim-000000 ended before it changed anything"
    assert {s.name: s.state for s in e.steps}["preflight"] == "failed"
    assert audit(office.page()).problems == ()


def test_approvals_that_were_withdrawn_are_told(office: Office) -> None:
    text = BOOK.replace("[retire]", "[approvals]\ndestroys = 'two'\n[retire]")
    office.engine.start("r-1", planned(office.small, text), "bob")
    for who in ("ann", "cid"):
        office.engine.approve("r-1", who, ("delete",))
    office.engine.withdraw("r-1", "Ann ")
    drive(office.engine, office.small, "r-1", approve="dan")
    e = office.evidence()
    assert [(a.who, a.withdrawn is not None) for a in e.approvals] == [("ann", True), ("cid", False), ("dan", False)]
    assert {s.name: s.approvals_needed for s in e.steps}["delete"] == 2


def test_the_key_that_counts_is_the_last_one_made(office: Office) -> None:
    office.small.trouble("put", Trouble.LATER, 1)
    office.rotate()
    e = office.evidence()
    made_at = [n.at for n in e.journal if n.text == "minted"]
    assert len(made_at) == 2
    assert e.moments.minted == made_at[-1] > made_at[0]
    assert {s.name: s.unsure for s in e.steps}["create"] == 1


def test_a_key_that_works_again_voids_the_proof(office: Office) -> None:
    office.rotate()
    stable = office.evidence().moments.first_stable_refusal
    assert stable is not None
    office.live(stable + timedelta(days=3))
    e = office.evidence()
    assert e.moments.accepted_since == stable + timedelta(days=3)
    assert e.moments.last_acceptance is not None
    assert e.moments.last_acceptance < stable
    assert headline(e) == "sim-000000 was accepted again after it had been proven dead"
    assert b"This proof no longer holds" in office.page()


def test_the_journal_alone_can_be_made_anew_from_the_file(office: Office) -> None:
    """An auditor who distrusts the telling can fold the ledger's own rows again."""
    office.rotate()
    file = office.file()
    rows = [e.brought.rows[0] for e in file.body.ledger.events if e.kind == "rotation" and e.brought]
    entries = [
        Entry(n, moment(at), step, What(what), text, msgspec.json.decode(data, type=dict[str, str]))
        for n, _, _, at, step, what, text, data in rows
    ]
    key = office.ledger.key(office.key)
    again = evidence_of(
        state_of("r-1", entries), key, office.ledger.places(office.key), office.ledger.story(office.key)
    )
    assert again == file.body.evidence


def test_only_what_speaks_of_this_key_alone_is_in_the_slice(office: Office) -> None:
    other = credential_in(office.ledger, 2)
    office.engine.start("r-1", planned(office.small), "bob")
    for _ in range(3):
        office.engine.advance("r-1")
    office.ledger.rotations.start("r-2", other, "another run", {})
    now = datetime.now(UTC)
    dead = Dead(Evidence("GET https://sim/", 401, "{}", "0" * 64, "sim@0", now, "sim"), How.REVOKED)
    kind = office.ledger.key(office.key).provider
    office.ledger.record([Judged(i, kind, dead, now) for i in (office.key, other)])
    office.ledger.record([Judged(office.key, kind, dead, now)])
    office.ledger.note(EventKind.NOTE, "ours", [office.key])
    office.ledger.note(EventKind.NOTE, "of both", [office.key, other])
    drive(office.engine, office.small, "r-1")
    office.rotate("r-3")
    state, part = extract(office.ledger, "r-1")
    kinds = [e.kind for e in part.events if e.kind != "rotation"]
    assert kinds == ["verdicts", "note"]
    assert len(part.events) == len(state.entries) + 2
    text = msgspec.json.encode(part).decode()
    assert "of both" not in text
    assert "another run" not in text
    assert audit(office.json()).problems == ()
    assert [e for e in extract(office.ledger, "r-3")[1].events if "r-1" in e.payload] == []


def test_a_ledger_on_postgresql_gives_out_the_same(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEK.removeprefix("env:"), os.urandom(32).hex())
    who = f"{postgresql.admin['username']}:{postgresql.admin['password']}"
    address = f"postgresql://{who}@{postgresql.host}:{postgresql.port}/postgres?schema=evidence"
    with open_ledger(address, KEK) as ledger:
        office = Office.at(ledger)
        office.rotate()
        data = office.json()
    assert audit(data).problems == ()
    assert headline(audit(data).file.body.evidence) == "sim-000000 is proven dead"
    assert postgresql.admin["password"].encode() not in data


def test_a_key_of_which_nothing_is_known(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        office = Office.at(ledger)
        bare = credential_in(ledger, 9)
        plan = planned(office.small)
        changed = msgspec.structs.replace(plan, credential=CredentialID(bare))
        office.engine.start("r-9", changed, "bob")
        key = ledger.key(bare)
        e = evidence_of(office.engine.state("r-9"), key, (), ())
    assert (e.key.state, e.key.principal, e.moments.first_live, e.exposure.first_scanner) == (None, None, None, None)
    assert e.moments.exposed == key.first_seen
    assert e.spans.exposed_to_live_ms is None


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "—"),
        (0, "0 s"),
        (300, "0.3 s"),
        (9_999, "9.999 s"),
        (10_000, "10 seconds"),
        (61_000, "1 minute 1 second"),
        (90_061_000, "1 day 1 hour"),
        (-61_000, "minus 1 minute 1 second"),
    ],
    ids=str,
)
def test_spans_in_words(ms: int | None, words: str) -> None:
    assert said(ms) == words
