"""MySQL and MariaDB log-ins: the connection phase, and nothing after it.

PyMySQL is not used: it goes on with `SET NAMES` and `autocommit`, has deadlines per read only, and hands a server that
asks for `mysql_clear_password` the password without TLS.
Connection phase: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
"""

from __future__ import annotations

from hashlib import sha1, sha256
from typing import TYPE_CHECKING

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "MySQL and MariaDB"
PORT = 3306
_PHASE = "https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html"
_ERRORS = "https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html"
_LONG_PASSWORD, _WITH_DB, _PROTOCOL_41, _SSL, _SECURE, _PLUGIN = 0x1, 0x8, 0x200, 0x800, 0x8000, 0x80000
_UTF8MB4 = 45
_NATIVE, _CACHING, _SHA256, _CLEAR = (
    "mysql_native_password",
    "caching_sha2_password",
    "sha256_password",
    "mysql_clear_password",
)
_OK, _MORE, _SWITCH, _ERROR = 0x00, 0x01, 0xFE, 0xFF
_FAST, _FULL = b"\x03", b"\x04"
_VERSION = 10
_MOST_ROUNDS = 10


KINDS: tuple[Kind, ...] = (
    Kind(
        id="mysql",
        title="MySQL or MariaDB log-in",
        category="db",
        docs="https://dev.mysql.com/doc/refman/8.4/en/problems-connecting.html",
        parts=("username", "password", "host"),
        optional=("port", "database", "scheme", "options"),
        probe="code",
        by_address=True,  # 'app'@'10.%' with the right password answers 1045 to everybody else
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=(
            Call(
                kind="mysql",
                method="LOGIN",
                scheme="mysql",
                host="{host}",
                path="/{database}",
                reads="authenticates and says goodbye; no query is sent",
                docs=_PHASE,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"authenticated": True},
                has=("server_version",),
                note="logged in",
            ),
            Rule(
                verdict="undecided",
                status=0,
                words={"message": ("ProxySQL Error", "using password: NO")},
                why=Doubt.AMBIGUOUS,
                note="a proxy's own answer, or one to a log-in whose password did not arrive",
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"code": (1044, 1049, 1203, 1226, 1820, 1862)},
                note="the password was accepted; the database, a quota or an expired password stands in the way",
                source=_ERRORS,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": (3118, 4151)},
                how=How.DISABLED,
                arrival=Arrival.PROVEN,
                note="the account is locked",
                source=_ERRORS,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": 1045},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this user and password (1045) to a client at our address",
                source="https://dev.mysql.com/doc/refman/8.4/en/problems-connecting.html",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": (1129, 1130, 3159, 3955)},
                why=Doubt.BLOCKED,
                note="the server does not let us try the password from here, or not now",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": (1040, 1053, 1158, 1159, 1161)},
                why=Doubt.UNREACHABLE,
                note="the server is full or going down",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": 1698},
                why=Doubt.UNSUPPORTED,
                note="this account does not log in by password",
            ),
        ),
        example=(
            Example(
                status=0,
                verdict="live",
                body='{"authenticated":true,"server_version":"10.11.18-MariaDB"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":1045,"message":"ProxySQL Error: Access denied for user \'app\'@\'192.0.2.7\'"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="restricted",
                body='{"code":1049,"sqlstate":"42000","message":"Unknown database \'shop\'"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.DISABLED,
                body='{"code":3118,"sqlstate":"HY000","message":"Access denied for user. Account is locked."}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="dead",
                how=How.REJECTED,
                body='{"code":1045,"message":"Access denied for user \'app\'@\'192.0.2.7\' (using password: YES)"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body='{"code":1130,"message":"Host \'192.0.2.7\' is not allowed to connect to this MySQL server"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.UNREACHABLE,
                body='{"code":1040,"message":"Too many connections"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.UNSUPPORTED,
                body='{"code":1698,"message":"Access denied for user \'root\'@\'localhost\'"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    return await login(kind, credential, door, handshake, PORT, base_url)


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Log in, in TLS where the server offers it, and return what it said.

    `authenticated` and `server_version`, or `code`, `sqlstate` and `message` of its refusal.
    """
    async with connected(admitted) as stream:
        seq, greeting = await _packet(stream)
        if greeting[:1] == bytes([_ERROR]):
            return _error(greeting)
        version, offered, plugin, salt = _greeting(greeting)
        flags = _LONG_PASSWORD | _PROTOCOL_41 | _SECURE | _PLUGIN | (_WITH_DB if account.database else 0)
        if offered & _SSL:
            flags |= _SSL
        head = flags.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + bytes([_UTF8MB4]) + bytes(23)
        if offered & _SSL:
            seq += 1
            await _send(stream, seq, head)
            await stream.secure()
        plugin = plugin if plugin in {_NATIVE, _CACHING} else _NATIVE
        response = scramble(plugin, account.password.encode(), salt)
        database = account.database.encode() + b"\x00" if account.database else b""
        body = head + account.username.encode() + b"\x00" + bytes([len(response)]) + response + database
        await _send(stream, seq + 1, body + plugin.encode() + b"\x00")
        said = await _converse(stream, account, plugin)
        if "authenticated" in said:
            said = {**said, "server_version": version}
            stream.goodbye(b"\x01\x00\x00\x00\x01")
        return said


async def _converse(stream: Stream, account: Account, plugin: str) -> Said:
    for _ in range(_MOST_ROUNDS):
        seq, body = await _packet(stream)
        first, rest = body[:1], body[1:]
        if first == bytes([_OK]):
            return {"authenticated": True}
        if first == bytes([_ERROR]):
            return _error(body)
        if first == bytes([_SWITCH]):
            name, _, data = rest.partition(b"\x00")
            plugin = name.decode("ascii", "replace")
            await _send(stream, seq + 1, _answer(stream, account, plugin, data.rstrip(b"\x00")))
        elif first == bytes([_MORE]) and plugin == _CACHING and rest == _FULL:
            await _send(stream, seq + 1, _readable(stream, account))
        elif not (first == bytes([_MORE]) and plugin == _CACHING and rest == _FAST):
            break
    raise WireError(Doubt.AMBIGUOUS, "the server does not speak the MySQL protocol")


def _answer(stream: Stream, account: Account, plugin: str, salt: bytes) -> bytes:
    if plugin in {_NATIVE, _CACHING}:
        return scramble(plugin, account.password.encode(), salt)
    if plugin in {_SHA256, _CLEAR}:
        return _readable(stream, account)
    raise WireError(Doubt.UNSUPPORTED, "the server wants another log-in than by password (PAM, ed25519, GSSAPI, …)")


def _readable(stream: Stream, account: Account) -> bytes:
    if not stream.tls:
        raise WireError(Doubt.REFUSED, "the server wants the password itself and offers no TLS: it was not sent")
    return account.password.encode() + b"\x00"


def scramble(plugin: str, password: bytes, salt: bytes) -> bytes:
    """Return the proof of a password: SHA-1 for `mysql_native_password`, SHA-256 for `caching_sha2_password`."""
    if plugin == _NATIVE:
        once = sha1(password, usedforsecurity=False).digest()
        mask = sha1(salt + sha1(once, usedforsecurity=False).digest(), usedforsecurity=False).digest()
    else:
        once = sha256(password).digest()
        mask = sha256(sha256(once).digest() + salt).digest()
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


def _greeting(body: bytes) -> tuple[str, int, str, bytes]:
    """Return server version, capabilities, default plug-in and salt. Raises `WireError`."""
    version, nul, rest = body[1:].partition(b"\x00")
    if body[:1] != bytes([_VERSION]) or not nul or len(rest) < 44:  # the fixed fields
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak the MySQL protocol")
    offered = int.from_bytes(rest[13:15], "little") | int.from_bytes(rest[18:20], "little") << 16
    if not offered & _PROTOCOL_41:
        raise WireError(Doubt.UNSUPPORTED, "the server is older than MySQL 4.1")
    length = max(13, rest[20] - 8)
    salt = rest[4:12] + rest[31 : 31 + length].rstrip(b"\x00")
    plugin = rest[31 + length :].partition(b"\x00")[0].decode("ascii", "replace")
    return version.decode("utf-8", "replace")[:60], offered, plugin, salt


async def _packet(stream: Stream) -> tuple[int, bytes]:
    head = await stream.read(4)
    return head[3], await stream.read(int.from_bytes(head[:3], "little"))


async def _send(stream: Stream, seq: int, body: bytes) -> None:
    await stream.write(len(body).to_bytes(3, "little") + bytes([seq & 0xFF]) + body)


def _error(body: bytes) -> dict[str, str | int]:
    code, text = int.from_bytes(body[1:3], "little"), body[3:]
    state = text[1:6].decode("ascii", "replace") if text[:1] == b"#" else ""
    message = text[6:] if state else text
    return {"code": code, "sqlstate": state, "message": message.decode("utf-8", "replace")[:200]}
