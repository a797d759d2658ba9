"""Poloniex API keys: a signed look at the list of accounts, which holds their numbers and states and no money.

Nothing says dead: the answer to a key that is refused is a 401 without a word in it.
https://github.com/ccxt/ccxt/issues/15131
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Poloniex"
_DOCS = "https://api-docs.poloniex.com/spot/api/"
_READS = "https://api-docs.poloniex.com/spot/api/private/account"
_HOST = "api.poloniex.com"
_PATH = "/accounts"
_ID = re.compile(r"[0-9A-Z]{8}(?:-[0-9A-Z]{8}){3}")
_SECRET = re.compile(r"[0-9a-f]{128}")

KINDS: tuple[Kind, ...] = (
    Kind(
        id="poloniex",
        title="Poloniex API secret",
        category="payment",
        docs=_DOCS,
        console="https://poloniex.com/apiKeys",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", pattern="[0-9A-Z]{8}(?:-[0-9A-Z]{8}){3}", context="rule"),
            ShapeSpec(pattern="[0-9a-f]{128}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(account="[0].accountId"),
        aliases={"trufflehog": ("Poloniex",)},
        calls=(
            Call(
                kind="poloniex",
                method="GET",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="lists number, type and state of the accounts; no balance and no order is read",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("[0].accountId", "[0].accountType", "[0].accountState"),
                note="lists its accounts",
                confidence=Confidence.UNCONFIRMED,
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=401,
                type="empty",
                why=Doubt.AMBIGUOUS,
                note="refused without a word: an unknown key, not its secret, or our clock",
                confidence=Confidence.OBSERVED,
                source="https://github.com/ccxt/ccxt/issues/15131",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='[{"accountId":"123","accountType":"SPOT","accountState":"NORMAL"}]',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body="",
                source="https://github.com/ccxt/ccxt/issues/15131",
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"FORBIDDEN","message":"Invalid API key/secret pair."}',
                source="https://github.com/ccxt/ccxt/issues/15098",
            ),
            Example(status=200, verdict="undecided", why=Doubt.AMBIGUOUS, body="[]", constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for the list of accounts."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _ID.fullmatch(key) or not _SECRET.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the key or its secret was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    now = str(int(time.time() * 1_000))
    signature = sign(secret, "GET", _PATH, {"signTimestamp": now})
    request = Request(
        call=kind.calls[0],
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={"key": Secret(key), "signTimestamp": Secret(now), "signature": Secret(signature)},
        carrier="key",
    )
    said, _ = await exchange(kind, request, door, (secret, key, signature))
    return said


def sign(secret: str, method: str, path: str, values: dict[str, str]) -> str:
    """Return the signature of a call without a body: HMAC-SHA256 over method, path and sorted values, in base64."""
    sorted_values = "&".join(f"{name}={quote(values[name], safe='')}" for name in sorted(values))
    text = f"{method}\n{path}\n{sorted_values}"
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha256")).decode()
