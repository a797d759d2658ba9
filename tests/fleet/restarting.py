"""A PostgreSQL that can be cut down and started again, as a crash of its machine would."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import servers
from fleet_folder import until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Restarting:
    """The server; `url` is its superuser's."""

    def __init__(self, server: servers.Server) -> None:
        self._server, self._pid = server, server.pid
        words = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
        self._words = [w.decode() for w in words if w]
        self._next: subprocess.Popen[bytes] | None = None
        admin = server.admin
        self.url = f"postgresql://{admin['username']}:{admin['password']}@{server.host}:{server.port}/postgres"

    def listen(self, address: str) -> None:
        """Listen at one more address of this machine, which takes a restart."""
        at = self._words.index("-h") + 1
        self._words[at] = f"{self._words[at]},{address}"
        self.restart()

    def restart(self) -> None:
        """End it at once, without a word to anybody, and start it again; return when it takes log-ins."""
        os.kill(self._pid, signal.SIGQUIT)
        if self._next is not None:
            self._next.wait(30)
        until(lambda: not self._answers(), "the end of the server")
        until(lambda: not (self._server.folder / "data" / "postmaster.pid").exists(), "its last file")
        words, _ = servers._as_user("postgres")
        with (self._server.folder.parent / "again.log").open("ab") as log:
            self._next = subprocess.Popen(
                [*words, *self._words], stdout=log, stderr=subprocess.STDOUT, cwd=self._server.folder
            )
        self._pid = self._next.pid
        until(self._answers, "the server again")

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=5):
            return True
        return False

    def close(self) -> None:
        if self._next is not None:
            self._next.send_signal(signal.SIGTERM)
            self._next.wait(30)


@contextmanager
def restarting(folder: Path) -> Iterator[Restarting]:
    """Run one."""
    with servers.postgresql(folder) as server:
        made = Restarting(server)
        try:
            yield made
        finally:
            made.close()
