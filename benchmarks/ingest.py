"""How much CPU and memory one ingest takes: report → claims → findings → ids → sealed ledger.

    python benchmarks/ingest.py [--rows 850000] [--format jsonl|array]

Makes a seeded TruffleHog report (about 590 bytes a row; three findings a key; 10,456 images of four layers), runs
`lapse ingest` on it in a process of its own, and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

ALPHABET = string.ascii_letters + string.digits
DETECTORS = (("OpenAI", "sk-proj-", 48), ("Github", "ghp_", 36), ("SendGrid", "SG.", 66), ("Stripe", "sk_live_", 24))


def row(rng: random.Random, n: int) -> dict[str, object]:
    """Return one finding; every third is of a new key."""
    name, prefix, length = DETECTORS[(n // 3) % len(DETECTORS)]
    secret = prefix + "".join(rng.choices(ALPHABET, k=length)) if n % 3 == 0 else row.last
    row.last = secret
    image, layer = (n // 81) % 10_456, n // 20 % 4  # a scanner goes image by image, layer by layer
    place = {
        "image": f"acme-{image % 205}/service-{image}",
        "tag": f"1.{image % 40}",
        "layer": f"sha256:{image * 4 + layer:064x}",
        "file": f"/srv/app/releases/{n % 9973}/config/settings-{n % 97}.env",
    }
    return {
        "SourceMetadata": {"Data": {"Docker": place}},
        "SourceID": 1,
        "SourceType": 4,
        "SourceName": "trufflehog - docker",
        "DetectorType": 17,
        "DetectorName": name,
        "DetectorDescription": "Keys of this kind give access to an account and to all that is in it.",
        "DecoderName": "PLAIN",
        "Verified": False,
        "VerificationFromCache": False,
        "Raw": secret,
        "RawV2": "",
        "Redacted": "",
        "ExtraData": {"rotation_guide": "https://docs.example.test/rotate"},
        "StructuredData": None,
    }


row.last = ""  # type: ignore[attr-defined]  # a function remembers its last key


def write(out: TextIO, rows: int, *, array: bool) -> None:
    """Write the report."""
    rng = random.Random(7)
    if array:
        out.write("[")
    for n in range(rows):
        if array:
            out.write(",\n" if n else "\n")
        out.write(json.dumps(row(rng, n), separators=(",", ":")))
        if not array:
            out.write("\n")
    if array:
        out.write("\n]\n")


def main() -> None:
    """Run once and print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=850_000)
    options.add_argument("--scale", type=float, default=1.0, help="multiplies the rows")
    options.add_argument("--format", choices=("jsonl", "array"), default="jsonl")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = folder / f"report.{'json' if args.format == 'array' else 'jsonl'}"
        with report.open("w") as out:
            write(out, max(int(args.rows * args.scale), 1_000), array=args.format == "array")
        env = os.environ | {f"XDG_{k}_HOME": str(folder / k) for k in ("DATA", "CACHE", "CONFIG")}
        key = folder / "ledger.key"
        env |= {"LAPSE_LEDGER_KEY": f"file:{key}"}
        lapse = [sys.executable, "-m", "lapse.cli"]
        subprocess.run([*lapse, "ledger", "init"], env=env, check=True, capture_output=True)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [*lapse, "ingest", str(report), "--format", "json"], env=env, check=True, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        told = json.loads(done.stdout)
        figures = {
            "benchmark": "ingest",
            "format": args.format,
            "bytes": report.stat().st_size,
            "findings": told["findings"],
            "keys": told["keys"],
            "cpu_seconds": round(cpu, 2),
            "wall_seconds": round(time.monotonic() - start, 2),
            "cpu_microseconds_per_finding": round(cpu / told["findings"] * 1e6, 1),
            "peak_rss_mib": after.ru_maxrss // 1024,
            "ledger_mib": sum(f.stat().st_size for f in (folder / "DATA").rglob("*") if f.is_file()) >> 20,
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
