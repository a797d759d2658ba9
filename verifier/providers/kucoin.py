"""KuCoin API keys: a signed look at the key itself, at the global site and at the European one. Nothing says dead.

`KC-API-KEY not exists` is what each site says of another site's keys, and not every regional site is known here.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from functools import partial
from typing import TYPE_CHECKING

from verifier.asking import exchange, sweep
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, PrivilegeSpec, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "KuCoin"
_DOCS = "https://www.kucoin.com/docs-new/authentication"
_READS = "https://www.kucoin.com/docs-new/api-3470130"
_ERRORS = "https://www.kucoin.com/docs-new/error-code/websocket"
HOSTS: tuple[str, ...] = ("api.kucoin.com", "api.kucoin.eu")
"""The global site and the European one: keys of one are unknown to the other."""
_PATH = "/api/v1/user/api-key"
_ID = re.compile(r"[0-9a-f]{24}")
_SECRET = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PHRASE = re.compile(r"[!-~]{1,64}")
_REFUSED = (200, 400, 401, 403)

KINDS: tuple[Kind, ...] = (
    Kind(
        id="kucoin",
        title="KuCoin API key",
        category="payment",
        docs=_DOCS,
        console="https://www.kucoin.com/account/api",
        parts=("secret", "id", "password"),
        shape=(
            ShapeSpec(part="id", pattern="[0-9a-f]{24}", context="rule"),
            ShapeSpec(pattern="[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(
            account="data.uid",
            principal="data.subName",
            scopes="data.permission",
            privilege=PrivilegeSpec(
                admin=("Transfer*", "*,Transfer*", "*Withdraw*"),
                write=("*Spot*", "*Margin*", "*Futures*", "*Earn*"),
                read=("*General*",),
            ),
        ),
        aliases={"trufflehog": ("KuCoin",)},
        calls=tuple(
            Call(
                kind="kucoin",
                method="GET",
                scheme="https",
                host=host,
                path=_PATH,
                reads="describes the key that asks, without its secret; no balance and no order is read",
                docs=_READS,
            )
            for host in HOSTS
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"code": "200000"},
                has=("data.apiKey", "data.permission"),
                note="describes itself",
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=_REFUSED,
                json={"code": "400002"},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from KuCoin's: set it and ask again",
                source=_ERRORS,
            ),
            Rule(
                verdict="undecided",
                status=_REFUSED,
                json={"code": "400003"},
                why=Doubt.AMBIGUOUS,
                note="not known to kucoin.com or kucoin.eu: deleted, or a key of another regional site",
                source=_ERRORS,
            ),
            Rule(
                verdict="undecided",
                status=_REFUSED,
                json={"code": ("400004", "400005")},
                why=Doubt.AMBIGUOUS,
                note="the key exists; the passphrase or the secret is not its own",
                source=_ERRORS,
            ),
            Rule(
                verdict="undecided",
                status=_REFUSED,
                json={"code": ("400006", "400007", "400008", "400009")},
                why=Doubt.AMBIGUOUS,
                note="the key exists; it may not be used from this address, for this call, or in this version",
                source=_ERRORS,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"code":"200000","data":{"remark":"account1","apiKey":"***","apiVersion":3,'
                '"permission":"General,Futures,Spot,Earn,InnerTransfer,Transfer,Margin","ipWhitelist":"203.**.154",'
                '"createdAt":1728443843000,"uid":165111215,"isMaster":true}}',
                source="https://github.com/Kucoin/kucoin-universal-sdk",
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"400002","msg":"Invalid KC-API-TIMESTAMP"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"400003","msg":"KC-API-KEY not exists"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"400005","msg":"Invalid KC-API-SIGN"}',
                constructed=True,
            ),
            Example(
                status=400,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"400006","msg":"Invalid request ip, the current clientIp is:192.0.2.1"}',
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask both sites what the key is."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    if not _ID.fullmatch(parts["id"]) or not _SECRET.fullmatch(parts["secret"]):
        return Undecided(Doubt.INCOMPLETE, note="the key or its secret was cut out badly")
    if not _PHRASE.fullmatch(parts["password"]):
        return Undecided(Doubt.INCOMPLETE, note="the passphrase was cut out badly")
    places = list(zip(kind.calls, HOSTS, strict=True))
    if base_url is not None:
        places = places[:1]
    return await sweep(
        partial(_ask, kind, call, (base_url or f"https://{host}").rstrip("/"), parts, door) for call, host in places
    )


async def _ask(kind: Kind, call: Call, base: str, parts: dict[str, str], door: Door) -> Verdict:
    now = str(int(time.time() * 1_000))
    signature = sign(parts["secret"], f"{now}GET{_PATH}")
    phrase = sign(parts["secret"], parts["password"])
    headers = {
        "KC-API-KEY": parts["id"],
        "KC-API-SIGN": signature,
        "KC-API-TIMESTAMP": now,
        "KC-API-PASSPHRASE": phrase,
        "KC-API-KEY-VERSION": "3",
    }
    request = Request(
        call=call,
        url=Secret(base + _PATH),
        shown=base + _PATH,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="kc-api-key",
    )
    said, _ = await exchange(kind, request, door, (parts["secret"], parts["id"], parts["password"], signature, phrase))
    return said


def sign(secret: str, text: str) -> str:
    """Return the signature of a text: HMAC-SHA256 in base64. The passphrase is sent signed, too."""
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha256")).decode()
