"""How the ledger bears size: findings in, verdicts in, `status`, all through the public API. Prints one JSON object.

    python benchmarks/ledger.py --findings 1000000 --keys 100000
    python benchmarks/ledger.py --url postgresql://user@host/database   # its schema `lapse_bench` is made, and dropped

`ingest_cpu_s` is the ledger's share: the making of the rows is timed apart and taken off. Figures to compare with:
850,000 findings of 250,000 keys in 15 s of CPU and 120 MB; `status` under 1 s at 10 million findings, 1 million keys.
By default a key's findings lie together (layers of one image); `--scattered` is the harder case: a third lie anywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from lapse.ledger import Ledger, Scan, Select, open_ledger
from verifier.model import (
    CredentialID,
    Dead,
    Doubt,
    Evidence,
    Finding,
    How,
    Identity,
    Image,
    KindID,
    Live,
    Place,
    SourceKind,
    Undecided,
)
from verifier.ports import Judged
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_IMAGE = 400
SCHEMA = "lapse_bench"
VENDORS = ("aws", "openai", "github", "stripe", "slack", "gitlab", "sendgrid", "npm")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def cpu() -> float:
    """Return the CPU seconds of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Return the peak resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def name_of(number: int) -> CredentialID:
    """Return the id of made-up key `number`."""
    digest = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()
    return CredentialID(f"{VENDORS[number % len(VENDORS)]}-{digest}")


def rows(findings: int, keys: int, *, scattered: bool) -> Iterator[tuple[Finding, CredentialID, str]]:
    """Make findings as a Docker scan gives them: each key in several layers of an image and in others."""
    for number in range(findings):
        key = (number * 7919) % keys if scattered and number % 3 == 0 else number * keys // findings
        image = Image(
            name=f"service-{number // PER_IMAGE // 8}",
            registry="registry.example",
            namespace="acme",
            tag="1.4.2",
            digest="sha256:" + f"{number // PER_IMAGE // 8:064x}",
            layer="sha256:" + f"{number // PER_IMAGE:064x}",
        )
        place = Place(
            SourceKind.DOCKER, image=image, path=f"srv/app/config/settings-{number % 997}.env", line=number % 89 + 1
        )
        vendor = VENDORS[key % len(VENDORS)]
        parts = {"id": Secret(f"{key:020x}"), "secret": Secret(f"{key:040x}")}
        yield Finding(KindID(vendor), parts, place, "kingfisher", f"kingfisher.{vendor}.1"), name_of(key), "AKIA…"


def verdict(number: int) -> Live | Dead | Undecided:
    """Give one key in fifty as live, most as dead, some as undecided."""
    evidence = Evidence("GET https://api.example/v1/me", 200, '{"ok":true}', "0" * 64, "x@0", EPOCH, "api.example")
    match number % 50:
        case 0:
            return Live(evidence, Identity(principal=f"user-{number}", account="acme"))
        case 1 | 2 | 3:
            return Undecided(Doubt.THROTTLED, evidence)
        case _:
            return Dead(evidence, How.REVOKED)


def judge(ledger: Ledger, keys: int) -> None:
    """Record one verdict on every key, 200 to a transaction."""
    run = ledger.begin_run()
    batch: list[Judged] = []
    for number in range(keys):
        batch.append(Judged(name_of(number), "x", verdict(number), EPOCH))
        if len(batch) == 200:
            ledger.record(batch, run)
            batch.clear()
    if batch:
        ledger.record(batch, run)
    ledger.end_run(run)


@contextmanager
def place(url: str | None) -> Iterator[str]:
    """Give the address of an empty ledger, and clear it away."""
    if url is None:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "ledger.db")
        return
    drop = f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"
    tell(url, drop)
    try:
        yield f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}"
    finally:
        tell(url, drop)


def tell(url: str, sql: str) -> Any:  # noqa: ANN401  # the first value of the first row
    """Run one statement in PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def size(address: str) -> int:
    """Return the bytes that a ledger takes."""
    if "://" not in address:
        return Path(address).stat().st_size
    tables = f"pg_class c WHERE c.relkind = 'r' AND c.relnamespace = '{SCHEMA}'::regnamespace"
    sql = f"SELECT sum(pg_total_relation_size(c.oid))::bigint FROM {tables}"  # noqa: S608  # our own schema
    return int(tell(address.replace(f"schema={SCHEMA}", "").rstrip("?&"), sql))


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--findings", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies findings and keys")
    parser.add_argument("--scattered", action="store_true", help="a third of the findings name a key from anywhere")
    parser.add_argument("--no-key", action="store_true", help="keep no secrets")
    parser.add_argument("--check", action="store_true", help="run the integrity check too")
    parser.add_argument("--again", action="store_true", help="read the same report in once more")
    parser.add_argument("--url", help="a PostgreSQL database instead of a file")
    args = parser.parse_args()
    args.findings, args.keys = (max(int(n * args.scale), 1_000) for n in (args.findings, args.keys))
    figures: dict[str, object] = {"benchmark": "ledger", "findings": args.findings, "keys": args.keys}
    figures["database"] = "postgresql" if args.url else "sqlite"

    start = cpu()
    for _ in rows(args.findings, args.keys, scattered=args.scattered):
        pass
    making = cpu() - start

    os.environ["LAPSE_BENCH_KEY"] = os.urandom(32).hex()
    with place(args.url) as address:
        with open_ledger(address, None if args.no_key else "env:LAPSE_BENCH_KEY") as ledger:
            scan = Scan("kingfisher", "report.jsonl", "kingfisher-jsonl", complete=True)
            for name in ("ingest", "again") if args.again else ("ingest",):
                wall, start = time.monotonic(), cpu()
                count = ledger.ingest(scan, rows(args.findings, args.keys, scattered=args.scattered))
                used = cpu() - start - making
                figures |= {
                    f"{name}_cpu_s": round(used, 2),
                    f"{name}_wall_s": round(time.monotonic() - wall, 2),
                    f"{name}_findings_per_cpu_s": round(args.findings / used),
                    f"{name}_peak_mb": round(peak_mb(), 1),
                }
                print(count, file=sys.stderr)
            wall, start = time.monotonic(), cpu()
            judge(ledger, args.keys)
            figures |= {"record_cpu_s": round(cpu() - start, 2), "record_wall_s": round(time.monotonic() - wall, 2)}
            for name in ("status_first_s", "status_again_s"):
                wall = time.monotonic()
                print(ledger.status(), file=sys.stderr)
                figures[name] = round(time.monotonic() - wall, 3)
            wall = time.monotonic()
            seen = sum(1 for _ in ledger.keys(Select(limit=1000)))
            figures["thousand_keys_s"] = round(time.monotonic() - wall, 3)
            assert seen == min(1000, args.keys)
            if not args.no_key:
                wall = time.monotonic()
                figures["due"] = sum(1 for _ in ledger.due(datetime.now(UTC)))
                figures["due_s"] = round(time.monotonic() - wall, 2)
            if args.check:
                wall = time.monotonic()
                checked = ledger.check()
                assert checked.ok, checked.problems[:3]
                figures |= {"check_s": round(time.monotonic() - wall, 2), "checked_rows": checked.rows}
        figures |= {"size_mb": round(size(address) / 1e6), "peak_mb": round(peak_mb(), 1)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
