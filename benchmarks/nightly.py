"""How near a night comes to the floor that the providers' limits set. Prints one JSON object.

    python benchmarks/nightly.py --keys 3000 --rate 25

`keys` live keys of six vendors are due; each vendor lets `rate` requests a second through. Vendors are asked at the
same time, so no night can be shorter than the slowest of them: (its keys - burst) / rate. `ratio` is the whole night
(asking, recording, purging, figures, policy) over that floor, `asking_ratio` asking and recording alone; the target is
1.1 at most. Other work on the machine shows in it: see `load_average`. Made keys are sealed in a real
ledger; the providers are played by the simulator in a process of its own on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.ledger import _make
from lapse.commands.setup import Setup
from lapse.config import load
from lapse.ledger import Scan, Select
from lapse.nightly.night import Nightly, Plan
from lapse.sandbox.saas import Saas, State
from verifier.catalogue import load_catalogue
from verifier.fingerprint import Fingerprinter
from verifier.model import Finding, KindID, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lapse.commands.ingest import Intake
    from lapse.ledger import Ledger
    from verifier.model import CredentialID
    from verifier.spec import Kind

KINDS = ("sendgrid", "deepseek", "openai", "anthropic", "gitlab_pat", "groq")


class Living(Saas):
    """A simulator to which every key is live: it need not know them."""

    def _reply(self, kind: Kind, state: State | None, carried: str, *, arrived: bool) -> bytes:
        del state
        self.asked.clear()
        return super()._reply(kind, "live", carried, arrived=arrived)


async def serve() -> None:
    """Play the providers until we are stopped; print the port."""
    async with Living(load_catalogue()) as saas:
        print(saas.port, flush=True)
        await asyncio.Event().wait()


class Timed(Nightly):
    """A night that notes how long the asking took, of the whole."""

    asking = 0.0

    def _ask(self, intake: Intake, began: datetime) -> None:
        start = time.monotonic()
        super()._ask(intake, began)
        self.asking = time.monotonic() - start


def rows(setup: Setup, ledger: Ledger, keys: int) -> Iterator[tuple[Finding, CredentialID, str]]:
    """Yield a finding a key, the kinds in turn."""
    ids = Fingerprinter(ledger.id_key)
    for n in range(keys):
        kind = KindID(KINDS[n % len(KINDS)])
        parts = {"secret": Secret(f"{kind}-{n:040d}")}
        place = Place(SourceKind.GIT, repository=f"acme/app-{n % 50}", path="app.env", line=n + 1)
        yield Finding(kind, parts, place, "bench", "bench"), ids.of(setup.catalogue.vendor(kind), kind, parts), ""


def config(folder: Path, port: int, rate: float, burst: int) -> Path:
    """Write the configuration; return where."""
    key = folder / "ledger.key"
    _make(key)
    text = [f'[ledger]\nurl = "{folder}/ledger.db"\nkey = "file:{key}"\n[egress]\nallow_private = ["127.0.0.1/32"]']
    for kind in KINDS:
        base = f'base_url = "http://127.0.0.1:{port}/{kind}"'
        text.append(f"[providers.{kind}]\n{base}\nrate = {rate}\nburst = {burst}\nconcurrency = 16")
    path = folder / "lapse.toml"
    path.write_text("\n".join(text))
    return path


def main() -> None:
    """Run one night and print the figures."""
    parser = argparse.ArgumentParser(description="How near a night comes to the providers' limits.")
    parser.add_argument("--keys", type=int, default=3_000)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the keys")
    parser.add_argument("--rate", type=float, default=25.0)
    parser.add_argument("--burst", type=int, default=10)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    command = [sys.executable, __file__, "--serve"]
    with (
        tempfile.TemporaryDirectory(prefix="lapse-bench-") as name,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            os.environ["XDG_DATA_HOME"] = name
            assert server.stdout is not None
            port = int(server.stdout.readline())
            keys = max(int(options.keys * options.scale), 60)
            print(json.dumps(measure(Path(name), port, keys, options.rate, options.burst)))
        finally:
            server.terminate()


def measure(folder: Path, port: int, keys: int, rate: float, burst: int) -> dict[str, object]:
    """Return the figures of one night."""
    setup = Setup(load(config(folder, port, rate, burst)))
    with setup.ledger() as ledger:
        ledger.ingest(Scan("bench", "made.jsonl", "bench"), rows(setup, ledger, keys))
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.monotonic()
        timed = Timed(setup, ledger, Plan(sources=False, quiet=True))
        night = timed.run()
        wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        live = ledger.status().live
        lost = [k for k in ledger.keys(Select()) if k.known is None]
    each = max(len(range(i, keys, len(KINDS))) for i in range(len(KINDS)))
    floor = max(each - burst, 1) / rate
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert live == keys, f"{live} of {keys} keys are live: {[k.short for k in lost][:6]}"
    return {
        "benchmark": "nightly",
        "keys": keys,
        "vendors": len(KINDS),
        "rate": rate,
        "burst": burst,
        "calls": sum(night.calls.values()),
        "throttled": sum(night.throttled.values()),
        "wall_s": round(wall, 3),
        "floor_s": round(floor, 3),
        "ratio": round(wall / floor, 3),
        "asking_s": round(timed.asking, 3),
        "asking_ratio": round(timed.asking / floor, 3),
        "load_average": os.getloadavg()[0],
        "target": 1.1,
        "cpu_s": round(cpu, 3),
        "cpu_us_a_key": round(cpu / keys * 1e6, 1),
        "peak_mb": round(after.ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    main()
