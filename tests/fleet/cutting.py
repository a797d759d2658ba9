"""A machine of its own for a worker: a network namespace that can be cut off and joined again. Needs root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoMachineError(Exception):
    """Nobody may make network namespaces here; says why."""


class Machine:
    """The namespace `name`. Its processes reach this machine by `here` alone, while the cable is in."""

    def __init__(self, number: int) -> None:
        self.name, self.cable = f"lapse-{os.getpid()}", f"lps{os.getpid()}"[:14]
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"

    def make(self) -> None:
        other = f"{self.cable}b"
        for words in (
            f"netns add {self.name}",
            f"link add {self.cable} type veth peer name {other}",
            f"link set {other} netns {self.name}",
            f"addr add {self.here}/30 dev {self.cable}",
            f"link set {self.cable} up",
            f"-n {self.name} addr add {self.there}/30 dev {other}",
            f"-n {self.name} link set {other} up",
            f"-n {self.name} link set lo up",
        ):
            _ip(words)

    def cut(self) -> None:
        """Pull the cable: nobody is told, packets are lost."""
        _ip(f"link set {self.cable} down")

    def join(self) -> None:
        _ip(f"link set {self.cable} up")

    def words(self) -> list[str]:
        """Return what a command begins with that runs there; it keeps its process id."""
        return ["ip", "netns", "exec", self.name]


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoMachineError(f"`ip {words}` says: {done.stderr.strip() or done.returncode}")


@contextmanager
def machine() -> Iterator[Machine]:
    """Make one, and clear it away."""
    if shutil.which("ip") is None:
        raise NoMachineError("`ip` (iproute2) is not installed")
    made = Machine(os.getpid() % 250)
    try:
        made.make()
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", made.cable], capture_output=True, check=False)
