"""Races Lapse against other verifiers: one loopback provider, the same keys, rounds interleaved. Prints JSON.

    python benchmarks/race.py [--keys 20000] [--scale 1.0] [--latency 0 50 200] [--rounds 5]
        [--patience 45]
        [--betterleaks PROGRAM] [--kingfisher-sdk PYTHON]

The provider answers each key after so many milliseconds: 200 with a user for about half of them, 401 for the rest.
Everybody is timed as a whole process, and everybody must find the right number of live keys:

- `lapse verify REPORT`: reading the report, asking, redacting evidence, the hash-chained ledger on disk, a JSON line a
  key. Second looks are left out (`--no-wait`), for nobody else takes them.
- Kingfisher and Betterleaks: scanning the files, asking, their report. They keep no record beside it.
- Kingfisher's SDK (`--kingfisher-sdk`: a Python that has it): the asking alone, timed inside; it stores nothing.

Kingfisher is found on the path or beside this Python; the others only where they are named. `ratio` is our keys a
second over the fastest peer's. `load_average` tells whether the machine was busy with something else. Whoever took
more than `--patience` seconds for a lap runs no further one at that latency (`laps` says how many).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvloop

from lapse.sandbox.servers import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIVE = frozenset("02468ACEacegikmoqsuwy")
"""Last characters of keys that work."""
ALNUM = string.ascii_letters + string.digits
A_FILE = 100
US = (sys.executable, "-m", "lapse.cli")

SPEC = """\
title = "Racecourse"
docs  = "https://racecourse.example/docs"

[[kind]]
id       = "racecourse"
title    = "Racecourse token"
category = "other"
docs     = "https://racecourse.example/docs"
console  = "https://racecourse.example/keys"

[[kind.shape]]
prefix  = ["zzt_"]
pattern = 'zzt_[A-Za-z0-9]{36}'

[kind.probe]
base   = ["https://racecourse.example"]
path   = "/user"
bearer = "{secret}"
reads  = "names the user whose key it is"
docs   = "https://racecourse.example/docs"

[[kind.rule]]
verdict = "live"
status  = 200
has     = ["login"]
note    = "names the user"

[[kind.rule]]
verdict    = "dead"
status     = 401
json       = { message = "Bad credentials" }
how        = "rejected"
note       = "bad credentials"
confidence = "observed"
source     = "https://racecourse.example/docs"
"""
CONFIG = """\
[ledger]
url = "ledger.db"
key = "file:ledger.key"
[egress]
allow_private = ["127.0.0.1/32"]
[catalogue]
folders = ["specs"]
[providers.racecourse]
base_url = "http://127.0.0.1:{port}/{latency}"
rate = 1000000
burst = 100000
concurrency = {concurrency}
"""
KINGFISHER = """\
rules:
  - name: Racecourse Token
    id: custom.racecourse.1
    pattern: |
      (?x)
      \\b
      (
        zzt_[A-Za-z0-9]{{36}}
      )
      \\b
    min_entropy: 3.0
    confidence: high
    examples:
      - 'zzt_{example}'
    validation:
      type: Http
      content:
        request:
          method: GET
          url: http://127.0.0.1:{port}/{latency}/user
          headers:
            Authorization: 'Bearer {{{{ TOKEN }}}}'
          response_matcher:
            - report_response: true
            - type: StatusMatch
              status: [200]
            - type: JsonValid
"""
BETTERLEAKS = """\
title = "racecourse"
[[rules]]
id = "racecourse"
description = "Racecourse token"
regex = '''\\b(zzt_[A-Za-z0-9]{{36}})\\b'''
keywords = ["zzt_"]
validate = '''
let r = http.get("http://127.0.0.1:{port}/{latency}/user",
  {{"Accept": "application/json", "Authorization": "Bearer " + finding["secret"]}});
r.status == 200 && (r.json?.login ?? "") != "" ? {{"result": "valid"}}
  : r.status in [401, 403] ? {{"result": "invalid", "reason": "Unauthorized"}} : validate.unknown(r)
'''
"""
SDK = """\
import glob, json, resource, sys, time
import kingfisher_sdk as k
rule, folder, concurrency = sys.argv[1:]
scanner = k.Scanner(k.Rules([rule], builtins=False), base64=False)
found = [f for p in sorted(glob.glob(folder + "/*")) for f in scanner.scan_file(p)]
validator = k.Validator(concurrency=int(concurrency), allow_internal_ips=True, timeout=120)
cpu, start = time.process_time(), time.monotonic()
said = validator.validate(found)
print(json.dumps({
    "wall": time.monotonic() - start,
    "cpu": time.process_time() - cpu,
    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    "live": sum(s.outcome == "verified_active" for s in said),
}))
"""


class Provider(asyncio.Protocol):
    """Answers `GET /MS/user` after MS milliseconds; understands pipelined requests on one connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing read."""
        self._out: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP server is given nothing else
        self._read = b""

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        *requests, self._read = (self._read + data).split(b"\r\n\r\n")
        for request in requests:
            line, _, headers = request.partition(b"\r\n")
            at = headers.lower().find(b"bearer ")
            key = headers[at + 7 :].split(b"\r\n", 1)[0].strip().decode()
            wait = int(line.split(b"/", 2)[1]) / 1000
            reply = _GOOD if at >= 0 and key[-1:] in LIVE else _BAD
            if wait:
                asyncio.get_running_loop().call_later(wait, self._answer, reply)
            else:
                self._answer(reply)

    def _answer(self, reply: bytes) -> None:
        if not self._out.is_closing():
            self._out.write(reply)


def _reply(status: str, body: dict[str, object]) -> bytes:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


_GOOD = _reply("200 OK", {"login": "octo", "id": 1, "scopes": ["repo", "read:org"], "two_factor": True})
_BAD = _reply(
    "401 Unauthorized", {"message": "Bad credentials", "documentation_url": "https://racecourse.example/docs"}
)


async def serve() -> None:
    """Be the provider until we are stopped; print the port."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def provider() -> Iterator[int]:
    """Run the provider in a process of its own; give its port."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


class Lap(NamedTuple):
    """One tool's run: seconds of wall and CPU, peak memory in MiB, how many keys it called live."""

    wall: float
    cpu: float
    memory: int
    live: int


class Course:
    """The keys, as files to scan and as a report to read, and where everybody works."""

    def __init__(self, folder: Path, keys: int, port: int, concurrency: int) -> None:
        """Write the keys down."""
        rng = random.Random(5)  # made-up keys
        self.keys = ["zzt_" + "".join(rng.choices(ALNUM, k=36)) for _ in range(keys)]
        self.live = sum(k[-1] in LIVE for k in self.keys)
        self.folder, self.files, self.port, self.concurrency = folder, folder / "files", port, concurrency
        self.files.mkdir()
        (folder / "specs").mkdir()
        (folder / "specs" / "racecourse.toml").write_text(SPEC)
        with (folder / "report.jsonl").open("w") as report:
            for n in range(0, keys, A_FILE):
                name = f"f{n // A_FILE:05d}.env"
                lines = [f'SERVICE_{n + i}_TOKEN="{k}"\n' for i, k in enumerate(self.keys[n : n + A_FILE])]
                (self.files / name).write_text("".join(lines))
                for i, key in enumerate(self.keys[n : n + A_FILE]):
                    place = {"source": "file", "path": name, "line": i + 1}
                    report.write(
                        json.dumps({"provider": "racecourse", "parts": {"secret": key}, "place": place}) + "\n"
                    )

    def run(self, command: list[str], env: dict[str, str] | None = None) -> tuple[Lap, str]:
        """Run one program; return its figures (with nothing live yet) and what it printed."""
        start = time.monotonic()
        out = self.folder / "stdout"
        with out.open("wb") as to, (self.folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=to, stderr=err, stdin=subprocess.DEVNULL, env=env
            )
            _, _, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        return Lap(wall, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, 0), out.read_text(errors="replace")

    def clean(self, latency: int) -> dict[str, str]:
        """Make a new ledger, and a config for this latency; return the environment for `lapse`."""
        for old in self.folder.glob("ledger*"):
            old.unlink()
        text = CONFIG.format(port=self.port, latency=latency, concurrency=self.concurrency)
        (self.folder / "lapse.toml").write_text(text)
        env = {n: v for n, v in os.environ.items() if not n.startswith("LAPSE_")}
        subprocess.run([*US, "ledger", "init"], cwd=self.folder, env=env, check=True, capture_output=True)
        return env

    def lapse(self, latency: int) -> Lap:
        """Verify the report into a new ledger."""
        env = self.clean(latency)
        lap, said = self.run([*US, "verify", "report.jsonl", "--no-wait", "-q", "--format", "jsonl"], env)
        return lap._replace(live=said.count('"verdict":"live"'))

    def kingfisher(self, latency: int) -> Lap:
        """Scan the files with Kingfisher, validating."""
        rule = self.rule("kingfisher.yml", KINGFISHER, latency)
        found = self.folder / "kingfisher.jsonl"
        lap, _ = self.run([
            str(program("kingfisher")), "scan", str(self.files), "--rules-path", rule, "--load-builtins", "false",
            "--allow-internal-ips", "--no-update-check", "-j", "64", "--format", "jsonl", "-o", str(found),
        ])  # fmt: skip
        return lap._replace(live=found.read_text().count('"Active Credential"'))

    def betterleaks(self, latency: int, where: str) -> Lap:
        """Scan the files with Betterleaks, validating."""
        rule = self.rule("betterleaks.toml", BETTERLEAKS, latency)
        found = self.folder / "betterleaks.jsonl"
        lap, _ = self.run([
            where, "fs", str(self.files), "-c", rule, "--validate", "--provider-workers", str(self.concurrency),
            "--jsonl", "-o", str(found), "--no-banner", "-s",
        ])  # fmt: skip
        text = found.read_text().lower()
        return lap._replace(live=text.count('"status":"valid"') + text.count('"validation_status":"valid"'))

    def sdk(self, latency: int, python: str) -> Lap:
        """Validate with Kingfisher's SDK, timed inside."""
        rule = self.rule("kingfisher.yml", KINGFISHER, latency)
        script = self.folder / "sdk.py"
        script.write_text(SDK)
        concurrency = self.concurrency if latency else 8
        _, said = self.run([python, str(script), rule, str(self.files), str(concurrency)])
        told = json.loads(said.splitlines()[-1])
        return Lap(told["wall"], told["cpu"], told["rss"] // 1024, told["live"])

    def rule(self, name: str, text: str, latency: int) -> str:
        """Write a peer's rule for this latency; return where."""
        path = self.folder / name
        path.write_text(text.format(port=self.port, latency=latency, example=self.keys[0].removeprefix("zzt_")))
        return str(path)


def main() -> None:
    """Run all rounds and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keys", type=int, default=20_000)
    options.add_argument("--scale", type=float, default=1.0, help="multiplies the keys")
    options.add_argument("--latency", type=int, nargs="+", default=[0, 50, 200])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--concurrency", type=int, default=500)
    options.add_argument("--patience", type=float, default=45.0, help="a longer lap is a tool's last there")
    options.add_argument("--betterleaks")
    options.add_argument("--kingfisher-sdk")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.serve:
        uvloop.run(serve())
        return
    with tempfile.TemporaryDirectory() as name, provider() as port:
        course = Course(Path(name), max(int(args.keys * args.scale), 100), port, args.concurrency)
        print(json.dumps(race(course, args)))


def race(course: Course, args: argparse.Namespace) -> dict[str, object]:
    """Return medians by latency and tool."""
    tools: dict[str, Callable[[int], Lap]] = {"lapse": course.lapse}
    if program("kingfisher"):
        tools["kingfisher"] = course.kingfisher
    if args.betterleaks or shutil.which("betterleaks"):
        tools["betterleaks"] = lambda ms: course.betterleaks(ms, args.betterleaks or "betterleaks")
    if args.kingfisher_sdk:
        tools["kingfisher_sdk"] = lambda ms: course.sdk(ms, args.kingfisher_sdk)
    laps: dict[tuple[int, str], list[Lap]] = defaultdict(list)
    for turn in range(args.rounds):
        for latency in args.latency:
            names = list(tools)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if (before := laps[latency, name]) and before[-1].wall > args.patience:
                    continue
                lap = tools[name](latency)
                laps[latency, name].append(lap)
                print(f"round {turn + 1} {latency} ms {name}: {lap}", file=sys.stderr, flush=True)
    return {
        "benchmark": "race",
        "keys": len(course.keys),
        "live": course.live,
        "rounds": args.rounds,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "by_latency_ms": {ms: _summary(ms, tools, laps, len(course.keys)) for ms in args.latency},
    }


def _summary(
    ms: int, tools: dict[str, Callable[[int], Lap]], laps: dict[tuple[int, str], list[Lap]], keys: int
) -> dict[str, object]:
    told: dict[str, dict[str, float]] = {}
    for name in tools:
        mine = laps[ms, name]
        wall, cpu = (statistics.median(values) for values in ([m.wall for m in mine], [m.cpu for m in mine]))
        told[name] = {
            "keys_a_second": round(keys / wall),
            "wall_seconds": round(wall, 2),
            "cpu_microseconds_a_key": round(cpu / keys * 1e6),
            "peak_rss_mib": max(m.memory for m in mine),
            "live_found": mine[-1].live,
            "laps": len(mine),
        }
    peers = [t["keys_a_second"] for name, t in told.items() if name != "lapse"]
    return {**told, "ratio": round(told["lapse"]["keys_a_second"] / max(peers), 2) if peers else None}


if __name__ == "__main__":
    main()
