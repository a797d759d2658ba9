"""PostgreSQL role passwords and sessions, on a real server."""

from __future__ import annotations

import contextlib
import hashlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hands import ANY_KEY, credential

from rotators.interface import Issuer, KeyRef, ProviderError, Replacer, SessionKiller, State, Trouble
from rotators.issuers.postgresql import make, matches
from rotators.sessions.database_sessions import make as sessions
from rotators.step import Done, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

OLD = "leaked-" + "p" * 20


def login(server: Server, user: str, password: str) -> Any:
    return psycopg.connect(host=server.host, port=server.port, user=user, password=password, dbname="postgres")


@pytest.fixture
def db(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    a = postgresql.admin
    url = f"postgresql://{a['username']}:{a['password']}@{postgresql.host}:{postgresql.port}/postgres"
    monkeypatch.setenv("LAPSE_POSTGRESQL_ADMIN", url)
    with psycopg.connect(url, autocommit=True) as c:
        c.execute("DROP ROLE IF EXISTS rota")
        c.execute(f"CREATE ROLE rota LOGIN PASSWORD '{OLD}'")
        yield c
        c.execute("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'rota'")
        c.execute("DROP ROLE IF EXISTS rota")


def leaked(server: Server, password: str = OLD) -> Any:
    return credential("postgres", username="rota", password=password, host=server.host, port=str(server.port))


def test_a_password_is_replaced_without_the_server_seeing_it(db: Any, postgresql: Server) -> None:
    issuer = make({})
    assert isinstance(issuer, Issuer)
    assert isinstance(issuer, Replacer)
    assert "superuser" in issuer.preflight(ANY_KEY)[0].text
    ref = issuer.locate(leaked(postgresql))
    new = issuer.mint(ref, "run-1")
    login(postgresql, "rota", OLD).close()  # a mint changes nothing
    assert issuer.orphans(ref, [], datetime.now(UTC), "run-1") == []

    issuer.apply(ref, new.parts)
    issuer.apply(ref, new.parts)
    password = new.parts["password"].reveal()
    login(postgresql, "rota", password).close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(postgresql, "rota", OLD)
    with pytest.raises(ProviderError) as e:
        issuer.locate(leaked(postgresql))
    assert e.value.trouble is Trouble.GONE
    log = (postgresql.folder.parent / "server.log").read_text()
    assert "ALTER ROLE" in log
    assert password not in log
    issuer.retire(ref)
    assert issuer.state(ref) is State.ACTIVE
    assert [k.id for k in issuer.siblings(ref)] == ["rota"]


def test_disable_and_enable_and_sessions_that_outlive_both(db: Any, postgresql: Server) -> None:
    issuer, killer = make({}), sessions({"database": "postgresql"})
    assert isinstance(killer, SessionKiller)
    ref = issuer.locate(leaked(postgresql))
    before = login(postgresql, "rota", OLD)
    issuer.disable(ref)
    issuer.disable(ref)
    assert issuer.state(ref) is State.DISABLED
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        login(postgresql, "rota", OLD)
    before.execute("SELECT 1")  # still open: that is why there is a killer
    issuer.enable(ref)
    assert issuer.state(ref) is State.ACTIVE
    facts = {f.about: f.text for f in issuer.evidence(ref, None)}
    assert "postgres" in facts["connected now"]

    moment = datetime.now(UTC)
    time.sleep(0.05)
    after = login(postgresql, "rota", OLD)
    done = killer.kill(leaked(postgresql), ref, moment)
    assert isinstance(done, Done)
    assert done.output == {"killed": "1"}
    with pytest.raises(psycopg.OperationalError):
        before.execute("SELECT 1")
    after.execute("SELECT 1")
    after.close()
    before.close()
    assert isinstance(killer.undo(leaked(postgresql), ref), Failed)


def test_evidence_names_what_the_role_owns_and_reads(db: Any, postgresql: Server) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS payroll (n int)")
    db.execute("GRANT SELECT, UPDATE ON payroll TO rota")
    db.execute("GRANT pg_read_all_data TO rota")
    issuer = make({})
    facts = {f.about: f.text for f in issuer.evidence(issuer.locate(leaked(postgresql)), None)}
    assert facts["granted here"] == "public.payroll SELECT/UPDATE"
    assert facts["member of"] == "pg_read_all_data"
    db.execute("DROP TABLE payroll")


def test_somebody_else_or_nobody(db: Any, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = make({})
    with pytest.raises(ProviderError, match="changed already"):
        issuer.locate(leaked(postgresql, "another"))
    with pytest.raises(ProviderError, match="no role nobody") as e:
        issuer.locate(credential("postgres", username="nobody", password="x"))
    assert e.value.trouble is Trouble.GONE
    url = f"postgresql://rota:{OLD}@{postgresql.host}:{postgresql.port}/postgres"
    monkeypatch.setenv("LAPSE_POSTGRESQL_ADMIN", url)
    with pytest.raises(ProviderError, match="the leaked user rota itself"):
        issuer.locate(leaked(postgresql))
    with pytest.raises(ProviderError, match="CREATEROLE"):
        issuer.preflight(ANY_KEY)
    with pytest.raises(ProviderError) as e:
        issuer.disable(KeyRef("admin", "admin"))
    assert e.value.trouble is Trouble.DENIED
    assert OLD not in str(e.value)


def test_an_admin_who_may_not_compare_proves_the_server_by_host(
    db: Any, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute("DROP ROLE IF EXISTS keeper")
    db.execute("CREATE ROLE keeper LOGIN CREATEROLE PASSWORD 'keeps'")
    db.execute("GRANT rota TO keeper WITH ADMIN OPTION")
    url = f"postgresql://keeper:keeps@{postgresql.host}:{postgresql.port}/postgres"
    monkeypatch.setenv("LAPSE_POSTGRESQL_ADMIN", url)
    issuer = make({})
    ref = issuer.locate(leaked(postgresql))
    elsewhere = credential("postgres", username="rota", password=OLD, host="db.example")
    with pytest.raises(ProviderError, match="same_server"):
        issuer.locate(elsewhere)
    assert make({"same_server": "yes"}).locate(elsewhere) == ref
    issuer.apply(ref, issuer.mint(ref, "m").parts)
    with pytest.raises(psycopg.OperationalError):
        login(postgresql, "rota", OLD)
    monkeypatch.undo()
    db.execute("REVOKE rota FROM keeper")
    db.execute("DROP ROLE keeper")


def test_trouble_with_the_log_in_is_said_plainly(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"@{postgresql.host}:{postgresql.port}/postgres"
    for url, trouble in (
        ("", Trouble.DENIED),
        ("postgresql://[broken", Trouble.DENIED),
        (f"postgresql://admin:wrong{base}", Trouble.DENIED),
        ("postgresql://admin:x@127.0.0.1:1/postgres", Trouble.LATER),
    ):
        monkeypatch.setenv("LAPSE_POSTGRESQL_ADMIN", url)
        with pytest.raises(ProviderError) as e:
            make({}).locate(leaked(postgresql))
        assert e.value.trouble is trouble, url
        assert "wrong" not in str(e.value)
    with pytest.raises(ProviderError, match="length"):
        make({"length": "8"}).mint(KeyRef("x", "x"), "m")


def test_md5_and_unknown_verifiers() -> None:
    assert matches("md5" + "0" * 32, "u", "p") is False
    assert matches("md5" + hashlib.md5(b"pu").hexdigest(), "u", "p") is True  # noqa: S324  # PostgreSQL's own old form
    assert matches("", "u", "p") is False


@pytest.mark.parametrize(
    ("grant", "may"),
    [("", False), ("GRANT pg_signal_backend TO helper", True), ("GRANT rota TO helper", True)],
    ids=["nothing", "pg_signal_backend", "the role itself"],
)
def test_whether_sessions_can_be_ended_is_told_beforehand(
    db: Any, postgresql: Server, monkeypatch: pytest.MonkeyPatch, grant: str, may: bool
) -> None:
    killer = sessions({"database": "postgresql"})
    assert "may end sessions of rota" in killer.preflight(leaked(postgresql), ANY_KEY)[0].text
    db.execute("DROP ROLE IF EXISTS helper")
    db.execute("CREATE ROLE helper LOGIN CREATEROLE PASSWORD 'h'")
    if grant:
        db.execute(grant)
    monkeypatch.setenv("LAPSE_POSTGRESQL_ADMIN", f"postgresql://helper:h@{postgresql.host}:{postgresql.port}/postgres")
    refused = pytest.raises(ProviderError, match=r"helper may not end sessions of .*: grant pg_signal_backend")
    try:
        with login(postgresql, "rota", OLD) as held:
            with contextlib.nullcontext() if may else refused:
                killer.preflight(leaked(postgresql), ANY_KEY)
            if may:
                killer.kill(leaked(postgresql), ANY_KEY, datetime.now(UTC))
            with pytest.raises(psycopg.OperationalError) if may else contextlib.nullcontext():
                held.execute("SELECT 1")
        db.execute("ALTER ROLE rota SUPERUSER")
        with refused:
            killer.preflight(leaked(postgresql), ANY_KEY)
        with pytest.raises(ProviderError, match="no role nobody") as e:
            killer.preflight(credential("postgres", username="nobody"), ANY_KEY)
        assert e.value.trouble is Trouble.GONE
    finally:
        db.execute("DROP ROLE helper")
