"""MariaDB account passwords and sessions, on a real server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from hands import ANY_KEY, credential

from rotators.interface import Issuer, ProviderError, Replacer, State, Trouble
from rotators.issuers.mysql import make
from rotators.sessions.database_sessions import make as sessions
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

OLD = "leaked-" + "q" * 20


def login(server: Server, user: str, password: str) -> Any:
    return pymysql.connect(host=server.host, port=server.port, user=user, password=password)


@pytest.fixture
def db(mariadb: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    a = mariadb.admin
    url = f"mysql://{a['username']}:{a['password']}@{mariadb.host}:{mariadb.port}/"
    monkeypatch.setenv("LAPSE_MYSQL_ADMIN", url)
    with pymysql.connect(
        host=mariadb.host, port=mariadb.port, user=a["username"], password=a["password"], autocommit=True
    ) as connection:
        c = connection.cursor()
        c.execute("CREATE OR REPLACE USER rota@'%%' IDENTIFIED BY %s", (OLD,))
        yield c
        for host in ("%", "10.%"):
            c.execute("DROP USER IF EXISTS rota@%s", (host,))


def leaked(server: Server, password: str = OLD) -> Any:
    return credential("mysql", username="rota", password=password, host=server.host, port=str(server.port))


def test_a_password_is_replaced_without_the_log_seeing_it(db: Any, mariadb: Server) -> None:
    issuer = make({})
    assert isinstance(issuer, Issuer)
    assert isinstance(issuer, Replacer)
    assert "MariaDB" in issuer.preflight(ANY_KEY)[0].text
    db.execute("CREATE USER rota@'10.%' IDENTIFIED BY 'a colleague'")
    ref = issuer.locate(leaked(mariadb))
    assert ref.id == "rota@%"
    assert {k.id for k in issuer.siblings(ref)} == {"rota@%", "rota@10.%"}
    new = issuer.mint(ref, "run-1")
    login(mariadb, "rota", OLD).close()
    issuer.apply(ref, new.parts)
    issuer.apply(ref, new.parts)
    password = new.parts["password"].reveal()
    login(mariadb, "rota", password).close()
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        login(mariadb, "rota", OLD)
    with pytest.raises(ProviderError, match="changed already"):
        issuer.locate(leaked(mariadb))
    log = (mariadb.folder / "general.log").read_text(errors="replace")
    assert "ALTER USER" in log
    assert password not in log


def test_lock_unlock_and_end_sessions(db: Any, mariadb: Server) -> None:
    issuer = make({})
    ref = issuer.locate(leaked(mariadb))
    held = login(mariadb, "rota", OLD)
    issuer.disable(ref)
    issuer.disable(ref)
    assert issuer.state(ref) is State.DISABLED
    with pytest.raises(pymysql.OperationalError):
        login(mariadb, "rota", OLD)
    held.ping(reconnect=False)
    issuer.enable(ref)
    assert issuer.state(ref) is State.ACTIVE
    facts = {f.about: f.text for f in issuer.evidence(ref, None)}
    assert "USAGE" in facts["grants"]
    assert "127.0.0.1" in facts["connected now"]
    assert "PASSWORD" not in facts["grants"]
    done = sessions({"database": "mysql"}).kill(leaked(mariadb), ref, datetime.now(UTC))
    assert isinstance(done, Done)
    assert done.output == {"killed": "1"}
    with pytest.raises(pymysql.MySQLError):
        held.ping(reconnect=False)


def test_one_password_at_two_hosts_asks_which(db: Any, mariadb: Server) -> None:
    db.execute("CREATE USER rota@'10.%%' IDENTIFIED BY %s", (OLD,))
    with pytest.raises(ProviderError, match="name one as account_host") as e:
        make({}).locate(leaked(mariadb))
    assert e.value.trouble is Trouble.REFUSED
    assert make({"account_host": "10.%"}).locate(leaked(mariadb)).id == "rota@10.%"
    with pytest.raises(ProviderError, match="no account"):
        make({"account_host": "192.%"}).locate(leaked(mariadb))


def test_an_account_whose_hash_cannot_be_compared_proves_the_server_by_host(db: Any, mariadb: Server) -> None:
    db.execute("INSTALL SONAME 'auth_ed25519'")
    db.execute("ALTER USER rota@'%%' IDENTIFIED VIA ed25519 USING PASSWORD(%s)", (OLD,))
    issuer = make({})
    ref = issuer.locate(leaked(mariadb))
    with pytest.raises(ProviderError, match="same_server"):
        issuer.locate(credential("mysql", username="rota", password=OLD, host="db.example"))
    new = issuer.mint(ref, "m")
    issuer.apply(ref, new.parts)
    password = new.parts["password"].reveal()
    assert password not in (mariadb.folder / "general.log").read_text(errors="replace")
    with pytest.raises(pymysql.OperationalError):
        login(mariadb, "rota", OLD)


def test_trouble_is_said_plainly(db: Any, mariadb: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = make({})
    ref = issuer.locate(leaked(mariadb))
    monkeypatch.setenv("LAPSE_MYSQL_ADMIN", f"mysql://rota:{OLD}@{mariadb.host}:{mariadb.port}/?tls=no")
    with pytest.raises(ProviderError, match="leaked user"):
        issuer.locate(leaked(mariadb))
    with pytest.raises(ProviderError, match="CREATE USER"):
        issuer.preflight(ANY_KEY)
    with pytest.raises(ProviderError) as e:
        issuer.disable(ref)
    assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("LAPSE_MYSQL_ADMIN", "mysql://admin:x@127.0.0.1:1/")
    with pytest.raises(ProviderError) as e:
        issuer.state(ref)
    assert e.value.trouble is Trouble.LATER
    with pytest.raises(ProviderError, match="none of"):
        sessions({"database": "oracle"})


@pytest.mark.parametrize(
    ("grants", "lacks"),
    [
        (("PROCESS, CONNECTION ADMIN ON *.*",), ""),
        (("ALL PRIVILEGES ON *.*",), ""),
        (("PROCESS, CREATE USER ON *.*",), "CONNECTION ADMIN"),
        (("CONNECTION ADMIN ON *.*",), "PROCESS"),
        (("SELECT ON mysql.*",), "PROCESS and CONNECTION ADMIN"),
    ],
)
def test_whether_sessions_can_be_ended_is_told_beforehand(
    db: Any, mariadb: Server, monkeypatch: pytest.MonkeyPatch, grants: tuple[str, ...], lacks: str
) -> None:
    db.execute("CREATE OR REPLACE USER helper@'%' IDENTIFIED BY 'h'")
    for grant in grants:
        db.execute(f"GRANT {grant} TO helper@'%'")
    monkeypatch.setenv("LAPSE_MYSQL_ADMIN", f"mysql://helper:h@{mariadb.host}:{mariadb.port}/")
    killer = sessions({"database": "mysql"})
    held = login(mariadb, "rota", OLD)
    try:
        if lacks:
            with pytest.raises(ProviderError, match=f"it needs {lacks}$") as e:
                killer.preflight(leaked(mariadb), ANY_KEY)
            assert e.value.trouble is Trouble.DENIED
        else:
            assert "may end sessions of rota" in killer.preflight(leaked(mariadb), ANY_KEY)[0].text
        held.ping(reconnect=False)
    finally:
        held.close()
        db.execute("DROP USER helper@'%'")


def test_rights_by_a_role_are_not_called_missing(db: Any, mariadb: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    db.execute("CREATE OR REPLACE USER helper@'%' IDENTIFIED BY 'h'")
    db.execute("CREATE OR REPLACE ROLE keeper")
    db.execute("GRANT keeper TO helper@'%'")
    monkeypatch.setenv("LAPSE_MYSQL_ADMIN", f"mysql://helper:h@{mariadb.host}:{mariadb.port}/")
    try:
        said = sessions({"database": "mysql"}).preflight(leaked(mariadb), ANY_KEY)[0].text
        assert said == "the admin has PROCESS and CONNECTION ADMIN by a role, if at all"
    finally:
        db.execute("DROP USER helper@'%'")
        db.execute("DROP ROLE keeper")
