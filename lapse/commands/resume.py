"""`lapse resume [RUN]`: goes on with what a crash, a wait or a failure left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lapse.commands.rotate import span_of
from lapse.commands.setup import Setup
from lapse.exits import Exit
from lapse.narrator import verdict_of
from lapse.output.console import say
from lapse.rotation import Desk, person, reader, said_plainly
from playbooks.journal import Status, What

if TYPE_CHECKING:
    from pathlib import Path

    from playbooks.journal import RunState


def run(
    name: str | None, who: str | None, config: Path | None, wait: str | None, value: tuple[int | None, Path | None],
    *, quiet: bool,
) -> Exit:  # fmt: skip
    """Go on with one run, or with all that can go on. The exit code is the one of the run that most wants attention."""
    setup = Setup.of(config)
    with setup.ledger() as ledger, said_plainly():
        log = ledger.rotations
        runs = [log.resolve(name)] if name is not None else list(log.open_runs())
        asked = frozenset(log.credential(r) for r in runs) if name is not None else frozenset()
        desk = Desk(setup, ledger, reader(*value), asked)
        states = [desk.engine.state(r) for r in runs]
        able = [s.run for s in states if name is not None or _ready(s)]
        for one in able:
            desk.engine.resume(one, person(who))
        if not able:
            say("nothing is under way" if not runs else "nothing can go on by itself now", quiet=quiet)
        span = setup.config.rotate.wait if wait is None else span_of(wait)
        if able:
            desk.drive(able, span.delta, quiet=quiet)
        code = Exit.OK
        for one in runs:
            text, this = verdict_of(desk.engine.state(one))
            say(text)
            code = max(code, this, key=_ORDER.index)
        return code


_ORDER = [Exit.OK, Exit.WAITING, Exit.BROKE, Exit.PART_WAY, Exit.NO_RIGHTS]


def _ready(state: RunState) -> bool:
    """Say whether a run can go on without a person: not one that waits for an approval, a person, or a later time."""
    if state.status is not Status.WAITING:
        return True
    waited = next(e for e in reversed(state.entries) if e.what is What.WAITING)
    now = datetime.now(UTC)
    match waited.data["on"]:
        case "time":
            return datetime.fromisoformat(waited.data["until"]) <= now
        case "approval":
            return state.lacking(state.plan.step(waited.step), now) == 0
        case _:
            return False
