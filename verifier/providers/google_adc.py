"""Google application-default credentials of a person: the refresh token in the file is offered for an access token."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Google application-default credentials"
_DOCS = "https://developers.google.com/identity/protocols/oauth2/web-server#offline"
_TOKEN = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address

KINDS: tuple[Kind, ...] = (
    Kind(
        id="gcp_adc",
        title="Google application-default credentials",
        category="cloud",
        docs="https://cloud.google.com/docs/authentication/application-default-credentials",
        console="https://myaccount.google.com/connections",
        parts=("secret",),
        probe="code",
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=(
            Call(
                kind="gcp_adc",
                method="POST",
                scheme="https",
                host="oauth2.googleapis.com",
                path="/token",
                reads="mints an access token that is dropped; by RFC 6749 that is a POST",
                docs=_DOCS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"token_type": "Bearer"},
                has=("access_token", "expires_in"),
                note="the refresh token was taken for a token",
                source=_DOCS,
            ),
            Rule(
                verdict="restricted",
                status=400,
                json={"error": "invalid_grant", "error_subtype": "invalid_rapt"},
                note="known; the organisation wants the person to log in again first",
                confidence=Confidence.UNCONFIRMED,
            ),
            Rule(
                verdict="dead",
                status=400,
                json={"error": "invalid_grant"},
                words={"error_description": "Token has been expired or revoked"},
                how=How.REVOKED,
                note="the refresh token has been expired or revoked",
                confidence=Confidence.OBSERVED,
                source="https://github.com/AppleIdLoginHelper/LoginHelper/issues/8",
            ),
            Rule(
                verdict="dead",
                status=400,
                json={"error": "invalid_grant"},
                words={"error_description": "Account has been deleted"},
                how=How.DELETED,
                note="the account has been deleted",
                confidence=Confidence.OBSERVED,
                source="https://github.com/FlowCrypt/flowcrypt-browser/issues/2269",
            ),
            Rule(
                verdict="undecided",
                status=400,
                json={"error": "invalid_grant"},
                why=Doubt.AMBIGUOUS,
                note="Google forgets old tokens, and then says of them what it says of gibberish",
                source="https://github.com/AlphaTiles/AlphaTiles/pull/107",
            ),
            Rule(
                verdict="undecided",
                status=401,
                words={"error": ("invalid_client", "deleted_client", "unauthorized_client")},
                why=Doubt.INCOMPLETE,
                note="the client beside the token is refused, so that the token was not judged",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"access_token":"***","expires_in":3599,"scope":"openid","token_type":"Bearer"}',
                constructed=True,
            ),
            Example(
                status=400,
                verdict="restricted",
                body='{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)",'
                '"error_subtype":"invalid_rapt"}',
                constructed=True,
            ),
            Example(
                status=400,
                verdict="dead",
                how=How.REVOKED,
                body='{"error":"invalid_grant","error_description":"Token has been expired or revoked."}',
                source="https://github.com/AppleIdLoginHelper/LoginHelper/issues/8",
            ),
            Example(
                status=400,
                verdict="dead",
                how=How.DELETED,
                body='{"error":"invalid_grant","error_description":"Account has been deleted"}',
                source="https://github.com/FlowCrypt/flowcrypt-browser/issues/2269",
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"error":"invalid_grant","error_description":"Bad Request"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.INCOMPLETE,
                body='{"error":"deleted_client","error_description":"The OAuth client was deleted."}',
                constructed=True,
            ),
        ),
    ),
)


class File(Struct, frozen=True):
    """What the credential file must hold."""

    client_id: str
    client_secret: str
    refresh_token: str


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Offer the refresh token."""
    try:
        file = msgspec.json.decode(credential.parts["secret"].reveal().encode("utf-8", "replace"), type=File)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return Undecided(Doubt.INCOMPLETE, note="this is not a whole credential file of a person")
    url = f"{base_url.rstrip('/')}/token" if base_url else _TOKEN
    form = {
        "grant_type": "refresh_token",
        "client_id": file.client_id,
        "client_secret": file.client_secret,
        "refresh_token": file.refresh_token,
    }
    request = Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={"Content-Type": Secret("application/x-www-form-urlencoded")},
        body=Secret(urlencode(form)),
        carrier="body",
    )
    said, _ = await exchange(kind, request, door, (file.refresh_token, file.client_secret))
    return said
