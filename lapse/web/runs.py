"""Rotations in the console: what each step does and did, live; and the four things a person says to a run.

The console records what was said and tells the executor; it never is the executor. Killed at any moment, it leaves the
journal as it is, and `lapse resume` goes on.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response, StreamingResponse

from lapse.exits import Stop
from lapse.ledger import EventKind
from lapse.narrator import verdict_of
from lapse.output import html
from lapse.rotation import said_plainly
from lapse.web.guard import form, need, person
from lapse.web.pages import house_of, show
from lapse.web.settings import Role
from playbooks.journal import Status, Unknown, What
from playbooks.plan import Planned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from lapse.web.house import House
    from playbooks.journal import RunState

POLL = 0.5
"""Seconds between two looks at a journal that is watched."""

BEAT = 15.0
"""Seconds after which a silent stream says that it is alive."""

_STATES = {
    What.DONE: "done",
    What.FAILED: "failed",
    What.UNSURE: "unsure",
    What.WAITING: "waiting",
    What.INTENT: "under way",
    What.UNDONE: "taken back",
    What.UNDO_INTENT: "being taken back",
}


class StepView(Struct, frozen=True):
    """One step as it stands. `lacking`: approvals that it still needs; `approvers`: who agreed."""

    planned: Planned
    state: str
    at: datetime | None
    text: str
    lacking: int
    approvers: tuple[str, ...]


def steps_of(state: RunState) -> list[StepView]:
    """Return the steps of a run as they stand."""
    now = datetime.now(UTC)
    made = []
    for planned in state.plan.steps:
        told = [e for e in state.entries if e.step == planned.name and e.what in _STATES]
        last = told[-1] if told else None
        made.append(
            StepView(
                planned=planned,
                state=_STATES[last.what] if last else "to come",
                at=last.at if last else None,
                text=last.text if last else "",
                lacking=state.lacking(planned, now) if planned.approvals and state.done(planned.name) is None else 0,
                approvers=tuple(sorted(state.approvers(planned.name, now))),
            )
        )
    return made


def found(house: House, name: str) -> RunState:
    """Return a run's state; 404 where there is none."""
    try:
        return house.desk.engine.state(house.ledger.rotations.resolve(name))
    except Unknown as e:
        raise HTTPException(404, str(e.args[0])) from None


def all_runs(request: Request) -> Response:
    """List the rotations, the open ones first."""
    need(request, Role.VIEWER)
    house = house_of(request)
    engine = house.desk.engine
    states = [engine.state(r) for r in reversed(house.ledger.rotations.runs()[-200:])]
    states.sort(key=lambda s: s.status is Status.ENDED)
    return show(request, "runs.html", runs=[(s, verdict_of(s)[0]) for s in states])


def run(request: Request) -> Response:
    """Show one run."""
    who = need(request, Role.VIEWER)
    said = request.app.state.said.pop(who.session, "")
    return _page(request, found(house_of(request), request.path_params["run"]), said)


def _page(request: Request, state: RunState, said: str = "", status: int = 200) -> Response:
    trouble = house_of(request).executor.trouble
    return show(request, "run.html", status, **_shown(state), said=said, trouble=trouble)


def _shown(state: RunState) -> dict[str, object]:
    return {
        "state": state,
        "steps": steps_of(state),
        "sentence": verdict_of(state)[0],
        "open": state.status is not Status.ENDED,
        "undoable": state.status is not Status.ENDED and state.destroyed() is None,
    }


def fragment(request: Request) -> Response:
    """Return the live part of a run's page alone."""
    who = need(request, Role.VIEWER)
    state = found(house_of(request), request.path_params["run"])
    text = html.environment().get_template("_run.html").render(**_shown(state), person=who, Role=Role)
    return Response(text, media_type="text/html")


async def stream(request: Request) -> Response:
    """Say by server-sent events that a run's journal has grown. All who watch one run share one reader."""
    need(request, Role.VIEWER)
    house = house_of(request)
    state = await run_in_threadpool(found, house, request.path_params["run"])
    watch: Watch = request.app.state.watch
    return StreamingResponse(
        _events(request, watch, state.run),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _events(request: Request, watch: Watch, name: str) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    seen = -1
    async with watch.of(name) as reader:
        while not await request.is_disconnected() and person(request):
            seq = await reader.after(seen, BEAT)
            if seq == seen:
                yield ": alive\n\n"
                continue
            seen = seq
            yield f"id: {seq}\nevent: step\ndata: {seq}\n\n"
            if reader.over:
                yield "event: over\ndata: over\n\n"
                return


class Reader:
    """Reads one journal for all who watch it."""

    def __init__(self, house: House, name: str) -> None:
        """Take the run's name."""
        self._house, self._name = house, name
        self._changed = asyncio.Condition()
        self._seq = -1
        self.over = False
        self.watchers = 0
        self.task: asyncio.Task[None] | None = None

    async def after(self, seen: int, patience: float) -> int:
        """Return the number of the newest entry, as soon as it is not `seen`; `seen` when patience ends."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._seq != seen), patience)
            except TimeoutError:
                return seen
            return self._seq

    async def read(self) -> None:
        """Look at the journal until the run is over or nobody watches."""
        while not self.over:
            state = await run_in_threadpool(self._house.desk.engine.state, self._name)
            if state.last.seq != self._seq:
                async with self._changed:
                    self._seq, self.over = state.last.seq, state.status is Status.ENDED
                    self._changed.notify_all()
            await asyncio.sleep(POLL)


class Watch:
    """The readers of the runs that somebody watches."""

    def __init__(self, house: House) -> None:
        """Begin with none."""
        self._house = house
        self._readers: dict[str, Reader] = {}

    def of(self, name: str) -> _Seat:
        """Return a seat at a run's reader, to be entered."""
        return _Seat(self, name)

    def join(self, name: str) -> Reader:
        """Return the reader of a run, started for the first who asks."""
        reader = self._readers.get(name)
        if reader is None or (reader.task is not None and reader.task.done() and not reader.over):
            reader = self._readers[name] = Reader(self._house, name)
            reader.task = asyncio.create_task(reader.read())
        reader.watchers += 1
        return reader

    def leave(self, name: str, reader: Reader) -> None:
        """End the reader when the last one leaves."""
        reader.watchers -= 1
        if not reader.watchers:
            if reader.task is not None:
                reader.task.cancel()
            if self._readers.get(name) is reader:
                del self._readers[name]


class _Seat:
    def __init__(self, watch: Watch, name: str) -> None:
        self._watch, self._name = watch, name

    async def __aenter__(self) -> Reader:
        self._reader = self._watch.join(self._name)
        return self._reader

    async def __aexit__(self, *_: object) -> None:
        self._watch.leave(self._name, self._reader)


# ── what a person says ─────────────────────────────────────────────────────────────────────────────────


async def act(request: Request) -> Response:
    """Approve, withdraw, decline, undo or resume: each recorded under the name of who is logged in."""
    verb = request.path_params["verb"]
    who, fields = await form(request, Role.RESPONDER if verb == "resume" else Role.APPROVER)
    house = house_of(request)
    state = await run_in_threadpool(found, house, request.path_params["run"])
    if verb in {"approve", "undo", "decline"} and fields.get("confirm", "").strip() != state.run:
        return _page(request, state, f"Nothing was done: type {state.run} to confirm.", 400)

    def work() -> str:
        """Do the blocking part, in a thread of its own."""
        with said_plainly():
            return _done(house, state, verb, who.name, fields)

    try:
        said = await run_in_threadpool(work)
    except Stop as e:
        fresh = await run_in_threadpool(found, house, state.run)
        return _page(request, fresh, str(e), 409)
    request.app.state.said[who.session] = said
    return RedirectResponse(f"/runs/{state.run}", 303)


def _done(house: House, state: RunState, verb: str, who: str, fields: dict[str, str]) -> str:
    engine, name = house.desk.engine, state.run
    match verb:
        case "approve":
            step = fields.get("step", "")
            engine.approve(name, who, (step,) if step else ())
            fresh = engine.state(name)
            waited = next((p for p in fresh.plan.steps if p.name == step), None)
            if waited is not None and fresh.lacking(waited, datetime.now(UTC)):
                return "Recorded. Somebody else must agree as well."
            return _go_on(house, name, fresh.turn)
        case "withdraw":
            engine.withdraw(name, who)
            return "Your approvals are taken back."
        case "decline":
            reason = fields.get("reason", "").strip()[:500] or "no reason given"
            turn = engine.undo(name, who)
            detail = {"who": who, "run": name}
            house.ledger.note(EventKind.NOTE, f"{who} declines {name}: {reason}", (state.plan.credential,), detail)
            return _go_on(house, name, turn)
        case "undo":
            return _go_on(house, name, engine.undo(name, who))
        case "resume":
            return _go_on(house, name, engine.resume(name, who))
        case _:
            raise HTTPException(404, "a run knows approve, withdraw, decline, undo and resume")


def _go_on(house: House, name: str, turn: int) -> str:
    """Hand the turn to whoever goes on with rotations."""
    if house.executor.hand(name, turn):
        return "Recorded. The run goes on; this page follows it."
    return f"Recorded. Nobody goes on with it here: `lapse resume {name}` does."
