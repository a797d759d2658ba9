"""CEX.IO API keys of three parts (user, key, secret): a signed look at the fees of the account. Nothing says dead.

These keys belong to the older API at cex.io. Those of Spot Trading (trade.cex.io) have two parts and another signature.
A nonce must grow (`verifier.nonce`).
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.nonce import climb
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door, Reply
    from verifier.model import Credential, Verdict

TITLE = "CEX.IO"
_DOCS = "https://cex.io/rest-api"
_HOST = "cex.io"
_PATH = "/api/get_myfee/"
_TYPE = "application/x-www-form-urlencoded"
_KEY = re.compile(r"[0-9A-Za-z]{24,27}")
_USER = re.compile(r"[a-z]{2}[0-9]{6,12}")

KINDS: tuple[Kind, ...] = (
    Kind(
        id="cexio",
        title="CEX.IO API key",
        category="payment",
        docs="https://trade.cex.io/docs/",
        console="https://cex.io/trade/profile#/api",
        parts=("secret", "id", "account"),
        shape=(
            ShapeSpec(part="account", pattern="[a-z]{2}[0-9]{9}", context="rule"),
            ShapeSpec(pattern="[0-9A-Za-z]{24,27}", context="rule"),
            ShapeSpec(part="id", pattern="[0-9A-Za-z]{24,27}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        aliases={"trufflehog": ("CexIO",)},
        calls=(
            Call(
                kind="cexio",
                method="POST",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="tells the fees of the account, no balance and no order; the API takes every signed call by POST",
                docs=_DOCS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"e": "get_myfee", "ok": "ok"},
                has=("data",),
                note="tells the fees of its account",
                confidence=Confidence.UNCONFIRMED,
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=(200, 400, 401, 403),
                words={"error": ("nonce", "api key", "signature", "permission")},
                why=Doubt.AMBIGUOUS,
                note="refused: an unknown key, not its secret or user, too few rights, or a nonce used before",
                confidence=Confidence.UNCONFIRMED,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"e":"get_myfee","ok":"ok","data":{"BTC:USD":{"buy":"0.25","sell":"0.25","buyMaker":"0.15",'
                '"sellMaker":"0.15"}}}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":"Invalid API key"}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":"Nonce must be incremented"}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"e":"get_myfee","error":"Permission denied"}',
                constructed=True,
            ),
            Example(
                status=404, verdict="undecided", why=Doubt.BLOCKED, body="<html>Not Found</html>", constructed=True
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for the fees of the key's account."""
    user, key, secret = (credential.parts[p].reveal().strip() for p in ("account", "id", "secret"))
    if not _USER.fullmatch(user) or not _KEY.fullmatch(key) or not _KEY.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the user, the key or its secret was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    said, _ = await climb(lambda nonce: _ask(kind, base, (user, key, secret), str(nonce), door), b"Nonce")
    return said


async def _ask(
    kind: Kind, base: str, parts: tuple[str, str, str], nonce: str, door: Door
) -> tuple[Verdict, Reply | None]:
    user, key, secret = parts
    signature = sign(user, key, secret, nonce)
    request = Request(
        call=kind.calls[0],
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={"Content-Type": Secret(_TYPE)},
        body=Secret(urlencode({"key": key, "signature": signature, "nonce": nonce})),
        carrier="body",
    )
    return await exchange(kind, request, door, (secret, key, signature))


def sign(user: str, key: str, secret: str, nonce: str) -> str:
    """Return the signature: HMAC-SHA256 over nonce, user and key, in upper-case hex."""
    return hmac.digest(secret.encode(), f"{nonce}{user}{key}".encode(), "sha256").hex().upper()
