"""`lapse undo RUN`: brings the old key and the old stored version back, as long as nothing was destroyed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.narrator import verdict_of
from lapse.output.console import say
from lapse.rotation import Desk, person, said_plainly

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.exits import Exit


def run(name: str, who: str | None, config: Path | None, *, quiet: bool) -> Exit:
    """Take a run back; begun before, go on with that. Refused with a clear word after the point of no return."""
    setup = Setup.of(config)
    with setup.ledger() as ledger, said_plainly():
        desk = Desk(setup, ledger)
        rotation = ledger.rotations.resolve(name)
        desk.engine.undo(rotation, person(who))
        text, code = verdict_of(desk.drive([rotation], setup.config.rotate.wait.delta, quiet=quiet)[0])
        say(text)
        return code
