"""Alibaba Cloud access keys: a signed GetCallerIdentity, which every key may ask.

The signature is the RPC one (HMAC-SHA1 over the sorted query); it travels in the query, the secret itself never does.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Alibaba Cloud"
_DOCS = "https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-getcalleridentity"
_ERRORS = "https://www.alibabacloud.com/help/doc-detail/42775.htm"
_HOST = "sts.aliyuncs.com"
_ID = re.compile(r"(?:LTAI|STS\.)[A-Za-z0-9]{12,40}")
_CLEAN = re.compile(r"[\x21-\x7e]{16,4096}")

_RULES = (
    Rule(
        verdict="live",
        status=200,
        words={"Arn": "acs:"},
        has=("AccountId", "RequestId"),
        note="says who it speaks for",
        source=_DOCS,
    ),
    Rule(
        verdict="dead",
        status=404,
        json={"Code": "InvalidAccessKeyId.NotFound"},
        how=How.DELETED,
        note="Alibaba Cloud does not know the key id",
        source=_ERRORS,
    ),
    Rule(
        verdict="dead",
        status=(400, 403),
        json={"Code": "InvalidAccessKeyId.Inactive"},
        how=How.DISABLED,
        note="the key is disabled",
        source=_ERRORS,
    ),
    Rule(
        verdict="undecided",
        status=(400, 403, 404),
        words={"Code": ("SignatureDoesNotMatch", "IncompleteSignature")},
        why=Doubt.AMBIGUOUS,
        note="the key id exists; this secret is not its secret, or was cut out badly",
    ),
    Rule(
        verdict="undecided",
        status=400,
        words={"Code": ("Timestamp", "TimeStamp")},
        why=Doubt.AMBIGUOUS,
        note="our clock differs from Alibaba Cloud's: set it and ask again",
    ),
)


def _example(code: str, message: str = "***") -> str:
    return f'{{"RequestId":"r","HostId":"{_HOST}","Code":"{code}","Message":"{message}"}}'


_EXAMPLES = (
    Example(
        status=200,
        verdict="live",
        body='{"IdentityType":"RAMUser","AccountId":"1","RequestId":"r","PrincipalId":"2","UserId":"2",'
        '"Arn":"acs:ram::1:user/ci"}',
        constructed=True,
    ),
    Example(
        status=404,
        verdict="dead",
        how=How.DELETED,
        body=_example("InvalidAccessKeyId.NotFound", "Specified access key is not found."),
        source="https://github.com/honwen/aliyun-ddns-cli/issues/24",
    ),
    Example(
        status=403,
        verdict="dead",
        how=How.DISABLED,
        body=_example("InvalidAccessKeyId.Inactive", "Specified access key is disabled."),
        source=_ERRORS,
    ),
    Example(
        status=400,
        verdict="undecided",
        why=Doubt.AMBIGUOUS,
        body=_example("SignatureDoesNotMatch"),
        constructed=True,
    ),
    Example(
        status=400,
        verdict="undecided",
        why=Doubt.AMBIGUOUS,
        body=_example("InvalidTimeStamp.Expired"),
        constructed=True,
    ),
)


def _kind(id_: str, title: str, parts: tuple[str, ...], shape: tuple[ShapeSpec, ...], rules: tuple[str, ...]) -> Kind:
    return Kind(
        id=id_,
        title=title,
        category="cloud",
        docs="https://www.alibabacloud.com/help/en/ram/user-guide/create-an-accesskey-pair",
        console="https://ram.console.aliyun.com/manage/ak",
        parts=parts,
        shape=shape,
        probe="code",
        limits=Limits(rate=5, burst=5, concurrency=4),
        identity=IdentitySpec(principal="Arn", account="AccountId"),
        aliases={"betterleaks": rules, "kingfisher": tuple(f"betterleaks.{r}" for r in rules)} if rules else {},
        calls=(
            Call(
                kind=id_,
                method="GET",
                scheme="https",
                host=_HOST,
                path="/",
                reads="GetCallerIdentity says who asks, and needs no right",
                docs=_DOCS,
            ),
        ),
        rule=_RULES,
        example=_EXAMPLES,
    )


KINDS: tuple[Kind, ...] = (
    _kind(
        "alibaba",
        "Alibaba Cloud access key",
        ("secret", "id"),
        (
            ShapeSpec(part="id", prefix=("LTAI",), pattern="LTAI[A-Za-z0-9]{12,26}"),
            ShapeSpec(pattern="[A-Za-z0-9]{30}", context="rule"),
        ),
        (),
    ),
    _kind(
        "alibaba_sts",
        "Alibaba Cloud session key",
        ("secret", "id", "token"),
        (
            ShapeSpec(part="id", prefix=("STS.",), pattern=r"STS\.[A-Za-z0-9]{18,40}"),
            ShapeSpec(pattern="[A-Za-z0-9]{30,64}", context="rule"),
        ),
        ("alibaba-sts-access-key-secret",),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask STS who the key is."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    if not _ID.fullmatch(parts["id"]) or not all(_CLEAN.fullmatch(parts[p]) for p in kind.parts):
        return Undecided(Doubt.INCOMPLETE, note="the key id, secret or session token was cut out badly")
    query = sign(parts, datetime.now(UTC), uuid.uuid4().hex)
    base = (base_url or f"https://{_HOST}").rstrip("/")
    request = Request(
        call=kind.calls[0],
        url=Secret(f"{base}/?{query}"),
        shown=f"{base}/?Action=GetCallerIdentity",
        carrier="url",
    )
    secrets = [parts[p] for p in ("secret", "token") if p in parts] + [query.rpartition("Signature=")[2]]
    said, _ = await exchange(kind, request, door, secrets)
    return said


def sign(parts: Mapping[str, str], now: datetime, nonce: str) -> str:
    """Return the signed query of a GetCallerIdentity."""
    values = {
        "AccessKeyId": parts["id"],
        "Action": "GetCallerIdentity",
        "Format": "JSON",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": nonce,
        "SignatureVersion": "1.0",
        "Timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "Version": "2015-04-01",
    }
    if parts.get("token"):
        values["SecurityToken"] = parts["token"]
    query = "&".join(f"{_quote(k)}={_quote(values[k])}" for k in sorted(values))
    text = f"GET&%2F&{_quote(query)}"
    signature = hmac.digest(f"{parts['secret']}&".encode(), text.encode(), "sha1")
    return f"{query}&Signature={_quote(base64.b64encode(signature).decode())}"


def _quote(text: str) -> str:
    return quote(text, safe="-_.~")
