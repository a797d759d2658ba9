"""MongoDB Atlas API keys: HTTP Digest, so the first 401 is the question and only the second one an answer."""

from __future__ import annotations

import hashlib
import re
import secrets
from functools import partial
from typing import TYPE_CHECKING

from verifier.asking import exchange, sweep
from verifier.exchange import Call, Reply, Request
from verifier.model import Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "MongoDB Atlas"
_DOCS = "https://www.mongodb.com/docs/atlas/reference/api-resources-spec/v2/#tag/Organizations/operation/listOrgs"
HOSTS = ("cloud.mongodb.com", "cloud.mongodbgov.com")
_PATH = "/api/atlas/v2/orgs"
_QUERY = "?itemsPerPage=1"
_ACCEPT = "application/vnd.atlas.2023-01-01+json"
_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([\w-]+))')
_REFUSED = "https://github.com/akshaykarle/terraform-provider-mongodbatlas/issues/88"

KINDS: tuple[Kind, ...] = (
    Kind(
        id="mongodb_atlas",
        title="MongoDB Atlas API key",
        category="db",
        docs="https://www.mongodb.com/docs/atlas/configure-api-access/",
        console="https://cloud.mongodb.com/",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(
                pattern="[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", context="rule"
            ),
            ShapeSpec(part="id", pattern="[a-z]{8}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=2, burst=2, concurrency=2),
        identity=IdentitySpec(organisation="results[0].name", account="results[0].id"),
        calls=tuple(
            Call(
                kind="mongodb_atlas",
                method="GET",
                scheme="https",
                host=host,
                path=_PATH,
                reads="lists the organisation of the key; asked twice, as HTTP Digest has it",
                docs=_DOCS,
            )
            for host in HOSTS
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                words={"links[*].href": "/api/atlas/"},
                has=("results[0].id", "results[0].name"),
                note="names its organisation",
                source=_DOCS,
            ),
            Rule(
                verdict="restricted",
                status=403,
                json={
                    "errorCode": (
                        "IP_ADDRESS_NOT_ON_ACCESS_LIST",
                        "RESOURCE_REQUIRES_ACCESS_LIST",
                        "ORG_REQUIRES_ACCESS_LIST",
                    )
                },
                note="authenticated; not from this address",
            ),
            Rule(
                verdict="dead",
                status=401,
                json={"error": 401, "reason": "Unauthorized"},
                words={"detail": "You are not authorized for this resource"},
                how=How.REJECTED,
                note="this public and private key are no pair, or the key was deleted",
                confidence=Confidence.OBSERVED,
                source=_REFUSED,
            ),
            Rule(
                verdict="undecided",
                status=(401, 403),
                has=("errorCode",),
                why=Doubt.AMBIGUOUS,
                note="refused by a code that does not tell whether the key stands",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"links":[{"href":"https://cloud.mongodb.com/api/atlas/v2/orgs?itemsPerPage=1","rel":"self"}],'
                '"results":[{"id":"o","name":"acme","isDeleted":false}],"totalCount":1}',
                headers={"content-type": "application/vnd.atlas.2023-01-01+json;charset=utf-8"},
                constructed=True,
            ),
            Example(
                status=403,
                verdict="restricted",
                body='{"error":403,"errorCode":"IP_ADDRESS_NOT_ON_ACCESS_LIST","detail":"***","reason":"Forbidden"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="dead",
                how=How.REJECTED,
                body='{"detail":"You are not authorized for this resource.","error":401,"reason":"Unauthorized"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":401,"errorCode":"USER_UNAUTHORIZED","detail":"***","reason":"Unauthorized"}',
                constructed=True,
            ),
            Example(status=401, verdict="undecided", why=Doubt.AMBIGUOUS, body="", constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask Atlas, then Atlas for Government."""
    pair = (credential.parts["id"].reveal().strip(), credential.parts["secret"].reveal().strip())
    if not all(re.fullmatch(r"[\x21-\x7e]{4,128}", p) and '"' not in p for p in pair):
        return Undecided(Doubt.INCOMPLETE, note="the public or private key was cut out badly")
    if base_url is not None:
        return await _ask(kind, kind.calls[0], base_url.rstrip("/"), pair, door)
    return await sweep(
        partial(_ask, kind, call, f"https://{host}", pair, door) for call, host in zip(kind.calls, HOSTS, strict=True)
    )


async def _ask(kind: Kind, call: Call, base: str, pair: tuple[str, str], door: Door) -> Verdict:
    url = base + _PATH + _QUERY
    bare = Request(call=call, url=Secret(url), shown=url, headers={"Accept": Secret(_ACCEPT)})
    said, reply = await exchange(kind, bare, door, pair)
    challenge = challenged(reply)
    if challenge is None:
        note = "no Digest question came, so the key could not be shown"
        return Undecided(Doubt.AMBIGUOUS, said.evidence, note=note) if reply is not None else said
    header = digest(pair, _PATH + _QUERY, challenge, secrets.token_hex(8))
    asked = Request(
        call=call,
        url=Secret(url),
        shown=url,
        headers={"Accept": Secret(_ACCEPT), "Authorization": Secret(header)},
        carrier="authorization",
    )
    said, _ = await exchange(kind, asked, door, (pair[1], header))
    return said


def challenged(reply: Reply | None) -> dict[str, str] | None:
    """Return the fields of a Digest question (MD5, qop=auth), `None` when the reply is none."""
    if reply is None or reply.status != 401:  # HTTP
        return None
    header = reply.headers.get("www-authenticate", "")
    if not header.lower().startswith("digest "):
        return None
    found = {m.group(1).lower(): m.group(2) or m.group(3) or "" for m in _FIELD.finditer(header)}
    usable = found.get("nonce") and found.get("algorithm", "MD5").upper() == "MD5"
    return found if usable and "auth" in found.get("qop", "auth").split(",") else None


def digest(pair: tuple[str, str], uri: str, challenge: Mapping[str, str], cnonce: str) -> str:
    """Return the Authorization header that answers `challenge` (RFC 7616, MD5)."""
    realm, nonce = challenge.get("realm", ""), challenge["nonce"]
    one = _md5(f"{pair[0]}:{realm}:{pair[1]}")
    two = _md5(f"GET:{uri}")
    response = _md5(f"{one}:{nonce}:00000001:{cnonce}:auth:{two}")
    opaque = f', opaque="{challenge["opaque"]}"' if challenge.get("opaque") else ""
    return (
        f'Digest username="{pair[0]}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm=MD5, qop=auth, '
        f'nc=00000001, cnonce="{cnonce}", response="{response}"{opaque}'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
