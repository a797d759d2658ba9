"""A provider that says 429: how fast it is heard, and that it is fully used again. Counted at the provider."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fleet_folder import Fleet, made, tell, until

from lapse.commands import nightly

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting

RATE = 50.0


def test_a_429_slows_us_within_a_second_and_the_provider_is_fully_used_again(
    tmp_path: Path, provider: Counting
) -> None:
    with Fleet(tmp_path, provider, "", {"alpha": (RATE, 2, 8), "beta": (RATE, 2, 8)}, shared=False) as fleet:
        fleet.report([*made("alpha", 650, 0), *made("beta", 650, 0)])
        with fleet.inside():
            night = threading.Thread(
                target=nightly.run, args=(nightly.Options(fleet=False, quiet=True, deadline="11s"), fleet.config)
            )
            night.start()
            until(lambda: len(provider.times("alpha")) >= RATE, "the first second")
            began = time.monotonic()
            provider.retry_after = "1"
            provider.busy_until["alpha"] = began + 0.5
            night.join()
        refused = [a.at for a in provider.asked if a.status == 429]
        first = min(refused)
        assert len(refused) <= 8 + 2, "what was under way when the first one came"
        assert provider.between("alpha", first + 0.2, first + 0.9) == 0, "it was heard at once"
        assert provider.between("beta", first, first + 1) >= RATE * 0.7, "and nobody else was slowed"
        after = max(provider.times("alpha"))
        last = provider.between("alpha", after - 2, after)
        tell(f"{len(refused)} refusals; in the last two seconds {last} requests of {2 * RATE:.0f}")
        assert last >= 2 * RATE * 0.8, "fully used again"
        assert provider.most_in_a_second("alpha") <= RATE + 2 + 3
