"""OVHcloud API keys: application key, application secret and consumer key together sign a look at the credential.

Nothing here says dead: `INVALID_CREDENTIAL` is also the answer to a consumer key that waits for its owner's consent,
and an application of one region is unknown in the others.
"""

from __future__ import annotations

import hashlib
import re
import time
from functools import partial
from typing import TYPE_CHECKING

from verifier.asking import exchange, sweep
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "OVHcloud"
_DOCS = "https://help.ovhcloud.com/csm/en-gb-api-getting-started-ovhcloud-api"
REGIONS: dict[str, str] = {"eu": "eu.api.ovh.com", "ca": "ca.api.ovh.com", "us": "api.us.ovhcloud.com"}
"""Host of each region."""
_PATH = "/1.0/auth/currentCredential"
_CLEAN = re.compile(r"[A-Za-z0-9]{16,64}")

KINDS: tuple[Kind, ...] = (
    Kind(
        id="ovh",
        title="OVHcloud API key",
        category="cloud",
        docs=_DOCS,
        console="https://eu.api.ovh.com/console/?section=%2Fauth",
        parts=("secret", "id", "token"),
        optional=("region",),
        shape=(
            ShapeSpec(pattern="[A-Za-z0-9]{32}", context="rule"),
            ShapeSpec(part="id", pattern="[A-Za-z0-9]{16}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=2, burst=2, concurrency=2),
        identity=IdentitySpec(account="applicationId", expires="expiration", scopes="rules[*].path"),
        calls=tuple(
            Call(
                kind="ovh",
                method="GET",
                scheme="https",
                host=host,
                path=_PATH,
                reads="describes the credential that asks",
                docs="https://eu.api.ovh.com/console/?section=%2Fauth&branch=v1#get-/auth/currentCredential",
            )
            for host in REGIONS.values()
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"status": "validated"},
                has=("credentialId", "applicationId"),
                note="describes itself",
            ),
            Rule(
                verdict="restricted",
                status=403,
                json={"errorCode": "NOT_GRANTED_CALL"},
                note="authenticated; this call is not among its access rules",
            ),
            Rule(
                verdict="restricted",
                status=403,
                words={"message": "This call has not been granted"},
                note="authenticated; this call is not among its access rules",
                confidence=Confidence.OBSERVED,
                source="https://github.com/ovh/node-ovh/issues/22",
            ),
            Rule(
                verdict="undecided",
                status=(400, 401, 403),
                words={"errorCode": ("INVALID_CREDENTIAL", "INVALID_KEY", "INVALID_SIGNATURE", "QUERY_TIME_OUT")},
                why=Doubt.AMBIGUOUS,
                note="refused: expired, not yet consented to, of another region, or one of the three parts is wrong",
                source="https://github.com/ovh/php-ovh/issues/56",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"credentialId":1,"applicationId":2,"status":"validated","ovhSupport":false,"expiration":null,'
                '"rules":[{"method":"GET","path":"/*"}]}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="restricted",
                body='{"errorCode":"NOT_GRANTED_CALL","httpCode":"403 Forbidden","message":"***"}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="restricted",
                body='{"message":"This call has not been granted"}',
                constructed=True,
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"errorCode":"INVALID_SIGNATURE","httpCode":"400 Bad Request","message":"Invalid signature"}',
                source="https://github.com/ovh/php-ovh/issues/62",
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask every region, or the one that the finding names."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    if not all(_CLEAN.fullmatch(parts[p]) for p in kind.parts):
        return Undecided(Doubt.INCOMPLETE, note="the application key, secret or consumer key was cut out badly")
    named = parts.get("region", "").lower().removeprefix("ovh-")
    places = [(c, h) for c, (r, h) in zip(kind.calls, REGIONS.items(), strict=True) if named in {"", r}]
    if base_url is not None:
        return await _ask(kind, kind.calls[0], base_url.rstrip("/"), parts, door)
    return await sweep(partial(_ask, kind, call, f"https://{host}", parts, door) for call, host in places)


async def _ask(kind: Kind, call: Call, base: str, parts: dict[str, str], door: Door) -> Verdict:
    url = base + _PATH
    now = str(int(time.time()))
    signature = sign(parts["secret"], parts["token"], url, now)
    headers = {
        "X-Ovh-Application": parts["id"],
        "X-Ovh-Consumer": parts["token"],
        "X-Ovh-Timestamp": now,
        "X-Ovh-Signature": signature,
    }
    request = Request(
        call=call,
        url=Secret(url),
        shown=url,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="x-ovh-consumer",
    )
    said, _ = await exchange(kind, request, door, (parts["secret"], parts["token"], signature))
    return said


def sign(secret: str, consumer: str, url: str, now: str) -> str:
    """Return the signature of a GET without a body (`$1$`: SHA-1, as OVHcloud defines it)."""
    text = f"{secret}+{consumer}+GET+{url}++{now}"
    return "$1$" + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
