"""AWS access keys, long-lived (`AKIA…`) and temporary (`ASIA…`): who are you, asked of STS.

botocore signs, our door sends. `sts:GetCallerIdentity` needs no permission and cannot be denied.
https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from verifier.asking import exchange, sweep
from verifier.exchange import Call, Request
from verifier.model import Arrival, Doubt, How, Identity, Live, Privilege, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Amazon Web Services"
_DOCS = "https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html"
_ERRORS = "https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"
_BODY = "Action=GetCallerIdentity&Version=2011-06-15"
_TYPE = "application/x-www-form-urlencoded; charset=utf-8"
_SHAPE = re.compile(r"[A-Z0-9]{16,128}")
_SECRET = re.compile(r"[!-~]{16,256}")

# One region that nobody can switch off for each partition: an opt-in region calls live keys invalid.
PARTITIONS: tuple[tuple[str, str], ...] = (
    ("us-east-1", "sts.us-east-1.amazonaws.com"),
    ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
    ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
)
"""Signing region and STS host of the partitions aws, aws-us-gov and aws-cn. The isolated ones cannot be reached."""


def _error(code: str, message: str) -> str:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>x</RequestId></ErrorResponse>"
    )


_XML = {"content-type": "text/xml"}
_ALIVE = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Arn>arn:aws:iam::123456789012:user/Alice</Arn><UserId>XXXX</UserId><Account>123456789012</Account>"
    "</GetCallerIdentityResult></GetCallerIdentityResponse>"
)
_RULES = (
    Rule(
        verdict="live",
        status=200,
        type="xml",
        text="<GetCallerIdentityResult>",
        note="STS names its owner",
        source=_DOCS,
    ),
    Rule(
        verdict="undecided",
        status=(400, 403),
        type="xml",
        text=("Signature expired", "Signature not yet current", "<Code>RequestExpired</Code>"),
        why=Doubt.AMBIGUOUS,
        note="our clock differs from Amazon's: set it and ask again",
        confidence=Confidence.OBSERVED,
        source="https://github.com/aws/aws-cli/issues/6676",
    ),
    Rule(
        verdict="undecided",
        status=403,
        type="xml",
        text=("<Code>SignatureDoesNotMatch</Code>", "<Code>IncompleteSignature</Code>"),
        why=Doubt.AMBIGUOUS,
        note="the key id exists, but this secret is not its own: the id may be live with another secret",
        source=_ERRORS,
    ),
    Rule(
        verdict="undecided",
        status=403,
        type="xml",
        text="<Code>MissingAuthenticationToken</Code>",
        why=Doubt.INCOMPLETE,
        note="no signature arrived",
        source=_ERRORS,
    ),
    Rule(
        verdict="undecided",
        status=(400, 403),
        type="xml",
        text=("<Code>Throttling</Code>", "<Code>ThrottlingException</Code>"),
        why=Doubt.THROTTLED,
        note="too many requests",
        source=_ERRORS,
    ),
    Rule(
        verdict="dead",
        status=(400, 403),
        type="xml",
        text=("<Code>ExpiredToken</Code>", "<Code>ExpiredTokenException</Code>"),
        how=How.EXPIRED,
        arrival=Arrival.PROVEN,
        note="the session has ended",
        source=_ERRORS,
    ),
    Rule(
        verdict="dead",
        status=403,
        type="xml",
        text="<Code>InvalidClientTokenId</Code>",
        how=How.REJECTED,
        arrival=Arrival.PROVEN,
        note="the key id is not known, or the key is inactive",
        source=_ERRORS,
    ),
    Rule(
        verdict="restricted",
        status=(400, 401, 403),
        type="xml",
        text=("<Code>OptInRequired</Code>", "<Code>SubscriptionRequiredException</Code>"),
        note="authenticated, but the account has not signed up",
        source=_ERRORS,
    ),
    Rule(
        verdict="restricted",
        status=403,
        type="xml",
        text=("<Code>AccessDenied</Code>", "<Code>AccessDeniedException</Code>"),
        header={"x-amzn-requestid": "-"},  # S3 and CloudFront say AccessDenied to everybody, without this header
        note="authenticated, but a policy stands in the way",
        source=_ERRORS,
    ),
)
_EXAMPLES = (
    Example(status=200, verdict="live", body=_ALIVE, headers=_XML, source=_DOCS),
    Example(
        status=403,
        verdict="dead",
        how=How.REJECTED,
        headers=_XML,
        body=_error("InvalidClientTokenId", "The security token included in the request is invalid."),
        source="https://github.com/aws-azure-login/aws-azure-login/issues/251",
    ),
    Example(
        status=403,
        verdict="dead",
        how=How.EXPIRED,
        headers=_XML,
        body=_error("ExpiredToken", "The security token included in the request is expired"),
        source="https://github.com/pulumi/pulumi-aws/issues/2560",
    ),
    Example(
        status=403,
        verdict="undecided",
        why=Doubt.AMBIGUOUS,
        headers=_XML,
        body=_error("SignatureDoesNotMatch", "Signature expired: 20220127T001427Z is now earlier"),
        source="https://github.com/aws/aws-cli/issues/6676",
    ),
    Example(
        status=403,
        verdict="undecided",
        why=Doubt.AMBIGUOUS,
        headers=_XML,
        body=_error("SignatureDoesNotMatch", "The request signature we calculated does not match the signature"),
        constructed=True,
    ),
    Example(
        status=403,
        verdict="undecided",
        why=Doubt.INCOMPLETE,
        headers=_XML,
        body=_error("MissingAuthenticationToken", "Request is missing Authentication Token"),
        constructed=True,
    ),
    Example(
        status=400,
        verdict="undecided",
        why=Doubt.THROTTLED,
        headers=_XML,
        body=_error("Throttling", "Rate exceeded"),
        constructed=True,
    ),
    Example(
        status=401,
        verdict="restricted",
        headers=_XML,
        body=_error("OptInRequired", "The AWS Access Key Id needs a subscription for the service"),
        constructed=True,
    ),
    Example(
        status=403,
        verdict="restricted",
        headers={**_XML, "x-amzn-requestid": "01234567-89ab-cdef-0123-456789abcdef"},
        body=_error("AccessDenied", "User is not authorized to perform: sts:GetCallerIdentity with an explicit deny"),
        constructed=True,
    ),
)


def _kind(name: str, title: str, parts: tuple[str, ...]) -> Kind:
    return Kind(
        id=name,
        title=title,
        category="cloud",
        docs="https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html",
        console="https://console.aws.amazon.com/iam/home#/security_credentials",
        parts=parts,
        optional=("region", "account"),
        probe="code",
        limits=Limits(rate=10, burst=10, concurrency=8),
        calls=tuple(
            Call(
                kind=name,
                method="POST",
                scheme="https",
                host=host,
                path="/",
                reads="sts:GetCallerIdentity names the key's owner and changes nothing; the API takes it by POST",
                docs=_DOCS,
            )
            for _, host in PARTITIONS
        ),
        rule=_RULES,
        example=_EXAMPLES,
    )


KINDS: tuple[Kind, ...] = (
    _kind("aws_akia", "AWS access key", ("secret", "id")),
    _kind("aws_asia", "AWS temporary access key", ("secret", "id", "token")),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask the STS of every partition that the key could belong to; a `region` part tells which that is."""
    parts = {name: value.reveal() for name, value in credential.parts.items()}
    token = parts.get("token", "")
    if not _SHAPE.fullmatch(parts["id"]) or not _SECRET.fullmatch(parts["secret"]) or not _clean(token):
        return Undecided(Doubt.INCOMPLETE, note="the key id, secret or session token was cut out badly")
    if kind.id == "aws_asia" and not token:
        return Undecided(Doubt.INCOMPLETE, note="needs token, which the report does not hold")
    region = parts.get("region", "").strip().lower()
    if region.startswith(("us-iso", "eu-isoe")):
        return Undecided(Doubt.UNSUPPORTED, note="the isolated AWS partitions cannot be reached from here")
    if base_url is not None:
        place = (region or PARTITIONS[0][0], base_url.rstrip("/"))
        return await _ask(kind, kind.calls[0], place, parts, door)
    return await sweep(
        partial(_ask, kind, call, (signing, f"https://{call.host}"), parts, door)
        for call, (signing, _) in zip(kind.calls, PARTITIONS, strict=True)
        if not region or _partition(region) == _partition(signing)
    )


def _partition(region: str) -> str:
    return next((p for p in ("us-gov-", "cn-") if region.startswith(p)), "")


def _clean(token: str) -> bool:
    return token.isascii() and not re.search(r"[\x00-\x20\x7f]", token)


async def _ask(kind: Kind, call: Call, place: tuple[str, str], parts: Mapping[str, str], door: Door) -> Verdict:
    region, base = place
    url = f"{base}/"
    headers = sign(url, region, parts["id"], parts["secret"], parts.get("token"))
    signature = headers["Authorization"].rpartition("Signature=")[2]
    request = Request(
        call=call,
        url=Secret(url),
        shown=f"{url}?Action=GetCallerIdentity",
        headers={name: Secret(value) for name, value in headers.items()},
        body=Secret(_BODY),
        carrier="authorization",
    )
    secrets = [s for s in (parts["secret"], parts.get("token"), signature) if s]
    said, reply = await exchange(kind, request, door, secrets)
    if isinstance(said, Live) and reply is not None:
        return replace(said, identity=identity(reply.body))
    return said


def sign(url: str, region: str, key_id: str, secret: str, token: str | None) -> dict[str, str]:
    """Return the headers of a signed GetCallerIdentity, Signature Version 4."""
    from botocore.auth import SigV4Auth  # noqa: PLC0415  # 0.3 s to import; only where there is an AWS key
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415  # slow to import
    from botocore.credentials import Credentials  # noqa: PLC0415  # slow to import

    request = AWSRequest("POST", url, data=_BODY, headers={"Content-Type": _TYPE})
    SigV4Auth(Credentials(key_id, secret, token or None), "sts", region).add_auth(request)
    return {str(name): str(value) for name, value in request.headers.items()}


def identity(body: bytes) -> Identity:
    """Read who the key is from STS's answer. An account's root user is its administrator."""
    said = {
        name: m.group(1).decode("utf-8", "replace")[:200]
        for name in ("Arn", "Account")
        if (m := re.search(rb"<%b>([^<]{1,2048})</%b>" % (name.encode(), name.encode()), body))
    }
    arn = said.get("Arn")
    root = arn is not None and arn.endswith(":root")
    return Identity(
        principal=arn, account=said.get("Account"), privilege=Privilege.ADMIN if root else Privilege.UNKNOWN
    )
