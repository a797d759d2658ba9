"""AppRole secret ids on a real OpenBao."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import hvac
import hvac.exceptions
import pytest
from hands import ANY_KEY, admin, credential

from rotators.interface import Issuer, ProviderError, State, Trouble
from rotators.issuers.vault_approle import make

if TYPE_CHECKING:
    from servers import Server

START = datetime.now(UTC)


@pytest.fixture
def root(openbao: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    root = admin(openbao)
    with contextlib.suppress(hvac.exceptions.InvalidRequest):
        root.sys.enable_auth_method("approle")
    root.auth.approle.create_or_update_approle("svc", token_policies=["default"], token_ttl="20m")
    root.auth.approle.create_or_update_approle("other", token_policies=["default"])
    return root


def test_a_secret_id_goes_from_mint_to_a_proven_death(root: Any) -> None:
    role_id = root.auth.approle.read_role_id("svc")["data"]["role_id"]
    old = root.auth.approle.generate_secret_id("svc", metadata={"who": "ci"})["data"]
    colleague = root.auth.approle.generate_secret_id("svc")["data"]
    issuer = make({})
    assert isinstance(issuer, Issuer)
    ref = issuer.locate(credential("vault_approle", id=role_id, secret=old["secret_id"]))
    assert (ref.id, ref.owner) == (old["secret_id_accessor"], "svc")
    before = [k.id for k in issuer.siblings(ref)]
    assert {old["secret_id_accessor"], colleague["secret_id_accessor"]} <= set(before)

    new = issuer.mint(ref, "run-1")
    root.auth.approle.generate_secret_id("svc")  # a colleague's, in the middle: never an orphan of ours
    login = root.auth.approle.login(new.parts["id"].reveal(), new.parts["secret"].reveal(), use_token=False)
    assert login["auth"]["metadata"] == {"role_name": "svc", "who": "ci", "lapse_run": "run-1"}
    assert [k.id for k in issuer.orphans(ref, before, START, "run-1")] == [new.ref.id]

    assert issuer.state(ref) is State.ACTIVE
    issuer.retire(ref)
    issuer.retire(ref)
    assert issuer.state(ref) is State.GONE
    with pytest.raises(hvac.exceptions.InvalidRequest):
        root.auth.approle.login(role_id, old["secret_id"], use_token=False)
    assert root.auth.approle.login(role_id, colleague["secret_id"], use_token=False)
    facts = {f.about: f.text for f in issuer.evidence(new.ref, None)}
    assert "default" in facts["role"]


def test_a_secret_id_that_is_not_there_is_gone(root: Any) -> None:
    role_id = root.auth.approle.read_role_id("svc")["data"]["role_id"]
    for settings in ({}, {"role": "svc"}):
        with pytest.raises(ProviderError) as e:
            make(settings).locate(credential("vault_approle", id=role_id, secret="never-made"))
        assert e.value.trouble is Trouble.GONE
    with pytest.raises(ProviderError, match="another role id"):
        make({"role": "other"}).locate(credential("vault_approle", id=role_id, secret="never-made"))
    with pytest.raises(ProviderError, match="name the `role`"):
        make({}).locate(credential("vault_approle", secret="never-made"))
    with pytest.raises(ProviderError, match="no role under"):
        make({}).locate(credential("vault_approle", id="nobody", secret="never-made"))


def test_a_role_without_secret_ids_has_none_and_nothing_rests(root: Any) -> None:
    root.auth.approle.create_or_update_approle("empty", token_policies=["default"])
    old = root.auth.approle.generate_secret_id("empty")["data"]
    issuer = make({"role": "empty"})
    issuer.preflight(ANY_KEY)
    make({}).preflight(ANY_KEY)
    ref = issuer.locate(credential("vault_approle", secret=old["secret_id"]))
    with pytest.raises(ProviderError, match="only destroyed"):
        issuer.enable(ref)
    issuer.retire(ref)
    assert issuer.siblings(ref) == []
