"""One probe of one credential: builds the spec's request, sends it through the door, lets the rules read the reply."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, assert_never
from urllib.parse import quote

from msgspec.structs import replace

from verifier.egress import retry_after
from verifier.exchange import Reply, Request, Trouble
from verifier.model import Arrival, Dead, Doubt, Evidence, How, Live, Undecided
from verifier.redact import excerpt
from verifier.secret import Secret
from verifier.spec import FIELD, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verifier.catalogue import Catalogue
    from verifier.exchange import Call, Door
    from verifier.model import Credential, Verdict
    from verifier.rules import Judge, Ruling
    from verifier.spec import Kind

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


async def probe(catalogue: Catalogue, credential: Credential, door: Door, base_url: str | None = None) -> Verdict:
    """Return what the provider says of `credential`.

    `base_url` is the config's override for this kind: the only host then asked. A kind that is not known or cannot be
    verified safely is Undecided(unsupported); a missing part is Undecided(incomplete); no call is made for either.
    """
    kind = catalogue.get(credential.provider)
    if kind is None:
        return Undecided(Doubt.UNSUPPORTED, note="no provider of this name can be verified")
    if kind.probe == "none":
        return Undecided(Doubt.UNSUPPORTED, note=kind.reason)
    missing = [p for p in kind.parts if p not in credential.parts and not (base_url and _addresses(kind, p))]
    if missing:
        return Undecided(Doubt.INCOMPLETE, note=f"needs {' and '.join(missing)}, which the report does not hold")
    if not all(_is_text(v.reveal()) for v in credential.parts.values()):
        return Undecided(Doubt.INCOMPLETE, note="the key holds half characters: it was cut out badly")
    if isinstance(kind.probe, Probe):
        return await _http(kind, kind.probe, catalogue.judge(kind), credential, door, base_url)
    return await catalogue.prober(kind).probe(kind, credential, door, base_url=base_url)


def _is_text(value: str) -> bool:
    """Whether `value` can be written in UTF-8: half a surrogate pair cannot."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _addresses(kind: Kind, part: str) -> bool:
    """Whether `part` only says where to ask: the config's `base_url` says it, too."""
    return isinstance(kind.probe, Probe) and part == kind.probe.instance


async def _http(
    kind: Kind, p: Probe, judge: Judge, credential: Credential, door: Door, base_url: str | None
) -> Verdict:
    """Ask every host the key could belong to until one accepts it; Dead takes all of them (design rule 4)."""
    fields = values(kind, credential)
    if fields is None:
        return Undecided(Doubt.INCOMPLETE, note="the key does not have the shape that the probe needs")
    dead: Dead | None = None
    doubt: Undecided | None = None
    for base in _bases(p, fields, base_url):
        request = build(kind, p, base, fields)
        if isinstance(request, Undecided):
            return request
        verdict = await ask(kind, judge, request, door, secrets=_scrub(credential))
        match verdict:
            case Live():
                return verdict
            case Dead():
                dead = dead or verdict
            case Undecided():
                doubt = doubt or verdict
            case _:
                assert_never(verdict)
    if doubt is not None or dead is None:
        return doubt or Undecided(Doubt.INCOMPLETE, note="no host is known for this key")
    if p.self_hosted and p.instance not in fields and base_url is None:
        note = "refused by the vendor's own host, but the key may belong to an instance nobody named"
        return Undecided(Doubt.INCOMPLETE, dead.evidence, note=note)
    return dead


async def ask(kind: Kind, judge: Judge, request: Request, door: Door, secrets: Iterable[str]) -> Verdict:
    """Send one request and rule on its reply. For Python providers too."""
    secrets = tuple(secrets)
    secret = max(secrets, key=len, default="")

    def decisive(reply: Reply) -> bool:
        """Tell whether the rules can decide on this reply."""
        # A 429 may say "out of credits", a 500 the vendor's own word: then asking again learns nothing.
        return judge(reply, secret).verdict != "undecided"

    answer = await door.send(replace(request, decisive=decisive))
    match answer:
        case Trouble():
            return Undecided(answer.why, retry_after=answer.retry_after, note=answer.note)
        case Reply():
            return verdict(kind, judge(answer, secret), answer, request, secrets)
        case _:
            assert_never(answer)


def verdict(kind: Kind, ruling: Ruling, reply: Reply, request: Request, secrets: Iterable[str]) -> Verdict:
    """Attach evidence to a ruling."""
    evidence = Evidence(
        request=f"{request.call.method} {request.shown}",
        status=reply.status,
        excerpt=excerpt(reply.body, reply.headers.get("content-type", ""), secrets),
        digest=sha256(reply.body).hexdigest(),
        spec=f"{kind.id}@{kind.digest[:12]}",
        at=datetime.now(UTC),
        host=reply.host,
        rule=ruling.note,
        arrival=Arrival.PROVEN if request.carrier == "url" else ruling.arrival,
        route=reply.route,
        carrier=request.carrier,
    )
    match ruling.verdict:
        case "live":
            return Live(evidence, ruling.identity)
        case "restricted":
            return Live(evidence, ruling.identity, restricted=True)
        case "dead":
            return Dead(evidence, ruling.how or How.REJECTED)
        case _:
            return Undecided(ruling.why or Doubt.AMBIGUOUS, evidence, _wait(reply), ruling.note)


def values(kind: Kind, credential: Credential) -> dict[str, str] | None:
    """Return the template fields: every part, and the named groups of the shape that matches it.

    `None` when a probe needs a group and no shape matches.
    """
    fields = {name: value.reveal() for name, value in credential.parts.items()}
    ready = _ready(kind)
    for part, pattern in ready.shapes:
        if part in fields and (m := pattern.fullmatch(fields[part])):
            fields |= {k: v for k, v in m.groupdict().items() if v is not None and k not in fields}
    return fields if all(name in fields for name in ready.wanted) else None


class _Ready:
    """What of a kind's probe is the same for every key, worked out once.

    `shapes` are those that name groups, `wanted` the fields that must be known besides those of the hosts.
    """

    __slots__ = ("calls", "kind", "patterns", "shapes", "wanted")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        compiled = [(s.part, re.compile(s.pattern)) for s in kind.shape]
        self.shapes = tuple((part, pattern) for part, pattern in compiled if pattern.groupindex)
        p = kind.probe
        hosts = {f for b in p.base for f in FIELD.findall(b)} if isinstance(p, Probe) else set[str]()
        self.wanted = p.fields() - hosts if isinstance(p, Probe) else frozenset[str]()
        self.calls = kind.manifest()
        bases = p.base if isinstance(p, Probe) else ()
        self.patterns = tuple(
            re.compile(
                FIELD.sub(
                    r"[a-z0-9.-]+", re.escape(base.removeprefix("https://")).replace(r"\{", "{").replace(r"\}", "}")
                )
            )
            for base in bases
        )


_READY: dict[str, _Ready] = {}


def _ready(kind: Kind) -> _Ready:
    ready = _READY.get(kind.id)
    if ready is None or ready.kind is not kind:
        ready = _READY[kind.id] = _Ready(kind)
    return ready


def build(kind: Kind, p: Probe, base: str, fields: Mapping[str, str]) -> Request | Undecided:
    """Fill the spec's templates for one host.

    A value that cannot stand in a header or host is Undecided(incomplete).
    """
    host = base.partition("://")[2]
    path, question, query = p.path.partition("?")
    url = base + _fill(path, fields, safe="!$&'()*+,;=:@~") + question + _fill(query, fields, safe="")
    headers = {name: _fill(value, fields) for name, value in p.headers.items()}
    if p.bearer:
        headers["Authorization"] = f"Bearer {_fill(p.bearer, fields)}"
    if p.basic:
        headers["Authorization"] = "Basic " + b64encode(_fill(p.basic, fields).encode()).decode()
    if p.body is not None:
        headers["Content-Type"] = p.content_type
    if any(_FORBIDDEN.search(v) or not v.isascii() for v in headers.values()):
        return Undecided(
            Doubt.INCOMPLETE, note="the key holds characters that no header can carry: it was cut out badly"
        )
    call = _call(kind, host)
    return Request(
        call=call,
        url=Secret(url),
        shown=base + p.path,
        headers={k: Secret(v) for k, v in headers.items()},
        body=None if p.body is None else Secret(_fill_body(p, p.body, fields)),
        carrier=p.carrier,
    )


def _call(kind: Kind, host: str) -> Call:
    ready = _ready(kind)
    for call, pattern in zip(ready.calls, ready.patterns, strict=False):
        if pattern.fullmatch(host):
            return call
    return ready.calls[-1]


def _bases(p: Probe, fields: Mapping[str, str], base_url: str | None) -> list[str]:
    if base_url is not None:
        return [base_url.rstrip("/")]
    if p.instance and (host := fields.get(p.instance)):
        host = re.sub(r"^https?://", "", host.strip().lower()).partition("/")[0]
        return [f"https://{host}"] if _HOST.fullmatch(host) else []
    filled = []
    for base in p.base:
        names = FIELD.findall(base)
        if all(n in fields for n in names):
            host = _fill(base, {n: fields[n].lower() for n in names})
            if _HOST.fullmatch(host.removeprefix("https://")):
                filled.append(host)
    return filled


def _fill(template: str, fields: Mapping[str, str], safe: str | None = None) -> str:
    pieces = _pieces(template)
    if len(pieces) == 1:
        return template
    filled = [fields[piece] if n % 2 else piece for n, piece in enumerate(pieces)]
    if safe is not None:
        filled[1::2] = [quote(value, safe=safe) for value in filled[1::2]]
    return "".join(filled)


@lru_cache(maxsize=4096)
def _pieces(template: str) -> tuple[str, ...]:
    """Return text and field names by turns, text first and last."""
    return tuple(FIELD.split(template))


def _fill_body(p: Probe, template: str, fields: Mapping[str, str]) -> str:
    if "json" not in p.content_type:
        return _fill(template, fields, safe="")

    def one(m: re.Match[str]) -> str:
        return fields[m.group(1)].replace("\\", "\\\\").replace('"', '\\"')

    return FIELD.sub(one, template)


def _scrub(credential: Credential) -> tuple[str, ...]:
    return tuple(v.reveal() for name, v in credential.parts.items() if name not in {"host", "port", "region"})


def _wait(reply: Reply) -> timedelta | None:
    seconds = retry_after(reply.headers)
    return None if seconds is None else timedelta(seconds=seconds)
