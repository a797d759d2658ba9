"""BitMEX API keys: a signed look at the user whose key it is. `/apiKey` is left alone: its model has secrets in it.

`Invalid API Key.` is also what the exchange says of a key of the test network, and `Signature not valid.` has been said
to accounts that were only locked (https://github.com/BitMEX/api-connectors/issues/472): neither is a death.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "BitMEX"
_DOCS = "https://www.bitmex.com/app/apiKeysUsage"
_READS = "https://www.bitmex.com/api/explorer/#!/User/User_get"
_HOST = "www.bitmex.com"
_PATH = "/api/v1/user"
_VALID = 60
_ID = re.compile(r"[0-9A-Za-z_-]{24}")
_SECRET = re.compile(r"[0-9A-Za-z_-]{48}")

KINDS: tuple[Kind, ...] = (
    Kind(
        id="bitmex",
        title="BitMEX API key",
        category="payment",
        docs=_DOCS,
        console="https://www.bitmex.com/app/apiKeys",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", pattern="[0-9A-Za-z_-]{24}", context="rule"),
            ShapeSpec(pattern="[0-9A-Za-z_-]{48}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(principal=("email", "username"), account="id"),
        aliases={"trufflehog": ("Bitmex",)},
        calls=(
            Call(
                kind="bitmex",
                method="GET",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="names the user whose key it is; no balance, order or key is read",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("id", "username"),
                note="names its user",
                confidence=Confidence.UNCONFIRMED,
                source=_READS,
            ),
            Rule(
                verdict="dead",
                status=(401, 403),
                json={"error.name": "HTTPError", "error.message": "This key is disabled."},
                how=How.DISABLED,
                arrival=None,
                note="the key is disabled",
                confidence=Confidence.OBSERVED,
                source="https://github.com/ccxt/ccxt/blob/master/python/ccxt/bitmex.py",
            ),
            Rule(
                verdict="undecided",
                status=(401, 403),
                json={"error.name": "HTTPError"},
                words={"error.message": "Invalid API Key"},
                why=Doubt.AMBIGUOUS,
                note="not known to the exchange: deleted, or a key of the test network",
                confidence=Confidence.OBSERVED,
                source="https://github.com/BitMEX/api-connectors/issues/62",
            ),
            Rule(
                verdict="undecided",
                status=(401, 403),
                json={"error.name": "HTTPError"},
                words={"error.message": "Signature not valid"},
                why=Doubt.AMBIGUOUS,
                note="the key exists; this secret is not its own, or its account is locked",
                confidence=Confidence.OBSERVED,
                source="https://github.com/BitMEX/api-connectors/issues/472",
            ),
            Rule(
                verdict="undecided",
                status=(401, 403),
                json={"error.name": "HTTPError"},
                words={"error.message": "expired"},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from BitMEX's: set it and ask again",
                confidence=Confidence.UNCONFIRMED,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"id":7,"firstname":"","lastname":"","username":"grace","email":"grace@example.com",'
                '"created":"2020-01-01T00:00:00.000Z","TFAEnabled":""}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="dead",
                how=How.DISABLED,
                body='{"error":{"message":"This key is disabled.","name":"HTTPError"}}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":{"message":"Invalid API Key.","name":"HTTPError"}}',
                source="https://github.com/BitMEX/api-connectors/issues/62",
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":{"message":"Signature not valid.","name":"HTTPError"}}',
                source="https://github.com/ccxt/ccxt/issues/4279",
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":{"message":"This request has expired - `expires` is in the past.","name":"HTTPError"}}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask who the key's user is."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _ID.fullmatch(key) or not _SECRET.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the key or its secret was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    expires = str(int(time.time()) + _VALID)
    signature = sign(secret, "GET", _PATH, expires)
    headers = {"api-expires": expires, "api-key": key, "api-signature": signature}
    request = Request(
        call=kind.calls[0],
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="api-key",
    )
    said, _ = await exchange(kind, request, door, (secret, key, signature))
    return said


def sign(secret: str, method: str, path: str, expires: str) -> str:
    """Return the signature of a call without a body: HMAC-SHA256, in hex."""
    return hmac.digest(secret.encode(), f"{method}{path}{expires}".encode(), "sha256").hex()
