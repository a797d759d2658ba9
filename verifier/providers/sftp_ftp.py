"""FTP log-ins: USER and PASS inside TLS, nothing after them; and SFTP's, which are SSH's under another name.

`ftps` begins in TLS; `ftp` asks for `AUTH TLS` first, and a server that knows none is sent no password. Both kinds of
server refuse by address, by lists of users and by wrong password in the same words: hence `by_address`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from verifier import ssh
from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "FTP and SFTP"
PORT, TLS_PORT = 21, 990
_DOCS = "https://www.rfc-editor.org/rfc/rfc959#section-4.2"
_TLS = "https://www.rfc-editor.org/rfc/rfc4217"
_LINE = re.compile(r"(\d{3})([ -])(.*)", re.DOTALL)
_MOST_LINES = 100
_ANYBODY = frozenset({"anonymous", "ftp"})
_REFUSED = (
    "Login incorrect",
    "Login authentication failed",
    "User cannot log in",
    "Authentication failed",
    "Incorrect password",
    "Login or password incorrect",
    "Invalid user name or password",
)


def _said(code: int, text: str) -> str:
    return f'{{"asked":"pass","code":{code},"text":"{text}"}}'


KINDS: tuple[Kind, ...] = (
    Kind(
        id="sftp_ftp",
        title="FTP or SFTP log-in",
        category="db",
        docs=_TLS,
        parts=("username", "password", "host"),
        optional=("port", "path", "scheme"),
        probe="code",
        by_address=True,
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=1, burst=1, concurrency=1),
        calls=(
            Call(
                kind="sftp_ftp",
                method="LOGIN",
                scheme="ftp",
                host="{host}",
                path="/",
                reads="USER and PASS log this connection in; no folder is listed and no file is touched",
                docs=_DOCS,
            ),
            Call(
                kind="sftp_ftp",
                method="LOGIN",
                scheme="ssh",
                host="{host}",
                path="/",
                reads="authenticates at a server whose host key is known; no session is opened",
                docs=ssh.AUTHENTICATION,
            ),
        ),
        rule=(
            *ssh.PASSWORD_RULES,
            Rule(
                verdict="live",
                status=0,
                json={"asked": "pass", "code": 230},
                has=("user",),
                note="logged in",
                source=_DOCS,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"asked": "pass", "code": 530},
                words={"text": _REFUSED},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server refused this name and password",
                confidence=Confidence.DOCUMENTED,
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"asked": "user", "code": (230, 232)},
                why=Doubt.AMBIGUOUS,
                note="the server lets this name in without a password, so that ours was not judged",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": (331, 332, 421, 500, 502, 530, 532, 534)},
                why=Doubt.BLOCKED,
                note="the server does not let us try, or wants more than a name and a password",
            ),
        ),
        example=(
            *ssh.PASSWORD_EXAMPLES,
            Example(
                status=0,
                verdict="live",
                body='{"asked":"pass","code":230,"text":"Login successful.","user":"app"}',
                constructed=True,
            ),
            Example(status=0, verdict="dead", how=How.REJECTED, body=_said(530, "Login incorrect."), constructed=True),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"asked":"user","code":230,"text":"Welcome"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body=_said(530, "Sorry, the maximum number of clients for this user are already connected."),
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    scheme = (base_url or "").partition("://")[0] or _part(credential, "scheme").removesuffix("://")
    if scheme in {"sftp", "ssh"} or (not scheme and _part(credential, "port") == str(ssh.PORT)):
        if not _part(credential, "username"):
            return Undecided(Doubt.INCOMPLETE, note="the log-in has no name")
        by_ssh = replace(kind, calls=kind.calls[1:])
        return await login(by_ssh, credential, door, ssh.password, ssh.PORT, base_url)
    if _part(credential, "username") in _ANYBODY:
        return Undecided(Doubt.INCOMPLETE, note="anybody logs in by this name, with any password")
    tls = scheme == "ftps" and _part(credential, "port") in {"", str(TLS_PORT)}
    return await login(kind, credential, door, handshake, TLS_PORT if tls else PORT, base_url)


def _part(credential: Credential, name: str) -> str:
    value = credential.parts.get(name)
    return value.reveal().strip().lower() if value is not None else ""


async def handshake(admitted: Admitted, account: Account) -> Said:
    """Log in and return the server's last reply, and which command it answers."""
    if any(c in account.username + account.password for c in "\r\n"):
        raise WireError(Doubt.INCOMPLETE, "the log-in holds line breaks: it was cut out badly")
    async with connected(admitted) as stream:
        if admitted.port == TLS_PORT:
            await stream.secure_for_password()
            await _greeted(stream)
        else:
            await _greeted(stream)
            await stream.write(b"AUTH TLS\r\n")
            if (await _reply(stream))[0] != 234:  # RFC 4217
                raise WireError(Doubt.UNSUPPORTED, "the server offers no TLS, and the password is sent inside TLS only")
            await stream.secure_for_password()
        await stream.write(f"USER {account.username}\r\n".encode())
        code, text = await _reply(stream)
        if code != 331:  # RFC 959: need password
            return {"asked": "user", "code": code, "text": text}
        await stream.write(f"PASS {account.password}\r\n".encode())
        code, text = await _reply(stream)
        stream.goodbye(b"QUIT\r\n")
        return {"asked": "pass", "code": code, "text": text}


async def _greeted(stream: Stream) -> None:
    code, _ = await _reply(stream)
    if code == 421:  # RFC 959: service not available
        raise WireError(Doubt.BLOCKED, "the server takes no connection now")
    if code != 220:  # RFC 959: ready
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak FTP")


async def _reply(stream: Stream) -> tuple[int, str]:
    """Return code and first line of the next reply; later lines of a long one are skipped."""
    first: tuple[int, str] | None = None
    for _ in range(_MOST_LINES):
        line = _LINE.fullmatch((await stream.line()).decode("utf-8", "replace"))
        if line is None:
            if first is None:
                break
            continue
        code, more, text = int(line.group(1)), line.group(2), line.group(3)
        first = first or (code, text[:200])
        if more == " " and code == first[0]:
            return first
    raise WireError(Doubt.AMBIGUOUS, "the server does not speak FTP")
