"""Database log-ins that Vault or OpenBao rotates itself: static roles, and the root log-in of a connection.

One call of the server makes a password, sets it in the database and keeps it, so the secret never passes here: `mint`
gives only the user's name, `apply` makes the call, and readers (and the store `vault_static_creds`) get the value from
Vault. `KeyRef.created` is when the password that leaked was set: a later time means that it was rotated already, by us
before a crash or by Vault's own schedule, and either way the leaked one is dead.
https://developer.hashicorp.com/vault/api-docs/secret/databases
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.bao import Bao, bao, moment
from rotators.databases import part, password_of
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential, Parts


class VaultDatabase:
    """Settings: a static `role` or a `connection` (its root log-in), `mount` (`database`), those of `rotators.bao`."""

    name = "vault_database"
    kinds = ("postgres", "mysql", "redis", "mongodb_uri")
    style = Style.REPLACE
    reversible = False
    propagation = timedelta(seconds=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("read MOUNT/static-creds/ROLE", "read MOUNT/config/CONNECTION"),
        "apply": ("update MOUNT/rotate-role/ROLE", "update MOUNT/rotate-root/CONNECTION"),
        "evidence": ("read MOUNT/static-roles/ROLE", "read MOUNT/config/CONNECTION"),
    }
    also_dies = (
        "Every client that kept the old password instead of reading it from Vault fails at its next connect; open "
        "sessions live on until ended."
    )

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; neither or both of `role` and `connection` is `ProviderError(REFUSED)`."""
        self._bao = Bao(settings)
        self._mount = settings.get("mount") or "database"
        self._role, self._connection = settings.get("role", ""), settings.get("connection", "")
        if bool(self._role) == bool(self._connection):
            raise ProviderError(Trouble.REFUSED, "vault_database needs either a static `role` or a `connection`")

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Ask Vault whether the admin may read and rotate."""
        if self._role:
            wanted: dict[str, tuple[str, ...]] = {
                f"{self._mount}/static-creds/{self._role}": ("read",),
                f"{self._mount}/rotate-role/{self._role}": ("update",),
            }
        else:
            wanted = {
                f"{self._mount}/config/{self._connection}": ("read",),
                f"{self._mount}/rotate-root/{self._connection}": ("update",),
            }
        return self._bao.preflight(wanted)

    def locate(self, old: Credential) -> KeyRef:
        """See that the role's password now is the leaked one, or (root) that the connection logs in as this user.

        Vault never shows a root password: there the user's name and the host have to do.
        """
        user = part(old, "username")
        if self._role:
            creds = self._creds()
            if creds.get("username") != user:
                raise ProviderError(Trouble.REFUSED, f"static role {self._role} is of user {creds.get('username')}")
            if not hmac.compare_digest(str(creds.get("password")).encode(), password_of(old).encode()):
                raise ProviderError(Trouble.GONE, f"static role {self._role} has another password now: rotated already")
            return KeyRef(self._role, user, created=moment(creds.get("last_vault_rotation")))
        details = self._config().get("connection_details") or {}
        host = part(old, "host")
        if details.get("username") != user or (host and host not in str(details.get("connection_url", host))):
            raise ProviderError(Trouble.REFUSED, f"connection {self._connection} logs in as another user or elsewhere")
        return KeyRef(self._connection, user)

    def _creds(self) -> dict[str, Any]:
        client = self._bao.client()
        with bao(f"read the log-in of static role {self._role}"):
            found: dict[str, Any] = client.secrets.database.get_static_credentials(self._role, mount_point=self._mount)[
                "data"
            ]
        return found

    def _config(self) -> dict[str, Any]:
        client = self._bao.client()
        with bao(f"read connection {self._connection}"):
            found: dict[str, Any] = client.secrets.database.read_connection(self._connection, mount_point=self._mount)[
                "data"
            ]
        return found

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """Return the log-in itself: there is one."""
        return [ref]

    def mint(self, ref: KeyRef, marker: str) -> Minted:  # noqa: ARG002  # nothing is made yet, so no mark
        """Give the user's name only: Vault makes the password, in `apply`, and nobody else sees it."""
        return Minted(ref, {"username": Secret(ref.owner)})

    def apply(self, ref: KeyRef, parts: Parts) -> None:  # noqa: ARG002  # Vault makes the value
        """Let Vault rotate, unless it has since `ref` was located."""
        client = self._bao.client()
        if self._role:
            now = moment(self._creds().get("last_vault_rotation"))
            if ref.created is not None and now is not None and now > ref.created:
                return
            with bao(f"rotate static role {self._role}"):
                client.secrets.database.rotate_static_role_credentials(self._role, mount_point=self._mount)
            return
        with bao(f"rotate the root log-in of connection {self._connection}"):
            client.secrets.database.rotate_root_credentials(self._connection, mount_point=self._mount)

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:  # noqa: ARG002  # the contract's arguments
        """Return nothing: Vault makes, sets and keeps a password in one call."""
        return []

    def disable(self, ref: KeyRef) -> None:
        """Refuse: Vault cannot lock the user; `postgresql` or `mysql` can."""
        raise ProviderError(Trouble.REFUSED, f"Vault cannot disable {ref.owner}, only rotate it")

    enable = disable

    def retire(self, ref: KeyRef) -> None:
        """Do nothing: the new password took the old one's place."""

    def state(self, ref: KeyRef) -> State:
        """Say whether the password of `ref` is still the one: a later rotation makes it `GONE`."""
        if self._role and ref.created is not None:
            now = moment(self._creds().get("last_vault_rotation"))
            return State.GONE if now is not None and now > ref.created else State.ACTIVE
        return State.ACTIVE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # in the audit log only
        """Say which connection it is of, and when it is rotated anyway."""
        if not self._role:
            return [Fact("connection", f"{self._connection}, plugin {self._config().get('plugin_name')}")]
        client = self._bao.client()
        with bao(f"read static role {self._role}"):
            role = client.secrets.database.read_static_role(self._role, mount_point=self._mount)["data"]
        return [
            Fact("connection", str(role.get("db_name"))),
            Fact("rotated", f"last {ref.created}, by itself every {role.get('rotation_period')} s"),
            Fact("last used", "Vault keeps this in its audit log only"),
        ]


def make(settings: Settings) -> VaultDatabase:
    """Return the issuer for a playbook's slot."""
    return VaultDatabase(settings)
