"""A fleet of real processes on PostgreSQL, and a provider that counts."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from fleet_folder import LEAN, URL, Fleet, ideal, jitter, made, until

from lapse.commands import nightly, verify
from lapse.exits import Exit, Stop

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting


def elsewhere(fleet: Fleet, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Be on another machine of the fleet, with the same config and sealing key and nothing else; return the config."""
    folder.mkdir()
    for name in ("lapse.toml", "ledger.key"):
        shutil.copy(fleet.path / name, folder)
    patch.chdir(folder)
    patch.setenv(URL, fleet.url)
    patch.setenv("XDG_DATA_HOME", str(folder / "data"))
    return folder / "lapse.toml"


def refused(config: Path) -> None:
    """While a night is led anywhere, nobody else leads one or verifies: one probe a key is the fleet's promise."""
    said = "another verification is at work on .*; wait for it or stop it"
    for fleet in (None, False):
        with pytest.raises(Stop, match=said):
            nightly.run(nightly.Options(fleet=fleet, quiet=True), config)
    with pytest.raises(Stop, match=said):
        verify.run(verify.Options(quiet=True), config)


def test_three_workers_share_a_night_and_keep_each_limit_and_others_are_refused_meanwhile(
    tmp_path: Path, provider: Counting, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"alpha": (40.0, 15, 4), "beta": (80.0, 1, 4), "gamma": (60.0, 20, 8)}
    with Fleet(tmp_path, provider, database, limits, keys=25) as fleet:
        keys = [*made("alpha", 60, 20), *made("beta", 100, 20, 5), *made("gamma", 90, 0)]
        fleet.report(keys)
        fleet.workers(3, python=LEAN)
        led = fleet.start("nightly", "--format", "json")
        until(lambda: len(provider.asked) > 5, "calls")
        refused(elsewhere(fleet, tmp_path / "elsewhere", monkeypatch))
        out, err = led.communicate(timeout=120)
        assert led.returncode == Exit.LIVE, err
        night = json.loads(out)
        assert night["asked"] == len(keys)
        assert sum(night["calls"].values()) == len(keys) + 40, "one a key, and one more for each that was refused"
        for kind, (rate, burst, _) in limits.items():
            assert provider.most_in_a_second(kind) <= rate + burst + jitter(rate), kind
        often = provider.often()
        assert all(n == (2 if "-dead-" in key else 1) for key, n in often.items())
        assert fleet.state() == ideal(keys)


def test_what_a_dead_leader_left_with_the_workers_is_not_asked_about_beside_them(
    tmp_path: Path, provider: Counting, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fleet(tmp_path, provider, database, {"alpha": (20.0, 1, 4)}, keys=25) as fleet:
        keys = made("alpha", 75, 0)
        fleet.report(keys)
        fleet.workers(1, python=LEAN)
        leader = fleet.start("nightly")
        until(lambda: len(provider.asked) > 5, "calls")
        leader.kill()
        leader.wait()
        config = elsewhere(fleet, tmp_path / "elsewhere", monkeypatch)
        said = "chunks? of a night whose leader has gone still lie with the workers"
        with pytest.raises(Stop, match=said):
            until(lambda: verify.run(verify.Options(quiet=True), config) is None, "the leader's lock is gone", 0.1)
        with pytest.raises(Stop, match=said):
            nightly.run(nightly.Options(fleet=False, quiet=True), config)
        until(lambda: len(provider.asked) >= len(keys), "the rest")
        fleet.run("nightly", code=Exit.LIVE)
        assert set(provider.often().values()) == {1}
        assert verify.run(verify.Options(quiet=True), config) is Exit.LIVE


def test_a_night_on_one_machine_ends_alike(tmp_path: Path, provider: Counting) -> None:
    with Fleet(tmp_path, provider, "", {"alpha": (5000.0, 5000, 8)}, shared=False) as alone:
        keys = made("alpha", 10, 5, 3)
        alone.report(keys)
        with alone.inside():
            assert nightly.run(nightly.Options(fleet=False, quiet=True), alone.config) is Exit.LIVE
        assert alone.state() == ideal(keys)
