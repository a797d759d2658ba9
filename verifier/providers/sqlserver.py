"""SQL Server and Azure SQL log-ins: PRELOGIN, TLS, LOGIN7, and nothing after it.

No library does it: python-tds is blocking and goes on to set options; the others wrap a driver in C. LOGIN7 holds the
password itself, so that it leaves inside TLS only; on the open internet, with a server whose certificate is its own,
unless the connection string says `TrustServerCertificate=true`, as its own clients then don't look either.

The server tells a refused client little: number 18456 and state 1 for a wrong password, an unknown name and a user that
lives in one database only when that database is not named. Hence Dead only where the database is named. Azure's gateway
looks for the database before it looks at the password; there 4060 judges nothing, and an acknowledgement that sends the
client on to another host doesn't either. Nor is 18456 a death there: a log-in of the server may be no user of the
database that was named, and no document says in which words that is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier import tds
from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, WireError, connected, lenient_tls, login, verified_tls

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict
    from verifier.wire import Stream

TITLE = "Microsoft SQL Server"
PORT = 1433
_TDS = "https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-tds/"
_LOGIN_FAILED = (
    "https://learn.microsoft.com/en-us/sql/relational-databases/errors-events/mssqlserver-18456-database-engine-error"
)
_EXPIRED = (
    "https://learn.microsoft.com/sql/relational-databases/native-client/features/changing-passwords-programmatically"
)
_AZURE_ERRORS = "https://learn.microsoft.com/en-us/azure/azure-sql/database/troubleshoot-common-errors-issues"
_GATEWAYS = (
    ".database.windows.net",
    ".database.usgovcloudapi.net",
    ".database.chinacloudapi.cn",
    ".database.cloudapi.de",
    ".sql.azuresynapse.net",
)
"""Where Azure's gateway stands before the servers."""
_REFUSED = 18456
_TELLS_LITTLE = (4060, _REFUSED)
"""Errors that follow one that tells more: "cannot open the database", and "login failed" after that."""
_OF_THE_PASSWORD = (1, 2, 5, 7, 8, 9, 65)
"""States of 18456: 1 hides the reason; the others say unknown name, wrong password (and, 7, disabled besides)."""


def _undecided(why: Doubt, note: str, *codes: int, **more: bool) -> Rule:
    return Rule(verdict="undecided", status=0, json={"code": codes, **more}, why=why, note=note)


def _said(code: int, message: str, state: int = 1, **more: bool) -> str:
    flags = {"named": True, "placed": True, "gateway": False} | more
    rest = "".join(f',"{name}":{str(value).lower()}' for name, value in flags.items())
    return f'{{"code":{code},"state":{state},"severity":14,"message":"{message}"{rest},"user":"app"}}'


def _example(verdict: str, body: str, how: How | None = None, why: Doubt | None = None) -> Example:
    return Example(status=0, verdict=verdict, body=body, how=how, why=why, constructed=True)  # type: ignore[arg-type]  # words of the specs, checked by msgspec


_FAILED = "Login failed for user 'app'."

KINDS: tuple[Kind, ...] = (
    Kind(
        id="sqlserver",
        title="SQL Server log-in",
        category="db",
        docs=_LOGIN_FAILED,
        parts=("username", "password", "host"),
        optional=("port", "database", "options"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=2, burst=2, concurrency=2),
        calls=(
            Call(
                kind="sqlserver",
                method="LOGIN",
                scheme="mssql",
                host="{host}",
                path="/{database}",
                reads="LOGIN7 authenticates this connection only; no query is sent",
                docs=_TDS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"authenticated": True},
                words={"program": "SQL Server"},
                has=("server_version", "user"),
                note="logged in",
                source=_TDS,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"routed": True},
                why=Doubt.UNSUPPORTED,
                note="the server sends the log-in on to a host that is not of the same service",
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"code": (18487, 18488)},
                note="the password was accepted and must be changed, which whoever knows it can do",
                source=_EXPIRED,
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"code": (916, 4064, 17892)},
                note="the password was accepted; a database or a log-on trigger stands in the way",
                source=_LOGIN_FAILED,
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"code": 4060, "gateway": False},
                note="the password was accepted; the database stands in the way",
                source=_LOGIN_FAILED,
            ),
            _undecided(
                Doubt.AMBIGUOUS,
                "Azure's gateway does not find this server or database, and has not looked at the password",
                4060,
                40532,
                gateway=True,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"code": 18470},
                words={"message": "account is disabled"},
                how=How.DISABLED,
                arrival=Arrival.PROVEN,
                note="the account is disabled",
                source=_LOGIN_FAILED,
            ),
            _undecided(
                Doubt.INCOMPLETE,
                "refused, but without the name of a database: a user that lives in one only is refused so, too",
                _REFUSED,
                placed=False,
            ),
            _undecided(
                Doubt.AMBIGUOUS,
                "refused for this database; whether Azure refuses a log-in that is only no user of it so, nobody says",
                _REFUSED,
                gateway=True,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={
                    "code": _REFUSED, "state": _OF_THE_PASSWORD, "severity": 14, "named": True, "placed": True,
                },
                words={"message": "Login failed for user '"},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this name and password (18456)",
                source=_LOGIN_FAILED,
            ),
            Rule(
                verdict="restricted",
                status=0,
                json={"code": _REFUSED, "state": (11, 12, 16, 18, 27, 38, 40, 46), "gateway": False},
                note="the password was accepted; the right to connect, or the database, is lacking",
                source=_LOGIN_FAILED,
            ),
            _undecided(
                Doubt.BLOCKED,
                "the account is locked for now, or the server lets nobody try from our address",
                18486, 40615, 40914, 47073, 18461,
            ),
            _undecided(
                Doubt.UNSUPPORTED,
                "the server wants another log-in than by its own names and passwords",
                18452, 18450, 33134, 33135,
            ),
            _undecided(
                Doubt.UNREACHABLE,
                "the server or the database takes no connection now",
                40197, 40501, 40613, 49918, 49919, 49920, 17142, 17809, 18401, 18451, 6005, 921, 927, 942,
            ),
        ),
        example=(
            _example(
                "live",
                '{"authenticated":true,"program":"Microsoft SQL Server","server_version":"16.0.4135","user":"app"}',
            ),
            _example("undecided", '{"routed":true,"routed_to":"elsewhere.test"}', why=Doubt.UNSUPPORTED),
            _example("restricted", _said(18488, f"{_FAILED} Reason: The password of the account must be changed.")),
            _example("restricted", _said(916, "The server principal cannot access the database.", gateway=True)),
            _example("restricted", _said(4060, 'Cannot open database \\"shop\\" requested by the login.')),
            _example("undecided", _said(4060, 'Cannot open database \\"shop\\".', gateway=True), why=Doubt.AMBIGUOUS),
            _example("dead", _said(18470, f"{_FAILED} Reason: The account is disabled."), how=How.DISABLED),
            _example("undecided", _said(_REFUSED, _FAILED, placed=False), why=Doubt.INCOMPLETE),
            _example("dead", _said(_REFUSED, _FAILED), how=How.REJECTED),
            _example("undecided", _said(_REFUSED, _FAILED, gateway=True), why=Doubt.AMBIGUOUS),
            _example("restricted", _said(_REFUSED, _FAILED, 38)),
            _example("undecided", _said(18486, f"{_FAILED} The account is currently locked out."), why=Doubt.BLOCKED),
            _example("undecided", _said(18452, "The login is from an untrusted domain."), why=Doubt.UNSUPPORTED),
            _example("undecided", _said(40613, "Database 'shop' is not currently available."), why=Doubt.UNREACHABLE),
            _example(
                "undecided",
                _said(_REFUSED, f"{_FAILED} Reason: Azure Active Directory only authentication.", named=False),
                why=Doubt.AMBIGUOUS,
            ),
            _example("undecided", _said(_REFUSED, "Fehler bei der Anmeldung.", named=False), why=Doubt.AMBIGUOUS),
        ),
    ),
)  # fmt: skip


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works, at the host that Azure's gateway names where it names one."""
    if not credential.parts["username"].reveal().strip():
        return Undecided(Doubt.INCOMPLETE, note="the log-in has no name")
    if "\\" in credential.parts["username"].reveal():
        return Undecided(Doubt.UNSUPPORTED, note="an account of Windows, which logs in in another way")
    if "\\" in credential.parts["host"].reveal() and base_url is None:
        note = "a named instance listens at a port that only its own machine knows: add the port"
        return Undecided(Doubt.INCOMPLETE, note=note)
    routed: list[tuple[str, int]] = []

    async def first(admitted: Admitted, account: Account) -> Said:
        """Log in and keep where the server sends us."""
        said, place = await handshake(admitted, account)
        routed.extend(p for p in (place,) if p is not None and _same_service(admitted.host, p[0]))
        return said

    async def second(admitted: Admitted, account: Account) -> Said:
        """Log in where the server sent us; nobody is followed twice."""
        return (await handshake(admitted, account))[0]

    result = await login(kind, credential, door, first, PORT, base_url)
    if routed:
        return await login(kind, credential, door, second, PORT, base_url, places=routed)
    return result


def _same_service(asked: str, other: str) -> bool:
    """Whether Azure's gateway sends us on inside its own domain."""
    return any(asked.endswith(g) and other.lower().endswith(g) for g in _GATEWAYS)


async def handshake(admitted: Admitted, account: Account) -> tuple[Said, tuple[str, int] | None]:
    """Log in and return what the server said, and the place where it sends us, if it does."""
    way = account.options.get("authentication", "") or account.options.get("integratedsecurity", "")
    if way:
        raise WireError(Doubt.UNSUPPORTED, "the connection string logs in by Entra ID or Windows, not by the server")
    if any(
        len(t.encode("utf-16-le")) > 2 * tds.LONGEST_NAME
        for t in (account.username, account.password, account.database)
    ):
        raise WireError(Doubt.INCOMPLETE, "the log-in is longer than any that the server takes: it was cut out badly")
    async with connected(admitted) as stream:
        through = await _encrypted(stream, admitted, account)
        await through.write(tds.packet(tds.LOGIN7, tds.login7(account, admitted.host)))
        answer = tds.read(await tds.message(through, tds.RESPONSE))
    if answer.routed is not None:
        return {"routed": True, "routed_to": answer.routed[0][:200]}, answer.routed
    errors = [c for c in answer.complaints if c.severity > 10]
    if not errors:
        return {
            "authenticated": bool(answer.program),
            "program": answer.program,
            "server_version": answer.version,
        }, None
    told = min(errors, key=lambda c: _TELLS_LITTLE.index(c.number) if c.number in _TELLS_LITTLE else -1)
    return {
        "code": told.number,
        "state": told.state,
        "severity": told.severity,
        "message": told.message,
        "named": told.message.strip().rstrip(".") in {f"Login failed for user '{name}'" for name in _names(account)},
        "placed": bool(account.database),
        "gateway": admitted.host.endswith(_GATEWAYS),
    }, None


def _names(account: Account) -> tuple[str, str]:
    """Return how the server may call the user: Azure cuts `@server` off."""
    return account.username, account.username.partition("@")[0]


async def _encrypted(stream: Stream, admitted: Admitted, account: Account) -> Stream | tds.Tunnel:
    """Return what the log-in may be written to: in TLS from the first byte ("strict"), or from PRELOGIN on."""
    if account.options.get("encrypt") == "strict":
        await stream.secure_verified("tds/8.0")
        await stream.write(tds.packet(tds.PRELOGIN, tds.prelogin()))
        await tds.message(stream, tds.RESPONSE)
        return stream
    await stream.write(tds.packet(tds.PRELOGIN, tds.prelogin()))
    if tds.encryption(await tds.message(stream, tds.RESPONSE)) not in tds.ENCRYPTED:
        raise WireError(Doubt.REFUSED, "the server offers no TLS, outside of which no password is sent")
    trusting = admitted.own or account.options.get("trustservercertificate") == "true"
    context = lenient_tls() if trusting else verified_tls(admitted)
    tunnel = tds.Tunnel(stream, context, admitted.host)
    await tunnel.begin()
    return tunnel
