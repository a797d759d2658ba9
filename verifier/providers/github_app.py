"""GitHub App private keys: a look at the app itself, with a token that the key signs here and that ends in minutes.

Nothing says dead: a deleted key and another app's id are refused in the same words, and so is an app of an Enterprise
Server. No installation token is minted.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "GitHub Apps"
_DOCS = "https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/managing-private-keys-for-github-apps"
_READS = "https://docs.github.com/en/rest/apps/apps#get-the-authenticated-app"
_TOKEN = "https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app"  # noqa: S105  # an address
_HOST = "https://api.github.com"
_ID = re.compile(r"[0-9]{1,10}|Iv(?:1\.[0-9a-f]{16}|23[0-9A-Za-z]{16})")
_AGO = 60
_MINUTES = 300

KINDS: tuple[Kind, ...] = (
    Kind(
        id="github_app_key",
        title="GitHub App private key",
        category="vcs",
        docs=_DOCS,
        console="https://github.com/settings/apps",
        parts=("secret", "id"),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(principal="slug", account="id", organisation=("owner.login", "owner.slug")),
        calls=(
            Call(
                kind="github_app_key",
                method="GET",
                scheme="https",
                host="api.github.com",
                path="/app",
                reads="describes the app whose key signed the request; no installation and no repository is read",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("id", "slug", "html_url"),
                lacks=("message",),
                note="describes its app",
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=401,
                words={"message": "A JSON web token could not be decoded"},
                why=Doubt.AMBIGUOUS,
                note="refused: deleted, or the key of another app",
                confidence=Confidence.OBSERVED,
                source="https://github.com/actions/create-github-app-token/issues/153",
            ),
            Rule(
                verdict="undecided",
                status=(401, 404),
                words={"message": "Integration not found"},
                why=Doubt.AMBIGUOUS,
                note="github.com has no app with this id",
                confidence=Confidence.UNCONFIRMED,
            ),
            Rule(
                verdict="undecided",
                status=401,
                words={"message": ("'Issued at' claim", "'Expiration time' claim")},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from GitHub's: set it and ask again",
                confidence=Confidence.DOCUMENTED,
                source=_TOKEN,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"id":1,"slug":"octoapp","client_id":"Iv1.ab1112223334445c","node_id":"MDExOkludGVncmF0aW9uMQ==",'
                '"owner":{"login":"github","id":1},"name":"Octocat App","description":"",'
                '"external_url":"https://example.com","html_url":"https://github.com/apps/octoapp",'
                '"permissions":{"metadata":"read"},"events":["push"]}',
                source=_READS,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"message":"A JSON web token could not be decoded",'
                '"documentation_url":"https://docs.github.com/rest","status":"401"}',
                source="https://github.com/github/docs/issues/33989",
            ),
            Example(
                status=404,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"message":"Integration not found","documentation_url":"https://docs.github.com/rest"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body="{\"message\":\"'Expiration time' claim ('exp') is too far in the future\","
                '"documentation_url":"https://docs.github.com/rest"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask which app the key is of."""
    pem, app = (credential.parts[name].reveal().strip() for name in ("secret", "id"))
    if not _ID.fullmatch(app):
        return Undecided(Doubt.INCOMPLETE, note="the id names no app")
    token = sign(pem, app, int(time.time()))
    if token is None:
        return Undecided(Doubt.INCOMPLETE, note="the private key cannot be read, or is not RSA: it was cut out badly")
    (call,) = kind.calls
    url = (base_url or _HOST).rstrip("/") + call.path
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
    request = Request(
        call=call,
        url=Secret(url),
        shown=url,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="authorization",
    )
    said, _ = await exchange(kind, request, door, (pem, token))
    return said


def sign(pem: str, app: str, now: int) -> str | None:
    """Return a token of the app that is good for five minutes; `None` when the key cannot be read."""
    from google.auth import crypt, jwt  # noqa: PLC0415  # 0.2 s to import; only where there is such a key

    try:
        signer = crypt.RSASigner.from_string(pem.replace("\\n", "\n"))  # type: ignore[no-untyped-call]  # so published
        claims = {"iss": app, "iat": now - _AGO, "exp": now + _MINUTES}
        return str(jwt.encode(signer, claims).decode())  # type: ignore[no-untyped-call]  # so published
    except (ValueError, TypeError):  # the latter is of a key that is not RSA
        return None
