"""Google Cloud service-account keys: exchange a signed assertion for a token, and ask the public list of keys.

google-auth signs, our door sends. The token is dropped unread. `token_uri` of the key file is never followed: a key
file is whatever was lying in an image, and may name anybody's host.
https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from verifier.asking import exchange
from verifier.exchange import Call, Reply, Request
from verifier.model import Arrival, Dead, Doubt, How, Identity, Live, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Google Cloud"
_TOKEN = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
_KEYS = "https://www.googleapis.com"
_DOCS = "https://developers.google.com/identity/protocols/oauth2/service-account#httprest"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE = "https://www.googleapis.com/auth/userinfo.email"
_MINUTES = 600
_EMAIL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}@([a-z0-9][a-z0-9.-]{0,120}\.)?gserviceaccount\.com")
_PROJECT = re.compile(r".+@([a-z0-9.-]+)\.iam\.gserviceaccount\.com")
_REVOKED = "Invalid JWT Signature"
_JSON = {"content-type": "application/json; charset=utf-8"}

KINDS: tuple[Kind, ...] = (
    Kind(
        id="gcp_sa",
        title="Google Cloud service-account key",
        category="cloud",
        docs="https://cloud.google.com/iam/docs/keys-create-delete",
        console="https://console.cloud.google.com/iam-admin/serviceaccounts",
        parts=("secret",),
        optional=("account",),
        probe="code",
        confirm_after=3600.0,  # "Invalid JWT Signature" has come and gone for live keys
        limits=Limits(rate=10, burst=10, concurrency=8),
        calls=(
            Call(
                kind="gcp_sa",
                method="POST",
                scheme="https",
                host="oauth2.googleapis.com",
                path="/token",
                reads="mints an access token that is dropped; the exchange is a POST by RFC 7523",
                docs=_DOCS,
            ),
            Call(
                kind="gcp_sa",
                method="GET",
                scheme="https",
                host="www.googleapis.com",
                path="/service_accounts/v1/metadata/x509/{email}",
                reads="reads the public certificates of the service account, without any secret",
                docs="https://cloud.google.com/iam/docs/best-practices-for-managing-service-account-keys",
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"token_type": "Bearer"},
                has=("access_token", "expires_in"),
                note="the assertion was taken for a token",
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=400,
                json={"error": "invalid_grant"},
                words={"error_description": ("short-lived token", "reasonable timeframe")},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from Google's: set it and ask again",
                confidence=Confidence.OBSERVED,
                source="https://github.com/fastlane/fastlane/issues/14972",
            ),
            Rule(
                verdict="dead",
                status=400,
                json={"error": "invalid_grant"},
                words={"error_description": _REVOKED},
                how=How.REVOKED,
                arrival=Arrival.PROVEN,
                note="Google does not know this key any more",
                confidence=Confidence.OBSERVED,
                source="https://github.com/google-github-actions/setup-gcloud/issues/76",
            ),
            Rule(
                verdict="dead",
                status=400,
                json={"error": "invalid_grant"},
                words={"error_description": "account not found"},
                how=How.DELETED,
                arrival=Arrival.PROVEN,
                note="the service account is deleted or disabled",
                confidence=Confidence.OBSERVED,
                source="https://github.com/googleapis/google-cloud-php/issues/3622",
            ),
            Rule(
                verdict="dead",
                status=400,
                json={"error": "invalid_grant"},
                words={"error_description": "Robot is disabled"},
                how=How.DISABLED,
                arrival=Arrival.PROVEN,
                note="the service account is disabled",
                confidence=Confidence.OBSERVED,
                source="https://github.com/googleapis/google-api-ruby-client/issues/720",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"access_token":"{secret}","expires_in":3599,"token_type":"Bearer"}',
                headers=_JSON,
                constructed=True,
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                headers=_JSON,
                body='{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token '
                "(60 minutes) and in a reasonable timeframe. Check your iat and exp values and use a clock with skew "
                'to account for clock differences between systems."}',
                source="https://github.com/fastlane/fastlane/issues/14972",
            ),
            Example(
                status=400,
                verdict="dead",
                how=How.REVOKED,
                headers=_JSON,
                body='{"error":"invalid_grant","error_description":"Invalid JWT Signature."}',
                source="https://github.com/google-github-actions/setup-gcloud/issues/76",
            ),
            Example(
                status=400,
                verdict="dead",
                how=How.DELETED,
                headers=_JSON,
                body='{"error":"invalid_grant","error_description":"Invalid grant: account not found"}',
                source="https://github.com/googleapis/google-cloud-php/issues/3622",
            ),
            Example(
                status=400,
                verdict="dead",
                how=How.DISABLED,
                headers=_JSON,
                body='{"error":"invalid_grant","error_description":"Robot is disabled."}',
                source="https://github.com/googleapis/google-api-ruby-client/issues/720",
            ),
        ),
    ),
)


class KeyFile(Struct, frozen=True):
    """The fields of a key file that matter. `private_key` is PEM."""

    client_email: str
    private_key: str
    private_key_id: str = ""
    project_id: str = ""
    universe_domain: str = "googleapis.com"


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Exchange an assertion; a refused signature counts only when the public list of keys lacks the key, too."""
    text = credential.parts["secret"].reveal()
    try:
        key = msgspec.json.decode(text.encode("utf-8", "replace"), type=KeyFile)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return Undecided(Doubt.INCOMPLETE, note="this is not a whole service-account key file")
    if key.universe_domain != "googleapis.com":
        return Undecided(Doubt.UNSUPPORTED, note="the key is of another Google Cloud universe")
    if not _EMAIL.fullmatch(key.client_email):
        return Undecided(Doubt.INCOMPLETE, note="client_email names no service account")
    assertion = sign(key, int(time.time()))
    if assertion is None:
        return Undecided(Doubt.INCOMPLETE, note="the private key in the key file cannot be read: it was cut out badly")
    url = f"{base_url.rstrip('/')}/token" if base_url else _TOKEN
    request = Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={"Content-Type": Secret("application/x-www-form-urlencoded")},
        body=Secret(urlencode({"grant_type": _GRANT, "assertion": assertion})),
        carrier="body",
    )
    said, reply = await exchange(kind, request, door, (key.private_key, assertion))
    if isinstance(said, Live):
        return replace(said, identity=identity(key))
    if isinstance(said, Dead) and said.how is How.REVOKED and reply is not None:
        return await _agreed(kind, key, said, door, base_url)
    return said


async def _agreed(kind: Kind, key: KeyFile, said: Dead, door: Door, base_url: str | None) -> Verdict:
    """Keep a Dead only if the public list of the account's keys is there and this key is not on it."""
    base = base_url.rstrip("/") if base_url else _KEYS
    url = f"{base}/service_accounts/v1/metadata/x509/{quote(key.client_email, safe='@')}"
    answer = await door.send(Request(call=kind.calls[1], url=Secret(url), shown=url))
    listed = listing(answer) if isinstance(answer, Reply) else None
    if key.private_key_id and listed is not None and key.private_key_id not in listed:
        note = f"{said.evidence.rule}, and the public list of the account's keys lacks it"
        return replace(said, evidence=replace(said.evidence, rule=note))
    note = "the signature was refused, but the public list of the account's keys does not say that the key is gone"
    return Undecided(Doubt.AMBIGUOUS, said.evidence, note=note)


def listing(reply: Reply) -> frozenset[str] | None:
    """Return the key ids of a public list; `None` when this is none."""
    try:
        found = msgspec.json.decode(reply.body, type=dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None
    good = reply.status == 200 and found and all("BEGIN CERTIFICATE" in c for c in found.values())
    return frozenset(found) if good else None


def sign(key: KeyFile, now: int) -> str | None:
    """Return a signed assertion good for ten minutes, `None` when the private key cannot be read."""
    from google.auth import crypt, jwt  # noqa: PLC0415  # 0.2 s to import; only where there is such a key

    pem = key.private_key.replace("\\n", "\n")  # a key file that was quoted twice
    try:
        signer = crypt.RSASigner.from_string(pem, key.private_key_id or None)  # type: ignore[no-untyped-call]  # so published
    except (ValueError, TypeError):
        return None
    claims = {"iss": key.client_email, "scope": _SCOPE, "aud": _TOKEN, "iat": now, "exp": now + _MINUTES}
    try:
        return str(jwt.encode(signer, claims).decode())  # type: ignore[no-untyped-call]  # so published
    except TypeError:  # the file holds a key that is not RSA
        return None


def identity(key: KeyFile) -> Identity:
    """Return whom the key speaks for; the project is the one in the account's own name, where it has one."""
    m = _PROJECT.fullmatch(key.client_email)
    return Identity(principal=key.client_email, account=m.group(1) if m else key.project_id or None)
