"""GitLab CI variables, against a simulator with GitLab's rules for masked values and environment scopes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hands import secrets
from sim_http import Asked, Reply, Sim

from rotators.consumers.gitlab_ci import make
from rotators.interface import Consumer, ProviderError, Trouble
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "an-admin-token-of-the-test"


class GitLab:
    """Variables by owner, name and scope. A PUT sets what it names and leaves the rest, as GitLab does."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.scopes: list[str] | None = ["api"]

    def add(self, owner: str, key: str, scope: str = "*", **more: Any) -> dict[str, Any]:
        self.held[owner, key, scope] = {
            "key": key,
            "value": "old-value-1",
            "variable_type": "env_var",
            "protected": True,
            "masked": True,
            "raw": True,
            "environment_scope": scope,
            "description": None,
            **more,
        }
        return self.held[owner, key, scope]

    def __call__(self, asked: Asked) -> Reply:
        if asked.headers.get("private-token") != TOKEN:
            return 401, {"message": "401 Unauthorized"}
        if asked.path == "/api/v4/personal_access_tokens/self":
            return (200, {"scopes": self.scopes}) if self.scopes is not None else (404, {"message": "404 Not Found"})
        m = re.fullmatch(r"/api/v4/(?:projects|groups)/(.+)/variables/(\w+)", asked.path)
        found = self.held.get((m[1], m[2], asked.query.get("filter[environment_scope]", "*"))) if m else None
        if found is None:
            return 404, {"message": "404 Variable Not Found"}
        if asked.method == "PUT":
            new = {**found, **asked.json}
            if new["masked"] and not re.fullmatch(r"\S{8,}", new["value"]):
                return 400, {"message": {"value": ["is invalid"]}}
            found.update(new)
        return 200, found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[GitLab, Sim]]:
    gitlab = GitLab()
    monkeypatch.setenv("GITLAB_TOKEN", TOKEN)
    with Sim(gitlab) as sim:
        yield gitlab, sim


def test_the_value_changes_and_its_protection_does_not(world: tuple[GitLab, Sim]) -> None:
    gitlab, sim = world
    held = gitlab.add("acme/app", "KEY", description="Ask Ann")
    staging = dict(gitlab.add("acme/app", "KEY", "staging"))
    consumer = make({**sim.settings, "project": "acme/app", "name": "KEY"})
    assert isinstance(consumer, Consumer)
    assert consumer.pushed("run-1") is False
    for run in ("run-1", "run-1", "run-2"):
        assert isinstance(consumer.push(secrets(secret="new-value-2"), run), Done)
    assert (held["value"], held["protected"], held["masked"], held["raw"]) == ("new-value-2", True, True, True)
    sent = next(a for a in reversed(sim.asked) if a.method == "PUT").json
    assert (sent["protected"], sent["masked"], sent["raw"], sent["environment_scope"]) == (True, True, True, "*")
    assert held["description"] == "Ask Ann [lapse run-2]"
    assert consumer.pushed("run-2") is True
    assert consumer.pushed("run-1") is False
    assert gitlab.held["acme/app", "KEY", "staging"] == staging


def test_a_group_and_a_scope(world: tuple[GitLab, Sim]) -> None:
    gitlab, sim = world
    held = gitlab.add("acme", "KEY", "prod/*")
    make({**sim.settings, "group": "acme", "scope": "prod/*", "map": "KEY=secret"}).push(
        secrets(secret="new-value-2", id="x"), "r"
    )
    assert held["value"] == "new-value-2"


def test_trouble(world: tuple[GitLab, Sim]) -> None:
    gitlab, sim = world
    gitlab.add("acme/app", "KEY")
    good = {**sim.settings, "project": "acme/app", "name": "KEY"}
    for settings, value, said, trouble in (
        (good, "two\nlines here", "masks only", Trouble.REFUSED),
        ({**good, "name": "OTHER"}, "new-value-2", "is it there", Trouble.GONE),
        (good, TOKEN, "use another one", Trouble.DENIED),
    ):
        with pytest.raises(ProviderError, match=said) as e:
            make(settings).push(secrets(secret=value), "r")
        assert e.value.trouble is trouble
        assert value not in str(e.value)
    sim.fail = [(401, {})]
    with pytest.raises(ProviderError) as e:
        make(good).pushed("r")
    assert e.value.trouble is Trouble.DENIED
    for bad in ({"project": ""}, {"group": "acme"}, {"name": ""}):
        with pytest.raises(ProviderError):
            make({**good, **bad})
