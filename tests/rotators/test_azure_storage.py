"""Storage account slots in a simulated Azure: the leaked slot is regenerated once, the other one never."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sim_entra import Cloud

from rotators.interface import Issuer, KeyRef, ProviderError, State, Trouble
from rotators.issuers.azure_storage import AzureStorage, make
from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "lapse-run-1"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path) as world:
        for name, value in world.environment().items():
            monkeypatch.setenv(name, value)
        yield world


def issuer(cloud: Cloud, **settings: str) -> AzureStorage:
    return make(cloud.settings(**settings))


def leaked(cloud: Cloud, owner: str, slot: str = "key1") -> Credential:
    parts = {"secret": Secret(cloud.accounts[owner][slot][0]), "account": Secret(owner.rsplit("/", 1)[-1])}
    return Credential(CredentialID("azure-" + "1" * 32), KindID("azure_storage"), parts)


def slots(cloud: Cloud, owner: str) -> dict[str, str]:
    return {name: value for name, (value, _) in cloud.accounts[owner].items()}


@pytest.mark.parametrize(("slot", "other"), [("key1", "key2"), ("key2", "key1")])
def test_consumers_go_to_the_other_slot_then_the_leaked_one_dies(cloud: Cloud, slot: str, other: str) -> None:
    owner = cloud.account("media")
    before = slots(cloud, owner)
    way = issuer(cloud)
    assert isinstance(way, Issuer)
    old = leaked(cloud, owner, slot)
    ref = way.locate(old)
    assert (ref.id.partition("#")[0], ref.owner, ref.state) == (slot, owner, State.ACTIVE)
    assert ref.created is not None
    new = way.mint(ref, RUN)
    assert {k: v.reveal() for k, v in new.parts.items()} == {"secret": before[other], "account": "media"}
    assert slots(cloud, owner) == before
    assert new.ref.id not in {k.id for k in way.siblings(ref)}
    assert way.state(new.ref) is State.ACTIVE
    way.retire(ref)
    now = slots(cloud, owner)
    assert now[slot] != before[slot]
    assert now[other] == before[other]
    assert way.state(ref) is State.GONE
    way.retire(ref)
    assert slots(cloud, owner) == now  # a second time would kill what is in use again
    with pytest.raises(ProviderError, match="regenerated already") as caught:
        way.locate(old)
    assert caught.value.trouble is Trouble.GONE


def test_a_lent_key_is_never_regenerated(cloud: Cloud) -> None:
    owner = cloud.account("media")
    before = slots(cloud, owner)
    way = issuer(cloud)
    ref = way.locate(leaked(cloud, owner))
    new = way.mint(ref, RUN)
    assert new.ref.id != ref.id
    way.retire(new.ref)
    assert slots(cloud, owner) == before
    assert way.orphans(ref, [], datetime.now(UTC), RUN) == []


def test_a_repeated_run_goes_back_and_forth(cloud: Cloud) -> None:
    owner = cloud.account("media")
    way = issuer(cloud)
    for slot in ("key1", "key2", "key1"):
        old = leaked(cloud, owner, slot)
        ref = way.locate(old)
        new = way.mint(ref, RUN)
        way.retire(ref)
        assert new.parts["secret"].reveal() in slots(cloud, owner).values()
        assert old.parts["secret"].reveal() not in slots(cloud, owner).values()


def test_the_id_tells_nothing_of_the_value(cloud: Cloud) -> None:
    one, two = cloud.account("one"), cloud.account("two")
    cloud.accounts[two] = dict(cloud.accounts[one])
    ids = [issuer(cloud).locate(leaked(cloud, owner)).id for owner in (one, two)]
    assert ids[0] != ids[1]
    assert cloud.accounts[one]["key1"][0][:8] not in "".join(ids)


def test_the_account_is_found_by_its_name_on_any_page(cloud: Cloud) -> None:
    cloud.page = 2
    owners = [cloud.account(f"acc{n}") for n in range(5)]
    for settings in ({}, {"subscription": "sub-1"}, {"resource_id": owners[4]}):
        assert issuer(cloud, **settings).locate(leaked(cloud, owners[4])).owner == owners[4]
    with pytest.raises(ProviderError, match="another account") as caught:
        issuer(cloud, resource_id=owners[3]).locate(leaked(cloud, owners[4]))
    assert caught.value.trouble is Trouble.REFUSED
    lost = leaked(cloud, owners[0])
    del cloud.accounts[owners[0]]
    with pytest.raises(ProviderError, match="sees no storage account") as caught:
        issuer(cloud).locate(lost)
    assert caught.value.trouble is Trouble.GONE
    assert issuer(cloud).state(KeyRef("key1#0", owners[0])) is State.GONE
    issuer(cloud).retire(KeyRef("key1#0", owners[0]))


def test_trouble_is_told_apart(cloud: Cloud) -> None:
    owner = cloud.account("media")
    way = issuer(cloud)
    ref = way.locate(leaked(cloud, owner))
    for act in (way.disable, way.enable):
        with pytest.raises(ProviderError) as caught:
            act(ref)
        assert caught.value.trouble is Trouble.REFUSED
    before = slots(cloud, owner)
    cloud.denied = {"arm.regenerate"}
    with pytest.raises(ProviderError) as caught:
        way.retire(ref)
    assert caught.value.trouble is Trouble.DENIED
    cloud.denied = {"arm.keys"}
    with pytest.raises(ProviderError) as caught:
        way.state(ref)
    assert caught.value.trouble is Trouble.DENIED
    cloud.denied, cloud.throttled = set(), 1
    with pytest.raises(ProviderError) as caught:
        way.retire(ref)
    assert caught.value.trouble is Trouble.LATER
    assert slots(cloud, owner) == before
    del cloud.accounts[owner]["key2"]
    with pytest.raises(ProviderError, match="no other slot") as caught:
        way.mint(ref, RUN)
    assert caught.value.trouble is Trouble.FULL
    with pytest.raises(ProviderError, match="no resource id"):
        way.state(KeyRef("key1#0", "/subscriptions/x"))


def test_an_admin_without_a_subscription_is_told_so(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "subscriptions", lambda _: {"value": []})
    old = leaked(cloud, cloud.account("media"))
    with pytest.raises(ProviderError, match="sees no subscription") as caught:
        issuer(cloud).locate(old)
    assert caught.value.trouble is Trouble.DENIED


@pytest.mark.parametrize(
    ("rights", "lacks"),
    [
        ([{"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Delete"]}], ""),
        ([{"actions": ["*/read"]}, {"actions": ["microsoft.storage/storageaccounts/*"], "notActions": []}], ""),
        ([{"actions": ["Microsoft.Storage/storageAccounts/listKeys/action", "*/read"]}], "regenerateKey/action"),
        ([{"actions": ["*"], "notActions": ["Microsoft.Storage/*/action"]}], "listKeys/action"),
        ([], "listKeys/action"),
    ],
)
def test_preflight_asks_what_the_admin_may_do_with_the_account(
    cloud: Cloud, rights: list[dict[str, list[str]]], lacks: str
) -> None:
    ref = issuer(cloud).locate(leaked(cloud, cloud.account("media")))
    cloud.rights = rights
    before = slots(cloud, ref.owner)
    if lacks:
        with pytest.raises(ProviderError, match=lacks) as caught:
            issuer(cloud).preflight(ref)
        assert caught.value.trouble is Trouble.DENIED
    else:
        assert "may list and regenerate the keys of media" in issuer(cloud).preflight(ref)[0].text
    assert slots(cloud, ref.owner) == before


def test_an_azure_that_does_not_tell_rights_is_no_refusal(cloud: Cloud) -> None:
    ref = (way := issuer(cloud)).locate(leaked(cloud, cloud.account("media")))
    cloud.denied = {"arm.permissions"}
    assert "does not tell" in way.preflight(ref)[0].text
    cloud.denied, cloud.throttled = set(), 1
    with pytest.raises(ProviderError) as caught:
        way.preflight(ref)
    assert caught.value.trouble is Trouble.LATER


def test_evidence(cloud: Cloud) -> None:
    owner = cloud.account("media")
    ref = issuer(cloud).locate(leaked(cloud, owner))
    facts = {f.about: f.text for f in issuer(cloud).evidence(ref, None)}
    assert facts["account"] == f"{owner} in westeurope; public network: Enabled (team=web)"
    assert facts["keys"].startswith("key1 of 20")
    assert "key2 of 20" in facts["keys"]
    assert "everything" in facts["may do"]
    assert cloud.accounts[owner]["key1"][0] not in repr(facts)
    cloud.denied = {"arm.read", "arm.keys"}
    facts = {f.about: f.text for f in issuer(cloud).evidence(ref, None)}
    assert "not known" in facts["account"]
    assert "not known" in facts["keys"]
