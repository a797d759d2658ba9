"""kill -9 at random instants, on SQLite and on PostgreSQL; every rotation goes on and ends as if nothing had happened.

A sample in every run; `LAPSE_CHAOS=1` (`make chaos`) goes on to 200 kills on each.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ledger_made import KEK, credential_in, made
from rotor import RUN
from world import OLD, Small

from lapse.ledger import open_ledger
from playbooks.engine import Engine
from playbooks.journal import End, What

if TYPE_CHECKING:
    from servers import Server

HERE = Path(__file__).parent
KILLS = 200 if os.environ.get("LAPSE_CHAOS") == "1" else 6
A_RUN = 5
"""Kills that one rotation suffers before it is left alone."""


def rotor(folder: Path, url: str, what: str, seconds: float) -> int:
    env = {**os.environ, "PYTHONPATH": f"{HERE.parent.parent}:{HERE.parent}"}
    done = subprocess.run(
        [sys.executable, str(HERE / "rotor.py"), str(folder), url, what, str(seconds)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


def scene(folder: Path, seed: int) -> Small:
    folder.mkdir()
    small = Small(folder / "world.db")
    small.set(
        lag_new=0.2, lag_dead=0.2, propagation=0, marks=seed % 2 == 0, flaps=True,
        mode="emergency" if seed % 3 == 0 else "graceful",
    )  # fmt: skip
    small.begin()
    small.colleague_makes()
    with made(folder) as ledger:
        credential_in(ledger)
    return small


def works(small: Small) -> None:
    """Assert that what the store holds works, at this very moment; an emergency stops the old key before that."""
    if small.get("mode") == "graceful" or small.stored()["key_id"] != OLD:
        assert small.store_works(), small.stored()


def ended(small: Small, folder: Path) -> None:
    """Assert what must hold at the end."""
    with open_ledger(folder / "ledger.db", KEK) as ledger:
        assert ledger.check().ok
        state = Engine(ledger.rotations, small.world()).state(RUN)
    assert state.end is End.FINISHED
    ours = small.keys("us")
    assert len(ours) == 1
    assert small.stored()["key_id"] == ours[0]
    assert small.at_consumer() == small.stored()
    assert small.accepted(ours[0], small.stored()["key_secret"])
    assert not small.accepted(OLD, "old-planted-secret")
    assert small.harmed() == []
    assert len(small.keys("colleague")) == 1
    done = [e.step for e in state.entries if e.what is What.DONE]
    assert done == [s.name for s in state.plan.steps]


def torment(folder: Path, url: str, seed: int, kills: int) -> int:
    """Rotate once, killed up to `kills` times; return how often it really was."""
    rng = random.Random(seed)  # noqa: S311  # instants that can be had again
    small = scene(folder, seed)
    suffered = 0
    what = "start"
    for _ in range(kills):
        code = rotor(folder, url, what, rng.uniform(0.001, 0.9))
        works(small)
        if code == 0:
            break
        suffered += 1
        what = "resume"
    else:
        assert rotor(folder, url, what, 0) == 0
    ended(small, folder)
    return suffered


def held_secrets(path: Path) -> list[bytes]:
    """Return planted secrets found in a file or beside it."""
    blob = b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))
    return [word for word in (b"planted-new", b"old-planted-secret") if word in blob]


@pytest.mark.chaos
def test_on_sqlite(tmp_path: Path) -> None:
    suffered = seed = 0
    while suffered < KILLS:
        seed += 1
        folder = tmp_path / str(seed)
        suffered += torment(folder, f"sqlite:///{folder}/engine.db", seed, A_RUN)
        assert held_secrets(folder / "engine.db") == []
        assert held_secrets(folder / "ledger.db") == []
        raw = sqlite3.connect(folder / "engine.db")
        assert {row[0] for row in raw.execute("SELECT serialization FROM workflow_status")} == {"portable_json"}
        raw.close()


@pytest.mark.chaos
def test_on_postgresql(tmp_path: Path, postgresql: Server) -> None:
    admin = postgresql.admin
    url = f"postgresql://{admin['username']}:{admin['password']}@{postgresql.host}:{postgresql.port}/postgres"
    suffered = seed = 0
    while suffered < KILLS:
        seed += 1
        folder = tmp_path / str(seed)
        suffered += torment(folder, url, seed, A_RUN)
        assert held_secrets(folder / "ledger.db") == []
