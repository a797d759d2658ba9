"""A static role of the database engine: Vault sets the password of one user, keeps it, and changes it by itself.

The password is set anew in the moment the role is made (also with `skip_import_rotation`, which OpenBao 2.7 passes
over), so this cannot be taken back, and for the leaked user it is the rotation itself. The check before it is all there
can be: that the connection is there, that nobody else manages the user, and that we may.
https://developer.hashicorp.com/vault/api-docs/secret/databases#create-static-role
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rotators.bao import Bao, bao
from rotators.databases import part
from rotators.interface import Fact, Presence, ProviderError, Trouble
from rotators.logins import place, sort_of
from rotators.roles import kept, mark, mounted, named, plugin, read, refused, seconds, whose, write
from rotators.step import Done, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential

_STATEMENTS = {
    "postgresql": "ALTER ROLE \"{{username}}\" WITH PASSWORD '{{password}}'",
    "mysql": "ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}'",
}
_USER = re.compile(r"[^\s'\"`\\;{}]{1,63}")
_MOST = 500


class VaultDatabaseStatic:
    """Settings: `role` (the new one), `connection`, `username` (the leaked user by default), `period` (24h), `mount`
    (`database`), those of `rotators.logins` and `rotators.bao`.
    """  # noqa: D205  # a list of settings

    name = "vault_database_static"
    reversible = False
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "setup": ("read MOUNT/config/CONNECTION", "list MOUNT/static-roles", "create, read MOUNT/static-roles/ROLE"),
        "check": ("read MOUNT/static-creds/ROLE",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a missing or impossible one is `ProviderError(REFUSED)`."""
        self._settings, self._bao = settings, Bao(settings)
        self._mount = mounted(settings, "database")
        self._role = named(settings, "role", self.name)
        self._connection = named(settings, "connection", self.name)
        self._period = seconds(settings, "period", "24h")
        self._path = f"{self._mount}/static-roles/{self._role}"

    def about(self) -> str:
        """Name the role and how often it changes the password."""
        return f"static role {self._role} of {self._mount}: a password that Vault sets now and every {self._period} s"

    def displaces(self, old: Credential) -> bool:
        """Say yes where the role is of the leaked user."""
        return self._user(old) == part(old, "username")

    def preflight(self, old: Credential) -> Sequence[Fact]:
        """Ask for the rights, the connection, a way to log in, and that no other role manages this user."""
        facts = self._bao.preflight({
            f"{self._mount}/config/{self._connection}": ("read",),
            f"{self._mount}/static-roles": ("list",),
            self._path: ("create", "read"),
            f"{self._mount}/static-creds/{self._role}": ("read",),
        })  # fmt: skip
        where = place(self._settings, old, sort_of(self._plugin()))
        user = self._user(old)
        for name in self._others():
            held = read(self._bao.client(), f"{self._mount}/static-roles/{name}") or {}
            if held.get("username") == user and held.get("db_name") == self._connection:
                hint = f"`--playbook vault-database-static-role --set issuer.role={name}` rotates it"
                raise ProviderError(Trouble.REFUSED, f"static role {name} manages {user} already: {hint}")
        return [*facts, Fact("new way", f"{self.about()} for {user} at {where.host}:{where.port}")]

    def present(self, old: Credential, run: str) -> Presence:
        """Compare the role with the one wanted; an earlier rotation's is not taken over, its password is in use."""
        held = self._held()
        found = whose(held, self._wanted(old, run), _note(held), run)
        return Presence.OTHERS if found is Presence.EARLIER else found

    def snapshot(self) -> str:
        """Return the role as it is."""
        return kept(self._held())

    def setup(self, old: Credential, run: str) -> Outcome:
        """Make the role, once: Vault sets a new password in that moment."""
        match self.present(old, run):
            case Presence.OTHERS | Presence.EARLIER:
                return refused(f"static role {self._role} of {self._mount}")
            case Presence.OURS:
                pass
            case Presence.ABSENT:
                write(self._bao.client(), self._path, self._wanted(old, run))
        return Done(f"{self.about()} is there", {"role": self._role, "mount": self._mount})

    def check(self, old: Credential, run: str, since: datetime) -> Outcome:
        """Read the log-in from Vault, and log in to the database with it."""
        _ = since
        if self.present(old, run) is not Presence.OURS:
            return Failed(f"{self._path} is not as this rotation made it", "see who changed it, then `lapse resume`")
        where = place(self._settings, old, sort_of(self._plugin()))
        client = self._bao.client()
        with bao(f"read the log-in of static role {self._role}"):
            said = client.adapter.get(f"/v1/{self._mount}/static-creds/{self._role}")["data"]
        if not where.opens(str(said["username"]), str(said["password"])):
            hint = "look at what the server lets in, then `lapse resume`"
            return Failed(f"{where.host} refuses the log-in of static role {self._role}", hint)
        return Done(f"logged in to {where.host} as {said['username']}, with the password that Vault keeps")

    def undo(self, old: Credential, run: str, former: str) -> Outcome:
        """Fail: the password before is gone."""
        _ = (old, run, former)
        return Failed(
            f"static role {self._role} has set a new password, and the former exists no more", "go on forward"
        )

    def _held(self) -> dict[str, Any] | None:
        return read(self._bao.client(), self._path)

    def _others(self) -> list[str]:
        client = self._bao.client()
        try:
            with bao(f"list the static roles of {self._mount}"):
                said = client.adapter.list(f"/v1/{self._mount}/static-roles")
        except ProviderError as e:
            if e.trouble is Trouble.GONE:  # an empty list is a 404
                return []
            raise
        return [str(n) for n in said["data"]["keys"] if n != self._role][:_MOST]

    def _plugin(self) -> str:
        return plugin(self._bao.client(), self._mount, self._connection, self._role)

    def _user(self, old: Credential) -> str:
        user = self._settings.get("username") or part(old, "username")
        if not _USER.fullmatch(user):
            raise ProviderError(Trouble.REFUSED, "the finding names no user that could stand in a statement")
        return user

    def _wanted(self, old: Credential, run: str) -> dict[str, Any]:
        statement = _STATEMENTS[sort_of(self._plugin())]
        return {
            "db_name": self._connection,
            "username": self._user(old),
            "rotation_period": self._period,
            "rotation_statements": [f"{statement} /* {mark(run)} */"],
        }


def _note(held: Mapping[str, Any] | None) -> str:
    return " ".join(str(s) for s in (held or {}).get("rotation_statements") or ())


def make(settings: Settings) -> VaultDatabaseStatic:
    """Return the successor for a playbook's slot."""
    return VaultDatabaseStatic(settings)
