"""A seeded model of the Docker Hub study: how long, how many calls, and is any verdict wrong? Prints one JSON object.

    python benchmarks/corpus.py [--scale 1.0] [--rotate 10]

10,456 images in 205 namespaces hold about 53,600 findings of about 13,600 distinct keys, 29 % of them of AI providers,
8.5 % alive. Every provider is played on this machine with the replies of its spec, and they misbehave: about one reply
in twenty is a 503 with a page, a 429 with or without `Retry-After`, a captive portal's 200, a firewall's 403, an empty
body, a body cut short, or a connection that is dropped. Then:

1. `lapse ingest` and `lapse verify` (with second looks), then `lapse verify` once more, as the next night would;
2. one provider has an outage in which it refuses every key: `lapse verify` again, and no death may be confirmed for it;
3. some live keys are revoked by their own playbook, each until it is proven dead.

`false_live` and `false_dead` compare every verdict with what the key really is; both must be 0, but in the outage,
where a first refusal is noted and waits for the second look (`false_dead_confirmed` must be 0 there, too). Whoever is
refused by a provider whose words prove too little stays undecided: that is no fault, and counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.sandbox import keys
from lapse.sandbox.saas import Saas, State
from verifier.catalogue import load_catalogue
from verifier.fingerprint import Fingerprinter
from verifier.model import KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from verifier.spec import Kind

AI = ("anthropic", "elevenlabs", "groq", "huggingface", "mistral", "openai", "openrouter", "replicate", "xai")
OTHER = tuple(k for k in keys.KINDS if k not in AI)
IMAGES, NAMESPACES, FINDINGS, KEYS = 10_456, 205, 53_600, 13_600
OUTAGE = "openrouter"
REVOCABLE = ("digitalocean", "vercel")
"""Kinds whose keys end themselves by one call."""

_PAGE = b"<!doctype html><title>Please wait</title><h1>503</h1>"
FAULTS: tuple[tuple[float, bytes], ...] = (
    (0.012, b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: 53\r\n\r\n" + _PAGE),
    (0.008, b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"),
    (0.004, b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"),
    (0.008, b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 53\r\n\r\n" + _PAGE),
    (0.008, b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 53\r\n\r\n" + _PAGE),
    (0.004, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    (0.003, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"),
    (0.003, b""),
)


class Unruly(Saas):
    """The simulator, in a bad mood now and then. `count` says how often each kind was asked."""

    def __init__(self, wrong: Path, seed: int) -> None:
        """Take the file whose presence means outage."""
        super().__init__(load_catalogue())
        self._rng, self._wrong, self.faults = random.Random(seed), wrong, 0

    def _answer(self, line: str, headers: dict[str, str], body: str) -> bytes:
        if line.startswith("GET /count "):
            text = json.dumps({"calls": len(self.asked), "faults": self.faults})
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        good = super()._answer(line, headers, body)
        draw = self._rng.random()
        for share, bad in FAULTS:
            draw -= share
            if draw < 0:
                self.faults += 1
                return bad
        return good

    def _reply(self, kind: Kind, state: State | None, carried: str, *, arrived: bool) -> bytes:
        if kind.id == OUTAGE and self._wrong.exists():
            state = "dead"
        return super()._reply(kind, state, carried, arrived=arrived)


async def serve(folder: Path) -> None:
    """Play the providers until we are stopped; print the port."""
    saas = Unruly(folder / "outage", 11)
    with (folder / "truth.jsonl").open() as truth:
        for row in map(json.loads, truth):
            saas.add(row["kind"], row["secret"], row["state"])
    async with saas:
        print(saas.port, flush=True)
        await asyncio.Event().wait()


def model(folder: Path, scale: float) -> dict[str, str]:
    """Write the truth and the report; return the state of each key by its secret."""
    rng = random.Random(2025)
    count = round(KEYS * scale)
    states: dict[str, str] = {}
    kinds: list[str] = []
    with (folder / "truth.jsonl").open("w") as truth:
        for n in range(count):
            kind = rng.choice(AI if rng.random() < 0.29 else OTHER)
            state = "live" if rng.random() < 0.085 else "dead"
            secret = keys.make(kind, f"corpus/{n}")
            states[secret] = state
            kinds.append(kind)
            truth.write(json.dumps({"kind": kind, "secret": secret, "state": state}) + "\n")
    secrets = list(states)
    images = round(IMAGES * scale) or 1
    with (folder / "report.jsonl").open("w") as report:
        for n in range(round(FINDINGS * scale)):
            at = n if n < count else min(rng.randrange(count), rng.randrange(count))  # some keys are everywhere
            image = rng.randrange(images)
            place = {
                "source": "docker",
                "image": f"docker.io/ns{image % NAMESPACES}/app-{image}",
                "tag": f"1.{image % 40}",
                "path": f"app/config/{n % 97}.env",
                "line": n % 300 + 1,
            }
            row = {"provider": kinds[at], "parts": {"secret": secrets[at]}, "place": place}
            report.write(json.dumps(row) + "\n")
    return states


class Bench:
    """Runs `lapse` in a folder and keeps count of the CPU it takes."""

    def __init__(self, folder: Path, port: int) -> None:
        """Write the config: every provider is here, and asked as fast as this machine can."""
        self.folder, self.port, self.cpu = folder, port, 0.0
        text = '[ledger]\nurl = "ledger.db"\nkey = "file:ledger.key"\n[egress]\nallow_private = ["127.0.0.1/32"]\n'
        text += '[scope]\ndomains = ["example.com"]\n[verify]\nconfirm_after = "2s"\nretries = 2\n'
        for kind in keys.KINDS:
            text += f'[providers.{kind}]\nbase_url = "http://127.0.0.1:{port}/{kind}"\n'
            text += "rate = 2000\nburst = 2000\nconcurrency = 16\n"
        (folder / "lapse.toml").write_text(text)
        self.env = {n: v for n, v in os.environ.items() if not n.startswith("LAPSE_")}
        self.lapse("ledger", "init")

    def lapse(self, *words: str) -> tuple[bytes, float]:
        """Run one command; return its stdout and its wall seconds."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "lapse.cli", *words], cwd=self.folder, env=self.env, capture_output=True, check=False
        )
        if done.returncode not in {0, 10, 11, 12}:
            raise SystemExit(f"lapse {' '.join(words)}: {done.returncode}\n{done.stderr.decode()[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return done.stdout, time.monotonic() - start

    def count(self) -> dict[str, int]:
        """Return how many requests reached the simulator, and how many it answered badly."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/count") as reply:
            told: dict[str, int] = json.load(reply)
        return told

    def judged(self) -> list[tuple[str, str, str, bool]]:
        """Return id, kind, verdict and whether it is confirmed, of every key."""
        lines = self.lapse("report", "--format", "jsonl")[0].splitlines()
        rows = map(json.loads, lines)
        return [(r["key"], r["provider"], r["verdict"] or "none", r["confirmed"]) for r in rows]


def truth(folder: Path, states: dict[str, str]) -> dict[str, str]:
    """Return what each key really is, by the ledger's id: the ids are made here as the ledger makes them."""
    cwd = Path.cwd()
    os.chdir(folder)
    try:
        setup = Setup.of(None)
        with setup.ledger() as ledger:
            ids = Fingerprinter(ledger.id_key)
            found: dict[str, str] = {}
            with (folder / "truth.jsonl").open() as rows:
                for row in map(json.loads, rows):
                    kind = setup.catalogue.get(row["kind"])
                    vendor = kind.vendor if kind else row["kind"]
                    whole = ids.of(vendor, KindID(row["kind"]), {"secret": Secret(row["secret"])})
                    found[str(whole)] = states[row["secret"]]
            return {ledger.key(ledger.resolve(name)).short: state for name, state in found.items()}
    finally:
        os.chdir(cwd)


def wrong(judged: list[tuple[str, str, str, bool]], really: dict[str, str]) -> dict[str, int]:
    """Count verdicts that the truth contradicts."""
    said = Counter((verdict, really[key]) for key, _, verdict, _ in judged)
    sure = Counter(really[key] for key, _, verdict, confirmed in judged if verdict == "dead" and confirmed)
    return {
        "live": said["live", "live"],
        "dead": said["dead", "dead"],
        "dead_confirmed": sure["dead"],
        "undecided": sum(n for (verdict, _), n in said.items() if verdict == "undecided"),
        "undecided_live": said["undecided", "live"],
        "false_live": said["live", "dead"],
        "false_dead": said["dead", "live"],
        "false_dead_confirmed": sure["live"],
    }


def rotations(bench: Bench, judged: list[tuple[str, str, str, bool]], most: int) -> dict[str, object]:
    """Revoke live keys by their own call; return how long each took to be proven dead."""
    took: dict[str, list[float]] = defaultdict(list)
    chosen = {key: kind for key, kind, verdict, _ in judged if verdict == "live" and kind in REVOCABLE}
    chosen = dict(list(chosen.items())[:most])
    for key, kind in chosen.items():
        _, seconds = bench.lapse(
            "rotate", key, "--playbook", "self-revoke", "--apply", "--yes", "--as", "bench", "--wait", "60s",
            "--set", f"issuer.base_url=http://127.0.0.1:{bench.port}/{kind}",
            "--set", "issuer.allow_private=127.0.0.1/32",
            "--set", "prove.window=2s", "--set", "prove.times=3", "-q",
        )  # fmt: skip
        took["seconds"].append(seconds)
    dead = {key for key, _, verdict, confirmed in bench.judged() if verdict == "dead" and confirmed}
    seconds = took["seconds"] or [0.0]
    return {
        "keys": len(chosen),
        "proven_dead": len(dead & set(chosen)),
        "seconds_median": round(statistics.median(seconds), 1),
        "seconds_max": round(max(seconds), 1),
        "window_seconds": 2,
    }


def main() -> None:
    """Run it all and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--rotate", type=int, default=10)
    options.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        states = model(folder, args.scale)
        command = [sys.executable, __file__, "--serve", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                print(json.dumps(measure(folder, int(server.stdout.readline()), states, args.rotate)))
            finally:
                server.terminate()


def measure(folder: Path, port: int, states: dict[str, str], rotate: int) -> dict[str, object]:
    """Return the figures of every stage."""
    bench = Bench(folder, port)
    told = json.loads(bench.lapse("ingest", "report.jsonl", "--format", "json")[0])
    _, first = bench.lapse("verify", "-q")
    calls = bench.count()
    really = truth(folder, states)
    after_first = wrong(bench.judged(), really)
    _, second = bench.lapse("verify", "-q")
    settled = wrong(bench.judged(), really)
    again = bench.count()
    (folder / "outage").touch()
    bench.lapse("verify", "--provider", OUTAGE, "-q")
    outage = wrong([r for r in bench.judged() if r[1] == OUTAGE], really)
    (folder / "outage").unlink()
    bench.lapse("verify", "--provider", OUTAGE, "-q")
    recovered = wrong([r for r in bench.judged() if r[1] == OUTAGE], really)
    return {
        "benchmark": "corpus",
        "images": len({r["place"]["image"] for r in map(json.loads, (folder / "report.jsonl").open())}),
        "findings": told["findings"],
        "keys": told["keys"],
        "truly_live": sum(s == "live" for s in states.values()),
        "verify_seconds": round(first, 1),
        "calls": calls["calls"],
        "bad_replies": calls["faults"],
        "after_one_run": after_first,
        "second_run_seconds": round(second, 1),
        "calls_of_second_run": again["calls"] - calls["calls"],
        "after_two_runs": settled,
        "in_an_outage_of_one_provider": outage,
        "after_the_outage": recovered,
        "rotated": rotations(bench, bench.judged(), rotate),
        "cpu_seconds": round(bench.cpu, 1),
        "load_average": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
