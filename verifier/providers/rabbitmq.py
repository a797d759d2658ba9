"""RabbitMQ (AMQP 0-9-1) log-ins: the PLAIN handshake up to the server's first question about the connection.

The password goes out only after the server has spoken AMQP and offered PLAIN; `amqps` begins in TLS. AMQP 0-9-1 knows
no way from clear to TLS, so that a server without TLS is asked as its clients ask it. No virtual host is opened.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "RabbitMQ"
PORT, TLS_PORT = 5672, 5671
_DOCS = "https://www.rabbitmq.com/docs/access-control"
_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD, _END = 1, 0xCE
_START, _TUNE, _CLOSE, _SECURE = (10, 10), (10, 30), (10, 50), (10, 20)
_REFUSED = "Login was refused using authentication mechanism PLAIN"
_LOOPBACK = "can only connect via localhost"


def _closed(text: str) -> str:
    return f'{{"method":"close","code":403,"text":"ACCESS_REFUSED - {text}"}}'


KINDS: tuple[Kind, ...] = (
    Kind(
        id="rabbitmq",
        title="RabbitMQ log-in",
        category="db",
        docs=_DOCS,
        parts=("username", "password", "host"),
        optional=("port", "database", "scheme"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=2, burst=2, concurrency=2),
        calls=(
            Call(
                kind="rabbitmq",
                method="LOGIN",
                scheme="amqp",
                host="{host}",
                path="/",
                reads="the handshake authenticates this connection only; no virtual host is opened",
                docs="https://www.rabbitmq.com/docs/access-control#mechanisms",
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"method": "tune"},
                has=("user",),
                note="logged in",
                source="https://www.rabbitmq.com/amqp-0-9-1-reference.html#connection.tune",
            ),
            Rule(
                verdict="undecided",
                status=0,
                words={"text": _LOOPBACK},
                why=Doubt.BLOCKED,
                note="this user may log in from the server itself only",
                source=_DOCS,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"method": "close", "code": 403},
                words={"text": _REFUSED},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this user and password",
                confidence=Confidence.OBSERVED,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"method": ("close", "secure")},
                why=Doubt.AMBIGUOUS,
                note="the server broke off, or wants more than a name and a password",
            ),
        ),
        example=(
            Example(status=0, verdict="live", body='{"method":"tune","user":"app"}', constructed=True),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body=_closed(f"{_REFUSED}: user 'guest' {_LOOPBACK}"),
                constructed=True,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body=_closed(f"{_REFUSED}. For details see the broker logfile."),
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"method":"close","code":320,"text":"CONNECTION_FORCED - broker forced connection closure"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    if not credential.parts["username"].reveal():
        return Undecided(Doubt.INCOMPLETE, note="the log-in has no user name")
    scheme = credential.parts.get("scheme")
    tls = scheme is not None and scheme.reveal().lower().startswith("amqps")
    return await login(kind, credential, door, handshake, TLS_PORT if tls else PORT, base_url)


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Log in and return which method the server answers with, and its words when it closes."""
    async with connected(admitted) as stream:
        if account.scheme == "amqps" or admitted.port == TLS_PORT:
            await stream.secure()
        await stream.write(_HEADER)
        method, body = await _frame(stream)
        if method != _START:
            raise WireError(Doubt.AMBIGUOUS, "the server does not speak AMQP 0-9-1")
        if b"PLAIN" not in _mechanisms(body):
            raise WireError(Doubt.UNSUPPORTED, "the server takes no name and password")
        await stream.write(_start_ok(account))
        method, body = await _frame(stream)
        if method == _TUNE:
            return {"method": "tune"}
        if method == _SECURE:
            return {"method": "secure"}
        if method != _CLOSE or len(body) < 3:  # a code and the length of its text
            raise WireError(Doubt.AMBIGUOUS, "the server answered something else than was asked")
        (code,) = struct.unpack_from(">H", body)
        return {"method": "close", "code": code, "text": body[3 : 3 + body[2]].decode("utf-8", "replace")}


async def _frame(stream: Stream) -> tuple[tuple[int, int], bytes]:
    """Return class and method of the next method frame, and its arguments."""
    kind, channel, size = struct.unpack(">BHI", await stream.read(7))
    if kind != _METHOD or channel != 0:  # `AMQP` and a version: the server speaks another one
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak AMQP 0-9-1")
    payload = await stream.read(size)
    if size < 4 or (await stream.read(1))[0] != _END:  # class and method
        raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds")
    method: tuple[int, int] = struct.unpack_from(">HH", payload)
    return method, payload[4:]


def _mechanisms(body: bytes) -> list[bytes]:
    """Return the mechanisms that connection.start offers: after two bytes of version and a table."""
    try:
        (table,) = struct.unpack_from(">I", body, 2)
        (size,) = struct.unpack_from(">I", body, 6 + table)
    except struct.error:
        return []
    return body[10 + table : 10 + table + size].split()


def _start_ok(account: Account) -> bytes:
    """Return connection.start-ok; the one capability asks the server to say why it closes."""
    capabilities = _short(b"authentication_failure_close") + b"t\x01"
    properties = _short(b"capabilities") + b"F" + _long(capabilities) + _short(b"product") + b"S" + _long(b"lapse")
    response = b"\x00" + account.username.encode() + b"\x00" + account.password.encode()
    payload = struct.pack(">HH", 10, 11) + _long(properties) + _short(b"PLAIN") + _long(response) + _short(b"en_US")
    return struct.pack(">BHI", _METHOD, 0, len(payload)) + payload + bytes([_END])


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text
