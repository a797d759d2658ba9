"""Ends what a leaked Vault credential opened: leases below a prefix, or tokens that an AppRole logged in for.

The setting `prefix` names leases (`database/creds/app`), revoked while we wait; `role` names an AppRole, whose tokens
from before the moment are revoked one by one. A token's own children and leases go with it (`vault_token` retires it).
`revoke-force` is never used: it forgets a lease without revoking it, and would look like success.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rotators.bao import MOST, Bao, bao, moment, strings
from rotators.interface import ProviderError, Trouble
from rotators.step import Done, Failed, Outcome
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Fact, KeyRef, Settings
    from verifier.model import Credential


class VaultRevoke:
    """Leases and log-ins. Settings: `prefix` or `role` (with `mount`, `approle`), and those of `rotators.bao`."""

    name = "vault_revoke"
    reversible = False
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "kill": (
            "sudo sys/leases/revoke-prefix/PREFIX",
            "sudo auth/token/accessors",
            "update auth/token/lookup-accessor",
            "update auth/token/revoke-accessor",
        )
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; neither or both of `prefix` and `role` is `ProviderError(REFUSED)`."""
        self._bao = Bao(settings)
        self._prefix, self._role = settings.get("prefix", "").strip("/"), settings.get("role", "")
        self._mount = settings.get("mount") or "approle"
        if bool(self._prefix) == bool(self._role):
            raise ProviderError(Trouble.REFUSED, "vault_revoke needs either a `prefix` of leases or a `role`")

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # the settings say what
        """Ask Vault whether the admin may revoke."""
        if self._prefix:
            return self._bao.preflight({f"sys/leases/revoke-prefix/{self._prefix}": ("sudo",)})
        tokens = "auth/token"
        return self._bao.preflight({
            f"{tokens}/accessors": ("sudo",),
            f"{tokens}/lookup-accessor": ("update",),
            f"{tokens}/revoke-accessor": ("update",),
        })  # fmt: skip

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:  # noqa: ARG002  # the settings say what
        """Revoke; repeating is harmless. Leases below a prefix all go, whenever they were made."""
        return self._leases() if self._prefix else self._logins(moment)

    def _leases(self) -> Outcome:
        client = self._bao.client()
        try:
            with bao(f"revoke the leases below {self._prefix}"):
                client.adapter.put(f"/v1/sys/leases/revoke-prefix/{self._prefix}", json={"sync": True})
        except ProviderError as e:
            if e.trouble is not Trouble.REFUSED:
                raise
            return Failed(f"Vault could not revoke every lease below {self._prefix}", str(e), timedelta(seconds=30))
        return Done(f"leases below {self._prefix} revoked", {"prefix": self._prefix})

    def _logins(self, before: datetime) -> Outcome:
        client = self._bao.client()
        with bao("list the accessors of tokens"):
            accessors = client.auth.token.list_accessors()["data"]["keys"]
        if len(accessors) > MOST:
            raise ProviderError(Trouble.REFUSED, f"Vault holds {len(accessors)} tokens, too many to look through")
        killed = 0
        for accessor in accessors:
            try:
                with bao(f"look up and revoke token {accessor}"):
                    about = client.auth.token.lookup_accessor(accessor)["data"]
                    made = moment(about.get("creation_time"))
                    from_role = strings(about.get("meta")).get("role_name") == self._role
                    if from_role and about.get("path") == f"auth/{self._mount}/login" and made and made <= before:
                        client.auth.token.revoke_accessor(accessor)
                        killed += 1
            except ProviderError as e:
                if e.trouble is not Trouble.GONE:
                    raise
        return Done(f"{plural(killed, 'token')} of role {self._role} revoked", {"killed": str(killed)})

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:  # noqa: ARG002  # nothing to look at
        """Fail: what is revoked stays revoked."""
        return Failed("revoked leases and tokens do not come back", "clients log in again")


def make(settings: Settings) -> VaultRevoke:
    """Return the session killer for a playbook's slot."""
    return VaultRevoke(settings)
