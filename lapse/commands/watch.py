"""`lapse watch RUN`: a rotation as it happens. `lapse completion SHELL`: what a shell completes our words by."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.narrator import verdict_of
from lapse.output.console import colour, out, safe, say
from lapse.rotation import Desk, said_plainly
from playbooks.journal import Status, What

if TYPE_CHECKING:
    from pathlib import Path

    from playbooks.journal import Entry

POLL = 0.3
"""Seconds between two looks at the journal."""

SHELLS = ("bash", "fish", "zsh")
_QUIET = frozenset({What.NOTE, What.CLAIMED})
_WORD = 11
_TONES = {
    What.DONE: "32", What.ENDED: "1;32", What.FAILED: "1;31", What.UNSURE: "33", What.WAITING: "33", What.UNDONE: "36",
    What.APPROVED: "36", What.WITHDRAWN: "36",
}  # fmt: skip
"""Colours of what an entry says, where a terminal has them."""


def run(name: str, config: Path | None) -> Exit:
    """Print a run's journal and what is added to it, until the run ends or stops. It changes nothing.

    Exit 0 once the old key is proven dead or everything is as before, 13 where it stopped part-way.
    """
    with Setup.of(config).ledger() as ledger, said_plainly():
        desk = Desk(Setup.of(config), ledger)
        rotation = ledger.rotations.resolve(name)
        state = desk.engine.state(rotation)
        plan = state.plan
        say(
            f"{plan.short}: {plan.mode} rotation by {plan.playbook}, started by {safe(state.by)}; Ctrl-C stops watching"
        )
        seen, waited, coloured = 0, "", colour()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        try:
            while True:
                for entry in state.entries:
                    if entry.seq > seen and entry.what not in _QUIET:
                        out(_line(entry, width, coloured=coloured))
                sys.stdout.flush()  # a pipe gets each line when it is there, too
                seen = state.last.seq
                text, code = verdict_of(state)
                if state.status in {Status.ENDED, Status.STOPPED}:
                    say(safe(text))
                    return code
                if state.status is Status.WAITING and text != waited:
                    waited = text
                    say(safe(text))
                time.sleep(POLL)
                state = desk.engine.state(rotation)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED


def _line(e: Entry, width: int = 0, *, coloured: bool = False) -> str:
    """Return one entry; on a terminal `width` columns wide it takes one line and its word has a colour."""
    head = f"{e.at:%Y-%m-%d %H:%M:%S}  {e.step or 'run':<12} "
    text = f"  {safe(e.text)}" if e.text else ""
    room = width - len(head) - _WORD
    if width and len(text) > room:
        text = text[: room - 1] + "…" if room > 1 else ""
    word = f"{e.what:<{_WORD}}"
    if coloured and (tone := _TONES.get(e.what)):
        word = f"\x1b[{tone}m{word}\x1b[0m"
    return f"{head}{word}{text}".rstrip()


def completion(shell: str) -> Exit:
    """Print the completion script of a shell."""
    from typer._completion_shared import get_completion_script  # only here

    if shell not in SHELLS:
        raise Stop(f"no completion for {shell}; there is one for {', '.join(SHELLS)}", Exit.USAGE)
    out(get_completion_script(prog_name="lapse", complete_var="_LAPSE_COMPLETE", shell=shell))
    return Exit.OK
