"""Runs what a page types, as a terminal would: in one folder and environment, which `cd` and `.` may change."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import zygote

if TYPE_CHECKING:
    from docs_session import Block, Session

LONGEST = 240.0
"""Seconds for which something that stays up may take to come up, on a machine with much else to do."""

_MARK = "\0state\0"


class Player:
    """A terminal. What was left running is interrupted at the end, as by Ctrl-C, and must have ended well."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env
        self._left: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for process in self._left:
            process.send_signal(signal.SIGINT)
        for process in self._left:
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            if process.poll() is None:
                process.kill()
            assert process.wait() == 0 or kind is not None, f"{process.args!r} ended with {process.returncode}"

    def run(self, typed: str) -> tuple[int, str]:
        """Return exit code and output. `lapse` itself is forked, which is quicker; a shell takes what it prints."""
        typed = typed.replace("127.0.0.1:8017", f"127.0.0.1:{self.env.get('LAPSE_SERVE_PORT', 8017)}")
        ours, sign, rest = re.fullmatch(r"(lapse [^|;&><$*`]*)?([|>]?)(.*)", typed).groups()  # type: ignore[union-attr]  # every group may be empty: it always matches
        if ours is None:
            return self._shell(typed)
        done = zygote.lapse(*shlex.split(ours)[1:], cwd=self.folder, env=self.env)
        if not sign:
            return done.returncode, done.stdout + done.stderr
        code, out = self._shell(f"cat {sign} {rest}", done.stdout)
        return code, out + done.stderr

    def _shell(self, typed: str, stdin: str = "") -> tuple[int, str]:
        changes = typed.startswith("cd ")
        state = f"{typed} && printf '{_MARK}' && pwd && env -0".replace("\0", "\\0") if changes else typed
        done = subprocess.run(
            ["bash", "-c", state], cwd=self.folder, env=self.env, text=True, timeout=60, check=False, input=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said, _, rest = done.stdout.partition(_MARK)
        if rest:
            where, _, variables = rest.partition("\n")
            self.folder = Path(where)
            self.env = dict(line.split("=", 1) for line in variables.split("\0") if "=" in line)
        return done.returncode, said

    def leave_running(self, session: Session, block: Block) -> str:
        """Start the block's first command and wait until all that the block shows was said; return what was."""
        first, *_ = commands = block.commands()
        shown = [line for c in commands for line in c.shown] + [c.typed for c in commands[1:]]
        log = self.folder / ".left"
        with log.open("wb") as out:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
            words = shlex.split(first.typed)
            self._left.append(subprocess.Popen(words, cwd=self.folder, env=self.env, start_new_session=True, **streams))
        end = time.monotonic() + LONGEST
        while time.monotonic() < end and self._left[-1].poll() is None:
            said = log.read_text("utf-8", "replace")
            if not session.lacking(shown, said):
                return said
            time.sleep(0.2)
        said = log.read_text("utf-8", "replace")
        raise AssertionError(f"{session.page}:{first.line}: {session.lacking(shown, said)} was not said in\n{said}")
