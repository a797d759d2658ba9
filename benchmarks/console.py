"""The console's pages at a million keys: server-side time of each, without and with the indexes they want. JSON out.

    python benchmarks/console.py [KEYS] [FOLDER]

FOLDER keeps the ledger, so that a second run need not make it again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

from starlette.testclient import TestClient

from lapse.commands.setup import Setup
from lapse.config import load
from lapse.figures import URGENCY, Ask, Group, page
from lapse.ledger import Scan, open_ledger
from lapse.web.app import application
from lapse.web.house import House
from lapse.web.settings import Role
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

INDEXES = (
    f"CREATE INDEX IF NOT EXISTS states_urgency ON states ({URGENCY}, credential)",
    "CREATE INDEX IF NOT EXISTS credentials_provider ON credentials (provider)",
    "CREATE INDEX IF NOT EXISTS findings_holder ON findings (holder)",
)
PATHS = (
    "/", "/keys", "/keys?group=live", "/keys?group=dead", "/keys?group=undecided", "/keys?provider=kind07",
    "/keys?sort=newest", "/keys?q=acme17", "/funnel", "/providers", "/nightly", "/audit",
)  # fmt: skip
ROUNDS = 10


def name(n: int) -> CredentialID:
    """Return a made-up id."""
    return CredentialID(f"kind-{blake2b(n.to_bytes(8, 'big'), digest_size=16).hexdigest()}")


def fill(folder: Path, keys: int) -> None:
    """Make a ledger: 8.5 % live, a tenth of those gone from the source, 205 image namespaces, 40 kinds."""
    with open_ledger(folder / "ledger.db") as ledger:
        for start in range(0, keys, 100_000):
            rows = (
                (
                    Finding(
                        KindID(f"kind{n % 40:02}"),
                        {"secret": Secret("x")},
                        Place(
                            SourceKind.DOCKER,
                            image=Image(f"api{n % 50}", "docker.io", f"acme{n % 205}", "1"),
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
        who = Identity("ann", "1", privilege=Privilege.WRITE)
        for start in range(0, keys, 10_000):
            batch = []
            for n in range(start, min(start + 10_000, keys)):
                kind, draw = KindID(f"kind{n % 40:02}"), n * 2654435761 % 1000
                verdict = (
                    Live(proof, who)
                    if draw < 85
                    else Undecided(Doubt.THROTTLED)
                    if draw < 200
                    else Dead(proof, confirmed=True)
                )
                batch.append(Judged(name(n), kind, verdict, at))
            ledger.record(batch)


def measure(folder: Path) -> dict[str, object]:
    """Return milliseconds by page: median and 95th percentile."""
    os.environ["XDG_DATA_HOME"] = str(folder / "data")
    (folder / "lapse.toml").write_text(f'[ledger]\nurl = "{folder / "ledger.db"}"\n')
    setup = Setup(load(folder / "lapse.toml"))
    found: dict[str, object] = {}
    with setup.ledger() as ledger:
        house = House(setup, ledger, setup.config.serve, "ann")
        began = time.perf_counter()
        house.figures.get(wait=120)
        found["figures_s"] = round(time.perf_counter() - began, 2)
        with TestClient(application(house), base_url="http://127.0.0.1", follow_redirects=False) as client:
            client.get(f"/login?t={house.links.make('ann', Role.ADMIN)}")
            one = page(ledger, house.db, Ask(Group.LIVE, limit=1)).lines[0].key.id
            for path in (*PATHS, f"/keys/{one}"):
                times = []
                for _ in range(ROUNDS):
                    began = time.perf_counter()
                    reply = client.get(path)
                    times.append((time.perf_counter() - began) * 1000)
                    assert reply.status_code == 200, (path, reply.status_code)
                shown = path if not path.startswith("/keys/") else "/keys/KEY"
                found[shown] = [round(statistics.median(times), 1), round(sorted(times)[int(ROUNDS * 0.95) - 1], 1)]
            found["deep page"] = deep(client)
        house.close()
    return found


def deep(client: TestClient) -> list[float]:
    """Return first and last of 50 pages in a row."""
    after, times = "", []
    for _ in range(50):
        began = time.perf_counter()
        text = client.get(f"/keys?group=dead&after={after}").text
        times.append(round((time.perf_counter() - began) * 1000, 1))
        after = text.split("after=", 1)[1].split('"', 1)[0]
    return [times[0], times[-1]]


def main() -> None:
    """Measure both and print."""
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else scratch)
        folder.mkdir(exist_ok=True)
        if not (folder / "ledger.db").exists():
            fill(folder, keys)
        result: dict[str, object] = {"benchmark": "console", "keys": keys, "ms": "[median, p95]"}
        if os.environ.get("WITHOUT", "1") == "1":
            result["without indexes"] = measure(folder)
        raw = sqlite3.connect(folder / "ledger.db")
        began = time.perf_counter()
        for sql in INDEXES:
            raw.execute(sql)
        raw.commit()
        raw.close()
        result["indexes made in s"] = round(time.perf_counter() - began, 1)
        result["with indexes"] = measure(folder)
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
