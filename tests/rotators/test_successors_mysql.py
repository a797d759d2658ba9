"""Roles of OpenBao's database engine before a real MariaDB: the log-ins are tried as a client would."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import hvac.exceptions
import pymysql
import pytest
from hands import admin, credential

from rotators.interface import Presence
from rotators.step import Done, Failed
from rotators.successors.vault_database_dynamic import make as dynamic
from rotators.successors.vault_database_static import make as static

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

    from verifier.model import Credential

RUN, LONG_AGO = "lapse-r-1", datetime(2020, 1, 1, tzinfo=UTC)
STATEMENTS = """-- how a user is made
CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}';
GRANT SELECT ON mysql.help_topic TO '{{name}}'@'%';
"""


class House:
    """OpenBao with a database engine of this test's own, before MariaDB, where a user's password has leaked."""

    def __init__(self, openbao: Server, mariadb: Server) -> None:
        self.bao, self.server = admin(openbao), mariadb
        self.mount, self.user, self.boss = f"my-{uuid4().hex[:8]}", f"app_{uuid4().hex[:8]}", f"bao_{uuid4().hex[:8]}"
        a = mariadb.admin
        self.connection = self.enter(a["username"], a["password"])
        for name in (self.user, self.boss):
            self.sql(f"CREATE USER {name}@'%' IDENTIFIED BY 'leaked'")
        self.sql(f"GRANT ALL PRIVILEGES ON *.* TO {self.boss}@'%' WITH GRANT OPTION")
        self.bao.sys.enable_secrets_engine("database", self.mount)
        self.bao.secrets.database.configure(
            name="my", plugin_name="mysql-database-plugin", allowed_roles=["*"], mount_point=self.mount,
            connection_url=f"{{{{username}}}}:{{{{password}}}}@tcp({mariadb.host}:{mariadb.port})/",
            username=self.boss, password="leaked",
        )  # fmt: skip

    def enter(self, user: str, password: str) -> Any:
        return pymysql.connect(
            host=self.server.host, port=self.server.port, user=user, password=password, autocommit=True
        )

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as c:
            c.execute(text)
            return list(c.fetchall())

    def opens(self, user: str, password: str) -> bool:
        try:
            self.enter(user, password).close()
        except pymysql.OperationalError:
            return False
        return True

    def users(self) -> list[str]:
        return [row[0] for row in self.sql("SELECT User FROM mysql.user WHERE User LIKE 'v%'")]

    @property
    def old(self) -> Credential:
        return credential(
            "mysql", username=self.user, password="leaked", host=self.server.host, port=str(self.server.port)
        )

    def settings(self, **more: str) -> dict[str, str]:
        return {"role": "app", "connection": "my", "mount": self.mount, **more}

    def close(self) -> None:
        with contextlib.suppress(hvac.exceptions.VaultError):
            self.bao.sys.disable_secrets_engine(self.mount)
        for name in (self.user, self.boss):
            self.sql(f"DROP USER {name}@'%'")
        self.connection.close()


@pytest.fixture
def house(openbao: Server, mariadb: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    made = House(openbao, mariadb)
    yield made
    made.close()


def test_a_dynamic_role_gives_log_ins_that_work_and_end(house: House, tmp_path: Path) -> None:
    file = tmp_path / "statements.sql"
    file.write_text(STATEMENTS)
    way = dynamic(house.settings(statements=str(file)))
    way.preflight(house.old)
    for _ in range(2):
        assert isinstance(way.setup(house.old, RUN), Done)
        assert way.present(house.old, RUN) is Presence.OURS
    done = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(done, Done), done
    assert "revoked and refused again" in done.note
    assert house.users() == [], "nothing of the check is left"
    assert house.opens(house.user, "leaked"), "the static key still stands"
    lease = house.bao.secrets.database.generate_credentials("app", mount_point=house.mount)["data"]
    assert house.opens(lease["username"], lease["password"])
    assert house.users() == [lease["username"]]
    for _ in range(2):
        assert isinstance(way.undo(house.old, RUN, ""), Done)
        assert way.present(house.old, RUN) is Presence.ABSENT


def test_a_dynamic_role_that_lets_nobody_in_is_found_out(house: House, tmp_path: Path) -> None:
    file = tmp_path / "statements.sql"
    file.write_text("CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' ACCOUNT LOCK;\n")
    way = dynamic(house.settings(statements=str(file)))
    way.setup(house.old, RUN)
    said = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(said, Failed)
    assert "refuses a fresh log-in" in said.reason


def test_a_static_role_takes_the_leaked_password_over(house: House) -> None:
    way = static(house.settings())
    way.preflight(house.old)
    assert house.opens(house.user, "leaked")
    for _ in range(2):
        assert isinstance(way.setup(house.old, RUN), Done)
    assert not house.opens(house.user, "leaked"), "it died in that moment"
    done = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(done, Done), done
    held = house.bao.secrets.database.get_static_credentials("app", mount_point=house.mount)["data"]
    assert house.opens(house.user, held["password"])
    house.sql(f"ALTER USER {house.user}@'%' ACCOUNT LOCK")
    said = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(said, Failed)
    assert "refuses the log-in" in said.reason
