"""Secret Manager as a store in the simulated Google Cloud: versions, etags, races lost, restoring."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from sim_gcp import Gcp, Kept
from test_gcp_iam import log_in

from rotators.interface import ProviderError, Store, Stored, Trouble
from rotators.stores.gcp_secret_manager import GcpSecretManager, make
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sim_web import Asked

RUN, OTHER, NAME = "run-1", "run-2", "projects/prod/secrets/db"


@pytest.fixture
def gcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gcp]:
    with Gcp() as world:
        log_in(monkeypatch, tmp_path, world.admin)
        yield world


@pytest.fixture
def store(gcp: Gcp) -> GcpSecretManager:
    return make(gcp.settings(project="prod", secret="db"))


def secrets(**fields: str) -> dict[str, Secret]:
    return {k: Secret(v) for k, v in fields.items()}


def plain(fields: Mapping[str, Secret]) -> dict[str, str]:
    return {k: v.reveal() for k, v in fields.items()}


def colleague(gcp: Gcp, value: str = "colleague") -> None:
    data = b64encode(json.dumps({"a": value}).encode()).decode()
    gcp.secrets[NAME].versions.append({"state": "ENABLED", "data": data})


def meddle(gcp: Gcp, monkeypatch: pytest.MonkeyPatch, method: str, act: Callable[[], None]) -> None:
    """Let a colleague act just before the API's `method` is answered, once."""
    plain_answer = getattr(gcp, method)
    left = [act]

    def answer(asked: Asked, **words: str) -> object:
        if left:
            left.pop()()
        return plain_answer(asked, **words)

    monkeypatch.setattr(gcp, method, answer)


def test_it_is_a_store(store: GcpSecretManager, gcp: Gcp) -> None:
    assert isinstance(store, Store)
    with pytest.raises(ProviderError, match="needs `project` and `secret`"):
        make(gcp.settings(project="prod"))


def test_a_first_value_creates_the_secret_and_undo_hides_it(store: GcpSecretManager, gcp: Gcp) -> None:
    assert store.current() is None
    put = store.put(secrets(user="u", a="1"), None, RUN)
    assert put == Stored("1", RUN) == store.current()
    assert plain(store.fetch()) == {"user": "u", "a": "1"}
    with pytest.raises(ProviderError) as caught:
        store.restore(None, OTHER)
    assert caught.value.trouble is Trouble.CONFLICT
    for _ in range(2):
        assert store.restore(None, RUN) == Stored("", RUN)
    assert store.current() is None
    again = store.put(secrets(a="2"), None, OTHER)
    assert again == Stored("2", OTHER) == store.current()


def test_put_keeps_other_fields_and_restore_brings_the_former_back(store: GcpSecretManager, gcp: Gcp) -> None:
    first = store.put(secrets(host="h", a="old"), None, OTHER)
    put = store.put(secrets(a="new"), first, RUN)
    assert plain(store.fetch()) == {"host": "h", "a": "new"}
    assert store.current() == put
    for _ in range(2):
        assert store.restore("1", RUN).version == "3"
    assert plain(store.fetch()) == {"host": "h", "a": "old"}
    assert [v["state"] for v in gcp.secrets[NAME].versions] == ["ENABLED", "DISABLED", "ENABLED"]
    assert store.current() == Stored("3", OTHER)


def test_restoring_what_lies_there_already_changes_nothing(store: GcpSecretManager, gcp: Gcp) -> None:
    store.put(secrets(a="1"), None, OTHER)
    assert store.restore("1", RUN) == Stored("1", OTHER)
    assert len(gcp.secrets[NAME].versions) == 1


def test_a_colleagues_write_is_never_written_over(store: GcpSecretManager, gcp: Gcp) -> None:
    put = store.put(secrets(a="1"), None, RUN)
    colleague(gcp)
    assert store.current() == Stored("2", "")
    for expected in (put, None, Stored("9")):
        with pytest.raises(ProviderError) as caught:
            store.put(secrets(a="2"), expected, RUN)
        assert caught.value.trouble is Trouble.CONFLICT
    with pytest.raises(ProviderError) as caught:
        store.restore("1", RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert plain(store.fetch()) == {"a": "colleague"}


@pytest.mark.parametrize("moment", ["mark", "version", "add"])
def test_a_race_lost_at_any_moment_leaves_the_colleagues_value(
    store: GcpSecretManager, gcp: Gcp, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    first = store.put(secrets(a="1"), None, OTHER)
    meddle(gcp, monkeypatch, moment, lambda: colleague(gcp))
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(a="2"), first, RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert plain(store.fetch()) == {"a": "colleague"}
    now = store.current()
    assert now is not None
    assert now.run == ""


def test_a_colleague_who_writes_last_keeps_the_last_word(
    store: GcpSecretManager, gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.put(secrets(a="1"), None, OTHER)
    plain_add = gcp.add

    def add(asked: Asked, **words: str) -> object:
        colleague(gcp, "before")
        said = plain_add(asked, **words)
        colleague(gcp, "after")
        return said

    monkeypatch.setattr(gcp, "add", add)
    with pytest.raises(ProviderError):
        store.put(secrets(a="2"), first, RUN)
    assert plain(store.fetch()) == {"a": "after"}


def test_of_two_runs_one_loses(store: GcpSecretManager, gcp: Gcp, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.put(secrets(a="1"), None, OTHER)

    def mark() -> None:
        gcp.secrets[NAME].etag = "changed"

    meddle(gcp, monkeypatch, "mark", mark)
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(a="2"), first, RUN)
    assert caught.value.trouble is Trouble.CONFLICT
    assert store.current() == first


def test_of_two_runs_that_create_one_loses(store: GcpSecretManager, gcp: Gcp, monkeypatch: pytest.MonkeyPatch) -> None:
    meddle(gcp, monkeypatch, "new_secret", lambda: gcp.secrets.update({NAME: Kept()}))
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(a="2"), None, RUN)
    assert caught.value.trouble is Trouble.CONFLICT


def test_a_crash_after_the_mark_is_repeatable_and_takes_no_strangers_version(
    store: GcpSecretManager, gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.put(secrets(a="1"), None, OTHER)

    class KilledError(Exception):
        pass

    def die(*_: object) -> int:
        raise KilledError

    add = GcpSecretManager._add
    monkeypatch.setattr(GcpSecretManager, "_add", die)
    with pytest.raises(KilledError):
        store.put(secrets(a="2"), first, RUN)
    for _ in range(2):  # the former version still tells whose it is
        assert store.current() == first == Stored("1", OTHER)
        with pytest.raises(KilledError):
            store.put(secrets(a="2"), first, RUN)
    monkeypatch.setattr(GcpSecretManager, "_add", add)
    again = store.put(secrets(a="3"), first, RUN)
    assert store.current() == again == Stored("2", RUN)
    assert plain(store.fetch()) == {"a": "3"}


def test_a_key_file_is_kept_as_it_is(gcp: Gcp) -> None:
    store = make(gcp.settings(project="prod", secret="db", format="plain", field="credentials"))
    text = json.dumps({"type": "service_account"})
    store.put(secrets(x=text), None, RUN)
    assert plain(store.fetch()) == {"credentials": text}
    assert plain(store.fetch("1")) == {"credentials": text}


def test_other_trouble_passes(store: GcpSecretManager, gcp: Gcp) -> None:
    gcp.denied = {"secretmanager.secrets.create"}
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(a="1"), None, RUN)
    assert caught.value.trouble is Trouble.DENIED
    gcp.denied = {"secretmanager.secrets.get"}
    with pytest.raises(ProviderError) as caught:
        store.put(secrets(a="1"), None, RUN)
    gcp.denied = {"secretmanager.versions.get"}
    with pytest.raises(ProviderError) as caught:
        store.current()
    assert caught.value.trouble is Trouble.DENIED


def test_preflight_asks_for_rights_on_the_secret_or_on_its_project(store: GcpSecretManager, gcp: Gcp) -> None:
    assert store.preflight()[0].text.endswith("project prod")
    gcp.denied = {"secretmanager.secrets.create"}
    with pytest.raises(ProviderError, match=r"lacks secretmanager\.secrets\.create on project prod") as caught:
        store.preflight()
    assert caught.value.trouble is Trouble.DENIED
    assert gcp.secrets == {}
    gcp.denied = {"resourcemanager.off"}
    assert "does not tell" in store.preflight()[0].text
    gcp.denied = set()
    gcp.secrets[NAME] = Kept()
    assert store.preflight()[0].text.endswith("secret db")
    gcp.denied = {"secretmanager.versions.add"}
    with pytest.raises(ProviderError, match=r"lacks secretmanager\.versions\.add on secret db"):
        store.preflight()
    assert gcp.secrets[NAME].versions == []
