"""Key Vault as a store in a simulated Azure: no compare-and-set, so races are found after the fact and healed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sim_entra import Cloud, Version

from rotators.interface import ProviderError, Store, Stored, Trouble
from rotators.stores.azure_key_vault import AzureKeyVault, make
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sim_web import Asked

RUN, OTHER = "run-1", "run-2"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path) as world:
        for name, value in world.environment().items():
            monkeypatch.setenv(name, value)
        yield world


@pytest.fixture
def store(cloud: Cloud) -> AzureKeyVault:
    return make(cloud.settings(vault="prod", secret="db"))


def secrets(**fields: str) -> dict[str, Secret]:
    return {k: Secret(v) for k, v in fields.items()}


def plain(fields: Mapping[str, Secret]) -> dict[str, str]:
    return {k: v.reveal() for k, v in fields.items()}


def colleague(cloud: Cloud, value: str = "colleague") -> None:
    text = json.dumps({"a": value})
    cloud.vault.setdefault("db", []).append(Version(uuid4().hex, text, {"by": "bob"}, int(cloud.now())))


def test_it_is_a_store(store: AzureKeyVault, cloud: Cloud) -> None:
    assert isinstance(store, Store)
    with pytest.raises(ProviderError, match="needs `vault`"):
        make(cloud.settings(vault="prod"))
    assert make({"vault": "prod", "secret": "s"})._base == "https://prod.vault.azure.net"
    assert make({"vault": "https://prod.vault.azure.cn/", "secret": "s"})._base == "https://prod.vault.azure.cn"


def test_a_first_value_and_its_undo(store: AzureKeyVault, cloud: Cloud) -> None:
    assert store.current() is None
    put = store.put(secrets(user="u", a="1"), None, RUN)
    assert store.current() == put == Stored(put.version, RUN)
    assert plain(store.fetch()) == plain(store.fetch(put.version)) == {"user": "u", "a": "1"}
    with pytest.raises(ProviderError) as caught:
        store.restore(None, OTHER)
    assert caught.value.trouble is Trouble.CONFLICT
    for _ in range(2):
        assert store.restore(None, RUN) == Stored("", RUN)
    assert store.current() is None
    with pytest.raises(ProviderError, match="recover or purge") as caught:
        store.put(secrets(a="1"), None, OTHER)
    assert caught.value.trouble is Trouble.REFUSED


def test_put_keeps_fields_and_tags_and_restore_brings_the_former_back(store: AzureKeyVault, cloud: Cloud) -> None:
    colleague(cloud)
    first = store.current()
    assert first is not None
    assert first.run == ""
    put = store.put(secrets(b="new"), first, RUN)
    assert plain(store.fetch()) == {"a": "colleague", "b": "new"}
    assert cloud.vault["db"][-1].tags == {"by": "bob", "lapse-run": RUN}
    assert store.current() == put
    back = store.restore(first.version, RUN)
    assert store.restore(first.version, RUN) == back
    assert plain(store.fetch()) == {"a": "colleague"}
    assert cloud.vault["db"][-1].tags == {"by": "bob"}
    assert len(cloud.vault["db"]) == 3


def test_a_colleagues_write_is_never_written_over(store: AzureKeyVault, cloud: Cloud) -> None:
    first = store.put(secrets(a="0"), None, OTHER)
    put = store.put(secrets(a="1"), first, RUN)
    colleague(cloud)
    for expected in (put, first, None, Stored("x")):
        with pytest.raises(ProviderError) as caught:
            store.put(secrets(a="2"), expected, RUN)
        assert caught.value.trouble is Trouble.CONFLICT
    with pytest.raises(ProviderError) as caught:
        store.restore(first.version, RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert plain(store.fetch()) == {"a": "colleague"}


@pytest.mark.parametrize("when", ["before", "after", "both"])
@pytest.mark.parametrize("page", [1, 50])
def test_a_race_lost_leaves_the_colleagues_value(
    store: AzureKeyVault, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, when: str, page: int
) -> None:
    cloud.page = page
    first = store.put(secrets(a="1"), None, OTHER)
    plain_set, left = cloud.set, [True]

    def write(asked: Asked, name: str) -> object:
        raced = bool(left) and bool(left.pop())
        if raced and when != "after":
            colleague(cloud)
        said = plain_set(asked, name)
        if raced and when != "before":
            colleague(cloud, "last")
        return said

    monkeypatch.setattr(cloud, "set", write)
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(a="2"), first, RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert plain(store.fetch()) == {"a": "colleague" if when == "before" else "last"}
    now = store.current()
    assert now is not None
    assert now.run == ""


def test_a_repeated_put_after_a_crash_is_seen_as_done(store: AzureKeyVault, cloud: Cloud) -> None:
    first = store.put(secrets(a="1"), None, OTHER)
    assert first.run == OTHER
    store.put(secrets(a="2"), first, RUN)
    now = store.current()  # what a resumed run asks first
    assert now is not None
    assert now.run == RUN


def test_plain_text_and_other_trouble(cloud: Cloud) -> None:
    store = make(cloud.settings(vault="prod", secret="token", format="plain"))
    store.put(secrets(x="t1"), None, RUN)
    assert cloud.vault["token"][-1].value == "t1"
    assert plain(store.fetch()) == {"secret": "t1"}
    cloud.denied = {"vault.set"}
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(x="t2"), store.current(), RUN)
    assert caught.value.trouble is Trouble.DENIED
    cloud.denied = {"vault", "vault.list"}
    with pytest.raises(ProviderError) as caught:
        store.current()
    assert caught.value.trouble is Trouble.DENIED


def test_preflight_reads_and_lists_and_writes_nothing(store: AzureKeyVault, cloud: Cloud) -> None:
    assert "may read db and list" in store.preflight()[0].text
    colleague(cloud)
    store.preflight()
    assert len(cloud.vault["db"]) == 1
    for right in ("vault", "vault.list"):
        cloud.denied = {right}
        with pytest.raises(ProviderError) as caught:
            store.preflight()
        assert caught.value.trouble is Trouble.DENIED
