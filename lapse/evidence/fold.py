"""Adds a run's journal and a key's record up to what is told of them. Pure: no clock, no file, no network."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from lapse.evidence.model import (
    Approval,
    Exposure,
    FactFound,
    Moments,
    Noted,
    Proof,
    RunEvidence,
    RunFacts,
    Spans,
    StepEvidence,
    Subject,
)
from lapse.ledger.model import Told
from playbooks.bench import PREFLIGHT
from playbooks.journal import What, same
from playbooks.mint import MINTED
from playbooks.plan import Action
from verifier.model import Dead, Live, Visibility

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta
    from typing import Literal

    from lapse.ledger.model import Found, Key, Story
    from playbooks.journal import Entry, RunState
    from playbooks.plan import Planned
    from verifier.model import Identity

_STOPS = frozenset({Action.DISABLE, Action.APPLY, Action.DELETE, Action.HAND_DELETE})
_MADE = frozenset({Action.MINT, Action.ENTER})
_LOOKS = frozenset({"live", "dead", "undecided"})
_NOTHING = ("none", "not known", "not read")


def evidence_of(state: RunState, key: Key, found: Iterable[Found], story: Sequence[Story]) -> RunEvidence:
    """Return the evidence of a run: `found` are the key's places, `story` what happened to it (`Ledger.story`)."""
    exposure = exposure_of(key, found)
    moments = moments_of(state, key, exposure, story)
    return RunEvidence(
        run=_run(state, moments.ended),
        key=_subject(key, story),
        exposure=exposure,
        moments=moments,
        spans=_spans(moments),
        proof=_proof(state),
        approvals=_approvals(state),
        steps=tuple(_step(state, planned) for planned in state.plan.steps),
        found=tuple(_facts(state)),
        next_keys=tuple(f for f in _facts(state) if "read" in f.about.split() and not f.text.startswith(_NOTHING)),
        journal=tuple(Noted(e.seq, e.at, e.step, e.what.value, e.text) for e in state.entries),
    )


def exposure_of(key: Key, found: Iterable[Found]) -> Exposure:
    """Return since when, and where, a key lay open."""
    first: Found | None = None
    oldest: Found | None = None
    public = 0
    for one in found:
        public += one.place.visibility is Visibility.PUBLIC
        first = one if first is None or one.first_seen < first.first_seen else first
        if one.seen_at is not None and (oldest is None or oldest.seen_at is None or one.seen_at < oldest.seen_at):
            oldest = one
    return Exposure(
        earliest=oldest.seen_at if oldest else None,
        earliest_place=_place(oldest) if oldest else None,
        first_seen=key.first_seen,
        first_scanner=first.scanner if first else None,
        first_place=_place(first) if first else None,
        places=key.findings,
        places_left=key.present,
        public_places=public,
    )


def moments_of(state: RunState, key: Key, exposure: Exposure, story: Sequence[Story]) -> Moments:
    """Return when what happened, from the leak to the proof."""
    stable = _stable(state)
    lives = [told.at for told in story if isinstance(told, Told) and isinstance(told.verdict, Live)]
    accepted = [at for at in (*lives, *_accepted(state)) if stable is None or at < stable]
    since = [at for at in lives if stable is not None and at >= stable]
    pushed = [_stands(state, s) for s in state.plan.steps if s.action is Action.PUSH]
    dates = [at for at in pushed if at is not None]
    return Moments(
        exposed=min(exposure.earliest or key.first_seen, key.first_seen),
        first_seen=key.first_seen,
        first_live=key.first_live,
        started=state.started,
        contained=_first(state, _stops(state)),
        minted=_minted(state),
        stored=_first(state, _MADE | {Action.APPLY} if state.plan.managed else _MADE),
        verified=_first(state, {Action.VERIFY}),
        deployed=max(dates) if dates and len(dates) == len(pushed) else None,
        new_way=_first(state, {Action.WORKS}),
        disabled=_first(state, {Action.DISABLE}),
        deleted=_first(state, {Action.DELETE, Action.HAND_DELETE}),
        last_acceptance=max(accepted, default=None),
        first_stable_refusal=stable,
        proven=_first(state, {Action.PROVE}),
        accepted_since=min(since, default=None),
        sessions_until=_sessions(state),
        ended=state.last.at if state.last.what is What.ENDED else None,
    )


# ── pieces ─────────────────────────────────────────────────────────────────────────────────────────────


def _run(state: RunState, ended: datetime | None) -> RunFacts:
    plan = state.plan
    return RunFacts(
        run=state.run,
        playbook=plan.playbook,
        playbook_digest=plan.digest,
        plan_digest=sha256(state.entries[0].data["plan"].encode()).hexdigest(),
        title=plan.title,
        mode=plan.mode.value,
        started_by=state.by,
        started=state.started,
        status=state.status.value,
        outcome=state.end.value if state.end else None,
        ended=ended,
        also_dies=plan.also_dies,
    )


def _subject(key: Key, story: Sequence[Story]) -> Subject:
    known: Literal["live", "dead"] | None = None
    if key.known is not None:
        known = "dead" if isinstance(key.known, Dead) else "live"
    who = _identity(story)
    return Subject(
        key=key.short,
        id=key.id,
        provider=key.provider,
        owner=key.owner.value,
        principal=who.principal if who else None,
        account=who.account if who else None,
        organisation=who.organisation if who else None,
        scopes=who.scopes if who else (),
        privilege=who.privilege.value if who else None,
        state=known,
        proven=isinstance(key.known, Dead) and key.confirmed,
        asked=key.last_at,
    )


def _identity(story: Sequence[Story]) -> Identity | None:
    """Return whom the key spoke for when it was last accepted."""
    for told in reversed(story):
        if isinstance(told, Told) and isinstance(told.verdict, Live) and told.verdict.identity is not None:
            return told.verdict.identity
    return None


def _place(found: Found) -> str:
    p = found.place
    name = p.image.reference if p.image else p.repository or str(p.source)
    line = f":{p.line}" if p.line else ""
    revision = f" at {p.revision[:12]}" if p.revision else ""
    return f"{name} {p.path or ''}{line}{revision}".rstrip()


def _stands(state: RunState, planned: Planned) -> datetime | None:
    """Return when a step was done, None if it was not or was taken back."""
    done = state.done(planned.name)
    return done.at if done is not None and not state.undone(planned.name) else None


def _first(state: RunState, actions: frozenset[Action] | set[Action]) -> datetime | None:
    """Return when the first step of these actions was done."""
    dates = [_stands(state, s) for s in state.plan.steps if s.action in actions]
    return min((at for at in dates if at is not None), default=None)


def _stops(state: RunState) -> frozenset[Action]:
    """Return what stops the old key in this plan: a successor that takes its place does where nothing else would."""
    there = _STOPS & {s.action for s in state.plan.steps}
    return there or frozenset({Action.SETUP})


def _minted(state: RunState) -> datetime | None:
    """Return when the key that was stored was made: after a crash it is the last one."""
    for planned in state.plan.steps:
        if planned.action in _MADE and not state.undone(planned.name):
            made = [e.at for e in state.notes(planned.name) if e.text == MINTED]
            return made[-1] if made else None
    return None


def _looks(state: RunState) -> list[Entry]:
    names = {s.name for s in state.plan.steps if s.action is Action.PROVE}
    return [e for e in state.entries if e.step in names and e.what is What.NOTE and e.text in _LOOKS]


def _row(looks: Sequence[Entry]) -> list[Entry]:
    """Return the refusals at the end; a look without an answer says nothing either way."""
    row: list[Entry] = []
    for entry in reversed(looks):
        if entry.text == "live":
            break
        if entry.text == "dead":
            row.append(entry)
    return row[::-1]


def _proven(state: RunState) -> Entry | None:
    names = [s.name for s in state.plan.steps if s.action is Action.PROVE]
    return state.done(names[0]) if names else None


def _stable(state: RunState) -> datetime | None:
    proven = _proven(state)
    return _moment(proven.data.get("first_stable_refusal", "")) if proven else None


def _accepted(state: RunState) -> list[datetime]:
    """Return when the run itself saw the old key accepted."""
    seen = [e.at for e in _looks(state) if e.text == "live"]
    before = state.outputs().get(PREFLIGHT, {})
    if before.get("old") == "live":
        seen += [at for at in (_moment(before.get("asked", "")),) if at is not None]
    return seen


def _proof(state: RunState) -> Proof | None:
    planned = next((s for s in state.plan.steps if s.action is Action.PROVE), None)
    if planned is None:
        return None
    looks = _looks(state)
    row = _row(looks)
    proven = _proven(state)
    return Proof(
        wanted=planned.times,
        window_ms=round(planned.seconds * 1000),
        looks=len(looks),
        accepted=sum(1 for e in looks if e.text == "live"),
        refused=sum(1 for e in looks if e.text == "dead"),
        in_a_row=len(row),
        held_ms=_ms(row[-1].at - row[0].at) if row else 0,
        how=proven.data.get("how") if proven else None,
        word=proven.text if proven else None,
        by=None if proven is None else "issuer" if "proof" in proven.data else "refusals",
    )


def _sessions(state: RunState) -> datetime | None:
    dates = [
        _moment(state.outputs().get(s.name, {}).get("possible_until", ""))
        for s in state.plan.steps
        if s.action is Action.SESSIONS and _stands(state, s) is not None
    ]
    return max((at for at in dates if at is not None), default=None)


def _approvals(state: RunState) -> tuple[Approval, ...]:
    given: list[Approval] = []
    for e in state.entries:
        if e.what is What.APPROVED:
            planned = state.plan.step(e.step)
            until = datetime.fromisoformat(e.data["until"])
            given.append(Approval(e.step, planned.effect.value, planned.title, e.data["who"], e.at, until, None))
        elif e.what is What.WITHDRAWN:
            who = same(e.data["who"])
            for i, old in enumerate(given):
                if old.step == e.step and same(old.who) == who and old.withdrawn is None:
                    given[i] = Approval(old.step, old.effect, old.title, old.who, old.at, old.until, e.at)
    return tuple(given)


_STATES: dict[What, Literal["under way", "waiting", "done", "failed", "unsure", "taken back"]] = {
    What.INTENT: "under way",
    What.WAITING: "waiting",
    What.DONE: "done",
    What.FAILED: "failed",
    What.UNSURE: "unsure",
    What.UNDO_INTENT: "under way",
    What.UNDONE: "taken back",
}


def _step(state: RunState, planned: Planned) -> StepEvidence:
    told = [e for e in state.entries if e.step == planned.name and e.what in _STATES]
    done, intent = state.done(planned.name), state.intent(planned.name)
    undone = next((e.at for e in told if e.what is What.UNDONE), None)
    return StepEvidence(
        name=planned.name,
        slot=planned.slot.value,
        action=planned.action.value,
        title=planned.title,
        effect=planned.effect.value,
        undo=planned.undo,
        approvals_needed=planned.approvals,
        state=_STATES[told[-1].what] if told else "to come",
        says=told[-1].text if told else "",
        intended=intent.at if intent else None,
        done=done.at if done else None,
        undone=undone,
        unsure=sum(1 for e in told if e.what is What.UNSURE),
        output=dict(done.data) if done is not None and planned.action is not Action.EVIDENCE else {},
    )


def _facts(state: RunState) -> list[FactFound]:
    """Return what the evidence step found: it puts each fact out under `NNN ABOUT`."""
    found: list[FactFound] = []
    for planned in state.plan.steps:
        if planned.action is Action.EVIDENCE and (done := state.done(planned.name)) is not None:
            found += [FactFound(name.partition(" ")[2], text) for name, text in sorted(done.data.items())]
    return found


def _spans(m: Moments) -> Spans:
    def between(start: datetime | None, end: datetime | None) -> int | None:
        return None if start is None or end is None else _ms(end - start)

    return Spans(
        exposed_to_live_ms=between(m.exposed, m.first_live),
        live_to_contained_ms=between(m.first_live, m.contained),
        started_to_contained_ms=between(m.started, m.contained),
        started_to_proven_ms=between(m.started, m.proven),
        exposed_to_proven_ms=between(m.exposed, m.proven),
    )


def _ms(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
