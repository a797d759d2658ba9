"""A loopback proxy that is awkward on purpose: it drops answers, says 503, is slow, or lets somebody else go first."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW = 0.7
"""Seconds that each way takes where it is slow."""
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class How(Enum):
    """What happens to a request."""

    LOST = "it never arrives, and the connection is closed"
    DROPPED = "it is done, and the connection is closed before the answer"
    BUSY = "503 instead of being passed on"
    THROTTLED = "429 instead of being passed on"
    LATE = "somebody else goes first"
    SLOW = "it is passed on after a while, and so is the answer"


@dataclass
class Mishap:
    """What happens to the next `times` requests whose first line and body hold all of `words`."""

    how: How
    words: tuple[str, ...]
    times: int = 1
    first: Callable[[], object] = lambda: None
    happened: int = 0

    def fits(self, text: str) -> bool:
        """Say whether this request is meant."""
        return self.happened < self.times and all(w in text for w in self.words)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # every method there is
            return self.relay
        raise AttributeError(name)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server
        assert isinstance(proxy, Awkward)
        mishap = proxy.next(f"{self.requestline}\n{body.decode('utf-8', 'replace')}")
        how = mishap.how if mishap else None
        if how in {How.BUSY, How.THROTTLED}:
            self.answer(503 if how is How.BUSY else 429, {}, b"")
            return
        if mishap is not None and how is How.LATE:
            mishap.first()
        pause = SLOW if how is How.SLOW else 0
        time.sleep(pause)
        if how is not How.LOST:
            reply, content = self.passed(body, *proxy.target)
            time.sleep(pause)
            if how is not How.DROPPED:
                self.answer(reply.status, {k: v for k, v in reply.getheaders() if k.lower() not in _HOP}, content)
                return
        self.close_connection = True

    def passed(self, body: bytes, host: str, port: int) -> tuple[http.client.HTTPResponse, bytes]:
        """Send it on as it came: the signature is over the host's name as well."""
        connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply, reply.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Awkward(ThreadingHTTPServer):
    """`with Awkward(server.url, mishaps) as proxy: proxy.url`."""

    daemon_threads = True

    def __init__(self, target: str, mishaps: list[Mishap]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        where = urlsplit(target)
        self.target = where.hostname or "", where.port or 80
        self.mishaps, self._turn = mishaps, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def next(self, text: str) -> Mishap | None:
        """Return what is to happen to a request, and count it."""
        with self._turn:
            found = next((m for m in self.mishaps if m.fits(text)), None)
            if found is not None:
                found.happened += 1
            return found

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
