"""The KV v2 store on a real OpenBao."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hands import admin, secrets, shown

from rotators.interface import ProviderError, Store, Stored, Trouble
from rotators.stores.vault_kv import make

if TYPE_CHECKING:
    from servers import Server


@pytest.fixture
def kv(openbao: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    return admin(openbao).secrets.kv.v2


def test_put_fetch_and_restore(kv: Any) -> None:
    kv.create_or_update_secret("kv/one", {"id": "a", "secret": "old", "note": "kept", "port": 5432})
    store = make({"path": "kv/one"})
    assert isinstance(store, Store)
    before = store.current()
    assert before == Stored("1", "")
    now = store.put(secrets(id="b", secret="new"), before, "run-1")
    assert now == Stored("2", "run-1") == store.current()
    assert shown(store.fetch()) == {"id": "b", "secret": "new", "note": "kept", "port": "5432"}
    assert shown(store.fetch("1"))["secret"] == "old"
    assert kv.read_secret_version("kv/one", raise_on_deleted_version=True)["data"]["data"]["lapse_run"] == "run-1"

    back = store.restore("1", "run-1")
    assert back == Stored("3", "")
    assert store.restore("1", "run-1") == back  # crash between act and record: nothing more happens
    assert kv.read_secret_version("kv/one", raise_on_deleted_version=True)["data"]["data"] == {
        "id": "a",
        "secret": "old",
        "note": "kept",
        "port": 5432,
    }


def test_somebody_else_between_read_and_write_wins(kv: Any) -> None:
    kv.create_or_update_secret("kv/two", {"secret": "old"})
    store = make({"path": "kv/two"})
    before = store.current()
    kv.create_or_update_secret("kv/two", {"secret": "theirs"})
    with pytest.raises(ProviderError) as e:
        store.put(secrets(secret="ours"), before, "run-1")
    assert e.value.trouble is Trouble.CONFLICT
    with pytest.raises(ProviderError) as e:
        store.restore("1", "run-1")
    assert e.value.trouble is Trouble.CONFLICT
    assert shown(store.fetch()) == {"secret": "theirs"}


def test_vault_itself_compares_when_our_look_was_too_early(kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kv.create_or_update_secret("kv/race", {"secret": "old"})
    store = make({"path": "kv/race"})
    looked = store._read()
    kv.create_or_update_secret("kv/race", {"secret": "theirs"})
    monkeypatch.setattr(store, "_read", lambda *_: looked)
    with pytest.raises(ProviderError) as e:
        store.put(secrets(secret="ours"), Stored("1"), "run-1")
    assert e.value.trouble is Trouble.CONFLICT
    assert "ours" not in str(e.value)


def test_a_path_that_was_never_written(kv: Any) -> None:
    store = make({"path": "kv/three"})
    assert store.current() is None
    with pytest.raises(ProviderError) as e:
        store.fetch()
    assert e.value.trouble is Trouble.GONE
    assert store.put(secrets(secret="first"), None, "run-1") == Stored("1", "run-1")
    with pytest.raises(ProviderError):
        store.restore(None, "run-2")
    assert store.restore(None, "run-1") == store.restore(None, "run-1") == Stored("1", "")
    assert store.current() == Stored("1", "")
    with pytest.raises(ProviderError):
        store.fetch()
    assert store.put(secrets(secret="again"), Stored("1"), "run-3") == Stored("2", "run-3")


def test_a_destroyed_version_cannot_come_back(kv: Any) -> None:
    kv.create_or_update_secret("kv/four", {"secret": "old"})
    store = make({"path": "kv/four"})
    store.put(secrets(secret="new"), Stored("1"), "run-1")
    kv.destroy_secret_versions("kv/four", [1])
    with pytest.raises(ProviderError, match="destroyed") as e:
        store.restore("1", "run-1")
    assert e.value.trouble is Trouble.GONE
    with pytest.raises(ProviderError):
        store.fetch("1")
    assert shown(store.fetch()) == {"secret": "new"}


def test_no_rights_and_no_such_mount(kv: Any, openbao: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = admin(openbao).auth.token.create(policies=["default"], ttl="1h")["auth"]["client_token"]
    monkeypatch.setenv("VAULT_TOKEN", weak)
    with pytest.raises(ProviderError) as e:
        make({"path": "kv/one"}).current()
    assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    with pytest.raises(ProviderError) as e:
        make({"path": "kv/one", "mount": "nowhere"}).current()
    assert e.value.trouble is Trouble.GONE
    with pytest.raises(ProviderError, match="needs a `path`"):
        make({})


def test_a_sealed_vault_says_later(kv: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import servers  # one of its own: sealing the shared one would end the other tests

    with servers.openbao(tmp_path) as own:
        monkeypatch.setenv("VAULT_ADDR", own.url)
        admin(own).sys.seal()
        with pytest.raises(ProviderError, match="sealed") as e:
            make({"path": "kv/one"}).current()
        assert e.value.trouble is Trouble.LATER
