"""Static keys that give way to short-lived ones: roles of the real OpenBao, before the real PostgreSQL or for CI."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import hvac.exceptions
import jwt
from chaos_bao import AppRole, SecretId, Token, Tokens
from chaos_databases import Login, StaticRole
from chaos_world import Shape
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import Self


def none(call: Any) -> bool:
    """Whether OpenBao has nothing there."""
    try:
        return call() is None
    except (hvac.exceptions.InvalidPath, hvac.exceptions.InvalidRequest):
        return True


# ── databases ──────────────────────────────────────────────────────────────────────────────────────────


class Ways(StaticRole):
    """A connection of OpenBao's database engine, and users whose passwords leaked."""

    shape = Shape.NEW_WAY
    imports = ("hvac", "requests", "psycopg")

    def env(self) -> dict[str, str]:
        return {"LAPSE_POSTGRESQL_ADMIN": self.url()}

    def case(self, n: int) -> DatabaseWay:
        user, password, role = f"w{n}_{token_hex(3)}", f"leaked-{token_hex(12)}", f"way-{n}"
        self.db.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        self.db.execute(f"CREATE ROLE {user}x LOGIN PASSWORD 'a-colleagues-own-one'")
        parts = {"username": user, "password": password, "host": self.server.host, "port": str(self.server.port)}
        sets = {"replace.role": role, "replace.connection": "pg", "replace.mount": self.mounted}
        return DatabaseWay(parts, {}, sets, world=self, role=role)


@dataclass
class DatabaseWay(Login):
    """A user, and the role that takes the password's place: dynamic or static."""

    role: str = ""

    def _dynamic(self) -> bool:
        return self.world.playbook == "postgres-to-dynamic"

    def new_way(self) -> bool:
        database = self.world.bao.secrets.database
        if self.untouched():
            return False
        if not self._dynamic():
            creds = database.get_static_credentials(self.role, mount_point=self.world.mounted)["data"]
            return bool(self.world.logs_in(creds["username"], creds["password"]))
        said = database.generate_credentials(self.role, mount_point=self.world.mounted)
        works = self.world.logs_in(said["data"]["username"], said["data"]["password"])
        self.world.bao.sys.revoke_lease(said["lease_id"])
        return bool(works)

    def untouched(self) -> bool:
        database = self.world.bao.secrets.database
        read = database.read_role if self._dynamic() else database.read_static_role
        return none(lambda: read(self.role, mount_point=self.world.mounted))

    def others(self) -> object:
        return self.world.logs_in(self.parts["username"] + "x", "a-colleagues-own-one")

    def end(self) -> None:
        if not self.untouched():
            if self._dynamic():
                self.world.bao.sys.revoke_prefix(f"{self.world.mounted}/creds/{self.role}")
            else:
                self.world.bao.secrets.database.delete_static_role(self.role, mount_point=self.world.mounted)
        for user in (self.parts["username"], self.parts["username"] + "x"):
            with contextlib.suppress(Exception):  # log-ins that a killed check left depend on it, and end by themselves
                self.world.db.execute(f"DROP ROLE IF EXISTS {user}")


class ToDynamic(Ways):
    playbook = "postgres-to-dynamic"


class ToStatic(Ways):
    playbook = "postgres-to-static"


# ── CI ─────────────────────────────────────────────────────────────────────────────────────────────────


class Platform:
    """Signs tokens as GitHub would."""

    def __init__(self, folder: Any) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.keys, self.token = folder / "keys.pem", folder / "ci.jwt"
        plain = serialization.PublicFormat.SubjectPublicKeyInfo
        self.keys.write_bytes(self.key.public_key().public_bytes(serialization.Encoding.PEM, plain))

    def sign(self) -> str:
        now = int(time.time())
        body = {
            "iss": "https://token.actions.githubusercontent.com", "aud": "https://vault.example", "iat": now,
            "exp": now + 3000, "sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app",
        }  # fmt: skip
        token = jwt.encode(body, self.key, algorithm="RS256")
        self.token.write_text(token)
        return token

    def sets(self, n: int, mount: str) -> dict[str, str]:
        found = {
            "role": f"ci-{n}-{mount}", "mount": mount, "audience": "https://vault.example", "keys_file": str(self.keys),
            "claims": "repository=acme/app", "grants": "read secret/data/ci/*", "jwt_file": str(self.token),
        }  # fmt: skip
        return {f"replace.{name}": value for name, value in found.items()}


@dataclass
class Ci:
    """What both sorts of key share: the role that CI logs in by."""

    root: Any
    sets: dict[str, str]
    token: str

    def new_way(self) -> bool:
        mount, role = self.sets["replace.mount"], self.sets["replace.role"]
        try:
            said = self.root.adapter.post(f"/v1/auth/{mount}/login", json={"role": role, "jwt": self.token})
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden, hvac.exceptions.InvalidPath):
            return False
        self.root.auth.token.revoke_accessor(said["auth"]["accessor"])
        return True

    def untouched(self) -> bool:
        mount, role = self.sets["replace.mount"], self.sets["replace.role"]
        gone = none(lambda: self.root.adapter.get(f"/v1/auth/{mount}/role/{role}"))
        return gone and none(lambda: self.root.adapter.get(f"/v1/sys/policies/acl/lapse-{role}"))

    def end(self) -> None:
        with contextlib.suppress(hvac.exceptions.VaultError):
            self.root.sys.disable_auth_method(self.sets["replace.mount"])


@dataclass
class CiToken(Token):
    ci: Any = None

    def new_way(self) -> bool:
        return bool(self.ci.new_way())

    def untouched(self) -> bool:
        return bool(self.ci.untouched())

    def end(self) -> None:
        self.ci.end()
        super().end()


@dataclass
class CiSecretId(SecretId):
    ci: Any = None

    def new_way(self) -> bool:
        return bool(self.ci.new_way())

    def untouched(self) -> bool:
        return bool(self.ci.untouched())

    def end(self) -> None:
        self.ci.end()
        super().end()


class TokenToJwt(Tokens):
    playbook = "vault-token-to-jwt"
    shape = Shape.NEW_WAY

    def enter(self, stack: ExitStack) -> Self:
        super().enter(stack)
        self.platform = Platform(self.folder)
        return self

    def case(self, n: int) -> CiToken:
        plain = super().case(n)
        sets = self.platform.sets(n, f"jwt-{token_hex(4)}")
        ci = Ci(self.root, sets, self.platform.sign())
        return CiToken(
            plain.parts, {}, sets, world=self, group=plain.group, accessor=plain.accessor, colleagues=plain.colleagues,
            ci=ci,
        )  # fmt: skip


class SecretIdToJwt(AppRole):
    playbook = "vault-approle-to-jwt"
    shape = Shape.NEW_WAY

    def enter(self, stack: ExitStack) -> Self:
        super().enter(stack)
        self.platform = Platform(self.folder)
        return self

    def case(self, n: int) -> CiSecretId:
        plain = super().case(n)
        sets = self.platform.sets(n, f"jwt-{token_hex(4)}")
        ci = Ci(self.root, sets, self.platform.sign())
        return CiSecretId(
            plain.parts, {}, plain.sets | sets, world=self, role=plain.role, accessor=plain.accessor,
            colleagues=plain.colleagues, ci=ci,
        )  # fmt: skip
