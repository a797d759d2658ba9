"""A worker is killed in the middle of a rotation: another one ends it, with one new key and the old one dead.

A sample in every run; `LAPSE_CHAOS=1` does so again and again, at any step.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet_folder import LEAN, Fleet, tell, until
from rotor import QUICK  # of tests/playbooks
from world import KIND, Small

from lapse.commands.setup import Setup
from lapse.config import load
from lapse.ledger import Ownership, Scan
from lapse.rotation import Desk
from playbooks.durable import Broken, Remote
from playbooks.journal import End, What
from playbooks.plan import Mode
from verifier.model import CredentialID, Finding, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    import subprocess

    from counting import Counting

    from lapse.ledger import Ledger
    from playbooks.journal import RunState

CHAOS = os.environ.get("LAPSE_CHAOS") == "1"
PLAYBOOKS = str(Path(__file__).parents[1] / "playbooks")
KIND_OF_WORKER = ("-m", "lapse.cli") if CHAOS else LEAN
ROTATIONS = 40 if CHAOS else 1
HANDS = ("issuer", "store", "consumer", "sessions")
STEPS = ("preflight", "snapshot", "create", "verify", "consumer-1", "disable", "soak", "delete", "prove")
MORE = """
[rotate]
playbooks = ["books"]
modules = ["simhands.issuer", "simhands.store", "simhands.consumer", "simhands.sessions"]
"""


class Rotating(Fleet):
    """A fleet at work on the small world's keys, one rotation at a time."""

    def __init__(self, folder: Path, provider: Counting, url: str, patch: pytest.MonkeyPatch) -> None:
        (folder / "books").mkdir()
        book = QUICK.replace('issuer = "sim"', 'issuer = "simhands.issuer"')
        for hand in HANDS:
            book = book.replace(f'"sim{hand}"', f'"simhands.{hand}"')
        (folder / "books" / "sim.toml").write_text(book)
        patch.setenv("LAPSE_TEST_WORLD", str(folder / "world.db"))
        super().__init__(folder, provider, url)
        self.env["PYTHONPATH"] += f"{os.pathsep}{PLAYBOOKS}"
        self.small = Small(folder / "world.db")
        self.small.set(lag_new=0.1, lag_dead=0.1, propagation=0)

    def write(self, keys: int = 50, more: str = "") -> None:
        super().write(keys, more + MORE)
        text = self.config.read_text()
        self.config.write_text(text.replace("[catalogue]\n", '[catalogue]\nmodules = ["simhands.provider"]\n'))

    def leak(self, ledger: Ledger, number: int) -> CredentialID:
        """Let the world begin anew with one leaked key, and a colleague's; put it into the ledger as ours."""
        small, secret = self.small, f"planted-{number}"
        for table in ("keys", "store", "consumer", "touched", "sessions"):
            small.db.execute(f"DELETE FROM {table}")
        small.begin()
        small.db.execute("UPDATE keys SET secret=?", (secret,))
        small.db.execute("UPDATE store SET fields=replace(fields, 'old-planted-secret', ?)", (secret,))
        small.colleague_makes()
        name = CredentialID(f"sim-{number:032x}")
        place = Place(SourceKind.GIT, repository="acme/app", path=f"{number}.env")
        row = (Finding(KIND, {"id": Secret("K-old"), "secret": Secret(secret)}, place, "gitleaks", "x"), name, "K…")
        ledger.ingest(Scan("gitleaks", "report.json", "gitleaks-json"), [row])
        ledger.mark([name], owner=Ownership.OURS)
        return name


def holder(fleet: Fleet, crew: list[subprocess.Popen[str]]) -> subprocess.Popen[str] | None:
    """Return the worker that has the rotation now."""
    names = fleet.pending()
    return next((w for w in crew if any(f"-{w.pid}-" in name for name in names)), None)


def handed_over(desk: Desk, run: str) -> bool:
    """Say whether the queue took the run: a worker that is seated may still be making the queue's tables."""
    with Remote(desk.place) as remote:
        try:
            remote.go(run, desk.engine.state(run).turn)
        except Broken:
            return False
    return True


@pytest.mark.chaos
def test_a_worker_is_killed_in_the_middle_of_a_rotation_and_another_ends_it(
    tmp_path: Path, provider: Counting, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(11)  # noqa: S311  # instants that can be had again
    spans, where = [], []
    with Rotating(tmp_path, provider, database, monkeypatch) as fleet, fleet.inside(), fleet.ledger() as ledger:
        desk = Desk(Setup(load(fleet.config)), ledger)
        crew = fleet.workers(2, python=KIND_OF_WORKER)
        for number in range(1, ROTATIONS + 1):
            key = fleet.leak(ledger, number)
            run = f"r-{number}"
            mode = Mode.EMERGENCY if number % 4 == 0 else Mode.GRACEFUL
            desk.engine.start(run, desk.plan(desk.key(key), mode, "sim", {}), "bob")
            desk.engine.approve(run, "ann")
            at = rng.choice(STEPS) if CHAOS else "create"
            until(partial(handed_over, desk, run), f"the queue for {run}")

            def begun(at: str = at, run: str = run) -> bool:
                state = desk.engine.state(run)
                return state.end is not None or any(e.step == at and e.what is What.INTENT for e in state.entries)

            until(begun, f"{at} of {run}")
            time.sleep(rng.uniform(0.0, 0.15) if CHAOS else 0.0)
            if (victim := holder(fleet, crew)) is not None:
                victim.kill()
                killed, last = time.monotonic(), desk.engine.state(run).last
                crew.remove(victim)
                until(lambda last=last: desk.engine.state(run).last.seq > last.seq, "a takeover")  # noqa: B023  # called before the loop goes on
                spans.append(time.monotonic() - killed)
                where.append(f"{last.step} {last.what}")
            until(lambda: desk.engine.state(run).end is not None, f"the end of {run}")  # noqa: B023  # called before the loop goes on  # called at once
            check(fleet.small, desk.engine.state(run))
            if victim is not None and number < ROTATIONS:
                crew += fleet.workers(1, python=KIND_OF_WORKER)
        assert ledger.check().ok
    assert spans, "somebody was killed in the middle"
    median, longest = statistics.median(spans), max(spans)
    tell(
        f"{len(spans)} killed in {ROTATIONS} rotations; went on after {median:.2f} s (median), {longest:.2f} s at most"
    )
    tell(f"killed at {', '.join(sorted(set(where)))}")


def check(small: Small, state: RunState) -> None:
    """One new key, stored and used; the old one dead; nobody else's touched."""
    assert state.end is End.FINISHED, state.last.text
    every, others = small.keys(), small.keys("colleague")
    mine = [name for name in every if name not in others]
    assert len(mine) == 1, mine
    assert "K-old" not in mine
    assert small.store_works()
    assert small.stored()["key_id"] == mine[0]
    assert small.at_consumer() == small.stored()
    assert small.harmed() == []
    assert len(others) == 1
