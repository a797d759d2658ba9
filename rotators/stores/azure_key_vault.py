"""Azure Key Vault as a store: versions by random id, the run's marker as a tag of the version itself.

Key Vault has no compare-and-set. We look, set, and look again at all versions: when another one appeared in between,
theirs is put on top again and the write counts as lost. In that window, two calls long, readers may see ours.
https://learn.microsoft.com/en-us/rest/api/keyvault/secrets/set-secret/set-secret
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct, field

from rotators.clouds.fields import layout, pack, unpack
from rotators.clouds.microsoft import Microsoft
from rotators.clouds.rest import Nothing, RestError, done_if_gone, next_page
from rotators.door import Route
from rotators.interface import Fact, ProviderError, Stored, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.clouds.rest import Service
    from rotators.interface import Settings
    from verifier.secret import Secret

T = TypeVar("T")
_API = {"api-version": "7.4"}
_ONE = "/secrets/{secret}"
_GET, _SET, _DELETE = Route("GET", _ONE), Route("PUT", _ONE), Route("DELETE", _ONE)
_VERSION, _VERSIONS = Route("GET", _ONE + "/{version}"), Route("GET", _ONE + "/versions")
ROUTES = (_GET, _SET, _DELETE, _VERSION, _VERSIONS)
_RUN = "lapse-run"
_PAGES = 20


class _Attributes(Struct, frozen=True):
    created: int = 0
    enabled: bool = True


class _Secret(Struct, frozen=True):
    id: str
    value: str = ""
    tags: dict[str, str] = {}
    content_type: str | None = field(name="contentType", default=None)
    attributes: _Attributes = _Attributes()

    @property
    def version(self) -> str:
        return self.id.rsplit("/", 1)[-1]


class _Page(Struct, frozen=True, rename="camel"):
    value: tuple[_Secret, ...] = ()
    next_link: str | None = None


class AzureKeyVault:
    """One secret: `vault` is the vault's name or its URL, `secret` the secret's; `format` as in `clouds.fields`."""

    name = "azure_key_vault"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "current": ("Microsoft.KeyVault/vaults/secrets/getSecret/action",),
        "put": (
            "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
        ),
        "fetch": ("Microsoft.KeyVault/vaults/secrets/getSecret/action",),
        "restore": ("Microsoft.KeyVault/vaults/secrets/setSecret/action", "Microsoft.KeyVault/vaults/secrets/delete"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a missing name is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._way = Microsoft(settings)
        vault, self._name = settings.get("vault", ""), settings.get("secret", "")
        if not vault or not self._name:
            raise ProviderError(Trouble.REFUSED, "the slot needs `vault` (name or URL) and `secret`")
        self._base = vault.rstrip("/") if "://" in vault else f"https://{vault}.vault.azure.net"

    def preflight(self) -> Sequence[Fact]:
        """See that the admin may read the secret and list its versions; Key Vault tells nothing else beforehand."""
        self._now()
        self._versions()
        said = f"the admin may read {self._name} and list its versions; whether it may set one shows when it does"
        return [Fact("store", said)]

    def current(self) -> Stored | None:
        """Return the newest version and the run in its tag."""
        now = self._now()
        return Stored(now.version, now.tags.get(_RUN, "")) if now is not None else None

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Set a version over `expected`, else `ProviderError(CONFLICT)`; see the module about the window.

        Fields that the expected version has and `fields` lacks are kept.
        """
        before = self._versions()
        now = self._now()
        if (now.version if now is not None else None) != (expected.version if expected is not None else None):
            raise self._conflict()
        former = unpack(now.value, self._settings) if now is not None else {}
        kept = now.tags if now is not None else {}
        return self._set(pack(fields, self._settings, former), {**kept, _RUN: run}, before)

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read a version's fields, the newest by default."""
        if version is None:
            return unpack(self._ask(_GET, _Secret, "read").value, self._settings)
        return unpack(self._old(version).value, self._settings)

    def restore(self, version: str | None, run: str) -> Stored:
        """Set a copy of `version` as the newest, if `run` wrote the newest; repeating is harmless.

        `None`, nothing was there: the secret is deleted, and Key Vault keeps it for its retention time.
        """
        before = self._versions()
        now = self._now()
        if version is None:
            if now is not None and now.tags.get(_RUN) != run:
                raise self._conflict()
            if now is not None:
                self._ask(_DELETE, Nothing, "delete")
            return Stored("", run)
        old = self._old(version)
        if now is not None and hmac.compare_digest(now.value.encode(), old.value.encode()):
            return Stored(now.version, now.tags.get(_RUN, ""))
        if now is None or now.tags.get(_RUN) != run:
            raise self._conflict()
        return self._set(old.value, old.tags, before)

    def _set(self, text: str, tags: Mapping[str, str], before: frozenset[str]) -> Stored:
        """Set the value and see whether anybody else set one between `before` and ours."""
        ours = self._write(text, tags)
        others = self._versions() - before - {ours}
        now = self._now()
        if not others and now is not None and now.version == ours:
            return Stored(ours, tags.get(_RUN, ""))
        if others and now is not None and now.version == ours:
            theirs = max((self._old(v) for v in others), key=lambda s: s.attributes.created)
            self._write(theirs.value, theirs.tags)
        raise self._conflict()

    def _write(self, text: str, tags: Mapping[str, str]) -> str:
        kind = "application/json" if layout(self._settings) == "json" else "text/plain"
        body = {"value": text, "tags": dict(tags), "contentType": kind}
        try:
            return self._ask(_SET, _Secret, "set", json=body).version
        except RestError as e:
            if e.trouble is Trouble.CONFLICT:  # deleted, but kept: its name is taken until it is purged
                reason = f"secret {self._name} is deleted but kept by Key Vault: recover or purge it first"
                raise RestError(Trouble.REFUSED, reason, e.status, e.code) from None
            raise

    def _now(self) -> _Secret | None:
        try:
            return self._ask(_GET, _Secret, "read")
        except RestError as e:
            done_if_gone(e)
            return None

    def _old(self, version: str) -> _Secret:
        return self._ask(_VERSION, _Secret, f"read version {version} of", version=version)

    def _versions(self) -> frozenset[str]:
        found: set[str] = set()
        query: dict[str, str] = dict(_API)
        for _ in range(_PAGES):
            try:
                page = self._ask(_VERSIONS, _Page, "list the versions of", query=query)
            except RestError as e:
                done_if_gone(e)
                return frozenset()
            found |= {secret.version for secret in page.value}
            token = next_page(page.next_link)
            if not token:
                break
            query["$skiptoken"] = token
        return frozenset(found)

    def _ask(
        self,
        route: Route,
        into: type[T],
        verb: str,
        *,
        version: str = "",
        query: Mapping[str, str] = _API,
        json: object = None,
    ) -> T:
        fill = {"secret": self._name, "version": version}
        return self._vault.ask(route, into, f"{verb} secret {self._name}", fill=fill, query=query, json=json)

    @property
    def _vault(self) -> Service:
        return self._way.service("vault", ROUTES, base=self._base)

    def _conflict(self) -> ProviderError:
        reason = f"somebody else changed secret {self._name} meanwhile: look at its newest version before going on"
        return ProviderError(Trouble.CONFLICT, reason)


def make(settings: Settings) -> AzureKeyVault:
    """Return the store for a playbook's slot."""
    return AzureKeyVault(settings)
