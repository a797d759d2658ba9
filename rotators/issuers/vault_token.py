"""Tokens of Vault and OpenBao: found by accessor, replaced by a token of the same kind, revoked by accessor.

Everything after the look-up goes by accessor, which can revoke but not log in, so no step needs the leaked token again.
https://developer.hashicorp.com/vault/api-docs/auth/token
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.bao import MARK, MOST, Bao, bao, moment, strings
from rotators.clouds.bounded import Gathering, listed
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential

SKEW = timedelta(seconds=60)
_BATCH = ("hvb.", "b.")
_CREATED = "auth/token/"


class VaultToken:
    """Service tokens. Settings: those of `rotators.bao`, and `ttl` (of the new token; else what the old one had)."""

    name = "vault_token"
    kinds = ("vault_token",)
    style = Style.DISPLACE
    reversible = False
    propagation = timedelta(seconds=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("update auth/token/lookup",),
        "mint": ("update auth/token/lookup-accessor", "sudo auth/token/create-orphan"),
        "orphans": ("sudo auth/token/accessors", "update auth/token/lookup-accessor"),
        "retire": ("update auth/token/revoke-accessor",),
        "evidence": ("update auth/token/lookup-accessor", "read sys/policies/acl/*"),
    }
    also_dies = "Every token and lease made with it dies too, dynamic database users among them; nobody is mailed."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings
        self._bao = Bao(settings)

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Ask Vault whether the admin may look up, create and revoke tokens."""
        wanted: dict[str, tuple[str, ...]] = {
            f"auth/token/{p}": ("update",) for p in ("lookup", "lookup-accessor", "revoke-accessor")
        }
        wanted |= {"auth/token/create-orphan": ("sudo",), "auth/token/accessors": ("sudo",)}
        return self._bao.preflight(wanted)

    def locate(self, old: Credential) -> KeyRef:
        """Look the token up as admin; a batch token has no accessor and is `ProviderError(REFUSED)`."""
        token = old.parts["secret"].reveal()
        if token.startswith(_BATCH):
            raise ProviderError(
                Trouble.REFUSED, "a batch token cannot be revoked: revoke its parent, or wait for its end"
            )
        client = self._bao.client(leaked=token)
        with bao("look up the token", token):
            return _ref(client.auth.token.lookup(token)["data"])

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """Return the token itself: Vault knows no owner's list, and a new token is known by its mark."""
        return [_ref(self._about(ref.id))]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Make an orphan token with the same policies, life and uses; only tokens that were created so can be."""
        old = self._about(ref.id)
        path = str(old.get("path") or "")
        if not path.startswith(_CREATED):
            hint = "log in there again instead; revoking this one still ends it"
            raise ProviderError(Trouble.REFUSED, f"the token came from a log-in at {path}; {hint}")
        policies = [str(p) for p in old.get("policies") or ()]
        period = int(old.get("period") or 0)
        life = self._settings.get("ttl") or f"{int(old.get('creation_ttl') or 0)}s"
        client = self._bao.client()
        with bao("create a token"):
            made = client.auth.token.create(
                policies=policies,
                meta={**strings(old.get("meta")), MARK: marker},
                no_parent=True,
                no_default_policy="default" not in policies,
                renewable=bool(old.get("renewable")),
                ttl=None if period or life == "0s" else life,
                period=f"{period}s" if period else None,
                explicit_max_ttl=f"{old['explicit_max_ttl']}s" if old.get("explicit_max_ttl") else None,
                num_uses=0,
                display_name=str(old.get("display_name") or "").removeprefix("token-") or "token",
            )["auth"]
        new = KeyRef(made["accessor"], ref.owner, never_used=True, label=marker)
        return Minted(new, {"secret": Secret(made["client_token"])})

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List tokens that were created with our mark; nobody else writes it.

        A log-in's token carries the metadata of its secret id, which may hold our mark too: that is no orphan.
        """
        return [
            _ref(about)
            for about in self._all()
            if strings(about.get("meta")).get(MARK) == marker
            and str(about.get("path")).startswith(_CREATED)
            and about.get("accessor") not in {*before, ref.id}
            if (made := moment(about.get("creation_time"))) is not None and made >= since - SKEW
        ]

    def disable(self, ref: KeyRef) -> None:
        """Refuse: Vault has no such thing as a token that rests."""
        raise ProviderError(Trouble.REFUSED, f"a Vault token cannot be disabled, only revoked ({ref.id})")

    enable = disable

    def retire(self, ref: KeyRef) -> None:
        """Revoke by accessor, with all that was made with the token."""
        client = self._bao.client()
        try:
            with bao(f"revoke token {ref.id}"):
                client.auth.token.revoke_accessor(ref.id)
        except ProviderError as e:
            if e.trouble is not Trouble.GONE:
                raise

    def state(self, ref: KeyRef) -> State:
        """Look the accessor up; one that is gone is refused in Vault's own words."""
        try:
            self._about(ref.id)
        except ProviderError as e:
            if e.trouble is Trouble.GONE:
                return State.GONE
            raise
        return State.ACTIVE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # no use is on record
        """Say whose token it is, what its policies open, and until when; Vault does not tell when it was used."""
        about = self._about(ref.id)
        gathering = Gathering()
        policies = [str(p) for p in about.get("policies") or ()]
        gathering.add("owner", lambda: f"{about.get('display_name')}, made by {about.get('path')}")
        gathering.add("made", lambda: str(moment(about.get("creation_time")) or ""))
        gathering.add("ends", lambda: str(about.get("expire_time") or "never"))
        gathering.add("policies", lambda: listed(policies))
        for policy in policies:
            if policy not in ("root", "default"):
                gathering.add(f"policy {policy}", lambda policy=policy: self._policy(policy))  # type: ignore[misc]  # a default binds the loop variable
        gathering.add("last used", lambda: "Vault keeps this in its audit log only: search it for the accessor")
        return gathering.facts

    def _policy(self, name: str) -> str:
        client = self._bao.client()
        with bao(f"read policy {name}"):
            text = client.sys.read_acl_policy(name=name)["data"]["policy"]
        return " ".join(str(text).split())[:500]

    def _about(self, accessor: str) -> dict[str, Any]:
        client = self._bao.client()
        with bao(f"look up token {accessor}"):
            found: dict[str, Any] = client.auth.token.lookup_accessor(accessor)["data"]
        return found

    def _all(self) -> Iterator[dict[str, Any]]:
        """Every token there is; ones that end while we look are passed over."""
        client = self._bao.client()
        with bao("list the accessors of tokens"):
            accessors = client.auth.token.list_accessors()["data"]["keys"]
        if len(accessors) > MOST:
            raise ProviderError(Trouble.REFUSED, f"Vault holds {len(accessors)} tokens, too many to search for ours")
        for accessor in accessors:
            try:
                yield self._about(accessor)
            except ProviderError as e:
                if e.trouble is not Trouble.GONE:
                    raise


def _ref(about: Mapping[str, Any]) -> KeyRef:
    accessor = about.get("accessor")
    if not accessor:
        raise ProviderError(Trouble.REFUSED, "Vault gives no accessor for this token: it is a batch token")
    owner = str(about.get("entity_id") or about.get("display_name") or about.get("path") or "")
    return KeyRef(
        str(accessor), owner, created=moment(about.get("creation_time")), label=strings(about.get("meta")).get(MARK, "")
    )


def make(settings: Settings) -> VaultToken:
    """Return the issuer for a playbook's slot."""
    return VaultToken(settings)
