"""A command of one's own: it gets the secret on its standard input, never in an argument or a variable.

Settings: `command` (words as a shell would split them; no shell runs), `field` (one value as it is; else all of them as
a JSON object), `check` (a command whose exit status 0 means that the run's value is in place, 1 that it is not),
`folder`, `timeout` (seconds, 60). Both commands find the run's name in `LAPSE_RUN`, and of our own environment only
`PATH`, `HOME` and `LANG`. What they print is thrown away: it may be the secret.

The whole input lies in the pipe before a command begins: were it fed one piece at a time, our death in between would be
an early end of input, and a command like `cat > config` would put half of a secret, or none, into use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import msgspec

from rotators.handing import chosen
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done, Failed, Outcome, Unsure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rotators.interface import Settings
    from verifier.secret import Secret

_KEPT = ("PATH", "HOME", "LANG")
_NO = 1
_MOST = 1 << 20
"""Bytes that Linux lets anybody's pipe hold."""


class Command:
    """See the module's docstring."""

    name = "command"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {"push": ("run the command on this machine",)}

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; what cannot be split into words is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._command = _words(settings, "command")
        self._check = _words(settings, "check")
        if not self._command:
            raise ProviderError(Trouble.REFUSED, "command needs a `command`")
        text = settings.get("timeout") or "60"
        if not text.isdigit() or not int(text):
            raise ProviderError(Trouble.REFUSED, f"timeout = {text!r} is not a number of seconds")
        self._timeout = float(text)

    def preflight(self) -> Sequence[Fact]:
        """See that the programs are there and may be run; neither of them is."""
        folder = self._settings.get("folder") or None
        if folder is not None and not os.path.isdir(folder):  # noqa: PTH112  # as the system will take it
            raise ProviderError(Trouble.GONE, f"there is no folder {folder} to run {self._command[0]} in")
        for words in filter(None, (self._command, self._check)):
            where = os.path.join(folder, words[0]) if folder and "/" in words[0] else words[0]  # noqa: PTH118  # same
            if shutil.which(where) is None:
                raise ProviderError(Trouble.GONE, f"there is no program {words[0]} that could be run")
        return [Fact("consumer", f"{self._command[0]} is there")]

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        """Run the command; a status other than 0 is `Failed`, running out of time is `Unsure`."""
        if field := self._settings.get("field"):
            given = chosen(fields, field).reveal().encode()
        else:
            given = msgspec.json.encode({name: value.reveal() for name, value in fields.items()})
        status = self._run(self._command, given, run)
        if status is None:
            return Unsure(f"{self._command[0]} did not end within {self._timeout:.0f} s and was killed")
        if status:
            return Failed(f"{self._command[0]} ended with status {status}", "run it by hand to see what it says")
        return Done(f"{self._command[0]} took the new value")

    def pushed(self, run: str) -> bool | None:
        """Ask the `check` command; `None` without one, or when it ends with anything but 0 and 1."""
        if not self._check:
            return None
        status = self._run(self._check, b"", run)
        return {0: True, _NO: False}.get(_NO + 1 if status is None else status)

    def _run(self, words: Sequence[str], given: bytes, run: str) -> int | None:
        environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
        with _filled(given) as ready:
            try:
                process = subprocess.Popen(  # noqa: S603  # the playbook's own words, no shell
                    words,
                    stdin=ready,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=self._settings.get("folder") or None,
                    env={**environ, "LAPSE_RUN": run},
                    start_new_session=True,
                )
            except OSError as e:
                raise ProviderError(Trouble.REFUSED, f"cannot run {words[0]}: {e.strerror}") from None
        try:
            process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        return process.returncode


@contextlib.contextmanager
def _filled(given: bytes) -> Iterator[int]:
    """Yield the reading end of a pipe that holds all of `given` and will hold no more; too much is `REFUSED`."""
    ready, feed = os.pipe()
    try:
        os.set_blocking(feed, False)
        if hasattr(fcntl, "F_SETPIPE_SZ") and len(given) > fcntl.fcntl(feed, fcntl.F_GETPIPE_SZ):
            with contextlib.suppress(OSError):
                fcntl.fcntl(feed, fcntl.F_SETPIPE_SZ, min(len(given), _MOST))
        try:
            room = os.write(feed, given) if given else 0
        except BlockingIOError:  # some systems take all or nothing
            room = 0
        os.close(feed)
        if room < len(given):
            raise ProviderError(Trouble.REFUSED, f"{len(given)} bytes are more than can be handed over at once")
        yield ready
    finally:
        os.close(ready)


def _words(settings: Settings, name: str) -> list[str]:
    try:
        return shlex.split(settings.get(name, ""))
    except ValueError:
        raise ProviderError(Trouble.REFUSED, f"{name}: its quotes don't match") from None


def make(settings: Settings) -> Command:
    """Return the consumer for a playbook's slot."""
    return Command(settings)
