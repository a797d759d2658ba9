"""Ways that make a static key unnecessary: a real OpenBao before a real PostgreSQL; log-ins by tokens signed here."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import hvac.exceptions
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hands import admin, credential
from psycopg import sql

from rotators.interface import Presence, ProviderError, Successor, Trouble
from rotators.step import Done, Failed, Waiting
from rotators.successors.vault_database_dynamic import make as dynamic
from rotators.successors.vault_database_static import make as static
from rotators.successors.vault_jwt_role import make as jwt_role

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server

    from verifier.model import Credential

RUN, LATER_RUN = "lapse-r-1", "lapse-r-2"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class House:
    """OpenBao with a database engine of this test's own, a leaked user of PostgreSQL, and a platform that signs."""

    def __init__(self, openbao: Server, postgresql: Server, folder: Path) -> None:
        self.bao, self.server = admin(openbao), postgresql
        self.mount, self.user = f"db-{uuid4().hex[:8]}", f"app_{uuid4().hex[:8]}"
        self.jwt_mount = f"jwt-{uuid4().hex[:8]}"
        a = postgresql.admin
        self.db = psycopg.connect(
            host=postgresql.host, port=postgresql.port, user=a["username"], password=a["password"],
            dbname="postgres", autocommit=True,
        )  # fmt: skip
        boss = f"bao_{uuid4().hex[:8]}"
        for name, rights in ((boss, "SUPERUSER"), (self.user, "NOSUPERUSER")):
            self.db.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'leaked' " + rights).format(sql.Identifier(name)))
        self.bao.sys.enable_secrets_engine("database", self.mount)
        self.connect(boss)
        self.key = rsa.generate_private_key(65537, 2048)
        self.keys_file = folder / "keys.pem"
        plain = serialization.PublicFormat.SubjectPublicKeyInfo
        self.keys_file.write_bytes(self.key.public_key().public_bytes(serialization.Encoding.PEM, plain))
        self.token_file = folder / "token"

    def connect(self, boss: str) -> None:
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{self.server.host}:{self.server.port}/postgres"
        self.bao.secrets.database.configure(
            name="pg", plugin_name="postgresql-database-plugin", allowed_roles=["*"], mount_point=self.mount,
            connection_url=url, username=boss, password="leaked",
        )  # fmt: skip

    @property
    def old(self) -> Credential:
        return credential(
            "postgres", username=self.user, password="leaked", host=self.server.host, port=str(self.server.port)
        )

    def database(self, **more: str) -> dict[str, str]:
        return {"role": "app", "connection": "pg", "mount": self.mount, **more}

    def ci(self, **more: str) -> dict[str, str]:
        return {
            "role": "ci", "mount": self.jwt_mount, "audience": "https://vault.example",
            "keys_file": str(self.keys_file), "claims": "repository=acme/app, ref=refs/heads/main",
            "grants": "read+list secret/data/ci/*", **more,
        }  # fmt: skip

    def sign(self, **claims: str) -> str:
        now = int(time.time())
        body = {
            "iss": "https://token.actions.githubusercontent.com", "aud": "https://vault.example", "iat": now,
            "exp": now + 300, "sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app",
            "ref": "refs/heads/main", **claims,
        }  # fmt: skip
        token = jwt.encode(body, self.key, algorithm="RS256")
        self.token_file.write_text(token)
        return token

    def log_in(self, token: str) -> Any:
        return self.bao.adapter.post(f"/v1/auth/{self.jwt_mount}/login", json={"role": "ci", "jwt": token})["auth"]

    def opens(self, user: str, password: str) -> bool:
        try:
            psycopg.connect(
                host=self.server.host, port=self.server.port, user=user, password=password, dbname="postgres"
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def users(self) -> list[str]:
        query = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%%' AND pg_has_role(oid, %s, 'member')"
        rows = self.db.execute(query, (self.user,)).fetchall()
        return [row[0] for row in rows]

    def close(self) -> None:
        self.db.close()
        for remove in (
            lambda: self.bao.sys.disable_secrets_engine(self.mount),
            lambda: self.bao.sys.disable_auth_method(self.jwt_mount),
            lambda: self.bao.sys.delete_policy("lapse-ci"),
        ):
            with contextlib.suppress(hvac.exceptions.VaultError):
                remove()


@pytest.fixture
def house(openbao: Server, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    made = House(openbao, postgresql, tmp_path)
    yield made
    made.close()


def refusal(call: Any, words: str, trouble: Trouble = Trouble.REFUSED) -> None:
    with pytest.raises(ProviderError, match=words) as e:
        call()
    assert e.value.trouble is trouble


# ── a dynamic role ─────────────────────────────────────────────────────────────────────────────────────


def test_a_dynamic_role_gives_log_ins_that_work_and_end(house: House) -> None:
    way = dynamic(house.database())
    assert isinstance(way, Successor)
    assert (way.reversible, way.displaces(house.old)) == (True, False)
    assert "postgres" not in way.about()
    assert way.snapshot() == ""
    way.preflight(house.old)
    assert way.present(house.old, RUN) is Presence.ABSENT
    for _ in range(2):
        assert isinstance(way.setup(house.old, RUN), Done)
        assert way.present(house.old, RUN) is Presence.OURS
    done = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(done, Done), done
    assert "revoked and refused again" in done.note
    assert house.users() == [], "nothing of the check is left"
    assert house.opens(house.user, "leaked"), "the static key still stands"
    lease = house.bao.secrets.database.generate_credentials("app", mount_point=house.mount)["data"]
    with psycopg.connect(host=house.server.host, port=house.server.port, user=lease["username"],
                         password=lease["password"], dbname="postgres") as db:  # fmt: skip
        row = db.execute("SELECT current_user, session_user").fetchone()
    assert row == (house.user, lease["username"]), "it acts as the leaked user did"
    for _ in range(2):
        assert isinstance(way.undo(house.old, RUN, ""), Done)
        assert way.present(house.old, RUN) is Presence.ABSENT


def test_somebody_elses_dynamic_role_is_never_touched(house: House) -> None:
    theirs = {"db_name": "pg", "creation_statements": ['CREATE ROLE "{{name}}"'], "default_ttl": "5m"}
    path = f"/v1/{house.mount}/roles/app"
    house.bao.adapter.post(path, json=theirs)
    before = house.bao.adapter.get(path)["data"]
    way = dynamic(house.database())
    assert way.present(house.old, RUN) is Presence.OTHERS
    said = way.setup(house.old, RUN)
    assert isinstance(said, Failed)
    assert "--set replace.role" in said.hint
    assert isinstance(way.check(house.old, RUN, LONG_AGO), Failed)
    assert isinstance(way.undo(house.old, RUN, ""), Done)
    assert house.bao.adapter.get(path)["data"] == before


def test_an_earlier_rotations_role_is_changed_and_restored(house: House) -> None:
    first, second = dynamic(house.database(ttl="10m")), dynamic(house.database(ttl="20m"))
    first.setup(house.old, RUN)
    before = second.snapshot()
    assert second.present(house.old, LATER_RUN) is Presence.EARLIER
    assert isinstance(second.setup(house.old, LATER_RUN), Done)
    assert isinstance(second.check(house.old, LATER_RUN, LONG_AGO), Done)
    assert isinstance(first.check(house.old, RUN, LONG_AGO), Failed), "it is not the first run's any more"
    for _ in range(2):
        assert isinstance(second.undo(house.old, LATER_RUN, before), Done)
        assert second.snapshot() == before
    assert first.present(house.old, RUN) is Presence.OURS


def test_what_somebody_changed_since_is_not_removed(house: House) -> None:
    way = dynamic(house.database())
    way.setup(house.old, RUN)
    path = f"/v1/{house.mount}/roles/app"
    house.bao.adapter.post(path, json={**house.bao.adapter.get(path)["data"], "max_ttl": "99h"})
    assert way.present(house.old, RUN) is Presence.OTHERS
    assert isinstance(way.setup(house.old, RUN), Failed)
    assert isinstance(way.undo(house.old, RUN, ""), Failed)
    assert way.snapshot() != ""


def test_a_dynamic_role_that_lets_nobody_in_is_found_out(house: House, tmp_path: Path) -> None:
    file = tmp_path / "statements.sql"
    file.write_text("-- how a user is made\nCREATE ROLE \"{{name}}\" NOLOGIN PASSWORD '{{password}}';\n")
    way = dynamic(house.database(statements=str(file)))
    way.setup(house.old, RUN)
    said = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(said, Failed)
    assert "refuses a fresh log-in" in said.reason
    assert house.users() == []
    file.write_text("SELECT 1;")
    refusal(lambda: way.present(house.old, RUN), "makes no user")
    refusal(lambda: dynamic(house.database(statements="/no/such")).preflight(house.old), "cannot read statements")
    refusal(lambda: dynamic(house.database(grant='x"; DROP')).preflight(house.old), "no role that could be written")


def test_a_preflight_finds_what_would_stop_a_role(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal(lambda: dynamic(house.database(connection="no")).preflight(house.old), "no connection no", Trouble.GONE)
    house.bao.adapter.post(f"/v1/{house.mount}/config/pg", json={
        **house.bao.adapter.get(f"/v1/{house.mount}/config/pg")["data"]["connection_details"],
        "plugin_name": "postgresql-database-plugin", "allowed_roles": ["other"], "verify_connection": False,
    })  # fmt: skip
    refusal(lambda: dynamic(house.database()).preflight(house.old), "lets no role app in")
    refusal(lambda: static(house.database()).preflight(house.old), "lets no role app in")
    no_place = credential("postgres", username=house.user, password="leaked")
    refusal(lambda: dynamic(house.database(role="other")).preflight(no_place), "replace.host")
    weak = house.bao.auth.token.create(policies=["default"])["auth"]["client_token"]
    monkeypatch.setenv("VAULT_TOKEN", weak)
    for way in (dynamic(house.database()), static(house.database()), jwt_role(house.ci())):
        refusal(lambda way=way: way.preflight(house.old), "lacks|denied", Trouble.DENIED)


# ── a static role ──────────────────────────────────────────────────────────────────────────────────────


def test_a_static_role_takes_the_leaked_password_over(house: House) -> None:
    way = static(house.database())
    assert isinstance(way, Successor)
    assert (way.reversible, way.displaces(house.old)) == (False, True)
    assert not static(house.database(username="other")).displaces(house.old)
    way.preflight(house.old)
    assert way.snapshot() == ""
    assert way.present(house.old, RUN) is Presence.ABSENT
    assert house.opens(house.user, "leaked")
    assert isinstance(way.setup(house.old, RUN), Done)
    first = house.bao.secrets.database.get_static_credentials("app", mount_point=house.mount)["data"]["password"]
    assert not house.opens(house.user, "leaked"), "it died in that moment"
    assert isinstance(way.setup(house.old, RUN), Done), "a crash before the record: not set a second time"
    again = house.bao.secrets.database.get_static_credentials("app", mount_point=house.mount)["data"]["password"]
    assert first == again
    assert isinstance(way.check(house.old, RUN, LONG_AGO), Done)
    assert isinstance(way.undo(house.old, RUN, ""), Failed)
    assert way.present(house.old, LATER_RUN) is Presence.OTHERS
    assert isinstance(static(house.database()).setup(house.old, LATER_RUN), Failed)
    refusal(lambda: static(house.database(role="second")).preflight(house.old), "manages .* already")
    house.db.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(house.user)))
    said = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(said, Failed)
    assert "refuses the log-in" in said.reason


# ── a JWT role ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_jwt_role_lets_this_repository_in_and_no_other(house: House) -> None:
    way = jwt_role(house.ci(jwt_file=str(house.token_file)))
    assert isinstance(way, Successor)
    assert (way.reversible, way.displaces(house.old)) == (True, False)
    house.sign()
    way.preflight(house.old)
    assert way.snapshot() == ""
    assert way.present(house.old, RUN) is Presence.ABSENT
    for _ in range(2):
        assert isinstance(way.setup(house.old, RUN), Done)
        assert way.present(house.old, RUN) is Presence.OURS
    said = way.check(house.old, RUN, LONG_AGO)
    assert isinstance(said, Done), said
    auth = house.log_in(house.sign())
    assert auth["lease_duration"] == 900
    assert "lapse-ci" in auth["token_policies"]
    for claims in ({"repository": "evil/app"}, {"aud": "https://other"}, {"iss": "https://other"}, {"ref": "refs/x"}):
        token = house.sign(**claims)
        with pytest.raises(hvac.exceptions.InvalidRequest):
            house.log_in(token)
        failed = way.check(house.old, RUN, LONG_AGO)
        assert isinstance(failed, Failed)
        assert token not in repr(failed)
    for _ in range(2):
        assert isinstance(way.undo(house.old, RUN, ""), Done)
        assert way.snapshot() == ""
    assert f"{house.jwt_mount}/" not in house.bao.sys.list_auth_methods()["data"], "the method was ours as well"


def test_without_a_token_ci_has_to_be_seen(house: House) -> None:
    way = jwt_role(house.ci())
    way.setup(house.old, RUN)
    began = datetime.now(UTC)
    said = way.check(house.old, RUN, began)
    assert isinstance(said, Waiting)
    assert said.on == "person"
    assert "then `lapse resume r-1`" in said.instructions
    accessor = house.log_in(house.sign())["accessor"]
    done = way.check(house.old, RUN, began)
    assert isinstance(done, Done)
    house.bao.auth.token.revoke_accessor(accessor)
    done = way.check(house.old, RUN, began)
    assert isinstance(done, Done), "its alias tells when the token has ended"
    assert "repo:acme/app" in done.note
    later = datetime.now(UTC)
    assert isinstance(way.check(house.old, RUN, later), Waiting), "a log-in from before does not count"
    house.log_in(house.sign())
    assert isinstance(way.check(house.old, RUN, later), Done), "the alias is not touched by it, but its token lives"


@pytest.mark.parametrize("at", ["policy", "role"])
def test_nothing_of_others_at_the_jwt_mount_is_touched(house: House, at: str) -> None:
    house.bao.sys.enable_auth_method("jwt", path=house.jwt_mount)
    config = {"bound_issuer": "https://token.actions.githubusercontent.com",
              "jwt_validation_pubkeys": [house.keys_file.read_text()]}  # fmt: skip
    house.bao.adapter.post(f"/v1/auth/{house.jwt_mount}/config", json=config)
    if at == "policy":
        house.bao.sys.create_or_update_policy("lapse-ci", 'path "x" { capabilities = ["read"] }')
    else:
        role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["x"], "token_policies": ["theirs"]}
        house.bao.adapter.post(f"/v1/auth/{house.jwt_mount}/role/ci", json=role)
    way = jwt_role(house.ci())
    way.preflight(house.old)
    before = way.snapshot()
    assert way.present(house.old, RUN) is Presence.OTHERS
    assert isinstance(way.setup(house.old, RUN), Failed)
    assert isinstance(way.undo(house.old, RUN, ""), Done)
    assert way.snapshot() == before
    assert f"{house.jwt_mount}/" in house.bao.sys.list_auth_methods()["data"]


def test_a_jwt_mount_of_another_issuer_or_sort_is_refused(house: House) -> None:
    house.bao.sys.enable_auth_method("jwt", path=house.jwt_mount)
    config = {"bound_issuer": "https://other.example", "jwt_validation_pubkeys": [house.keys_file.read_text()]}
    house.bao.adapter.post(f"/v1/auth/{house.jwt_mount}/config", json=config)
    refusal(lambda: jwt_role(house.ci()).preflight(house.old), "trusts https://other.example")
    house.bao.sys.disable_auth_method(house.jwt_mount)
    house.bao.sys.enable_auth_method("userpass", path=house.jwt_mount)
    refusal(lambda: jwt_role(house.ci()).preflight(house.old), "of type userpass")
    refusal(
        lambda: jwt_role(house.ci(mount="free", policies="no-such")).preflight(house.old), "no policy", Trouble.GONE
    )


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_a_jwt_role_survives_a_crash_between_any_two_writes(
    house: House, earlier: bool, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rotators.successors import vault_jwt_role as module

    real = {name: getattr(module, name) for name in ("write", "delete")}
    countdown = [-1]

    def dying(name: str) -> Any:
        def call(*args: Any) -> None:
            countdown[0] -= 1
            if countdown[0] == 0:
                raise Died
            real[name](*args)

        return call

    for name in real:
        monkeypatch.setattr(module, name, dying(name))
    first, way = jwt_role(house.ci(ttl="5m")), jwt_role(house.ci())
    for at in range(1, 6):
        if earlier:
            first.setup(house.old, RUN)
        before = way.snapshot()
        if back:
            way.setup(house.old, LATER_RUN)
        countdown[0] = at
        with contextlib.suppress(Died):
            way.undo(house.old, LATER_RUN, before) if back else way.setup(house.old, LATER_RUN)
        countdown[0] = -1
        if not back:
            assert isinstance(way.setup(house.old, LATER_RUN), Done), at
            assert way.present(house.old, LATER_RUN) is Presence.OURS
        assert isinstance(way.undo(house.old, LATER_RUN, before), Done), at
        assert way.snapshot() == before
        if earlier:
            assert first.present(house.old, RUN) is Presence.OURS
            first.undo(house.old, RUN, "")


# ── settings ───────────────────────────────────────────────────────────────────────────────────────────

GOOD = {"role": "ci", "audience": "a", "claims": "repository=acme/app", "grants": "read x"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "a/b"}, "needs a `role`"),
        ({"mount": "../x"}, "no path of Vault's"),
        ({"ttl": "soon"}, "is no time"),
        ({"audience": ""}, "audience"),
        ({"claims": ""}, "everybody's CI"),
        ({"claims": "ref=refs/heads/main"}, "names no repository"),
        ({"claims": "repository=acme/*"}, "without \\*"),
        ({"claims": "repository"}, "name=value"),
        ({"grants": ""}, "what the log-in may do"),
        ({"grants": "sudo secret/x"}, "is not of the form"),
        ({"grants": 'read x" { }'}, "is not of the form"),
        ({"grants": "", "policies": "root"}, "policy root"),
    ],
)
def test_a_role_that_would_let_too_many_in_is_refused(change: dict[str, str], words: str) -> None:
    jwt_role(GOOD)
    refusal(lambda: jwt_role({**GOOD, **change}), words)


def test_database_roles_name_what_they_build_on() -> None:
    for make in (dynamic, static):
        refusal(lambda make=make: make({"role": "app"}), "needs a `connection`")
        refusal(lambda make=make: make({"connection": "pg"}), "needs a `role`")
    refusal(lambda: static({"role": "a", "connection": "b", "period": "0s"}), "is no time")
