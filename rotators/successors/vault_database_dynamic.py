"""A dynamic role of the database engine: every client gets a log-in of its own that ends by itself.

For PostgreSQL the statements are ours: the new log-in is a member of the role that `grant` names (the leaked user by
default) and acts as it, so that what it makes has the same owner; the leaked user can then be left without LOGIN. For
another server `statements` names a file with the SQL that makes a user, `{{name}}`, `{{password}}` and `{{expiration}}`
in it, one statement a line.
https://developer.hashicorp.com/vault/api-docs/secret/databases#create-role
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rotators.bao import Bao, bao
from rotators.databases import part
from rotators.interface import Fact, Presence, ProviderError, Trouble
from rotators.logins import place, sort_of
from rotators.roles import (
    changed,
    kept,
    mark,
    marked,
    mounted,
    named,
    plugin,
    read,
    refused,
    same,
    seconds,
    take_back,
    whose,
    write,
)
from rotators.step import Done, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential

_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")


class VaultDatabaseDynamic:
    """Settings: `role` (the new one), `connection`, `mount` (`database`), `ttl` (1h), `max_ttl` (24h), `grant`,
    `statements`, those of `rotators.logins` and `rotators.bao`.
    """  # noqa: D205  # a list of settings

    name = "vault_database_dynamic"
    reversible = True
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "setup": ("read MOUNT/config/CONNECTION", "create, read, update, delete MOUNT/roles/ROLE"),
        "check": ("read MOUNT/creds/ROLE", "update sys/leases/revoke"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a missing or impossible one is `ProviderError(REFUSED)`."""
        self._settings, self._bao = settings, Bao(settings)
        self._mount = mounted(settings, "database")
        self._role = named(settings, "role", self.name)
        self._connection = named(settings, "connection", self.name)
        self._ttl, self._max = seconds(settings, "ttl", "1h"), seconds(settings, "max_ttl", "24h")
        self._path = f"{self._mount}/roles/{self._role}"

    def about(self) -> str:
        """Name the role and how long its log-ins live."""
        return f"dynamic role {self._role} of {self._mount}: log-ins that end after {self._ttl} s"

    def displaces(self, old: Credential) -> bool:  # noqa: ARG002  # whatever the key
        """Say no: the new log-ins live beside the old one."""
        return False

    def preflight(self, old: Credential) -> Sequence[Fact]:
        """Ask for the rights, that the connection is there and lets this role in, and that we could log in there."""
        facts = self._bao.preflight({
            f"{self._mount}/config/{self._connection}": ("read",),
            self._path: ("create", "read", "update", "delete"),
            f"{self._mount}/creds/{self._role}": ("read",),
            "sys/leases/revoke": ("update",),
        })  # fmt: skip
        where = place(self._settings, old, sort_of(self._plugin()))
        self._wanted(old, "")
        return [*facts, Fact("new way", f"{self.about()}, seen to work at {where.host}:{where.port}")]

    def present(self, old: Credential, run: str) -> Presence:
        """Compare the role with the one wanted."""
        held = self._held()
        return whose(held, self._wanted(old, run), _note(held), run)

    def snapshot(self) -> str:
        """Return the role as it is."""
        return kept(self._held())

    def setup(self, old: Credential, run: str) -> Outcome:
        """Write the role."""
        match self.present(old, run):
            case Presence.OTHERS:
                return refused(f"dynamic role {self._role} of {self._mount}")
            case Presence.OURS:
                pass
            case Presence.ABSENT | Presence.EARLIER:
                write(self._bao.client(), self._path, self._wanted(old, run))
        return Done(f"{self.about()} is there", {"role": self._role, "mount": self._mount})

    def check(self, old: Credential, run: str, since: datetime) -> Outcome:
        """Take a log-in, log in to the database with it, and revoke it: afterwards it must be refused."""
        _ = since
        if self.present(old, run) is not Presence.OURS:
            return Failed(f"{self._path} is not as this rotation made it", "see who changed it, then `lapse resume`")
        where = place(self._settings, old, sort_of(self._plugin()))
        client = self._bao.client()
        with bao(f"take a log-in of role {self._role}"):
            said = client.adapter.get(f"/v1/{self._mount}/creds/{self._role}")
        user, password = str(said["data"]["username"]), str(said["data"]["password"])
        try:
            worked = where.opens(user, password)
        finally:
            with bao(f"revoke the log-in that was tried ({said['lease_id']})"):
                client.adapter.put("/v1/sys/leases/revoke", json={"lease_id": said["lease_id"], "sync": True})
        if not worked:
            hint = "look at the role's statements and at what the server lets in, then `lapse resume`"
            return Failed(f"{where.host} refuses a fresh log-in of role {self._role}", hint)
        if where.opens(user, password):
            return Failed(f"a revoked log-in of role {self._role} still works", "look at its revocation statements")
        return Done(f"logged in to {where.host} as {user}, which is revoked and refused again", {"user": user})

    def undo(self, old: Credential, run: str, former: str) -> Outcome:
        """Remove the role or write its former self; log-ins that somebody took meanwhile end by themselves."""
        held = self._held()
        if held is not None and marked(_note(held)) == run and not same(held, self._wanted(old, run)):
            return changed(self._path)
        return take_back(self._bao.client(), self._path, _note(held), run, former)

    def _held(self) -> dict[str, Any] | None:
        return read(self._bao.client(), self._path)

    def _plugin(self) -> str:
        return plugin(self._bao.client(), self._mount, self._connection, self._role)

    def _wanted(self, old: Credential, run: str) -> dict[str, Any]:
        *before, last = self._statements(old)
        return {
            "db_name": self._connection,
            "creation_statements": [*before, f"{last} /* {mark(run)} */"],
            "default_ttl": self._ttl,
            "max_ttl": max(self._max, self._ttl),
        }

    def _statements(self, old: Credential) -> list[str]:
        if file := self._settings.get("statements"):
            try:
                lines = [line.strip().rstrip(";") for line in Path(file).expanduser().read_text().splitlines()]
            except OSError as e:
                raise ProviderError(Trouble.REFUSED, f"cannot read statements = {file}: {e.strerror}") from None
            found = [line for line in lines if line and not line.startswith("--")]
            if not any("{{name}}" in line for line in found):
                raise ProviderError(Trouble.REFUSED, f"{file} makes no user: no statement in it has {{{{name}}}}")
            return found
        if sort_of(self._plugin()) != "postgresql":
            raise ProviderError(Trouble.REFUSED, "say with `statements`, a file of SQL, how a user is made there")
        of = self._settings.get("grant") or part(old, "username")
        if not _ROLE.fullmatch(of):
            raise ProviderError(Trouble.REFUSED, f"grant = {of!r} is no role that could be written into a statement")
        make_it = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
        return [f'{make_it} IN ROLE "{of}"', f"ALTER ROLE \"{{{{name}}}}\" SET role TO '{of}'"]


def _note(held: Mapping[str, Any] | None) -> str:
    return " ".join(str(s) for s in (held or {}).get("creation_statements") or ())


def make(settings: Settings) -> VaultDatabaseDynamic:
    """Return the successor for a playbook's slot."""
    return VaultDatabaseDynamic(settings)
