"""Programs of the sandbox die with the block that started them, whatever interrupts it, whenever."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lapse.sandbox.process import running


def sleepers(mark: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes()
        except OSError:
            continue
        if mark.encode() in words and int(place.parent.name) != os.getpid():
            found.append(words.decode(errors="replace"))
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_interrupt_between_the_start_and_the_block_leaves_nobody_behind() -> None:
    """The child itself sends it, after the fork and before its program begins: the very moment that was open."""
    mark = f"sleeper-{os.getpid()}-{time.monotonic_ns()}"
    command = [sys.executable, "-c", "import time; time.sleep(60)", mark]
    with (
        pytest.raises(KeyboardInterrupt),
        running(command, preexec_fn=lambda: os.kill(os.getppid(), signal.SIGINT)),
    ):
        pytest.fail("the interrupt was lost")
    assert sleepers(mark) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_childs_child_goes_as_well() -> None:
    mark = f"sleeper-{os.getpid()}-{time.monotonic_ns()}"
    inner = f"import subprocess,sys,time; subprocess.Popen([sys.executable,'-c','import time;time.sleep(60)','{mark}'])"
    with running([sys.executable, "-c", inner + "; time.sleep(60)", mark]):
        end = time.monotonic() + 30
        while len(sleepers(mark)) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(sleepers(mark)) >= 2
    end = time.monotonic() + 30
    while sleepers(mark) and time.monotonic() < end:
        time.sleep(0.02)
    assert sleepers(mark) == []


def test_a_program_that_is_not_there_leaves_the_handlers_as_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError), running(["/no/such/program"]):
        pass
    assert signal.getsignal(signal.SIGTERM) is before
