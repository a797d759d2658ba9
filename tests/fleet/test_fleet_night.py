"""A fleet of real processes on PostgreSQL, and a provider that counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fleet_folder import Fleet, ideal, jitter, made

from lapse.commands import nightly
from lapse.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting


def test_three_workers_share_a_night_and_keep_each_limit(tmp_path: Path, provider: Counting, database: str) -> None:
    limits = {"alpha": (40.0, 15, 4), "beta": (80.0, 1, 4), "gamma": (60.0, 20, 8)}
    with Fleet(tmp_path, provider, database, limits, keys=25) as fleet:
        keys = [*made("alpha", 60, 20), *made("beta", 100, 20, 5), *made("gamma", 90, 0)]
        fleet.report(keys)
        fleet.workers(3)
        night = json.loads(fleet.run("nightly", "--format", "json", code=10))
        assert night["asked"] == len(keys)
        assert sum(night["calls"].values()) == len(keys) + 40, "one a key, and one more for each that was refused"
        for kind, (rate, burst, _) in limits.items():
            assert provider.most_in_a_second(kind) <= rate + burst + jitter(rate), kind
        often = provider.often()
        assert all(n == (2 if "-dead-" in key else 1) for key, n in often.items())
        assert fleet.state() == ideal(keys)


def test_a_night_on_one_machine_ends_alike(tmp_path: Path, provider: Counting) -> None:
    with Fleet(tmp_path, provider, "", {"alpha": (5000.0, 5000, 8)}, shared=False) as alone:
        keys = made("alpha", 10, 5, 3)
        alone.report(keys)
        with alone.inside():
            assert nightly.run(nightly.Options(fleet=False, quiet=True), alone.config) is Exit.LIVE
        assert alone.state() == ideal(keys)
