"""Key/value store version 2 of Vault and OpenBao: Vault itself compares and sets.

The run's marker is a field of the value (`lapse_run`), written in the same breath: custom metadata would be a second
call, and a crash between the two would leave a value that nobody owns.
https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from rotators.bao import MARK, Bao, bao
from rotators.interface import ProviderError, Stored, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Fact, Settings


class VaultKv:
    """One secret: `path` below `mount` (`secret`); and the settings of `rotators.bao`.

    A version is Vault's number. A deleted newest version counts as there (its number is what must be expected), with
    nothing in it.
    """

    name = "vault_kv"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "current": ("read MOUNT/data/PATH",),
        "put": ("read MOUNT/data/PATH", "create MOUNT/data/PATH", "update MOUNT/data/PATH"),
        "fetch": ("read MOUNT/data/PATH",),
        "restore": ("update MOUNT/data/PATH", "update MOUNT/delete/PATH"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; without a `path` it is `ProviderError(REFUSED)`."""
        self._bao = Bao(settings)
        self._mount = settings.get("mount") or "secret"
        self._path = settings.get("path", "").strip("/")
        if not self._path:
            raise ProviderError(Trouble.REFUSED, "vault_kv needs a `path`")

    def preflight(self) -> Sequence[Fact]:
        """Ask Vault whether the admin may read and write there; the right to delete counts only for an undo."""
        number, _ = self._read()
        return self._bao.preflight({f"{self._mount}/data/{self._path}": ("read", "update" if number else "create")})

    def current(self) -> Stored | None:
        """Return the newest version's number and run."""
        number, data = self._read()
        return Stored(str(number), str((data or {}).get(MARK, ""))) if number else None

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Write a new version over `expected`, keeping fields that are not set anew, else `ProviderError(CONFLICT)`."""
        number, former = self._read()
        if str(number or "") != (expected.version if expected else ""):
            raise self._conflict()
        kept = {k: v for k, v in (former or {}).items() if k != MARK}
        return self._write({**kept, **{k: v.reveal() for k, v in fields.items()}, MARK: run}, number, run)

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read a version's fields; one that is deleted or destroyed is `ProviderError(GONE)`."""
        number, data = self._read(int(version) if version else 0)
        if data is None:
            which = f"version {version or number}" if version or number else "any version"
            raise ProviderError(Trouble.GONE, f"{self._where} does not hold {which}: deleted, destroyed or never there")
        return {k: Secret(_text(v)) for k, v in data.items() if k != MARK}

    def restore(self, version: str | None, run: str) -> Stored:
        """Write a former version again as the newest, exactly as it was, if `run` wrote the newest; else `CONFLICT`.

        `None` deletes the newest (Vault keeps it undeletable for its own time). Repeating is harmless.
        """
        number, data = self._read()
        if version is None:
            if data is not None and data.get(MARK) != run:
                raise self._conflict()
            if data is not None:
                client = self._bao.client()
                with bao(f"delete version {number} of {self._where}"):
                    client.secrets.kv.v2.delete_secret_versions(self._path, [number], mount_point=self._mount)
            return Stored(str(number), "")
        if str(number) == version:
            return Stored(version, str((data or {}).get(MARK, "")))
        _, former = self._read(int(version))
        if former is None:
            raise ProviderError(
                Trouble.GONE, f"version {version} of {self._where} is deleted or destroyed: it cannot be brought back"
            )
        owner = str(former.get(MARK, ""))
        if data == former:
            return Stored(str(number), owner)
        if data is None or data.get(MARK) != run:
            raise self._conflict()
        return self._write(former, number, owner)

    def _write(self, data: dict[str, Any], over: int, run: str) -> Stored:
        client = self._bao.client()
        with bao(f"write {self._where}", *(v for v in data.values() if isinstance(v, str))):
            said = client.secrets.kv.v2.create_or_update_secret(self._path, data, cas=over, mount_point=self._mount)
        return Stored(str(said["data"]["version"]), run)

    def _read(self, version: int = 0) -> tuple[int, dict[str, Any] | None]:
        """Return a version's number and data: 0 for a path that was never written, no data for a deleted version."""
        client = self._bao.client()
        import hvac.exceptions

        with bao(f"read {self._where}"):
            try:
                said = client.secrets.kv.v2.read_secret_version(
                    self._path, version=version or None, mount_point=self._mount, raise_on_deleted_version=False
                )
            except hvac.exceptions.InvalidPath as e:
                if e.errors:  # a mount that is not there says so; an empty path says nothing
                    raise
                return 0, None
        return int(said["data"]["metadata"]["version"]), said["data"]["data"]

    @property
    def _where(self) -> str:
        return f"{self._mount}/{self._path}"

    def _conflict(self) -> ProviderError:
        hint = "look who did, then begin again"
        return ProviderError(Trouble.CONFLICT, f"{self._where} was changed by somebody else; {hint}")


def _text(value: object) -> str:
    """Return a text as it is and anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def make(settings: Settings) -> VaultKv:
    """Return the store for a playbook's slot."""
    return VaultKv(settings)
