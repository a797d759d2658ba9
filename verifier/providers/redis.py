"""Redis (and Valkey, KeyDB, Dragonfly) log-ins: PING, AUTH, PING.

Redis sends the password itself. A first PING, without any secret, tells a server that speaks Redis in clear from one
that wants TLS, so that a password goes out in clear only where the server knows no other way. The second one makes
sure that it was Redis that said `+OK`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "Redis"
PORT = 6379
_AUTH = "https://redis.io/docs/latest/commands/auth/"
_PING = b"*1\r\n$4\r\nPING\r\n"
_TLS_SCHEMES = frozenset({"rediss", "valkeys", "redis+ssl", "redis+tls"})
_GREETINGS = ("+PONG", "-NOAUTH", "-NOPERM", "-DENIED", "-LOADING", "-ERR", "-MASTERDOWN")


KINDS: tuple[Kind, ...] = (
    Kind(
        id="redis",
        title="Redis log-in",
        category="db",
        docs=_AUTH,
        parts=("password", "host"),
        optional=("username", "port", "database", "scheme", "options"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=(
            Call(
                kind="redis",
                method="LOGIN",
                scheme="redis",
                host="{host}",
                path="/{database}",
                reads="AUTH authenticates this connection only, PING does nothing",
                docs=_AUTH,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"auth": "+OK", "ping": "+PONG"},
                note="logged in",
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"auth": "+OK"},
                words={"ping": ("-NOPERM", "-LOADING", "-MASTERDOWN")},
                note="logged in; this user may not even PING, or the server is loading",
            ),
            Rule(
                verdict="dead",
                status=0,
                words={"auth": ("-WRONGPASS", "-ERR invalid password", "-ERR invalid username-password pair")},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this user and password, or the user is disabled",
                source=_AUTH,
            ),
            Rule(
                verdict="undecided",
                status=0,
                words={"auth": ("no password is set", "without any password configured")},
                why=Doubt.AMBIGUOUS,
                note="the server has no password: anybody gets in, and ours was not judged",
            ),
            Rule(
                verdict="undecided",
                status=0,
                words={"auth": ("-DENIED", "-ERR max number of clients")},
                why=Doubt.BLOCKED,
                note="the server does not let us try",
                confidence=Confidence.OBSERVED,
            ),
        ),
        example=(
            Example(status=0, verdict="live", body='{"auth":"+OK","ping":"+PONG"}', constructed=True),
            Example(
                status=0,
                verdict="restricted",
                body='{"auth":"+OK","ping":"-NOPERM User app has no permissions to run the \'ping\' command"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body='{"auth":"-WRONGPASS invalid username-password pair or user is disabled."}',
                source=_AUTH,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body='{"auth":"-ERR invalid password"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"auth":"-ERR AUTH <password> called without any password configured for the default user."}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body='{"auth":"-DENIED Redis is running in protected mode","ping":""}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"auth":"+OK","ping":"-ERR unknown command"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    scheme = credential.parts.get("scheme")
    if base_url is None and scheme is not None and "sentinel" in scheme.reveal().lower():
        note = "the address is a sentinel's, which has a password of its own: the data servers are not named"
        return Undecided(Doubt.INCOMPLETE, note=note)
    return await login(kind, credential, door, handshake, PORT, base_url)


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Log in and return `auth` and `ping`, the first line of the server's answer to each (`ping` "" if not asked)."""
    if account.scheme not in _TLS_SCHEMES and (said := await _plain(admitted, account)) is not None:
        return said
    async with connected(admitted) as stream:
        await stream.secure()
        return await _authenticate(stream, account)


async def _plain(admitted: Admitted, account: Account) -> Said | None:
    """Log in without TLS; `None`, with no secret sent, when the server does not answer PING as Redis does."""
    async with connected(admitted) as stream:
        try:
            await stream.write(_PING)
            greeting = (await stream.line()).decode("utf-8", "replace")
        except (OSError, EOFError):
            return None
        if not greeting.startswith(_GREETINGS):
            return None
        if greeting.startswith(("-DENIED", "-ERR max number of clients")):
            return {"auth": greeting[:200], "ping": ""}
        return await _authenticate(stream, account)


async def _authenticate(stream: Stream, account: Account) -> Said:
    # AUTH of the default user by name says OK to any password where none is set; without the name it says so.
    named = account.username not in {"", "default"}
    words = ("AUTH", account.username, account.password) if named else ("AUTH", account.password)
    await stream.write(_command(*words))
    auth = (await stream.line()).decode("utf-8", "replace")[:200]
    if auth != "+OK":
        return {"auth": auth, "ping": ""}
    await stream.write(_PING)
    return {"auth": auth, "ping": (await stream.line()).decode("utf-8", "replace")[:200]}


def _command(*words: str) -> bytes:
    encoded = [w.encode() for w in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded)
