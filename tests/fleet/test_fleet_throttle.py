"""A provider that says 429: how fast it is heard, and that it is fully used again. Counted at the provider."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from fleet_folder import Fleet, jitter, made, tell, until

from lapse.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting

RATE = 50.0


def test_a_429_slows_us_within_a_second_and_the_provider_is_fully_used_again(
    tmp_path: Path, provider: Counting
) -> None:
    limits = {"alpha": (RATE, 2, 8), "beta": (RATE, 2, 8)}
    with Fleet(tmp_path, provider, "", limits, shared=False) as fleet:
        fleet.report([*made("alpha", 4000, 0), *made("beta", 4000, 0)])
        night = fleet.start("nightly", "-q", "--no-fleet")
        until(lambda: len(provider.times("alpha")) >= RATE, "the first second")
        provider.retry_after = "1"
        provider.busy_until["alpha"] = time.monotonic() + 0.5
        until(lambda: any(a.status == 429 for a in provider.asked), "a refusal")
        first = min(a.at for a in provider.asked if a.status == 429)
        until(lambda: time.monotonic() > first + 1.5, "the pause to be over")

        def used() -> bool:
            now = time.monotonic()
            return provider.between("alpha", now - 2, now) >= 2 * RATE * 0.9

        seconds = until(used, "full use")
        night.send_signal(signal.SIGTERM)
        assert night.wait(60) == Exit.PART_WAY
    refused = [a.at for a in provider.asked if a.status == 429]
    tell(f"{len(refused)} refusals; fully used again {seconds + 1.5:.1f} s after the first")
    quiet, others = (provider.between(kind, first + 0.2, first + 0.9) for kind in ("alpha", "beta"))
    assert quiet <= 8, "it was heard at once: nothing left but what was under way"
    assert others > quiet, "and nobody else was slowed"
    assert provider.most_in_a_second("alpha") <= RATE + 2 + jitter(RATE)
