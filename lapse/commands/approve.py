"""`lapse approve RUN`: somebody agrees to a step, on record; or takes it back.

On this machine's ledger the name is what `--as` says: whoever can write the ledger's file is believed. With `--server`
it goes through a console, and the name is the token's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit
from lapse.output.console import out, safe, say
from lapse.rotation import Desk, person, said_plainly

if TYPE_CHECKING:
    from pathlib import Path


def run(name: str, who: str | None, steps: tuple[str, ...], config: Path | None, *, withdraw: bool) -> Exit:
    """Record the approval; a worker that runs goes on, else `lapse resume` does. Exit 12 while more is needed."""
    with Setup.of(config).ledger() as ledger, said_plainly():
        desk = Desk(Setup.of(config), ledger)
        rotation = ledger.rotations.resolve(name)
        if withdraw:
            for step in desk.engine.withdraw(rotation, person(who)):
                out(f"{rotation} {step}: {person(who)} takes the approval back")
            return Exit.OK
        approved = desk.engine.approve(rotation, person(who), steps)
        state = desk.engine.state(rotation)
        lacking = 0
        for planned in approved:
            held = state.approvers(planned.name, state.last.at)
            missing = state.lacking(planned, state.last.at)
            lacking += missing
            until = max(held.values())
            out(f"{rotation} {planned.name}: {planned.effect} — {planned.title}")
            out(f"  agreed by {', '.join(sorted(held))} until {until:%Y-%m-%d %H:%M} UTC; {missing} more needed")
        if lacking:
            return Exit.WAITING
        told = _tell(desk, rotation, state.turn)
        say("the worker goes on" if told else f"`lapse resume {rotation}` goes on")
        return Exit.OK


def remote(name: str, server: str, token: Path, steps: tuple[str, ...], *, withdraw: bool) -> Exit:
    """Record the approval at a console on another machine, under the token's name. Exit 12 while more is needed."""
    from lapse.web.remote import Server  # HTTP is slow to import

    console = Server(server, token)
    if withdraw:
        taken = console.withdraw(name)
        for given in taken.steps:
            out(f"{taken.run} {safe(given)}: the approval is taken back")
        return Exit.OK
    agreed = console.approve(name, steps)
    for step in agreed.steps:
        out(f"{agreed.run} {step.step}: {step.effect} — {safe(step.title)}")
        people = ", ".join(map(safe, step.approvers))
        out(f"  agreed by {people} until {step.until:%Y-%m-%d %H:%M} UTC; {step.missing} more needed")
    if any(step.missing for step in agreed.steps):
        return Exit.WAITING
    say("the run goes on" if agreed.goes_on else f"`lapse resume {agreed.run}` on the console's machine goes on")
    return Exit.OK


def _tell(desk: Desk, rotation: str, turn: int) -> bool:
    """Hand the next turn to the process that is the executor now, if there is one."""
    from playbooks.durable import Broken, Remote, at_work  # DBOS is slow to import

    if not at_work(desk.place):
        return False
    try:
        with Remote(desk.place) as remote:
            remote.go(rotation, turn)
    except Broken:
        return False
    return True
