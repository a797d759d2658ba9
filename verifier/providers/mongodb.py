"""MongoDB log-ins: `hello`, SCRAM, and nothing after it.

pymongo is not used for the conversation (it monitors, pools, retries and picks addresses by itself), only its BSON.
Authentication: https://github.com/mongodb/specifications/blob/master/source/auth/auth.md
"""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, Any

from verifier.exchange import Call, Directory, Trouble
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.scram import Scram, ScramError, prepared
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "MongoDB"
PORT = 27017
_DOCS = "https://github.com/mongodb/specifications/blob/master/source/auth/auth.md"
_CODES = "https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml"
_OP_MSG = 2013
_HEAD = 16
_SHA1, _SHA256 = "SCRAM-SHA-1", "SCRAM-SHA-256"
_MOST_STEPS = 4
_SRV = "mongodb+srv"
_YES = frozenset({"true", "1"})


KINDS: tuple[Kind, ...] = (
    Kind(
        id="mongodb_uri",
        title="MongoDB log-in",
        category="db",
        docs="https://www.mongodb.com/docs/manual/reference/connection-string/",
        parts=("username", "password", "host"),
        optional=("port", "database", "scheme", "options"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=(
            Call(
                kind="mongodb_uri",
                method="LOGIN",
                scheme="mongodb",
                host="{host}",
                path="/{database}",
                reads="hello and SCRAM authentication; no database command follows",
                docs=_DOCS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"authenticated": True},
                has=("mechanism",),
                note="logged in, and the server proved that it knows the password",
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": 18, "codeName": "AuthenticationFailed"},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this user and password (18, AuthenticationFailed)",
                source=_CODES,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": 8000},
                words={"errmsg": "bad auth"},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="Atlas refused this user and password (8000, bad auth)",
                confidence=Confidence.OBSERVED,
                source="https://www.mongodb.com/docs/atlas/troubleshoot-connection/",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"codeName": ("MechanismUnavailable", "ProtocolError")},
                why=Doubt.UNSUPPORTED,
                note="the server does not log users in by SCRAM",
            ),
        ),
        example=(
            Example(
                status=0, verdict="live", body='{"authenticated":true,"mechanism":"SCRAM-SHA-256"}', constructed=True
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body='{"code":18,"codeName":"AuthenticationFailed","errmsg":"Authentication failed."}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body='{"code":8000,"codeName":"AtlasError","errmsg":"bad auth : authentication failed"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.UNSUPPORTED,
                body='{"code":334,"codeName":"MechanismUnavailable","errmsg":"Received authentication for mechanism"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":8000,"codeName":"AtlasError","errmsg":"internal error"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    scheme, host = credential.parts.get("scheme"), credential.parts["host"].reveal().strip().lower().rstrip(".")
    if base_url is not None or scheme is None or not scheme.reveal().lower().startswith(_SRV):
        return await login(kind, credential, door, handshake, PORT, base_url)
    if not isinstance(door, Directory):
        return Undecided(Doubt.UNSUPPORTED, note="mongodb+srv names its servers in DNS, which this door does not ask")
    found = await door.services(kind.calls[0], f"_mongodb._tcp.{host}")
    if isinstance(found, Trouble):
        return Undecided(found.why, retry_after=found.retry_after, note=found.note)
    # A record that leads out of the cluster's own domain is not followed (the drivers' rule, too).
    places = [place for place in found if place[0].endswith("." + host.partition(".")[2])]
    if not places or "." not in host:
        return Undecided(Doubt.AMBIGUOUS, note="the service records of this name lead out of its own domain")
    return await login(kind, credential, door, handshake, PORT, base_url, places=places)


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Log in and return what the server said.

    `authenticated` and `mechanism`, or `code`, `codeName` and `errmsg` of its refusal. A server that hangs up on us
    in clear is asked again in TLS; SCRAM shows it no password either way.
    """
    default = "true" if account.scheme == _SRV else ""
    secure = account.options.get("tls", account.options.get("ssl", default)).lower() in _YES
    if not secure:
        try:
            async with connected(admitted) as stream:
                return await _authenticate(stream, account)
        except EOFError:
            pass
        except ConnectionResetError:
            pass
    async with connected(admitted) as stream:
        await stream.secure()
        return await _authenticate(stream, account)


async def _authenticate(stream: Stream, account: Account) -> Said:
    """Try the databases that may hold the user: the one the URI names, else the one it opens, then `admin`."""
    named = account.options.get("authsource")
    sources = [named] if named else list(dict.fromkeys([account.database or "admin", "admin"]))
    talk = _Talk(stream)
    said: Said = {}
    for source in sources:
        said = await _at(talk, account, source)
        if "authenticated" in said:
            break
    return said


async def _at(talk: _Talk, account: Account, source: str) -> Said:
    hello = await talk.ask({"hello": 1, "saslSupportedMechs": f"{source}.{account.username}", "$db": "admin"})
    if not hello.get("ok"):
        return _refusal(hello)
    wanted = account.options.get("authmechanism", "").upper()
    offered = [wanted] if wanted not in {"", "DEFAULT"} else hello.get("saslSupportedMechs") or [_SHA1]
    mechanism = next((m for m in (_SHA256, _SHA1) if m in offered), None)
    if mechanism is None:
        raise WireError(Doubt.UNSUPPORTED, "this user logs in by certificate, LDAP or cloud identity, not by SCRAM")
    scram = _scram(mechanism, account)
    start = {"saslStart": 1, "mechanism": mechanism, "payload": scram.first(), "$db": source}
    reply = await talk.ask({**start, "options": {"skipEmptyExchange": True}})
    proven = False
    try:
        for step in range(_MOST_STEPS):
            if not reply.get("ok"):
                return _refusal(reply)
            payload = reply.get("payload", b"")
            if not isinstance(payload, bytes):
                break
            if step == 1:
                scram.verify(payload)
                proven = True
            if reply.get("done") is True:
                if not proven:
                    break
                return {"authenticated": True, "mechanism": mechanism, "source": source}
            answer = scram.final(payload) if step == 0 else b""
            conversation = reply.get("conversationId", 1)
            reply = await talk.ask(
                {"saslContinue": 1, "conversationId": conversation, "payload": answer, "$db": source}
            )
    except ScramError as e:
        raise WireError(Doubt.AMBIGUOUS, f"SCRAM: {e}") from None
    raise WireError(Doubt.AMBIGUOUS, "the server let us in without proving that it knows the password")


def _scram(mechanism: str, account: Account) -> Scram:
    if mechanism == _SHA256:
        return Scram("sha256", account.username, prepared(account.password))
    digest = md5(f"{account.username}:mongo:{account.password}".encode(), usedforsecurity=False).hexdigest()
    return Scram("sha1", account.username, digest)


def _refusal(reply: dict[str, Any]) -> Said:
    code = reply.get("code")
    return {
        "code": code if isinstance(code, int) else 0,
        "codeName": str(reply.get("codeName", ""))[:80],
        "errmsg": str(reply.get("errmsg", ""))[:200],
    }


class _Talk:
    """OP_MSG: one command, one answer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._number = 0

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and return the answer. Raises `WireError` for what is no answer to it."""
        import bson  # noqa: PLC0415  # comes with pymongo; only where there is something to ask

        self._number += 1
        body = bytes(5) + bson.encode(command)
        ints = (len(body) + _HEAD, self._number, 0, _OP_MSG)
        await self._stream.write(b"".join(n.to_bytes(4, "little") for n in ints) + body)
        head = await self._stream.read(_HEAD)
        length, _, to, code = (int.from_bytes(head[i : i + 4], "little") for i in range(0, _HEAD, 4))
        if code != _OP_MSG or to != self._number:
            raise WireError(Doubt.AMBIGUOUS, "the server does not speak MongoDB's protocol (OP_MSG, since 3.6)")
        answer = await self._stream.read(length - _HEAD)
        try:
            if answer[4:5] != b"\x00":
                raise WireError(Doubt.AMBIGUOUS, "the server sent what no handshake holds")
            return dict(bson.decode(answer[5:]))
        except (bson.errors.BSONError, UnicodeDecodeError, IndexError):
            raise WireError(Doubt.AMBIGUOUS, "the server's answer is not BSON") from None
