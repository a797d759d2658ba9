"""What a fleet gains by workers, and whether a key costs the same when there are many. Prints one JSON object.

    python benchmarks/scale.py [--scale 1.0] [--keys 10000] [--workers 1 2 4] [--sizes 10000 30000 100000]
        [--latency 50] [--vendors 8]

A PostgreSQL server of this machine holds the ledger and the queue; a provider of this machine answers every key after
`latency` milliseconds; the providers' limits are off. Each run has a fresh database: the report is ingested, the
workers start, and `lapse nightly --fleet` is timed as a whole process, with the CPU of it and of the workers.

- `by_workers`: the same `keys` with 1, 2 and 4 workers. All of them, the database and the provider share this
  machine's cores, so `speedup` ends where these do: see `cpus` and `load_average`.
- `by_keys`: one worker and ever more keys. `growth` is the CPU a key of the largest over that of the smallest run; it
  must stay near 1.
- `on_paper`: what a night of 100 million keys takes, from the largest run: cores for eight hours, disk, and hours
  where one ledger takes no more a second than it was seen to take here.

`--scale` multiplies `keys` and `sizes`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psycopg
import race
import servers

from lapse.commands.setup import Setup
from lapse.config import load
from playbooks.seat import seated

if TYPE_CHECKING:
    import resource
    from collections.abc import Iterator

URL = "LAPSE_BENCH_URL"
NIGHT_HOURS = 8
MANY = 100_000_000
PATIENCE = 120.0
LIVE_REMAIN = 10
CONFIG = """\
[ledger]
url = "env:LAPSE_BENCH_URL"
key = "file:ledger.key"
[egress]
allow_private = ["127.0.0.1/32"]
[catalogue]
folders = ["specs"]
[fleet]
url = "env:LAPSE_BENCH_URL"
"""
LANE = """\
[providers.lane_{n}]
base_url = "http://127.0.0.1:{port}/{latency}"
rate = 1000000
burst = 100000
concurrency = 64
"""


class Night(NamedTuple):
    """One night: seconds of wall and of CPU, peak MiB of the largest process, bytes on disk a key."""

    wall: float
    ingest: float
    led_cpu: float
    worker_cpu: float
    peak: int
    disk: float


class Yard:
    """Where nights are run: the provider's port and the database server."""

    def __init__(self, port: int, server: servers.Server, latency: int, vendors: int) -> None:
        """Take what is running."""
        self.port, self.latency, self.vendors = port, latency, vendors
        self.root = f"postgresql://{server.admin['username']}:{server.admin['password']}@{server.host}:{server.port}"
        with psycopg.connect(f"{self.root}/postgres", autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'none'")
            connection.execute("SELECT pg_reload_conf()")

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the address of a fresh database."""
        name = f"scale_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(f"{self.root}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            yield f"{self.root}/{name}"
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def folder(self, path: Path, keys: int) -> None:
        """Write config, specs and report."""
        (path / "specs").mkdir()
        config = CONFIG
        for n in range(self.vendors):
            spec = race.SPEC.replace('"racecourse"', f'"lane_{n}"').replace("zzt_", f"zz{n}_")
            spec = spec.replace("racecourse.example", f"lane{n}.example")
            (path / "specs" / f"lane_{n}.toml").write_text(spec)
            config += LANE.format(n=n, port=self.port, latency=self.latency)
        (path / "lapse.toml").write_text(config)
        with (path / "report.jsonl").open("w") as out:
            for n in range(keys):
                lane = n % self.vendors
                place = {"source": "git", "repository": f"acme/app-{n % 50}", "path": "app.env", "line": n + 1}
                key = f"zz{lane}_{n:035d}0"
                out.write(json.dumps({"provider": f"lane_{lane}", "parts": {"secret": key}, "place": place}) + "\n")

    def night(self, keys: int, workers: int) -> Night:
        """Run one night of `keys` keys with so many workers."""
        with ExitStack() as stack:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lapse-scale-")))
            url = stack.enter_context(self.database())
            self.folder(path, keys)
            env = {n: v for n, v in os.environ.items() if not n.startswith("LAPSE_")}
            env |= {URL: url, "XDG_DATA_HOME": str(path / "data"), "XDG_CONFIG_HOME": str(path / "config")}
            yard = Crew(path, env, stack)
            yard.done("ledger", "init")
            start = time.monotonic()
            yard.done("ingest", "report.jsonl", "-q")
            ingest = time.monotonic() - start
            crew = [yard.start("worker", "-q") for _ in range(workers)]
            yard.seated(url, workers)
            start = time.monotonic()
            led = yard.start("nightly", "--fleet", "--format", "json", "-q")
            ended, used = yard.end(led)
            wall = time.monotonic() - start
            if ended != LIVE_REMAIN:
                raise SystemExit(f"the night ended with {ended}: {(path / 'said').read_text()[-2000:]}")
            own = used.ru_utime + used.ru_stime
            peak, cpu = used.ru_maxrss, 0.0
            for worker in crew:
                worker.send_signal(signal.SIGTERM)
                _, used = yard.end(worker)
                cpu += used.ru_utime + used.ru_stime
                peak = max(peak, used.ru_maxrss)
            told = json.loads((path / "said").read_text().splitlines()[-1])
            assert told["asked"] == keys, f"{told['asked']} of {keys} keys were asked about"
            with psycopg.connect(url) as connection:
                (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
            return Night(wall, ingest, own, cpu, peak // 1024, size / keys)


class Crew:
    """The processes of one night."""

    def __init__(self, path: Path, env: dict[str, str], stack: ExitStack) -> None:
        """Work in `path`."""
        self.path, self.env = path, env
        self.said = stack.enter_context((path / "said").open("wb"))
        self.running: list[subprocess.Popen[bytes]] = []
        stack.callback(self.stop)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `lapse`."""
        command = [sys.executable, "-m", "lapse.cli", *words]
        process = subprocess.Popen(command, cwd=self.path, env=self.env, stdout=self.said, stderr=self.said)
        self.running.append(process)
        return process

    def done(self, *words: str) -> None:
        """Run `lapse` to a good end."""
        if self.end(self.start(*words))[0]:
            raise SystemExit(f"{words}: {(self.path / 'said').read_text()[-2000:]}")

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
        """Wait for an end; return its code and what was used."""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.running.remove(process)
        return process.returncode, used

    def seated(self, url: str, workers: int) -> None:
        """Wait until all workers are at work."""
        os.environ[URL] = url
        before = Path.cwd()
        os.chdir(self.path)
        try:
            with Setup(load(self.path / "lapse.toml")).ledger() as ledger:
                role = f"nights-{ledger.name}"
        finally:
            os.chdir(before)
        end = time.monotonic() + PATIENCE
        while seated(url, role) < workers:
            if time.monotonic() > end or any(p.poll() is not None for p in self.running):
                raise SystemExit(f"no workers: {(self.path / 'said').read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill what is still running."""
        for process in self.running:
            process.kill()
            process.wait()


def told(night: Night, keys: int) -> dict[str, float]:
    """Return one night's figures."""
    return {
        "keys": keys,
        "wall_s": round(night.wall, 2),
        "keys_a_second": round(keys / night.wall, 1),
        "ingest_s": round(night.ingest, 2),
        "cpu_us_a_key": round((night.led_cpu + night.worker_cpu) / keys * 1e6),
        "leader_cpu_us_a_key": round(night.led_cpu / keys * 1e6),
        "peak_mib": night.peak,
        "disk_bytes_a_key": round(night.disk),
    }


def on_paper(runs: list[dict[str, float]]) -> dict[str, object]:
    """Return what 100 million keys take in a night, by what the largest run took more than the smallest.

    So what each process needs to start, and an empty database, do not count a thousandfold.
    """
    first, last = runs[0], runs[-1]
    more = last["keys"] - first["keys"]

    def each(name: str) -> float:
        """Return what one more key took."""
        return (last["keys"] * last[name] - first["keys"] * first[name]) / more if more else last[name]

    hours = MANY * each("cpu_us_a_key") / 1e6 / 3600
    return {
        "keys": MANY,
        "cpu_us_each_more_key": round(each("cpu_us_a_key")),
        "core_hours": round(hours),
        "cores_for_eight_hours": round(hours / NIGHT_HOURS, 1),
        "hours_at_this_rate_of_one_ledger": round(MANY / last["keys_a_second"] / 3600, 1),
        "disk_gib": round(MANY * each("disk_bytes_a_key") / 2**30),
        "requests_a_second_for_eight_hours": round(MANY / NIGHT_HOURS / 3600),
    }


def main() -> None:
    """Run all nights and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--keys", type=int, default=10_000)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    options.add_argument("--latency", type=int, default=50)
    options.add_argument("--vendors", type=int, default=8)
    args = options.parse_args()
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lapse-scale-")))
        folder.chmod(0o755)  # the database's own user must reach its data
        server = stack.enter_context(servers.postgresql(folder / "pg"))
        port = stack.enter_context(race.provider())
        yard = Yard(port, server, args.latency, args.vendors)
        keys = max(int(args.keys * args.scale), args.vendors)
        by_workers: dict[int, dict[str, float]] = {}
        for workers in args.workers:
            by_workers[workers] = told(yard.night(keys, workers), keys)
            print(f"{workers} workers: {by_workers[workers]}", file=sys.stderr, flush=True)
        first = by_workers[args.workers[0]]["wall_s"]
        for figures in by_workers.values():
            figures["speedup"] = round(first / figures["wall_s"], 2)
        by_keys: list[dict[str, float]] = []
        for size in args.sizes:
            number = max(int(size * args.scale), args.vendors)
            by_keys.append(told(yard.night(number, 1), number))
            print(f"{number} keys: {by_keys[-1]}", file=sys.stderr, flush=True)
    print(json.dumps({
        "benchmark": "scale",
        "cpus": os.cpu_count(),
        "load_average": [before, os.getloadavg()[0]],
        "latency_ms": args.latency,
        "vendors": args.vendors,
        "by_workers": by_workers,
        "by_keys": by_keys,
        "growth": round(by_keys[-1]["cpu_us_a_key"] / by_keys[0]["cpu_us_a_key"], 2) if by_keys else None,
        "on_paper": on_paper(by_keys) if by_keys else None,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
