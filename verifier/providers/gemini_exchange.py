"""Gemini (the exchange): a signed look at the roles of the key. Nothing says dead.

`InvalidSignature` is said of a wrong secret, and is all that the published replies to a wrong key have in common.

A key counts by the clock, in seconds and within half a minute, or by any number that grows (`verifier.nonce`).
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Identity, Live, Privilege, Undecided
from verifier.nonce import climb
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door, Reply
    from verifier.model import Credential, Verdict

TITLE = "Gemini (exchange)"
_DOCS = "https://developer.gemini.com/authentication/api-key"
_READS = "https://developer.gemini.com/roles"
_HOST = "api.gemini.com"
_PATH = "/v1/roles"
_ID = re.compile(r"(?:master|account)-[0-9A-Za-z]{16,32}")
_SECRET = re.compile(r"[0-9A-Za-z]{20,40}")
_ROLES = {
    "isAuditor": Privilege.READ,
    "isTrader": Privilege.WRITE,
    "isFundManager": Privilege.ADMIN,
    "isAccountAdmin": Privilege.ADMIN,
}
_ORDER = (Privilege.UNKNOWN, Privilege.READ, Privilege.WRITE, Privilege.ADMIN)

KINDS: tuple[Kind, ...] = (
    Kind(
        id="gemini_exchange",
        title="Gemini exchange API key",
        category="payment",
        docs=_DOCS,
        console="https://exchange.gemini.com/settings/api",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", pattern="(?:master|account)-[0-9A-Za-z]{20}", context="rule"),
            ShapeSpec(pattern="[A-Za-z0-9]{27,28}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        aliases={"trufflehog": ("Gemini",)},
        calls=(
            Call(
                kind="gemini_exchange",
                method="POST",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="tells the roles of the key that asks; the API takes every signed call by POST",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"isAuditor": (True, False), "isFundManager": (True, False), "isTrader": (True, False)},
                note="tells its roles",
                confidence=Confidence.UNCONFIRMED,
                source="https://github.com/rotki/rotki/pull/4244",
            ),
            Rule(
                verdict="undecided",
                status=(400, 401, 403),
                json={"result": "error"},
                words={"reason": "InvalidNonce"},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from Gemini's, or the key has been used with a higher nonce than ours",
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=(400, 401, 403),
                json={"result": "error"},
                words={"reason": ("InvalidSignature", "InvalidApiKey")},
                why=Doubt.AMBIGUOUS,
                note="refused: an unknown key, or not the secret of this key",
                confidence=Confidence.OBSERVED,
                source="https://github.com/butor/blackbird/issues/306",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"isAuditor":false,"isFundManager":true,"isTrader":true}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="live",
                body='{"isAuditor":true,"isFundManager":false,"isTrader":false}',
                constructed=True,
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"result":"error","reason":"InvalidSignature","message":"InvalidSignature"}',
                source="https://github.com/butor/blackbird/issues/306",
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"result":"error","reason":"InvalidNonce","message":"Nonce has not increased"}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"result":"error","reason":"MissingRole","message":"The account does not have a required role"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for the roles of the key."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _ID.fullmatch(key) or not _SECRET.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the key or its secret was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    said, reply = await climb(lambda nonce: _ask(kind, base, (key, secret), nonce, door), b"InvalidNonce")
    if isinstance(said, Live) and reply is not None:
        return replace(said, identity=identity(reply.body))
    return said


async def _ask(kind: Kind, base: str, pair: tuple[str, str], nonce: int, door: Door) -> tuple[Verdict, Reply | None]:
    key, secret = pair
    payload = base64.b64encode(msgspec.json.encode({"request": _PATH, "nonce": nonce})).decode()
    signature = sign(secret, payload)
    headers = {
        "Content-Type": "text/plain",
        "Cache-Control": "no-cache",
        "X-GEMINI-APIKEY": key,
        "X-GEMINI-PAYLOAD": payload,
        "X-GEMINI-SIGNATURE": signature,
    }
    request = Request(
        call=kind.calls[0],
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={k: Secret(v) for k, v in headers.items()},
        body=Secret(""),
        carrier="x-gemini-apikey",
    )
    return await exchange(kind, request, door, (secret, key, signature))


def identity(body: bytes) -> Identity:
    """Return the roles of the key: each stands as a yes or no of its own."""
    said = msgspec.json.decode(body)
    may = tuple(role for role in _ROLES if said.get(role) is True)
    return Identity(scopes=may, privilege=max((_ROLES[role] for role in may), key=_ORDER.index, default=_ORDER[0]))


def sign(secret: str, payload: str) -> str:
    """Return the signature of an encoded payload: HMAC-SHA384, in hex."""
    return hmac.digest(secret.encode(), payload.encode(), "sha384").hex()
