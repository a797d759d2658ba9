"""Plays every provider that has a TOML spec, with the replies of the specs' own examples.

`http://127.0.0.1:PORT/KIND/…` answers as KIND would: a key it was told of by its state, any other as an unknown key,
a request without a key as one without a key. The one call with which a key ends itself (`rotators.issuers.self_revoke`)
ends it here, too: `LAG` later where the provider only says that it has accepted. It listens on loopback only and
remembers what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from base64 import b64decode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias
from urllib.parse import unquote

import msgspec

from rotators.issuers.self_revoke import revokers
from verifier.model import Doubt
from verifier.spec import Probe

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from types import TracebackType

    from rotators.issuers.self_revoke import Revoker
    from verifier.catalogue import Catalogue
    from verifier.spec import Example, Kind

State: TypeAlias = Literal["live", "restricted", "dead"]
LAG = 1.0
"""Seconds that a key goes on working after a provider has "accepted" its revocation."""

_MOST = 1 << 20
_REFUSALS = frozenset({400, 401, 403})


class Asked(NamedTuple):
    """One request as the simulator saw it; `known` when it carried a key the simulator was told of."""

    method: str
    kind: str
    path: str
    known: bool


class Saas:
    """The simulator. `async with Saas(catalogue) as saas: saas.add("openai", secret, "live")`."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Take the catalogue whose examples are the replies."""
        self._catalogue = catalogue
        self._keys: dict[str, dict[str, State]] = {}
        self._ends: dict[str, float] = {}
        self._server: asyncio.Server | None = None
        self.port = 0
        self.asked: list[Asked] = []

    def add(self, kind: str, secret: str, state: State) -> None:
        """Tell the simulator of a key, or change its state."""
        self._keys.setdefault(kind, {})[secret] = state

    def ending(self, secret: str) -> bool:
        """Say whether the key was told to end, whether it has ended yet or not."""
        return secret in self._ends

    def base_url(self, kind: str) -> str:
        """Return the address to write into `[providers.KIND] base_url`."""
        return f"http://127.0.0.1:{self.port}/{kind}"

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *fields = head.decode("latin-1").split("\r\n")
                headers = {k.strip().lower(): v.strip() for k, _, v in (f.partition(":") for f in fields if f)}
                body = await reader.readexactly(min(int(headers.get("content-length", "0")), _MOST))
                writer.write(self._answer(line, headers, body.decode("utf-8", "replace")))
                await writer.drain()
                if headers.get("connection", "").lower() == "close":
                    break
        writer.close()

    def _answer(self, line: str, headers: dict[str, str], body: str) -> bytes:
        method, target, _ = line.split(" ", 2)
        name = target.split("/", 2)[1].partition("?")[0]
        kind = self._catalogue.get(name)
        carried = "\n".join([unquote(target), *map(_plain, headers.values()), body])
        state = next((self._state(s, at) for s, at in self._keys.get(name, {}).items() if s in carried), None)
        path = "/" + (target.split("/", 2)[2] if target.count("/") > 1 else "").partition("?")[0]
        self.asked.append(Asked(method, name, path, known=state is not None))
        if kind is None:
            return _http(404, {"content-type": "application/json"}, '{"sandbox":"no such kind of key"}')
        ending = revokers().get(name)
        if ending is not None and (ending.method, ending.path) == (method, path):
            return self._end(ending, name, carried)
        carrier = kind.probe.carrier if isinstance(kind.probe, Probe) else "url"
        arrived = carrier in headers or carrier in {"url", "body"}
        return self._reply(kind, state, carried, arrived=arrived)

    def _state(self, secret: str, told: State) -> State:
        """Return what a key is at this moment."""
        return "dead" if time.monotonic() >= self._ends.get(secret, float("inf")) else told

    def _end(self, ending: Revoker, name: str, carried: str) -> bytes:
        """Let the keys that came along end; the answer is the same whether there were any."""
        lag = LAG if ending.proof == "accepted" else 0.0
        for secret in self._keys.get(name, {}):
            if secret in carried:
                self._ends.setdefault(secret, time.monotonic() + lag)
        said = {ending.says.field: ending.says.value} if ending.says else {}
        return _http(ending.done[-1], {"content-type": "application/json"}, msgspec.json.encode(said).decode())

    def _reply(self, kind: Kind, state: State | None, carried: str, *, arrived: bool) -> bytes:
        example = _example(kind, state or "dead") if arrived else _absent(kind) or _example(kind, "dead")
        if example is None:
            return _http(501, {"content-type": "application/json"}, '{"sandbox":"no example of this answer"}')
        secret = next((s for s in self._keys.get(kind.id, {}) if s in carried), "")
        headers = {k.lower(): v for k, v in example.headers.items()}
        if "content-type" not in headers:
            headers["content-type"] = _guess(example.body)
        return _http(example.status, headers, example.body.replace("{secret}", secret))


@contextmanager
def playing(saas: Saas) -> Iterator[Saas]:
    """Run the simulator in a thread of its own until the context ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="saas")
    thread.start()

    def wait(coroutine: Coroutine[object, object, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        wait(saas.__aenter__())
        yield saas
    finally:
        wait(saas.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _example(kind: Kind, state: State) -> Example | None:
    """Return the reply of that state; where no reply proves a death, the refusal that leaves it undecided."""
    found = next((e for e in kind.example if e.verdict == state), None)
    if found is None and state == "dead":
        return next((e for e in kind.example if e.verdict == "undecided" and e.status in _REFUSALS), None)
    return found


def _absent(kind: Kind) -> Example | None:
    """Return the answer to a request without a key, where it differs from the one to an unknown key."""
    return next((e for e in kind.example if e.why is Doubt.INCOMPLETE), None)


def _plain(value: str) -> str:
    """Return a header's value, Basic credentials decoded."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != "basic":
        return value
    try:
        return b64decode(rest, validate=True).decode("utf-8", "replace")
    except ValueError:
        return value


def _guess(body: str) -> str:
    try:
        msgspec.json.decode(body.encode())
    except msgspec.DecodeError:
        return "text/html" if body.lstrip().startswith("<") else "text/plain"
    return "application/json"


def _http(status: int, headers: dict[str, str], body: str) -> bytes:
    raw = body.encode()
    lines = [f"HTTP/1.1 {status} -", *(f"{k}: {v}" for k, v in headers.items()), f"content-length: {len(raw)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + raw
