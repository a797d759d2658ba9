"""Addresses with a user and a password in them: asked only at hosts that the config names, with HEAD, and never dead.

Nobody knows what stands behind such an address: a GET could read customers' data, and every site refuses in words of
its own. `egress.basic_auth` names hosts where a look is welcome. Two HEADs are sent there, one without the log-in: only
where the first is refused with a challenge for a log-in, and the second is let in, was the log-in accepted.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from verifier.exchange import Call, Reply, Request, Trouble
from verifier.model import Doubt, Undecided
from verifier.probe import verdict
from verifier.rules import Judge
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Addresses with a password"
_DOCS = "https://www.rfc-editor.org/rfc/rfc7617"
_DEEPEST = 8
_SAFE = "!$&'()*+,;=:@~"

KINDS: tuple[Kind, ...] = (
    Kind(
        id="basic_auth_url",
        title="Address with user and password",
        category="generic",
        docs=_DOCS,
        parts=("username", "password", "host"),
        optional=("port", "path", "scheme"),
        probe="code",
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=1, burst=1, concurrency=1),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"without": 401, "challenge": "basic", "with": (200, 204, 206)},
                has=("user",),
                note="refused without the log-in, let in with it",
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"without": 401, "challenge": "basic", "with": 401},
                why=Doubt.AMBIGUOUS,
                note="refused with the log-in as without it: probably over, but any site says so in words of its own",
            ),
        ),
        example=(
            Example(
                status=0, verdict="live", body='{"without":401,"challenge":"basic","with":200,"user":"app"}',
                constructed=True,
            ),
            Example(
                status=0, verdict="undecided", why=Doubt.AMBIGUOUS,
                body='{"without":401,"challenge":"basic","with":401,"user":"app"}', constructed=True,
            ),
            Example(
                status=0, verdict="undecided", why=Doubt.AMBIGUOUS,
                body='{"without":401,"challenge":"basic","with":403,"user":"app"}', constructed=True,
            ),
            Example(
                status=0, verdict="undecided", why=Doubt.AMBIGUOUS,
                body='{"without":401,"challenge":"bearer","with":200,"user":"app"}', constructed=True,
            ),
        ),
    ),
)  # fmt: skip


def permit(kind: Kind, hosts: Iterable[str]) -> Kind:
    """Return the kind with the calls that the config allows: HEAD on any path of these hosts (`host`, `host:port`)."""
    calls = [
        Call(
            kind=kind.id,
            method="HEAD",
            scheme="https",
            host=host.lower(),
            path="/" + "/".join("{" + name + "}" for name in "abcdefgh"[:depth]),
            reads="HEAD brings no content; the config names this host as one where it is welcome",
            docs="https://www.rfc-editor.org/rfc/rfc9110#name-head",
        )
        for host in hosts
        for depth in range(_DEEPEST + 1)
    ]
    return replace(kind, calls=tuple(calls))


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the address lets us in, where the config allows it."""
    part = {name: value.reveal().strip() for name, value in credential.parts.items()}
    if part.get("scheme", "https").removesuffix("://").lower() != "https":
        return Undecided(Doubt.REFUSED, note="the address is plain http: the password would travel in the clear")
    port = part.get("port", "")
    host = part["host"].lower() + (f":{port}" if port not in {"", "443"} else "")
    segments = [s for s in part.get("path", "").split("/") if s]
    call = next((c for c in kind.calls if c.host == host and c.path.count("{") == len(segments)), None)
    if call is None:
        note = f"what stands at {host} is not known: it is asked where egress.basic_auth in the config names it"
        return Undecided(Doubt.UNSUPPORTED, note=note if len(host) < 100 else "what stands there is not known")
    if ":" in part["username"]:
        return Undecided(Doubt.INCOMPLETE, note="a name with a colon in it: the log-in was cut out badly")
    url = f"{(base_url or f'https://{host}').rstrip('/')}/{'/'.join(quote(s, safe=_SAFE) for s in segments)}"
    header = b64encode(f"{part['username']}:{credential.parts['password'].reveal()}".encode()).decode()
    without = await door.send(Request(call, Secret(url), url, carrier="authorization"))
    if isinstance(without, Trouble):
        return _doubt(without)
    challenge = without.headers.get("www-authenticate", "").partition(" ")[0].lower()
    if without.status != 401 or challenge != "basic":
        note = "the address does not ask for a name and a password, so that none was sent"
        return Undecided(Doubt.AMBIGUOUS, note=note)
    request = Request(
        call, Secret(url), url, headers={"Authorization": Secret(f"Basic {header}")}, carrier="authorization"
    )
    answer = await door.send(request)
    if isinstance(answer, Trouble):
        return _doubt(answer)
    told = {"without": without.status, "challenge": challenge, "with": answer.status, "user": part["username"]}
    shown = Reply(0, {"content-type": "application/json"}, msgspec.json.encode(told), answer.host, answer.route)
    secrets = (credential.parts["password"].reveal(), header)
    return verdict(kind, Judge(kind)(shown, secrets[0]), shown, request, secrets)


def _doubt(trouble: Trouble) -> Undecided:
    return Undecided(trouble.why, retry_after=trouble.retry_after, note=trouble.note)
