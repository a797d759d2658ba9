"""Authress access keys: one question about the client itself, with a token that the key signs here for a minute.

Nothing says dead: what Authress answers to a key that was deleted is not published. A host name with `_`, as some
account ids have, is asked as it stands; where its certificate is only a wildcard, TLS refuses it and nothing is known.
"""

from __future__ import annotations

import re
import time
from base64 import b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

import msgspec

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Live, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Authress"
_DOCS = "https://authress.io/knowledge-base/docs/authorization/service-clients/secrets-scanning/"
_READS = "https://authress.io/app/#/api"
_KEY = re.compile(
    r"(?P<client>[A-Za-z0-9_-]{1,64})\.(?P<kid>[A-Za-z0-9_-]{1,64})"
    r"\.(?P<account>[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)\.(?P<private>[A-Za-z0-9+/]{40,200}={0,2})"
)
_VALID = 60

KINDS: tuple[Kind, ...] = (
    Kind(
        id="authress",
        title="Authress service client access key",
        category="identity",
        docs=_DOCS,
        shape=(
            ShapeSpec(
                prefix=("sc_", "ext_", "scauth_", "authress_"),
                pattern=r"(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}"
                r"\.[A-Za-z0-9+/_=-]{30,120}",
            ),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(principal="clientId"),
        aliases={
            "gitleaks": ("authress-service-client-access-key",),
            "betterleaks": ("authress-service-client-access-key",),
            "kingfisher": ("betterleaks.authress-service-client-access-key",),
            "kingfisher-1.x": ("kingfisher.authress.1",),
            "titus": ("kingfisher.authress.1",),
            "semgrep": (
                "generic.secrets.gitleaks.authress-service-client-access-key.authress-service-client-access-key",
            ),
            "github": ("authress_service_client_access_key",),
        },
        calls=(
            Call(
                kind="authress",
                method="GET",
                scheme="https",
                host="{account}.api.authress.io",
                path="/v1/clients/{client}",
                reads="describes the client that asks, without its private keys",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("clientId", "createdTime"),
                note="describes itself",
                confidence=Confidence.UNCONFIRMED,
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=401,
                why=Doubt.AMBIGUOUS,
                note="refused: the key was deleted, or our clock differs from Authress's",
                confidence=Confidence.UNCONFIRMED,
            ),
            Rule(
                verdict="undecided",
                status=(403, 404),
                why=Doubt.AMBIGUOUS,
                note="it may not look at itself, or is not known: which of them is not told",
                confidence=Confidence.UNCONFIRMED,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"clientId":"sc_example","createdTime":"2026-01-01T00:00:00.000Z","name":"ci","verificationKeys":[]}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"clientId":"sc_example"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"title":"Unauthorized"}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"title":"Forbidden"}',
                constructed=True,
            ),
            Example(
                status=404,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"title":"Not found"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask the client about itself: of the calls that a client has, this one is not billed."""
    secret = credential.parts["secret"].reveal().strip()
    key = _KEY.fullmatch(secret)
    signer = _signer(key["private"]) if key else None
    if key is None or signer is None:
        return Undecided(Doubt.INCOMPLETE, note="the key was cut out badly, or its private key is not Ed25519")
    client, account = key["client"], key["account"]
    token = sign(signer, client, key["kid"], account, int(time.time()))
    (call,) = kind.calls
    base = (base_url or f"https://{account.lower()}.api.authress.io").rstrip("/")
    url = base + call.path.replace("{client}", client)
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/links+json"}
    request = Request(
        call=call,
        url=Secret(url),
        shown=url,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="authorization",
    )
    said, _ = await exchange(kind, request, door, (secret, key["private"], token))
    if isinstance(said, Live) and (said.identity is None or said.identity.principal != client):
        return Undecided(Doubt.AMBIGUOUS, said.evidence, note="the reply describes another client than the key's")
    return said


def sign(key: Ed25519PrivateKey, client: str, kid: str, account: str, now: int) -> str:
    """Return a token of the client that is good for a minute."""
    head = {"alg": "EdDSA", "kid": kid, "typ": "JWT"}
    claims = {
        "iss": f"https://{account}.api.authress.io/v1/clients/{client}",
        "aud": f"{account}.accounts.authress.io",
        "sub": client,
        "client_id": client,
        "iat": now,
        "exp": now + _VALID,
        "scopes": "openId",
    }
    signed = b".".join(_text(msgspec.json.encode(part)) for part in (head, claims))
    return (signed + b"." + _text(key.sign(signed))).decode()


def _text(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _signer(private: str) -> Ed25519PrivateKey | None:
    """Read an Ed25519 key of PKCS#8 in base64; `None` where it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # slow to import; few keys need it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  # same
    from cryptography.hazmat.primitives.serialization import load_der_private_key  # noqa: PLC0415  # same

    try:
        key = load_der_private_key(b64decode(private, validate=True), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None
