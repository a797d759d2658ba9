"""Secret ids of AppRoles in Vault and OpenBao: many live at once, each with metadata, each destroyed by its accessor.

https://developer.hashicorp.com/vault/api-docs/auth/approle
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.bao import MARK, Bao, bao, moment, strings
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential

SKEW = timedelta(seconds=60)


class VaultAppRole:
    """Secret ids. Settings: those of `rotators.bao`, `mount` (`approle`), `role` (else found by the role id)."""

    name = "vault_approle"
    kinds = ("vault_approle",)
    style = Style.DISPLACE
    reversible = False
    propagation = timedelta(seconds=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": (
            "list auth/approle/role",
            "read auth/approle/role/ROLE/role-id",
            "update auth/approle/role/ROLE/secret-id/lookup",
        ),
        "mint": ("update auth/approle/role/ROLE/secret-id",),
        "orphans": (
            "list auth/approle/role/ROLE/secret-id",
            "update auth/approle/role/ROLE/secret-id-accessor/lookup",
        ),
        "retire": ("update auth/approle/role/ROLE/secret-id-accessor/destroy",),
        "evidence": ("read auth/approle/role/ROLE", "list auth/approle/role/ROLE/secret-id"),
    }
    also_dies = "Nothing else dies: tokens that the secret id opened live to their own end, end them with vault_revoke."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings
        self._mount = settings.get("mount") or "approle"
        self._bao = Bao(settings)

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Ask Vault whether the admin may find, make and destroy secret ids of the role, where it is named."""
        role = self._settings.get("role")
        base = f"auth/{self._mount}/role"
        if not role:
            return self._bao.preflight({base: ("list",)})
        paths: dict[str, tuple[str, ...]] = {
            f"{base}/{role}/{end}": ("update",)
            for end in ("secret-id", "secret-id/lookup", "secret-id-accessor/lookup", "secret-id-accessor/destroy")
        }
        return self._bao.preflight({**paths, f"{base}/{role}/secret-id": ("update", "list")})

    def locate(self, old: Credential) -> KeyRef:
        """Find the role by its id, and in it exactly this secret id."""
        secret = old.parts["secret"].reveal()
        client = self._bao.client(leaked=secret)
        role = self._role(client, old)
        path = f"auth/{self._mount}/role/{role}/secret-id/lookup"
        with bao(f"look up the secret id in role {role}", secret):
            said = client.write_data(path, data={"secret_id": secret})
        about = (said.json() if hasattr(said, "json") and said.content else said) if said else None
        if not isinstance(about, dict) or not about.get("data"):
            raise ProviderError(Trouble.GONE, f"role {role} has no such secret id: it is destroyed or has expired")
        return _ref(about["data"], role)

    def _role(self, client: Any, old: Credential) -> str:  # noqa: ANN401  # hvac publishes no types
        wanted = old.parts["id"].reveal() if "id" in old.parts else ""
        if named := self._settings.get("role"):
            with bao(f"read the id of role {named}"):
                is_id = client.auth.approle.read_role_id(named, mount_point=self._mount)["data"]["role_id"]
            if wanted and is_id != wanted:
                raise ProviderError(Trouble.GONE, f"role {named} has another role id than the leaked one")
            return named
        if not wanted:
            raise ProviderError(Trouble.REFUSED, "the finding holds no role id: name the `role`")
        with bao("list the roles"):
            names = client.auth.approle.list_roles(mount_point=self._mount)["data"]["keys"]
        for name in names:
            with bao(f"read the id of role {name}"):
                if client.auth.approle.read_role_id(name, mount_point=self._mount)["data"]["role_id"] == wanted:
                    return str(name)
        raise ProviderError(Trouble.GONE, f"no role under auth/{self._mount} has the leaked role id")

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the role's secret ids by accessor."""
        client = self._bao.client()
        try:
            with bao(f"list the secret ids of role {ref.owner}"):
                found = client.auth.approle.list_secret_id_accessors(ref.owner, mount_point=self._mount)
        except ProviderError as e:
            if e.trouble is Trouble.GONE:  # an empty list is a 404
                return []
            raise
        known = (self._about(ref.owner, accessor) for accessor in found["data"]["keys"])
        return [_ref(about, ref.owner) for about in known if about is not None]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Make a secret id for the same role, with the old one's metadata and CIDR bounds, and our mark."""
        client = self._bao.client()
        old = self._about(ref.owner, ref.id) or {}
        with bao(f"make a secret id for role {ref.owner}"):
            made = client.auth.approle.generate_secret_id(
                ref.owner,
                metadata={**strings(old.get("metadata")), MARK: marker},
                cidr_list=old.get("cidr_list") or None,
                token_bound_cidrs=old.get("token_bound_cidrs") or None,
                mount_point=self._mount,
            )["data"]
            role_id = client.auth.approle.read_role_id(ref.owner, mount_point=self._mount)["data"]["role_id"]
        new = KeyRef(made["secret_id_accessor"], ref.owner, never_used=True, label=marker)
        return Minted(new, {"id": Secret(role_id), "secret": Secret(made["secret_id"])})

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List secret ids with our mark; nobody else writes it."""
        known = {*before, ref.id}
        return [
            key
            for key in self.siblings(ref)
            if key.label == marker and key.id not in known and key.created is not None and key.created >= since - SKEW
        ]

    def disable(self, ref: KeyRef) -> None:
        """Refuse: Vault has no such thing as a secret id that rests."""
        raise ProviderError(Trouble.REFUSED, f"a secret id cannot be disabled, only destroyed ({ref.id})")

    enable = disable

    def retire(self, ref: KeyRef) -> None:
        """Destroy exactly this secret id."""
        if self._about(ref.owner, ref.id) is None:
            return
        client = self._bao.client()
        with bao(f"destroy secret id {ref.id}"):
            client.auth.approle.destroy_secret_id_accessor(ref.owner, ref.id, mount_point=self._mount)

    def state(self, ref: KeyRef) -> State:
        """Look the accessor up."""
        return State.GONE if self._about(ref.owner, ref.id) is None else State.ACTIVE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # no use is on record
        """Say which role it opens, with which policies, and how many other secret ids that role has."""
        client = self._bao.client()
        with bao(f"read role {ref.owner}"):
            role = client.auth.approle.read_role(ref.owner, mount_point=self._mount)["data"]
        about = self._about(ref.owner, ref.id) or {}
        policies = ", ".join(role.get("token_policies") or role.get("policies") or ()) or "none of its own"
        return [
            Fact("role", f"{ref.owner} at auth/{self._mount}, policies {policies}"),
            Fact("made", str(moment(about.get("creation_time")) or "not known")),
            Fact("tokens", f"live up to {role.get('token_max_ttl') or role.get('token_ttl') or 0} s (0: the mount's)"),
            Fact("secret ids", f"{len(self.siblings(ref))} in this role"),
            Fact("last used", "Vault keeps this in its audit log only"),
        ]

    def _about(self, role: str, accessor: str) -> dict[str, Any] | None:
        """Return what Vault knows of a secret id, None when it is not there."""
        client = self._bao.client()
        try:
            with bao(f"look up secret id {accessor}"):
                said = client.auth.approle.read_secret_id_accessor(role, accessor, mount_point=self._mount)
        except ProviderError as e:
            if e.trouble is Trouble.GONE:
                return None
            raise
        return dict(said["data"]) if isinstance(said, dict) and said.get("data") else None


def _ref(about: Mapping[str, Any], role: str) -> KeyRef:
    return KeyRef(
        str(about["secret_id_accessor"]),
        role,
        created=moment(about.get("creation_time")),
        label=strings(about.get("metadata")).get(MARK, ""),
    )


def make(settings: Settings) -> VaultAppRole:
    """Return the issuer for a playbook's slot."""
    return VaultAppRole(settings)
