"""Sessions of a leaked key die by a deny on older credentials; the keys go on. Against the simulator."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from aws_world import ALLOW, World
from botocore.exceptions import ClientError

from rotators.interface import KeyRef, ProviderError, Quarantine, SessionKiller, Trouble
from rotators.sessions.aws_deny import make
from rotators.step import Done

if TYPE_CHECKING:
    from servers import Server

    from verifier.model import Credential


@pytest.fixture
def world(ministack: Server, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(ministack, monkeypatch)


def may(world: World, session: dict[str, str]) -> bool:
    s3 = world.client("s3", session["AccessKeyId"], session["SecretAccessKey"], session.get("SessionToken"))
    try:
        s3.list_buckets()
    except ClientError as e:
        if e.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


def as_key(old: Credential) -> dict[str, str]:
    return {"AccessKeyId": old.parts["id"].reveal(), "SecretAccessKey": old.parts["secret"].reveal()}


def later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def test_role_sessions_die_new_ones_do_not_and_it_is_taken_back(world: World) -> None:
    user = world.user()
    old = world.key(user)
    ref = KeyRef(old.parts["id"].reveal(), user)
    iam, role = world.client("iam"), f"role-{user}"
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    arn = iam.create_role(
        RoleName=role, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]["Arn"]
    iam.put_role_policy(RoleName=role, PolicyName="all", PolicyDocument=json.dumps(ALLOW))
    sts = world.client("sts", *as_key(old).values())
    session = sts.assume_role(RoleArn=arn, RoleSessionName="leaky")["Credentials"]
    iam.delete_access_key(UserName=user, AccessKeyId=ref.id)
    assert may(world, session)  # the session outlives its key
    killer = make({"roles": f"{role}, "})
    assert isinstance(killer, SessionKiller)
    for _ in range(2):
        done = killer.kill(old, ref, later())
        assert isinstance(done, Done)
        assert "possible_until" not in done.output
        assert not may(world, session)
    name = done.output["policy"]
    assert iam.list_role_policies(RoleName=role)["PolicyNames"] == ["all", name]
    for _ in range(2):
        assert isinstance(killer.undo(old, ref), Done)
        assert may(world, session)
    assert iam.list_user_policies(UserName=user)["PolicyNames"] == ["own"]
    assert iam.list_role_policies(RoleName=role)["PolicyNames"] == ["all"]


def test_long_lived_keys_go_on_and_roles_may_be_left(world: World) -> None:
    user = world.user()
    old, new = world.key(user), world.key(user)
    moment = later()
    done = make({}).kill(old, KeyRef(old.parts["id"].reveal(), user), moment)
    assert isinstance(done, Done)
    assert done.output["possible_until"] == (moment + timedelta(hours=12)).isoformat()
    assert may(world, as_key(new))


def test_quarantine_stops_everything_until_undone(world: World) -> None:
    user = world.user()
    old = world.key(user)
    ref = KeyRef(old.parts["id"].reveal(), user)
    killer = make({"scope": "everything"})
    killer.kill(old, ref, later())
    assert not may(world, as_key(old))
    killer.undo(old, ref)
    assert may(world, as_key(old))


def test_a_quarantine_is_narrowed_for_the_new_key(world: World) -> None:
    user = world.user()
    old, new = world.key(user), world.key(user)
    ref = KeyRef(old.parts["id"].reveal(), user)
    session = world.client("sts", *as_key(old).values()).get_session_token()["Credentials"]
    killer = make({"scope": "everything"})
    assert isinstance(killer, Quarantine)
    assert killer.stops_new
    assert not make({}).stops_new
    assert not killer.shut(old, ref)
    killer.kill(old, ref, later())
    assert not may(world, as_key(new))
    for _ in range(2):
        assert isinstance(killer.lift(old, ref, later(), later()), Done)
        assert may(world, as_key(new))
        assert not may(world, session), "what the old key had opened stays shut"
    assert isinstance(killer.undo(old, ref), Done)


def test_what_cannot_be_done_is_said(world: World) -> None:
    with pytest.raises(ProviderError, match="neither sessions nor everything"):
        make({"scope": "some"})
    old = world.key(world.user())
    nobody = KeyRef(old.parts["id"].reveal(), "nobody-of-that-name")
    with pytest.raises(ProviderError) as caught:
        make({}).kill(old, nobody, later())
    assert caught.value.trouble is Trouble.GONE
    assert isinstance(make({"roles": "no-such-role"}).undo(old, nobody), Done)
    blind = world.key(world.user(None))
    world.log_in(*as_key(blind).values())
    for act in (lambda: make({}).kill(old, nobody, later()), lambda: make({}).undo(old, nobody)):
        with pytest.raises(ProviderError) as caught:
            act()
        assert caught.value.trouble is Trouble.DENIED
    world.log_in(*as_key(old).values())
    with pytest.raises(ProviderError, match="leaked key itself"):
        make({}).kill(old, nobody, later())
