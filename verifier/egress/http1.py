"""HTTP/1.1 to one pinned address, on the event loop itself: the direct way out. Proxies are `transport.Reqwest`'s.

A connection is made to the vetted address and to nothing else; the name only goes into TLS and the Host header. One
request is under way on a connection at a time; whatever a server sends beyond its one reply costs it the connection.
What is not plain HTTP/1.1 (a folded header, two lengths, a bad chunk) is a failure, never guessed at.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import zlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from verifier.egress.address import literal
from verifier.egress.transport import BODY_CAP, Answer, Failure, Pin, Reqwest, Wire

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD_CAP = 64 * 1024
_IDLE = 30.0
_PORTS = {"https": 443, "http": 80}
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_TARGET = re.compile(r"[!$-~]*")
_SAFE = "!$%&'()*+,-./:;=?@[]^_`{|}~"
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}(?:[ \t]*;[^\r\n]*)?[ \t]*")
_BARE = frozenset({204, 304})
_SWITCHING = 101
_UNSENT = Failure("cannot be sent this request: a header or the URL holds characters HTTP cannot carry", unsent=True)
_LATE = Failure("did not answer in time")
_NOT_HTTP = Failure("sent something that is not HTTP")
_UNDECODED = Failure("sent a body that cannot be decoded")
_SHORT = Failure("sent less than it announced")
_NO_ANSWER = Failure("closed the connection without an answer")
_RESET = Failure("reset the connection")
_MANY = Failure("sent more headers than anybody should")


class Direct:
    """Transport that connects by itself, and leaves what goes through a proxy to another one."""

    def __init__(self, *, user_agent: str, deadline: float, roots: tuple[bytes, ...] = ()) -> None:
        """Remember what every connection shares. `roots` are PEM certificates trusted besides the system's."""
        self._user_agent, self._deadline, self._roots = user_agent, deadline, roots
        self._proxied = Reqwest(user_agent=user_agent, deadline=deadline, roots=roots)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on since Python 3.13; many a company's own authority fails it
        if self._roots:
            context.load_verify_locations(cadata=b"\n".join(self._roots).decode("ascii"))
        return context

    def wire(self, pin: Pin) -> Wire:
        """Return the wire for one pin. Raises `ValueError` for bad certificates, and for a name with no address."""
        if pin.proxy is not None:
            return self._proxied.wire(pin)
        if literal(pin.address or pin.host) is None:
            raise ValueError("no address was pinned, and a name is never resolved here")
        if pin.scheme == "http":
            return _Wire(pin, self._user_agent, self._deadline, None)
        try:
            return _Wire(pin, self._user_agent, self._deadline, self._tls)
        except ssl.SSLError:
            raise ValueError("the certificates cannot be read") from None


class _Wire:
    """The connections to one pin. Idle ones are kept, the youngest is used first."""

    def __init__(self, pin: Pin, user_agent: str, deadline: float, tls: ssl.SSLContext | None) -> None:
        self._pin, self._deadline, self._tls = pin, deadline, tls
        self._address = pin.address or pin.host
        host = f"[{pin.host}]" if ":" in pin.host else pin.host
        where = host if pin.port == _PORTS[pin.scheme] else f"{host}:{pin.port}"
        self._host = f"Host: {where}\r\n"
        self._agent = f"User-Agent: {user_agent}\r\n"
        self.idle: list[_Line] = []
        self.lines: set[_Line] = set()

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float | None
    ) -> Answer | Failure:
        """Make one call; see `Wire`."""
        message = self._message(method, url, headers, body)
        if message is None:
            return _UNSENT
        loop = asyncio.get_running_loop()
        now = loop.time()
        end = now + (self._deadline if deadline is None else min(deadline, self._deadline))
        line = self._idle(now)
        if line is not None:
            said = await line.ask(message, bare=method == "HEAD", end=end)
            if said is not None:
                return said
            if method == "POST":  # it may have been read before the connection went: whoever retries must decide
                return _NO_ANSWER
        made = await self._connect(loop, end)
        if isinstance(made, Failure):
            return made
        return await made.ask(message, bare=method == "HEAD", end=end) or _NO_ANSWER

    def _message(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> bytes | None:
        """Return the request as bytes, None when HTTP cannot carry it."""
        _, _, rest = url.partition("://")
        start = rest.find("/")
        target = (rest[start:] if start >= 0 else "/").partition("#")[0]
        if not _TARGET.fullmatch(target):
            if _UNSENDABLE.search(target):
                return None
            target = quote(target, safe=_SAFE)
        lines = [f"{method} {target} HTTP/1.1\r\n{self._host}"]
        agent, accept = self._agent, "Accept: application/json\r\n"
        for name, value in headers.items():
            said = _header(name)
            if said is None or _UNSENDABLE.search(value):
                return None
            if said == "accept":
                accept = ""
            elif said == "user-agent":
                agent = ""
            lines.append(f"{name}: {value}\r\n")
        length = f"Content-Length: {len(body or b'')}\r\n" if method == "POST" else ""
        lines.append(f"{agent}{accept}Accept-Encoding: gzip\r\n{length}\r\n")
        return "".join(lines).encode() + (body or b"")

    def _idle(self, now: float) -> _Line | None:
        """Return a connection that can be used again."""
        while self.idle:
            line = self.idle.pop()
            if line.open and now - line.since < _IDLE:
                return line
            line.close()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, end: float) -> _Line | Failure:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + self._deadline / 2)):
                _, line = await loop.create_connection(
                    lambda: _Line(self, loop),
                    self._address,
                    self._pin.port,
                    ssl=self._tls,
                    server_hostname=self._pin.host if self._tls else None,
                )
        except TimeoutError:
            return Failure(_LATE.note, connecting=True)
        except (OSError, ssl.CertificateError) as error:
            return _unconnected(error)
        return line

    async def close(self) -> None:
        """Close every connection."""
        for line in list(self.lines):
            line.close()
        self.idle.clear()
        await asyncio.sleep(0)


@lru_cache(maxsize=1024)
def _header(name: str) -> str | None:
    """Return a header's name in lower case, None when it is none."""
    return name.lower() if _NAME.fullmatch(name) else None


_CERTIFICATE = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    62: "its certificate is for another name",
    64: "its certificate is for another name",
} | dict.fromkeys(
    (2, 18, 19, 20, 21, 27),
    "its certificate is not signed by a trusted authority; if a proxy inspects TLS, set ca_bundle",
)
"""OpenSSL's verify codes."""


def _unconnected(error: OSError) -> Failure:
    """Say why there is no connection, in words of our own."""
    match error:
        case ssl.SSLCertVerificationError(verify_code=code):
            return Failure(f"failed the TLS check: {_CERTIFICATE.get(code, 'its certificate is not valid')}")
        case ssl.SSLError(reason=str(why)) if "VERSION" in why or "HTTP" in why or "RECORD" in why or "PACKET" in why:
            return Failure("does not speak TLS on this port", connecting=True)
        case ssl.SSLError():
            return Failure("could not agree on TLS", connecting=True)
        case ConnectionRefusedError():
            return Failure("refused the connection", connecting=True)
        case ConnectionResetError():
            return Failure(_RESET.note, connecting=True)
        case _:
            return Failure("could not be reached", connecting=True)


class _Line(asyncio.Protocol):
    """One connection, with the one request that is under way on it."""

    __slots__ = ("_bare", "_body", "_got", "_loop", "_out", "_reader", "_timer", "_waiter", "_wire", "open", "since")

    def __init__(self, wire: _Wire, loop: asyncio.AbstractEventLoop) -> None:
        self._wire, self._loop = wire, loop
        self._out: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer | Failure | None] | None = None
        self._got = b""
        self._reader: _Reader | None = None
        self._bare = False
        self.open = False
        self.since = 0.0

    async def ask(self, message: bytes, *, bare: bool, end: float) -> Answer | Failure | None:
        """Send one request and return what came; None when the connection was closed before a byte came."""
        if self._out is None:
            return None
        waiter: asyncio.Future[Answer | Failure | None] = self._loop.create_future()
        self._waiter = waiter
        self._bare, self._got, self._reader = bare, b"", None
        timer = self._loop.call_at(end, self._late)
        self._out.write(message)
        try:
            return await waiter
        finally:
            timer.cancel()
            # A line that is idle again may carry somebody else's request by now.
            if self._waiter is waiter:  # cancelled: the reply that is still to come belongs to nobody
                self._waiter = None
                self.close()

    def close(self) -> None:
        """Drop the connection."""
        self.open = False
        if self._out is not None:
            self._out.abort()

    def _late(self) -> None:
        self._end(_LATE)

    def _end(self, said: Answer | Failure | None, *, keep: bool = False) -> None:
        waiter, self._waiter = self._waiter, None
        self._got, self._reader = b"", None
        if keep and self.open:
            self.since = self._loop.time()
            self._wire.idle.append(self)
        else:
            self.close()
        if waiter is not None and not waiter.done():
            waiter.set_result(said)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._out = cast("asyncio.Transport", transport)
        self.open = True
        self._wire.lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way: the end of the body where it has no length, else a failure."""
        self.open = False
        self._wire.lines.discard(self)
        if self._waiter is None:
            return
        if self._reader is not None:
            self._end(_RESET if isinstance(exc, ConnectionResetError) else self._reader.eof())
        elif self._got:
            self._end(_SHORT)
        else:
            self._end(_RESET if isinstance(exc, ConnectionResetError) else None)

    def data_received(self, data: bytes) -> None:
        """Take in what came; a byte that nobody asked for ends the connection."""
        if self._waiter is None:
            self.close()
            return
        reader = self._reader
        if reader is None:
            data = self._got + data if self._got else data
            while True:
                end = data.find(b"\r\n\r\n")
                if end < 0 or end > HEAD_CAP:
                    self._unfinished(data)
                    return
                head = _head(data[:end])
                if isinstance(head, Failure):
                    self._end(head)
                    return
                data = data[end + 4 :]
                if head.status >= 200:  # what comes before is no answer yet (RFC 9110, 15.2)
                    break
            framed = _framed(head, bare=self._bare)
            if isinstance(framed, Failure):
                self._end(framed)
                return
            reader = framed
        said = reader.feed(data)
        if said is None:
            self._reader = reader
        else:
            self._end(said, keep=reader.keep)

    def _unfinished(self, data: bytes) -> None:
        if not b"HTTP/1.".startswith(data[:7]):
            self._end(_NOT_HTTP)
        elif len(data) > HEAD_CAP:
            self._end(_MANY)
        else:
            self._got = data


class _Head:
    """Status line and headers. `lengths`, `codings` and `encoding` are what frames the body."""

    __slots__ = ("codings", "encoding", "headers", "keep", "lengths", "status")

    def __init__(self, status: int, *, keep: bool) -> None:
        self.status, self.keep = status, keep
        self.headers: dict[str, str] = {}
        self.lengths = self.codings = self.encoding = ""


def _head(raw: bytes) -> _Head | Failure:
    """Read a reply's head. A value that is not plain text is left out, as if it had not been sent."""
    first, *lines = raw.split(b"\r\n")
    m = _STATUS.fullmatch(first)
    if m is None:
        return _NOT_HTTP
    head = _Head(int(m[2]), keep=m[1] == b"1")
    headers = head.headers
    if head.status == _SWITCHING:
        return _NOT_HTTP
    for line in lines:
        name, colon, rest = line.partition(b":")
        said = _header(name.decode("latin-1")) if colon else None
        if said is None:
            return _NOT_HTTP
        value = rest.decode("latin-1").strip(" \t")
        if not (value.isascii() and value.isprintable()):
            if _UNSENDABLE.search(value):
                return _NOT_HTTP
            continue
        headers[said] = f"{headers[said]}, {value}" if said in headers else value
    head.lengths = headers.get("content-length", "")
    head.codings = headers.get("transfer-encoding", "")
    head.encoding = headers.get("content-encoding", "")
    if (said := headers.get("connection")) and "close" in said.lower():
        head.keep = False
    return head


def _framed(head: _Head, *, bare: bool) -> _Reader | Failure:
    """Say where the body ends (RFC 9112, 6.3) and how it is encoded."""
    if bare or head.status in _BARE:
        return _Reader(head, 0)
    unpack = None
    if head.encoding and head.encoding.lower() != "identity":
        if head.encoding.lower() not in {"gzip", "x-gzip"}:
            return _UNDECODED
        unpack = zlib.decompressobj(wbits=31)
        for name in ("content-encoding", "content-length"):
            head.headers.pop(name, None)
    if head.codings:
        if head.codings.lower() != "chunked" or head.lengths:
            return _NOT_HTTP
        return _Reader(head, None, _Chunks(), unpack)
    if not head.lengths:
        head.keep = False
        return _Reader(head, None, None, unpack)
    told = {n.strip() for n in head.lengths.split(",")}
    length = told.pop()
    if told or not (length.isdigit() and len(length) < 16):
        return _NOT_HTTP
    return _Reader(head, int(length), None, unpack)


class _Reader:
    """The body as it comes. `keep` says whether the connection may be used again once it is whole."""

    __slots__ = ("_begun", "_body", "_chunks", "_head", "_left", "_unpack", "keep")

    def __init__(
        self, head: _Head, length: int | None, chunks: _Chunks | None = None, unpack: zlib._Decompress | None = None
    ) -> None:
        self._head, self._left, self._chunks, self._unpack = head, length, chunks, unpack
        self._body = b""
        self._begun = False
        self.keep = head.keep

    def feed(self, data: bytes) -> Answer | Failure | None:
        """Take in bytes; return the answer once it is whole, or as much of it as anybody reads."""
        whole = False
        if self._left is not None:
            if len(data) > self._left:
                self.keep = False
                data = data[: self._left]
            self._left -= len(data)
            whole = not self._left
        elif self._chunks is not None:
            plain = self._chunks.feed(data)
            if plain is None:
                return _UNDECODED
            data, whole = plain, self._chunks.done
            self.keep = self.keep and not self._chunks.beyond
        if data:
            self._begun = True
            if self._unpack is not None:
                try:
                    data = self._unpack.decompress(data, BODY_CAP + 1 - len(self._body))
                except zlib.error:
                    return _UNDECODED
            self._body = self._body + data if self._body else data
            if len(self._body) > BODY_CAP:
                self.keep = False
                return Answer(self._head.status, self._head.headers, self._body[:BODY_CAP], truncated=True)
        return self._whole() if whole else None

    def eof(self) -> Answer | Failure:
        """Return the answer when the end of the connection is the end of the body, else what went wrong."""
        return self._whole() if self._left is None and self._chunks is None else _SHORT

    def _whole(self) -> Answer | Failure:
        if self._unpack is not None and self._begun and not self._unpack.eof:
            return _SHORT
        return Answer(self._head.status, self._head.headers, self._body, truncated=False)


class _Chunks:
    """Undoes the chunked coding. `done` after the last chunk and its trailers; `beyond` when more came than that."""

    __slots__ = ("_got", "_left", "_trailers", "beyond", "done")

    def __init__(self) -> None:
        self._got = b""
        self._left = 0
        self._trailers = self.done = self.beyond = False

    def feed(self, data: bytes) -> bytes | None:
        """Return the plain bytes of what came, None when that is no chunked coding."""
        got, plain = self._got + data, []
        while got and not self.done:
            if self._left > 2:
                part = got[: self._left - 2]
                plain.append(part)
                got, self._left = got[len(part) :], self._left - len(part)
            elif self._left:  # the CRLF behind a chunk
                part = got[: self._left]
                if not b"\r\n"[-self._left :].startswith(part):
                    return None
                got, self._left = got[len(part) :], self._left - len(part)
            else:
                line, end, rest = got.partition(b"\r\n")
                if not end:
                    if len(got) > HEAD_CAP:
                        return None
                    break
                got = rest
                if self._trailers:
                    self.done = not line
                    continue
                if not _CHUNK.fullmatch(line):
                    return None
                size = int(line.partition(b";")[0], 16)
                self._left = size + 2 if size else 0
                self._trailers = not size
        self.beyond = self.done and bool(got)
        self._got = b"" if self.done else got
        return b"".join(plain)
