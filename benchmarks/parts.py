"""Where the CPU of `lapse verify` goes: microseconds a key by part, in one process. Prints one JSON object.

    python benchmarks/parts.py [--keys 20000] [--scale 1.0] [--latency 0] [--concurrency 500]

The course is that of `race.py`: its report, its provider, a new ledger. `start` is Python and imports, `specs` the
catalogue of providers, `ingest` reading the report into the ledger, `ask` everything between a sealed key and its
verdict (reading what is due, the call, rules, redaction), `record` writing verdicts, `tell` reading them back and
printing a line a key. What is left is `rest`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import race

if TYPE_CHECKING:
    from collections.abc import Callable


def timed(owner: Any, name: str, part: str, spent: Counter[str]) -> None:  # noqa: ANN401  # a module or a class
    """Count the CPU of every call of a function under `part`."""
    inner: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*args: Any, **more: Any) -> Any:  # noqa: ANN401  # whatever the function takes and gives
        began = time.process_time()
        try:
            return inner(*args, **more)
        finally:
            spent[part] += time.process_time() - began

    setattr(owner, name, outer)


def inside() -> None:
    """Be `lapse verify` in this folder, and write what each part took to `parts.json`."""
    import lapse.cli  # noqa: PLC0415  # imports are part of what is measured
    from lapse import asking  # noqa: PLC0415  # the same
    from lapse.commands import ingest, verify  # noqa: PLC0415  # the same
    from lapse.commands.setup import Setup  # noqa: PLC0415  # the same
    from lapse.ledger import Ledger  # noqa: PLC0415  # the same

    spent: Counter[str] = Counter({"start": time.process_time()})
    timed(ingest.Intake, "__init__", "specs", spent)
    timed(ingest.Intake, "take", "ingest", spent)
    timed(verify.uvloop, "run", "loop", spent)
    timed(asking._Scribe, "write", "scribe", spent)  # noqa: SLF001  # where recording begins and ends
    timed(Ledger, "record", "record", spent)
    timed(Setup, "ledger", "open", spent)
    sys.argv = ["lapse", "verify", "report.jsonl", "--no-wait", "-q", "--format", "jsonl"]
    with contextlib.suppress(SystemExit):
        lapse.cli.main()
    total = time.process_time()
    parts = {
        "start": spent["start"],
        "specs": spent["specs"],
        "ingest": spent["ingest"],
        "ask": spent["loop"] - spent["scribe"],
        "record": spent["record"],
        "tell": spent["scribe"] - spent["record"],
    }
    parts["rest"] = total - sum(parts.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    Path("parts.json").write_text(json.dumps({"total": total, "parts": parts, "peak_mib": peak}))


def main() -> None:
    """Run once and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keys", type=int, default=20_000)
    options.add_argument("--scale", type=float, default=1.0, help="multiplies the keys")
    options.add_argument("--latency", type=int, default=0)
    options.add_argument("--concurrency", type=int, default=500)
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.inside:
        inside()
        return
    keys = max(int(args.keys * args.scale), 100)
    with tempfile.TemporaryDirectory() as name, race.provider() as port:
        folder = Path(name)
        course = race.Course(folder, keys, port, args.concurrency)
        env = course.clean(args.latency)
        start = time.monotonic()
        with (folder / "out").open("wb") as out:
            subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), "--inside"], cwd=folder, env=env, stdout=out, check=True
            )
        wall = time.monotonic() - start
        told = json.loads((folder / "parts.json").read_text())
        live = (folder / "out").read_text().count('"verdict":"live"')
        assert live == course.live, f"{live} of {course.live} live keys were found"
    print(json.dumps({
        "benchmark": "parts",
        "keys": keys,
        "latency_ms": args.latency,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "wall_s": round(wall, 2),
        "peak_mib": told["peak_mib"],
        "cpu_us_a_key": round(told["total"] / keys * 1e6),
        "parts_us_a_key": {part: round(s / keys * 1e6, 1) for part, s in told["parts"].items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
