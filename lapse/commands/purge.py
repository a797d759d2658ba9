"""`lapse purge`: deletes sealed secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError
from lapse.output.console import say
from verifier.words import plural

if TYPE_CHECKING:
    from pathlib import Path


def run(names: tuple[str, ...], config: Path | None, *, dead: bool) -> Exit:
    """Purge the keys named, or those proven dead (`--dead`: at once; otherwise after the retention)."""
    if names and dead:
        raise Stop("name keys or say --dead, not both", Exit.USAGE)
    setup = Setup.of(config)
    with setup.ledger() as ledger:
        try:
            if names:
                done = ledger.purge([ledger.resolve(n) for n in names])
            else:
                done = ledger.purge_dead(timedelta(0) if dead else setup.config.ledger.retention.delta)
        except LedgerError as e:
            raise Stop(str(e), Exit.USAGE) from None
        database = "://" in ledger.where
    held = (
        "the server's log and backups hold them, sealed, for a time"
        if database
        else "a reader holds the log; run it again"
    )
    say(f"the secrets of {plural(done.keys, 'key')} are gone{'' if done.flushed else f' ({held})'}")
    return Exit.OK
