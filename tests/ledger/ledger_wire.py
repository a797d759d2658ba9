"""A wire between a ledger and its PostgreSQL that can be cut at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from servers import Server

COMMIT = b"COMMIT\0"


class Cut(StrEnum):
    """When the wire breaks: as a commit is asked for, or once it is done and before anybody hears of it."""

    BEFORE = "before the commit"
    AFTER = "after the commit"


class Wire:
    """Passes bytes on between a client and the server. `cut` breaks the connection of the next commit, once."""

    def __init__(self, server: Server) -> None:
        self._server = (server.host, server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut: Cut | None = None
        self.commits = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                up = socket.create_connection(self._server)
                deaf = threading.Event()
                threading.Thread(target=self._down, args=(up, client, deaf), daemon=True).start()
                threading.Thread(target=self._up, args=(client, up, deaf), daemon=True).start()

    def _up(self, client: socket.socket, up: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError), client, up:
            while data := client.recv(1 << 16):
                cut = self.cut if COMMIT in data else None
                self.commits += COMMIT in data
                if cut is not None:
                    self.cut = None
                    if cut is Cut.BEFORE:
                        break
                    deaf.set()
                up.sendall(data)
                if cut is Cut.AFTER:
                    deaf.wait()
            client.shutdown(socket.SHUT_RDWR)
            up.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _down(up: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := up.recv(1 << 16):
                if deaf.is_set():
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
            up.shutdown(socket.SHUT_RDWR)
