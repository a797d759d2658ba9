"""`lapse` in a world of trouble: `python troubled.py SECONDS [AFTER:OFFSET…] -- nightly --config …`.

It kills itself after SECONDS of work (0: never), and its clock is moved by OFFSET seconds from AFTER seconds on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import lapse.asking
import lapse.ledger.clock
import lapse.nightly.night
import lapse.nightly.second
import verifier.probe
import verifier.verify
from lapse.cli import main

if TYPE_CHECKING:
    from datetime import tzinfo

BEGAN = time.monotonic()


def moved(jumps: list[tuple[float, float]]) -> type[datetime]:
    """Return a `datetime` whose `now` jumps."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain one
            ran = time.monotonic() - BEGAN
            offset = next((o for after, o in reversed(jumps) if ran >= after), 0.0)
            return datetime.now(tz) + timedelta(seconds=offset)

    return Moved


def doom(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    at = sys.argv.index("--")
    seconds, *jumps = sys.argv[1:at]
    sys.argv[1:] = sys.argv[at + 1 :]
    if jumps:
        made = moved([(float(a), float(o)) for a, _, o in (j.partition(":") for j in jumps)])
        for module in (
            lapse.asking, lapse.ledger.clock, lapse.nightly.night, lapse.nightly.second, verifier.probe,
            verifier.verify,
        ):  # fmt: skip
            module.datetime = made  # type: ignore[attr-defined]  # the clock is what is broken here
    if float(seconds):
        threading.Thread(target=doom, args=(float(seconds),), daemon=True).start()
    main()
