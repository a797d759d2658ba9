"""A responder's desk: the command line in its own process, a ledger of its own, the simulator beside it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import zygote

from lapse.sandbox.saas import Saas
from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

T = TypeVar("T")
CATALOGUE = load_catalogue()
LIMIT = "rate = 1000.0\nburst = 1000\nconcurrency = 16\n"


class Beside(Generic[T]):
    """An asynchronous server in a thread of its own."""

    def __init__(self, server: AbstractAsyncContextManager[T]) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> T:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop).result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def simulator() -> Beside[Saas]:
    """Return the SaaS simulator, to be entered."""
    return Beside(Saas(CATALOGUE))


class Desk:
    """Runs `lapse` in a folder with its own ledger and config."""

    def __init__(self, folder: Path, saas: Saas | None = None, kinds: Iterable[str] = ()) -> None:
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(Path("/tmp") / f"lapse-test-cache-{os.getuid()}"),
            "PYTHONWARNINGS": "error",
        }
        self.config = ['[ledger]\nkey = "file:ledger.key"', '[verify]\nconfirm_after = "1s"\nretries = 0']
        self.config.append('[egress]\nallow_private = ["127.0.0.1/32"]')
        if saas is not None:
            self.config += [f'[providers.{k}]\nbase_url = "{saas.base_url(k)}"\n{LIMIT}' for k in kinds]

    def __enter__(self) -> Self:
        self.write()
        self.run("ledger", "init")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def write(self) -> None:
        (self.folder / "lapse.toml").write_text("\n".join(self.config) + "\n")

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lapse.cli", *args],
            cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip

    def run(self, *args: str, code: int | None = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end; `code` is the exit code expected, None for any."""
        done = zygote.lapse(*args, cwd=self.folder, env=self.env, stdin=stdin)
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*args, code=code).stdout)

    def lines(self, *args: str, code: int | None = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*args, code=code).stdout.splitlines()]

    def report(self, rows: Iterable[dict[str, Any]], name: str = "report.jsonl") -> str:
        (self.folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
        return name

    @property
    def ledger(self) -> Path:
        return self.folder / "data" / "lapse" / "ledger.db"


def row(kind: str, secret: str, path: str = "app.env", line: int = 1, **place: Any) -> dict[str, Any]:
    """One line of the generic report."""
    held = {"source": "git", "repository": "acme/app", "path": path, "line": line, **place}
    return {"provider": kind, "parts": {"secret": secret}, "place": held}


def sendgrid(n: int) -> str:
    """Return a made-up SendGrid key."""
    return f"SG.{n:022d}.{'k' * 10}{n:033d}"


def digitalocean(n: int) -> str:
    """Return a made-up DigitalOcean token; its reply to a wrong key is the one to no key."""
    return f"dop_v1_{n:064x}"
