"""SSH log-ins through asyncssh, over a socket of the door's: one attempt by password or by key, and no session.

SSH itself says nothing about who a server is: its host key must be known beforehand. To a server whose key is not known
no password goes. A private key may be offered to anybody, as its signature is bound to this one session; but what an
unknown server refuses counts for nothing. asyncssh reads none of this machine's SSH files, agents or tickets here.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from msgspec.structs import replace

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Example, Rule
from verifier.wire import LONGEST, WireError, connected, login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    import asyncssh
    from asyncssh.auth import PasswordChangeResponse

    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict
    from verifier.spec import Kind
    from verifier.wire import Account, Said, Stream

    Prompts: TypeAlias = Sequence[tuple[str, bool]]

PORT = 22
AUTHENTICATION = "https://www.rfc-editor.org/rfc/rfc4252"
_BY_PASSWORD = ("password", "keyboard-interactive")
_BLOCKED = frozenset({1, 12})
"""Disconnect codes: not allowed to connect, too many connections (RFC 4253)."""
_GREETING = re.compile(r"(?:Hi |Welcome to GitLab, @)([\w.\-/\[\]]{1,120})!")
_GREETING_TIME = 3.0


class Forge(NamedTuple):
    """A host of git repositories that knows its users by their keys."""

    host: str
    docs: str
    pins: frozenset[str]
    """SHA-256 fingerprints of its host keys, as it publishes them."""


FORGES = (
    Forge(
        "github.com",
        "https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/githubs-ssh-key-fingerprints",
        frozenset(
            {
                "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
                "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
                "SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
            }
        ),
    ),
    Forge(
        "gitlab.com",
        "https://docs.gitlab.com/user/gitlab_com/#ssh-host-keys-fingerprints",
        frozenset(
            {
                "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
                "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
                "SHA256:ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
            }
        ),
    ),
)
"""Asked about keys that nobody named a server for."""

_TESTING = "https://docs.github.com/en/authentication/connecting-to-github-with-ssh/testing-your-ssh-connection"
ELSEWHERE = "this server does not know the key, which may open others that nobody named"

KEY_ACCEPTED = Rule(
    verdict="live",
    status=0,
    json={"asked": "publickey", "answer": "accepted"},
    has=("user", "fingerprint"),
    note="logged in by the key's signature",
    source=AUTHENTICATION,
)


def forge_calls(kind: str) -> tuple[Call, ...]:
    """Return the calls that asking the forges takes."""
    return tuple(
        Call(
            kind=kind,
            method="LOGIN",
            scheme="ssh",
            host=forge.host,
            path="/",
            reads="`ssh -T`: the host says whom it sees and hangs up; no command is given",
            docs=_TESTING,
        )
        for forge in FORGES
    )


PASSWORD_RULES = (
    Rule(
        verdict="live",
        status=0,
        json={"asked": _BY_PASSWORD, "answer": "accepted", "host_key": "known"},
        has=("user",),
        note="logged in",
        source=AUTHENTICATION,
    ),
    Rule(
        verdict="restricted",
        status=0,
        json={"asked": _BY_PASSWORD, "answer": "must be changed", "host_key": "known"},
        note="the password was accepted and must be changed",
        source=AUTHENTICATION,
    ),
    Rule(
        verdict="dead",
        status=0,
        json={"asked": _BY_PASSWORD, "answer": "refused", "host_key": "known"},
        how=How.REJECTED,
        arrival=Arrival.PROVEN,
        note="the server refused this name and password to a client at our address, and asked again",
        source=AUTHENTICATION,
    ),
    Rule(
        verdict="undecided",
        status=0,
        json={"answer": "neither"},
        why=Doubt.AMBIGUOUS,
        note="the server neither let us in nor asked again: it may want a second proof, or have had enough of us",
    ),
)
"""What follows from `password`."""

_KNOWN = '"host_key":"known","fingerprint":"SHA256:xxxx","user":"app"'


def example(verdict: str, asked: str, answer: str, how: How | None = None, why: Doubt | None = None) -> Example:
    """Return a constructed example of what a handshake said."""
    body = f'{{"asked":"{asked}","answer":"{answer}",{_KNOWN}}}'
    return Example(status=0, verdict=verdict, body=body, how=how, why=why, constructed=True)  # type: ignore[arg-type]  # words of the specs, checked by msgspec


PASSWORD_EXAMPLES = (
    example("live", "password", "accepted"),
    example("restricted", "password", "must be changed"),
    example("dead", "keyboard-interactive", "refused", How.REJECTED),
    example("undecided", "password", "neither", why=Doubt.AMBIGUOUS),
)


async def password(admitted: Admitted, account: Account) -> Said:
    """Log in by password where the server's host key is known, and return how it answered.

    `asked` is the method, `answer` one of `accepted`, `must be changed`, `refused`, `neither`.
    """
    attempt = _Attempt(account.password, None)
    await _try(admitted, account.username, attempt)
    return attempt.said()


async def key(admitted: Admitted, account: Account, pins: Collection[str] = (), *, greeted: bool = False) -> Said:
    """Log in by the private key that stands as the account's password, and return how the server answered.

    `pins` are fingerprints of the server's host keys; with them no other server is asked. `greeted` opens a session to
    read the line in which GitHub and GitLab say whom they see; `account` in what is returned is that name.
    """
    import asyncssh  # noqa: PLC0415  # half a second, where such a key is met

    try:
        private = asyncssh.import_private_key(account.password, unsafe_skip_rsa_key_validation=True)
    except asyncssh.KeyEncryptionError:
        raise WireError(Doubt.INCOMPLETE, "the private key is encrypted with a passphrase") from None
    except (asyncssh.KeyImportError, ValueError):
        raise WireError(
            Doubt.INCOMPLETE, "the private key cannot be read, or is of a sort that no server takes"
        ) from None
    attempt = _Attempt(None, private, pins)
    name = await _try(admitted, account.username, attempt, greeted=greeted)
    return {**attempt.said(), **({"account": name} if name else {})}


class _Attempt:
    """One try at logging in: what asyncssh asks of its user, and what was learnt."""

    def __init__(self, password: str | None, private: asyncssh.SSHKey | None, pins: Collection[str] = ()) -> None:
        self.password, self.private, self.pins = password, private, pins
        self.shown = ""
        self.pinned = False
        self.asked = ""
        self.answer = "neither"
        self.listed = False
        self.connection: asyncssh.SSHClientConnection | None = None
        self.relay: _Relay | None = None
        self._before = 0

    def said(self) -> dict[str, str | int | bool]:
        host_key = self.connection.get_server_host_key() if self.connection is not None else None
        return {
            "asked": self.asked,
            "answer": self.answer,
            "host_key": "known" if self.pinned or self.listed else "unknown",
            "fingerprint": host_key.get_fingerprint() if host_key is not None else "",
        }

    def once(self, method: str) -> bool:
        """Say whether `method` may be tried now; to be asked again by the server after the try is its refusal."""
        heard = self.relay.heard if self.relay else 0
        if not self.asked:
            self.asked, self._before = method, heard
            return True
        if self.asked == method and heard > self._before and self.answer == "neither":
            self.answer = "refused"
        return False


def _client(attempt: _Attempt) -> asyncssh.SSHClient:
    import asyncssh  # noqa: PLC0415  # as above

    class Client(asyncssh.SSHClient):
        """Answers what the handshake asks."""

        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            """Keep what knows the server's key."""
            attempt.connection = conn

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002  # asyncssh's signature
            """Take a key that no file names where it is pinned, or where no password is at stake."""
            attempt.shown = key.get_fingerprint()
            attempt.pinned = attempt.shown in attempt.pins
            return attempt.pinned or (attempt.private is not None and not attempt.pins and not attempt.listed)

        def password_auth_requested(self) -> str | None:
            """Give the password once."""
            return attempt.password if attempt.password is not None and attempt.once("password") else None

        def password_change_requested(self, prompt: str, lang: str) -> PasswordChangeResponse:  # noqa: ARG002  # asyncssh's signature
            """Change nothing."""
            attempt.answer = "must be changed"
            return cast("PasswordChangeResponse", NotImplemented)

        def kbdint_auth_requested(self) -> str | None:
            """Answer questions where the password was not tried otherwise."""
            return "" if attempt.password is not None and attempt.asked != "password" else None

        def kbdint_challenge_received(
            self,
            name: str,  # noqa: ARG002  # asyncssh's signature
            instructions: str,  # noqa: ARG002  # same
            lang: str,  # noqa: ARG002  # same
            prompts: Prompts,
        ) -> Sequence[str] | None:
            """Give the password once, to the only question whose answer is not shown."""
            if not prompts:
                return []
            hidden = len(prompts) == 1 and not prompts[0][1]
            if hidden and attempt.password is not None and attempt.once("keyboard-interactive"):
                return [attempt.password]
            return None

        def public_key_auth_requested(self) -> list[asyncssh.SSHKey] | None:
            """Give the key once."""
            return [attempt.private] if attempt.private is not None and attempt.once("publickey") else None

    return Client()


async def _try(admitted: Admitted, username: str, attempt: _Attempt, *, greeted: bool = False) -> str:
    """Log in and out again; return the name in the greeting, if one was asked for."""
    import asyncssh  # noqa: PLC0415  # as above

    trusted, authorities, revoked = _listed(admitted)
    attempt.listed = bool(trusted or authorities)
    async with connected(admitted) as stream, _relayed(stream) as (relay, sock):
        attempt.relay = relay
        try:
            connection = await asyncssh.connect(
                admitted.host,
                admitted.port,
                sock=sock,
                config=None,
                client_factory=lambda: _client(attempt),
                client_version="Lapse",
                known_hosts=(trusted, authorities, revoked),
                username=username,
                client_keys=None,
                agent_path=None,
                x509_trusted_certs=None,
                gss_kex=False,
                gss_auth=False,
                preferred_auth=("publickey", "password", "keyboard-interactive"),
                disable_trivial_auth=True,
                compression_algs=None,
                kex_algs="-diffie-hellman*",  # cryptography gives them up, and warns aloud
            )
        except (asyncssh.Error, ValueError, OSError) as e:
            _learn(e, attempt)
            return ""
        try:
            attempt.answer = "accepted"
            return await _greeting(connection) if greeted else ""
        finally:
            connection.abort()
            await connection.wait_closed()


def _listed(admitted: Admitted) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """Return the keys that the config's file lists for this server: its own, of authorities, revoked."""
    import asyncssh  # noqa: PLC0415  # as above

    try:
        listed = asyncssh.import_known_hosts(admitted.known_hosts)
        found = asyncssh.match_known_hosts(listed, admitted.host, admitted.address, admitted.port)
    except (ValueError, asyncssh.Error):
        note = "the file that egress.known_hosts names holds a line that is no host key"
        raise WireError(Doubt.REFUSED, note) from None
    return list(found[0]), list(found[1]), list(found[2])


def _learn(e: Exception, attempt: _Attempt) -> None:
    """Make of asyncssh's error what it says about the log-in; raises where it says nothing."""
    import asyncssh  # noqa: PLC0415  # as above

    match e:
        case _ if attempt.relay is not None and attempt.relay.flooded:
            raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds")
        case asyncssh.HostKeyNotVerifiable():
            raise _unknown(attempt)
        case asyncssh.PermissionDenied() if attempt.asked:
            return
        case asyncssh.PermissionDenied(reason="Trivial auth disabled"):
            raise WireError(Doubt.AMBIGUOUS, "the server lets everybody in, so that nothing was judged")
        case asyncssh.PermissionDenied():
            raise WireError(Doubt.UNSUPPORTED, "the server takes no log-in of this sort")
        case asyncssh.KeyExchangeFailed():
            raise WireError(Doubt.UNSUPPORTED, "the server knows only ways of encryption that are given up")
        case asyncssh.ConnectionLost() | OSError():
            raise EOFError
        case asyncssh.DisconnectError(code=code) if code in _BLOCKED:
            raise WireError(Doubt.BLOCKED, "the server takes no connection from here, or not now")
        case _ if attempt.connection is not None:
            raise WireError(Doubt.AMBIGUOUS, "the server does not speak SSH")
        case _:
            note = "the name is none that SSH can carry, or this process runs without a name: set LOGNAME"
            raise WireError(Doubt.INCOMPLETE, note)


def _unknown(attempt: _Attempt) -> WireError:
    if attempt.listed or attempt.pins or not attempt.shown:
        note = "the server's host key is not the one that is known for it, and nothing was sent: look who answers there"
        return WireError(Doubt.UNREACHABLE, note)
    note = f"no password goes to a server whose host key is not known: look at {attempt.shown}, then add it to the file"
    return WireError(Doubt.INCOMPLETE, f"{note} that egress.known_hosts names")


async def _greeting(connection: asyncssh.SSHClientConnection) -> str:
    """Open a session as `ssh -T` does, and return the name in the line that the server says there."""
    import asyncssh  # noqa: PLC0415  # as above

    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(_GREETING_TIME):
            process = await connection.create_process(stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace")
            for text in await asyncio.gather(process.stderr.read(500), process.stdout.read(500)):
                if found := _GREETING.search(str(text)):
                    return found.group(1)
    return ""


class _Relay:
    """Carries bytes between the admitted connection and the socket that asyncssh holds, and no more than a few."""

    def __init__(self) -> None:
        self.heard = 0
        self.flooded = False

    async def inward(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await stream.some():
                self.heard += len(data)
                if self.heard > LONGEST:
                    self.flooded = True
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    @staticmethod
    async def outward(stream: Stream, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(LONGEST):
                await stream.write(data)


@contextlib.asynccontextmanager
async def _relayed(stream: Stream) -> AsyncIterator[tuple[_Relay, socket.socket]]:
    """Give a socket that leads to `stream`; asyncssh owns and closes it."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    relay = _Relay()
    tasks = [
        asyncio.ensure_future(relay.inward(stream, writer)),
        asyncio.ensure_future(relay.outward(stream, reader)),
    ]
    try:
        yield relay, theirs
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        theirs.close()


# ── GitHub and GitLab ──


async def anywhere(kind: Kind, credential: Credential, door: Door) -> Verdict:
    """Ask the forges one after another until one lets the key in; what all refuse may open something else."""
    doubt: Verdict | None = None
    for forge in FORGES:
        found = await at(kind, credential, door, "git", forge, None, named=False)
        if not isinstance(found, Undecided):
            return found
        if doubt is None or found.why is not Doubt.INCOMPLETE:
            doubt = found
    return doubt or Undecided(Doubt.INCOMPLETE, note=ELSEWHERE)


async def at(
    kind: Kind,
    credential: Credential,
    door: Door,
    user: str,
    forge: Forge | None,
    base_url: str | None,
    *,
    named: bool,
) -> Verdict:
    """Offer the credential's `secret` at one server; `forge` is it where the server is one of these."""

    async def handshake(admitted: Admitted, account: Account) -> Said:
        """Offer the key."""
        said = await key(admitted, account, forge.pins if forge else (), greeted=forge is not None)
        return {**said, "named": named}

    parts = {**credential.parts, "username": Secret(user), "password": credential.parts["secret"]}
    asked = replace(credential, parts=parts)
    if forge is None:
        return await login(kind, asked, door, handshake, PORT, base_url)
    call = next(c for c in kind.calls if c.host == forge.host)
    return await login(replace(kind, calls=(call,)), asked, door, handshake, PORT, None, places=[(forge.host, PORT)])
