"""AWS keys: against a simulator that checks signatures, and against the replies of each partition."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from makers import aws_id, aws_secret
from support import ToldDoor, credential, real_door, reply

from verifier.exchange import Trouble
from verifier.model import Arrival, Dead, Doubt, How, Live, Privilege, Undecided
from verifier.providers import aws as provider

if TYPE_CHECKING:
    from servers import Server

    from verifier.egress import Exchange
    from verifier.exchange import Reply, Request
    from verifier.model import Verdict
    from verifier.spec import Kind

AKIA, ASIA = provider.KINDS
DEAD = provider._error("InvalidClientTokenId", "The security token included in the request is invalid.")


def client(server: Server, service: str, key: str = "test", secret: str = "test") -> Any:
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


@pytest.fixture(scope="module")
def user(ministack: Server) -> dict[str, str]:
    iam = client(ministack, "iam")
    iam.create_user(UserName="leaky")
    key = iam.create_access_key(UserName="leaky")["AccessKey"]
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="leaky", PolicyName="p", PolicyDocument=json.dumps(allow))
    return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


async def ask(server: Server, kind: Kind = AKIA, seen: list[Exchange] | None = None, **parts: str) -> Verdict:
    async with real_door(kind, base_url=server.url, seen=seen) as door:
        return await provider.probe(kind, credential(kind.id, **parts), door, base_url=server.url)


async def test_a_live_key_says_whose_it_is(ministack: Server, user: dict[str, str]) -> None:
    seen: list[Exchange] = []
    verdict = await ask(ministack, seen=seen, **user)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal is not None
    assert verdict.identity.principal.endswith(":user/leaky")
    assert verdict.identity.account == verdict.identity.principal.split(":")[4]
    assert verdict.evidence.arrival is Arrival.PROVEN
    assert verdict.evidence.route == "base"
    assert user["secret"] not in repr(verdict)
    assert [(e.call.method, e.status) for e in seen] == [("POST", 200)]


async def test_a_deactivated_key_is_dead_and_lives_again(ministack: Server) -> None:
    iam = client(ministack, "iam")
    iam.create_user(UserName="toggled")
    key = iam.create_access_key(UserName="toggled")["AccessKey"]
    parts = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    for status, expected in (("Inactive", Dead), ("Active", Live)):
        iam.update_access_key(UserName="toggled", AccessKeyId=key["AccessKeyId"], Status=status)
        assert isinstance(await ask(ministack, **parts), expected)
    iam.delete_access_key(UserName="toggled", AccessKeyId=key["AccessKeyId"])
    verdict = await ask(ministack, **parts)
    assert isinstance(verdict, Dead)
    assert verdict.how is How.REJECTED


async def test_the_wrong_secret_of_a_real_id_is_not_dead(ministack: Server, user: dict[str, str]) -> None:
    verdict = await ask(ministack, id=user["id"], secret=aws_secret("another"))
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


async def test_a_session_needs_its_token(ministack: Server, user: dict[str, str]) -> None:
    session = client(ministack, "sts", user["id"], user["secret"]).get_session_token()["Credentials"]
    parts = {"id": session["AccessKeyId"], "secret": session["SecretAccessKey"], "token": session["SessionToken"]}
    verdict = await ask(ministack, ASIA, **parts)
    assert isinstance(verdict, Live), verdict
    assert parts["token"] not in repr(verdict)
    missing = await ask(ministack, ASIA, id=parts["id"], secret=parts["secret"], token="")
    assert isinstance(missing, Undecided)
    assert missing.why is Doubt.INCOMPLETE


# ── partitions ─────────────────────────────────────────────────────────────────────────────────────────


def told(**by_partition: Reply | Trouble) -> ToldDoor:
    """Answer by host: `aws`, `gov`, `cn`; whoever is not named calls the key dead."""

    def answer(request: Request) -> Reply | Trouble:
        host = request.call.host
        name = "cn" if host.endswith(".cn") else "gov" if "gov" in host else "aws"
        return by_partition.get(name, reply(403, DEAD, "text/xml", host))

    return ToldDoor(answer)


def key(**more: str) -> dict[str, str]:
    return {"id": aws_id(), "secret": aws_secret()} | more


async def test_dead_takes_every_partition() -> None:
    door = told()
    verdict = await provider.probe(AKIA, credential("aws_akia", **key()), door)
    assert isinstance(verdict, Dead)
    assert [r.call.host for r in door.requests] == [host for _, host in provider.PARTITIONS]
    assert all(r.call in AKIA.manifest() for r in door.requests)


@pytest.mark.parametrize("gone", ["gov", "cn"])
async def test_a_partition_that_cannot_be_asked_leaves_it_undecided(gone: str) -> None:
    door = told(**{gone: Trouble(Doubt.UNREACHABLE, "down")})
    assert isinstance(await provider.probe(AKIA, credential("aws_akia", **key()), door), Undecided)


async def test_live_in_one_partition_is_live() -> None:
    body = provider._ALIVE.replace("arn:aws:", "arn:aws-cn:").replace("user/Alice", "root")
    door = told(cn=reply(200, body, "text/xml"), aws=Trouble(Doubt.UNREACHABLE, "down"))
    verdict = await provider.probe(AKIA, credential("aws_akia", **key()), door)
    assert isinstance(verdict, Live)
    assert verdict.identity is not None
    assert verdict.identity.principal == "arn:aws-cn:iam::123456789012:root"
    assert verdict.identity.privilege is Privilege.ADMIN


@pytest.mark.parametrize(
    ("region", "hosts"),
    [
        ("eu-west-3", ["sts.us-east-1.amazonaws.com"]),
        ("cn-northwest-1", ["sts.cn-north-1.amazonaws.com.cn"]),
        ("us-gov-east-1", ["sts.us-gov-west-1.amazonaws.com"]),
    ],
)
async def test_a_region_tells_the_partition(region: str, hosts: list[str]) -> None:
    door = told()
    verdict = await provider.probe(AKIA, credential("aws_akia", **key(region=region)), door)
    assert isinstance(verdict, Dead)
    assert [r.call.host for r in door.requests] == hosts


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (key(region="us-iso-east-1"), Doubt.UNSUPPORTED),
        (key(id="AKIA short"), Doubt.INCOMPLETE),
        (key(secret="with a blank in the middle"), Doubt.INCOMPLETE),
        (key(token="two\nlines"), Doubt.INCOMPLETE),
    ],
)
async def test_what_cannot_be_asked_makes_no_call(parts: dict[str, str], why: Doubt) -> None:
    door = told()
    verdict = await provider.probe(AKIA, credential("aws_akia", **parts), door)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why
    assert not door.requests


async def test_the_signature_is_kept_out_of_evidence() -> None:
    def echo(request: Request) -> Reply:
        said = request.headers["Authorization"].reveal()
        return reply(403, provider._error("SignatureDoesNotMatch", f"does not match: {said}"), "text/xml")

    verdict = await provider.probe(AKIA, credential("aws_akia", **key(region="eu-west-1")), ToldDoor(echo))
    assert isinstance(verdict, Undecided)
    assert verdict.evidence is not None
    assert "does not match" in verdict.evidence.excerpt
    assert "[redacted]" in verdict.evidence.excerpt
