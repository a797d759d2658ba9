"""Forks a child for every attempt at a rotation and kills it in the middle: an attempt costs no start of Python.

    python chaos_zygote.py CONFIG MODULE…

Everything is imported and the catalogue read before the first fork; no thread, connection or runtime exists by then.
Jobs come as lines of JSON on stdin, what became of each goes as a line to stdout. `after` is when the child gets
SIGKILL (null: never), in seconds from the fork or, if `working`, from when the executor takes the run up. It is this
process that kills, so the child cannot do it late.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import msgspec
from chaos_attempt import Job, attempt, warm

from lapse.commands.setup import Setup

LONGEST = 120.0
"""Seconds that an attempt may take; longer is a failure of its own (status "stuck")."""


class Fate(msgspec.Struct, frozen=True):
    """What became of a child: killed by us, or its exit status (-1: it was stuck).

    It began to work `started` seconds after the fork (None: it never did) and lived for `seconds`.
    """

    killed: bool
    status: int
    started: float | None
    seconds: float


def fork(setup: Setup, job: Job) -> Fate:
    """Fork a child, kill it when its time has come, and say what became of it."""
    began = time.monotonic()
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hears)
        code = 1  # what `attempt` ends with if it breaks
        try:
            code = attempt(setup, job, tells)
        finally:
            os._exit(code)
    os.close(tells)
    handle = os.pidfd_open(child)
    started = None
    limit = began + (LONGEST if job.after is None or job.working else job.after)
    try:
        ended = _ended(handle, limit, hears)
        if not ended and time.monotonic() < limit:
            started = time.monotonic()
            limit = started + (LONGEST if job.after is None else job.after if job.working else limit - started)
            ended = _ended(handle, limit)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, said = os.waitpid(child, 0)
    finally:
        os.close(handle)
        os.close(hears)
    seconds, up = time.monotonic() - began, None if started is None else started - began
    if not ended and os.WIFSIGNALED(said):
        return Fate(job.after is not None, -1, up, seconds)
    return Fate(killed=False, status=os.waitstatus_to_exitcode(said), started=up, seconds=seconds)


def _ended(handle: int, limit: float, *others: int) -> bool:
    """Wait until the child ends (true), another descriptor speaks, or the time is over."""
    ready, _, _ = select.select([handle, *others], [], [], max(0.0, limit - time.monotonic()))
    return handle in ready


def main(config: Path, modules: list[str]) -> None:
    for module in modules:
        import_module(module)
    setup = Setup.of(config)
    warm(setup)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SystemExit(f"{threads} threads before the first fork")
    _say("ready")
    for line in sys.stdin:
        fate = fork(setup, msgspec.json.decode(line, type=Job))
        _say(msgspec.json.encode(fate).decode())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
