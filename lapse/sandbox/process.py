"""Programs of the sandbox: each in a session of its own, and none outlives the block that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

GRACE = 5.0
"""Seconds between asking a program to stop and killing it with all its children."""

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def running(command: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[bytes]]:  # noqa: ANN401  # of Popen
    """Run a program until the block ends, in a session of its own, so that Ctrl-C reaches us first.

    A signal that comes while the program is being started is held until it can be stopped again: between the fork and
    the first line of a `try` it would leave a program behind that nobody knows.
    """
    held: list[int] = []

    def hold(number: int, _: FrameType | None) -> None:
        held.append(number)

    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, hold) for number in _ENDINGS} if ours else {}
    try:
        process = subprocess.Popen(command, start_new_session=True, **settings)  # noqa: S603  # our own words
    except BaseException:
        _release(before, held)
        raise
    try:
        _release(before, held)
        yield process
    finally:
        _stop(process)


def _release(before: dict[signal.Signals, Any], held: list[int]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
    for late in held:
        signal.raise_signal(late)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the program to stop, then kill what is left of its group: a wrapper's child may outlive the wrapper."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
