"""Workers that are killed, frozen and replaced in the middle of a night: the ledger ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet_folder import LEAN, Fleet, ideal, jitter, made, tell, until

from playbooks.seat import LOST

if TYPE_CHECKING:
    import subprocess

    from counting import Counting

CHAOS = os.environ.get("LAPSE_CHAOS") == "1"
SHARE = 4
"""How many requests one worker may have under way at a kind."""

LIMITS = dict.fromkeys(("alpha", "beta", "gamma"), (25.0, 12, SHARE))
UPGRADED = (str(Path(__file__).with_name("upgraded.py")),)


def executor(fleet: Fleet, process: subprocess.Popen[str]) -> str:
    """Return the id of the executor in a process, as far as it has work; empty otherwise."""
    return next((name for name in fleet.pending() if f"-{process.pid}-" in name), "")


def with_work(fleet: Fleet, workers: list[subprocess.Popen[str]]) -> tuple[subprocess.Popen[str], str]:
    """Return a worker that has a chunk under way, and the id of its executor."""
    found: list[tuple[subprocess.Popen[str], str]] = []

    def look() -> bool:
        found[:] = [(w, name) for w in workers if (name := executor(fleet, w))]
        return bool(found)

    until(look, "a worker with work")
    return found[0]


def taken_over(fleet: Fleet, dead: str) -> float:
    """Return the seconds until nothing is pending under a dead executor's id."""
    return until(lambda: dead not in fleet.pending(), "a takeover")


def test_a_killed_a_frozen_and_a_replaced_worker_lose_nothing(
    tmp_path: Path, provider: Counting, database: str
) -> None:
    keys = [*made("alpha", 90, 30), *made("beta", 110, 10), *made("gamma", 100, 10, 10)]
    with Fleet(tmp_path, provider, database, LIMITS, keys=40) as fleet:
        fleet.report(keys)
        fleet.env["LAPSE_TEST_LEASE"] = "5"
        crew = fleet.workers(3, python=LEAN)
        del fleet.env["LAPSE_TEST_LEASE"]
        night = fleet.start("nightly", "--format", "json")

        killed, dead = with_work(fleet, crew)
        killed.kill()
        crew.remove(killed)
        seconds = taken_over(fleet, dead)

        frozen, cold = with_work(fleet, crew)
        frozen.send_signal(signal.SIGSTOP)
        crew.remove(frozen)
        stopped = len(provider.asked)
        thaw = taken_over(fleet, cold)
        before = len(provider.asked)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(20) == LOST, "whoever lost its seat ends itself"

        new = fleet.workers(1, python=UPGRADED)
        (old,) = crew
        old.send_signal(signal.SIGTERM)
        assert old.wait(30) == 0

        out, err = night.communicate(timeout=120)
        assert night.returncode == 10, err
        told = json.loads(out)
        assert not told["cut_off"]
        assert told["failed"] == []
        assert fleet.state() == ideal(keys)
        assert new[0].poll() is None
    for kind, (rate, burst, _) in LIMITS.items():
        assert provider.most_in_a_second(kind) <= rate + burst + jitter(rate), kind
    often = provider.often()
    more = {key: n - (2 if "-dead-" in key else 1) for key, n in often.items()}
    assert set(often) == set(keys)
    assert min(more.values()) == 0
    assert max(more.values()) <= 2, "once more for each of the two that died with it under way"
    assert sum(more.values()) <= 2 * 3 * SHARE * 2, "what was under way and not on record"
    tell(
        f"taken over after kill -9 in {seconds:.2f} s, after SIGSTOP in {thaw:.2f} s; {sum(more.values())} calls twice"
    )
    assert before >= stopped


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="LAPSE_CHAOS=1 kills many")
def test_takeover_is_quick_as_a_rule(tmp_path: Path, provider: Counting, database: str) -> None:
    """Kill twenty workers, one after another; say how long each takeover took."""
    keys = [*made("alpha", 3000, 0), *made("beta", 3000, 0), *made("gamma", 3000, 0)]
    rng = random.Random(7)  # noqa: S311  # instants that can be had again
    spans = []
    with Fleet(tmp_path, provider, database, LIMITS, keys=100) as fleet:
        fleet.report(keys)
        crew = fleet.workers(3)
        night = fleet.start("nightly", "--format", "json")
        for _ in range(20):
            time.sleep(rng.uniform(0.0, 0.2))
            killed, dead = with_work(fleet, crew)
            killed.kill()
            crew.remove(killed)
            spans.append(taken_over(fleet, dead))
            crew += fleet.workers(1)
        out, err = night.communicate(timeout=900)
        assert night.returncode == 10, err
        assert json.loads(out)["failed"] == []
        tell(f"takeover: median {statistics.median(spans):.2f} s, longest {max(spans):.2f} s of {len(spans)}")
    often = provider.often()
    assert set(often) == set(keys)
    assert max(often.values()) <= 1 + 2
    assert sum(often.values()) - len(keys) <= 20 * 3 * SHARE * 2
