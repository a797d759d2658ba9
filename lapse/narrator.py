"""What a rotation's journal says, for people at a terminal: as it comes, and in one sentence at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, assert_never

from lapse.exits import Exit
from lapse.output.console import safe, say
from playbooks.engine import HINTS
from playbooks.journal import End, Status, What
from rotators.interface import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from playbooks.engine import Engine
    from playbooks.journal import RunState

LOOK = 2.0
"""Seconds between two looks whether the executor that is watched is still there."""

_SAID = frozenset(What) - {What.NOTE, What.CLAIMED, What.INTENT, What.STARTED}


class Narrator:
    """Says on stderr what a run's journal tells, as it comes."""

    def __init__(self, engine: Engine, run: str, *, quiet: bool) -> None:
        """Begin with what is already there."""
        self._engine, self._run, self._quiet = engine, run, quiet
        self._seen = engine.state(run).last.seq

    def follow(self, patience: timedelta, there: Callable[[], bool] | None = None) -> RunState | None:
        """Stay until nothing more will happen within `patience`; None when whoever goes on with it is not `there`."""
        from playbooks.durable import settled as at_rest  # noqa: PLC0415  # DBOS is slow to import

        looked = time.monotonic()
        while True:
            state = self._engine.state(self._run)
            for e in state.entries:
                if e.seq > self._seen and e.what in _SAID:
                    say(f"  {e.at:%H:%M:%S}  {e.step or self._run:<12} {e.what:<9} {safe(e.text)}", quiet=self._quiet)
            self._seen = state.last.seq
            if at_rest(state, patience):
                return state
            if there is not None and time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                if not there():
                    return None
            time.sleep(0.1)


def verdict_of(state: RunState) -> tuple[str, Exit]:
    """Return the one sentence on how a run stands, and the exit code."""
    run = state.run
    match state.status:
        case Status.ENDED if state.end is End.FINISHED:
            return f"{run}: {state.plan.short} is replaced where it had to be, and proven dead", Exit.OK
        case Status.ENDED if state.end is End.UNDONE:
            return f"{run}: taken back; everything is as before", Exit.OK
        case Status.ENDED | Status.STOPPED:
            failed = next((e for e in reversed(state.entries) if e.what is What.FAILED), state.last)
            hint = failed.data.get("hint", "")
            text = f"{run}: {failed.text}" + (f": {hint}" if hint else "")
            denied = hint == HINTS[Trouble.DENIED]
            stuck = Exit.BROKE if state.status is Status.ENDED else Exit.PART_WAY
            return text, Exit.NO_RIGHTS if denied else stuck
        case Status.WAITING | Status.RUNNING:
            waited = next((e for e in reversed(state.entries) if e.what is What.WAITING), state.last)
            until = waited.data.get("until", "")[:19]
            later = f"; due {until} UTC, then `lapse resume {run}`" if waited.data.get("on") == "time" else ""
            return f"{run} waits: {waited.text}{later}", Exit.WAITING
        case _:
            assert_never(state.status)
