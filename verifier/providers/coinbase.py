"""Coinbase (CDP) API keys: one signed look at the key's own permissions. Nothing says dead.

A valid signature is refused now and then in the very words of a wrong one (plain `Unauthorized`), as its users report:
https://github.com/coinbase/coinbase-advanced-py/issues/132
"""

from __future__ import annotations

import binascii
import re
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Identity, Live, Privilege, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Coinbase"
_DOCS = "https://docs.cdp.coinbase.com/get-started/authentication/jwt-authentication"
_READS = "https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api/data-api/get-api-key-permissions"
_HOST = "api.coinbase.com"
_PATH = "/api/v3/brokerage/key_permissions"
_VALID = 120
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ID = rf"organizations/{_UUID}/apiKeys/{_UUID}"
_ANY_ID = re.compile(rf"{_ID}|{_UUID}")

_MAY = {"view": Privilege.READ, "trade": Privilege.WRITE, "transfer": Privilege.ADMIN}
_ORDER = (Privilege.UNKNOWN, Privilege.READ, Privilege.WRITE, Privilege.ADMIN)

KINDS: tuple[Kind, ...] = (
    Kind(
        id="coinbase",
        title="Coinbase API key",
        category="payment",
        docs=_DOCS,
        console="https://portal.cdp.coinbase.com/",
        parts=("secret", "id"),
        shape=(ShapeSpec(part="id", prefix=("organizations/",), pattern=_ID),),
        probe="code",
        identity=IdentitySpec(account="portfolio_uuid"),
        limits=Limits(rate=2, burst=2, concurrency=2),
        calls=(
            Call(
                kind="coinbase",
                method="GET",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="tells what the key may do; no balance and no order is read",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("portfolio_uuid", "portfolio_type"),
                note="tells its permissions",
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=401,
                type="text",
                text="Unauthorized",
                why=Doubt.AMBIGUOUS,
                note="refused, in words that valid signatures are refused with at times",
                source="https://github.com/coinbase/coinbase-advanced-py/issues/132",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"can_view":true,"can_trade":false,"can_transfer":false,"portfolio_uuid":"p",'
                '"portfolio_type":"DEFAULT"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body="Unauthorized\n",
                headers={"Content-Type": "text/plain"},
                source="https://github.com/coinbase/coinbase-advanced-py/issues/132",
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":"PERMISSION_DENIED","message":"Missing required scopes"}',
                constructed=True,
            ),
            Example(status=503, verdict="undecided", why=Doubt.UNREACHABLE, body="", constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for the key's permissions."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _ANY_ID.fullmatch(key):
        return Undecided(Doubt.INCOMPLETE, note="the name of the key was cut out badly")
    token = sign(key, secret, int(time.time()))
    if token is None:
        return Undecided(Doubt.INCOMPLETE, note="the secret is no key of Coinbase's: neither of P-256 nor of Ed25519")
    url = (base_url or f"https://{_HOST}").rstrip("/") + _PATH
    request = Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={"Authorization": Secret(f"Bearer {token}")},
        carrier="authorization",
    )
    said, answer = await exchange(kind, request, door, (secret, token))
    if isinstance(said, Live) and answer is not None:
        return replace(said, identity=identity(answer.body, said.identity))
    return said


def identity(body: bytes, told: Identity | None) -> Identity:
    """Return whom the key speaks for, with what it may do: each permission stands as a yes or no of its own."""
    said = msgspec.json.decode(body)
    may = tuple(name for name in _MAY if said.get(f"can_{name}") is True)
    return replace(
        told or Identity(), scopes=may, privilege=max((_MAY[m] for m in may), key=_ORDER.index, default=_ORDER[0])
    )


def sign(key: str, secret: str, now: int) -> str | None:
    """Return a token good for one call and two minutes; `None` where `secret` is no key of Coinbase's."""
    signer = _signer(secret)
    if signer is None:
        return None
    algorithm, seal = signer
    head = {"alg": algorithm, "kid": key, "nonce": secrets.token_hex(8), "typ": "JWT"}
    uri = f"GET {_HOST}{_PATH}"
    claims = {"sub": key, "iss": "cdp", "nbf": now, "exp": now + _VALID, "uri": uri, "uris": [uri]}
    signed = b".".join(_text(msgspec.json.encode(part)) for part in (head, claims))
    return (signed + b"." + _text(seal(signed))).decode()


def _text(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _signer(secret: str) -> tuple[str, Callable[[bytes], bytes]] | None:
    """Read a PEM of P-256, or Ed25519's seed and public key in base64 (64 bytes)."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # slow to import; few keys need it
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils  # noqa: PLC0415  # same
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # same
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415  # same

    if "-----BEGIN" in secret:
        try:
            pem = load_pem_private_key(secret.replace("\\n", "\n").encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None
        if not isinstance(pem, ec.EllipticCurvePrivateKey) or not isinstance(pem.curve, ec.SECP256R1):
            return None

        def by_curve(data: bytes) -> bytes:
            """Sign as JSON Web Signatures have it: both numbers, 32 bytes each (RFC 7518)."""
            r, s = utils.decode_dss_signature(pem.sign(data, ec.ECDSA(SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        return "ES256", by_curve
    try:
        raw = b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        return None
    return ("EdDSA", ed25519.Ed25519PrivateKey.from_private_bytes(raw[:32]).sign) if len(raw) == 64 else None
