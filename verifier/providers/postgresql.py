"""PostgreSQL log-ins: start-up, authentication, and nothing after it.

libpq is not used: on a refused log-in it gives a sentence in the server's language and no SQLSTATE, it reads the
user's own environment and client certificates, and it may send the password in clear after TLS was turned down.
Protocol 3.0: https://www.postgresql.org/docs/current/protocol-flow.html
"""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How
from verifier.scram import Scram, ScramError, prepared
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "PostgreSQL"
PORT = 5432
_CODES = "https://www.postgresql.org/docs/current/errcodes-appendix.html"
_FLOW = "https://www.postgresql.org/docs/current/protocol-flow.html"
_PROTOCOL = (3 << 16).to_bytes(4, "big")
_SSL = (80877103).to_bytes(4, "big")
_GOODBYE = b"X\x00\x00\x00\x04"
_OK, _CLEAR, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_MOST_MESSAGES = 200


KINDS: tuple[Kind, ...] = (
    Kind(
        id="postgres",
        title="PostgreSQL log-in",
        category="db",
        docs="https://www.postgresql.org/docs/current/auth-password.html",
        parts=("username", "password", "host"),
        optional=("port", "database", "scheme", "options"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=(
            Call(
                kind="postgres",
                method="LOGIN",
                scheme="postgresql",
                host="{host}",
                path="/{database}",
                reads="authenticates and says goodbye; no query is sent",
                docs=_FLOW,
            ),
        ),
        rule=(
            Rule(
                verdict="undecided",
                status=0,
                json={"asked": "nothing"},
                why=Doubt.AMBIGUOUS,
                note="the server lets this user in without asking for a password, so it was not judged",
            ),
            Rule(
                verdict="live",
                status=0,
                json={"authenticated": True, "ready": True},
                has=("server_version",),
                note="logged in",
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"authenticated": True, "sqlstate": "28000"},
                how=How.DISABLED,
                arrival=Arrival.PROVEN,
                note="the password is right, but the role may not log in (NOLOGIN)",
                source=_CODES,
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"authenticated": True},
                has=("sqlstate",),
                note="the password was accepted, then the server refused the database or had no room",
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"sqlstate": "28P01", "asked": ("scram", "md5", "clear")},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this user and password (28P01)",
                source=_CODES,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"sqlstate": "28000"},
                why=Doubt.BLOCKED,
                note="the server's access rules (pg_hba.conf) do not let us try the password from here",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"sqlstate": ("57P03", "57P01", "53300", "53400")},
                why=Doubt.UNREACHABLE,
                note="the server is starting, stopping or full",
            ),
        ),
        example=(
            Example(
                status=0,
                verdict="live",
                body='{"asked":"scram","authenticated":true,"ready":true,"server_version":"15.18"}',
                constructed=True,
            ),
            Example(status=0, verdict="undecided", why=Doubt.AMBIGUOUS, body='{"asked":"nothing"}', constructed=True),
            Example(
                status=0,
                verdict="dead",
                how=How.DISABLED,
                body='{"asked":"scram","authenticated":true,"sqlstate":"28000","message":"role is not permitted"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="restricted",
                body='{"asked":"md5","authenticated":true,"sqlstate":"3D000","message":"database does not exist"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body='{"asked":"scram","sqlstate":"28P01","message":"password authentication failed"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body='{"sqlstate":"28000","message":"no pg_hba.conf entry for host"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.UNREACHABLE,
                body='{"sqlstate":"57P03","message":"the database system is starting up"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"sqlstate":"XX000","message":"Tenant or user not found"}',
                source="https://github.com/supabase/supavisor",
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    return await login(kind, credential, door, handshake, PORT, base_url)


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Log in, in TLS where the server offers it, and return what it said.

    `asked` is how it wanted the password: nothing, clear, md5 or scram. `authenticated` is there once it accepted,
    `ready` once the session stood; `sqlstate` and `message` are its refusal.
    """
    async with connected(admitted) as stream:
        await stream.write(b"\x00\x00\x00\x08" + _SSL)
        answer = await stream.read(1)
        if answer == b"S":
            await stream.secure()
        elif answer == b"E":
            return await _refusal(stream)
        elif answer != b"N":
            raise WireError(Doubt.AMBIGUOUS, "the server does not speak the PostgreSQL protocol")
        fields = ("user", account.username, "database", account.database or account.username)
        body = _PROTOCOL + b"".join(text.encode() + b"\x00" for text in fields) + b"\x00"
        await stream.write((len(body) + 4).to_bytes(4, "big") + body)
        said = await _converse(stream, account)
        stream.goodbye(_GOODBYE)
        return said


async def _converse(stream: Stream, account: Account) -> Said:
    said: dict[str, str | bool] = {}
    scram: Scram | None = None
    for _ in range(_MOST_MESSAGES):
        kind, body = await _message(stream)
        match kind:
            case b"E":
                return said | _error(body)
            case b"Z":
                return said | {"ready": True}
            case b"S":
                name, _, value = body.partition(b"\x00")
                if name == b"server_version":
                    said["server_version"] = value.rstrip(b"\x00").decode("utf-8", "replace")[:40]
            case b"R":
                scram = await _authentication(stream, account, body, said, scram)
            case b"N" | b"K" | b"v":
                pass
            case _:
                break
    raise WireError(Doubt.AMBIGUOUS, "the server does not speak the PostgreSQL protocol")


async def _authentication(
    stream: Stream, account: Account, body: bytes, said: dict[str, str | bool], scram: Scram | None
) -> Scram | None:
    """Answer one authentication request."""
    code, rest = int.from_bytes(body[:4], "big"), body[4:]
    try:
        if code == _OK:
            said.setdefault("asked", "nothing")
            if said["asked"] == "scram" and not said.pop("proven", False):
                raise WireError(Doubt.AMBIGUOUS, "the server let us in without proving that it knows the password")
            said["authenticated"] = True
        elif code == _CLEAR:
            if not stream.tls:
                raise WireError(
                    Doubt.REFUSED, "the server wants the password in clear and offers no TLS: it was not sent"
                )
            said["asked"] = "clear"
            await _send(stream, account.password.encode() + b"\x00")
        elif code == _MD5:
            said["asked"] = "md5"
            inner = md5(account.password.encode() + account.username.encode(), usedforsecurity=False).hexdigest()
            outer = md5(inner.encode() + rest[:4], usedforsecurity=False).hexdigest()
            await _send(stream, b"md5" + outer.encode() + b"\x00")
        elif code == _SASL and b"SCRAM-SHA-256" in rest.split(b"\x00"):
            said["asked"] = "scram"
            scram = Scram("sha256", "", prepared(account.password))
            first = scram.first()
            await _send(stream, b"SCRAM-SHA-256\x00" + len(first).to_bytes(4, "big") + first)
        elif code == _SASL_CONTINUE and scram is not None:
            await _send(stream, scram.final(rest))
        elif code == _SASL_FINAL and scram is not None:
            scram.verify(rest)
            said["proven"] = True
        else:
            raise WireError(Doubt.UNSUPPORTED, "the server wants another log-in than by password (GSS, SSPI, …)")
    except ScramError as e:
        raise WireError(Doubt.AMBIGUOUS, f"SCRAM: {e}") from None
    return scram


async def _message(stream: Stream) -> tuple[bytes, bytes]:
    head = await stream.read(5)
    return head[:1], await stream.read(int.from_bytes(head[1:], "big") - 4)


async def _refusal(stream: Stream) -> Said:
    """Read an error whose first byte has been read already."""
    return _error(await stream.read(int.from_bytes(await stream.read(4), "big") - 4))


def _error(body: bytes) -> dict[str, str]:
    fields = {item[:1]: item[1:].decode("utf-8", "replace") for item in body.split(b"\x00") if item}
    return {"sqlstate": fields.get(b"C", ""), "message": fields.get(b"M", "")[:200]}


async def _send(stream: Stream, body: bytes) -> None:
    await stream.write(b"p" + (len(body) + 4).to_bytes(4, "big") + body)
