"""A night on one machine that is killed, runs out of disk, or has its clock set: the ledger ends as if it had not been.

A sample in every run; `LAPSE_CHAOS=1` makes it 100,000 keys and many kills.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import random
import re
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet_folder import Fleet, ideal, made, tell, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from counting import Counting

CHAOS = os.environ.get("LAPSE_CHAOS") == "1"
MANY = 100_000 if CHAOS else 600
KILLS = 25 if CHAOS else 3
STEADY = (150.0, 8, 8)
"""A rate at which some hundred keys take seconds: what happens then happens in the middle of the night."""
FAST = (20_000.0, 8, 8) if CHAOS else STEADY
PACED = (1200.0, 60, 32) if CHAOS else STEADY
"""A rate at which MANY keys take three quarters of a minute at the least."""
TROUBLED = str(Path(__file__).with_name("troubled.py"))
FULL = (1_000_000, 30_000_000, 60_000_000) if CHAOS else (60_000, 200_000)
"""Bytes by which the ledger may grow, night after night."""
SLACK = 64
"""Calls that a kill may cost: what was under way, and what was answered and not yet on record (a commit's worth)."""


@pytest.fixture
def night(tmp_path: Path, provider: Counting) -> Iterator[Fleet]:
    with Fleet(tmp_path, provider, "", {"alpha": FAST, "beta": FAST}, shared=False) as fleet:
        yield fleet


def keys(many: int) -> list[str]:
    """Return keys of two kinds, a tenth of them dead."""
    half = many // 2
    return [*made("alpha", half - half // 10, half // 10), *made("beta", half - half // 10, half // 10 - 2, 2)]


def trouble(fleet: Fleet, seconds: float = 0.0, *jumps: str, code: int | None = 10) -> int:
    """Run a night that is killed after so many seconds; return its exit code."""
    words = ["nightly", "-q", "--no-fleet"]
    process = fleet.start(*words, python=(TROUBLED, str(seconds), *jumps, "--"))
    _, err = process.communicate(timeout=900)
    assert "Traceback" not in err, err
    assert "locked" not in err, err
    if process.returncode != -signal.SIGKILL and code is not None:
        assert process.returncode == code, err
    return process.returncode


def repeats(provider: Counting) -> dict[str, int]:
    """Return how many calls each key had beyond those that it has in a quiet night."""
    return {key: n - (2 if "-dead-" in key else 1) for key, n in provider.often().items()}


@pytest.mark.chaos
def test_killed_at_random_instants(night: Fleet, provider: Counting) -> None:
    every = keys(MANY)
    night.report(every)
    rng = random.Random(5)  # noqa: S311  # instants that can be had again
    killed = 0
    for calls in sorted(rng.sample(range(1, len(every)), KILLS)):
        process = night.start("nightly", "-q", "--no-fleet")
        until(lambda: len(provider.asked) >= calls or process.poll() is not None, "calls", 900)  # noqa: B023  # now
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    trouble(night)
    assert night.state() == ideal(every)
    more = repeats(provider)
    assert set(more) == set(every)
    assert min(more.values()) == 0
    tell(f"{killed} kills, {sum(more.values())} calls more than in a quiet night of {len(every)} keys")
    assert killed == KILLS
    assert max(more.values()) <= killed
    assert sum(more.values()) <= killed * (SLACK if not CHAOS else 1500)


@pytest.mark.chaos
def test_the_disk_is_full(night: Fleet, provider: Counting) -> None:
    """No file may grow beyond some KiB: the ledger cannot be written, in one night after the other."""
    every = keys(MANY if CHAOS else 200)
    night.report(every)
    base = sum(p.stat().st_size for p in (night.path / "data/lapse").glob("ledger.db"))
    said = []
    for more in FULL:
        process = night.start("nightly", "-q", "--no-fleet", limit=(base + more))
        _, err = process.communicate(timeout=600)
        assert "Traceback" not in err, err
        said.append((process.returncode, err.strip(), len(provider.asked)))
    assert [code for code, *_ in said if code != 1] == [], said
    assert all("disk" in text for _, text, _ in said), said
    trouble(night)
    assert night.state() == ideal(every)
    more_calls = repeats(provider)
    assert max(more_calls.values()) <= len(said)
    assert sum(more_calls.values()) <= len(said) * (SLACK if not CHAOS else 1500)
    calls = ", ".join(str(n) for *_, n in said)
    tell(f"disk full {len(said)} times, after {calls} calls; {sum(more_calls.values())} calls more")


@pytest.mark.chaos
def test_the_clock_is_set_forward_and_back(night: Fleet, provider: Counting) -> None:
    """An hour on in the middle of a night, which is killed after it; two hours in the next one."""
    every = keys(MANY if CHAOS else 400)
    night.limits |= {"alpha": PACED, "beta": PACED}
    night.write()
    night.report(every)
    code = trouble(night, 30.0 if CHAOS else 2.2, f"{20.0 if CHAOS else 1.6}:3600")
    asked = len(provider.asked)
    if CHAOS:  # the sample is over in a moment on a quick machine
        assert code == -signal.SIGKILL
        assert 0 < asked < len(every), "it was killed in the middle"
    trouble(night, 0.0, "0:3600", "2:7200")
    assert night.state() == ideal(every)
    more = repeats(provider)
    assert max(more.values()) <= 1
    assert sum(more.values()) <= (SLACK if not CHAOS else 1500)
    tell(f"killed after {asked} calls; {sum(more.values())} calls more")


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="LAPSE_CHAOS=1 sets the clock back, too")
def test_the_clock_is_set_back_in_a_night_of_known_keys(night: Fleet, provider: Counting) -> None:
    every = keys(MANY)
    night.limits |= {"alpha": PACED, "beta": PACED}
    night.write()
    night.report(every)
    trouble(night)
    provider.asked.clear()
    assert trouble(night, 24.0, "0:7200", "16:3600") == -signal.SIGKILL
    asked = len(provider.asked)
    trouble(night, 0.0, "0:3600")
    often = provider.often()
    live = {k for k in every if "-live-" in k}
    assert 0 < asked < len(live), "it was killed in the middle"
    assert live <= set(often), "each night asks about what lives"
    assert max(often[k] for k in live) <= 1 + 1, "set back by an hour, the night knows what it has asked"
    assert sum(often[k] - 1 for k in live) <= 1500
    tell(f"killed after {asked} calls; {sum(often[k] - 1 for k in live)} calls more")


def test_the_command_line_the_console_and_the_night_at_once_are_never_locked_out(
    night: Fleet, provider: Counting
) -> None:
    """SQLite has one writer at a time: everybody waits for a moment, nobody is turned away."""
    secret = "hook" * 8
    night.env["LAPSE_TEST_HOOK"] = secret
    night.write(more='[serve]\nexecute = false\n[serve.hooks]\ngeneric = "env:LAPSE_TEST_HOOK"\n')
    every = keys(300)
    night.report(every)
    console = night.start("serve", "--port", "0")
    assert console.stderr is not None
    port = 0
    while not port:
        found = re.search(r"port (\d+)", console.stderr.readline())
        port = int(found.group(1)) if found else 0
    over, said, taken = threading.Event(), list[str](), list[int]()

    def look() -> None:
        while not over.is_set():
            _, err = night.start("status").communicate(timeout=120)
            said.append(err)

    def deliver() -> None:
        while not over.is_set():
            place = {"source": "git", "repository": "acme/hooked", "path": "app.env", "line": len(taken) + 1}
            finding = {"provider": "gamma", "parts": {"secret": f"gamma-live-{len(taken):06d}"}, "place": place}
            taken.append(post(port, json.dumps(finding).encode(), secret))

    crew = [threading.Thread(target=t) for t in (look, deliver)]
    for one in crew:
        one.start()
    try:
        trouble(night)
    finally:
        over.set()
        for one in crew:
            one.join()
    console.send_signal(signal.SIGINT)
    said.append(console.communicate(timeout=60)[1])
    assert not [err for err in said if "locked" in err or "held the ledger" in err or "Traceback" in err]
    assert set(taken) == {202}
    state = night.state()
    assert len(state) == len(every) + len(taken)
    assert sum(kind == "gamma" for kind, *_ in state.values()) == len(taken)


def post(port: int, body: bytes, secret: str) -> int:
    """Deliver by the generic hook; return the status."""
    sign = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/hooks/generic", body, {"X-Lapse-Signature": sign})
    status = connection.getresponse().status
    connection.close()
    return status
