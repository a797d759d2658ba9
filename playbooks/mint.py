"""Making a key and keeping it: one step, because a key whose secret was lost in between is nobody's.

What is noted on the way (an id and a keyed hash, before the store is written) tells after a crash exactly which of our
keys the store holds and which are orphans. A key that bears no mark of ours is looked for at the issuer only if an
attempt to make one was noted and its outcome was not, among those made since; an orphan is retired, never adopted.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from playbooks.bench import SNAPSHOT, Bench, encoded
from rotators.interface import KeyRef, Minted, ProviderError, Replacer, Stored, Style, Trouble
from rotators.step import Done, Failed, Outcome, Waiting
from verifier.secret import Secret

if TYPE_CHECKING:
    from datetime import datetime

    from rotators.step import Context
    from verifier.model import Parts

TRYING, NOT_MADE, MINTED = "trying", "not made", "minted"
GIVEN_UP, RETIRED, CLEARED = "given up", "retired", "cleared"
ATTEMPT = "a key that was asked for"
"""What an attempt may leave in the world until its outcome is noted."""
LATEST = timedelta(minutes=5)
"""How long after we began to ask for a key one may still come of it, clocks that differ included."""


def check(bench: Bench, ctx: Context) -> Outcome | None:
    """Say whether the store holds what this run made: then it is done, and the noted key is the new one.

    A write that was under way when its process died may come out after its key was given up: that key is not the one.
    """
    held = bench.store.current()
    if held is None or held.run != ctx.marker:
        return None
    said = bench.print_of(bench.store.fetch(held.version))
    gone: set[str] = set()
    for entry in reversed(bench.notes()):
        if entry.text == GIVEN_UP:
            gone.add(entry.data["id"])
        elif entry.text == MINTED and entry.data["print"] == said:
            return None if entry.data["id"] in gone else _done(entry.data["ref"], held, bench, ctx)
    return Failed(
        f"the store {bench.store.name} carries this rotation's mark, but not the value that it wrote",
        "look at the store's history, put the right value back, then `lapse resume`",
    )


def mint(bench: Bench, ctx: Context) -> Outcome:
    """Retire what an interrupted try left, make a key, note it, store it. Asked only after `check` said no."""
    held = bench.store.current()
    if held != bench.base(ctx) and not (held is not None and held.run == ctx.marker):
        return Failed(
            f"the store {bench.store.name} was changed by somebody else after this rotation began; nothing was made",
            "see what was written there, then begin a new rotation",
        )
    trouble = _clear(bench, ctx)
    if trouble is not None:
        return trouble
    if lacking := bench.lacking():
        return Failed(f"store.write asks for parts that the old key does not have: {', '.join(lacking)}")
    minted = _ask_for(bench, ctx)
    try:
        fields = bench.written(minted.parts)
    except LookupError as e:
        bench.note(MINTED, {"id": minted.ref.id, "ref": encoded(minted.ref), "print": "", **_traces(bench, minted.ref)})
        return _retire(bench, ctx, minted.ref) or Failed(str(e.args[0]), "correct store.write of the playbook")
    _note(bench, minted.ref, fields)
    return _keep(bench, ctx, minted, fields, held)


def _ask_for(bench: Bench, ctx: Context) -> Minted:
    """Have a key made, with a note before: should the answer be lost, it is known that there may be a key."""
    if bench.issuer.style is Style.REPLACE:
        return bench.issuer.mint(bench.old_ref(ctx), ctx.marker)
    bench.note(TRYING, {"leaves": ATTEMPT})
    try:
        return bench.issuer.mint(bench.old_ref(ctx), ctx.marker)
    except ProviderError as e:
        if e.trouble is not Trouble.LATER:
            bench.note(NOT_MADE, {"gone": ATTEMPT})
        raise


def _unknown(bench: Bench) -> tuple[datetime, datetime] | None:
    """Return when the first and the last attempt began of which nobody knows what came, None if there is none."""
    found: list[datetime] = []
    for entry in bench.notes():
        if entry.text == TRYING:
            found.append(entry.at)
        elif entry.text in {MINTED, NOT_MADE} and found:
            found.pop()
    return (found[0], found[-1]) if found else None


def _keep(bench: Bench, ctx: Context, minted: Minted, fields: dict[str, Secret], held: Stored | None) -> Outcome:
    try:
        stored = _put(bench, ctx, fields, held)
    except ProviderError as e:
        if e.trouble is Trouble.LATER:
            raise  # it may have been written: `check` is asked before anything else is done
        if e.trouble is Trouble.CONFLICT:
            return _lost(bench, ctx, minted)
        if (shown := check(bench, ctx)) is not None:  # a store that takes two calls for it
            return shown
        hint = "give our admin credential the right that the plan names, or name another store, then begin again"
        return _retire(bench, ctx, minted.ref) or Failed(f"{e}; the new key was deleted again", hint)
    return _done(encoded(minted.ref), stored, bench, ctx)


def _retire(bench: Bench, ctx: Context, ref: KeyRef) -> Outcome | None:
    """Retire a key of ours and note it. One that cannot be retired is said to a person, and not forgotten."""
    if bench.issuer.style is not Style.REPLACE:
        bench.note(GIVEN_UP, {"id": ref.id})
        try:
            bench.issuer.retire(ref)
        except ProviderError as e:
            if e.trouble is Trouble.LATER:
                raise
            said = f"the new key {ref.id} is in no store, and could not be deleted ({e}): delete it"
            return Waiting("person", instructions=f"{said}, then `lapse resume {ctx.run}`, or take the rotation back")
    bench.note(RETIRED, {"id": ref.id, "gone": ref.id})
    return None


def _traces(bench: Bench, ref: KeyRef) -> dict[str, str]:
    """Return what a note says of a key that is in the world now; a value on this machine only is in no world."""
    if bench.issuer.style is Style.REPLACE or not ref.id:
        return {}
    return {"leaves": ref.id, "gone": ATTEMPT}


def _put(bench: Bench, ctx: Context, fields: dict[str, Secret], held: Stored | None) -> Stored:
    """Write over `held`, or over what an earlier process of this run wrote in the meantime: that was given up.

    Such a write was under way when its process died, and came out after our look.
    """
    try:
        return bench.store.put(fields, held, ctx.marker)
    except ProviderError as e:
        late = bench.store.current() if e.trouble is Trouble.CONFLICT else None
        if late is None or late.run != ctx.marker or late == held:
            raise
        return _put(bench, ctx, fields, late)


def _lost(bench: Bench, ctx: Context, minted: Minted) -> Outcome:
    """Say what becomes of a fresh key whose place in the store somebody else took."""
    return _retire(bench, ctx, minted.ref) or Failed(
        f"somebody else wrote to the store {bench.store.name} at the same moment; the new key was deleted again",
        "see what was written there, then begin a new rotation",
    )


def apply(bench: Bench, ctx: Context) -> Outcome:
    """Set what the store holds as the secret at the issuer: the old one dies in that moment. Repeating is harmless."""
    issuer = bench.issuer
    if not isinstance(issuer, Replacer):
        raise TypeError(f"{issuer.name} replaces in place but has no apply")
    if bench.plan.managed:
        issuer.apply(bench.old_ref(ctx), {})
        return _managed(bench, ctx)
    if (moved := bench.moved(ctx)) is not None:
        return Failed(f"{moved}; the old secret still stands", "put the right value back, then `lapse resume`")
    issuer.apply(bench.old_ref(ctx), bench.new(ctx).parts)
    return Done("set: the old secret is no more")


def applied(bench: Bench, ctx: Context) -> Outcome | None:
    """Say whether the issuer, where it keeps the value itself, holds another one than before the run."""
    base, now = bench.base(ctx), bench.store.current()
    if not bench.plan.managed or base is None or now is None or now.version == base.version:
        return None
    return _managed(bench, ctx)


def _managed(bench: Bench, ctx: Context) -> Outcome:
    now = bench.store.current()
    version = now.version if now else ""
    ref = bench.old_ref(ctx)
    return Done(f"{bench.store.name} holds a new value", {"ref": encoded(ref), "id": ref.id, "version": version})


def enter(bench: Bench, ctx: Context) -> Outcome:
    """Ask a person for the key they made, at a hidden prompt, and keep it. Without a person, wait for one."""
    if bench.store.current() != bench.base(ctx):
        return Failed(
            f"the store {bench.store.name} was changed by somebody else after this rotation began",
            "see what was written there, then begin a new rotation",
        )
    value = bench.world.ask(bench.plan.ask or f"New {bench.plan.part} made at {bench.plan.page}")
    if value is None or not value.reveal().strip():
        said = f"make a new key at {bench.plan.page}, then run `lapse resume {ctx.run}` and enter it"
        return Waiting("person", instructions=said)
    parts = {bench.plan.part: Secret(value.reveal().strip())}
    if bench.world.print_of(parts) == bench.world.print_of(_same_part(bench)):
        return Waiting("person", instructions=f"that is the leaked key itself; make a new one at {bench.plan.page}")
    fields = bench.written(parts)
    ref = KeyRef(id="", owner="", label=ctx.marker)
    _note(bench, ref, fields)
    try:
        stored = _put(bench, ctx, fields, bench.base(ctx))
    except ProviderError as e:
        if e.trouble is not Trouble.CONFLICT:
            raise
        return Failed(
            f"somebody else wrote to the store {bench.store.name} at the same moment; delete the key you just made",
            "see what was written there, then begin a new rotation",
        )
    return _done(encoded(ref), stored, bench, ctx)


def undo(bench: Bench, ctx: Context) -> Outcome:
    """Bring back the store's former version, then retire the key that this run made and any orphan of it."""
    _bring_back(bench, ctx)
    if bench.world.issuer is None or bench.issuer.style is Style.REVOKE:
        return Done("the store is as before; delete the new key in the provider's pages")
    trouble = _clear(bench, ctx)
    _bring_back(bench, ctx)  # from a write, too, that was under way when its process died and came out since our look
    return trouble if trouble is not None else Done("the store is as before, the new key is gone")


def _bring_back(bench: Bench, ctx: Context) -> None:
    """Bring the former version back if this run wrote the newest one; one that came meanwhile, ours or not, stays."""
    if not _ours(bench, ctx):
        return
    base = bench.base(ctx)
    try:
        bench.store.restore(None if base is None else base.version, ctx.marker)
    except ProviderError as e:
        if e.trouble is not Trouble.CONFLICT or _ours(bench, ctx):
            raise


def _ours(bench: Bench, ctx: Context) -> bool:
    held = bench.store.current()
    return held is not None and held.run == ctx.marker


def _clear(bench: Bench, ctx: Context, keep: str = "") -> Outcome | None:
    """Retire every key that this run made, but `keep`; only these, and only if certain.

    Where the secret is replaced in place nothing was made yet: the value only lay on this machine. Beside a key to keep
    only what bears our mark goes: it came of a call that was under way when its process died.
    """
    if bench.world.issuer is None or bench.issuer.style is not Style.DISPLACE:
        return None
    old = bench.old_ref(ctx)
    gone = {e.data["id"] for e in bench.notes() if e.text == RETIRED}
    for entry in bench.notes():
        if entry.text == MINTED and entry.data["id"] and entry.data["id"] not in {*gone, keep}:
            ref = msgspec.json.decode(entry.data["ref"], type=KeyRef)
            if (stuck := _retire(bench, ctx, ref)) is not None:
                return stuck
            gone.add(ref.id)
    tried = _unknown(bench)
    if tried is None and (keep or not any(e.text == TRYING for e in bench.notes())):
        return None  # nothing was ever asked for, or what came of it is known
    before: list[str] = msgspec.json.decode(ctx.output(SNAPSHOT, "before"), type=list[str])
    since = tried[0] if tried is not None else ctx.intent_at
    known = {*before, *gone, old.id, keep}
    lost = [
        r
        for r in bench.issuer.orphans(old, sorted(known), since, ctx.marker)
        if r.id not in known
        if ctx.marker in r.label
        or (not keep and tried is not None and (r.created is None or r.created <= tried[1] + LATEST))
    ]
    unmarked = [r for r in lost if ctx.marker not in r.label]
    if len(unmarked) > 1:
        names = ", ".join(r.id for r in unmarked)
        said = f"{len(unmarked)} keys were made since this rotation began ({names}); one is ours, and none says which"
        return Waiting(
            "person", instructions=f"{said}: delete the one that nobody knows, then `lapse resume {ctx.run}`"
        )
    for ref in lost:
        if (stuck := _retire(bench, ctx, ref)) is not None:
            return stuck
    if bench.notes() and not keep:
        bench.note(CLEARED, {"gone": ATTEMPT})
    return None


def _note(bench: Bench, ref: KeyRef, fields: dict[str, Secret]) -> None:
    traces = {} if bench.world.issuer is None else _traces(bench, ref)
    bench.note(MINTED, {"id": ref.id, "ref": encoded(ref), "print": bench.print_of(fields), **traces})


def _done(ref: str, stored: Stored, bench: Bench, ctx: Context) -> Outcome:
    """Say that the store holds the new key, once nothing else of this run is there."""
    new = msgspec.json.decode(ref, type=KeyRef)
    if new.id and (stuck := _clear(bench, ctx, keep=new.id)) is not None:
        return stuck
    output = {"ref": ref, "id": new.id, "version": stored.version}
    return Done(f"{new.id or 'the new key'} is in {bench.store.name} as version {stored.version}", output)


def _same_part(bench: Bench) -> Parts:
    part = bench.plan.part
    old = bench.world.old.parts
    return {part: old[part]} if part in old else {}
