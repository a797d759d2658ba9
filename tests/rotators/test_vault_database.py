"""Static roles, root log-ins, leases and log-ins: a real OpenBao before a real PostgreSQL."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import hvac.exceptions
import psycopg
import pytest
from hands import ANY_KEY, admin, credential, secrets
from sim_http import Sim

from rotators.interface import Issuer, KeyRef, ProviderError, Replacer, SessionKiller, State, Store, Stored, Trouble
from rotators.issuers.vault_database import make
from rotators.sessions.vault_revoke import make as revoker
from rotators.step import Done, Failed
from rotators.stores.vault_static_creds import make as store_of

if TYPE_CHECKING:
    from servers import Server


def opens(server: Server, user: str, password: str) -> bool:
    try:
        psycopg.connect(host=server.host, port=server.port, user=user, password=password, dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def bao(openbao: Server, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    client = admin(openbao)
    a = postgresql.admin
    with psycopg.connect(
        host=postgresql.host,
        port=postgresql.port,
        user=a["username"],
        password=a["password"],
        dbname="postgres",
        autocommit=True,
    ) as db:
        with contextlib.suppress(hvac.exceptions.InvalidRequest):
            client.sys.disable_secrets_engine("rota-db")
        for role in ("baoadmin", "appsvc"):
            db.execute(f"DROP ROLE IF EXISTS {role}")
        db.execute("CREATE ROLE baoadmin SUPERUSER LOGIN PASSWORD 'baofirst'")
        db.execute("CREATE ROLE appsvc LOGIN PASSWORD 'first'")
    client.sys.enable_secrets_engine("database", "rota-db")
    client.secrets.database.configure(
        name="pg",
        plugin_name="postgresql-database-plugin",
        allowed_roles=["*"],
        mount_point="rota-db",
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgresql.host}:{postgresql.port}/postgres",
        username="baoadmin",
        password="baofirst",
    )
    client.secrets.database.create_static_role(
        "app", db_name="pg", username="appsvc", rotation_statements=None, rotation_period=86400, mount_point="rota-db"
    )
    return client


def leaked(bao: Any, server: Server) -> Any:
    creds = bao.secrets.database.get_static_credentials("app", mount_point="rota-db")["data"]
    return credential("postgres", username=creds["username"], password=creds["password"], host=server.host)


def test_a_static_role_is_rotated_by_the_server(bao: Any, postgresql: Server) -> None:
    settings = {"role": "app", "mount": "rota-db"}
    issuer, store = make(settings), store_of(settings)
    assert isinstance(issuer, Issuer)
    assert isinstance(issuer, Replacer)
    assert isinstance(store, Store)
    issuer.preflight(ANY_KEY)
    old = leaked(bao, postgresql)
    password = old.parts["password"].reveal()
    assert opens(postgresql, "appsvc", password)
    ref = issuer.locate(old)
    before = store.current()
    new = issuer.mint(ref, "run-1")
    assert set(new.parts) == {"username"}
    put = store.put(new.parts, before, "run-1")
    assert opens(postgresql, "appsvc", password)
    assert store.restore(put.version, "run-1").version == before.version

    issuer.apply(ref, new.parts)
    rotated = store.fetch()["password"].reveal()
    issuer.apply(ref, new.parts)  # a crash before the record: not rotated a second time
    assert store.fetch()["password"].reveal() == rotated
    assert not opens(postgresql, "appsvc", password)
    assert opens(postgresql, "appsvc", rotated)
    assert issuer.state(ref) is State.GONE
    assert "pg" in issuer.evidence(ref, None)[0].text

    with pytest.raises(ProviderError, match="rotated already"):
        issuer.locate(old)
    with pytest.raises(ProviderError) as e:
        store.restore(put.version, "run-1")
    assert e.value.trouble is Trouble.GONE
    with pytest.raises(ProviderError) as e:
        store.put(new.parts, before, "run-1")
    assert e.value.trouble is Trouble.CONFLICT
    with pytest.raises(ProviderError, match="none can be stored"):
        store.put(secrets(password="mine"), Stored("x"), "run-1")


def test_the_root_log_in_is_known_to_nobody_afterwards(bao: Any, postgresql: Server) -> None:
    issuer = make({"connection": "pg", "mount": "rota-db"})
    issuer.preflight(ANY_KEY)
    old = credential("postgres", username="baoadmin", password="baofirst", host=postgresql.host)
    ref = issuer.locate(old)
    assert "postgresql-database-plugin" in issuer.evidence(ref, None)[0].text
    assert opens(postgresql, "baoadmin", "baofirst")
    issuer.apply(ref, issuer.mint(ref, "m").parts)
    assert not opens(postgresql, "baoadmin", "baofirst")
    assert leaked(bao, postgresql)
    with pytest.raises(ProviderError, match="another user or elsewhere"):
        issuer.locate(credential("postgres", username="somebody", password="x"))
    with pytest.raises(ProviderError, match="another user or elsewhere"):
        issuer.locate(credential("postgres", username="baoadmin", password="x", host="db.example"))


def test_leases_below_a_prefix_are_revoked_before_we_go_on(bao: Any, postgresql: Server) -> None:
    bao.secrets.database.create_role(
        "dyn",
        db_name="pg",
        creation_statements=["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"],
        default_ttl="1h",
        max_ttl="24h",
        mount_point="rota-db",
    )
    creds = [bao.secrets.database.generate_credentials("dyn", mount_point="rota-db")["data"] for _ in range(2)]
    assert all(opens(postgresql, c["username"], c["password"]) for c in creds)
    killer = revoker({"prefix": "rota-db/creds/dyn"})
    assert isinstance(killer, SessionKiller)
    old = credential("postgres", username=creds[0]["username"], password="x")
    for _ in range(2):
        assert isinstance(killer.kill(old, KeyRef("x", "x"), datetime.now(UTC)), Done)
        assert not any(opens(postgresql, c["username"], c["password"]) for c in creds)
    assert isinstance(killer.undo(old, KeyRef("x", "x")), Failed)


def test_log_ins_of_a_role_from_before_the_moment_end(bao: Any) -> None:
    with contextlib.suppress(hvac.exceptions.InvalidRequest):
        bao.sys.enable_auth_method("approle")
    tokens = {}
    for role in ("leaky", "sound"):
        bao.auth.approle.create_or_update_approle(role, token_policies=["default"], token_ttl="20m")
        role_id = bao.auth.approle.read_role_id(role)["data"]["role_id"]
        secret_id = bao.auth.approle.generate_secret_id(role)["data"]["secret_id"]
        tokens[role] = bao.auth.approle.login(role_id, secret_id, use_token=False)["auth"]["accessor"]
    killer, old = revoker({"role": "leaky"}), credential("vault_approle", secret="x")
    early = killer.kill(old, KeyRef("x", "x"), datetime.now(UTC) - timedelta(hours=1))
    assert isinstance(early, Done)
    assert early.output == {"killed": "0"}
    done = killer.kill(old, KeyRef("x", "x"), datetime.now(UTC))
    assert isinstance(done, Done)
    assert done.output == {"killed": "1"}
    bao.auth.token.lookup_accessor(tokens["sound"])
    with pytest.raises(hvac.exceptions.VaultError):
        bao.auth.token.lookup_accessor(tokens["leaky"])


def test_settings_that_say_too_little_or_too_much() -> None:
    for build in (
        lambda: make({}),
        lambda: make({"role": "a", "connection": "b"}),
        lambda: store_of({}),
        lambda: revoker({}),
        lambda: revoker({"prefix": "a", "role": "b"}),
    ):
        with pytest.raises(ProviderError) as e:
            build()
        assert e.value.trouble is Trouble.REFUSED


def test_leases_that_cannot_be_revoked_now_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "x")
    old, ref = credential("postgres", username="u", password="x"), KeyRef("x", "x")
    with Sim(lambda _: (400, {"errors": ["failed to revoke entry: database is down"]})) as sim:
        monkeypatch.setenv("VAULT_ADDR", sim.url)
        said = revoker({"prefix": "database/creds/app"}).kill(old, ref, datetime.now(UTC))
        assert isinstance(said, Failed)
        assert said.retry_after is not None
        sim.fail = [(403, {"errors": ["permission denied"]})]
        with pytest.raises(ProviderError) as e:
            revoker({"prefix": "database/creds/app"}).kill(old, ref, datetime.now(UTC))
        assert e.value.trouble is Trouble.DENIED
