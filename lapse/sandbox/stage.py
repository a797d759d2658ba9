"""Where the demonstration plays: every command is shown as it is run, in a folder and an environment of its own."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from lapse.exits import Exit, Stop
from lapse.ledger import Select, State, open_ledger
from lapse.output.console import colour
from lapse.sandbox.process import running

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

LEDGER = "ledger.db"
"""The demonstration's ledger, below its folder."""

LOOK = 0.01
"""Seconds between two looks whether it is time to kill."""

_LEAVE = frozenset({Exit.OK, Exit.LIVE, Exit.UNDECIDED, Exit.WAITING})
_TOLD = {Exit.LIVE: "live keys remain", Exit.WAITING: "it waits", Exit.USAGE: "refused"}


class Shown(Struct, frozen=True):
    """A key of the ledger that was live when last asked: its short id, and the paths it was seen at."""

    key: str
    provider: str
    paths: tuple[str, ...]


class Stage:
    """Runs `lapse` and others in `folder`; whatever is said goes to stdout at once."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        """Take the folder to play in and the environment of every command."""
        self.folder, self.env = folder, dict(env)
        self._bold = ("\x1b[1m", "\x1b[0m") if colour() else ("", "")

    def head(self, text: str) -> None:
        """Begin a chapter."""
        on, off = self._bold
        say(f"\n{on}── {text} {'─' * max(0, 90 - len(text))}{off}")

    def prompt(self, words: Sequence[str], why: str = "") -> None:
        """Show a command before it runs."""
        on, off = self._bold
        say(f"\n{on}$ {shlex.join(words)}{off}" + (f"    # {why}" if why else ""))

    def lapse(self, *words: str, why: str = "", leave: Collection[int] = _LEAVE) -> int:
        """Show and run a command of ours; another exit code than those of `leave` ends the demonstration."""
        self.prompt(["lapse", *words], why)
        done = subprocess.run(_ours(words), cwd=self.folder, env=self.env, check=False)  # noqa: S603  # our own program
        if done.returncode not in leave:
            raise Stop(f"`lapse {shlex.join(words)}` ended with exit code {done.returncode}")
        if told := _TOLD.get(Exit(done.returncode)):
            say(f"(exit code {done.returncode}: {told})")
        return done.returncode

    def killed(self, *words: str, when: Callable[[], bool], why: str) -> bool:
        """Show and run a command of ours and kill it with SIGKILL once `when` says so; False if it ended before."""
        self.prompt(["lapse", *words], why)
        with running(_ours(words), cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL) as run:
            while run.poll() is None and not when():
                time.sleep(LOOK)
            run.send_signal(signal.SIGKILL)
            run.wait()
            return run.returncode == -signal.SIGKILL

    def alone(self, command: Sequence[str]) -> tuple[str, int]:
        """Run a program in a session of its own, so that none of its children outlives an interruption."""
        with running(
            command, cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as run:  # fmt: skip
            _, said = run.communicate()
        return said.decode(errors="replace"), run.returncode

    def quietly(self, *words: str) -> bytes:
        """Run a command of ours without showing it; return what it wrote."""
        done = subprocess.run(  # noqa: S603  # our own program
            _ours(words), cwd=self.folder, env=self.env, check=False, capture_output=True
        )
        if done.returncode not in {Exit.OK, Exit.LIVE}:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise Stop(f"`lapse {shlex.join(words)}` failed: {said[-1] if said else 'it said nothing'}")
        return done.stdout

    def live(self) -> list[Shown]:
        """Return the live keys of the ledger."""
        with open_ledger(self.folder / LEDGER) as ledger:
            return [
                Shown(key.short, key.provider, tuple(found.place.path or "" for found in ledger.places(key.id)))
                for key in ledger.keys(Select(states=frozenset({State.LIVE})))
            ]


def _ours(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "lapse.cli", *words]


def say(text: str) -> None:
    """Write a line, at once: what the commands write comes in between."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
