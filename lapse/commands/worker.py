"""`lapse worker`: one of any number that share a night's keys, and go on with rotations."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.output.console import say

if TYPE_CHECKING:
    from pathlib import Path

POLL = 0.2
"""Seconds between two looks at the queues."""


def run(config: Path | None, chunks: int | None, *, quiet: bool) -> Exit:
    """Work until SIGTERM or Ctrl-C; what is under way then is put on record, and the rest left to the others."""
    setup = Setup.of(config)
    with setup.ledger() as ledger:
        from lapse.fleet.chunk import WORKFLOW  # DBOS is slow to import
        from lapse.fleet.hands import Hands
        from lapse.fleet.place import meeting, nights
        from lapse.rotation import Desk
        from playbooks.durable import Broken, Duty, Worker
        from playbooks.seat import Seat

        place = meeting(setup, ledger)
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        seat = Seat(place.url, [place.queue, nights(place)], spare=True)
        hands = Hands(setup, ledger, seat.clock)
        hands.start()
        duty = Duty(WORKFLOW, nights(place), chunks or setup.config.fleet.chunks, hands)
        worker = Worker(Desk(setup, ledger).engine, place, poll=POLL, duties=[duty], seat=seat)
        try:
            worker.__enter__()
        except Broken as e:
            raise Stop(f"fleet.url: {e}") from None
        say(f"worker {seat.executor} is at work; Ctrl-C ends it, and the others go on", quiet=quiet)
        ended.wait()
        say("ends: puts on record what is under way", quiet=quiet)
        hands.stop(setup.config.verify.timeout.seconds)
        worker.stop(setup.config.verify.timeout.seconds)
    sys.stderr.flush()
    os._exit(Exit.OK)  # threads that hold unfinished work wait for nobody: it is in other hands by now
