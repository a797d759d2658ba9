"""Turns a planned step into one that can run: one builder an action.

`check` and `do` may raise `ProviderError`; the engine knows what each sort of trouble means.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from playbooks import mint, prove
from playbooks.bench import CREATE, Bench, encoded
from playbooks.plan import Action
from rotators.interface import Fact, ProviderError, SelfRevoker, State, Style, Trouble
from rotators.step import Context, Done, Failed, Outcome, Step, Waiting
from verifier.model import Dead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rotators.interface import KeyRef

MOST_FACTS = 200


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
        note = f"{len(facts)} facts" + (f"; not all: {trouble[0]}" if trouble else "")
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
            facts = bench.issuer.preflight()
            output = {"ref": encoded(ref), "id": ref.id, "owner": ref.owner, "state": ref.state.value}
            note = "; ".join(f"{f.about}: {f.text}" for f in facts) or note
        if bench.world.store is not None:
            bench.store.current()
        verdict = bench.world.probe(bench.world.old)
        output |= {"old": prove.word(verdict), "asked": bench.world.now().isoformat()}
        return Done(note, output)

    return do, _never, None


def _snapshot(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        before: Sequence[KeyRef] = ()
        if bench.world.issuer is not None and bench.issuer.style is not Style.REVOKE:
            before = bench.issuer.siblings(bench.old_ref(ctx))
        base = bench.store.current()
        names = msgspec.json.encode([r.id for r in before]).decode()
        version = base.version if base else "nothing"
        return Done(
            f"the owner has {len(before)} keys, the store holds {version}", {"before": names, "base": encoded(base)}
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


def _push(bench: Bench) -> Trio:
    consumer = bench.world.consumers[bench.planned.hand]

    def check(ctx: Context) -> Outcome | None:
        return Done(f"{consumer.name} has it already") if consumer.pushed(ctx.marker) is True else None

    def do(ctx: Context) -> Outcome:
        if (moved := bench.moved(ctx)) is not None:
            return Failed(moved, "put the right value back, then `lapse resume`, or take the rotation back")
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


def _hand_delete(bench: Bench) -> Trio:
    def do(ctx: Context) -> Outcome:
        if isinstance(bench.world.probe(bench.world.old), Dead):
            return Done("the old key is refused")
        page = bench.plan.old_page
        return Waiting("person", instructions=f"delete the old key at {page}, then run `lapse resume {ctx.run}`")

    return do, _never, None


def _sessions(bench: Bench) -> Trio:
    killer = bench.world.sessions[bench.planned.hand]

    def do(ctx: Context) -> Outcome:
        return killer.kill(bench.world.old, bench.old_ref(ctx), ctx.intent_at)

    def undo(ctx: Context) -> Outcome:
        return killer.undo(bench.world.old, bench.old_ref(ctx))

    return do, _never, undo if bench.planned.undo else None


def _suggest(bench: Bench) -> Trio:
    def do(_ctx: Context) -> Outcome:
        found = bench.plan.replace
        return Done(found.suggest if found else "", {"docs": found.docs} if found and found.docs else {})

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
    Action.PROVE: _prove,
    Action.SUGGEST: _suggest,
}
