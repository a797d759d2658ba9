"""The console's pages at a million keys: server-side time of each, and 50 people watching one run. JSON out.

python benchmarks/console.py [--keys 1000000] [--scale 1.0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec
from starlette.testclient import TestClient

from lapse.commands.setup import Setup
from lapse.config import load
from lapse.keypages import Ask, Group, page
from lapse.ledger import Ledger, Scan, open_ledger
from lapse.ledger.model import Select
from lapse.web.app import application
from lapse.web.house import House
from lapse.web.runs import Watch
from lapse.web.settings import Role
from playbooks.journal import What
from playbooks.plan import Action, Mode, Plan, Planned, Slot
from rotators.step import Effect
from verifier.model import (
    CredentialID,
    Dead,
    Doubt,
    Evidence,
    Finding,
    Identity,
    Image,
    KindID,
    Live,
    Place,
    Privilege,
    SourceKind,
    Undecided,
)
from verifier.ports import Judged
from verifier.secret import Secret

PATHS = (
    "/", "/keys", "/keys?group=live", "/keys?group=dead", "/keys?group=undecided", "/keys?provider=kind07",
    "/keys?sort=newest", "/keys?q=acme17", "/keys?q=acme", "/keys?q=no-such-thing", "/keys?q=user4711@",
    "/keys?q=acme17&group=live&provider=kind07", "/funnel", "/owners", "/providers", "/nightly", "/audit", "/runs",
)  # fmt: skip
WATCHERS = 50
ROUNDS = 20
PRIVILEGES = tuple(Privilege)


def name(n: int) -> CredentialID:
    """Return a made-up id."""
    return CredentialID(f"kind-{blake2b(n.to_bytes(8, 'big'), digest_size=16).hexdigest()}")


def fill(folder: Path, keys: int) -> None:
    """Make a ledger: 8.5 % live, each with a principal of its own; 205 image namespaces, 80,000 layers, 40 kinds."""
    with open_ledger(folder / "ledger.db") as ledger:
        for start in range(0, keys, 100_000):
            rows = (
                (
                    Finding(
                        KindID(f"kind{n % 40:02}"),
                        {"secret": Secret("x")},
                        Place(
                            SourceKind.DOCKER,
                            image=Image(f"api{n % 50}", "docker.io", f"acme{n % 205}", f"{n % 39}"),
                            path=f"app/{n}.env",
                            line=1,
                        ),
                        "kingfisher",
                        "r",
                    ),
                    name(n),
                    "hint",
                )
                for n in range(start, min(start + 100_000, keys))
            )
            ledger.ingest(Scan("kingfisher", "r.json", "kingfisher"), rows)
        at = datetime.now(UTC)
        proof = Evidence("GET https://api.example/", 200, "{}", "0" * 64, "k@0", at, "api.example")
        for start in range(0, keys, 10_000):
            batch = []
            for n in range(start, min(start + 10_000, keys)):
                kind, draw = KindID(f"kind{n % 40:02}"), n * 2654435761 % 1000
                verdict = (
                    Live(proof, Identity(f"user{n}@acme.example", str(n % 300), privilege=PRIVILEGES[n % 4]))
                    if draw < 85
                    else Undecided(Doubt.THROTTLED)
                    if draw < 200
                    else Dead(proof, confirmed=True)
                )
                batch.append(Judged(name(n), kind, verdict, at))
            ledger.record(batch)


def measure(folder: Path) -> dict[str, object]:
    """Return milliseconds by page: median, 95th percentile, and CPU, which tells what a busy machine would hide."""
    os.environ["XDG_DATA_HOME"] = str(folder / "data")
    (folder / "lapse.toml").write_text(f'[ledger]\nurl = "{folder / "ledger.db"}"\n[serve]\nexecute = false\n')
    setup = Setup(load(folder / "lapse.toml"))
    found: dict[str, object] = {}
    with setup.ledger() as ledger:
        house = House(setup, ledger, setup.config.serve, "ann")
        for name_, kept in (("figures", house.figures), ("names", house.names), ("changes", house.changes)):
            began = time.perf_counter()
            kept.get(wait=300)
            found[f"{name_}_s"] = round(time.perf_counter() - began, 2)
        with TestClient(application(house), base_url="http://127.0.0.1", follow_redirects=False) as client:
            client.get(f"/login?t={house.links.make('ann', Role.ADMIN)}")
            one = page(ledger, house.db, Ask(Group.LIVE, limit=1)).lines[0].key.id
            slowest = 0.0
            for path in (*PATHS, f"/keys/{one}"):
                times, worked = [], []
                for _ in range(ROUNDS):
                    began, cpu = time.perf_counter(), time.process_time()
                    reply = client.get(path)
                    times.append((time.perf_counter() - began) * 1000)
                    worked.append((time.process_time() - cpu) * 1000)
                    assert reply.status_code == 200, (path, reply.status_code)
                shown = path if not path.startswith("/keys/") else "/keys/KEY"
                p95 = round(sorted(times)[int(ROUNDS * 0.95) - 1], 1)
                found[shown] = [round(statistics.median(times), 1), p95, round(statistics.median(worked), 1)]
                slowest = max(slowest, p95)
            found["slowest p95"] = slowest
            found["deep page"] = deep(client)
        found["watched"] = asyncio.run(watched(house, ledger))
        house.close()
    return found


def deep(client: TestClient) -> list[float]:
    """Return first and last of 50 pages in a row."""
    after, times = "", []
    for _ in range(50):
        began = time.perf_counter()
        text = client.get(f"/keys?group=dead{after}").text
        times.append(round((time.perf_counter() - began) * 1000, 1))
        after = "&after=" + text.split("after=", 1)[1].split('"', 1)[0]
    return [times[0], times[-1]]


async def watched(house: House, ledger: Ledger) -> dict[str, float]:
    """Let 50 people watch one run that goes on 20 times: seconds until the last of them knows, and looks in all."""
    run, credential = "r-bench1", next(iter(ledger.keys(Select(limit=1)))).id
    log = ledger.rotations
    if run not in log.runs():
        step = Planned("mint", Slot.CREATE, Action.MINT, "Make a key", Effect.ADDS)
        made = Plan(
            "sim", "0" * 12, "Sim", Mode.GRACEFUL, credential, "sim-0", KindID("sim"), None, None, None, (), (), {},
            (step,), 3600.0,
        )  # fmt: skip
        log.start(run, credential, "started", {"plan": msgspec.json.encode(made).decode(), "by": "ann"})
    watch, late = Watch(house), []
    async with AsyncExitStack() as seats:
        readers = [await seats.enter_async_context(watch.of(run)) for _ in range(WATCHERS)]
        seen = [await r.after(-1, 5) for r in readers]
        for _ in range(20):
            told = [asyncio.ensure_future(r.after(s, 5)) for r, s in zip(readers, seen, strict=True)]
            await asyncio.sleep(0)
            await asyncio.to_thread(log.append, run, "mint", What.NOTE, "goes on")
            began = time.perf_counter()
            seen = await asyncio.gather(*told)
            late.append(time.perf_counter() - began)
    return {"viewers": WATCHERS, "readers": len(set(map(id, readers))), "last knows after s": round(max(late), 2)}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keys", type=int, default=1_000_000)
    options.add_argument("--scale", type=float, default=1.0, help="multiplies the keys")
    options.add_argument("--folder", type=Path, help="keeps the ledger, so that a second run need not make it again")
    args = options.parse_args()
    keys = max(int(args.keys * args.scale), 1_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        if not (folder / "ledger.db").exists():
            fill(folder, keys)
        print(
            json.dumps(
                {"benchmark": "console", "keys": keys, "ms": "[median, p95, median of CPU]", **measure(folder)},
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
