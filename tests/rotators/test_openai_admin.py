"""OpenAI project keys: the real client library against a simulator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hands import ANY_KEY, credential
from sim_http import Sim
from sim_openai import ADMIN, OpenAi, mask

from rotators.interface import Issuer, ProviderError, State, Trouble
from rotators.issuers.openai_admin import make

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime.now(UTC)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OpenAi, Sim]]:
    world = OpenAi()
    with Sim(world) as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{sim.url}/v1")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", ADMIN)
        yield world, sim


def test_a_key_goes_from_mint_to_a_proven_death(world: tuple[OpenAi, Sim]) -> None:
    openai, sim = world
    for _ in range(3):
        openai.add("proj_other", "svc_1")
    openai.add("proj_a", "user_1")
    old = openai.add("proj_a", "svc_1")
    issuer = make({"expires_in_days": "30", "scopes": "model.request, api.model.read"})
    assert isinstance(issuer, Issuer)
    assert "2 projects" in issuer.preflight(ANY_KEY)[0].text
    ref = issuer.locate(credential("openai", secret=old.value))
    assert (ref.id, ref.owner, ref.never_used) == (old.id, "proj_a/svc_1", True)
    before = [k.id for k in issuer.siblings(ref)]
    assert before == [old.id]

    new = issuer.mint(ref, "lapse-run-1")
    sent = next(a for a in reversed(sim.asked) if a.method == "POST").json
    assert sent == {
        "name": "lapse-run-1",
        "expires_in_seconds": 30 * 86400,
        "scopes": ["model.request", "api.model.read"],
    }
    assert openai.works(new.parts["secret"].reveal())
    openai.add("proj_a", "svc_1", "a colleague's")
    assert [k.id for k in issuer.orphans(ref, before, NOW, "lapse-run-1")] == [new.ref.id]
    assert issuer.orphans(ref, before, NOW, "lapse-run-2") == []
    assert issuer.orphans(ref, before, NOW + timedelta(hours=1), "lapse-run-1") == []
    openai.projects["proj_a"][2].last_used_at = int(NOW.timestamp())
    assert issuer.orphans(ref, before, NOW, "lapse-run-1") == []

    assert issuer.state(ref) is State.ACTIVE
    facts = {f.about: f.text for f in issuer.evidence(ref, None)}
    assert facts["last used"] == "not on record"
    issuer.retire(ref)
    issuer.retire(ref)
    assert issuer.state(ref) is State.GONE
    assert not openai.works(old.value)
    assert len(openai.projects["proj_other"]) == 3
    with pytest.raises(ProviderError, match="lists no key like this one") as e:
        issuer.locate(credential("openai", secret=old.value))
    assert e.value.trouble is Trouble.GONE
    with pytest.raises(ProviderError, match="only deleted"):
        issuer.disable(ref)


def test_two_that_look_alike_are_nobodys(world: tuple[OpenAi, Sim]) -> None:
    openai, _ = world
    one, two = openai.add("proj_a", "svc_1"), openai.add("proj_a", "svc_1")
    two.value = one.value[:30] + "x" + one.value[31:]
    assert mask(one.value) == mask(two.value)
    with pytest.raises(ProviderError, match="2 keys that look like"):
        make({"project": "proj_a"}).locate(credential("openai", secret=one.value))


def test_a_persons_key_is_replaced_by_a_service_accounts(world: tuple[OpenAi, Sim]) -> None:
    openai, _ = world
    old = openai.add("proj_a", "user_1")
    ref = make({}).locate(credential("openai", secret=old.value))
    with pytest.raises(ProviderError, match="name a `service_account`"):
        make({}).mint(ref, "m")
    issuer = make({"service_account": "svc_9"})
    new = issuer.mint(ref, "m")
    assert new.ref.owner == "proj_a/svc_9"
    assert [k.id for k in issuer.orphans(ref, [ref.id], NOW, "m")] == [new.ref.id]
    with pytest.raises(ProviderError, match="not a number of days"):
        make({"service_account": "s", "expires_in_days": "soon"}).mint(ref, "m")


def test_an_expired_key_is_gone(world: tuple[OpenAi, Sim]) -> None:
    openai, _ = world
    old = openai.add("proj_a", "svc_1")
    ref = make({}).locate(credential("openai", secret=old.value))
    old.expires_at = int(NOW.timestamp()) - 5
    assert make({}).state(ref) is State.GONE


def test_errors_say_what_can_be_done_and_no_secret(world: tuple[OpenAi, Sim], monkeypatch: pytest.MonkeyPatch) -> None:
    openai, sim = world
    old = openai.add("proj_a", "svc_1")
    issuer = make({})
    ref = issuer.locate(credential("openai", secret=old.value))
    for status, trouble, wait in (
        (429, Trouble.LATER, timedelta(seconds=7)),
        (500, Trouble.LATER, None),
        (403, Trouble.DENIED, None),
        (400, Trouble.REFUSED, None),
    ):
        sim.fail = [(status, {"error": {"message": old.value}}, {"retry-after": "7"} if wait else {})]
        with pytest.raises(ProviderError) as e:
            issuer.retire(ref)
        assert (e.value.trouble, e.value.retry_after) == (trouble, wait)
        assert old.value not in str(e.value)
    sim.fail = [(302, {}, {"location": f"{sim.url}/elsewhere"})]
    count = len(sim.asked)
    with pytest.raises(ProviderError):
        issuer.retire(ref)
    assert len(sim.asked) == count + 1
    monkeypatch.setenv("OPENAI_ADMIN_KEY", old.value)
    with pytest.raises(ProviderError, match="never rotates itself"):
        issuer.locate(credential("openai", secret=old.value))
    with pytest.raises(ProviderError) as e:
        issuer.preflight(ANY_KEY)
    assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(ProviderError) as e:
        issuer.preflight(ANY_KEY)
    assert e.value.trouble is Trouble.LATER
