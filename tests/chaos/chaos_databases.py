"""PostgreSQL, MariaDB and Redis themselves, and OpenBao before PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar

import hvac
import psycopg
import pymysql
import redis as redis_client
from chaos_world import Case, Shape, World

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Self

    from servers import Server


def command(file: Path) -> dict[str, str]:
    """Return the settings of a consumer that writes what it gets into a file, and the run's name beside it."""
    script = 'cat > "$0.new" && mv "$0.new" "$0" && printf %s "$LAPSE_RUN" > "$0.run"'
    check = '[ "$(cat "$0.run")" = "$LAPSE_RUN" ]'
    return {
        "consumers.0.use": "command",
        "consumers.0.command": f"/bin/sh -c '{script}' {file}",
        "consumers.0.check": f"/bin/sh -c '{check}' {file}",
    }


def consumed(file: Path, fields: Mapping[str, str]) -> bool:
    """Whether the command wrote exactly these fields."""
    return file.exists() and json.loads(file.read_text() or "null") == dict(fields)


@dataclass
class Login(Case):
    """A database user: one password of theirs leaked."""

    world: Any = None
    taken: Path | None = None

    def works(self, fields: Mapping[str, str]) -> bool:
        return bool(self.world.logs_in(self.parts["username"], fields["password"]))

    def old_works(self) -> bool:
        return bool(self.world.logs_in(self.parts["username"], self.parts["password"]))

    def live(self) -> list[str]:
        return [self.parts["username"]]

    def old_name(self) -> str:
        return self.parts["username"]

    def others(self) -> object:
        return self.world.logs_in(self.parts["username"] + "x", "a-colleagues-own-one")

    def consumed(self, fields: Mapping[str, str]) -> bool:
        return self.taken is None or consumed(self.taken, fields)

    def end(self) -> None:
        self.world.drop(self.parts["username"])


class Postgres(World):
    playbook = "postgres-password"
    kind = "postgres"
    shape = Shape.IN_PLACE
    needs = ("openbao", "postgresql")
    imports = ("hvac", "requests", "pyrage", "psycopg")
    server: Server

    def enter(self, stack: ExitStack) -> Self:
        self.server = self.servers["postgresql"]
        self.db = stack.enter_context(psycopg.connect(self.url(), autocommit=True))
        return self

    def url(self) -> str:
        a = self.server.admin
        return f"postgresql://{a['username']}:{a['password']}@{self.server.host}:{self.server.port}/postgres"

    def env(self) -> dict[str, str]:
        return {"LAPSE_POSTGRESQL_ADMIN": self.url()}

    def logs_in(self, user: str, password: str) -> bool:
        try:
            psycopg.connect(
                host=self.server.host, port=self.server.port, user=user, password=password, dbname="postgres"
            ).close()
        except psycopg.OperationalError as e:
            if not any(said in str(e) for said in ("authentication failed", "not permitted to log in")):
                raise
            return False
        return True

    def drop(self, user: str) -> None:
        for name in (user, f"{user}x"):
            self.db.execute(f"DROP ROLE IF EXISTS {name}")

    def case(self, n: int) -> Login:
        user, password = f"u{n}_{token_hex(3)}", f"leaked-{token_hex(12)}"
        self.db.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        self.db.execute(f"CREATE ROLE {user}x LOGIN PASSWORD 'a-colleagues-own-one'")
        host, port = self.server.host, str(self.server.port)
        stored = {"username": user, "password": password, "host": host}
        taken = self.folder / f"{user}.json"
        return Login({**stored, "port": port}, stored, command(taken), world=self, taken=taken)


class MariaDb(World):
    playbook = "mysql-password"
    kind = "mysql"
    shape = Shape.IN_PLACE
    needs = ("openbao", "mariadb")
    imports = ("hvac", "requests", "pyrage", "pymysql")
    server: Server

    def enter(self, stack: ExitStack) -> Self:
        self.server = self.servers["mariadb"]
        a = self.server.admin
        self.connection = stack.enter_context(self._open(a["username"], a["password"]))
        return self

    def _open(self, user: str, password: str) -> Any:
        return pymysql.connect(
            host=self.server.host, port=self.server.port, user=user, password=password, autocommit=True
        )

    def env(self) -> dict[str, str]:
        a = self.server.admin
        return {"LAPSE_MYSQL_ADMIN": f"mysql://{a['username']}:{a['password']}@{self.server.host}:{self.server.port}/"}

    def logs_in(self, user: str, password: str) -> bool:
        try:
            self._open(user, password).close()
        except pymysql.OperationalError as e:
            if e.args[0] != 1045:
                raise
            return False
        return True

    def drop(self, user: str) -> None:
        for name in (user, f"{user}x"):
            self.connection.cursor().execute("DROP USER IF EXISTS %s@'%%'", (name,))

    def case(self, n: int) -> Login:
        user, password = f"u{n}_{token_hex(3)}", f"leaked-{token_hex(12)}"
        c = self.connection.cursor()
        c.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (user, password))
        c.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (f"{user}x", "a-colleagues-own-one"))
        stored = {"username": user, "password": password, "host": self.server.host}
        return Login({**stored, "port": str(self.server.port)}, stored, world=self)


class Redis(World):
    playbook = "redis-acl-password"
    kind = "redis"
    needs = ("openbao", "redis")
    imports = ("hvac", "requests", "pyrage", "redis")
    server: Server

    def enter(self, stack: ExitStack) -> Self:
        self.server = self.servers["redis"]
        self.db = stack.enter_context(self._open("default", self.server.admin["password"]))
        return self

    def _open(self, user: str, password: str) -> Any:
        return redis_client.Redis(
            host=self.server.host,
            port=self.server.port,
            username=user,
            password=password,
            protocol=2,
            decode_responses=True,
        )

    def env(self) -> dict[str, str]:
        password = self.server.admin["password"]
        return {"LAPSE_REDIS_ADMIN": f"redis://default:{password}@{self.server.host}:{self.server.port}/0"}

    def logs_in(self, user: str, password: str) -> bool:
        with self._open(user, password) as client:
            try:
                return bool(client.ping())
            except redis_client.AuthenticationError:
                return False

    def drop(self, user: str) -> None:
        for name in self.db.execute_command("ACL", "USERS"):
            if user in name:
                self.db.execute_command("ACL", "DELUSER", name)

    def case(self, n: int) -> RedisUser:
        user, password = f"u{n}-{token_hex(3)}", f"leaked-{token_hex(12)}"
        rights = ("~*", "+@all", "-@admin")
        self.db.execute_command("ACL", "SETUSER", user, "on", f">{password}", ">a-second-one-of-somebody", *rights)
        self.db.execute_command("ACL", "SETUSER", f"{user}x", "on", ">a-colleagues-own-one", *rights)
        stored = {"password": password, "host": self.server.host}
        parts = {**stored, "username": user, "port": str(self.server.port)}
        return RedisUser(parts, stored, world=self)


@dataclass
class RedisUser(Login):
    """A user with two passwords: one leaked, one is a colleague's. What the issuer left aside would be an orphan."""

    def live(self) -> list[str]:
        db = self.world.db
        user = self.parts["username"]
        said = db.execute_command("ACL", "GETUSER", user)
        found = dict(zip(said[::2], said[1::2], strict=True))["passwords"]
        return [p.lstrip("#") for p in found if p.lstrip("#") != _digest("a-second-one-of-somebody")]

    def old_name(self) -> str:
        return _digest(self.parts["password"])

    def others(self) -> object:
        user = self.parts["username"]
        return (
            self.world.logs_in(user, "a-second-one-of-somebody"),
            self.world.logs_in(f"{user}x", "a-colleagues-own-one"),
        )


def _digest(password: str) -> str:
    return sha256(password.encode()).hexdigest()


class StaticRole(Postgres):
    playbook = "vault-database-static-role"
    shape = Shape.MANAGED
    imports = ("hvac", "requests", "psycopg")
    mount: ClassVar[str] = "chaos-db"

    def enter(self, stack: ExitStack) -> Self:
        super().enter(stack)
        self.mounted = f"{self.mount}-{token_hex(3)}"
        bao = self.servers["openbao"]
        self.bao = hvac.Client(bao.url, token=bao.admin["token"])
        self.root = f"baoadmin_{token_hex(3)}"
        self.db.execute(f"CREATE ROLE {self.root} SUPERUSER LOGIN PASSWORD 'baofirst'")
        self.bao.sys.enable_secrets_engine("database", self.mounted)
        self.bao.secrets.database.configure(
            name="pg",
            plugin_name="postgresql-database-plugin",
            allowed_roles=["*"],
            mount_point=self.mounted,
            connection_url=(
                f"postgresql://{{{{username}}}}:{{{{password}}}}@{self.server.host}:{self.server.port}/postgres"
            ),
            username=self.root,
            password="baofirst",
        )
        return self

    def env(self) -> dict[str, str]:
        return {}

    def creds(self, role: str) -> dict[str, str]:
        return dict(self.bao.secrets.database.get_static_credentials(role, mount_point=self.mounted)["data"])

    def case(self, n: int) -> Static:
        user = f"s{n}_{token_hex(3)}"
        self.db.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'first'")
        self.db.execute(f"CREATE ROLE {user}x LOGIN PASSWORD 'a-colleagues-own-one'")
        for name in (user, f"{user}x"):
            self.bao.secrets.database.create_static_role(
                name,
                db_name="pg",
                username=user if name == user else f"{user}x",
                rotation_statements=None,
                rotation_period=86400,
                mount_point=self.mounted,
            )
        password = self.creds(user)["password"]
        sets = {f"{slot}.{n}": v for slot in ("issuer", "store") for n, v in (("role", user), ("mount", self.mounted))}
        parts = {"username": user, "password": password, "host": self.server.host, "port": str(self.server.port)}
        return Static(parts, {}, sets, world=self)


@dataclass
class Static(Login):
    """A static role, and a colleague's beside it whose password must stay."""

    colleagues: str = ""

    def __post_init__(self) -> None:
        self.colleagues = self.world.creds(self.parts["username"] + "x")["password"]

    def others(self) -> object:
        return self.world.creds(self.parts["username"] + "x")["password"] == self.colleagues

    def end(self) -> None:
        for name in (self.parts["username"], self.parts["username"] + "x"):
            self.world.bao.secrets.database.delete_static_role(name, mount_point=self.world.mounted)
        super().end()
