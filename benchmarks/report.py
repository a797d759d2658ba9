"""The report of a large ledger in every form: seconds, memory, size, and how long a browser takes to show it. JSON out.

python benchmarks/report.py [--keys 100000] [--scale 1.0]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from console import fill

FORMS = ("html", "markdown", "json", "jsonl", "csv", "sarif", "defectdojo", "ocsf")
CHROMIUM = shutil.which("chromium")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


def written(folder: Path, form: str) -> dict[str, object]:
    """Write one; return seconds, CPU, MiB of memory and MiB of file."""
    out = folder / f"report.{form}"
    words = [sys.executable, "-m", "lapse.cli", "report", "-o", str(out), "--format", form]
    began = time.monotonic()
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{form}: exit status {process.returncode}"
    return {
        "wall_s": round(time.monotonic() - began, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": used.ru_maxrss // 1024,
        "file_mib": round(out.stat().st_size / 2**20, 1),
    }


def shown(page: Path, folder: Path) -> dict[str, object]:
    """Open the page in Chromium as an auditor would; return seconds until its whole content is there."""
    assert CHROMIUM is not None
    picture = folder / "page.png"
    words = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'chromium'}", f"--screenshot={picture}", page.as_uri()]
    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    return {"chromium_s": round(time.monotonic() - began, 2)}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keys", type=int, default=100_000)
    options.add_argument("--scale", type=float, default=1.0, help="multiplies the keys")
    args = options.parse_args()
    keys = max(int(args.keys * args.scale), 1_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["XDG_DATA_HOME"] = str(folder / "data")
        fill(folder, keys)
        (folder / "lapse.toml").write_text('[ledger]\nurl = "ledger.db"\n')
        forms = {form: written(folder, form) for form in FORMS}
        if CHROMIUM is not None:
            forms["html"] |= shown(folder / "report.html", folder)
    print(json.dumps({"benchmark": "report", "findings": keys, "forms": forms}, indent=1))


if __name__ == "__main__":
    main()
