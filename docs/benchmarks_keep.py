"""Runs one benchmark and keeps what it printed, with machine, date and commit, for the page of results.

    python docs/benchmarks_keep.py race --rounds 5        # writes docs/benchmarks/race.json
    python docs/benchmarks_keep.py --shared ingest        # the machine was busy with something else: the page says so
    python docs/benchmarks_keep.py --as nightly_large nightly --keys 1000000    # beside the ordinary one
    python docs/generate.py                          # writes docs/benchmarks.md from what is kept

Everything after the benchmark's name is its own.
"""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]


def machine() -> dict[str, object]:
    """Say what this machine is."""
    found = Path("/proc/cpuinfo")
    text = found.read_text() if found.exists() else ""
    model = next((row.partition(":")[2].strip() for row in text.splitlines() if row.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def main() -> None:
    """Run, and write the file."""
    words = sys.argv[1:]
    shared = "--shared" in words[:1]
    words = words[shared:]
    kept_as = words[1] if words[:1] == ["--as"] else None
    name, *more = words[2 if kept_as else 0 :] or sys.exit(__doc__)
    begun, load = time.monotonic(), os.getloadavg()[0]
    ran = subprocess.run(  # noqa: S603  # a benchmark of ours, with the words of who runs it
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *more], stdout=subprocess.PIPE, check=True, text=True
    )
    result = json.loads(ran.stdout)
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603  # git
    hidden = {str(Path(w)) for w in more if w.startswith("/")}
    kept = {
        "benchmark": name,
        "command": " ".join([f"python benchmarks/{name}.py", *(Path(w).name if w in hidden else w for w in more)]),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit,
        "machine": machine(),
        "shared": shared,
        "load_before": round(load, 1),
        "took_s": round(time.monotonic() - begun),
        "result": result,
    }
    folder = ROOT / "docs" / "benchmarks"
    folder.mkdir(exist_ok=True)
    (folder / f"{kept_as or name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
