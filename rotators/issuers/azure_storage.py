"""Azure Storage account keys: two slots, `key1` and `key2`, each always there; regenerating one kills its value.

How that fits an issuer of style `displace`: the successor is *the other slot's* present key. `mint` creates nothing, it
lends that key (so nothing can be orphaned, and retiring a lent key does nothing: others use it). Consumers go over to
it, and only then `retire` regenerates the slot that leaked, which destroys. A `KeyRef.id` is the slot and a digest of
its value (`key1#9f…`; the value has 512 random bits): a slot that somebody has regenerated since is another key, so a
repeated `retire` never destroys a value that is in use again.
If both slots leaked, run it twice: the second run goes back to the freshly regenerated slot.
https://learn.microsoft.com/en-us/azure/storage/common/storage-account-keys-manage
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from rotators.clouds.bounded import Gathering, listed
from rotators.clouds.microsoft import Microsoft
from rotators.clouds.rest import RestError, done_if_gone, next_page
from rotators.door import Route
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.clouds.rest import Service
    from rotators.interface import Settings
    from verifier.model import Credential

_API = {"api-version": "2023-05-01"}
_SUBSCRIPTIONS = Route("GET", "/subscriptions")
_ACCOUNTS = Route("GET", "/subscriptions/{subscription}/providers/Microsoft.Storage/storageAccounts")
_ONE = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{account}"
_ACCOUNT = Route("GET", _ONE)
_KEYS, _REGENERATE = Route("POST", _ONE + "/listKeys"), Route("POST", _ONE + "/regenerateKey")
_RIGHTS = Route("GET", _ONE + "/providers/Microsoft.Authorization/permissions")
ROUTES = (_SUBSCRIPTIONS, _ACCOUNTS, _ACCOUNT, _KEYS, _REGENERATE, _RIGHTS)
_LENT = "lent:"
_SUBSCRIPTIONS_MOST = 50


class _Subscription(Struct, frozen=True, rename="camel"):
    subscription_id: str


class _Subscriptions(Struct, frozen=True):
    value: tuple[_Subscription, ...] = ()


class _Properties(Struct, frozen=True, rename="camel"):
    allow_shared_key_access: bool | None = None
    public_network_access: str | None = None


class _Account(Struct, frozen=True):
    id: str = ""
    name: str = ""
    location: str = ""
    tags: dict[str, str] = {}
    properties: _Properties = _Properties()


class _Accounts(Struct, frozen=True, rename="camel"):
    value: tuple[_Account, ...] = ()
    next_link: str | None = None


class _Key(Struct, frozen=True, rename="camel"):
    key_name: str
    value: str
    creation_time: datetime | None = None


class _Keys(Struct, frozen=True):
    keys: tuple[_Key, ...] = ()


class _Right(Struct, frozen=True, rename="camel"):
    """What one role assignment gives: an action that `actions` cover and `not_actions` do not."""

    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()

    def grants(self, action: str) -> bool:
        def covers(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)

        return covers(self.actions) and not covers(self.not_actions)


class _Rights(Struct, frozen=True):
    value: tuple[_Right, ...] = ()


class AzureStorage:
    """Keys of one storage account. `KeyRef.owner` is the account's resource id.

    Settings: `resource_id`, or `subscription` (else every subscription that the admin sees is searched, 50 at most),
    and those of `clouds.microsoft` and of the door.
    """

    name = "azure_storage"
    kinds = ("azure_storage",)
    style = Style.DISPLACE
    reversible = False
    propagation = timedelta(minutes=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": (
            "Microsoft.Storage/storageAccounts/read",
            "Microsoft.Storage/storageAccounts/listKeys/action",
        ),
        "mint": ("Microsoft.Storage/storageAccounts/listKeys/action",),
        "retire": ("Microsoft.Storage/storageAccounts/regenerateKey/action",),
        "evidence": ("Microsoft.Storage/storageAccounts/read",),
    }
    also_dies = "Every SAS token signed with the leaked slot dies with it."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings
        self._way = Microsoft(settings)

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:
        """Ask Resource Manager what the admin may do with the account; where it does not say, a fact says so.

        https://learn.microsoft.com/en-us/rest/api/authorization/permissions/list-for-resource
        """
        name = ref.owner.rsplit("/", 1)[-1]
        query = {"api-version": "2022-04-01"}
        try:
            said = self._arm.ask(
                _RIGHTS, _Rights, f"say what the admin may do with {name}", fill=_fill(ref.owner), query=query
            )
        except RestError as e:
            if e.trouble is Trouble.LATER:
                raise
            return [Fact("rights", f"Azure does not tell what the admin may do with {name} ({e.code})")]
        wanted = {right for step in ("mint", "retire") for right in self.permissions[step]}
        if missing := sorted(right for right in wanted if not any(r.grants(right) for r in said.value)):
            reason = f"the admin lacks {', '.join(missing)} on {name}: grant Storage Account Key Operator Service Role"
            raise ProviderError(Trouble.DENIED, reason)
        return [Fact("rights", f"the admin may list and regenerate the keys of {name}")]

    def locate(self, old: Credential) -> KeyRef:
        """Find the slot whose present value is the leaked key, by comparing in constant time."""
        leaked = old.parts["secret"].reveal().strip()
        owner = self._resource(old.parts["account"].reveal().strip())
        for key in self._keys(owner):
            if hmac.compare_digest(key.value.encode(), leaked.encode()):
                return _ref(key, owner)
        raise ProviderError(Trouble.GONE, f"no slot of {owner} holds the leaked key: it was regenerated already")

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List both slots as they are now."""
        return [_ref(key, ref.owner) for key in self._keys(ref.owner)]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Lend the other slot's present key; nothing changes at Azure."""
        _ = marker
        for key in self._keys(ref.owner):
            if key.key_name != _slot(ref):
                lent = _ref(key, ref.owner)
                lent = KeyRef(_LENT + lent.id, ref.owner, State.ACTIVE, lent.created, label="the other slot, lent")
                parts = {"secret": Secret(key.value), "account": Secret(ref.owner.rsplit("/", 1)[-1])}
                return Minted(lent, parts)
        raise ProviderError(Trouble.FULL, f"{ref.owner} shows one key only: there is no other slot to go over to")

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List nothing: `mint` creates nothing."""
        _ = ref, before, since, marker
        return []

    def disable(self, ref: KeyRef) -> None:
        """Refuse: a slot cannot be switched off by itself."""
        raise ProviderError(Trouble.REFUSED, f"Azure cannot disable {_slot(ref)} alone, only regenerate it for good")

    def enable(self, ref: KeyRef) -> None:
        """Refuse: a regenerated value cannot come back."""
        raise ProviderError(Trouble.REFUSED, f"Azure cannot bring back a former value of {_slot(ref)}")

    def retire(self, ref: KeyRef) -> None:
        """Regenerate the slot while it holds exactly this value; a lent key, or one that is gone, is left alone."""
        if ref.id.startswith(_LENT) or self.state(ref) is not State.ACTIVE:
            return
        body = {"keyName": _slot(ref)}
        what = f"regenerate {_slot(ref)}"
        self._arm.ask(_REGENERATE, _Keys, what, fill=_fill(ref.owner), query=_API, json=body)

    def state(self, ref: KeyRef) -> State:
        """Return whether the slot still holds this value."""
        try:
            now = {_ref(key, ref.owner).id for key in self._keys(ref.owner)}
        except RestError as e:
            done_if_gone(e)
            return State.GONE
        return State.ACTIVE if ref.id.removeprefix(_LENT) in now else State.GONE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:
        """Say which account it is, how open it is, how old both keys are. Azure keeps no last use of a key."""
        _ = since
        got = Gathering()
        got.add("account", lambda: self._about(ref))
        got.add("keys", lambda: listed([f"{_slot(k)} of {k.created or '?'}" for k in self.siblings(ref)]))
        got.facts.append(Fact("may do", "everything in the account: an account key has all rights to all its data"))
        got.facts.append(Fact("last used", "not known: Azure says it of no key; see the account's StorageRead logs"))
        return got.facts

    def _about(self, ref: KeyRef) -> str:
        said = self._arm.ask(_ACCOUNT, _Account, "describe the account", fill=_fill(ref.owner), query=_API)
        tags = ", ".join(f"{k}={v}" for k, v in said.tags.items())
        network = said.properties.public_network_access or "not said"
        return f"{ref.owner} in {said.location}; public network: {network}" + (f" ({tags})" if tags else "")

    def _keys(self, owner: str) -> tuple[_Key, ...]:
        what = f"list the keys of {owner.rsplit('/', 1)[-1]}"
        return self._arm.ask(_KEYS, _Keys, what, fill=_fill(owner), query=_API, json={}).keys

    def _resource(self, account: str) -> str:
        """Return the resource id of an account by its name, which is unique in the world."""
        if given := self._settings.get("resource_id"):
            if given.rsplit("/", 1)[-1] != account:
                raise ProviderError(
                    Trouble.REFUSED, f"resource_id is of another account than the leaked key, {account}"
                )
            return given
        for subscription in self._subscriptions():
            fill = {"subscription": subscription}
            query: dict[str, str] = dict(_API)
            while True:
                said = self._arm.ask(_ACCOUNTS, _Accounts, "list storage accounts", fill=fill, query=query)
                for found in said.value:
                    if found.name == account:
                        return found.id
                token = next_page(said.next_link)
                if not token or token == query.get("$skiptoken"):
                    break
                query["$skiptoken"] = token
        raise ProviderError(Trouble.GONE, f"the admin sees no storage account {account}: name its `resource_id`")

    def _subscriptions(self) -> list[str]:
        if given := self._settings.get("subscription"):
            return [given]
        said = self._arm.ask(_SUBSCRIPTIONS, _Subscriptions, "list subscriptions", query={"api-version": "2022-12-01"})
        if not said.value:
            raise ProviderError(Trouble.DENIED, "the Azure admin sees no subscription: give it a role in one")
        return [s.subscription_id for s in said.value[:_SUBSCRIPTIONS_MOST]]

    @property
    def _arm(self) -> Service:
        return self._way.service("arm", ROUTES)


def _slot(ref: KeyRef) -> str:
    return ref.id.removeprefix(_LENT).partition("#")[0]


def _ref(key: _Key, owner: str) -> KeyRef:
    digest = blake2b(key.value.encode(), digest_size=6, person=b"lapse-slot", key=owner.encode()[-64:]).hexdigest()
    return KeyRef(f"{key.key_name}#{digest}", owner, State.ACTIVE, key.creation_time)


def _fill(owner: str) -> dict[str, str]:
    """Take a resource id apart; another form than a storage account's is `ProviderError(REFUSED)`."""
    words = owner.strip("/").split("/")
    if [w.lower() for w in words[0::2]] != ["subscriptions", "resourcegroups", "providers", "storageaccounts"]:
        raise ProviderError(Trouble.REFUSED, f"{owner} is no resource id of a storage account")
    return {"subscription": words[1], "group": words[3], "account": words[7]}


def make(settings: Settings) -> AzureStorage:
    """Return the issuer for a playbook's slot."""
    return AzureStorage(settings)
