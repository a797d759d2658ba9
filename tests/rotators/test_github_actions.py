"""GitHub Actions secrets, against a simulator that opens the box as a runner would."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import pytest
from hands import secrets
from nacl.public import PrivateKey, SealedBox
from sim_http import Asked, Reply, Sim

from rotators.consumers.github_actions import make
from rotators.interface import Consumer, ProviderError, Trouble
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "an-admin-token-of-the-test"


class Actions:
    """`held`: place to what a runner would see."""

    def __init__(self) -> None:
        self.key = PrivateKey.generate()
        self.held: dict[str, str] = {}
        self.headers: dict[str, str] = {}

    def __call__(self, asked: Asked) -> Reply:
        if asked.bearer != TOKEN:
            return 403, {"message": "Resource not accessible"}
        place, _, name = asked.path.rpartition("/")
        if place not in ("/repos/acme/app/actions/secrets", "/repos/acme/app/environments/prod eu/secrets"):
            return 404, {"message": "Not Found"}
        if asked.method == "GET" and name == "public-key":
            return 200, {"key_id": "k1", "key": b64encode(bytes(self.key.public_key)).decode()}, self.headers
        if asked.method == "PUT" and asked.json["key_id"] == "k1":
            opened = SealedBox(self.key).decrypt(b64decode(asked.json["encrypted_value"])).decode()
            new = f"{place}/{name}" not in self.held
            self.held[f"{place}/{name}"] = opened
            return (201, {}) if new else (204, None)
        return 422, {}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Actions, Sim]]:
    actions = Actions()
    monkeypatch.delenv("GH_TOKEN", raising=False)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    with Sim(actions) as sim:
        yield actions, sim


def test_it_is_sealed_and_set_and_may_be_repeated(world: tuple[Actions, Sim]) -> None:
    actions, sim = world
    consumer = make({**sim.settings, "repository": "acme/app", "map": "AWS_ID=id, AWS_SECRET=secret"})
    assert isinstance(consumer, Consumer)
    for _ in range(2):
        done = consumer.push(secrets(id="AK", secret="s3cret-value"), "run-1")
        assert isinstance(done, Done)
    assert actions.held == {
        "/repos/acme/app/actions/secrets/AWS_ID": "AK",
        "/repos/acme/app/actions/secrets/AWS_SECRET": "s3cret-value",
    }
    assert not any(b"s3cret-value" in a.body for a in sim.asked)
    assert consumer.pushed("run-1") is None


def test_an_environments_secret(world: tuple[Actions, Sim]) -> None:
    actions, sim = world
    make({**sim.settings, "repository": "acme/app", "environment": "prod eu", "name": "KEY"}).push(
        secrets(secret="v"), "run-1"
    )
    assert actions.held == {"/repos/acme/app/environments/prod eu/secrets/KEY": "v"}


def test_trouble(world: tuple[Actions, Sim], monkeypatch: pytest.MonkeyPatch) -> None:
    _, sim = world
    good = {**sim.settings, "repository": "acme/app", "name": "KEY"}
    for settings, fields, trouble in (
        ({**good, "repository": "acme/other"}, secrets(secret="v"), Trouble.GONE),
        ({**good, "field": "missing"}, secrets(secret="v", id="x"), Trouble.REFUSED),
        (good, secrets(secret=TOKEN), Trouble.DENIED),
    ):
        with pytest.raises(ProviderError) as e:
            make(settings).push(fields, "run-1")
        assert e.value.trouble is trouble
    sim.fail = [(200, {"key_id": "old", "key": b64encode(bytes(PrivateKey.generate().public_key)).decode()})]
    with pytest.raises(ProviderError) as e:
        make(good).push(secrets(secret="v"), "run-1")
    assert e.value.trouble is Trouble.REFUSED
    for bad in (
        {"repository": "acme"},
        {"repository": "a/b/c"},
        {"name": "GITHUB_X"},
        {"name": "9X"},
        {"name": ""},
        {"map": "A"},
        {"map": "A=x,A=y"},
    ):
        with pytest.raises(ProviderError) as e:
            make({**good, **bad})
        assert e.value.trouble is Trouble.REFUSED
    monkeypatch.setenv("OTHER", "nobody")
    with pytest.raises(ProviderError) as e:
        make({**good, "token_env": "OTHER"}).push(secrets(secret="v"), "run-1")
    assert e.value.trouble is Trouble.DENIED
