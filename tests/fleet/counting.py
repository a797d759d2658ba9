"""A provider on loopback that remembers when it was asked about what, and can be made to throttle or to be slow.

A key says itself what it is: `alpha-live-000001` works, `alpha-dead-000002` is revoked, `alpha-odd-000003` gets a reply
that nobody can judge. A state may be changed by `flip`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = ("alpha", "beta", "gamma")

_SPEC = """
title = "{kind}"
docs  = "https://docs.{kind}.example/api"

[[kind]]
id       = "{kind}"
title    = "{kind} key"
category = "saas"
docs     = "https://docs.{kind}.example/api"
limits   = {{ rate = 1, burst = 1, concurrency = 1 }}

[[kind.shape]]
prefix  = ["{kind}-"]
pattern = '{kind}-(live|dead|odd)-[0-9]{{6}}'

[kind.probe]
base   = ["https://api.{kind}.example"]
path   = "/v1/me"
bearer = "{{secret}}"
reads  = "returns the user whose key it is"
docs   = "https://docs.{kind}.example/api/me"

[[kind.rule]]
verdict = "live"
status  = 200
has     = ["user.id"]
note    = "names its user"

[[kind.rule]]
verdict    = "dead"
status     = 401
json       = {{ "error.code" = "key_revoked" }}
how        = "revoked"
arrival    = "proven"
note       = "key_revoked"
confidence = "documented"
source     = "https://docs.{kind}.example/api/errors"

[kind.identity]
principal = "user.id"
"""


def specs(folder: Path) -> None:
    """Write the specs of `KINDS`."""
    for kind in KINDS:
        (folder / f"{kind}.toml").write_text(_SPEC.format(kind=kind))


class Asked(NamedTuple):
    """One request: when, by this machine's monotonic clock, at which kind, about which key, and our answer's status."""

    at: float
    kind: str
    key: str
    status: int


class Counting:
    """The simulator. `slow` is how long an answer takes, in seconds; `busy_until` throttles by kind until then."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[Asked] = []
        self.slow = 0.0
        self.busy_until: dict[str, float] = {}
        self.retry_after: str | None = None
        self.flip: dict[str, str] = {}
        self._servers: list[asyncio.Server] = []

    def base_url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.port}/{kind}"

    async def listen(self, *more: str) -> None:
        """Listen on loopback and at `more` addresses of this machine, at one port."""
        self._servers = [await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)]
        self.port = self._servers[0].sockets[0].getsockname()[1]
        self._servers += [await asyncio.start_server(self._serve, host, self.port, backlog=512) for host in more]

    async def close(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                at = time.monotonic()
                kind = head.split("/", 2)[1]
                key = next(x for x in head.split("\r\n") if x.lower().startswith("authorization:")).split()[-1]
                status, more, body = self._answer(kind, key, at)
                self.asked.append(Asked(at, kind, key, status))
                if self.slow:
                    await asyncio.sleep(self.slow)
                text = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}"
                writer.write(f"{text}\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()

    def _answer(self, kind: str, key: str, at: float) -> tuple[int, str, str]:
        if at < self.busy_until.get(kind, 0.0):
            more = f"retry-after: {self.retry_after}\r\n" if self.retry_after else ""
            return 429, more, '{"error":{"code":"slow_down"}}'
        match self.flip.get(key) or key.split("-")[1]:
            case "live":
                return 200, "", json.dumps({"user": {"id": key[-6:]}})
            case "dead":
                return 401, "", '{"error":{"code":"key_revoked"}}'
            case _:
                return 403, "", '{"message":"not today"}'

    # ── what was counted ───────────────────────────────────────────────────────────────────────────────

    def times(self, kind: str) -> list[float]:
        return sorted(a.at for a in self.asked if a.kind == kind)

    def most_in_a_second(self, kind: str) -> int:
        """Return the most requests that any window of one second holds."""
        times = self.times(kind)
        return max((bisect_right(times, t + 1.0) - i for i, t in enumerate(times)), default=0)

    def between(self, kind: str, start: float, end: float) -> int:
        times = self.times(kind)
        return bisect_left(times, end) - bisect_left(times, start)

    def often(self) -> Counter[str]:
        """Return how often each key was asked about, refusals of our pace aside."""
        return Counter(a.key for a in self.asked if a.status != 429)


@contextmanager
def counting(*more: str) -> Iterator[Counting]:
    """Run the simulator in a thread of its own."""
    provider, loop = Counting(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(provider.listen(*more), loop).result()
    try:
        yield provider
    finally:
        asyncio.run_coroutine_threadsafe(provider.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
