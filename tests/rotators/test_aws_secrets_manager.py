"""Secrets Manager as store and as consumer, against the simulator: compare-and-set, markers, restoring."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from aws_world import World

from rotators.clouds import aws_secrets
from rotators.consumers import aws_version_stage
from rotators.interface import Consumer, ProviderError, Store, Stored, Trouble
from rotators.step import Done
from rotators.stores import aws_secrets_manager
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servers import Server

RUN, OTHER = "run-1", "run-2"


@pytest.fixture
def world(ministack: Server, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(ministack, monkeypatch)


@pytest.fixture
def name(world: World) -> str:
    return f"db-{uuid4().hex[:10]}"


def store(name: str, **settings: str) -> aws_secrets_manager.AwsSecretsManager:
    return aws_secrets_manager.make({"secret": name, **settings})


def secrets(**fields: str) -> dict[str, Secret]:
    return {k: Secret(v) for k, v in fields.items()}


def plain(fields: Mapping[str, Secret]) -> dict[str, str]:
    return {k: v.reveal() for k, v in fields.items()}


def served(world: World, name: str) -> str:
    return str(world.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def test_they_are_what_they_say(name: str) -> None:
    assert isinstance(store(name), Store)
    assert isinstance(aws_version_stage.make({"secret": name}), Consumer)
    with pytest.raises(ProviderError, match="needs `secret`"):
        aws_secrets_manager.make({})
    with pytest.raises(ProviderError, match="neither json nor plain"):
        store(name, format="xml").put(secrets(a="1"), None, RUN)


def test_a_first_value_creates_the_secret_and_undo_takes_it_away(world: World, name: str) -> None:
    s = store(name)
    assert s.current() is None
    put = s.put(secrets(user="u", password="p1"), None, RUN)
    assert s.current() == put == Stored(put.version, RUN)
    assert plain(s.fetch()) == {"user": "u", "password": "p1"}
    with pytest.raises(ProviderError):
        s.restore(None, OTHER)
    for _ in range(2):
        assert s.restore(None, RUN).run == RUN
    assert s.current() is None


def test_put_goes_over_what_was_expected_and_keeps_other_fields(world: World, name: str) -> None:
    sm = world.client("secretsmanager")
    first = sm.create_secret(Name=name, SecretString=json.dumps({"host": "h", "port": 5432, "password": "old"}))
    s = store(name)
    before = s.current()
    assert before == Stored(first["VersionId"], "")
    put = s.put(secrets(password="new"), before, RUN)
    assert plain(s.fetch()) == {"host": "h", "port": "5432", "password": "new"}
    assert plain(s.fetch(first["VersionId"]))["password"] == "old"
    assert s.current() == put
    for _ in range(2):
        back = s.restore(first["VersionId"], RUN)
        assert back == Stored(first["VersionId"], "")
    assert json.loads(served(world, name))["password"] == "old"


def test_a_colleagues_write_is_never_written_over(world: World, name: str) -> None:
    s = store(name)
    put = s.put(secrets(a="1"), None, RUN)
    world.client("secretsmanager").put_secret_value(SecretId=name, SecretString='{"a":"colleague"}')
    for expected in (put, None, Stored("f" * 32)):
        with pytest.raises(ProviderError, match="somebody else changed") as caught:
            s.put(secrets(a="2"), expected, RUN)
        assert caught.value.trouble is Trouble.CONFLICT
    with pytest.raises(ProviderError) as caught:
        s.restore(put.version, RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert served(world, name) == '{"a":"colleague"}'


def test_a_race_lost_between_look_and_write_changes_nothing(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = store(name)
    put = s.put(secrets(a="1"), None, RUN)
    write = aws_secrets.Versions.write

    def slow(self: aws_secrets.Versions, fields: Mapping[str, Secret], run: str, over: str | None) -> str:
        made = write(self, fields, run, over)
        world.client("secretsmanager").put_secret_value(SecretId=name, SecretString='{"a":"colleague"}')
        return made

    monkeypatch.setattr(aws_secrets.Versions, "write", slow)
    with pytest.raises(ProviderError) as caught:
        s.put(secrets(a="2"), put, OTHER)
    assert caught.value.trouble is Trouble.CONFLICT
    assert served(world, name) == '{"a":"colleague"}'
    labels = world.client("secretsmanager").describe_secret(SecretId=name)["VersionIdsToStages"]
    assert f"lapse/{OTHER}" not in [label for found in labels.values() for label in found]


def test_a_secret_created_in_the_meantime_is_left_alone(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = store(name)
    write = aws_secrets.Versions.labels
    looks: list[object] = []

    def look(self: aws_secrets.Versions) -> Mapping[str, list[str]] | None:
        found = write(self)
        looks.append(found)
        if len(looks) == 2:  # the look before creating
            world.client("secretsmanager").create_secret(Name=name, SecretString='{"a":"colleague"}')
        return found

    monkeypatch.setattr(aws_secrets.Versions, "labels", look)
    with pytest.raises(ProviderError) as caught:
        s.put(secrets(a="2"), None, RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert served(world, name) == '{"a":"colleague"}'


def test_a_crash_between_write_and_move_is_repeatable(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s = store(name)
    first = s.put(secrets(a="1"), None, OTHER)

    class KilledError(Exception):
        pass

    def die(*_: object) -> None:
        raise KilledError

    move = aws_secrets.Versions.move
    monkeypatch.setattr(aws_secrets.Versions, "move", die)
    with pytest.raises(KilledError):
        s.put(secrets(a="2"), first, RUN)
    monkeypatch.setattr(aws_secrets.Versions, "move", move)
    assert s.current() == first
    assert plain(s.fetch()) == {"a": "1"}
    again = s.put(secrets(a="3"), first, RUN)
    assert s.current() == again == Stored(again.version, RUN)
    assert plain(s.fetch()) == {"a": "3"}


def test_a_crash_before_the_first_version_is_labelled_still_tells_whose_it_is(world: World, name: str) -> None:
    tag = {"Key": "lapse-run", "Value": RUN}
    made = world.client("secretsmanager").create_secret(Name=name, SecretString='{"a":"1"}', Tags=[tag])
    assert store(name).current() == Stored(made["VersionId"], RUN)
    world.client("secretsmanager").put_secret_value(SecretId=name, SecretString='{"a":"colleague"}')
    now = store(name).current()
    assert now is not None
    assert now.run == ""


def test_plain_text(world: World, name: str) -> None:
    s = store(name, format="plain", field="token")
    put = s.put(secrets(anything="t1"), None, RUN)
    assert served(world, name) == "t1"
    assert plain(s.fetch()) == {"token": "t1"}
    s.put(secrets(token="t2"), put, RUN)
    assert served(world, name) == "t2"
    with pytest.raises(ProviderError, match="one field"):
        s.put(secrets(a="1", b="2"), s.current(), RUN)
    with pytest.raises(ProviderError, match="no JSON object") as caught:
        store(name).fetch()
    assert "t2" not in str(caught.value)


def test_what_is_scheduled_for_deletion_or_was_empty_is_for_a_person(world: World, name: str) -> None:
    sm = world.client("secretsmanager")
    sm.create_secret(Name=name, SecretString="{}")
    s = store(name)
    s.put(secrets(a="1"), s.current(), RUN)
    with pytest.raises(ProviderError, match="by hand"):
        s.restore(None, RUN)
    sm.delete_secret(SecretId=name)
    with pytest.raises(ProviderError, match="scheduled for deletion") as caught:
        s.current()
    assert caught.value.trouble is Trouble.REFUSED


def test_a_reader_gets_the_new_version_by_its_label(world: World, name: str) -> None:
    sm = world.client("secretsmanager")
    first = sm.create_secret(Name=name, SecretString='{"a":"old","b":"kept"}')["VersionId"]
    consumer = aws_version_stage.make({"secret": name})
    assert consumer.pushed(RUN) is False
    done = consumer.push(secrets(a="new"), RUN)
    assert isinstance(done, Done)
    assert done.output["former"] == first
    assert json.loads(served(world, name)) == {"a": "new", "b": "kept"}
    assert consumer.pushed(RUN) is True
    again = consumer.push(secrets(a="never written"), RUN)
    assert isinstance(again, Done)
    assert again.output["version"] == done.output["version"]
    assert consumer.pushed(OTHER) is False


def test_a_label_of_ones_own(world: World, name: str) -> None:
    sm = world.client("secretsmanager")
    sm.create_secret(Name=name, SecretString='{"a":"old"}')
    consumer = aws_version_stage.make({"secret": name, "stage": "blue"})
    for run, value in ((RUN, "1"), (OTHER, "2")):
        consumer.push(secrets(a=value), run)
        assert sm.get_secret_value(SecretId=name, VersionStage="blue")["SecretString"] == f'{{"a":"{value}"}}'
        assert consumer.pushed(run) is True
    assert served(world, name) == '{"a":"old"}'
