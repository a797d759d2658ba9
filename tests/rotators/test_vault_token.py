"""Vault tokens on a real OpenBao."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import hvac
import hvac.exceptions
import pytest
from hands import ANY_KEY, admin, credential
from sim_http import Sim

from rotators.interface import Issuer, KeyRef, ProviderError, State, Trouble
from rotators.issuers.vault_token import make

if TYPE_CHECKING:
    from servers import Server

START = datetime.now(UTC)


@pytest.fixture
def root(openbao: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    return admin(openbao)


@pytest.fixture
def leaked(root: Any) -> dict[str, Any]:
    root.sys.create_or_update_policy("reads-app", 'path "secret/data/app/*" { capabilities=["read"] }')
    made: dict[str, Any] = root.auth.token.create(policies=["reads-app"], ttl="1h", meta={"who": "ci"})["auth"]
    return made


def test_a_token_goes_from_mint_to_a_proven_death(root: Any, leaked: dict[str, Any], openbao: Server) -> None:
    issuer = make({})
    assert isinstance(issuer, Issuer)
    assert "root" in issuer.preflight(ANY_KEY)[0].text
    ref = issuer.locate(credential("vault_token", secret=leaked["client_token"]))
    assert ref.id == leaked["accessor"]
    assert ref.created is not None
    assert abs(ref.created - datetime.now(UTC)) < timedelta(minutes=1)
    before = [k.id for k in issuer.siblings(ref)]

    new = issuer.mint(ref, "run-1")
    about = root.auth.token.lookup(new.parts["secret"].reveal())["data"]
    assert set(about["policies"]) == {"default", "reads-app"}
    assert about["meta"] == {"who": "ci", "lapse_run": "run-1"}
    assert about["orphan"] is True
    assert 3500 < about["ttl"] <= 3600

    assert [k.id for k in issuer.orphans(ref, before, START, "run-1")] == [new.ref.id]
    assert issuer.orphans(ref, before, START, "run-2") == []
    assert issuer.orphans(ref, [new.ref.id], START, "run-1") == []

    assert issuer.state(ref) is State.ACTIVE
    issuer.retire(ref)
    issuer.retire(ref)
    assert issuer.state(ref) is State.GONE
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(openbao.url, token=leaked["client_token"]).auth.token.lookup_self()
    assert hvac.Client(openbao.url, token=new.parts["secret"].reveal()).auth.token.lookup_self()
    with pytest.raises(ProviderError) as e:
        issuer.locate(credential("vault_token", secret=leaked["client_token"]))
    assert e.value.trouble is Trouble.GONE
    assert leaked["client_token"] not in str(e.value)


def test_its_children_die_with_it_and_the_plan_says_so(root: Any, openbao: Server) -> None:
    root.sys.create_or_update_policy("parent", 'path "auth/token/create" { capabilities=["update"] }')
    parent = root.auth.token.create(policies=["parent"], ttl="1h")["auth"]
    child = hvac.Client(openbao.url, token=parent["client_token"]).auth.token.create(ttl="10m")["auth"]
    issuer = make({})
    issuer.retire(issuer.locate(credential("vault_token", secret=parent["client_token"])))
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(openbao.url, token=child["client_token"]).auth.token.lookup_self()
    assert "made with it dies too" in issuer.also_dies


def test_evidence_names_what_the_policies_open(leaked: dict[str, Any], root: Any) -> None:
    issuer = make({})
    ref = issuer.locate(credential("vault_token", secret=leaked["client_token"]))
    facts = {f.about: f.text for f in issuer.evidence(ref, None)}
    assert "secret/data/app/*" in facts["policy reads-app"]
    assert "auth/token/create" in facts["owner"]


def test_the_leaked_token_is_never_its_own_admin(
    leaked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, root: Any
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", leaked["client_token"])
    with pytest.raises(ProviderError, match="never rotates itself") as e:
        make({}).locate(credential("vault_token", secret=leaked["client_token"]))
    assert e.value.trouble is Trouble.DENIED


def test_an_admin_without_rights_is_told_before_anything_changes(
    leaked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, root: Any
) -> None:
    weak = root.auth.token.create(policies=["default"], ttl="1h")["auth"]["client_token"]
    monkeypatch.setenv("WEAK", weak)
    with pytest.raises(ProviderError, match="lacks update on auth/token/lookup") as e:
        make({"token_env": "WEAK"}).preflight(ANY_KEY)
    assert e.value.trouble is Trouble.DENIED
    with pytest.raises(ProviderError) as e:
        make({"token_env": "WEAK"}).locate(credential("vault_token", secret=leaked["client_token"]))
    assert e.value.trouble is Trouble.DENIED


def test_batch_tokens_and_log_ins_are_refused_with_a_reason(root: Any, leaked: dict[str, Any]) -> None:
    batch = root.auth.token.create(policies=["default"], ttl="1h", type="batch")["auth"]["client_token"]
    with pytest.raises(ProviderError, match="batch token") as e:
        make({}).locate(credential("vault_token", secret=batch))
    assert e.value.trouble is Trouble.REFUSED
    with pytest.raises(ProviderError, match="only revoked"):
        make({}).disable(make({}).locate(credential("vault_token", secret=leaked["client_token"])))


def test_a_dead_server_and_a_missing_address_are_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "x")
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    with pytest.raises(ProviderError) as e:
        make({}).preflight(ANY_KEY)
    assert e.value.trouble is Trouble.LATER
    monkeypatch.delenv("VAULT_ADDR")
    with pytest.raises(ProviderError, match="set VAULT_ADDR"):
        make({}).preflight(ANY_KEY)
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(ProviderError, match="set VAULT_TOKEN"):
        make({}).preflight(ANY_KEY)


def test_a_log_in_that_carries_our_mark_is_no_orphan_and_has_no_successor(root: Any, leaked: dict[str, Any]) -> None:
    with contextlib.suppress(hvac.exceptions.InvalidRequest):
        root.sys.enable_auth_method("approle")
    root.auth.approle.create_or_update_approle("marked", token_policies=["default"], token_ttl="20m")
    role_id = root.auth.approle.read_role_id("marked")["data"]["role_id"]
    secret_id = root.auth.approle.generate_secret_id("marked", metadata={"lapse_run": "run-7"})["data"]["secret_id"]
    login = root.auth.approle.login(role_id, secret_id, use_token=False)["auth"]
    issuer = make({})
    ref = issuer.locate(credential("vault_token", secret=leaked["client_token"]))
    assert issuer.orphans(ref, [ref.id], START, "run-7") == []
    from_login = issuer.locate(credential("vault_token", secret=login["client_token"]))
    with pytest.raises(ProviderError, match="came from a log-in at auth/approle/login") as e:
        issuer.mint(from_login, "run-8")
    assert e.value.trouble is Trouble.REFUSED


def test_what_an_outage_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "x")
    ref = KeyRef("acc", "who")
    with Sim(lambda _: (500, {})) as sim:
        monkeypatch.setenv("VAULT_ADDR", sim.url)
        for reply, trouble in (
            ((429, {"errors": ["quota"]}), Trouble.LATER),
            ((500, {"errors": ["storage: the-secret"]}), Trouble.LATER),
            ((502, {}), Trouble.LATER),
            ((503, {"errors": ["Vault is sealed"]}), Trouble.LATER),
            ((401, {"errors": ["no"]}), Trouble.DENIED),
            ((403, {"errors": ["permission denied"]}), Trouble.DENIED),
            ((405, {"errors": ["unsupported operation"]}), Trouble.REFUSED),
            ((307, {}, {"location": "http://127.0.0.1:1/"}), Trouble.LATER),
        ):
            sim.fail = [reply]
            with pytest.raises(ProviderError) as e:
                make({}).retire(ref)
            assert e.value.trouble is trouble, reply
        sim.fail = [(403, {"errors": ["permission denied"]})]
        with pytest.raises(ProviderError):
            make({}).state(ref)
