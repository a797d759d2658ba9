"""A process that has everything imported and forks for each `lapse …`: as apart as a shell's, at a tenth of the price.

As a module it is the one who asks, `lapse`; run as a script it is the process itself, which reads one JSON object a
line (`words`, `cwd`, `env`, `in`, `out`, `err`: files) and answers with the exit code.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
LONGEST = 120.0
"""Seconds after which a command is killed."""


class Zygote:
    """The process, started at once and ended with the one who asks."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="lapse-zygote-"))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            bufsize=1, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        atexit.register(self.close)

    def close(self) -> None:
        self._process.communicate(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `lapse WORDS…` to its end, in a folder, with these variables and no others."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        files = {name: self._folder / name for name in ("in", "out", "err")}
        files["in"].write_text(stdin)
        order = {"words": list(words), "cwd": str(cwd), "env": dict(env)} | {n: str(p) for n, p in files.items()}
        self._process.stdin.write(json.dumps(order) + "\n")
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(
            words, code, files["out"].read_text("utf-8"), files["err"].read_text("utf-8")
        )


@cache
def _started() -> Zygote:
    return Zygote()


def lapse(*words: str, cwd: Path, env: Mapping[str, str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `lapse WORDS…` in a process of its own; return when it has ended. One at a time."""
    return _started().run(words, cwd, env, stdin or "")


# ── the process itself ─────────────────────────────────────────────────────────────────────────────────


def _child(order: dict[str, object]) -> None:
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    os.environ.update(order["env"])  # type: ignore[arg-type]  # text by text, as it was sent
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for number, name in enumerate(("in", "out", "err")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        handle = os.open(str(order[name]), flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.argv = ["lapse", *order["words"]]  # type: ignore[misc]  # as above
    from lapse.cli import main

    main()


def _ended(pid: int) -> int:
    """Return a child's exit code, after killing it if it took too long."""
    handle = os.pidfd_open(pid)
    if not select.select([handle], [], [], LONGEST)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve() -> None:
    """Answer until the other end is closed."""
    import sqlalchemy.dialects.sqlite  # noqa: F401  # what nearly every command needs
    import typer.main

    import playbooks.durable  # noqa: F401  # what a rotation needs
    import verifier.egress  # noqa: F401  # what a verification needs
    from lapse.cli import app

    for package in ("lapse.commands", "lapse.output", "verifier.ingest.formats"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    typer.main.get_command(app)
    gc.collect()
    gc.freeze()  # what was imported stays shared with the children
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SystemExit(f"{threads} threads before the first fork")

    orders, answers = os.dup(0), os.dup(1)  # 0 and 1 are the children's
    with os.fdopen(orders) as heard:
        for line in heard:
            pid = os.fork()
            if pid == 0:
                os.close(answers)
                _child(json.loads(line))
                os._exit(0)
            os.write(answers, f"{_ended(pid)}\n".encode())


if __name__ == "__main__":
    _serve()
