"""Mail log-ins: SMTP AUTH and IMAP LOGIN inside verified TLS, and out again.

No mail is sent and none is read: after the log-in comes QUIT or LOGOUT. A server that offers no TLS, or a certificate
that is not its own, is sent no password. A provider that wants an app password, or has switched passwords off for an
account, says so in words of its own, which are no refusal of this password. A refusal may be about our address or a
lock on the account, too, in the very same words; therefore `by_address`. A 535 without an enhanced code (Exim's) proves
nothing: no document says what it means.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, Stream, WireError, connected, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "Mail"
_AUTH = "https://www.rfc-editor.org/rfc/rfc4954"
_IMAP = "https://www.rfc-editor.org/rfc/rfc9051"
_CODES = "https://www.rfc-editor.org/rfc/rfc5530"
SUBMISSION, SMTPS, IMAP, IMAPS = 587, 465, 143, 993
_TLS_SCHEMES = {"smtps": SMTPS, "imaps": IMAPS}
_LINE = re.compile(r"(\d{3})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) ?(.*)", re.DOTALL)
_TAGGED = re.compile(r"a\d (OK|NO|BAD) ?(?:\[([A-Z-]+)[^\]]*\] ?)?(.*)", re.IGNORECASE | re.DOTALL)
_MOST_LINES = 100

_OTHER_WAY = (
    "Application-specific password",
    "app password",
    "basic authentication is disabled",
    "SmtpClientAuthentication is disabled",
    "log in via your web browser",
    "WebLoginRequired",
    "authorization code",
    "not enabled for",
    "mailbox not enabled",
    "protocol is disabled",
)
_NOT_NOW = (
    "too many",
    "temporar",
    "try again",
    "locked",
    "blocked",
    "rate limit",
    "suspicious",
    "blacklist",
    "not allowed from",
    "security defaults",
    "conditional access",
)
_SMTP_WORDS = (
    "Username and Password not accepted",
    "authentication failed",
    "Authentication credentials invalid",
    "Authentication unsuccessful",
    "Invalid username or password",
    "Invalid login or password",
    "incorrect username or password",
)
_IMAP_WORDS = (
    "Authentication failed",
    "Invalid credentials",
    "LOGIN failed",
    "Login incorrect",
    "Invalid login or password",
    "incorrect username or password",
)


def _kind(kind: str, title: str, docs: str, call: Call, *rules: Rule, examples: tuple[Example, ...]) -> Kind:
    return Kind(
        id=kind,
        title=title,
        category="comms",
        docs=docs,
        parts=("username", "password", "host"),
        optional=("port", "scheme"),
        probe="code",
        by_address=True,
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=1, burst=1, concurrency=1),
        calls=(call,),
        rule=rules,
        example=examples,
    )


def _undecided(why: Doubt, note: str, **conditions: dict[str, str | int | tuple[str | int, ...]]) -> Rule:
    return Rule(verdict="undecided", status=0, why=why, note=note, **conditions)  # type: ignore[arg-type]  # words of the specs, checked by msgspec


def _said(verdict: str, body: str, *, how: How | None = None, why: Doubt | None = None) -> Example:
    return Example(status=0, verdict=verdict, body=body, how=how, why=why, constructed=True)  # type: ignore[arg-type]  # words of the specs, checked by msgspec


_ELSEWISE = _undecided(
    Doubt.UNSUPPORTED,
    "this account logs in by an app password, by OAuth or not at all in this way; the password itself was not judged",
    words={"text": _OTHER_WAY},
)
_LATER = _undecided(
    Doubt.BLOCKED, "the server lets nobody try from here, or not now: a lock or a limit", words={"text": _NOT_NOW}
)

KINDS: tuple[Kind, ...] = (
    _kind(
        "smtp",
        "SMTP log-in",
        _AUTH,
        Call("smtp", "LOGIN", "smtp", "{host}", "/", "AUTH and QUIT inside TLS; no mail is begun", _AUTH),
        Rule(
            verdict="live",
            status=0,
            json={"asked": "auth", "code": 235},
            has=("user",),
            note="logged in",
            source=_AUTH,
        ),
        _ELSEWISE,
        _LATER,
        Rule(
            verdict="dead",
            status=0,
            json={"asked": "auth", "code": 535, "enhanced": "5.7.8"},
            words={"text": _SMTP_WORDS},
            how=How.REJECTED,
            arrival=Arrival.PROVEN,
            note="the server refused this name and password (535) to a client at our address",
            source=_AUTH,
        ),
        _undecided(
            Doubt.UNREACHABLE, "the server cannot tell now", json={"asked": "auth", "code": (421, 432, 451, 454)}
        ),
        examples=(
            _said("live", '{"asked":"auth","code":235,"enhanced":"2.7.0","text":"Accepted","user":"app"}'),
            _said(
                "dead",
                '{"asked":"auth","code":535,"enhanced":"5.7.8","text":"Error: authentication failed: (reason '
                'unavailable)"}',
                how=How.REJECTED,
            ),
            _said(
                "undecided",
                '{"asked":"auth","code":535,"enhanced":"","text":"Incorrect authentication data"}',
                why=Doubt.AMBIGUOUS,
            ),
            _said(
                "undecided",
                '{"asked":"auth","code":535,"enhanced":"5.7.139","text":"Authentication unsuccessful, basic '
                'authentication is disabled."}',
                why=Doubt.UNSUPPORTED,
            ),
            _said(
                "undecided",
                '{"asked":"auth","code":535,"enhanced":"5.7.139","text":"Authentication unsuccessful, user is locked '
                "by your organization's security defaults policy.\"}",
                why=Doubt.BLOCKED,
            ),
            _said(
                "undecided",
                '{"asked":"auth","code":454,"enhanced":"4.7.0","text":"Authentication failure: backend"}',
                why=Doubt.UNREACHABLE,
            ),
            _said(
                "undecided",
                '{"asked":"auth","code":535,"enhanced":"5.7.139","text":"Authentication unsuccessful"}',
                why=Doubt.AMBIGUOUS,
            ),
        ),
    ),
    _kind(
        "imap",
        "IMAP log-in",
        _IMAP,
        Call("imap", "LOGIN", "imap", "{host}", "/", "LOGIN and LOGOUT inside TLS; no mailbox is opened", _IMAP),
        Rule(
            verdict="live",
            status=0,
            json={"asked": "login", "answer": "OK"},
            has=("user",),
            note="logged in",
            source=_IMAP,
        ),
        _ELSEWISE,
        _LATER,
        Rule(
            verdict="dead",
            status=0,
            json={"asked": "login", "answer": "NO", "code": "AUTHENTICATIONFAILED"},
            words={"text": _IMAP_WORDS},
            how=How.REJECTED,
            arrival=Arrival.PROVEN,
            note="the server refused this name and password to a client at our address",
            source=_CODES,
        ),
        _undecided(
            Doubt.UNREACHABLE, "the server cannot tell now", json={"asked": "login", "code": ("UNAVAILABLE", "INUSE")}
        ),
        _undecided(
            Doubt.UNSUPPORTED,
            "the server takes this log-in in another way only",
            json={"asked": "login", "code": ("AUTHORIZATIONFAILED", "PRIVACYREQUIRED", "CONTACTADMIN", "EXPIRED")},
        ),
        examples=(
            _said("live", '{"asked":"login","answer":"OK","code":"","text":"Logged in","user":"app"}'),
            _said(
                "dead",
                '{"asked":"login","answer":"NO","code":"AUTHENTICATIONFAILED","text":"Authentication failed."}',
                how=How.REJECTED,
            ),
            _said(
                "undecided",
                '{"asked":"login","answer":"NO","code":"ALERT","text":"Application-specific password required"}',
                why=Doubt.UNSUPPORTED,
            ),
            _said(
                "undecided",
                '{"asked":"login","answer":"NO","code":"AUTHENTICATIONFAILED","text":"Too many login failures"}',
                why=Doubt.BLOCKED,
            ),
            _said(
                "undecided",
                '{"asked":"login","answer":"NO","code":"UNAVAILABLE","text":"Internal error"}',
                why=Doubt.UNREACHABLE,
            ),
            _said(
                "undecided",
                '{"asked":"login","answer":"NO","code":"PRIVACYREQUIRED","text":"No"}',
                why=Doubt.UNSUPPORTED,
            ),
            _said("undecided", '{"asked":"login","answer":"BAD","code":"","text":"Syntax"}', why=Doubt.AMBIGUOUS),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works."""
    if not credential.parts["username"].reveal().strip():
        return Undecided(Doubt.INCOMPLETE, note="the log-in has no name")
    given = credential.parts.get("scheme")
    scheme = (base_url or "").partition("://")[0] or (given.reveal().lower().removesuffix("://") if given else "")
    port = _TLS_SCHEMES.get(scheme, SUBMISSION if kind.id == "smtp" else IMAPS)
    return await login(kind, credential, door, smtp if kind.id == "smtp" else imap, port, base_url)


async def smtp(admitted: Admitted, account: Account) -> Said:
    """Log in by AUTH PLAIN, or LOGIN where the server has no other, and return its last reply."""
    async with connected(admitted) as stream:
        if admitted.port == SMTPS or account.scheme == "smtps":
            await stream.secure_verified()
            await _greeted(stream)
        else:
            await _greeted(stream)
            if not any(w.upper() == "STARTTLS" for w in await _hello(stream)):
                raise WireError(Doubt.UNSUPPORTED, "the server offers no TLS, and the password is sent inside TLS only")
            await stream.write(b"STARTTLS\r\n")
            if (await _reply(stream))[0] != 220:  # RFC 3207
                raise WireError(Doubt.UNREACHABLE, "the server offered TLS and did not begin it")
            await stream.secure_verified()
        offers = [w.upper() for w in await _hello(stream)]
        ways = {way for w in offers if w.startswith(("AUTH ", "AUTH=")) for way in w[5:].split()}
        user, password = account.username.encode(), account.password.encode()
        if "PLAIN" in ways:
            sends = [b"AUTH PLAIN", b64encode(b"\x00" + user + b"\x00" + password)]
        elif "LOGIN" in ways:
            sends = [b"AUTH LOGIN", b64encode(user), b64encode(password)]
        else:
            raise WireError(Doubt.UNSUPPORTED, "the server takes no log-in by password")
        asked, code, lines = "auth", 0, [""]
        for n, line in enumerate(sends):
            await stream.write(line + b"\r\n")
            code, lines = await _reply(stream)
            if n < len(sends) - 1 and code != 334:  # RFC 4954: go on
                asked = "begin"
                break
        stream.goodbye(b"QUIT\r\n")
        enhanced = _ENHANCED.fullmatch(lines[0])
        text = " ".join(_ENHANCED.sub(r"\2", line) for line in lines)
        return {"asked": asked, "code": code, "enhanced": enhanced.group(1) if enhanced else "", "text": text[:300]}


async def _greeted(stream: Stream) -> None:
    code, _ = await _reply(stream)
    if code in {421, 554}:  # RFC 5321: no service, here or to us
        raise WireError(Doubt.BLOCKED, "the server takes no connection from here, or not now")
    if code != 220:  # RFC 5321: ready
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak SMTP")


async def _hello(stream: Stream) -> list[str]:
    await stream.write(b"EHLO [127.0.0.1]\r\n")
    code, lines = await _reply(stream)
    if code != 250:  # RFC 5321
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak ESMTP")
    return [line.strip() for line in lines[1:]]


async def _reply(stream: Stream) -> tuple[int, list[str]]:
    """Return code and lines of the next reply."""
    texts: list[str] = []
    first = 0
    for _ in range(_MOST_LINES):
        line = _LINE.fullmatch((await stream.line()).decode("utf-8", "replace"))
        if line is None or (texts and int(line.group(1)) != first):
            break
        first = int(line.group(1))
        texts.append((line.group(3) or "")[:200])
        if line.group(2) != "-":
            return first, texts
    raise WireError(Doubt.AMBIGUOUS, "the server does not speak SMTP")


async def imap(admitted: Admitted, account: Account) -> Said:
    """Log in by LOGIN, its arguments as literals, and return the answer with its code and words."""
    async with connected(admitted) as stream:
        if admitted.port == IMAPS or account.scheme == "imaps":
            await stream.secure_verified()
            await _welcomed(stream)
        else:
            await _welcomed(stream)
            await stream.write(b"a1 STARTTLS\r\n")
            if (await _tagged(stream))["answer"] != "OK":
                raise WireError(Doubt.UNSUPPORTED, "the server offers no TLS, and the password is sent inside TLS only")
            await stream.secure_verified()
        user, password = account.username.encode(), account.password.encode()
        for line in (b"a2 LOGIN {%d}" % len(user), user + b" {%d}" % len(password)):
            await stream.write(line + b"\r\n")
            answer = await stream.line()
            while answer.startswith(b"* "):
                answer = await stream.line()
            if not answer.startswith(b"+"):
                return {"asked": "begin", **_read(answer)}
        await stream.write(password + b"\r\n")
        said = await _tagged(stream)
        stream.goodbye(b"a3 LOGOUT\r\n")
        return {"asked": "login", **said}


async def _welcomed(stream: Stream) -> None:
    line = (await stream.line())[:200].upper()
    if line.startswith(b"* BYE"):
        raise WireError(Doubt.BLOCKED, "the server takes no connection from here, or not now")
    if not line.startswith(b"* OK"):  # PREAUTH: somebody is logged in already, and it is not this name
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak IMAP")


async def _tagged(stream: Stream) -> dict[str, str]:
    for _ in range(_MOST_LINES):
        line = await stream.line()
        if not line.startswith(b"* "):
            return _read(line)
    raise WireError(Doubt.AMBIGUOUS, "the server does not speak IMAP")


def _read(line: bytes) -> dict[str, str]:
    answer = _TAGGED.fullmatch(line.decode("utf-8", "replace"))
    if answer is None:
        raise WireError(Doubt.AMBIGUOUS, "the server does not speak IMAP")
    word, code, text = answer.groups()
    return {"answer": word.upper(), "code": (code or "").upper(), "text": text[:300]}
