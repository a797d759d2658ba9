"""Looking at keys until their state is certain: the new one accepted in a row, the old one refused over a window.

Each look is noted, so a run that is killed in the middle goes on counting; the answer is a fold of the notes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, assert_never

from msgspec.structs import replace

from playbooks.bench import PREFLIGHT, SUCCESSOR
from rotators.interface import State, Style
from rotators.step import Done, Failed, Outcome, Waiting
from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playbooks.bench import Bench
    from playbooks.journal import Entry
    from rotators.step import Context
    from verifier.model import Credential, Verdict

_SLOWEST = 60.0
"""Most seconds between two looks at an old key that is still accepted."""

_GIVE_UP = timedelta(hours=24)
"""How long a provider that answers nothing at all is asked again."""

_FRESH_LIVE, _FRESH_DEAD = "fresh: live", "fresh: dead"
_REFUSED = timedelta(minutes=2)
"""How long a new key that was accepted before, and is refused just before the old one goes, is looked at again: what
spreads through a provider's servers flaps for a while."""
_STEADY = 3
"""Acceptances in a row that such a key needs."""


def word(verdict: Verdict) -> str:
    """Return live, dead or undecided."""
    match verdict:
        case Live():
            return "live"
        case Dead():
            return "dead"
        case Undecided():
            return "undecided"
        case _:
            assert_never(verdict)


def look(bench: Bench, verdict: Verdict) -> None:
    """Note one look."""
    why = verdict.why.value if isinstance(verdict, Undecided) else ""
    bench.note(word(verdict), {"why": why} if why else {})


def verify(bench: Bench, ctx: Context) -> Outcome:
    """Ask once about the new key, read back from the store; done when the last looks in a row were all Live."""
    if (moved := bench.moved(ctx)) is not None:
        return Failed(moved, "put the right value back, then `lapse resume`, or take the rotation back: `lapse undo`")
    new = bench.new(ctx)
    verdict = bench.world.probe(new)
    if _no_probe(verdict) and _issuer_knows(bench, ctx, new):
        said = "the issuer knows what is stored as the new key; no probe exists for this kind of key"
        return Done(said, {"principal": "", "accepted": bench.world.now().isoformat()})
    look(bench, verdict)
    planned = bench.planned
    notes = [e for e in bench.notes() if e.text in {"live", "dead", "undecided"}]
    if _streak(notes, "live") >= planned.times:
        who = verdict.identity.principal if isinstance(verdict, Live) and verdict.identity else ""
        return Done(
            f"accepted {plural(planned.times, 'time')} in a row", {"principal": who or "", "accepted": _iso(notes[-1])}
        )
    outage = [e.at for e in notes if e.text == "undecided"]
    began = notes[0].at if isinstance(verdict, Undecided) or not outage else outage[-1]  # an outage is not the key's
    waited = bench.world.now() - bench.resumed(began)
    if isinstance(verdict, Undecided):
        if _nobody_can_ask(verdict):
            return Failed(f"the new key cannot be verified: {verdict.note or verdict.why}", "nothing old was touched")
        if waited < _GIVE_UP:
            return Waiting("time", bench.after(max(planned.every, 5.0)), f"no answer yet: {verdict.why}")
        return Failed("the provider gave no usable answer for a day", "`lapse resume` asks again")
    if waited.total_seconds() < max(planned.seconds, planned.times * planned.every * 2):
        return Waiting("time", bench.after(planned.every), f"new key: {word(verdict)}")
    return Failed(
        f"the new key was not accepted {plural(planned.times, 'time')} in a row within {planned.seconds:g} s",
        "the old one still works; `lapse undo` takes the new one back, `lapse resume` looks again",
    )


def prove(bench: Bench, ctx: Context) -> Outcome:
    """Ask once about the old key; done when it was refused `times` in a row over the whole window."""
    verdict = bench.world.probe(bench.world.old)
    if _nobody_can_ask(verdict):
        return _issuers_word(bench, ctx)
    verdict = _agreed(bench, ctx, verdict)
    look(bench, verdict)
    planned = bench.planned
    notes = [e for e in bench.notes() if e.text in {"live", "dead"}]
    row = _row(notes, "dead")
    lives = [e for e in bench.notes() if e.text == "live"]
    stable = row[0].at if row else None
    held = (row[-1].at - row[0].at).total_seconds() if row else 0.0
    if isinstance(verdict, Dead) and len(row) >= planned.times and held >= planned.seconds and stable is not None:
        bench.world.record(verdict, proven=True)
        output = {
            "refusals": str(len(row)),
            "first_stable_refusal": stable.isoformat(),
            "last_acceptance": _iso(lives[-1]) if lives else _before(ctx),
            "how": verdict.how.value,
        }
        return Done(f"refused {plural(len(row), 'time')} in a row since {stable:%Y-%m-%d %H:%M:%S}", output)
    bench.world.record(verdict, proven=False)
    began = bench.resumed(next(e.at for e in bench.notes()))
    if (bench.world.now() - began).total_seconds() > max(planned.limit, 4 * planned.seconds):
        return Failed(
            "the old key is still not refused for good, long after it should be",
            "ask the provider's support; `lapse resume` goes on asking",
        )
    slower = min(len(_row(notes, "live")), 10)  # a key that goes on working is asked ever less often
    pause = max(planned.every, min(_SLOWEST, planned.every * 1.5**slower))
    return Waiting("time", bench.after(pause), f"old key: {word(verdict)}, {plural(len(row), 'refusal')} in a row")


def fresh(bench: Bench, ctx: Context) -> Outcome | None:
    """Return None when the new key, as the store holds it, is Live this very moment; else why nothing is destroyed.

    A key that was refused here even once is Live when it was accepted several times in a row.
    """
    if (moved := bench.moved(ctx)) is not None:
        return Failed(f"{moved}; nothing was destroyed", "put the right value back, then `lapse resume`")
    new = bench.new(ctx)
    verdict = bench.world.probe(new)
    if _no_probe(verdict) and _issuer_knows(bench, ctx, new):
        bench.note("fresh: the issuer knows it", {})
        return None
    bench.note(f"fresh: {word(verdict)}", {})
    looks = [e for e in bench.notes() if e.text in {_FRESH_LIVE, _FRESH_DEAD}]
    refused = [e.at for e in looks if e.text == _FRESH_DEAD]
    match verdict:
        case Live():
            if not refused or _streak(looks, _FRESH_LIVE) >= _STEADY:
                return None
            return Waiting("time", bench.after(1), "the new key was refused a moment ago; nothing destroyed yet")
        case Dead():
            if bench.world.now() - bench.resumed(refused[0]) < _REFUSED:
                return Waiting("time", bench.after(2), "the new key is refused: asked again; nothing destroyed")
            hint = "find out why before you go on; `lapse undo` brings the old key back"
            return Failed("the new key is refused; nothing was destroyed", hint)
        case Undecided():
            return Waiting("time", bench.after(30), f"no fresh word on the new key ({verdict.why}); nothing destroyed")
        case _:
            assert_never(verdict)


def _nobody_can_ask(verdict: Verdict) -> bool:
    return isinstance(verdict, Undecided) and verdict.why in {Doubt.UNSUPPORTED, Doubt.INCOMPLETE}


def _no_probe(verdict: Verdict) -> bool:
    return isinstance(verdict, Undecided) and verdict.why is Doubt.UNSUPPORTED


def _issuer_knows(bench: Bench, ctx: Context, new: Credential) -> bool:
    """Say whether the issuer finds exactly what is stored, and finds it to be the key that this run made."""
    if bench.world.issuer is None or bench.issuer.style is Style.REVOKE:
        return False
    found = bench.issuer.locate(new)
    return found.id == bench.new_ref(ctx).id and found.state is State.ACTIVE


def _agreed(bench: Bench, ctx: Context, verdict: Verdict) -> Verdict:
    """Take a refusal in words that could mean two things for a death, if the issuer says that the key is gone.

    OpenBao says `permission denied` of dead tokens and of live ones that may not look themselves up.
    """
    if not isinstance(verdict, Undecided) or verdict.why is not Doubt.AMBIGUOUS or verdict.evidence is None:
        return verdict
    if bench.world.issuer is None or bench.issuer.state(bench.old_ref(ctx)) is not State.GONE:
        return verdict
    rule = f"{verdict.evidence.rule}; its issuer says that it is gone"
    return Dead(replace(verdict.evidence, rule=rule), How.REVOKED)


def works(bench: Bench, ctx: Context) -> Outcome:
    """See the new way work: the successor logs in by it. `Waiting` where only a person can let it be seen."""
    since = bench.done_at(SUCCESSOR) or ctx.intent_at
    return bench.successor.check(bench.world.old, ctx.marker, since)


def still_works(bench: Bench, ctx: Context) -> Outcome | None:
    """Return None when the new way works this very moment; else why nothing is destroyed."""
    outcome = works(bench, ctx)
    bench.note(f"fresh: the new way {'works' if isinstance(outcome, Done) else 'is not seen to work'}", {})
    if isinstance(outcome, Done):
        return None
    if isinstance(outcome, Failed) and outcome.retry_after is None:
        return Failed(f"{outcome.reason}; nothing was destroyed", outcome.hint)
    return outcome


def _issuers_word(bench: Bench, ctx: Context) -> Outcome:
    """Take the issuer's own word where nobody can ask as the key."""
    if bench.world.issuer is None:
        return Waiting("person", instructions="no probe exists for this kind of key: prove by hand that it is dead")
    said = bench.issuer.state(bench.old_ref(ctx))
    if said is State.ACTIVE:
        return Waiting("time", bench.after(bench.planned.every), "the issuer still calls the old key active")
    return Done(f"the issuer says {said}; no probe exists for this kind of key", {"proof": f"issuer: {said}"})


def _row(notes: Sequence[Entry], wanted: str) -> list[Entry]:
    """Return the looks at the end that all said `wanted`."""
    row: list[Entry] = []
    for entry in reversed(notes):
        if entry.text != wanted:
            break
        row.append(entry)
    return row[::-1]


def _streak(notes: Sequence[Entry], wanted: str) -> int:
    return len(_row(notes, wanted))


def _before(ctx: Context) -> str:
    """Return when the old key was accepted before the first change, if it was."""
    seen = ctx.outputs.get(PREFLIGHT, {})
    return seen.get("asked", "") if seen.get("old") == "live" else ""


def _iso(entry: Entry) -> str:
    at: datetime = entry.at
    return at.isoformat()
