"""Turns a planned step into one that can run: one builder an action.

`check` and `do` may raise `ProviderError`; the engine knows what each sort of trouble means.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from playbooks import mint, prove
from playbooks.bench import CREATE, PREFLIGHT, Bench, encoded
from playbooks.plan import Action
from rotators.interface import (
    Fact,
    Forewarned,
    Presence,
    ProviderError,
    Quarantine,
    Replacer,
    Roomy,
    SelfRevoker,
    State,
    Style,
    Trouble,
)
from rotators.step import Context, Done, Failed, Outcome, Step, Waiting
from verifier.model import Dead
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rotators.interface import KeyRef

MOST_FACTS = 200
BEFORE, FORMER, BEGUN = "before", "former", "begun"


def build(bench: Bench) -> Step:
    """Return the step that `bench.planned` describes."""
    planned = bench.planned
    do, check, undo = _BUILDERS[planned.action](bench)
    return Step(planned.name, planned.title, planned.effect, do, check, undo, planned.permissions)


def _never(_ctx: Context) -> Outcome | None:
    """Answer for steps that only read: they are simply done again."""
    return None


def _evidence(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        since = datetime.fromisoformat(bench.plan.since) if bench.plan.since else None
        found: list[Fact] = []
        trouble: list[str] = []

        def gather() -> None:
            try:
                ref = bench.issuer.locate(ctx.old)
                found.extend(bench.issuer.evidence(ref, since))
            except ProviderError as e:
                trouble.append(str(e))
            except Exception as e:  # noqa: BLE001  # evidence never stops a rotation, whatever breaks
                trouble.append(f"it broke ({type(e).__name__})")

        worker = threading.Thread(target=gather, daemon=True)
        worker.start()
        worker.join(bench.planned.seconds)
        if worker.is_alive():
            trouble.append(f"no answer within {bench.planned.seconds:g} s")
        facts = list(found[:MOST_FACTS])
        note = plural(len(facts), "fact") + (f"; not all: {trouble[0]}" if trouble else "")
        return Done(note, {f"{i:03d} {f.about}": f.text for i, f in enumerate(facts)})

    return do, _never, None


def _preflight(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        output: dict[str, str] = {}
        note = "rights and room are there"
        if bench.world.issuer is not None:
            ref = bench.issuer.locate(ctx.old)
            if ref.state is State.GONE:
                return Failed("the issuer says that this key is gone already", "`lapse verify KEY` proves it")
            facts = [*bench.issuer.preflight(ref), *_forewarned(bench, ref)]
            output = {"ref": encoded(ref), "id": ref.id, "owner": ref.owner, "state": ref.state.value}
            if bench.plan.makes is not None and isinstance(bench.issuer, Roomy):
                spare = bench.issuer.room(ref)
                output |= {"room": spare.id} if spare is not None else {}
        else:
            facts = _forewarned(bench, None)
        note = "; ".join(f"{f.about}: {f.text}" for f in facts) or note
        if bench.world.store is not None:
            bench.store.current()
        way = bench.world.successor
        if way is not None and way.present(bench.world.old, ctx.marker) is Presence.OTHERS:
            return Failed(f"somebody else has {way.about()} already", "name another with --set replace.role=NAME")
        verdict = bench.world.probe(bench.world.old)
        output |= {"old": prove.word(verdict), "asked": bench.world.now().isoformat()}
        return Done(note, output)

    return do, _never, None


def _forewarned(bench: Bench, ref: KeyRef | None) -> list[Fact]:
    """Ask everybody else who acts in the run whether they will be able to: what is surely missing stops it here."""
    world = bench.world
    facts: list[Fact] = []
    hands: list[Forewarned] = [*([world.store] if world.store is not None else []), *world.consumers]
    for hand in hands:
        facts.extend(hand.preflight())
    if ref is not None:
        for killer in world.sessions:
            facts.extend(killer.preflight(world.old, ref))
    if world.successor is not None:
        facts.extend(world.successor.preflight(world.old))
    return facts


def _room(bench: Bench) -> Trio:
    issuer = bench.issuer

    def check(ctx: Context) -> Outcome | None:
        if isinstance(issuer, Roomy) and issuer.room(bench.old_ref(ctx)) is not None:
            return None
        return Done("there is room for one more key")

    def do(ctx: Context) -> Outcome:
        spare = issuer.room(bench.old_ref(ctx)) if isinstance(issuer, Roomy) else None
        if spare is None:
            return Done("there is room for one more key")
        if spare.id != ctx.outputs[PREFLIGHT].get("room"):
            return Failed(f"it is {spare.id} now that could go, which nobody agreed to", "begin a new rotation")
        issuer.retire(spare)
        return Done(f"deleted {spare.id}, which was inactive and never used", {"id": spare.id})

    return do, check, lambda _ctx: Done("a spare key that was deleted stays so; nobody had ever used it")


def _snapshot(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        before: Sequence[KeyRef] = ()
        if bench.world.issuer is not None and bench.issuer.style is not Style.REVOKE:
            before = bench.issuer.siblings(bench.old_ref(ctx))
        base = bench.store.current()
        names = msgspec.json.encode([r.id for r in before]).decode()
        version = base.version if base else "nothing"
        return Done(
            f"the owner has {plural(len(before), 'key')}, the store holds {version}",
            {"before": names, "base": encoded(base)},
        )

    return do, _never, None


def _mint(bench: Bench) -> Trio:
    undo = (lambda ctx: mint.undo(bench, ctx)) if bench.planned.undo else None
    return (lambda ctx: mint.mint(bench, ctx)), (lambda ctx: mint.check(bench, ctx)), undo


def _apply(bench: Bench) -> Trio:
    return (lambda ctx: mint.apply(bench, ctx)), (lambda ctx: mint.applied(bench, ctx)), None


def _enter(bench: Bench) -> Trio:
    return (
        (lambda ctx: mint.enter(bench, ctx)),
        (lambda ctx: mint.check(bench, ctx)),
        (lambda ctx: mint.undo(bench, ctx)),
    )


def _verify(bench: Bench) -> Trio:
    return (lambda ctx: prove.verify(bench, ctx)), _never, None


def _prove(bench: Bench) -> Trio:
    return (lambda ctx: prove.prove(bench, ctx)), _never, None


def _begun(bench: Bench) -> None:
    """Note that a step of several calls begins: should one of them fail, what the others did is taken back as well."""
    if not any(e.text == BEGUN for e in bench.notes()):
        bench.note(BEGUN, {"leaves": bench.planned.name})


def _push(bench: Bench) -> Trio:
    consumer = bench.world.consumers[bench.planned.hand]

    def check(ctx: Context) -> Outcome | None:
        return Done(f"{consumer.name} has it already") if consumer.pushed(ctx.marker) is True else None

    def do(ctx: Context) -> Outcome:
        if (moved := bench.moved(ctx)) is not None:
            return Failed(moved, "put the right value back, then `lapse resume`, or take the rotation back")
        _begun(bench)
        fields = bench.store.fetch(ctx.output(CREATE, "version"))
        return consumer.push({n: v for n, v in fields.items() if n in bench.plan.write}, ctx.marker)

    def undo(ctx: Context) -> Outcome:
        base = bench.base(ctx)
        if base is None:
            return Done(f"{consumer.name} had no value from this store before; left as it is")
        fields = bench.store.fetch(base.version)
        return consumer.push({n: v for n, v in fields.items() if n in bench.plan.write}, f"{ctx.marker}-undo")

    return do, check, undo if bench.planned.undo else None


def _drain(bench: Bench) -> Trio:
    quiet = timedelta(seconds=bench.planned.seconds)

    def do(ctx: Context) -> Outcome:
        now = bench.world.now()
        since = ctx.intent_at
        if bench.world.issuer is None:
            over = since + quiet
            return Done("nobody can tell its last use") if now >= over else Waiting("time", over, "until it is over")
        old = bench.old_ref(ctx)
        ref = next((r for r in bench.issuer.siblings(old) if r.id == old.id), None)
        if ref is None:
            return Done("the old key is not among the owner's keys any more")
        used = max(since, ref.last_used) if ref.last_used is not None else since
        if now - used >= quiet:
            return Done(f"not used since {used:%Y-%m-%d %H:%M}")
        again = min(used + quiet, bench.after(bench.planned.every))
        return Waiting("time", again, f"last used {used:%Y-%m-%d %H:%M}")

    return do, _never, None


def _soak(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        over = ctx.intent_at + timedelta(seconds=bench.planned.seconds)
        if bench.world.now() >= over:
            return Done("nobody needed the old key")
        return Waiting("time", over, f"until {over.astimezone(UTC):%Y-%m-%d %H:%M} UTC; `lapse undo` still works")

    return do, _never, None


def _disable(bench: Bench) -> Trio:
    def check(ctx: Context) -> Outcome | None:
        said = bench.issuer.state(bench.old_ref(ctx))
        return None if said is State.ACTIVE else Done(f"the issuer says {said}")

    def do(ctx: Context) -> Outcome:
        bench.issuer.disable(bench.old_ref(ctx))
        return Done("disabled")

    def undo(ctx: Context) -> Outcome:
        old = bench.old_ref(ctx)
        if bench.issuer.state(old) is State.GONE:
            return Failed(
                "the old key is gone: somebody else deleted it", "the new one stays; go on with `lapse resume`"
            )
        bench.issuer.enable(old)
        return Done("enabled again")

    return do, check, undo


def _delete(bench: Bench) -> Trio:
    in_place = bench.issuer.style is Style.REPLACE and bench.plan.makes is None
    if in_place and isinstance(bench.issuer, Replacer):
        return _scramble(bench, bench.issuer)

    def check(ctx: Context) -> Outcome | None:
        said = bench.issuer.state(bench.old_ref(ctx))
        return Done("the issuer says that it is gone") if said is State.GONE else None

    def do(ctx: Context) -> Outcome:
        old = bench.old_ref(ctx)
        if bench.plan.makes is not None and CREATE in ctx.outputs and ctx.outputs[CREATE]["id"] == old.id:
            return Failed("the new key has the old one's id; deleting would kill both", "look at the playbook's issuer")
        try:
            if isinstance(bench.issuer, SelfRevoker):
                bench.issuer.revoke(ctx.old)
            else:
                bench.issuer.retire(old)
        except ProviderError as e:
            if e.trouble is not Trouble.GONE:
                raise
        return Done("deleted")

    return do, check, None


def _scramble(bench: Bench, issuer: Replacer) -> Trio:
    """End a secret that cannot be deleted and has no successor of its sort: set another one, and forget it."""

    def check(ctx: Context) -> Outcome | None:
        try:
            issuer.locate(ctx.old)
        except ProviderError as e:
            if e.trouble is not Trouble.GONE:
                raise
            return Done("the issuer has another secret for it")
        return None

    def do(ctx: Context) -> Outcome:
        old = bench.old_ref(ctx)
        issuer.apply(old, issuer.mint(old, ctx.marker).parts)
        return Done("a secret that nobody keeps is set")

    return do, check, None


def _hand_delete(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        if isinstance(bench.world.probe(bench.world.old), Dead):
            return Done("the old key is refused")
        page = bench.plan.old_page
        return Waiting("person", instructions=f"delete the old key at {page}, then run `lapse resume {ctx.run}`")

    return do, _never, None


def _sessions(bench: Bench) -> Trio:
    killer = bench.world.sessions[bench.planned.hand]

    def was() -> str:
        return next((e.data["was"] for e in bench.notes() if e.text == BEFORE), "")

    def do(ctx: Context) -> Outcome:
        old, ref = bench.world.old, bench.old_ref(ctx)
        if isinstance(killer, Quarantine) and killer.stops_new and not was():
            bench.note(BEFORE, {"was": "shut" if killer.shut(old, ref) else "open"})
        if bench.planned.undo:
            _begun(bench)
        outcome = killer.kill(old, ref, ctx.intent_at)
        if isinstance(outcome, Done):
            output = {**outcome.output, "killed": ctx.intent_at.isoformat()}
            return Done(outcome.note, {**output, "was": was()} if was() else output)
        return outcome

    def undo(ctx: Context) -> Outcome:
        if was() == "shut":
            return Done("it was stopped before this rotation, by somebody else: left so")
        return killer.undo(bench.world.old, bench.old_ref(ctx))

    return do, _never, undo if bench.planned.undo else None


def _lift(bench: Bench) -> Trio:
    killer = bench.world.sessions[bench.planned.hand]
    killing = f"sessions-{bench.planned.hand + 1}"

    def do(ctx: Context) -> Outcome:
        old, ref = bench.world.old, bench.old_ref(ctx)
        if not isinstance(killer, Quarantine):
            return Done("nothing to lift")
        if ctx.outputs[killing].get("was") == "shut":
            if not killer.shut(old, ref):
                return Done("somebody else has opened it again")
            said = f"{ref.owner} was stopped before this rotation, by somebody else: open it"
            return Waiting("person", instructions=f"{said}, then `lapse resume {ctx.run}`")
        killed = datetime.fromisoformat(ctx.output(killing, "killed"))
        return killer.lift(old, ref, killed, ctx.intent_at)

    return do, _never, lambda _ctx: Done("what was stopped for the rotation stays open")


def _setup(bench: Bench) -> Trio:
    def check(ctx: Context) -> Outcome | None:
        if bench.successor.present(bench.world.old, ctx.marker) is Presence.OURS:
            return Done(f"{bench.successor.about()} is there")
        return None

    def do(ctx: Context) -> Outcome:
        way, old = bench.successor, bench.world.old
        if way.present(old, ctx.marker) is not Presence.OTHERS and not any(e.text == FORMER for e in bench.notes()):
            bench.note(FORMER, {"is": way.snapshot()})
            _begun(bench)
        return bench.successor.setup(bench.world.old, ctx.marker)

    def undo(ctx: Context) -> Outcome:
        former = next((e.data["is"] for e in bench.notes() if e.text == FORMER), None)
        if former is None:
            return Done("nothing was set up")
        return bench.successor.undo(bench.world.old, ctx.marker, former)

    return do, check, undo if bench.planned.undo else None


def _works(bench: Bench) -> Trio:
    return (lambda ctx: prove.works(bench, ctx)), _never, None


def _suggest(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        found = bench.plan.replace
        said = found.suggest if found else ""
        if found and found.files:
            said = f"{said}; `lapse playbooks successor {ctx.run} -o FOLDER` writes the files for it"
        return Done(said, {"docs": found.docs} if found and found.docs else {})

    return do, _never, None


if TYPE_CHECKING:
    from typing import TypeAlias

    Trio: TypeAlias = tuple[
        Callable[[Context], Outcome],
        Callable[[Context], Outcome | None],
        Callable[[Context], Outcome] | None,
    ]

_BUILDERS: dict[Action, Callable[[Bench], Trio]] = {
    Action.EVIDENCE: _evidence,
    Action.PREFLIGHT: _preflight,
    Action.SNAPSHOT: _snapshot,
    Action.MINT: _mint,
    Action.APPLY: _apply,
    Action.ENTER: _enter,
    Action.VERIFY: _verify,
    Action.PUSH: _push,
    Action.DRAIN: _drain,
    Action.DISABLE: _disable,
    Action.SOAK: _soak,
    Action.DELETE: _delete,
    Action.HAND_DELETE: _hand_delete,
    Action.SESSIONS: _sessions,
    Action.LIFT: _lift,
    Action.ROOM: _room,
    Action.SETUP: _setup,
    Action.WORKS: _works,
    Action.PROVE: _prove,
    Action.SUGGEST: _suggest,
}
