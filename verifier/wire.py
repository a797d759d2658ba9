"""Log-ins over a wire protocol: where to connect, a stream with deadlines and bounds, and what the server said.

A provider file brings the handshake; this module brings everything around it. The handshake turns the server's own
words into a small JSON object (`Said`), which the kind's rules read like any other reply. Nothing is asked of the
server after the handshake. The connection goes to the address that the door admitted and to nothing else.

TLS is taken wherever it is offered. The server's certificate is not verified, as the clients of these databases don't
by default: private CAs are the rule there, and what the handshake sends is a proof, not the password. A handshake that
wants the password itself in readable form gets it inside TLS only (Redis without TLS knows no other way). Mail servers
are the exception: they are found on the open internet, with certificates of public authorities, and their log-ins send
the password itself, so theirs is verified (`Stream.secure_verified`). SQL Server, LDAP and FTP are sent the password
itself, too: on the open internet their certificate is verified, in a network that the config names it is not
(`Stream.secure_for_password`), because few of their servers there have one that could be.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from verifier.exchange import Admitted, Call, Door, Reply, Request, Trouble
from verifier.model import Credential, Doubt, Undecided, Verdict
from verifier.probe import verdict
from verifier.rules import Judge
from verifier.secret import Secret

if TYPE_CHECKING:
    from verifier.spec import Kind

DEADLINE = 10.0
"""Seconds for a whole handshake, connecting included."""
LONGEST = 65_536
"""Bytes of one protocol message; a longer one is not of a handshake."""

Said: TypeAlias = Mapping[str, str | int | bool]
"""The server's own words, as the rules of the kind read them."""

_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")


class WireError(Exception):
    """The handshake cannot go on: why, and one sentence for people that holds no secret."""

    def __init__(self, why: Doubt, note: str) -> None:
        """Say why."""
        super().__init__(note)
        self.why = why
        self.note = note


class Account(Struct, frozen=True):
    """What is logged in to, as the finding gives it. `options`: those of the connection string, names lower case."""

    username: str
    password: str
    database: str
    scheme: str
    options: Mapping[str, str]


Handshake: TypeAlias = Callable[[Admitted, Account], Awaitable[Said]]
"""Log in as `Account` where admitted; may raise `WireError`, `OSError`, `EOFError`. The deadline is kept outside."""


async def login(
    kind: Kind,
    credential: Credential,
    door: Door,
    handshake: Handshake,
    port: int,
    base_url: str | None,
    *,
    places: Sequence[tuple[str, int]] = (),
) -> Verdict:
    """Log in at the first of the credential's hosts that answers, and rule on the server's words.

    `port` is the protocol's own; `base_url` (`scheme://host:port`) replaces host and port, as do `places`.
    """
    places = places or addresses(credential, port, base_url)
    if not places:
        return Undecided(Doubt.INCOMPLETE, note="the host or port of the log-in cannot be read")
    account = _account(credential)
    if not account.password:
        return Undecided(Doubt.INCOMPLETE, note="the log-in has an empty password")
    if not _sendable(account):
        return Undecided(
            Doubt.INCOMPLETE, note="the log-in holds characters that no server takes: it was cut out badly"
        )
    call = kind.calls[0]
    result: Verdict = Undecided(Doubt.UNREACHABLE)
    for host, where in places:
        result = await _at(kind, call, door, handshake, account, (host, where))
        if not (isinstance(result, Undecided) and result.why is Doubt.UNREACHABLE):
            break
    if base_url is not None and result.evidence is not None:
        return replace(result, evidence=replace(result.evidence, route="base"))
    return result


async def _at(
    kind: Kind, call: Call, door: Door, handshake: Handshake, account: Account, place: tuple[str, int]
) -> Verdict:
    admitted = await door.admit(call, *place)
    if isinstance(admitted, Trouble):
        return Undecided(admitted.why, retry_after=admitted.retry_after, note=admitted.note)
    try:
        async with asyncio.timeout(DEADLINE):
            said = await handshake(admitted, account)
    except WireError as e:
        return Undecided(e.why, note=e.note)
    except TimeoutError:
        return Undecided(Doubt.UNREACHABLE, note=f"no complete answer within {DEADLINE:.0f} s")
    except ssl.SSLCertVerificationError:
        note = "the server's certificate is not its own, and the password is not sent; if it is yours, set ca_bundle"
        return Undecided(Doubt.UNREACHABLE, note=note)
    except ssl.SSLError:
        return Undecided(Doubt.UNREACHABLE, note="TLS could not be agreed with the server")
    except (OSError, EOFError):
        return Undecided(Doubt.UNREACHABLE, note="the connection could not be made, or broke off")
    return judged(kind, call, admitted, account, said)


def judged(kind: Kind, call: Call, admitted: Admitted, account: Account, said: Said) -> Verdict:
    """Rule on what the server said, with evidence that names the log-in but not the password."""
    host = f"[{admitted.host}]" if ":" in admitted.host else admitted.host
    shown = f"{call.scheme}://{host}:{admitted.port}/{account.database}"
    request = Request(call, Secret(shown), shown, carrier="wire")
    who = {"user": account.username} if account.username else {}
    reply = Reply(0, {"content-type": "application/json"}, msgspec.json.encode({**said, **who}), admitted.host)
    ruling = Judge(kind)(reply, account.password)
    return _without_status(verdict(kind, ruling, reply, request, (account.password,)))


def _without_status(v: Verdict) -> Verdict:
    """Take the placeholder status out of the evidence: a wire protocol has none."""
    if v.evidence is None:
        return v
    return replace(v, evidence=replace(v.evidence, status=None))


def addresses(credential: Credential, port: int, base_url: str | None) -> list[tuple[str, int]]:
    """Return host and port of every server the log-in names (`host` may list several by comma); [] if unreadable."""
    if base_url is not None:
        parts = urlsplit(base_url)
        return [(parts.hostname or "", parts.port or port)]
    given = _part(credential, "port").strip()
    found = []
    for text in _part(credential, "host").split(","):
        host, own = _host_port(text.strip())
        number = own or given or str(port)
        if not _HOST.fullmatch(host) or not (
            number.isascii() and number.isdigit() and 0 < int(number[:6]) < 65_536
        ):  # ports
            return []
        found.append((host.strip("[]").lower(), int(number)))
    return found


def _host_port(text: str) -> tuple[str, str]:
    if text.startswith("[") or text.count(":") != 1:
        host, bracket, rest = text.partition("]")
        return host + bracket, rest.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


def _account(credential: Credential) -> Account:
    options = {k.lower(): v for k, v in parse_qsl(_part(credential, "options").lstrip("?"))}
    return Account(
        username=_part(credential, "username"),
        password=_part(credential, "password"),
        database=_part(credential, "database").strip("/"),
        scheme=_part(credential, "scheme").lower().removesuffix("://"),
        options=options,
    )


def _sendable(account: Account) -> bool:
    text = account.username + account.password + account.database
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _part(credential: Credential, name: str) -> str:
    value = credential.parts.get(name)
    return value.reveal() if value is not None else ""


# ── the stream ─────────────────────────────────────────────────────────────────────────────────────────


class Stream:
    """A connection to an admitted address."""

    def __init__(self, admitted: Admitted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wrap a connection that is open."""
        self._admitted = admitted
        self._reader = reader
        self._writer = writer
        self.tls = False

    async def read(self, count: int) -> bytes:
        """Return exactly `count` bytes. More than `LONGEST` is a `WireError`, fewer than asked an `EOFError`."""
        if not 0 <= count <= LONGEST:
            raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds")
        return await self._reader.readexactly(count)

    async def line(self) -> bytes:
        """Return the next line without its end. A line longer than `LONGEST` is a `WireError`."""
        try:
            return (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")
        except asyncio.LimitOverrunError:
            raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds") from None

    async def some(self) -> bytes:
        """Return what has come, at most `LONGEST` bytes of it; nothing at the end."""
        return await self._reader.read(LONGEST)

    async def write(self, data: bytes) -> None:
        """Send `data`."""
        self._writer.write(data)
        await self._writer.drain()

    async def secure(self) -> None:
        """Go on in TLS, with the server's name but without checking its certificate (see the module's docstring)."""
        await self._writer.start_tls(lenient_tls(), server_hostname=self._admitted.host)
        self.tls = True

    async def secure_verified(self, *protocols: str) -> None:
        """Go on in TLS with a server whose certificate is its own, by a public authority or one of the config's.

        `protocols` are what the client names in ALPN.
        """
        context = verified_tls(self._admitted)
        if protocols:
            context.set_alpn_protocols(protocols)
        await self._writer.start_tls(context, server_hostname=self._admitted.host)
        self.tls = True

    async def secure_for_password(self) -> None:
        """Go on in TLS that a password itself may be sent in: verified, but in the config's own networks."""
        await (self.secure() if self._admitted.own else self.secure_verified())

    def goodbye(self, message: bytes) -> None:
        """Send the protocol's farewell, if it still can be sent."""
        with contextlib.suppress(OSError):
            self._writer.write(message)


@contextlib.asynccontextmanager
async def connected(admitted: Admitted) -> AsyncIterator[Stream]:
    """Connect to the admitted address; the connection is gone afterwards, whatever happened."""
    reader, writer = await asyncio.open_connection(admitted.address, admitted.port, limit=LONGEST)
    try:
        yield Stream(admitted, reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


def verified_tls(admitted: Admitted) -> ssl.SSLContext:
    """Return a TLS context that takes a certificate of a public authority or of one of the config's, for its host."""
    context = ssl.create_default_context()
    if admitted.roots:
        context.load_verify_locations(cadata=b"\n".join(admitted.roots).decode("ascii"))
    return context


def lenient_tls() -> ssl.SSLContext:
    """Return a TLS context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
