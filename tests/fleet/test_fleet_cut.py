"""A worker's machine is cut off in the middle of a night, again and again: others take over, and nothing is lost.

Its network namespace loses its cable, so that no end of any connection hears of it.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from counting import counting
from cutting import Machine, NoMachineError, machine
from fleet_folder import URL, Fleet, ideal, jitter, made, tell, until
from presence import started
from restarting import restarting

from playbooks.seat import FENCE, LEASE, LOST

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting

CHAOS = os.environ.get("LAPSE_CHAOS") == "1"
CUTS = 8
LEAST = 3
"""Cuts that must have come before the night is over: where many share two cores, a worker takes long to start."""
SHARE = 8
RATE = 150.0
LIMITS = dict.fromkeys(("alpha", "beta", "gamma"), (RATE, 8, SHARE))
EACH = 33_333


class Far:
    """The worker on the other machine."""

    def __init__(self, fleet: Fleet, there: Machine) -> None:
        self._fleet, self._there = fleet, there
        self._config = fleet.path / "far.toml"
        text = fleet.config.read_text().replace("http://127.0.0.1:", f"http://{there.here}:")
        self._config.write_text(text.replace('"127.0.0.1/32"', f'"127.0.0.1/32", "{there.here}/32"'))

    def start(self) -> subprocess.Popen[str]:
        fleet = self._fleet
        process = subprocess.Popen(
            [*self._there.words(), sys.executable, "-m", "lapse.cli", "worker", "--config", str(self._config)],
            cwd=fleet.path, env=fleet.env | {URL: fleet.url.replace("127.0.0.1", self._there.here)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        fleet.processes.append(process)
        return process


def held(fleet: Fleet, process: subprocess.Popen[str]) -> str:
    """Return the executor of a process as long as it has work."""
    return next((name for name in fleet.pending() if f"-{process.pid}-" in name), "")


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="LAPSE_CHAOS=1 cuts a machine off")
def test_a_machine_is_cut_off_again_and_again_in_a_night(tmp_path: Path) -> None:
    every = [*made("alpha", EACH - 3000, 3000), *made("beta", EACH - 1000, 1000), *made("gamma", EACH + 1, 0)]
    rng = random.Random(3)  # noqa: S311  # instants that can be had again
    spans: list[float] = []
    with ExitStack() as stack:
        try:
            there = stack.enter_context(machine())
        except NoMachineError as e:
            pytest.skip(f"nobody may make network namespaces here: {e}")
        provider: Counting = stack.enter_context(counting(there.here))
        server = stack.enter_context(started(restarting))
        server.listen(there.here)
        fleet = stack.enter_context(Fleet(tmp_path, provider, server.url, LIMITS, keys=1000))
        text = fleet.config.read_text()
        fleet.config.write_text(text.replace("[fleet]\n", "[fleet]\nchunks = 1\n"))  # so that each has one of three
        fleet.report(every)
        crew = fleet.workers(2)
        night = fleet.start("nightly", "--format", "json")
        far = Far(fleet, there)
        for _ in range(CUTS):
            crew = [w for w in crew if w.poll() is None]  # on a machine with too much to do even these may be fenced
            crew += fleet.workers(2 - len(crew))
            worker = far.start()
            name = ""
            while not name and night.poll() is None:
                time.sleep(rng.uniform(0.0, 1.0))
                name = held(fleet, worker)
            if not name:
                break
            there.cut()
            cut = time.monotonic()
            until(lambda: name not in fleet.pending(), "a takeover")  # noqa: B023  # called at once
            spans.append(time.monotonic() - cut)
            tell(f"taken over in {spans[-1]:.1f} s")
            assert worker.wait(FENCE + 30) == LOST, "it ended itself"
            there.join()
        out, err = night.communicate(timeout=1800)
        assert night.returncode == 10, err
        told = json.loads(out)
        assert not told["cut_off"]
        assert told["failed"] == []
        assert fleet.state() == ideal(every)
    counted(provider, every, spans)


def counted(provider: Counting, every: list[str], spans: list[float]) -> None:
    """Hold what the provider saw against what a quiet night would have shown it."""
    for kind, (rate, burst, _) in LIMITS.items():
        assert provider.most_in_a_second(kind) <= rate + burst + jitter(rate), kind
    often = provider.often()
    more = {key: n - (2 if "-dead-" in key else 1) for key, n in often.items()}
    assert len(spans) >= LEAST
    tell(f"{len(spans)} cuts: taken over in {statistics.median(spans):.1f} s in the median, {max(spans):.1f} s at most")
    tell(f"{sum(more.values())} calls twice of {len(every)} keys; at most {max(more.values())} more for one key")
    assert set(often) == set(every)
    assert min(more.values()) == 0
    assert max(more.values()) <= 2
    assert sum(more.values()) <= len(spans) * 3 * (SHARE + RATE)  # what one second's commit would have held
    assert statistics.median(spans) <= 15.0
    assert max(spans) <= LEASE + 10
