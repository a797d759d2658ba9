"""Runs a plan so that a crash at any instruction loses nothing and repeats nothing: intent → check → do → record.

The journal decides where a run stands; the durable executor (`playbooks.durable`) only sees to it that somebody goes
on. So everything here can be driven by a loop in a test just as well.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, assert_never

import msgspec

from playbooks import prove
from playbooks.bench import PREFLIGHT, Bench
from playbooks.journal import End, Entry, Journal, RunState, Status, Taken, What, same, state_of
from playbooks.plan import Action, Plan, Planned, Slot
from playbooks.steps import build
from playbooks.world import Unready, World, present
from rotators.interface import ProviderError, Style, Trouble
from rotators.step import Context, Done, Effect, Failed, Outcome, Step, Unsure, Waiting
from verifier.model import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST_TRIES = 60
"""How often a step whose outcome is unsure is tried again by itself: with the longest pause, more than ten hours."""

_PAUSES = (2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0)


class Refused(Exception):  # noqa: N818  # reads as what happened
    """What was asked of a run cannot be done: one sentence with the reason and what to do instead."""


class Engine:
    """Starts, advances, approves and takes back runs. Safe to make in every process; holds no state of a run.

    `world` builds everybody whom a plan names; an `Unready` of it stops the step, never the record.
    """

    def __init__(self, journal: Journal, world: Callable[[Plan], World], now: Callable[[], datetime] = present) -> None:
        """Take the journal, the maker of worlds and the clock."""
        self.journal = journal
        self._world, self._now = world, now
        self._worlds: dict[str, World] = {}

    def state(self, run: str) -> RunState:
        """Return where a run stands; an unknown run is `playbooks.journal.Unknown`."""
        return state_of(run, self.journal.entries(run))

    # ── what people do ─────────────────────────────────────────────────────────────────────────────────

    def start(self, run: str, plan: Plan, by: str) -> int:
        """Record a run with its plan and who started it; return its first turn. One open run a key (`Taken`)."""
        if missing := plan.open_settings():
            raise Refused(f"still to be said: {', '.join(missing)}; give each with --set NAME=VALUE")
        text = f"{plan.mode} rotation by {plan.playbook}, started by {by}"
        data = {"plan": msgspec.json.encode(plan).decode(), "by": by}
        return self.journal.start(run, plan.credential, text, data)

    def approve(self, run: str, who: str, steps: tuple[str, ...] = ()) -> list[Planned]:
        """Record that `who` agrees to steps: those named, else the one waited for, else all that still need somebody.

        Return the steps approved. Each approval ends after the playbook's `approvals.expire`.
        """
        state = self._open(run)
        at = self._now()
        if state.undoing:
            raise Refused(f"{run} is being taken back; there is nothing to approve")
        if not who.strip():
            raise Refused("an approval needs a name: --as NAME")
        until = at + timedelta(seconds=state.plan.approval_seconds)
        wanted = self._wanted(state, steps, at)
        for planned in wanted:
            if planned.approvals > 1 and same(who) == same(state.by):
                raise Refused(
                    f"{planned.name} needs two people, and {who}, who started the rotation, is not one of them"
                )
            if same(who) in {same(n) for n in state.approvers(planned.name, at)} and state.lacking(planned, at):
                raise Refused(f"{who} has approved {planned.name} already; it needs somebody else as well")
        for planned in wanted:
            text = f"{who} agrees: {planned.effect} — {planned.title}"
            self.journal.append(run, planned.name, What.APPROVED, text, {"who": who, "until": until.isoformat()})
        return wanted

    @staticmethod
    def _wanted(state: RunState, steps: tuple[str, ...], at: datetime) -> list[Planned]:
        needing = [s for s in state.plan.steps if s.approvals and state.done(s.name) is None]
        if steps:
            names = [s.name for s in needing]
            for step in steps:
                if step not in names:
                    raise Refused(f"{step} needs no approval; those that do: {', '.join(names) or 'none'}")
            return [s for s in needing if s.name in steps]
        lacking = [s for s in needing if state.lacking(s, at)]
        if not lacking:
            raise Refused(f"nothing in {state.run} waits for an approval")
        waited = state.last.step if state.status is Status.WAITING else ""
        return [s for s in lacking if s.name == waited] or lacking

    def withdraw(self, run: str, who: str) -> list[str]:
        """Take back every approval of `who` for steps that are not done; return their names."""
        state = self._open(run)
        at = self._now()
        held = [
            s.name
            for s in state.plan.steps
            if state.done(s.name) is None and same(who) in {same(n) for n in state.approvers(s.name, at)}
        ]
        if not held:
            raise Refused(f"{who} has approved nothing in {run} that could be taken back")
        for name in held:
            self.journal.append(run, name, What.WITHDRAWN, f"{who} takes the approval back", {"who": who})
        return held

    def resume(self, run: str, by: str) -> int:
        """Record that somebody goes on with an open run; return its new turn."""
        self._open(run)
        return self.journal.append(run, "", What.RESUMED, f"resumed by {by}", {"by": by})

    def undo(self, run: str, by: str) -> int:
        """Record that a run is to be taken back; return its new turn. Refused once anything was destroyed."""
        state = self._open(run)
        if (gone := state.destroyed()) is not None:
            planned = state.plan.step(gone)
            raise Refused(
                f"{run} is past the point of no return: {planned.title} ({gone}) has begun; "
                f"go on with `lapse resume {run}`"
            )
        return self.journal.append(run, "", What.UNDO, f"to be taken back, says {by}", {"by": by})

    def _open(self, run: str) -> RunState:
        state = self.state(run)
        if state.end is not None:
            raise Refused(f"{run} has ended ({state.end}); begin a new rotation if one is needed")
        return state

    # ── what the executor does ─────────────────────────────────────────────────────────────────────────

    def agenda(self, run: str, turn: int) -> list[str]:
        """Return the steps to take in this turn, in order; none where a newer turn has begun or all is over."""
        state = self.state(run)
        if state.end is not None or state.turn != turn:
            return []
        return [s.name for s in (_backward(state.plan) if state.undoing else state.plan.steps)]

    def take(self, run: str, name: str) -> Outcome:
        """Take one step of the run's direction and record what came of it. Safe to repeat at any time."""
        state = self.state(run)
        if state.end is not None:
            return Failed(f"{run} has ended ({state.end})")
        planned = state.plan.step(name)
        return self._back(state, planned) if state.undoing else self._forth(state, planned)

    def advance(self, run: str) -> Outcome:
        """Take step after step until one is not done, or all are. Not for use beside a durable executor."""
        outcome: Outcome = Done()
        for name in self.agenda(run, self.state(run).turn):
            outcome = self.take(run, name)
            if not isinstance(outcome, Done):
                break
        return outcome

    # ── forward ────────────────────────────────────────────────────────────────────────────────────────

    def _forth(self, state: RunState, planned: Planned) -> Outcome:
        run, name = state.run, planned.name
        if (done := state.done(name)) is not None:
            outcome: Outcome = Done(done.text, done.data)
        else:
            at = state.plan.index(name)
            if any(state.done(s.name) is None for s in state.plan.steps[:at]):
                return Failed(f"{name} comes after a step that is not done")
            outcome = self._act(state, planned)
            outcome = self._record(run, planned, outcome)
        if isinstance(outcome, Done) and state.plan.steps[-1].name == name:
            self._end(run, End.FINISHED, "the old key is proven dead")
        return outcome

    def _act(self, state: RunState, planned: Planned) -> Outcome:
        """Intent, check, do. Begun before: the world is asked first, for it may show the effect already."""
        run, name = state.run, planned.name
        try:
            world = self._of(state.plan, run)
        except Unready as e:
            return Failed(str(e), "correct it, then `lapse resume`")
        bench = self._bench(state, planned, world)
        step = build(bench)
        begun = state.intent(name)
        if begun is not None:
            ctx = self._context(state, begun.at, world)
            if (shown := self._guarded(lambda: step.check(ctx))) is not None:
                return shown
        if missing := state.lacking(planned, self._now()):
            return self._ask(state, planned, missing)
        if planned.effect is Effect.DESTROYS and (proof := self._proof(state.plan, planned)) is not None:
            stopped = self._guarded(lambda: proof(bench, self._context(state, self._now(), world)))
            if stopped is not None:
                return stopped
        if begun is not None:
            return self._guarded(lambda: step.do(ctx)) or Done()
        if planned.action in _CLAIMS and (held := self._claim(state)) is not None:
            return held
        self.journal.append(run, name, What.INTENT, planned.title)
        begun = self.state(run).intent(name)
        ctx = self._context(state, begun.at if begun else self._now(), world)
        shown = self._guarded(lambda: step.check(ctx))
        return shown if shown is not None else self._guarded(lambda: step.do(ctx)) or Done()

    def _claim(self, state: RunState) -> Outcome | None:
        """Take what the run needs for it alone, to its end: another run's fresh key is never taken for an orphan."""
        try:
            for resource in claims(state.plan, state.outputs()):
                self.journal.claim(state.run, resource)
        except Taken as e:
            return Failed(str(e), "when that one has ended, `lapse resume`")
        return None

    @staticmethod
    def _proof(plan: Plan, planned: Planned) -> Callable[[Bench, Context], Outcome | None] | None:
        """Return what must hold this very moment before a step destroys: the new key works, or the new way does."""
        makes, way, at = plan.makes, plan.way, plan.index(planned.name)
        if makes is not None and planned.action is not Action.APPLY and plan.index(makes.name) < at:
            return prove.fresh
        if makes is None and way is not None and plan.index(way.name) < at:
            return prove.still_works
        return None

    def _ask(self, state: RunState, planned: Planned, missing: int) -> Outcome:
        people = "one person" if missing == 1 else f"{missing} people"
        other = f" other than {state.by}" if planned.approvals > 1 else ""
        title = planned.title
        if planned.action is Action.ROOM:
            spare = state.outputs().get(PREFLIGHT, {}).get("room")
            title = f"{title} (now {spare})" if spare else f"{title} (now there is room)"
        said = f"{people}{other} must agree to: {planned.effect} — {title}; `lapse approve {state.run} --as NAME`"
        return Waiting("approval", instructions=said)

    def _guarded(self, call: Callable[[], Outcome | None]) -> Outcome | None:
        """Call into a provider; trouble becomes an outcome. An unknown exception is told by its type alone."""
        try:
            return call()
        except ProviderError as e:
            if e.trouble is Trouble.LATER:
                again = e.retry_after
                return Unsure(str(e)) if again is None else _Later(str(e), again)
            return Failed(str(e), HINTS[e.trouble])
        except (Unready, Taken) as e:
            return Failed(str(e), "correct it, then `lapse resume`")
        except Exception as e:  # noqa: BLE001  # a hand that broke may have acted: check before trying again
            return Unsure(f"something broke in the middle ({type(e).__name__})")

    # ── backward ───────────────────────────────────────────────────────────────────────────────────────

    def _back(self, state: RunState, planned: Planned) -> Outcome:
        run, name = state.run, planned.name
        outcome: Outcome = Done()
        order = _backward(state.plan)
        standing = [s.name for s in order if s.effect is not Effect.READS and state.touched(s.name)]
        standing = [s for s in standing if not state.undone(s)]
        if name in standing:
            if standing[0] != name:  # a phase from before the undo goes on, in the order of its own time
                return Failed(f"{standing[0]} is to be taken back before {name}")
            outcome = self._take_back(state, planned)
        if isinstance(outcome, Done) and order[-1].name == name and not self.state(run).changed():
            self._end(run, End.UNDONE, "everything is as before")
        return outcome

    def _take_back(self, state: RunState, planned: Planned) -> Outcome:
        run, name = state.run, planned.name
        try:
            world = self._of(state.plan, run)
        except Unready as e:
            return self._record(run, planned, Failed(str(e), "correct it, then `lapse undo` again"), back=True)
        bench = self._bench(state, planned, world)
        step = build(bench)
        begun = state.intent(name)
        ctx = self._context(state, begun.at if begun else self._now(), world)
        self.journal.append(run, name, What.UNDO_INTENT, planned.undo)
        outcome = self._still_good(state, planned, bench, world)
        if outcome is None:
            outcome = self._guarded(lambda: self._undo(step, ctx))
        return self._record(run, planned, outcome or Done(), back=True)

    @staticmethod
    def _undo(step: Step, ctx: Context) -> Outcome:
        if step.undo is None:
            return Done("nothing to take back")
        return step.undo(ctx)

    def _still_good(self, state: RunState, planned: Planned, bench: Bench, world: World) -> Outcome | None:
        """Before the new key or the new way goes: make sure that the old one works, or was not what we disabled."""
        if planned.action not in {Action.MINT, Action.SETUP} or state.done(planned.name) is None:
            return None
        if not any(s.action is Action.DISABLE and state.touched(s.name) for s in state.plan.steps):
            return None
        verdict = world.probe(world.old)
        bench.note(f"old key before undo: {prove.word(verdict)}", {})
        if isinstance(verdict, Live):
            return None
        tries = sum(1 for e in state.notes(planned.name) if e.text.startswith("old key before undo"))
        if tries < MOST_TRIES:
            return Waiting("time", bench.after(_pause(tries)), f"the old key is not back yet: {prove.word(verdict)}")
        return Failed(
            "the old key does not come back to life; what took its place stays", "go on forward: begin a new rotation"
        )

    # ── record ─────────────────────────────────────────────────────────────────────────────────────────

    def _record(self, run: str, planned: Planned, outcome: Outcome, *, back: bool = False) -> Outcome:
        """Write an outcome down; what can be tried again by itself becomes a wait. Return what stands."""
        name = planned.name
        match outcome:
            case Done():
                self.journal.append(run, name, What.UNDONE if back else What.DONE, outcome.note, dict(outcome.output))
                return outcome
            case Failed(retry_after=None):
                data = {"hint": outcome.hint} if outcome.hint else {}
                if back:  # said of the run: the step itself still stands, and is to be taken back
                    self.journal.append(run, "", What.FAILED, f"{name}: {outcome.reason}", data)
                    return outcome
                self.journal.append(run, name, What.FAILED, outcome.reason, data)
                self._close_if_untouched(run)
                return outcome
            case Failed() | Unsure():
                self.journal.append(run, name, What.UNSURE, outcome.reason)
                return self._again(run, planned, outcome)
            case Waiting():
                return self._wait(run, name, outcome)
            case _:
                assert_never(outcome)

    def _again(self, run: str, planned: Planned, outcome: Failed | Unsure) -> Outcome:
        state = self.state(run)
        tries = state.tries(planned.name)
        if tries > MOST_TRIES:
            hint = f"see to it, then `lapse resume {run}`"
            self.journal.append(run, planned.name, What.UNSURE, "given up for now")
            # not FAILED: whether it happened is still unknown, and nothing may count on either
            self.journal.append(run, "", What.FAILED, outcome.reason, {"hint": hint})
            return Failed(outcome.reason, hint)
        pause = timedelta(seconds=_pause(tries))
        if isinstance(outcome, Failed | _Later) and outcome.retry_after is not None:
            pause = max(pause, outcome.retry_after)
        return self._wait(run, planned.name, Waiting("time", self._now() + pause, outcome.reason))

    def _wait(self, run: str, name: str, outcome: Waiting) -> Outcome:
        data: dict[str, str] = {"on": outcome.on}
        if outcome.until is not None:
            data["until"] = outcome.until.isoformat()
        self.journal.append(run, name, What.WAITING, outcome.instructions, data)
        return outcome

    def _close_if_untouched(self, run: str) -> None:
        """End a run that failed before it changed anything: there is nothing to go on with and nothing to undo."""
        state = self.state(run)
        if not state.changed() and not state.undoing:
            self._end(run, End.FAILED, "nothing was changed")

    def _end(self, run: str, how: End, text: str) -> None:
        if self.state(run).end is None:
            self.journal.append(run, "", What.ENDED, text, {"how": how.value})

    # ── pieces ─────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, plan: Plan, run: str) -> World:
        if run not in self._worlds:
            self._worlds[run] = self._world(plan)
        return self._worlds[run]

    def _bench(self, state: RunState, planned: Planned, world: World) -> Bench:
        run, name = state.run, planned.name

        def notes() -> tuple[Entry, ...]:
            return self.state(run).notes(name)

        def note(text: str, data: Mapping[str, str]) -> None:
            self.journal.append(run, name, What.NOTE, text, data)

        def done_at(step: str) -> datetime | None:
            found = state.done(step)
            return found.at if found else None

        resumed = [e.at for e in state.entries if e.what is What.RESUMED]
        return Bench(state.plan, planned, world, notes, note, done_at, resumed[-1] if resumed else None)

    @staticmethod
    def _context(state: RunState, intent_at: datetime, world: World) -> Context:
        return Context(state.run, world.old, state.outputs(), intent_at, marker_of(state.run))


def _backward(plan: Plan) -> list[Planned]:
    """Return the steps in the order in which they are taken back.

    What stopped the old key comes off first: the new one goes once the old one works again.
    """
    order = list(plan.steps)[::-1]
    order.sort(key=lambda s: s.slot is not Slot.CONTAIN)
    return order


def marker_of(run: str) -> str:
    """Return the mark that this run's work carries at providers and in stores: lower case, digits and dashes."""
    return f"lapse-{run}"


def claims(plan: Plan, outputs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return what a run needs for itself: the owner at the issuer, the place in the store, the new way's name.

    Where nothing is minted the owner is free: each of a hundred leaked tokens has its own run, all at once.
    """
    found: list[str] = []
    owner = outputs.get(PREFLIGHT, {}).get("owner")
    if plan.issuer is not None and owner and plan.style is not Style.REVOKE:
        found.append(f"{plan.issuer.name} {owner}")
    used = [u for u in (plan.store, plan.successor) if u is not None]
    found += [f"{u.name} {msgspec.json.encode(u.settings, order='deterministic').decode()}" for u in used]
    return found


_CLAIMS = frozenset({Action.SNAPSHOT, Action.SETUP, Action.ROOM})
"""Before the first of these, a run takes what it needs for itself."""


class _Later(Unsure, frozen=True, tag="later"):
    """Unsure, with the provider's own word on when to ask again."""

    retry_after: timedelta


def _pause(tries: int) -> float:
    return _PAUSES[min(tries, len(_PAUSES) - 1)]


HINTS: dict[Trouble, str] = {
    Trouble.DENIED: "give our admin credential the right that the plan names, then `lapse resume`",
    Trouble.FULL: "make room: delete a key of this owner that nobody uses, then begin again",
    Trouble.GONE: "somebody else was here: look what is left, `lapse verify` tells whether the key still works",
    Trouble.CONFLICT: "somebody else changed it at the same moment: look, then begin again",
    Trouble.LATER: "`lapse resume` tries again",
    Trouble.REFUSED: "the provider does not do this for this key: another playbook, or `--playbook assisted`",
}
