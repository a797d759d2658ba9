"""Exoscale API keys: a signed look at the list of keys. The vendor's refusals are not known, so nothing says dead."""

from __future__ import annotations

import base64
import hmac
import re
import time
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Exoscale"
_DOCS = "https://community.exoscale.com/reference/api/"
_HOST = "api-ch-gva-2.exoscale.com"
_PATH = "/v2/api-key"
_VALID = 600
_ID = re.compile(r"EXO[A-Za-z0-9]{20,32}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{30,60}")

KINDS: tuple[Kind, ...] = (
    Kind(
        id="exoscale",
        title="Exoscale API key",
        category="cloud",
        docs=_DOCS,
        console="https://portal.exoscale.com/iam/keys",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", prefix=("EXO",), pattern="EXO[A-Za-z0-9]{24,30}"),
            ShapeSpec(pattern="[A-Za-z0-9_-]{43}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=2, burst=2, concurrency=2),
        aliases={
            "betterleaks": ("exoscale-api-key", "exoscale-api-secret"),
            "kingfisher": ("betterleaks.exoscale-api-key", "betterleaks.exoscale-api-secret"),
        },
        calls=(
            Call(
                kind="exoscale",
                method="GET",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="lists the keys of the organisation, without their secrets",
                docs=_DOCS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("api-keys[0].key", "api-keys[0].role-id"),
                note="lists the keys of its organisation",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"api-keys":[{"name":"ci","key":"EXO***","role-id":"r"}]}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"message":"Forbidden"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"message":"Invalid signature"}',
                constructed=True,
            ),
            Example(status=503, verdict="undecided", why=Doubt.UNREACHABLE, body="", constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for the list of keys."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _ID.fullmatch(key) or not _SECRET.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the key or its secret was cut out badly")
    url = (base_url or f"https://{_HOST}").rstrip("/") + _PATH
    header = sign(key, secret, int(time.time()) + _VALID)
    request = Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={"Authorization": Secret(header)},
        carrier="authorization",
    )
    said, _ = await exchange(kind, request, door, (secret, header.rpartition("signature=")[2]))
    return said


def sign(key: str, secret: str, expires: int) -> str:
    """Return the Authorization header: HMAC-SHA256 over request line, body, parameters, headers and expiry."""
    text = f"GET {_PATH}\n\n\n\n{expires}"
    signature = base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha256")).decode()
    return f"EXO2-HMAC-SHA256 credential={key},expires={expires},signature={signature}"
