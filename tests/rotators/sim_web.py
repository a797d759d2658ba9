"""What the simulated clouds stand on: a loopback server, a clock to set forward, throttling, a log of calls."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import ssl
    from types import TracebackType


@dataclass(frozen=True)
class Asked:
    """One request, its path decoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


@dataclass
class Refused(Exception):  # noqa: N818  # it is what a server says, not an error of the test
    """The answer to a call that is refused."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class World:
    """A small world behind HTTP: subclasses answer in `answer` or raise `Refused`. One lock: each call is atomic."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.lock = threading.RLock()
        self.calls: list[Asked] = []
        self.throttled = 0
        self.broken = 0
        self.servers: list[ThreadingHTTPServer] = []

    def now(self) -> float:
        return time.time() + self.offset

    def pass_time(self, seconds: float) -> None:
        self.offset += seconds

    def answer(self, asked: Asked) -> Any:
        raise NotImplementedError

    def throttle(self) -> Refused:
        return Refused(429, {"error": {"code": 429, "message": "Too many requests."}}, {"retry-after": "7"})

    def serve(self, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        with self.lock:
            self.calls.append(asked)
            try:
                said = self._say(asked)
            except Refused as no:
                return no.status, no.body, no.headers
            return (204, None, {}) if said is None else (200, said, {})

    def _say(self, asked: Asked) -> Any:
        if self.throttled:
            self.throttled -= 1
            raise self.throttle()
        if self.broken:
            self.broken -= 1
            raise Refused(503, "<html>Service Unavailable</html>")
        return self.answer(asked)

    def listen(self, tls: ssl.SSLContext | None = None) -> int:
        world = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def _any(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("content-length") or 0)
                headers = {k.lower(): v for k, v in self.headers.items()}
                asked = Asked(
                    self.command, unquote(parts.path), dict(parse_qsl(parts.query)), headers, self.rfile.read(length)
                )
                status, body, more = world.serve(asked)
                sent = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if "content-type" not in more:
                    self.send_header("content-type", "text/html" if isinstance(body, str) else "application/json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815  # the base class asks for these names

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.servers.append(server)
        return int(server.server_port)

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
