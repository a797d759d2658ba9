"""Tokens and secret ids of the real OpenBao."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import hvac
import hvac.exceptions
from chaos_world import Case, World

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from typing import Self


class Bao(World):
    def enter(self, stack: ExitStack) -> Self:
        self.server = self.servers["openbao"]
        self.root: Any = hvac.Client(self.server.url, token=self.server.admin["token"])
        return self

    def config(self) -> str:
        return f'[providers.vault_token]\nbase_url = "{self.server.url}"\n'


@dataclass
class Token(Case):
    """A service token; `group` is in the metadata of all that belong to this case."""

    world: Any = None
    group: str = ""
    accessor: str = ""
    colleagues: list[str] = field(default_factory=list)

    def works(self, fields: Mapping[str, str]) -> bool:
        try:
            hvac.Client(self.world.server.url, token=fields["token"]).auth.token.lookup_self()
        except hvac.exceptions.Forbidden:
            return False
        return True

    def old_works(self) -> bool:
        return self.works({"token": self.parts["secret"]})

    def _all(self) -> dict[str, dict[str, Any]]:
        found = {}
        for accessor in self.world.root.auth.token.list_accessors()["data"]["keys"]:
            with contextlib.suppress(
                hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath
            ):
                about = self.world.root.auth.token.lookup_accessor(accessor)["data"]
                if (about.get("meta") or {}).get("group") == self.group:
                    found[accessor] = about
        return found

    def live(self) -> list[str]:
        return [a for a in self._all() if a not in self.colleagues]

    def old_name(self) -> str:
        return self.accessor

    def others(self) -> object:
        return set(self.colleagues) <= set(self._all())

    def colleague(self) -> None:
        self.colleagues.append(self.world.make(self.group)["accessor"])

    def end(self) -> None:
        for accessor in self._all():
            self.world.root.auth.token.revoke_accessor(accessor)


class Tokens(Bao):
    playbook = "vault-token"
    kind = "vault_token"

    def make(self, group: str) -> dict[str, Any]:
        return dict(self.root.auth.token.create(policies=["default"], ttl="1h", meta={"group": group})["auth"])

    def case(self, n: int) -> Token:
        group = f"g{n}-{token_hex(4)}"
        old = self.make(group)
        secret = old["client_token"]
        found = Token(
            {"secret": secret, "host": self.server.host}, {"token": secret}, world=self, group=group,
            accessor=old["accessor"],
        )  # fmt: skip
        found.colleague()
        return found


@dataclass
class SecretId(Case):
    """A secret id of a role of its own; the colleague's lies in the same role."""

    world: Any = None
    role: str = ""
    accessor: str = ""
    colleagues: list[str] = field(default_factory=list)

    def works(self, fields: Mapping[str, str]) -> bool:
        try:
            said = hvac.Client(self.world.server.url).auth.approle.login(fields["role_id"], fields["secret_id"])
        except hvac.exceptions.InvalidRequest:
            return False
        self.world.root.auth.token.revoke_accessor(said["auth"]["accessor"])
        return True

    def old_works(self) -> bool:
        return self.works({"role_id": self.parts["id"], "secret_id": self.parts["secret"]})

    def live(self) -> list[str]:
        found = self.world.root.auth.approle.list_secret_id_accessors(self.role)["data"]["keys"]
        return [a for a in found if a not in self.colleagues]

    def old_name(self) -> str:
        return self.accessor

    def others(self) -> object:
        found = self.world.root.auth.approle.list_secret_id_accessors(self.role)["data"]["keys"]
        return set(self.colleagues) <= set(found)

    def colleague(self) -> None:
        made = self.world.root.auth.approle.generate_secret_id(self.role)["data"]
        self.colleagues.append(made["secret_id_accessor"])

    def end(self) -> None:
        self.world.root.auth.approle.delete_role(self.role)


class AppRole(Bao):
    playbook = "vault-approle-secret-id"
    kind = "vault_approle"
    probed = False

    def enter(self, stack: ExitStack) -> Self:
        super().enter(stack)
        with contextlib.suppress(hvac.exceptions.InvalidRequest):
            self.root.sys.enable_auth_method("approle")
        return self

    def case(self, n: int) -> SecretId:
        role = f"chaos{n}-{token_hex(4)}"
        self.root.auth.approle.create_or_update_approle(role, token_policies=["default"], token_ttl="20m")
        role_id = self.root.auth.approle.read_role_id(role)["data"]["role_id"]
        old = self.root.auth.approle.generate_secret_id(role, metadata={"who": "ci"})["data"]
        secret = old["secret_id"]
        found = SecretId(
            {"id": role_id, "secret": secret}, {"role_id": role_id, "secret_id": secret},
            {"issuer.role": role, "sessions.0.role": role}, world=self, role=role, accessor=old["secret_id_accessor"],
        )  # fmt: skip
        found.colleague()
        return found
