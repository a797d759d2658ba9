"""A folder with a config, a ledger and reports; workers and nights are processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
from counting import KINDS, Counting, specs

from lapse.commands import ledger as ledger_command
from lapse.commands.setup import Setup
from lapse.config import load
from lapse.ledger import Select
from playbooks.seat import seated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lapse.ledger import Ledger

ROOT = Path(__file__).parents[2]
URL = "LAPSE_TEST_FLEET"
LEAN = (str(Path(__file__).with_name("lean.py")),)
SOON = 150.0
"""Seconds after which a test that waits gives up."""


def until(ready: Callable[[], bool], what: str, patience: float = SOON) -> float:
    """Wait; return how long it took."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < patience, f"waited in vain: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def jitter(rate: float) -> float:
    """Return how many more requests than its limit a second may hold: they left in time, and arrived closer together.

    It is less than what two workers at once (a whole `rate` more) or a burst spent twice would show.
    """
    return 3 + rate / 5


def tell(figure: str) -> None:
    """Put a figure that was seen into the captured output: `pytest -rP` or `-s` shows it."""
    sys.stdout.write(f"{figure}\n")


class Fleet:
    """The config of a fleet. `limits` by kind: rate, burst, concurrency. `shared`: the ledger is in PostgreSQL, too."""

    def __init__(
        self,
        folder: Path,
        provider: Counting,
        url: str,
        limits: dict[str, tuple[float, int, int]] | None = None,
        keys: int = 50,
        more: str = "",
        *,
        shared: bool = True,
    ) -> None:
        self.path, self.provider, self.url, self.shared = folder, provider, url, shared
        self.limits = dict.fromkeys(KINDS, (200.0, 20, 8)) | (limits or {})
        self.config = folder / "lapse.toml"
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            URL: url,
        }
        self.processes: list[subprocess.Popen[str]] = []
        for name in ("specs", "reports", "data"):
            (folder / name).mkdir()
        specs(folder / "specs")
        self.write(keys, more)
        with (
            self.inside(),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            ledger_command.init(None, self.config)

    def write(self, keys: int = 50, more: str = "") -> None:
        """Write the config."""
        where = "env:LAPSE_TEST_FLEET" if self.shared else "data/lapse/ledger.db"
        text = f'[ledger]\nurl = "{where}"\nkey = "file:ledger.key"\n'
        text += '[egress]\nallow_private = ["127.0.0.1/32"]\n'
        text += '[verify]\nconfirm_after = "1s"\nretries = 0\n'
        text += (
            f'[catalogue]\nfolders = ["{self.path / "specs"}"]\n[fleet]\nurl = "env:LAPSE_TEST_FLEET"\nkeys = {keys}\n'
        )
        for kind, (rate, burst, concurrency) in self.limits.items():
            text += f'[providers.{kind}]\nbase_url = "{self.provider.base_url(kind)}"\n'
            text += f"rate = {rate}\nburst = {burst}\nconcurrency = {concurrency}\n"
        self.config.write_text(f'{text}[[nightly.source]]\nfrom = "reports/*.jsonl"\n{more}')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            with contextlib.suppress(ValueError):  # read already
                said = process.communicate()[1]
                if kind is not None:
                    sys.stderr.write(f"{process.args} {process.returncode}: {said}\n")

    # ── processes ──────────────────────────────────────────────────────────────────────────────────────

    def start(
        self, *words: str, python: Iterable[str] = ("-m", "lapse.cli"), limit: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a process; with a `limit` no file that it writes may grow beyond so many bytes."""
        bound = ["prlimit", f"--fsize={limit}"] if limit is not None else []
        process = subprocess.Popen(
            [*bound, sys.executable, *python, *words, "--config", str(self.config)],
            cwd=self.path, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, *words: str, code: int | None = 0) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=240)
        assert code is None or process.returncode == code, f"{words}: {process.returncode}\n{err}"
        assert "Traceback" not in err, err
        return out

    def workers(self, n: int, **more: Any) -> list[subprocess.Popen[str]]:
        """Start workers; return when all are seated."""
        before = self.seated()
        made = [self.start("worker", **more) for _ in range(n)]
        until(lambda: self.seated() >= before + n or any(p.poll() is not None for p in made), "workers")
        for p in made:
            assert p.poll() is None, p.communicate()[1]
        return made

    @cached_property
    def name(self) -> str:
        with self.ledger() as ledger:
            return ledger.name

    def seated(self) -> int:
        """Count the workers that are alive."""
        return seated(self.url, f"nights-{self.name}")

    def pending(self) -> dict[str, int]:
        """Return how many chunks each executor has under way."""
        sql = "SELECT executor_id, count(*) FROM dbos.workflow_status WHERE status = 'PENDING' GROUP BY executor_id"
        with contextlib.suppress(psycopg.Error), psycopg.connect(self.url) as connection:
            return dict(connection.execute(sql).fetchall())
        return {}

    # ── keys ───────────────────────────────────────────────────────────────────────────────────────────

    def report(self, keys: Iterable[str], name: str = "a") -> None:
        with (self.path / "reports" / f"{name}.jsonl").open("w") as out:
            for n, key in enumerate(keys):
                place = {"source": "git", "repository": "acme/app", "path": "app.env", "line": n + 1}
                out.write(json.dumps({"provider": key.split("-")[0], "parts": {"secret": key}, "place": place}) + "\n")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be in the folder, with its environment."""
        before, had = Path.cwd(), os.environ.get(URL)
        os.chdir(self.path)
        os.environ[URL] = self.url
        try:
            yield
        finally:
            os.chdir(before)
            if had is None:
                del os.environ[URL]

    def ledger(self) -> Ledger:
        with self.inside():
            return Setup(load(self.config)).ledger()

    def state(self) -> dict[str, tuple[object, ...]]:
        """Return what the ledger knows at the end, by place: without times, which differ from night to night."""
        found = {}
        with self.ledger() as ledger:
            assert ledger.check().ok
            for key in ledger.keys(Select()):
                (place,) = ledger.places(key.id)
                found[f"{place.place.repository}:{place.place.line}"] = (
                    key.provider, type(key.last).__name__, key.confirmed, key.attempts,
                    type(key.known).__name__, key.first_live is None, key.dead_since is None,
                )  # fmt: skip
        return found


def made(kind: str, live: int, dead: int, odd: int = 0) -> list[str]:
    """Return made-up keys of one kind."""
    states = ["live"] * live + ["dead"] * dead + ["odd"] * odd
    return [f"{kind}-{state}-{n:06d}" for n, state in enumerate(states)]


def ideal(keys: Iterable[str]) -> dict[str, tuple[object, ...]]:
    """Return what a night makes of new keys when nothing disturbs it: what `Fleet.state` must be."""
    ends: dict[str, tuple[object, ...]] = {
        "live": ("Live", False, 1, "Live", False, True),
        "dead": ("Dead", True, 2, "Dead", True, False),
        "odd": ("Undecided", False, 1, "NoneType", True, True),
    }
    return {f"acme/app:{n + 1}": (key.split("-")[0], *ends[key.split("-")[1]]) for n, key in enumerate(keys)}
