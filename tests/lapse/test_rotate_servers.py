"""`lapse rotate` on real servers: MiniStack (AWS), OpenBao, PostgreSQL, MariaDB, Redis; and an awkward way there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import hvac.exceptions
import psycopg
import pymysql
import pytest
import redis as redis_lib
from awkward import Awkward, How, Mishap
from rotating import Aws, Office, Vault

from playbooks.journal import End, What

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server

LONG = os.environ.get("LAPSE_CHAOS") == "1"


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    made = Office(tmp_path, monkeypatch)
    made.lapse("ledger", "init", code=None)
    return made


def fresh(word: str) -> str:
    """Return a name that no other test uses: the servers are everybody's."""
    return f"{word}-{uuid.uuid4().hex[:8]}"


def said_fields(parts: dict[str, str]) -> dict[str, str]:
    return {"access_key_id": parts["id"], "secret_access_key": parts["secret"]}


class Bot:
    """An AWS user whose key leaked and lies in OpenBao."""

    def __init__(self, office: Office, aws: Aws, vault: Vault) -> None:
        self.office, self.aws, self.vault = office, aws, vault
        self.user = fresh("bot")
        self.path = f"ci/{self.user}"
        self.old = aws.user(self.user)
        self.vault.put(self.path, **said_fields(self.old), region="eu-west-1")
        self.key = office.leak("aws_akia", **self.old)

    @property
    def words(self) -> tuple[str, ...]:
        return ("rotate", self.key, "--set", f"store.path={self.path}", "--apply", "--as", "dana")

    def old_works(self) -> bool:
        return self.aws.works(self.old["id"], self.old["secret"])

    def stored(self) -> dict[str, str]:
        return dict(self.vault.read(self.path))

    def replaced(self) -> None:
        """Assert the good end: one new key, which the store holds and which works; the old one dead, on record."""
        held = self.stored()
        assert self.aws.keys(self.user) == {held["access_key_id"]: "Active"}
        assert held["access_key_id"] != self.old["id"]
        assert held["region"] == "eu-west-1"
        assert self.aws.works(held["access_key_id"], held["secret_access_key"])
        assert not self.old_works()
        assert self.office.confirmed(self.key)

    def untouched(self) -> None:
        """Assert that the old key is the only one, works, and is what the store holds."""
        assert self.aws.keys(self.user) == {self.old["id"]: "Active"}
        assert self.old_works()
        held = self.stored()
        assert (held["access_key_id"], held["secret_access_key"]) == (self.old["id"], self.old["secret"])


@pytest.fixture
def bot(office: Office, ministack: Server, openbao: Server) -> Bot:
    return Bot(office, Aws(ministack, office), Vault(openbao, office))


def test_an_aws_key_goes_gracefully(bot: Bot) -> None:
    assert "one person must agree" in bot.office.lapse(*bot.words, code=12)
    held = bot.stored()
    assert bot.aws.keys(bot.user) == {bot.old["id"]: "Inactive", held["access_key_id"]: "Active"}
    assert bot.aws.works(held["access_key_id"], held["secret_access_key"])
    (run,) = bot.office.runs()
    bot.office.lapse("approve", run, "--as", "erin")
    assert "proven dead" in bot.office.lapse("resume", run)
    bot.replaced()
    assert bot.vault.version(bot.path) == 2
    assert bot.aws.iam.list_user_policies(UserName=bot.user)["PolicyNames"] != ["own"], "older sessions are denied"


def test_an_aws_key_is_stopped_first_in_an_emergency(bot: Bot) -> None:
    bot.office.lapse(*bot.words, "--mode", "emergency", "--yes")
    done = [e.step for e in bot.office.state().entries if e.what is What.DONE]
    assert done.index("contain") < done.index("sessions-1") < done.index("create")
    bot.replaced()


@pytest.mark.parametrize("mode", ["graceful", "emergency"])
def test_before_the_delete_everything_can_be_taken_back(bot: Bot, mode: str) -> None:
    bot.office.lapse(*bot.words, "--mode", mode, code=12)
    assert not bot.old_works()
    assert "everything is as before" in bot.office.lapse("undo", bot.office.runs()[0])
    bot.untouched()
    assert bot.stored()["region"] == "eu-west-1"
    assert bot.aws.iam.list_user_policies(UserName=bot.user)["PolicyNames"] == ["own"]
    assert bot.office.state().end is End.UNDONE


def test_two_at_once_rotate_a_key_once(bot: Bot) -> None:
    """Two processes of their own, begun together: one has it, the other is told."""
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "lapse.cli", *bot.words, "--yes"],
            cwd=bot.office.folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [p.communicate(timeout=60)[1] for p in both]
    assert sorted(p.returncode for p in both) == [0, 2], said
    loser = said[0] if both[0].returncode else said[1]
    assert "holds this key: go on with it" in loser
    bot.replaced()
    assert len(bot.office.runs()) == 1


# ── somebody else, and an awkward way ──────────────────────────────────────────────────────────────────


def test_a_colleague_writes_to_the_store_between_our_read_and_our_write(
    office: Office, ministack: Server, openbao: Server
) -> None:
    theirs = {"access_key_id": "somebody", "secret_access_key": "else"}
    late = Mishap(How.LATE, ("PUT /v1/secret/data/",))
    late_too = Mishap(How.LATE, ("POST /v1/secret/data/",))
    with Awkward(openbao.url, [late, late_too]) as way:
        bot = Bot(office, Aws(ministack, office), Vault(openbao, office, way.url))
        late.first = late_too.first = lambda: bot.vault.put(bot.path, **theirs)
        said = office.lapse(*bot.words, code=1)
        assert "somebody else wrote to the store vault_kv at the same moment; the new key was deleted again" in said
        assert late.happened + late_too.happened == 1
        assert bot.aws.keys(bot.user) == {bot.old["id"]: "Active"}
        assert bot.stored() == theirs
        assert office.state().end is End.FAILED
        office.lapse(*bot.words, "--yes")
    assert bot.aws.keys(bot.user) == {bot.stored()["access_key_id"]: "Active"}


def test_a_colleague_writes_over_our_new_key_before_the_old_one_goes(bot: Bot) -> None:
    bot.office.lapse(*bot.words, code=12)
    ours = bot.stored()
    bot.vault.put(bot.path, access_key_id="somebody", secret_access_key="else")
    (run,) = bot.office.runs()
    bot.office.lapse("approve", run, "--as", "erin")
    assert "nothing was destroyed" in bot.office.lapse("resume", run, code=13)
    assert set(bot.aws.keys(bot.user)) == {bot.old["id"], ours["access_key_id"]}
    bot.vault.client.secrets.kv.v2.create_or_update_secret(
        bot.path, {**ours, "lapse_run": f"lapse-{run}"}, mount_point="secret"
    )
    bot.office.lapse("resume", run)
    bot.replaced()


DAYS: dict[str, tuple[str, How, tuple[str, ...], int]] = {
    "the answer to a mint is lost": ("aws", How.DROPPED, ("Action=CreateAccessKey", "USER"), 1),
    "a mint never arrives": ("aws", How.LOST, ("Action=CreateAccessKey", "USER"), 1),
    "the answer to a store is lost": ("bao", How.DROPPED, ("secret/data/ci/USER", '"data"'), 1),
    "a store never arrives": ("bao", How.LOST, ("secret/data/ci/USER", '"data"'), 1),
    "the store is busy": ("bao", How.BUSY, ("secret/data/ci/USER",), 3),
    "the store throttles": ("bao", How.THROTTLED, ("secret/data/ci/USER",), 3),
    "the store is slow": ("bao", How.SLOW, ("secret/data/ci/USER",), 6),
    "the issuer is slow": ("aws", How.SLOW, ("AccessKey", "USER"), 4),
    "the issuer is busy": ("aws", How.BUSY, ("Action=UpdateAccessKey", "USER"), 5),
    "the issuer throttles": ("aws", How.THROTTLED, ("Action=ListAccessKeys", "USER"), 5),
    "the answer to the delete is lost": ("aws", How.DROPPED, ("Action=DeleteAccessKey", "OLD"), 5),
}
SAMPLE = (
    "the answer to a mint is lost", "the answer to a store is lost", "the store throttles", "the issuer is slow"
)  # fmt: skip


@pytest.mark.chaos
@pytest.mark.parametrize("day", [SAMPLE, *((d,) for d in DAYS if LONG)], ids=lambda d: "-".join(d).replace(" ", "-"))
def test_on_an_awkward_day_a_rotation_still_ends_with_one_new_key(
    office: Office, ministack: Server, openbao: Server, day: tuple[str, ...]
) -> None:
    """A proxy before AWS and one before OpenBao; only the impatient resume, which skips the wait for the next try."""
    mishaps: dict[str, list[Mishap]] = {"aws": [], "bao": []}
    with Awkward(ministack.url, mishaps["aws"]) as way, Awkward(openbao.url, mishaps["bao"]) as path:
        bot = Bot(office, Aws(ministack, office, way.url), Vault(openbao, office, path.url))
        for name in day:
            where, how, words, times = DAYS[name]
            meant = tuple(w.replace("USER", bot.user).replace("OLD", bot.old["id"]) for w in words)
            mishaps[where].append(Mishap(how, meant, times))
        office.lapse(*bot.words, "--yes", "--wait", "0s", code=None)
        for _ in range(8):
            if office.state().end is not None:
                break
            office.lapse("resume", office.runs()[0], "--wait", "3s", code=None)
        assert office.state().end is End.FINISHED
        bot.replaced()
    assert bot.vault.version(bot.path) == 2
    assert [m.words for m in mishaps["aws"] + mishaps["bao"] if not m.happened] == []


# ── databases ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_postgresql_password(office: Office, postgresql: Server, openbao: Server) -> None:
    a, user, vault = postgresql.admin, fresh("app").replace("-", "_"), Vault(openbao, office)

    def log_in(password: str) -> Any:
        return psycopg.connect(host="127.0.0.1", port=postgresql.port, user=user, password=password, dbname="postgres")

    with psycopg.connect(
        host="127.0.0.1", port=postgresql.port, user=a["username"], password=a["password"], dbname="postgres"
    ) as db:
        db.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'leaked'")
    office.provider("postgres", postgresql.url)
    office.patch.setenv(
        "LAPSE_POSTGRESQL_ADMIN",
        f"postgresql://{a['username']}:{a['password']}@127.0.0.1:{postgresql.port}/postgres",
    )
    key = office.leak(
        "postgres", username=user, password="leaked", host="127.0.0.1", port=str(postgresql.port), database="postgres"
    )
    with contextlib.closing(log_in("leaked")) as session:
        rotate = ("rotate", key, "--playbook", "postgres-password", "--set", f"store.path=db/{user}", "--apply")
        office.lapse(*rotate, "--yes")
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        log_in("leaked")
    log_in(vault.read(f"db/{user}")["password"]).close()
    assert office.confirmed(key)


def test_a_mariadb_password(office: Office, mariadb: Server, openbao: Server) -> None:
    a, user, vault = mariadb.admin, fresh("app"), Vault(openbao, office)

    def log_in(name: str, password: str) -> Any:
        return pymysql.connect(host="127.0.0.1", port=mariadb.port, user=name, password=password)

    with log_in(a["username"], a["password"]) as db:
        db.cursor().execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'leaked'")
    office.provider("mysql", mariadb.url)
    office.patch.setenv(
        "LAPSE_MYSQL_ADMIN", f"mysql://{a['username']}:{a['password']}@127.0.0.1:{mariadb.port}/mysql?tls=no"
    )
    key = office.leak("mysql", username=user, password="leaked", host="127.0.0.1", port=str(mariadb.port))
    office.lapse("rotate", key, "--playbook", "mysql-password", "--set", f"store.path=db/{user}", "--apply", "--yes")
    with pytest.raises(pymysql.OperationalError):
        log_in(user, "leaked")
    log_in(user, vault.read(f"db/{user}")["password"]).close()
    assert office.confirmed(key)


def test_a_redis_password(office: Office, redis: Server, openbao: Server) -> None:
    user, vault = fresh("app"), Vault(openbao, office)
    root = redis_lib.Redis(port=redis.port, password=redis.admin["password"])

    def log_in(password: str) -> bool:
        with redis_lib.Redis(port=redis.port, username=user, password=password) as client:
            return bool(client.ping())

    with root:
        root.execute_command("ACL", "SETUSER", user, "on", ">leaked", "~*", "+@all")
    office.provider("redis", redis.url)
    office.patch.setenv("LAPSE_REDIS_ADMIN", f"redis://default:{redis.admin['password']}@127.0.0.1:{redis.port}/0")
    key = office.leak("redis", username=user, password="leaked", host="127.0.0.1", port=str(redis.port))
    office.lapse(
        "rotate", key, "--playbook", "redis-acl-password", "--set", f"store.path=db/{user}", "--apply", "--yes"
    )
    with pytest.raises(redis_lib.AuthenticationError):
        log_in("leaked")
    assert log_in(vault.read(f"db/{user}")["password"])
    assert office.confirmed(key)


def test_a_static_role_of_openbao(office: Office, postgresql: Server, openbao: Server) -> None:
    a, user, vault, mount = postgresql.admin, fresh("app").replace("-", "_"), Vault(openbao, office), fresh("db")
    with psycopg.connect(
        host="127.0.0.1", port=postgresql.port, user=a["username"], password=a["password"], dbname="postgres"
    ) as db:
        db.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'first'")
    vault.client.sys.enable_secrets_engine("database", mount)
    engine = vault.client.secrets.database
    engine.configure(
        name="pg", plugin_name="postgresql-database-plugin", allowed_roles=["*"], mount_point=mount,
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgresql.port}/postgres",
        username=a["username"], password=a["password"],
    )  # fmt: skip
    engine.create_static_role(
        user, db_name="pg", username=user, rotation_statements=None, rotation_period=86400, mount_point=mount
    )
    try:
        leaked = engine.get_static_credentials(user, mount_point=mount)["data"]["password"]
        office.provider("postgres", postgresql.url)
        parts = {"host": "127.0.0.1", "port": str(postgresql.port), "database": "postgres"}
        key = office.leak("postgres", username=user, password=leaked, **parts)
        sets = [
            f"{hand}.{name}={value}"
            for hand in ("issuer", "store")
            for name, value in (("role", user), ("mount", mount))
        ]
        words = ("rotate", key, "--playbook", "vault-database-static-role", *(w for s in sets for w in ("--set", s)))
        assert "kills the old one in the same moment" in office.lapse(*words, "--apply", code=12)
        office.lapse("approve", office.runs()[0], "--as", "erin")
        office.lapse("resume")
        new = engine.get_static_credentials(user, mount_point=mount)["data"]["password"]
        assert new != leaked
        psycopg.connect(host="127.0.0.1", port=postgresql.port, user=user, password=new, dbname="postgres").close()
        assert office.confirmed(key)
    finally:
        vault.client.sys.disable_secrets_engine(mount)


# ── OpenBao's own keys ─────────────────────────────────────────────────────────────────────────────────


def test_a_token_of_openbao(office: Office, openbao: Server) -> None:
    vault, path = Vault(openbao, office), f"ci/{fresh('token')}"
    leaked = vault.client.auth.token.create(policies=["default"], display_name="ci", no_parent=True)["auth"]
    office.provider("vault_token", openbao.url)
    key = office.leak("vault_token", secret=leaked["client_token"], host="127.0.0.1")
    office.lapse("rotate", key, "--set", f"store.path={path}", "--apply", "--yes")
    with pytest.raises(hvac.exceptions.VaultError):
        vault.client.auth.token.lookup_accessor(leaked["accessor"])
    new = hvac.Client(openbao.url, token=vault.read(path)["token"])
    assert new.auth.token.lookup_self()["data"]["policies"] == ["default"]
    new.adapter.close()


def test_a_secret_id_of_an_approle(office: Office, openbao: Server) -> None:
    vault, role = Vault(openbao, office), fresh("role")
    with contextlib.suppress(hvac.exceptions.InvalidRequest):
        vault.client.sys.enable_auth_method("approle")
    login = vault.client.auth.approle
    login.create_or_update_approle(role, token_policies=["default"], token_ttl="20m")
    role_id = login.read_role_id(role)["data"]["role_id"]
    leaked = login.generate_secret_id(role)["data"]["secret_id"]
    key = office.leak("vault_approle", secret=leaked, id=role_id, host="127.0.0.1")
    sets = ("--set", f"store.path=ci/{role}", "--set", f"sessions.0.role={role}")
    office.lapse("rotate", key, *sets, "--apply", "--yes")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        login.login(role_id, leaked, use_token=False)
    held = vault.read(f"ci/{role}")
    assert login.login(held["role_id"], held["secret_id"], use_token=False)["auth"]["policies"] == ["default"]
