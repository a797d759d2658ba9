"""Anthropic keys against a simulator of the Admin API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hands import ANY_KEY, credential
from sim_anthropic import ADMIN, Anthropic, key
from sim_http import Sim

from rotators.interface import Issuer, ProviderError, State, Trouble
from rotators.issuers.anthropic_admin import AnthropicAdmin, make

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Anthropic, Sim, AnthropicAdmin]]:
    world = Anthropic()
    with Sim(world) as sim:
        monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", ADMIN)
        yield world, sim, make(sim.settings)


def test_inactive_active_archived(world: tuple[Anthropic, Sim, AnthropicAdmin]) -> None:
    anthropic, _, issuer = world
    assert isinstance(issuer, Issuer)
    for n in range(5):
        anthropic.add(key(n), user=f"user_{n % 2}")
    issuer.preflight(ANY_KEY)
    ref = issuer.locate(credential("anthropic", secret=key(4)))
    assert (ref.id, ref.owner, ref.state) == ("apikey_4", "user_0", State.ACTIVE)
    assert [k.id for k in issuer.siblings(ref)] == ["apikey_0", "apikey_2", "apikey_4"]
    issuer.disable(ref)
    issuer.disable(ref)
    assert issuer.state(ref) is State.DISABLED
    issuer.enable(ref)
    assert issuer.state(ref) is State.ACTIVE
    issuer.retire(ref)
    issuer.retire(ref)
    assert issuer.state(ref) is State.GONE
    assert [k["status"] for k in anthropic.keys.values()] == ["active"] * 4 + ["archived"]
    assert {f.about: f.text for f in issuer.evidence(ref, None)}["name"] == "Developer Key"
    assert issuer.orphans(ref, [], datetime.now(UTC), "m") == []
    with pytest.raises(ProviderError, match="in its Console only"):
        issuer.mint(ref, "m")
    with pytest.raises(ProviderError) as e:
        issuer.enable(ref)
    assert e.value.trouble is Trouble.REFUSED


def test_exactly_one_or_nobody(world: tuple[Anthropic, Sim, AnthropicAdmin]) -> None:
    anthropic, _, issuer = world
    anthropic.add(key(1))
    with pytest.raises(ProviderError) as e:
        issuer.locate(credential("anthropic", secret=key(2)))
    assert e.value.trouble is Trouble.GONE
    anthropic.add(key(1)[:-6] + "zz" + key(1)[-4:])
    with pytest.raises(ProviderError, match="2 keys that look like"):
        issuer.locate(credential("anthropic", secret=key(1)))


def test_trouble(world: tuple[Anthropic, Sim, AnthropicAdmin], monkeypatch: pytest.MonkeyPatch) -> None:
    anthropic, sim, issuer = world
    anthropic.add(key(1))
    ref = issuer.locate(credential("anthropic", secret=key(1)))
    sim.fail = [(200, {**anthropic.keys["apikey_0"], "status": "active"})]
    with pytest.raises(ProviderError, match="not inactive yet") as e:
        issuer.disable(ref)
    assert e.value.trouble is Trouble.LATER
    sim.fail = [(529, {"type": "error"})]
    with pytest.raises(ProviderError) as e:
        issuer.siblings(ref)
    assert e.value.trouble is Trouble.LATER
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", "wrong")
    for call in (lambda: issuer.preflight(ref), lambda: issuer.evidence(ref, None), lambda: issuer.state(ref)):
        with pytest.raises(ProviderError) as e:
            call()
        assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", key(1))
    with pytest.raises(ProviderError, match="never rotates itself"):
        issuer.locate(credential("anthropic", secret=key(1)))
