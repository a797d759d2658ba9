"""TDS 7.4, the client's half of a log-in: packets, TLS inside packets, LOGIN7, and the server's answer.

SQL Server speaks it, on its own machines and as Azure SQL. Written from [MS-TDS]; no query can be built here.
Specification: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-tds/
"""

from __future__ import annotations

import ssl
import struct
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from verifier.model import Doubt
from verifier.wire import LONGEST, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.wire import Account, Stream

PRELOGIN, LOGIN7, RESPONSE = 0x12, 0x10, 0x04
ENCRYPTED = frozenset({0x01, 0x03})
"""The server's answers to "encrypt all" that do: it is on, or required."""
LONGEST_NAME = 128
"""UTF-16 units that a name or a password in LOGIN7 may have."""

_HEAD = 8
_LAST = 0x01
_ROUNDS = 12
_TDS_74 = 0x74000004
_OPTIONS_1, _FIXED = 0xE0, 94
_VERSION_OPTION, _ENCRYPTION_OPTION, _END = 0, 1, 0xFF
_ERROR, _INFO, _ACKNOWLEDGED, _CHANGED, _FEATURES = 0xAA, 0xAB, 0xAD, 0xE3, 0xAE
_DONE = frozenset({0xFD, 0xFE, 0xFF})
_SHORT_COUNTED = frozenset({0xED, _INFO})
"""Tokens that begin with their length in two bytes and say nothing that matters here."""
_LONG_COUNTED = frozenset({0xE4, 0xEE})
"""Likewise, with four bytes of length."""
_ROUTING = 20
_RECORD = 5


class Complaint(Struct, frozen=True):
    """One error token. `severity` above 10 is an error, below it a notice."""

    number: int
    state: int
    severity: int
    message: str


class Answer(Struct, frozen=True):
    """What a server says to LOGIN7. `program` and `version` are empty where it did not acknowledge the log-in.

    `routed` names another host and port that the log-in belongs to: then an acknowledgement judges no password.
    """

    program: str = ""
    version: str = ""
    complaints: tuple[Complaint, ...] = ()
    routed: tuple[str, int] | None = None


# ── packets ────────────────────────────────────────────────────────────────────────────────────────────


def packet(kind: int, body: bytes) -> bytes:
    """Return `body` as one message of one packet."""
    return struct.pack(">BBHHBB", kind, _LAST, _HEAD + len(body), 0, 1, 0) + body


async def message(stream: Stream | Tunnel, *kinds: int) -> bytes:
    """Return the next whole message, which must be of one of `kinds`; at most `LONGEST` bytes."""
    body = b""
    while True:
        kind, status, length = struct.unpack(">BBH4x", await stream.read(_HEAD))
        if kind not in kinds or length < _HEAD:
            _strange()
        body += await stream.read(length - _HEAD)
        if len(body) > LONGEST:
            raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds")
        if status & _LAST:
            return body


def _strange() -> NoReturn:
    raise WireError(Doubt.AMBIGUOUS, "the server does not speak SQL Server's protocol")


class Tunnel:
    """TLS whose handshake travels in PRELOGIN packets, and whose records then travel bare (MS-TDS 3.2.5.2)."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, host: str) -> None:
        """Wrap a stream on which both sides have agreed on encryption. `context` is limited to TLS 1.2.

        TLS 1.3 has no place for its session tickets here; servers speak it in "strict" mode only.
        """
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._stream = stream
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)

    async def begin(self) -> None:
        """Shake hands. Raises `ssl.SSLError` as a socket would."""
        for _ in range(_ROUNDS):
            done = self._shaken()
            if self._out.pending:
                await self._stream.write(packet(PRELOGIN, self._out.read()))
            if done:
                return
            self._in.write(await message(self._stream, PRELOGIN, RESPONSE))
        _strange()

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def write(self, data: bytes) -> None:
        """Send `data`, encrypted."""
        self._tls.write(data)
        await self._stream.write(self._out.read())

    async def read(self, count: int) -> bytes:
        """Return exactly `count` bytes of what the server says; `EOFError` where it says good-bye before."""
        found = b""
        while len(found) < count:
            try:
                more = self._tls.read(count - len(found))
            except ssl.SSLWantReadError:
                head = await self._stream.read(_RECORD)
                self._in.write(head + await self._stream.read(int.from_bytes(head[3:], "big")))
                continue
            if not more:
                raise EOFError
            found += more
        return found


# ── what the client says ───────────────────────────────────────────────────────────────────────────────


def prelogin() -> bytes:
    """Return the first message: our version, "encrypt all", no instance, no thread, no MARS."""
    options = ((0, bytes(6)), (1, b"\x01"), (2, b"\x00"), (3, bytes(4)), (4, b"\x00"))
    at = len(options) * 5 + 1
    index, data = b"", b""
    for token, value in options:
        index += struct.pack(">BHH", token, at + len(data), len(value))
        data += value
    return index + bytes([_END]) + data


def encryption(body: bytes) -> int:
    """Return the server's word on encryption of its answer to PRELOGIN. Raises `WireError` where there is none."""
    for at in range(0, min(len(body), 100) - 4, 5):
        token, offset, length = struct.unpack_from(">BHH", body, at)
        if token == _END:
            break
        if token == _ENCRYPTION_OPTION and length == 1 and offset < len(body):
            return int(body[offset])
    _strange()


def login7(account: Account, host: str) -> bytes:
    """Return the log-in. The password in it is only obfuscated: whoever reads it knows it."""
    texts = ("", account.username, account.password, "Lapse", host[:LONGEST_NAME], "", "Lapse", "", account.database)
    at = _FIXED
    index, data = b"", b""
    for n, text in enumerate(texts):
        raw = obfuscated(text) if n == 2 else text.encode("utf-16-le")  # the password
        index += struct.pack("<HH", at + len(data), len(raw) // 2)
        data += raw
    end = struct.pack("<HH", at + len(data), 0)
    index += bytes(6) + end * 3 + bytes(4)  # no MAC address, no SSPI, no file to attach, no new password
    head = struct.pack("<IIIIII4BiI", at + len(data), _TDS_74, 4096, 0, 0, 0, _OPTIONS_1, 0, 0, 0, 0, 0)
    return head + index + data


def obfuscated(password: str) -> bytes:
    """Return a password as LOGIN7 has it: each byte of its UTF-16 with swapped halves, times A5."""
    return bytes(((b << 4 | b >> 4) & 0xFF) ^ 0xA5 for b in password.encode("utf-16-le"))


# ── what the server says ───────────────────────────────────────────────────────────────────────────────


def read(body: bytes) -> Answer:
    """Read the tokens of an answer to LOGIN7. Raises `WireError` for what no such answer holds."""
    program = version = ""
    complaints: list[Complaint] = []
    routed = None
    try:
        for token, data in _tokens(body):
            if token == _ERROR:
                complaints.append(_complaint(data))
            elif token == _ACKNOWLEDGED:
                length = data[5]
                program = data[6 : 6 + 2 * length].decode("utf-16-le").rstrip("\x00")[:60]
                major, minor, high, low = data[6 + 2 * length : 10 + 2 * length]
                version = f"{major}.{minor}.{high << 8 | low}"
            elif token == _CHANGED and data[:1] == bytes([_ROUTING]):
                routed = _routed(data)
    except (struct.error, IndexError, ValueError):
        _strange()
    return Answer(program, version, tuple(complaints), routed)


def _tokens(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each token. Raises as `read` expects it."""
    at = 0
    while at < len(body):
        token = body[at]
        at += 1
        if token in _DONE:
            at += 12
            continue
        if token == _FEATURES:
            at = _past_features(body, at)
            continue
        if token in _LONG_COUNTED:
            (length,) = struct.unpack_from("<I", body, at)
            at += 4
        elif token in {_ERROR, _ACKNOWLEDGED, _CHANGED} or token in _SHORT_COUNTED:
            (length,) = struct.unpack_from("<H", body, at)
            at += 2
        else:
            raise ValueError(token)
        data = body[at : at + length]
        if len(data) < length:
            raise ValueError(token)
        yield token, data
        at += length


def _past_features(body: bytes, at: int) -> int:
    while body[at] != _END:
        at += 5 + int.from_bytes(body[at + 1 : at + 5], "little")
    return at + 1


def _complaint(data: bytes) -> Complaint:
    number, state, severity, length = struct.unpack_from("<iBBH", data)
    raw = data[8 : 8 + 2 * length]
    if len(raw) < 2 * length:
        raise ValueError(number)
    return Complaint(number, state, severity, raw.decode("utf-16-le", "replace")[:300])


def _routed(data: bytes) -> tuple[str, int]:
    """Read the new place of a ROUTING change: its protocol (0, TCP), port and host."""
    protocol, port, length = struct.unpack_from("<BHH", data, 3)
    host = data[8 : 8 + 2 * length].decode("utf-16-le")
    if protocol != 0 or len(host) != length:
        raise ValueError(protocol)
    return host, port
