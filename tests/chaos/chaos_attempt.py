"""What one process does before it is killed: `lapse rotate --apply` or `lapse resume` of one key, by its parts."""

from __future__ import annotations

import os
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from lapse.rotation import Desk, reader
from playbooks.durable import Worker
from playbooks.engine import Engine, Refused
from playbooks.journal import RunState, Status
from playbooks.plan import Action, Mode, Plan

if TYPE_CHECKING:
    from lapse.commands.setup import Setup

PATIENCE = timedelta(seconds=30)
ENDED, WAITS, STOPPED = 0, 12, 13
PROOF = 0.15
"""Seconds over which the old key must be refused: the worlds here are consistent at once, or within this time."""


class Job(msgspec.Struct, frozen=True):
    """One attempt. `after` is when it is killed, from the fork or from when it is `working`.

    `value` is a file with the key that a person made, `log` where it says what it says.
    """

    run: str
    key: str
    playbook: str
    mode: str
    sets: dict[str, str]
    env: dict[str, str]
    log: str
    after: float | None = None
    working: bool = True
    value: str | None = None
    undo: bool = False


def warm(setup: Setup) -> None:
    """Read what every child needs, so that none of them has to."""
    _ = setup.catalogue, setup.base_urls


def attempt(setup: Setup, job: Job, ready: int) -> int:
    """Go on with the job's run as far as it goes. Return how it stands. `ready` is told when its work begins."""
    os.environ.update(job.env)
    handle = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        return _go(setup, job, ready)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _go(setup: Setup, job: Job, ready: int) -> int:
    with setup.ledger() as ledger:
        value = Path(job.value) if job.value else None
        desk = Desk(setup, ledger, reader(None, value), frozenset({job.key} if value else ()))
        engine = desk.engine
        if job.run not in ledger.rotations.runs():
            key = desk.key(job.key)
            engine.start(job.run, quick(desk.plan(key, Mode(job.mode), job.playbook, job.sets)), "bob")
        state = engine.state(job.run)
        if state.end is not None:
            return ENDED
        if job.undo and not state.undoing:
            engine.undo(job.run, "bob")
        elif not state.undoing:
            _approve(desk, state)
        turn = engine.resume(job.run, "bob")
        with Worker(engine, desk.place, poll=0.05) as worker:
            _ring(engine, ready)
            worker.go(job.run, turn)
            state = worker.follow(job.run, PATIENCE)
            sys.stdout.write(f"{job.run} {state.status} {state.last.step} {state.last.what} {state.last.text}\n")
            sys.stdout.flush()
            os._exit({Status.ENDED: ENDED, Status.WAITING: WAITS}.get(state.status, STOPPED))  # no time for goodbyes


def _ring(engine: Engine, ready: int) -> None:
    """Have the killer told when the executor takes the run up."""
    agenda = engine.agenda

    def ringing(run: str, turn: int) -> list[str]:
        os.write(ready, b"!")
        return agenda(run, turn)

    engine.agenda = ringing  # type: ignore[method-assign]  # the executor is to ring when it begins


def _approve(desk: Desk, state: RunState) -> None:
    now = datetime.now(UTC)
    lacking = tuple(s.name for s in state.plan.steps if state.done(s.name) is None and state.lacking(s, now))
    if lacking:
        try:
            desk.engine.approve(state.run, "ann", lacking)
        except Refused as e:
            sys.stdout.write(f"{e}\n")


def quick(plan: Plan) -> Plan:
    """Return the plan for worlds that agree with themselves at once: nothing is proven over a vendor's real window."""
    steps = [
        replace(s, seconds=PROOF, every=PROOF / s.times, limit=60.0) if s.action is Action.PROVE else s
        for s in plan.steps
    ]
    return replace(plan, steps=tuple(steps))
