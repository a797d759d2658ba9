"""Cisco Duo integrations: a signed check of the Auth API; the Admin API's counts where the key is of that sort.

Nothing says dead. Duo words its refusals vaguely on purpose: a live key of another sort hears what an unknown one does.
https://github.com/duosecurity/duo_client_java/issues/7
"""

from __future__ import annotations

import base64
import hmac
import re
from email.utils import formatdate
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door, Reply
    from verifier.model import Credential, Verdict

TITLE = "Cisco Duo"
_DOCS = "https://duo.com/docs/authapi"
_ADMIN = "https://duo.com/docs/adminapi"
_VAGUE = "https://github.com/duosecurity/duo_client_java/issues/7"
_HOST = re.compile(r"api-[a-z0-9]{4,20}\.(?:duosecurity|duofederal)\.com")
_ID = re.compile(r"DI[A-Z0-9]{18}")
_SECRET = re.compile(r"[A-Za-z0-9]{40}")
_OTHER_SORT = 403

KINDS: tuple[Kind, ...] = (
    Kind(
        id="duo_security",
        title="Duo integration key and secret key",
        category="identity",
        docs=_DOCS,
        console="https://admin.duosecurity.com/applications",
        parts=("secret", "id", "host"),
        shape=(
            ShapeSpec(part="id", pattern="DI[A-Z0-9]{18}", context="rule"),
            ShapeSpec(pattern="[A-Za-z0-9]{40}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        aliases={"trufflehog": ("Duo",)},
        calls=(
            Call(
                kind="duo_security",
                method="GET",
                scheme="https",
                host="{host}",
                path="/auth/v2/check",
                reads="checks that the keys are right and the signature is, and nothing else",
                docs=_DOCS,
            ),
            Call(
                kind="duo_security",
                method="GET",
                scheme="https",
                host="{host}",
                path="/admin/v1/info/summary",
                reads="counts users, integrations and administrators; names none of them",
                docs=_ADMIN,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"stat": "OK"},
                has=("response.time",),
                note="the Auth API accepts the keys",
                confidence=Confidence.UNCONFIRMED,
                source=_DOCS,
            ),
            Rule(
                verdict="live",
                status=200,
                json={"stat": "OK"},
                has=("response.integration_count", "response.user_count"),
                note="the Admin API accepts the keys",
                confidence=Confidence.UNCONFIRMED,
                source=_ADMIN,
            ),
            Rule(
                verdict="undecided",
                status=401,
                json={"stat": "FAIL", "code": (40102, 40103)},
                why=Doubt.AMBIGUOUS,
                note="refused, in words that a live key of another sort hears too",
                confidence=Confidence.OBSERVED,
                source=_VAGUE,
            ),
            Rule(
                verdict="undecided",
                status=401,
                json={"stat": "FAIL", "code": (40104, 40105)},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from Duo's: set it and ask again",
                confidence=Confidence.UNCONFIRMED,
            ),
            Rule(
                verdict="undecided",
                status=403,
                json={"stat": "FAIL", "code": 40301},
                why=Doubt.AMBIGUOUS,
                note="an integration of another sort, or one without the right to read information",
                confidence=Confidence.OBSERVED,
                source="https://github.com/duosecurity/duo_client_python/issues/203",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"stat":"OK","response":{"time":1357020061}}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="live",
                body='{"stat":"OK","response":{"admin_count":3,"integration_count":9,"telephony_credits_remaining":960,'
                '"user_count":0}}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":40102,"message":"Invalid identity in request credentials","stat":"FAIL"}',
                source="https://github.com/duosecurity/duo_api_csharp/issues/36",
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":40103,"message":"Invalid signature in request credentials","stat":"FAIL"}',
                source="https://community.duo.com/t/auth-v2-auth-giving-a-40103-but-auth-v2-preauth-working-fine/8371",
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":40104,"message":"Missing or bad timestamp","stat":"FAIL"}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":40301,"message":"Access forbidden",'
                '"message_detail":"Wrong integration type for this API.","stat":"FAIL"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Check the keys at the host that was found with them; ask the Admin API when the Auth API names another sort."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    host = re.sub(r"^https?://", "", parts["host"].lower()).partition("/")[0]
    if not _HOST.fullmatch(host):
        return Undecided(Doubt.INCOMPLETE, note="the host is none of Duo's")
    if not _ID.fullmatch(parts["id"]) or not _SECRET.fullmatch(parts["secret"]):
        return Undecided(Doubt.INCOMPLETE, note="the integration key or its secret key was cut out badly")
    base = (base_url or f"https://{host}").rstrip("/")
    check, summary = kind.calls
    said, reply = await _ask(kind, check, base, host, (parts["id"], parts["secret"]), door)
    if reply is not None and reply.status == _OTHER_SORT:
        said, _ = await _ask(kind, summary, base, host, (parts["id"], parts["secret"]), door)
    return said


async def _ask(
    kind: Kind, call: Call, base: str, host: str, pair: tuple[str, str], door: Door
) -> tuple[Verdict, Reply | None]:
    date = formatdate()
    authorization = sign(*pair, date, (call.method, host, call.path, ""))
    url = base + call.path
    request = Request(
        call=call,
        url=Secret(url),
        shown=url,
        headers={"Date": Secret(date), "Authorization": Secret(authorization)},
        carrier="authorization",
    )
    return await exchange(kind, request, door, (pair[1], authorization.rpartition(" ")[2]))


def sign(key: str, secret: str, date: str, asked: tuple[str, str, str, str]) -> str:
    """Return the Authorization header; `asked` is method, host, path and the sorted parameters."""
    method, host, path, parameters = asked
    text = f"{date}\n{method}\n{host.lower()}\n{path}\n{parameters}"
    signature = hmac.digest(secret.encode(), text.encode(), "sha1").hex()
    return "Basic " + base64.b64encode(f"{key}:{signature}".encode()).decode()
