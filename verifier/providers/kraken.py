"""Kraken (spot) API keys: a signed look at the key itself, which needs no permission. Nothing says dead.

`EAPI:Invalid key` is also Kraken's answer where signature and request differ, so a key with another's secret hears it.
https://support.kraken.com/hc/nl/articles/common-causes-of-invalid-key-error

A nonce must be greater than every earlier one of the key, its owner's own included (`verifier.nonce`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.nonce import climb
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, PrivilegeSpec, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door, Reply
    from verifier.model import Credential, Verdict

TITLE = "Kraken"
_DOCS = "https://docs.kraken.com/api/docs/guides/spot-rest-auth/"
_READS = "https://docs.kraken.com/api-reference/account-data/get-api-key-info"
_CAUSES = "https://support.kraken.com/hc/nl/articles/common-causes-of-invalid-key-error"
_HOST = "api.kraken.com"
_PATH = "/0/private/GetApiKeyInfo"
_TYPE = "application/x-www-form-urlencoded"
_ID = re.compile(r"[0-9A-Za-z/+]{54,56}={0,2}")

KINDS: tuple[Kind, ...] = (
    Kind(
        id="kraken",
        title="Kraken API key and private key",
        category="payment",
        docs=_DOCS,
        console="https://pro.kraken.com/app/settings/api",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", pattern="[0-9A-Za-z/+=]{56}", context="rule"),
            ShapeSpec(pattern="[0-9A-Za-z/+]{86}(?:==)?", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(
            principal="result.apiKeyName",
            scopes="result.permissions",
            privilege=PrivilegeSpec(
                admin=("*withdraw*",),
                write=("modify-*", "close-*", "deposit-*", "earn-*"),
                read=("query-*", "export-*"),
            ),
        ),
        aliases={"trufflehog": ("Kraken",)},
        calls=(
            Call(
                kind="kraken",
                method="POST",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="describes the key that asks, and needs no permission; the API takes every signed call by POST",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("result.apiKeyName", "result.createdTime", "result.permissions"),
                note="describes itself",
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=200,
                words={"error[*]": "EAPI:Invalid nonce"},
                why=Doubt.AMBIGUOUS,
                note="the key has been used with a higher nonce than ours",
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=200,
                words={"error[*]": ("EAPI:Invalid key", "EAPI:Invalid signature")},
                why=Doubt.AMBIGUOUS,
                note="refused: an unknown key, or not the private key of this key",
                source=_CAUSES,
            ),
            Rule(
                verdict="undecided",
                status=200,
                words={"error[*]": ("Rate limit exceeded", "Temporary lockout")},
                why=Doubt.THROTTLED,
                note="too many requests",
                confidence=Confidence.UNCONFIRMED,
            ),
            Rule(
                verdict="undecided",
                status=200,
                words={"error[*]": "EService:"},
                why=Doubt.UNREACHABLE,
                note="Kraken is busy or closed for the moment",
                confidence=Confidence.UNCONFIRMED,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"error":[],"result":{"apiKeyName":"my-api-key","apiKey":"***","nonce":"1772627060997",'
                '"nonceWindow":0,"permissions":["query-funds"],"iban":"***","validUntil":"0","queryFrom":"0",'
                '"queryTo":"0","createdTime":"1772542900","modifiedTime":"1772543095","ipAllowlist":[],'
                '"lastUsed":null}}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":["EAPI:Invalid key"]}',
                source=_CAUSES,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":["EAPI:Invalid nonce"]}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.THROTTLED,
                body='{"error":["EAPI:Rate limit exceeded"]}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.UNREACHABLE,
                body='{"error":["EService:Unavailable"]}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":["EGeneral:Permission denied"]}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask what the key is."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    try:
        private = base64.b64decode(secret + "=" * (-len(secret) % 4), validate=True)
    except ValueError:  # no base64, or not even ASCII
        private = b""
    if not _ID.fullmatch(key) or not private:
        return Undecided(Doubt.INCOMPLETE, note="the key or its private key was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    said, _ = await climb(lambda nonce: _ask(kind, base, (key, secret, private), nonce, door), b"EAPI:Invalid nonce")
    return said


async def _ask(
    kind: Kind, base: str, parts: tuple[str, str, bytes], nonce: int, door: Door
) -> tuple[Verdict, Reply | None]:
    key, secret, private = parts
    body = f"nonce={nonce}"
    signature = sign(private, _PATH, str(nonce), body)
    request = Request(
        call=kind.calls[0],
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={"Content-Type": Secret(_TYPE), "API-Key": Secret(key), "API-Sign": Secret(signature)},
        body=Secret(body),
        carrier="api-key",
    )
    return await exchange(kind, request, door, (secret, key, signature))


def sign(private: bytes, path: str, nonce: str, body: str) -> str:
    """Return the signature: HMAC-SHA512 over the path and the SHA-256 of nonce and body, in base64."""
    text = path.encode() + hashlib.sha256(f"{nonce}{body}".encode()).digest()
    return base64.b64encode(hmac.digest(private, text, "sha512")).decode()
