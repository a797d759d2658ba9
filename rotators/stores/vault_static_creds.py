"""A static role of Vault's database engine as a store: Vault writes the value itself, we only read it.

For `vault_database`, so that a playbook's store and verify slots mean the same everywhere. A version is the time of
Vault's last rotation; there is no former one to restore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rotators.bao import Bao, bao
from rotators.interface import ProviderError, Stored, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Fact, Settings


class VaultStaticCreds:
    """Settings: `role`, `mount` (`database`), those of `rotators.bao`."""

    name = "vault_static_creds"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "current": ("read MOUNT/static-creds/ROLE",),
        "fetch": ("read MOUNT/static-creds/ROLE",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; without a `role` it is `ProviderError(REFUSED)`."""
        self._bao = Bao(settings)
        self._mount, self._role = settings.get("mount") or "database", settings.get("role", "")
        if not self._role:
            raise ProviderError(Trouble.REFUSED, "vault_static_creds needs a `role`")

    def preflight(self) -> Sequence[Fact]:
        """Ask Vault whether the admin may read the role's log-in."""
        return self._bao.preflight({f"{self._mount}/static-creds/{self._role}": ("read",)})

    def current(self) -> Stored:
        """Return the time of the last rotation; no run's mark lies there."""
        return Stored(str(self._read().get("last_vault_rotation")))

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Write nothing: Vault does, when the issuer applies. A value of ours (`password`) is `REFUSED`."""
        if "password" in fields or "secret" in fields:
            raise ProviderError(Trouble.REFUSED, "Vault makes the password of a static role itself; none can be stored")
        now = self.current()
        if expected is not None and now.version != expected.version:
            raise ProviderError(Trouble.CONFLICT, f"static role {self._role} was rotated by somebody else")
        return Stored(now.version, run)

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:  # noqa: ARG002  # Vault keeps one
        """Read user and password of now."""
        data = self._read()
        return {name: Secret(str(data[name])) for name in ("username", "password") if name in data}

    def restore(self, version: str | None, run: str) -> Stored:  # noqa: ARG002  # Vault keeps one
        """Return the version of now if nothing was rotated since `version`, else refuse: the old value is gone."""
        now = self.current()
        if version is not None and now.version != version:
            raise ProviderError(Trouble.GONE, f"static role {self._role} was rotated: its old password exists no more")
        return now

    def _read(self) -> dict[str, Any]:
        client = self._bao.client()
        with bao(f"read the log-in of static role {self._role}"):
            found: dict[str, Any] = client.secrets.database.get_static_credentials(self._role, mount_point=self._mount)[
                "data"
            ]
        return found


def make(settings: Settings) -> VaultStaticCreds:
    """Return the store for a playbook's slot."""
    return VaultStaticCreds(settings)
