"""Robinhood Crypto API keys: a signed look at one trading pair, which says nothing of the account. Nothing says dead.

The words of a refusal are not published.
"""

from __future__ import annotations

import base64
import re
import time
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Robinhood"
_DOCS = "https://docs.robinhood.com/crypto/trading/"
_HOST = "trading.robinhood.com"
_PATH = "/api/v1/crypto/trading/trading_pairs/"
_QUERY = "symbol=BTC-USD"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ID = re.compile(rf"(?:rh-api-)?{_UUID}")
_SEED = 32

KINDS: tuple[Kind, ...] = (
    Kind(
        id="robinhood_crypto",
        title="Robinhood Crypto API key",
        category="payment",
        docs=_DOCS,
        console="https://robinhood.com/account/crypto",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", prefix=("rh-api-",), pattern=f"rh-api-{_UUID}", context="rule"),
            ShapeSpec(pattern="[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        aliases={"trufflehog": ("RobinhoodCrypto",), "kingfisher-1.x": ("kingfisher.robinhood.1",)},
        calls=(
            Call(
                kind="robinhood_crypto",
                method="GET",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="describes one trading pair; nothing of the account is read",
                docs=_DOCS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"results[0].symbol": "BTC-USD"},
                has=("results[0].asset_code", "results[0].status"),
                note="the signature is accepted",
                confidence=Confidence.UNCONFIRMED,
                source=_DOCS,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"next":null,"previous":null,"results":[{"asset_code":"BTC","quote_code":"USD",'
                '"quote_increment":"0.01","asset_increment":"0.00000001","max_order_size":"20",'
                '"min_order_size":"0.000001","status":"tradable","symbol":"BTC-USD"}]}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"type":"client_error","errors":[{"detail":"Unauthorized","attr":null}]}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"type":"client_error","errors":[{"detail":"Forbidden","attr":null}]}',
                constructed=True,
            ),
            Example(status=503, verdict="undecided", why=Doubt.UNREACHABLE, body="", constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for one trading pair."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    try:
        private = base64.b64decode(secret, validate=True)
    except ValueError:  # no base64, or not even ASCII
        private = b""
    if not _ID.fullmatch(key) or len(private) not in {_SEED, 2 * _SEED}:
        return Undecided(Doubt.INCOMPLETE, note="the key or its private key was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    now = str(int(time.time()))
    target = f"{_PATH}?{_QUERY}"
    signature = sign(private, f"{key}{now}{target}GET")
    request = Request(
        call=kind.calls[0],
        url=Secret(base + target),
        shown=base + target,
        headers={"x-api-key": Secret(key), "x-timestamp": Secret(now), "x-signature": Secret(signature)},
        carrier="x-api-key",
    )
    said, _ = await exchange(kind, request, door, (secret, key, signature))
    return said


def sign(private: bytes, text: str) -> str:
    """Return the signature of a text (key, time, path with query, method, body): Ed25519, in base64."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  # slow to import; few keys need it

    return base64.b64encode(ed25519.Ed25519PrivateKey.from_private_bytes(private[:_SEED]).sign(text.encode())).decode()
