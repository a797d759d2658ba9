"""IAM access keys against a simulator that checks signatures: each method, repeated, with colleagues about."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aws_world import World
from botocore.client import BaseClient
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from hands import ANY_KEY

from rotators.clouds import aws as clouds
from rotators.clouds import aws_evidence
from rotators.clouds.aws_evidence import Maker, readable
from rotators.clouds.bounded import Gathering
from rotators.interface import Issuer, KeyRef, ProviderError, Roomy, State, Trouble
from rotators.issuers.aws_iam import AwsIam, make

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Server

    from verifier.model import Credential

RUN = "lapse-run-1"


@pytest.fixture
def world(ministack: Server, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(ministack, monkeypatch)


@pytest.fixture
def issuer(world: World) -> AwsIam:
    return make({})


def now() -> datetime:
    return datetime.now(UTC)


def trouble(code: str, status: int = 400) -> Trouble:
    with pytest.raises(ProviderError) as caught, clouds.aws("do it"):
        raise ClientError(
            {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Do"
        )  # type: ignore[typeddict-item]  # botocore types the whole reply; two fields are read
    return caught.value.trouble


def test_it_is_an_issuer(issuer: AwsIam) -> None:
    assert isinstance(issuer, Issuer)


@pytest.mark.parametrize("choice", [{"if_full": "perhaps"}, {"orphans": "guess"}])
def test_unknown_choices_are_refused(choice: dict[str, str]) -> None:
    with pytest.raises(ProviderError, match="is not one of") as caught:
        make(choice)
    assert caught.value.trouble is Trouble.REFUSED


def test_a_key_is_rotated_and_dies(world: World, issuer: AwsIam) -> None:
    user = world.user()
    old = world.key(user)
    ref = issuer.locate(old)
    assert (ref.id, ref.owner, ref.state, ref.never_used) == (old.parts["id"].reveal(), user, State.ACTIVE, True)
    assert [k.id for k in issuer.siblings(ref)] == [ref.id]
    new = issuer.mint(ref, RUN)
    assert new.ref.id == new.parts["id"].reveal() != ref.id
    assert new.ref.owner == user
    assert world.alive(new.parts)
    for _ in range(2):
        issuer.disable(ref)
    assert issuer.state(ref) is State.DISABLED
    assert not world.alive(old.parts)
    for _ in range(2):
        issuer.enable(ref)
    assert issuer.state(ref) is State.ACTIVE
    assert world.alive(old.parts)
    for _ in range(2):
        issuer.retire(ref)
    assert issuer.state(ref) is State.GONE
    assert not world.alive(old.parts)
    assert world.alive(new.parts)
    assert world.ids(user) == [new.ref.id]
    for act in (issuer.disable, issuer.enable):
        with pytest.raises(ProviderError) as caught:
            act(ref)
        assert caught.value.trouble is Trouble.GONE


def test_a_key_that_is_gone_is_not_located(world: World, issuer: AwsIam) -> None:
    user = world.user()
    old = world.key(user)
    world.client("iam").delete_access_key(UserName=user, AccessKeyId=old.parts["id"].reveal())
    for settings in ({}, {"user": user}):
        with pytest.raises(ProviderError) as caught:
            make(settings).locate(old)
        assert caught.value.trouble is Trouble.GONE


def test_the_key_of_a_deleted_user_is_gone(world: World, issuer: AwsIam) -> None:
    ref = KeyRef("AKIA" + "X" * 16, "nobody-of-that-name")
    assert issuer.state(ref) is State.GONE
    issuer.retire(ref)


@pytest.mark.parametrize("choice", ["stop", "delete_inactive_unused"])
def test_two_active_keys_leave_no_room(world: World, choice: str) -> None:
    user = world.user()
    ref = make({}).locate(world.key(user))
    world.key(user)
    before = world.ids(user)
    with pytest.raises(ProviderError, match="has 2 access keys already") as caught:
        make({"if_full": choice}).mint(ref, RUN)
    assert caught.value.trouble is Trouble.FULL
    assert world.ids(user) == before


def test_room_is_made_only_by_an_inactive_unused_key_and_only_when_told(world: World) -> None:
    user = world.user()
    old = world.key(user)
    ref = make({}).locate(old)
    told = make({"if_full": "delete_inactive_unused"})
    assert isinstance(told, Roomy)
    assert (told.makes_room, make({}).makes_room) == (True, False)
    assert told.room(ref) is None, "one key of two"
    spare = make({}).locate(world.key(user))
    refused(lambda: told.room(ref), spare.id)
    make({}).disable(spare)
    refused(lambda: make({}).room(ref), spare.id)
    found = told.room(ref)
    assert found is not None
    assert found.id == spare.id
    refused(lambda: told.mint(ref, RUN), "has 2 access keys already")
    assert set(world.ids(user)) == {ref.id, spare.id}, "a mint deletes nothing, told or not"
    told.retire(found)
    new = told.mint(ref, RUN)
    assert set(world.ids(user)) == {ref.id, new.ref.id}
    assert world.alive(old.parts)


def test_the_leaked_key_is_never_deleted_to_make_room(world: World) -> None:
    user = world.user()
    ref = make({}).locate(world.key(user))
    world.key(user)
    make({}).disable(ref)
    refused(lambda: make({"if_full": "delete_inactive_unused"}).room(ref), "has 2 access keys already")
    assert ref.id in world.ids(user)


def refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ProviderError, match=words) as caught:
        call()
    assert caught.value.trouble is Trouble.FULL


def test_nothing_is_decided_while_cloudtrail_may_be_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = world.user()
    issuer = make({})
    ref = issuer.locate(world.key(user))
    before, since = world.ids(user), now()
    lost = issuer.mint(ref, RUN).ref
    assert [k.id for k in issuer.orphans(ref, before, since, RUN)] == [lost.id], "a simulator here is never late"
    monkeypatch.setattr(AwsIam, "_sandbox", lambda _: False)
    with pytest.raises(ProviderError, match=f"does not say yet who made {lost.id}") as caught:
        issuer.orphans(ref, before, since, RUN)
    assert caught.value.trouble is Trouble.LATER
    assert caught.value.retry_after is not None
    assert [k.id for k in make({"orphans": "young"}).orphans(ref, before, since, RUN)] == [lost.id]
    monkeypatch.setattr("rotators.issuers.aws_iam.TRAIL", timedelta(0))  # a quarter of an hour later
    assert [k.id for k in issuer.orphans(ref, before, since, RUN)] == [lost.id]
    assert make({"orphans": "proven"}).orphans(ref, before, since, RUN) == []


@pytest.mark.parametrize(
    ("region", "home"),
    [
        ("eu-west-1", "us-east-1"),
        ("us-gov-east-1", "us-gov-west-1"),
        ("cn-northwest-1", "cn-north-1"),
        (None, "us-east-1"),
    ],
)
def test_iams_record_is_kept_at_home(world: World, region: str | None, home: str) -> None:
    assert clouds._home(region) == home
    settings = {"region": region} if region else {}
    assert clouds.Aws(settings).client("cloudtrail", home=True).meta.region_name == home


def test_orphans_are_new_young_and_unused(world: World, issuer: AwsIam) -> None:
    user = world.user()
    ref = issuer.locate(world.key(user))
    before, since = world.ids(user), now()
    assert issuer.orphans(ref, before, since, RUN) == []
    lost = issuer.mint(ref, RUN)
    assert [k.id for k in issuer.orphans(ref, before, since, RUN)] == [lost.ref.id]
    assert [k.id for k in issuer.orphans(ref, before, since + timedelta(seconds=50), RUN)] == [lost.ref.id]
    assert issuer.orphans(ref, before, since + timedelta(seconds=90), RUN) == []
    assert issuer.orphans(ref, world.ids(user), since, RUN) == []
    assert issuer.orphans(ref, [], since, RUN)[0].id == lost.ref.id
    assert make({"orphans": "proven"}).orphans(ref, before, since, RUN) == []


def used(key: str) -> dict[str, Any]:
    return {"UserName": "u", "AccessKeyLastUsed": {"LastUsedDate": now(), "ServiceName": "s3", "Region": "us-east-1"}}


def test_a_key_in_use_is_a_colleagues(world: World, issuer: AwsIam, monkeypatch: pytest.MonkeyPatch) -> None:
    user = world.user()
    ref = issuer.locate(world.key(user))
    before, since = world.ids(user), now()
    world.key(user)
    assert len(issuer.orphans(ref, before, since, RUN)) == 1
    plain = BaseClient._make_api_call

    def call(self: Any, name: str, args: Any) -> Any:  # the simulator keeps no last use
        return used("") if name == "GetAccessKeyLastUsed" else plain(self, name, args)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    assert issuer.orphans(ref, before, since, RUN) == []


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (f"Boto3/1 lapse/{RUN}", Maker.OURS),
        ("aws-cli/2", Maker.THEIRS),
        ("Boto3/1 lapse/lapse-run-2", Maker.THEIRS),
        (f"Boto3/1 lapse/{RUN}1", Maker.THEIRS),
    ],
)
def test_cloudtrail_names_the_maker(
    world: World, issuer: AwsIam, monkeypatch: pytest.MonkeyPatch, agent: str, expected: Maker
) -> None:
    user = world.user()
    ref = issuer.locate(world.key(user))
    before, since = world.ids(user), now()
    key = issuer.mint(ref, RUN).ref
    event = {"userAgent": agent, "responseElements": {"accessKey": {"accessKeyId": key.id}}}
    monkeypatch.setattr(aws_evidence, "_events", lambda *_: iter([{"responseElements": None}, event]))
    assert aws_evidence.maker(issuer._aws, key, since, RUN) is expected
    for settings in ({}, {"orphans": "proven"}):
        found = [k.id for k in make(settings).orphans(ref, before, since, RUN)]
        assert found == ([key.id] if expected is Maker.OURS else [])


def test_a_mint_carries_the_runs_mark(world: World, issuer: AwsIam) -> None:
    ref = issuer.locate(world.key(world.user()))
    issuer.mint(ref, "lapse-run-marked")
    trail = world.client("cloudtrail")
    found = trail.lookup_events(LookupAttributes=[{"AttributeKey": "AccessKeyId", "AttributeValue": "test"}])
    agents = [
        json.loads(e["CloudTrailEvent"])["userAgent"] for e in found["Events"]
    ]  # the simulator names no IAM event
    assert "lapse/lapse-run-marked" in agents[0].split()
    assert all("lapse-run-marked" not in agent for agent in agents[1:])


def test_the_leaked_key_never_rotates_itself(world: World, issuer: AwsIam) -> None:
    user = world.user()
    old = world.key(user)
    ref = issuer.locate(old)
    world.log_in(old.parts["id"].reveal(), old.parts["secret"].reveal())
    fresh = make({})
    for act in (
        lambda: fresh.locate(old),
        lambda: fresh.mint(ref, RUN),
        lambda: fresh.disable(ref),
        lambda: fresh.retire(ref),
    ):
        with pytest.raises(ProviderError, match="the leaked key itself") as caught:
            act()
        assert caught.value.trouble is Trouble.REFUSED
    assert world.ids(user) == [ref.id]


def test_nor_does_a_role_taken_on_with_it(world: World) -> None:
    user = world.user()
    old = world.key(user)
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
    iam = world.client("iam")
    role = iam.create_role(RoleName=f"r-{user}", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(
        RoleName=f"r-{user}",
        PolicyName="all",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        ),
    )
    assert make({"role": role}).locate(old).owner == user
    world.log_in(old.parts["id"].reveal(), old.parts["secret"].reveal())
    with pytest.raises(ProviderError, match="the leaked key itself"):
        make({"role": role}).locate(old)


def test_preflight_names_the_admin_and_what_it_lacks(world: World) -> None:
    facts = {f.about: f.text for f in make({}).preflight(ANY_KEY)}
    assert ":root" in facts["admin"] or "user/" in facts["admin"]
    weak = world.user(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["iam:SimulatePrincipalPolicy", "iam:GetUser", "iam:ListAccessKeys", "sts:*"],
                    "Resource": "*",
                }
            ],
        }
    )
    key = world.key(weak)
    world.log_in(key.parts["id"].reveal(), key.parts["secret"].reveal())
    with pytest.raises(ProviderError, match="iam:CreateAccessKey") as caught:
        make({}).preflight(ANY_KEY)
    assert caught.value.trouble is Trouble.DENIED
    blind = world.key(
        world.user({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "iam:*", "Resource": "*"}]})
    )
    world.log_in(blind.parts["id"].reveal(), blind.parts["secret"].reveal())
    facts = {f.about: f.text for f in make({}).preflight(ANY_KEY)}
    assert "not checked beforehand" in facts["rights"]


def test_an_admin_that_may_not_ask_is_told_so(world: World) -> None:
    old = world.key(world.user())
    blind = world.key(world.user(None))
    world.log_in(blind.parts["id"].reveal(), blind.parts["secret"].reveal())
    with pytest.raises(ProviderError, match="name its `user`") as caught:
        make({}).locate(old)
    assert caught.value.trouble is Trouble.DENIED


def test_evidence_says_whose_what_and_which_secrets(world: World, issuer: AwsIam) -> None:
    own = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "secretsmanager:Get*", "Resource": "arn:aws:secretsmanager:*:*:secret:db-*"},
            {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"},
        ],
    }
    user = world.user(own)
    iam = world.client("iam")
    group = f"g-{user}"
    iam.create_group(GroupName=group)
    iam.add_user_to_group(GroupName=group, UserName=user)
    shared = {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": ["p1", "p2"]},
    }
    iam.put_group_policy(GroupName=group, PolicyName="ps", PolicyDocument=json.dumps(shared))
    arn = iam.create_policy(PolicyName=f"p-{user}", PolicyDocument=json.dumps(own))["Policy"]["Arn"]
    iam.attach_user_policy(UserName=user, PolicyArn=arn)
    old = world.key(user)
    world.client("s3", old.parts["id"].reveal(), old.parts["secret"].reveal()).list_buckets()
    ref = issuer.locate(old)
    facts = {f.about: f.text for f in issuer.evidence(ref, now() - timedelta(hours=1))}
    assert f":user/{user}" in facts["owner"]
    assert facts["last used"].startswith("never")
    assert facts["other keys"] == "none"
    assert facts["groups"] == group
    assert facts["policies"] == f"{arn}, own (inline)"
    assert "secret:db-* by own" in facts["may read secrets"]
    assert f"p2 by {group}/ps" in facts["may read secrets"]
    assert f"by p-{user}" in facts["may read secrets"]
    assert "ListBuckets" in facts["did since the leak"]
    assert "127.0.0.1" in facts["did since the leak"]
    assert old.parts["secret"].reveal() not in repr(facts)


def test_evidence_never_blocks(world: World, issuer: AwsIam, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = world.key(world.user(None))
    world.log_in(blind.parts["id"].reveal(), blind.parts["secret"].reveal())
    facts = make({}).evidence(KeyRef("AKIA" + "X" * 16, "someone"), None)
    assert len(facts) == 7
    assert all("not known" in f.text for f in facts)
    monkeypatch.setattr(aws_evidence, "Gathering", lambda: Gathering(0))
    assert {f.text for f in make({}).evidence(KeyRef("AKIA" + "X" * 16, "someone"), None)} == {
        "not read: the time for evidence was up"
    }


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [
        ("*", "*", ["*"]),
        ("SecretsManager:GetSecretValue", ["a", "b"], ["a", "b"]),
        ("ssm:Get*", "p", ["p"]),
        ("s3:GetObject", "*", []),
        ("secretsmanager:List*", "*", []),
    ],
)
def test_readable_secrets(action: str, resource: object, expected: list[str]) -> None:
    assert readable({"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}) == expected
    assert readable({"Statement": {"Effect": "Deny", "Action": action, "Resource": resource}}) == []
    assert readable({"Statement": {"Effect": "Allow", "NotAction": action, "Resource": resource}}) == []
    assert readable({}) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("AccessDenied", Trouble.DENIED),
        ("ExpiredToken", Trouble.DENIED),
        ("InvalidClientTokenId", Trouble.DENIED),
        ("Throttling", Trouble.LATER),
        ("LimitExceeded", Trouble.FULL),
        ("NoSuchEntity", Trouble.GONE),
        ("EntityAlreadyExists", Trouble.CONFLICT),
        ("MalformedPolicyDocument", Trouble.REFUSED),
    ],
)
def test_awss_words_are_understood(code: str, expected: Trouble) -> None:
    assert trouble(code) is expected
    assert trouble("Nonsense", 503) is Trouble.LATER


def test_expired_login_and_lost_lines_are_said_plainly() -> None:
    for error, kind, words in (
        (NoCredentialsError(), Trouble.DENIED, "log in again"),
        (EndpointConnectionError(endpoint_url="https://x"), Trouble.LATER, "cannot be reached"),
        (ReadTimeoutError(endpoint_url="https://x"), Trouble.LATER, "cannot be reached"),
    ):
        with pytest.raises(ProviderError, match=words) as caught, clouds.aws("do it"):
            raise error
        assert caught.value.trouble is kind
    with pytest.raises(ProviderError, match="log in again"), clouds.aws("do it"):
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "m"}}, "Do")
    with pytest.raises(ValueError, match="ours"), clouds.aws("do it"):
        raise ValueError("ours")


def test_no_login_at_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    old: Credential = world.key(world.user())
    for settings in ({}, {"profile": "no-such-profile"}):
        with pytest.raises(ProviderError, match="log in again") as caught:
            make(settings).locate(old)
        assert caught.value.trouble is Trouble.DENIED


def test_nothing_listens(world: World) -> None:
    ref = KeyRef("AKIA" + "X" * 16, "someone")
    with pytest.raises(ProviderError) as caught:
        make({"endpoint": "http://127.0.0.1:1"}).mint(ref, RUN)
    assert caught.value.trouble is Trouble.LATER


def test_a_second_key_made_meanwhile_leaves_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = world.user()
    way = make({})
    ref = way.locate(world.key(user))
    before = world.ids(user)
    plain = BaseClient._make_api_call

    def call(self: Any, name: str, args: Any) -> Any:  # the simulator has no limit, IAM has
        if name == "CreateAccessKey":
            raise ClientError({"Error": {"Code": "LimitExceeded", "Message": "Cannot exceed quota"}}, name)
        return plain(self, name, args)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    with pytest.raises(ProviderError, match="has 2 access keys already") as caught:
        way.mint(ref, RUN)
    assert caught.value.trouble is Trouble.FULL
    assert world.ids(user) == before


def test_a_denied_step_is_told_and_changes_nothing(world: World) -> None:
    user = world.user()
    ref = make({}).locate(world.key(user))
    blind = world.key(world.user(None))
    world.log_in(blind.parts["id"].reveal(), blind.parts["secret"].reveal())
    way = make({})
    acts: tuple[Callable[[], object], ...] = (
        lambda: way.retire(ref),
        lambda: way.disable(ref),
        lambda: way.state(ref),
        lambda: way.siblings(ref),
    )
    for act in acts:
        with pytest.raises(ProviderError) as caught:
            act()
        assert caught.value.trouble is Trouble.DENIED
    assert world.ids(user) == [ref.id]
