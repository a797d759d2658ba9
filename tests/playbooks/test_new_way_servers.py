"""The shipped playbooks whose place a role takes, from the plan to the proven death: real OpenBao, real PostgreSQL."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import hvac
import hvac.exceptions
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from ledger_made import KEK, made
from psycopg import sql

from lapse.commands.setup import Setup
from lapse.exits import Stop
from lapse.ledger import Kept, Ownership, Scan
from lapse.rotation import Desk
from playbooks.journal import End, What
from playbooks.plan import Mode
from rotators.step import Done, Effect, Failed, Outcome, Waiting
from verifier.model import CredentialID, Finding, KindID, SourceKind
from verifier.model import Place as Where
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

CONFIG = """
[ledger]
url = "ledger.db"
key = "env:LAPSE_TEST_KEK"
[verify]
retries = 0
[egress]
allow_private = ["127.0.0.1/32"]
[providers.vault_token]
base_url = "BAO"
[rotate.set]
"retire.drain" = "0s"
"retire.soak" = "0s"
"prove.times" = "2"
"prove.window" = "300ms"
"""
RUN = "r-real"


class House:
    """A ledger with one leaked key, an OpenBao before a PostgreSQL, and a platform of CI that signs tokens."""

    def __init__(self, openbao: Server, postgresql: Server, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.pg, self.bao = folder, postgresql, hvac.Client(openbao.url, token=openbao.admin["token"])
        admin = postgresql.admin
        self.dsn = f"postgresql://{admin['username']}:{admin['password']}@{postgresql.host}:{postgresql.port}/postgres"
        for name, value in (
            ("VAULT_ADDR", openbao.url), ("VAULT_TOKEN", openbao.admin["token"]), ("LAPSE_POSTGRESQL_ADMIN", self.dsn),
        ):  # fmt: skip
            patch.setenv(name, value)
        self.user, self.mount = f"app_{uuid4().hex[:8]}", f"db-{uuid4().hex[:8]}"
        self.ledger = made(folder)
        (folder / "lapse.toml").write_text(
            CONFIG.replace("BAO", openbao.url).replace("ledger.db", f"{folder}/ledger.db")
        )
        assert KEK == "env:LAPSE_TEST_KEK"

    def database(self) -> None:
        """Make the leaked user with a table of its own, and a connection of OpenBao's."""
        boss = f"bao_{uuid4().hex[:8]}"
        with psycopg.connect(self.dsn, autocommit=True) as db:
            for name, rights in ((boss, "SUPERUSER"), (self.user, "NOSUPERUSER")):
                db.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'leaked-one' " + rights).format(sql.Identifier(name)))
            db.execute(sql.SQL("CREATE TABLE {} (a int)").format(sql.Identifier(f"t_{self.user}")))
            db.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(
                sql.Identifier(f"t_{self.user}"), sql.Identifier(self.user)))  # fmt: skip
        self.bao.sys.enable_secrets_engine("database", self.mount)
        self.bao.secrets.database.configure(
            name="pg", plugin_name="postgresql-database-plugin", allowed_roles=["*"], mount_point=self.mount,
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{self.pg.host}:{self.pg.port}/postgres",
            username=boss, password="leaked-one",
        )  # fmt: skip

    def opens(self, user: str, password: str, statement: str = "SELECT 1") -> bool:
        try:
            with psycopg.connect(host=self.pg.host, port=self.pg.port, user=user, password=password,
                                 dbname="postgres") as db:  # fmt: skip
                db.execute(statement)  # type: ignore[call-overload]  # psycopg takes literal SQL only
        except psycopg.OperationalError:
            return False
        return True

    def leak(self, kind: str, **parts: str) -> CredentialID:
        name = CredentialID(f"{kind.split('_', maxsplit=1)[0]}-{uuid4().hex}")
        finding = Finding(
            KindID(kind), {n: Secret(v) for n, v in parts.items()},
            Where(SourceKind.GIT, repository="acme/app", path=".env"), "test", "x",
        )  # fmt: skip
        self.ledger.ingest(Scan("test", "report.json", "generic"), [(finding, name, "x…")])
        self.ledger.mark([name], owner=Ownership.OURS)
        assert self.ledger.key(name).kept is Kept.SEALED
        return name

    def desk(self) -> Desk:
        return Desk(Setup.of(self.folder / "lapse.toml"), self.ledger)

    def start(self, name: CredentialID, book: str, **sets: str) -> Any:
        desk = self.desk()
        plan = desk.plan(desk.key(name), Mode.GRACEFUL, book, {n.replace("__", "."): v for n, v in sets.items()})
        desk.engine.start(RUN, plan, "bob")
        return plan

    def go(self) -> Outcome:
        """Go on as new processes would, with ann's word where it is needed, until a person is waited for."""
        for _ in range(200):
            engine = self.desk().engine
            outcome = engine.advance(RUN)
            match outcome:
                case Waiting(on="time", until=until):
                    assert until is not None
                    time.sleep(max(0.01, min(0.2, (until - datetime.now(UTC)).total_seconds())))
                case Waiting(on="approval"):
                    engine.approve(RUN, "ann")
                case _:
                    return outcome
        raise AssertionError(outcome)

    def finished(self, plan: Any) -> None:
        state = self.desk().engine.state(RUN)
        assert state.end is End.FINISHED, state.last
        assert self.ledger.check().ok
        done = {e.step: e for e in state.entries if e.what is What.DONE}
        for s in plan.steps:
            if s.effect is Effect.DESTROYS:
                assert s.approvals
        assert int(done["prove"].data.get("refusals", "2")) >= 2

    def close(self) -> None:
        self.ledger.close()
        for call in (self.bao.sys.disable_secrets_engine, self.bao.sys.disable_auth_method):
            try:
                call(self.mount)
            except hvac.exceptions.VaultError:
                continue


@pytest.fixture
def house(openbao: Server, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made_house = House(openbao, postgresql, tmp_path, monkeypatch)
    yield made_house
    made_house.close()


def test_a_password_is_replaced_by_a_dynamic_role(house: House) -> None:
    house.database()
    key = house.leak("postgres", username=house.user, password="leaked-one", host=house.pg.host,
                     port=str(house.pg.port), database="postgres")  # fmt: skip
    with pytest.raises(Stop, match="there is no playbook no-such"):
        house.start(key, "no-such")
    sets = {"replace__role": "app", "replace__connection": "pg", "replace__mount": house.mount}
    plan = house.start(key, "postgres-to-dynamic", **sets)
    names = [s.name for s in plan.steps]
    assert names[:4] == ["evidence", "preflight", "successor", "successor-check"]
    assert house.opens(house.user, "leaked-one")
    assert isinstance(house.go(), Done)
    house.finished(plan)
    assert not house.opens(house.user, "leaked-one")
    taken = house.bao.secrets.database.generate_credentials("app", mount_point=house.mount)["data"]
    mine = f'INSERT INTO "t_{house.user}" VALUES (1)'
    assert house.opens(taken["username"], taken["password"], mine), "it may what the old role may"


def test_it_can_be_taken_back_before_the_delete(house: House) -> None:
    house.database()
    key = house.leak("postgres", username=house.user, password="leaked-one", host=house.pg.host,
                     port=str(house.pg.port), database="postgres")  # fmt: skip
    sets = {"replace__role": "app", "replace__connection": "pg", "replace__mount": house.mount}
    house.start(key, "postgres-to-dynamic", **sets, retire__soak="1h")
    engine = house.desk().engine
    engine.approve(RUN, "ann", ("successor",))
    outcome = house.desk().engine.advance(RUN)
    assert isinstance(outcome, Waiting)
    assert not house.opens(house.user, "leaked-one"), "it lost LOGIN"
    engine.undo(RUN, "bob")
    assert isinstance(house.go(), Done)
    assert house.opens(house.user, "leaked-one")
    with pytest.raises(hvac.exceptions.InvalidPath):
        house.bao.adapter.get(f"/v1/{house.mount}/roles/app")


def test_a_password_is_taken_over_by_a_static_role(house: House) -> None:
    house.database()
    key = house.leak("postgres", username=house.user, password="leaked-one", host=house.pg.host,
                     port=str(house.pg.port), database="postgres")  # fmt: skip
    sets = {"replace__role": "app", "replace__connection": "pg", "replace__mount": house.mount}
    plan = house.start(key, "postgres-to-static", **sets)
    assert plan.step("successor").effect is Effect.DESTROYS
    assert "ends the leaked key in the same moment" in plan.step("successor").title
    assert isinstance(house.go(), Done)
    house.finished(plan)
    assert not house.opens(house.user, "leaked-one")
    now = house.bao.secrets.database.get_static_credentials("app", mount_point=house.mount)["data"]
    assert house.opens(now["username"], now["password"])


def test_a_token_of_ci_is_replaced_by_a_jwt_role(house: House) -> None:
    signer = rsa.generate_private_key(65537, 2048)
    plain = serialization.PublicFormat.SubjectPublicKeyInfo
    (house.folder / "keys.pem").write_bytes(signer.public_key().public_bytes(serialization.Encoding.PEM, plain))
    token = house.bao.auth.token.create(policies=["default"], no_parent=True)["auth"]["client_token"]
    key = house.leak("vault_token", secret=token, host=house.bao.url.removeprefix("http://"))
    plan = house.start(
        key, "vault-token-to-jwt", replace__role="ci", replace__audience="https://bao.example",
        replace__claims="repository=acme/app", replace__grants="read secret/data/ci/*", replace__mount=house.mount,
        replace__keys_file=str(house.folder / "keys.pem"),
    )  # fmt: skip
    said = house.go()
    assert isinstance(said, Waiting), said
    assert said.on == "person"
    assert house.bao.auth.token.lookup(token), "until CI was seen, the static token stands"
    now = int(time.time())
    claims = {"iss": "https://token.actions.githubusercontent.com", "aud": "https://bao.example", "exp": now + 60,
              "iat": now, "sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app"}  # fmt: skip
    signed = jwt.encode(claims, signer, algorithm="RS256")
    house.bao.adapter.post(f"/v1/auth/{house.mount}/login", json={"role": "ci", "jwt": signed})
    house.desk().engine.resume(RUN, "bob")
    said = house.go()
    assert isinstance(said, Done), said
    house.finished(plan)
    with pytest.raises(hvac.exceptions.VaultError):
        house.bao.auth.token.lookup(token)


def test_a_right_that_is_missing_at_the_sixth_step_is_found_before_the_first(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.database()
    key = house.leak("postgres", username=house.user, password="leaked-one", host=house.pg.host,
                     port=str(house.pg.port), database="postgres")  # fmt: skip
    weak = house.bao.auth.token.create(policies=["default"])["auth"]["client_token"]
    monkeypatch.setenv("VAULT_TOKEN", weak)
    sets = {"replace__role": "app", "replace__connection": "pg", "replace__mount": house.mount}
    house.start(key, "postgres-to-dynamic", **sets)
    said = house.go()
    assert isinstance(said, Failed)
    assert "lacks" in said.reason
    state = house.desk().engine.state(RUN)
    assert state.end is End.FAILED
    assert not state.changed()
    assert house.opens(house.user, "leaked-one")
