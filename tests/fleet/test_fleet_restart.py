"""PostgreSQL is cut down in the middle of a night: workers end and are started again, and nothing is lost."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from fleet_folder import Fleet, ideal, made, tell, until
from presence import started
from restarting import restarting

from playbooks.seat import LOST

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting

CHAOS = os.environ.get("LAPSE_CHAOS") == "1"
LIMITS = dict.fromkeys(("alpha", "beta", "gamma"), (600.0, 30, 16))
EACH = 33_333


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="LAPSE_CHAOS=1 cuts PostgreSQL down")
def test_postgresql_is_restarted_in_the_middle_of_a_night(tmp_path: Path, provider: Counting) -> None:
    every = [*made("alpha", EACH - 3000, 3000), *made("beta", EACH - 1000, 1000), *made("gamma", EACH + 1, 0)]
    with ExitStack() as stack:
        server = stack.enter_context(started(restarting))
        fleet = stack.enter_context(Fleet(tmp_path, provider, server.url, LIMITS, keys=1000))
        fleet.report(every)
        ends: list[int] = []
        over = threading.Event()

        def supervise() -> None:
            """Keep a worker there, as systemd would."""
            while not over.is_set():
                process = fleet.start("worker")
                while process.poll() is None and not over.wait(0.1):
                    pass
                if process.poll() is not None:
                    ends.append(process.returncode)

        crew = [threading.Thread(target=supervise) for _ in range(2)]
        for one in crew:
            one.start()
        try:
            until(lambda: fleet.seated() >= 2, "workers")
            nights = []
            for calls in (15_000, 40_000, 75_000):
                night = fleet.start("nightly", "--format", "json") if not nights else nights[-1]
                nights.append(night)
                until(lambda: len(provider.asked) >= calls or night.poll() is not None, "calls", 600)  # noqa: B023  # called before the loop goes on
                server.restart()
            out, err = nights[-1].communicate(timeout=1200)
            again = 0
            while nights[-1].returncode != 10 and again < 3:  # the leader may have given up: the next night goes on
                again += 1
                nights.append(fleet.start("nightly", "--format", "json"))
                out, err = nights[-1].communicate(timeout=1200)
            assert nights[-1].returncode == 10, err
        finally:
            over.set()
            for one in crew:
                one.join()
        assert not json.loads(out)["cut_off"]
        assert fleet.state() == ideal(every)
    assert set(ends) <= {LOST, 1}, "who lost its seat ends itself; who found no server says so"
    often = provider.often()
    more = {key: n - (2 if "-dead-" in key else 1) for key, n in often.items()}
    tell(f"{len(ends)} workers ended by three restarts, {again} nights begun again, {sum(more.values())} calls twice")
    assert set(often) == set(every)
    assert min(more.values()) == 0
    assert max(more.values()) <= 2
