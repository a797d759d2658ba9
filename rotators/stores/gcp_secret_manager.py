"""Google Secret Manager as a store: numbered versions, the run's marker in annotations of the secret.

Adding a version takes no precondition, so compare-and-set is made of three parts: the secret's etag (every Lapse run
writes its marker through it first, so of two runs one loses), a look at the newest version just before, and the number
of the added version, which shows whether somebody wrote in between: then theirs is made the newest again. In that
moment, about the length of one call, readers of `latest` may see ours.
The annotations hold keyed digests of this run's payload and of the former's: a version is a run's by its content. What
is written is fresh from an issuer: nobody guesses it from a digest.
https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct

from rotators.clouds.fields import pack, unpack
from rotators.clouds.google import Google, lacking
from rotators.clouds.rest import Nothing, RestError, done_if_gone
from rotators.door import Route
from rotators.interface import Fact, ProviderError, Stored, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.clouds.rest import Service
    from rotators.interface import Settings
    from verifier.secret import Secret

T = TypeVar("T")
_ONE = "/v1/projects/{project}/secrets/{secret}"
_CREATE = Route("POST", "/v1/projects/{project}/secrets")
_SECRET, _PATCH, _ADD = Route("GET", _ONE), Route("PATCH", _ONE), Route("POST", _ONE + ":addVersion")
_VERSION, _ACCESS = Route("GET", _ONE + "/versions/{version}"), Route("GET", _ONE + "/versions/{version}:access")
_DISABLE = Route("POST", _ONE + "/versions/{version}:disable")
_TEST = Route("POST", _ONE + ":testIamPermissions")
_PROJECT = Route("POST", "/v1/projects/{project}:testIamPermissions")
ROUTES = (_CREATE, _SECRET, _PATCH, _ADD, _VERSION, _ACCESS, _DISABLE, _TEST)
_RUN, _SEAL, _FORMER = "lapse-run", "lapse-seal", "-former"
_STALE = frozenset({"FAILED_PRECONDITION", "ABORTED", "ALREADY_EXISTS"})


class _Secret(Struct, frozen=True):
    etag: str = ""
    annotations: dict[str, str] = {}


class _Version(Struct, frozen=True):
    name: str
    state: str = "ENABLED"

    @property
    def number(self) -> int:
        return int(self.name.rsplit("/", 1)[-1])


class _Payload(Struct, frozen=True):
    data: str = ""


class _Accessed(Struct, frozen=True):
    payload: _Payload = _Payload()


class GcpSecretManager:
    """One secret, named by `project` and `secret`; `format` is `json` or `plain`, see `clouds.fields`."""

    name = "gcp_secret_manager"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "current": ("secretmanager.secrets.get", "secretmanager.versions.get", "secretmanager.versions.access"),
        "put": (
            "secretmanager.secrets.create",
            "secretmanager.secrets.update",
            "secretmanager.versions.add",
            "secretmanager.versions.access",
            "secretmanager.versions.disable",
        ),
        "fetch": ("secretmanager.versions.access",),
        "restore": ("secretmanager.versions.add", "secretmanager.versions.access", "secretmanager.versions.disable"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a missing name is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._google = Google(settings)
        self._fill = {"project": settings.get("project", ""), "secret": settings.get("secret", "")}
        if not all(self._fill.values()):
            raise ProviderError(Trouble.REFUSED, "the slot needs `project` and `secret` of Secret Manager")

    def preflight(self) -> Sequence[Fact]:
        """Ask which rights the admin has on the secret, or on the project where the secret is not there yet."""
        wanted = {right for step in ("current", "put") for right in self.permissions[step]}
        where = f"secret {self._fill['secret']}"
        if self._secret() is not None:
            missing = lacking(self._service, _TEST, where, self._fill, wanted - {"secretmanager.secrets.create"})
        else:
            where = f"project {self._fill['project']}"
            projects = self._google.service("cloudresourcemanager", (_PROJECT,))
            try:
                missing = lacking(projects, _PROJECT, where, self._fill, wanted)
            except RestError as e:  # that API may be off in a project that uses Secret Manager all the same
                if e.trouble is Trouble.LATER:
                    raise
                return [Fact("store", f"Google does not tell what the admin may do with {where} ({e.code})")]
        if missing:
            raise ProviderError(Trouble.DENIED, f"the admin lacks {', '.join(missing)} on {where}: grant it")
        return [Fact("store", f"the admin may read and write {where}")]

    def current(self) -> Stored | None:
        """Return the newest version, if it is enabled, and the run whose payload it holds."""
        newest = self._newest()
        if newest is None or newest.state != "ENABLED":
            return None
        return Stored(str(newest.number), self._author(newest.number))

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Add a version over `expected`, else `ProviderError(CONFLICT)`.

        Fields that the expected version has and `fields` lacks are kept. A secret that is not there is created.
        """
        secret = self._secret()
        self._must_be(expected)
        text = pack(fields, self._settings, self.fetch(expected.version) if expected is not None else {})
        marks = {_RUN: run, _SEAL: _seal(run, text)}
        if expected is not None and secret is not None:  # after a crash the former version must still tell its run
            former = self._mark_of(secret, expected.version)
            marks |= {_RUN + _FORMER: former[0], _SEAL + _FORMER: former[1]} if former else {}
        try:
            if secret is None:
                body = {"replication": {"automatic": {}}, "annotations": marks}
                query = {"secretId": self._fill["secret"]}
                self._ask(_CREATE, Nothing, "create", query=query, json=body)
            else:
                body = {"etag": secret.etag, "annotations": {**secret.annotations, **marks}}
                self._ask(_PATCH, Nothing, "mark", query={"updateMask": "annotations"}, json=body)
        except RestError as e:
            if e.code in _STALE:
                raise self._conflict() from None
            raise
        self._must_be(expected)
        return Stored(str(self._add(text)), run)

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read a version's fields, the newest by default."""
        return unpack(self._text(version or "latest"), self._settings)

    def restore(self, version: str | None, run: str) -> Stored:
        """Make a copy of `version` the newest and disable the one that `run` wrote; repeating is harmless.

        `None`, nothing was there: the run's version is disabled, which can be taken back.
        """
        now = self.current()
        if now is None and version is None:
            return Stored("", run)
        if now is not None and version is not None:
            text = self._text(version)
            if now.version == version or hmac.compare_digest(text.encode(), self._text(now.version).encode()):
                return now
        if now is None or now.run != run:
            raise self._conflict()
        if version is not None:
            self._add(self._text(version))
        self._ask(_DISABLE, Nothing, "disable a version of", version=now.version, json={})
        return self.current() or Stored("", run)

    def _must_be(self, expected: Stored | None) -> None:
        newest = self._newest()
        now = str(newest.number) if newest is not None and newest.state == "ENABLED" else None
        if now != (expected.version if expected is not None else None):
            raise self._conflict()

    def _add(self, text: str) -> int:
        """Add a version right after the newest; if another came between, make that the newest again and give up."""
        before = self._newest()
        body = {"payload": {"data": b64encode(text.encode()).decode()}}
        ours = self._ask(_ADD, _Version, "add a version to", json=body).number
        if ours == (before.number if before is not None else 0) + 1:
            return ours
        newest = self._newest()
        if newest is not None and newest.number == ours:
            theirs = {"payload": {"data": b64encode(self._text(str(ours - 1)).encode()).decode()}}
            self._ask(_ADD, _Version, "put back a version of", json=theirs)
        with suppress(ProviderError):
            self._ask(_DISABLE, Nothing, "disable a version of", version=str(ours), json={})
        raise self._conflict()

    def _author(self, number: int) -> str:
        secret = self._secret()
        mark = self._mark_of(secret, str(number)) if secret is not None else None
        return mark[0] if mark else ""

    def _mark_of(self, secret: _Secret, version: str) -> tuple[str, str] | None:
        """Return the run and seal, of the two that the secret keeps, which fit the version's payload."""
        kept = [(secret.annotations.get(_RUN + of, ""), secret.annotations.get(_SEAL + of, "")) for of in ("", _FORMER)]
        if not any(run for run, _ in kept):
            return None
        text = self._text(version)
        return next((m for m in kept if m[0] and hmac.compare_digest(m[1], _seal(m[0], text))), None)

    def _secret(self) -> _Secret | None:
        try:
            return self._ask(_SECRET, _Secret, "look at")
        except RestError as e:
            done_if_gone(e)
            return None

    def _newest(self) -> _Version | None:
        try:
            return self._ask(_VERSION, _Version, "look at the newest version of", version="latest")
        except RestError as e:
            done_if_gone(e)
            return None

    def _text(self, version: str) -> str:
        said = self._ask(_ACCESS, _Accessed, f"read version {version} of", version=version)
        return b64decode(said.payload.data).decode()

    def _ask(
        self,
        route: Route,
        into: type[T],
        verb: str,
        *,
        version: str = "",
        query: Mapping[str, str] | None = None,
        json: object = None,
    ) -> T:
        fill = {**self._fill, "version": version}
        return self._service.ask(
            route, into, f"{verb} secret {self._fill['secret']}", fill=fill, query=query, json=json
        )

    @property
    def _service(self) -> Service:
        return self._google.service("secretmanager", ROUTES)

    def _conflict(self) -> ProviderError:
        reason = f"somebody else changed secret {self._fill['secret']} meanwhile: look at its newest version first"
        return ProviderError(Trouble.CONFLICT, reason)


def _seal(run: str, text: str) -> str:
    return hmac.digest(run.encode(), text.encode(), "sha256").hex()[:32]


def make(settings: Settings) -> GcpSecretManager:
    """Return the store for a playbook's slot."""
    return GcpSecretManager(settings)
