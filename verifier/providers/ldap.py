"""LDAP log-ins: one simple bind, inside TLS only.

`ldaps` begins in TLS; `ldap` asks for StartTLS first, and a server that knows none is sent no password. The reading of
BER is as large as a bind needs it. Directories lock accounts after a few wrong passwords: at most one bind a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "LDAP"
PORT, TLS_PORT = 389, 636
_BIND = "https://www.rfc-editor.org/rfc/rfc4511#section-4.2"
_CODES = "https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes"
_START_TLS = b"1.3.6.1.4.1.1466.20037"
_INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE = 0x02, 0x04, 0x0A, 0x30
_BIND_REQUEST, _BIND_ANSWER, _EXTENDED_REQUEST, _EXTENDED_ANSWER = 0x60, 0x61, 0x77, 0x78
_SIMPLE, _NAME = 0x80, 0x80
_LONG = 0x80


def _said(code: int, text: str = "") -> str:
    return f'{{"code":{code},"text":"{text}"}}'


_AD = "80090308: LdapErr: DSID-0C0904, comment: AcceptSecurityContext error, data %s, v4563"

KINDS: tuple[Kind, ...] = (
    Kind(
        id="ldap",
        title="LDAP log-in",
        category="db",
        docs=_BIND,
        parts=("username", "password", "host"),
        optional=("port", "database", "scheme"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=1, burst=1, concurrency=1),
        calls=(
            Call(
                kind="ldap",
                method="LOGIN",
                scheme="ldap",
                host="{host}",
                path="/",
                reads="a bind authenticates this connection only; nothing is searched",
                docs=_BIND,
            ),
        ),
        rule=(
            Rule(verdict="live", status=0, json={"code": 0}, has=("user",), note="the bind was accepted", source=_BIND),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": 49},
                words={"text": ("data 532", "data 530", "data 531", "data 701", "data 773", "data 775")},
                why=Doubt.AMBIGUOUS,
                note="expired, locked, or not at this hour or place: the account may open again",
                source=_CODES,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": 49},
                words={"text": "data 533"},
                how=How.DISABLED,
                arrival=Arrival.PROVEN,
                note="the account is disabled",
                source=_CODES,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": 49},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the directory refused this name and password",
                source=_BIND,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": (8, 13, 48, 53)},
                why=Doubt.BLOCKED,
                note="the directory does not take simple binds of this account",
                confidence=Confidence.DOCUMENTED,
                source=_BIND,
            ),
        ),
        example=(
            Example(status=0, verdict="live", body='{"code":0,"text":"","user":"cn=app"}', constructed=True),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body=_said(49, _AD % "775"),
                constructed=True,
            ),
            Example(status=0, verdict="dead", how=How.DISABLED, body=_said(49, _AD % "533"), constructed=True),
            Example(status=0, verdict="dead", how=How.REJECTED, body=_said(49, _AD % "52e"), constructed=True),
            Example(status=0, verdict="dead", how=How.REJECTED, body=_said(49), constructed=True),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body=_said(53, "unauthenticated bind disallowed"),
                constructed=True,
            ),
            Example(status=0, verdict="undecided", why=Doubt.AMBIGUOUS, body=_said(52), constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    if not credential.parts["username"].reveal().strip():
        return Undecided(Doubt.INCOMPLETE, note="a bind without a name is anonymous, and judges no password")
    scheme = credential.parts.get("scheme")
    tls = (scheme is not None and scheme.reveal().lower().startswith("ldaps")) or (base_url or "").startswith("ldaps")
    return await login(kind, credential, door, handshake, TLS_PORT if tls else PORT, base_url)


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Bind and return the directory's result code and its text."""
    async with connected(admitted) as stream:
        if account.scheme == "ldaps" or admitted.port == TLS_PORT:
            await stream.secure_for_password()
        else:
            await stream.write(_message(1, _tlv(_EXTENDED_REQUEST, _tlv(_NAME, _START_TLS))))
            code, _ = _result(await _read(stream), _EXTENDED_ANSWER)
            if code != 0:
                raise WireError(Doubt.UNSUPPORTED, "the directory offers no TLS, outside of which no password is sent")
            await stream.secure_for_password()
        bind = (
            _tlv(_INTEGER, b"\x03")
            + _tlv(_OCTETS, account.username.encode())
            + _tlv(_SIMPLE, account.password.encode())
        )
        await stream.write(_message(2, _tlv(_BIND_REQUEST, bind)))
        code, text = _result(await _read(stream), _BIND_ANSWER)
        stream.goodbye(_message(3, b"\x42\x00"))
        return {"code": code, "text": text}


def _message(number: int, operation: bytes) -> bytes:
    return _tlv(_SEQUENCE, _tlv(_INTEGER, bytes([number])) + operation)


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < _LONG:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG | len(length)]) + length + value


async def _read(stream: Stream) -> bytes:
    """Return the content of the next message; `WireError` when it is none of LDAP's."""
    tag, size = await stream.read(2)
    if tag != _SEQUENCE:
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak LDAP")
    if size & _LONG:
        count = size & ~_LONG
        if not 0 < count <= 4:  # four bytes of length are more than `LONGEST` allows
            raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds")
        size = int.from_bytes(await stream.read(count), "big")
    return await stream.read(size)


def _result(message: bytes, wanted: int) -> tuple[int, str]:
    """Return result code and text of an answer."""
    try:
        _, number, rest = _take(message)
        tag, body, _ = _take(rest)
        kind, code, more = _take(body)
        _, _, more = _take(more)
        _, text, _ = _take(more)
    except ValueError:
        raise WireError(Doubt.AMBIGUOUS, "the directory's answer cannot be read") from None
    if tag != wanted or kind != _ENUMERATED or not number:
        raise WireError(Doubt.AMBIGUOUS, "the directory answered something else than was asked")
    return int.from_bytes(code, "big"), text.decode("utf-8", "replace")[:200]


def _take(data: bytes) -> tuple[int, bytes, bytes]:
    """Split the first tag, length and value off; `ValueError` when it is cut short."""
    if len(data) < 2:  # a tag and a length
        raise ValueError
    tag, size, at = data[0], data[1], 2
    if size & _LONG:
        count = size & ~_LONG
        size, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if len(data) < at + size:
        raise ValueError
    return tag, data[at : at + size], data[at + size :]
