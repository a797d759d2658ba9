"""Tencent Cloud API keys: a signed GetCallerIdentity, which every key may ask.

China and the rest of the world are two clouds with one kind of key: dead takes both.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from verifier.asking import exchange, sweep
from verifier.exchange import Call, Request
from verifier.model import Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Tencent Cloud"
_DOCS = "https://www.tencentcloud.com/document/product/1150/49452"
_ERRORS = "https://www.tencentcloud.com/document/product/1150/49456"
PLACES: tuple[tuple[str, str], ...] = (
    ("sts.tencentcloudapi.com", "ap-guangzhou"),
    ("sts.intl.tencentcloudapi.com", "ap-singapore"),
)
"""Host and region of STS in China and in the rest of the world."""
_BODY = "{}"
_TYPE = "application/json; charset=utf-8"
_ID = re.compile(r"(?:AKID|IKID)[A-Za-z0-9]{28,40}")
_SECRET = re.compile(r"[A-Za-z0-9]{24,64}")


def _error(code: str) -> str:
    return f'{{"Response":{{"Error":{{"Code":"{code}","Message":"***"}},"RequestId":"r"}}}}'


KINDS: tuple[Kind, ...] = (
    Kind(
        id="tencent",
        title="Tencent Cloud API key",
        category="cloud",
        docs="https://www.tencentcloud.com/document/product/598/34227",
        console="https://console.tencentcloud.com/cam/capi",
        parts=("secret", "id"),
        shape=(
            ShapeSpec(part="id", prefix=("AKID",), pattern="AKID[A-Za-z0-9]{32}"),
            ShapeSpec(part="id", prefix=("IKID",), pattern="IKID[A-Za-z0-9]{32}"),
            ShapeSpec(pattern="[A-Za-z0-9]{32}", context="rule"),
        ),
        probe="code",
        limits=Limits(rate=5, burst=5, concurrency=4),
        identity=IdentitySpec(principal="Response.Arn", account="Response.AccountId"),
        calls=tuple(
            Call(
                kind="tencent",
                method="POST",
                scheme="https",
                host=host,
                path="/",
                reads="GetCallerIdentity says who asks; the signature covers a body, so it is a POST",
                docs=_DOCS,
            )
            for host, _ in PLACES
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                words={"Response.Arn": "qcs::"},
                has=("Response.AccountId", "Response.RequestId"),
                note="says who it speaks for",
                source=_DOCS,
            ),
            Rule(
                verdict="restricted",
                status=200,
                words={"Response.Error.Code": "AuthFailure.UnauthorizedOperation"},
                note="authenticated; a policy forbids the call",
                source=_ERRORS,
            ),
            Rule(
                verdict="dead",
                status=200,
                json={"Response.Error.Code": "AuthFailure.SecretIdNotFound"},
                how=How.DELETED,
                note="Tencent Cloud does not know the key id: deleted or disabled",
                source=_ERRORS,
            ),
            Rule(
                verdict="undecided",
                status=200,
                words={"Response.Error.Code": "AuthFailure.SignatureExpire"},
                why=Doubt.AMBIGUOUS,
                note="our clock differs from Tencent Cloud's: set it and ask again",
            ),
            Rule(
                verdict="undecided",
                status=200,
                words={"Response.Error.Code": "AuthFailure."},
                why=Doubt.AMBIGUOUS,
                note="this secret is not the secret of this key id, or was cut out badly",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"Response":{"Arn":"qcs::cam::uin/1:uin/2","AccountId":"1","UserId":"2","PrincipalId":"2",'
                '"Type":"SubAccount","RequestId":"r"}}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="restricted",
                body=_error("AuthFailure.UnauthorizedOperation"),
                constructed=True,
            ),
            Example(
                status=200,
                verdict="dead",
                how=How.DELETED,
                body=_error("AuthFailure.SecretIdNotFound"),
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body=_error("AuthFailure.SignatureExpire"),
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body=_error("AuthFailure.SignatureFailure"),
                source="https://www.tencentcloud.com/document/product/597/35338",
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask STS who the key is, in both clouds."""
    key, secret = (credential.parts[p].reveal().strip() for p in ("id", "secret"))
    if not _ID.fullmatch(key) or not _SECRET.fullmatch(secret):
        return Undecided(Doubt.INCOMPLETE, note="the key id or secret was cut out badly")
    places = list(zip(kind.calls, PLACES, strict=True))
    if base_url is not None:
        places = places[:1]
    return await sweep(
        partial(_ask, kind, call, (base_url or f"https://{host}").rstrip("/"), (host, region), (key, secret), door)
        for call, (host, region) in places
    )


async def _ask(kind: Kind, call: Call, base: str, place: tuple[str, str], pair: tuple[str, str], door: Door) -> Verdict:
    host, region = place
    now = datetime.now(UTC)
    authorization = sign(host, *pair, now)
    headers = {
        "Authorization": authorization,
        "Content-Type": _TYPE,
        "X-TC-Action": "GetCallerIdentity",
        "X-TC-Version": "2018-08-13",
        "X-TC-Region": region,
        "X-TC-Timestamp": str(int(now.timestamp())),
    }
    request = Request(
        call=call,
        url=Secret(f"{base}/"),
        shown=f"{base}/ GetCallerIdentity",
        headers={k: Secret(v) for k, v in headers.items()},
        body=Secret(_BODY),
        carrier="authorization",
    )
    said, _ = await exchange(kind, request, door, (pair[1], authorization.rpartition("=")[2]))
    return said


def sign(host: str, key: str, secret: str, now: datetime) -> str:
    """Return the Authorization header of a GetCallerIdentity, signature TC3-HMAC-SHA256."""
    day = f"{now:%Y-%m-%d}"
    signed = "content-type;host"
    canonical = (
        f"POST\n/\n\ncontent-type:{_TYPE}\nhost:{host}\n\n{signed}\n{hashlib.sha256(_BODY.encode()).hexdigest()}"
    )
    scope = f"{day}/sts/tc3_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"TC3-HMAC-SHA256\n{int(now.timestamp())}\n{scope}\n{digest}"
    step = f"TC3{secret}".encode()
    for word in (day, "sts", "tc3_request"):
        step = hmac.digest(step, word.encode(), "sha256")
    signature = hmac.new(step, text.encode(), "sha256").hexdigest()
    return f"TC3-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signature}"
