"""Bitfinex API keys: one signed look at the key's own permissions. Nothing says dead.

`apikey: invalid` is also the answer to a signature that is wrong, so a key with another's secret hears it too.
https://github.com/bitfinexcom/bitfinex-api-node/issues/217

A nonce must be greater than every earlier one of the key, its owner's own included (`verifier.nonce`).
"""

from __future__ import annotations

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

TITLE = "Bitfinex"
_DOCS = "https://docs.bitfinex.com/docs/rest-auth"
_READS = "https://docs.bitfinex.com/reference/key-permissions"
_HOST = "api.bitfinex.com"
_PATH = "/v2/auth/r/permissions"
_BODY = "{}"
_KEY = re.compile(r"[A-Za-z0-9_-]{40,64}")
_MOVES_MONEY = frozenset({"withdraw", "ui_withdraw", "bfxpay"})

KINDS: tuple[Kind, ...] = (
    Kind(
        id="bitfinex",
        title="Bitfinex API key and secret",
        category="payment",
        docs=_DOCS,
        console="https://setting.bitfinex.com/api",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(pattern="[A-Za-z0-9_-]{43}", context="rule"),
            ShapeSpec(part="id", pattern="[A-Za-z0-9_-]{43}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        aliases={"trufflehog": ("Bitfinex",)},
        calls=(
            Call(
                kind="bitfinex",
                method="POST",
                scheme="https",
                host=_HOST,
                path=_PATH,
                reads="lists the permissions of the key that asks; the API takes every signed call by POST",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"[*][0]": "account"},
                words={"[*][0]": "wallets"},
                note="lists its permissions",
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=500,
                json={"[0]": "error"},
                words={"[2]": "nonce:"},
                why=Doubt.AMBIGUOUS,
                note="the key has been used with a higher nonce than ours: its secret was not looked at",
                confidence=Confidence.OBSERVED,
                source="https://github.com/bitfinexcom/bitfinex-api-node/issues/347",
            ),
            Rule(
                verdict="undecided",
                status=500,
                json={"[0]": "error"},
                words={"[2]": "apikey:"},
                why=Doubt.AMBIGUOUS,
                note="refused: an unknown key, or not the secret of this key",
                confidence=Confidence.OBSERVED,
                source="https://github.com/bitfinexcom/bitfinex-api-node/issues/217",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='[["account",0,0],["history",1,0],["orders",1,1],["positions",1,1],["funding",1,1],'
                '["settings",0,0],["wallets",1,1],["withdraw",0,0],["ui_withdraw",0,0]]',
                constructed=True,
            ),
            Example(
                status=500,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='["error",10100,"apikey: invalid"]',
                source="https://github.com/bitfinexcom/bitfinex-api-node/issues/587",
            ),
            Example(
                status=500,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='["error",10100,"apikey: digest invalid"]',
                constructed=True,
            ),
            Example(
                status=500,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='["error",10114,"nonce: small"]',
                constructed=True,
            ),
            Example(
                status=500,
                verdict="undecided",
                why=Doubt.UNREACHABLE,
                body='["error",20060,"maintenance"]',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask for the key's permissions."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _KEY.fullmatch(key) or not _KEY.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the key or its secret was cut out badly")
    base = (base_url or f"https://{_HOST}").rstrip("/")
    said, reply = await climb(lambda nonce: _ask(kind, base, (key, secret), nonce, door), b"nonce: small")
    if isinstance(said, Live) and reply is not None:
        return replace(said, identity=identity(reply.body))
    return said


async def _ask(kind: Kind, base: str, pair: tuple[str, str], nonce: int, door: Door) -> tuple[Verdict, Reply | None]:
    key, secret = pair
    signature = sign(secret, str(nonce))
    headers = {
        "Content-Type": "application/json",
        "bfx-apikey": key,
        "bfx-nonce": str(nonce),
        "bfx-signature": signature,
    }
    request = Request(
        call=kind.calls[0],
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={k: Secret(v) for k, v in headers.items()},
        body=Secret(_BODY),
        carrier="bfx-apikey",
        decisive=_final,
    )
    return await exchange(kind, request, door, (secret, key, signature))


def _final(reply: Reply) -> bool:
    """Tell Bitfinex's own refusals, which are 500s, from a passing one: the same nonce would not do twice."""
    return reply.body.lstrip().startswith(b'["error"')


def identity(body: bytes) -> Identity:
    """Return what the key may do: each permission stands as two numbers, to read and to write."""
    reads, writes = set[str](), set[str]()
    for row in msgspec.json.decode(body):
        if isinstance(row, list) and len(row) > 2 and isinstance(row[0], str):  # name, read, write
            reads |= {row[0]} if row[1] == 1 else set()
            writes |= {row[0]} if row[2] == 1 else set()
    may = tuple(sorted({f"{name}:read" for name in reads} | {f"{name}:write" for name in writes}))
    if writes & _MOVES_MONEY:
        return Identity(scopes=may, privilege=Privilege.ADMIN)
    return Identity(scopes=may, privilege=Privilege.WRITE if writes else Privilege.READ if reads else Privilege.UNKNOWN)


def sign(secret: str, nonce: str, path: str = _PATH, body: str = _BODY) -> str:
    """Return the signature: HMAC-SHA384 over path, nonce and body."""
    return hmac.digest(secret.encode(), f"/api{path}{nonce}{body}".encode(), "sha384").hex()
