"""Container registries: the log-in that `docker login` makes, and no further.

A registry refuses `/v2/` without a log-in and says where to bring one: to itself (Basic) or to its token service
(Bearer). Some token services give everybody a token, so that a token alone proves nothing: it counts when it names our
user, or when nobody gets one without a log-in, and the registry takes it. The token service must belong to the
registry's own domain; it is asked for a token without any scope, which opens no repository.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from verifier.exchange import Call, Reply, Request, Trouble
from verifier.model import Doubt, How, Undecided
from verifier.offline.jwt import payload
from verifier.probe import verdict
from verifier.rules import Judge
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Container registries"
_DOCS = "https://distribution.github.io/distribution/spec/auth/token/"
_API = "https://distribution.github.io/distribution/spec/api/"
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?")
_SCHEME = re.compile(r"\s*(basic|bearer)\b", re.IGNORECASE)
_FIELD = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_DEEPEST = 4
_PATHS = tuple("/" + "/".join("{" + c + "}" for c in "abcd"[:n]) for n in range(_DEEPEST + 1))
_REFUSALS = frozenset({401, 403})


def _example(verdict: str, body: str, how: How | None = None, why: Doubt | None = None) -> Example:
    return Example(status=0, verdict=verdict, body=body, how=how, why=why, constructed=True)  # type: ignore[arg-type]  # words of the specs, checked by msgspec


KINDS: tuple[Kind, ...] = (
    Kind(
        id="ghcr_generic_registry",
        title="Container registry log-in",
        category="registry",
        docs=_DOCS,
        parts=("username", "password", "host"),
        probe="code",
        confirm_after=86_400.0,  # a token service whose directory is down refuses everybody in these words
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=1, burst=2, concurrency=1),
        calls=(
            Call(
                kind="ghcr_generic_registry",
                method="GET",
                scheme="https",
                host="{host}",
                path="/v2/",
                reads="asks the registry whether it speaks to us; no repository is named",
                docs=_API,
            ),
            *(
                Call(
                    kind="ghcr_generic_registry",
                    method="GET",
                    scheme="https",
                    host="{host}",
                    path=path,
                    reads="asks the registry's token service for a token without scope, which is thrown away",
                    docs=_DOCS,
                )
                for path in _PATHS
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"answer": "accepted", "without": "refused"},
                has=("user", "way"),
                note="the registry lets this log-in in, and nobody without one",
                source=_DOCS,
            ),
            Rule(
                verdict="live",
                status=0,
                json={"answer": "accepted", "named": True},
                has=("user", "way"),
                note="the registry's token names this user",
                source=_DOCS,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"answer": "refused", "code": "UNAUTHORIZED", "registry": True},
                has=("way",),
                how=How.REJECTED,
                note="the registry refused this name and password (UNAUTHORIZED)",
                source=_API,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"answer": "refused", "code": "DENIED"},
                words={"message": "authorization token has expired"},
                how=How.EXPIRED,
                note="a password of Amazon's registry, good for twelve hours, that has expired",
                source="https://docs.aws.amazon.com/AmazonECR/latest/userguide/common-errors-docker.html",
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": "TOOMANYREQUESTS"},
                why=Doubt.THROTTLED,
                note="too many log-ins",
                source=_API,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"code": "DENIED"},
                why=Doubt.BLOCKED,
                note="denied: by address, by policy or for want of rights; the password was perhaps not looked at",
                source=_API,
            ),
        ),
        example=(
            _example("live", '{"way":"basic","answer":"accepted","without":"refused","registry":true,"user":"ci"}'),
            _example(
                "live",
                '{"way":"token","answer":"accepted","without":"accepted","named":true,"registry":true,"user":"ci"}',
            ),
            _example(
                "dead",
                '{"way":"token","answer":"refused","code":"UNAUTHORIZED","registry":true,"user":"ci"}',
                how=How.REJECTED,
            ),
            _example(
                "dead",
                '{"way":"basic","answer":"refused","code":"DENIED","message":"Your authorization token has expired. '
                'Reauthenticate and try again.","registry":true,"user":"AWS"}',
                how=How.EXPIRED,
            ),
            _example(
                "undecided",
                '{"way":"token","answer":"refused","code":"TOOMANYREQUESTS","registry":true,"user":"ci"}',
                why=Doubt.THROTTLED,
            ),
            _example(
                "undecided",
                '{"way":"token","answer":"refused","code":"DENIED","registry":true,"user":"ci"}',
                why=Doubt.BLOCKED,
            ),
            _example(
                "undecided",
                '{"way":"token","answer":"accepted","without":"accepted","named":false,"registry":true,"user":"ci"}',
                why=Doubt.AMBIGUOUS,
            ),
            _example(
                "undecided",
                '{"way":"basic","answer":"refused","code":"","registry":false,"user":"ci"}',
                why=Doubt.AMBIGUOUS,
            ),
        ),
    ),
)


class Challenge(Struct, frozen=True):
    """Where a registry wants the log-in brought: `realm` is empty where it is to itself."""

    realm: str = ""
    service: str = ""


class _Doubtful(Exception):  # noqa: N818  # carries a verdict, no error
    def __init__(self, verdict: Undecided) -> None:
        super().__init__(verdict.note)
        self.verdict = verdict


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Log in as docker does."""
    host = credential.parts["host"].reveal().strip().lower().removeprefix("https://").partition("/")[0]
    user, password = (credential.parts[p].reveal() for p in ("username", "password"))
    if not _HOST.fullmatch(host) or not user.strip() or ":" in user:
        return Undecided(Doubt.INCOMPLETE, note="the host or the name of the log-in was cut out badly")
    basic = b64encode(f"{user}:{password}".encode()).decode()
    client = _Client(kind, door, (base_url or f"https://{host}").rstrip("/"), basic)
    try:
        told, request, answer = await client.log_in(user, host)
    except _Doubtful as e:
        return e.verdict
    body = msgspec.json.encode({**told, "user": user})
    shown = Reply(0, {"content-type": "application/json"}, body, answer.host, answer.route)
    return verdict(kind, Judge(kind)(shown, password), shown, request, (password, basic))


class _Client:
    """One log-in at one registry."""

    def __init__(self, kind: Kind, door: Door, base: str, basic: str) -> None:
        self._kind, self._door, self._base, self._basic = kind, door, base, basic

    async def log_in(self, user: str, host: str) -> tuple[dict[str, str | bool], Request, Reply]:
        """Return what the registry said, and the exchange that decided."""
        api = self._base + "/v2/"
        _, first = await self._get(api)
        ours = _registry(first)
        found = challenge(first.headers.get("www-authenticate", "")) if first.status == 401 else None
        if first.status == 200:
            raise _doubtful(Doubt.AMBIGUOUS, "the registry lets everybody in, so that the log-in was not judged")
        if found is None or not ours:
            raise _doubtful(Doubt.AMBIGUOUS, "what answers there is no container registry, or not itself")
        if not found.realm:
            request, answer = await self._get(api, f"Basic {self._basic}")
            good = answer.status == 200 and _registry(answer)
            return {"way": "basic", **_outcome(answer, good=good), "without": "refused"}, request, answer
        if not found.realm.startswith(self._base + "/") and not related(host, found.realm):
            raise _doubtful(Doubt.UNSUPPORTED, "the registry sends the log-in to a host that is not of its own domain")
        where = found.realm + (f"?service={quote(found.service, safe='')}" if found.service else "")
        _, anybody = await self._get(where)
        without = "accepted" if _token(anybody) else "refused" if anybody.status in _REFUSALS else ""
        if not without:
            raise _doubtful(Doubt.AMBIGUOUS, "the registry's token service does not answer as one")
        joint = "&" if "?" in where else "?"
        request, answer = await self._get(f"{where}{joint}account={quote(user, safe='')}", f"Basic {self._basic}")
        token = _token(answer)
        if not token:
            return {"way": "token", **_outcome(answer, good=False), "without": without}, request, answer
        named = str((payload(token) or {}).get("sub", "")).lower() == user.lower()
        _, last = await self._get(api, f"Bearer {token}")
        good = last.status == 200
        return {"way": "token", **_outcome(last, good=good), "without": without, "named": named}, request, answer

    async def _get(self, url: str, header: str = "") -> tuple[Request, Reply]:
        path = urlsplit(url).path or "/"
        depth = len([p for p in path.split("/") if p])
        calls = self._kind.calls
        call = calls[0] if url == self._base + "/v2/" else calls[1 + min(depth, _DEEPEST)]
        headers = {"Authorization": Secret(header)} if header else {}
        shown = url.partition("?")[0]
        request = Request(call, Secret(url), shown, headers=headers, carrier="authorization")
        answer = await self._door.send(request)
        if isinstance(answer, Trouble):
            raise _Doubtful(Undecided(answer.why, retry_after=answer.retry_after, note=answer.note))
        return request, answer


def _doubtful(why: Doubt, note: str) -> _Doubtful:
    return _Doubtful(Undecided(why, note=note))


def challenge(header: str) -> Challenge | None:
    """Read a WWW-Authenticate header; `None` where it asks for something else."""
    scheme = _SCHEME.match(header)
    if scheme is None:
        return None
    fields = dict(_FIELD.findall(header))
    if scheme.group(1).lower() == "basic":
        return Challenge()
    realm = fields.get("realm", "")
    if not realm.startswith(("https://", "http://")) or any(c in realm for c in "?#@\\"):
        return None
    return Challenge(realm.rstrip("/"), fields.get("service", "")[:200])


def related(host: str, realm: str) -> bool:
    """Whether the token service is the registry's own, by https: the same host, one above or below it, or a sister."""
    try:
        other = urlsplit(realm).hostname or ""
    except ValueError:
        return False
    if not realm.startswith("https://"):
        return False
    name = host.partition(":")[0]
    parent = name.partition(".")[2]
    sister = parent.count(".") >= 1 and other.partition(".")[2] == parent
    return other == name or other.endswith(f".{name}") or (name.endswith(f".{other}") and "." in other) or sister


def _registry(reply: Reply) -> bool:
    """Whether a reply is a registry's: by its header, or by the form of its errors."""
    return reply.headers.get("docker-distribution-api-version", "") == "registry/2.0" or bool(_error(reply)[0])


def _outcome(reply: Reply, *, good: bool) -> dict[str, str | bool]:
    answer = "accepted" if good else "refused" if reply.status in _REFUSALS else "neither"
    code, text = _error(reply)
    return {"answer": answer, "code": code, "message": text, "registry": _registry(reply)}


def _error(reply: Reply) -> tuple[str, str]:
    """Return code and message of the first error of a registry's error body, empty where it is none."""
    match _json(reply):
        case {"errors": [{"code": str(code), **more}, *_]}:
            return code[:40], str(more.get("message", ""))[:120]
        case _:
            return "", ""


def _token(reply: Reply) -> str:
    match _json(reply):
        case {"token": str(token)} | {"access_token": str(token)} if reply.status == 200:
            return token if token.isascii() and token.isprintable() and " " not in token else ""
        case _:
            return ""


def _json(reply: Reply) -> object:
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
