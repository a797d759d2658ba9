"""The HTTP client behind a Protocol: one client per pinned host, so that names are never resolved behind our back.

pyreqwest speaks HTTP/1.1 here. A client knows one host and one vetted address (`resolve`), follows no redirect, heeds
no proxy variable by itself and reads at most 64 KiB of a body, counted after decompression.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, ConnectTimeoutError, DecodeError, PyreqwestError, RequestTimeoutError
from pyreqwest.http import Url
from pyreqwest.proxy import ProxyBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyreqwest.response import Response

BODY_CAP = 64 * 1024
_LAST_BREATH = 0.1
_PROXY_WANTS_LOGIN = 407


class Answer(Struct, frozen=True, gc=False):
    """What came back: header names in lower case, at most `BODY_CAP` bytes of decompressed body."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool


class Failure(Struct, frozen=True, gc=False):
    """Nothing usable came back. `note` is the end of a sentence that begins with the host.

    `unsent`: the request cannot be written at all, trying again is no use. `connecting`: it may have
    been the address.
    """

    note: str
    unsent: bool = False
    connecting: bool = False


class Pin(Struct, frozen=True):
    """What one client may talk to: `host` at `address` only (`None`: the proxy resolves, or `host` is an address)."""

    host: str
    port: int
    address: str | None = None
    proxy: str | None = None


class Wire(Protocol):
    """A pool of connections for one pin."""

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float | None
    ) -> Answer | Failure:
        """Make one call; never raises for the network's sake. `deadline` (seconds) shortens the usual one."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class Transport(Protocol):
    """Makes wires."""

    def wire(self, pin: Pin) -> Wire:
        """Return a new wire; makes no connection yet. Raises `ValueError` when the client cannot be built."""
        ...


class Reqwest:
    """Transport over pyreqwest."""

    def __init__(self, *, user_agent: str, deadline: float, roots: tuple[bytes, ...] = ()) -> None:
        """Remember what every client shares. `roots` are PEM certificates trusted besides the system's."""
        self._user_agent, self._deadline, self._roots = user_agent, timedelta(seconds=deadline), roots

    def wire(self, pin: Pin) -> Wire:
        """Build the client for one pin."""
        _rest_before_exit()
        builder = (
            ClientBuilder()
            .no_proxy()
            .follow_redirects(enable=False)
            .referer(enable=False)
            .timeout(self._deadline)
            .connect_timeout(self._deadline / 2)
            .pool_idle_timeout(timedelta(seconds=30))
            .user_agent(self._user_agent)
            .default_headers({"accept": "application/json"})
        )
        for pem in self._roots:
            builder = builder.add_root_certificate_pem(pem)
        if pin.proxy is not None:
            builder = builder.proxy(ProxyBuilder.all(pin.proxy))
        elif pin.address is not None:
            builder = builder.resolve(pin.host, pin.address, pin.port)
        return _Pinned(builder.build())


@functools.cache
def _rest_before_exit() -> None:
    """Let the client's thread put down its last object before the interpreter ends.

    `Client.close` answers a moment earlier than that, and a thread that is caught in the act aborts the process: one
    exit in eight on a busy machine (pyreqwest 0.15 on Python 3.11).
    """
    atexit.register(time.sleep, _LAST_BREATH)


def reads_as(host: str) -> str | None:
    """Return the host that the HTTP client makes of `host`, without brackets; None when it makes nothing of it."""
    text = f"https://{f'[{host}]' if ':' in host else host}/"
    read = Url(text).host_str if Url.is_valid(text) else None
    return read.strip("[]") if read else None


class _Pinned:
    """A pyreqwest client that talks to one pin."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float | None
    ) -> Answer | Failure:
        """Make one call; see `Wire`."""
        try:
            # The client's own errors quote URL and header values: none may pass, nor be chained.
            builder = self._client.request(method, url).headers(headers)
            if body is not None:
                builder = builder.body_bytes(body)
            if deadline is not None:
                builder = builder.timeout(timedelta(seconds=deadline))
            request = builder.build_streamed()
        except (PyreqwestError, ValueError):
            return Failure(
                "cannot be sent this request: a header or the URL holds characters HTTP cannot carry", unsent=True
            )
        me = asyncio.current_task()
        told = me.cancelling() if me is not None else 0
        try:
            async with request as response:
                read = await response.body_reader.read(BODY_CAP + 1)
                content = bytes(read) if read is not None else b""
                truncated = len(content) > BODY_CAP
                answer: Answer | Failure = Answer(
                    response.status, _headers(response), content[:BODY_CAP] if truncated else content, truncated
                )
        except PyreqwestError as e:
            answer = _failure(e)
        if me is not None and me.cancelling() > told:
            # The client drops a cancellation that meets an answer on its way (pyreqwest 0.15): whoever was told to stop
            # would go on with the next key, though nobody records its verdict any more.
            raise asyncio.CancelledError
        return answer

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


def _headers(response: Response) -> dict[str, str]:
    """Headers as text, repeated ones joined by `, `; a value that is not text is left out."""
    headers = response.headers
    try:
        known: dict[str, str] = dict(headers)
    except ValueError:
        known = {}
        for name in headers.keys():  # noqa: SIM118  # iterating a HeaderMap decodes the values too
            try:
                known[name] = headers[name]
            except ValueError:
                continue
        return known
    if len(known) != len(headers):
        return {name: ", ".join(response.get_header_all(name)) for name in known}
    return known


_CERTIFICATE = (
    ("UnknownIssuer", "its certificate is not signed by a trusted authority; if a proxy inspects TLS, set ca_bundle"),
    ("not valid for name", "its certificate is for another name"),
    ("expired", "its certificate has expired"),
    ("not valid yet", "its certificate is not valid yet"),
    ("invalid peer certificate", "its certificate is not valid"),
)
_CAUSES = (
    ("Connection refused", "refused the connection"),
    ("reset by peer", "reset the connection"),
    ("closed before message", "closed the connection without an answer"),
    ("dns error", "has no address (DNS)"),
    ("tunnel", "could not be reached through the proxy"),
    ("received corrupt message", "does not speak TLS on this port"),
    ("InvalidContentType", "does not speak TLS on this port"),
    ("before message length", "sent less than it announced"),
    ("unexpected end of file", "sent less than it announced"),
    ("head is too large", "sent more headers than anybody should"),
    ("HTTP", "sent something that is not HTTP"),
)


def _failure(error: PyreqwestError) -> Answer | Failure:
    """Turn the client's error into the end of our own sentence; nothing of its text is kept."""
    details = getattr(error, "details", None) or {}
    # The first cause quotes the URL, the rest are about the connection.
    said = " / ".join(
        str(cause.get("message", "")) for cause in details.get("causes") or () if "url (" not in str(cause)
    )
    connecting = isinstance(error, ConnectError) and "(SendRequest)" not in said
    if "proxy authorization required" in said:
        return Answer(_PROXY_WANTS_LOGIN, {}, b"", truncated=False)
    for word, note in _CERTIFICATE:
        if word in said:
            return Failure(f"failed the TLS check: {note}")
    if isinstance(error, RequestTimeoutError):
        return Failure("did not answer in time", connecting=isinstance(error, ConnectTimeoutError))
    for word, note in _CAUSES:
        if word in said:
            return Failure(note, connecting=connecting)
    if isinstance(error, DecodeError):
        return Failure("sent a body that cannot be decoded")
    return Failure("could not be reached", connecting=connecting)
