"""A file that age encrypts, for those who have no secret store: `age -d -i KEYFILE FILE` reads it.

Inside is one JSON object, the run's marker (`lapse_run`) among its fields. The version is a digest of the *encrypted*
bytes, which differ at every writing, so it tells nothing about the secret and any change by another hand shows. The
former file stays beside it as `FILE.former`. Every change happens under a lock, in a new file that is flushed to disk
and then renamed over the old one: a crash leaves the one or the other, never a half.

Settings: `path`, `identity_file` (an age key file; else the key is in `LAPSE_AGE_IDENTITY`), `recipients` (age public
keys by comma, for colleagues who must read it too; our own is always one).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rotators.interface import Fact, ProviderError, Stored, Trouble
from verifier.secret import Secret
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rotators.interface import Settings

MARK = "lapse_run"
_KEY = "AGE-SECRET-KEY-"


class EncryptedFile:
    """One file, see the module's docstring."""

    name = "encrypted_file"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "fetch": ("read the file and the age identity",),
        "put": ("write the file's folder",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; without a `path` it is `ProviderError(REFUSED)`."""
        self._settings = settings
        if not settings.get("path"):
            raise ProviderError(Trouble.REFUSED, "encrypted_file needs a `path`")
        self._path = Path(settings["path"]).expanduser().resolve()
        self._former = self._path.with_name(f"{self._path.name}.former")

    def preflight(self) -> Sequence[Fact]:
        """See that the file opens, whom it is for, and that its folder lets itself be written."""
        sealed = _bytes(self._path)
        if sealed is not None:
            self._open(sealed)
        people = len(self._recipients())
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise ProviderError(Trouble.DENIED, f"cannot write beside {self._path}: no right to, or no such folder")
        there = "opens" if sealed is not None else "will be new"
        return [Fact("store", f"{self._path} {there}, for {plural(people, 'age key')}")]

    def current(self) -> Stored | None:
        """Return the file's digest and run, `None` when there is no file."""
        sealed = _bytes(self._path)
        return None if sealed is None else Stored(_digest(sealed), self._open(sealed).get(MARK, ""))

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Write over `expected`, keeping fields that are not set anew, else `ProviderError(CONFLICT)`."""
        with self._locked():
            sealed = _bytes(self._path)
            if (None if sealed is None else _digest(sealed)) != (expected.version if expected else None):
                raise self._conflict()
            kept = {} if sealed is None else self._open(sealed)
            new = self._seal({**kept, **{name: value.reveal() for name, value in fields.items()}, MARK: run})
            if sealed is not None:
                _replace(self._former, sealed)
            _replace(self._path, new)
        return Stored(_digest(new), run)

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read the file, or the former one if that is the version; another is `ProviderError(GONE)`."""
        for path in (self._path, self._former):
            sealed = _bytes(path)
            if sealed is not None and version in (None, _digest(sealed)):
                return {name: Secret(value) for name, value in self._open(sealed).items() if name != MARK}
            if version is None:
                break
        raise ProviderError(Trouble.GONE, f"neither {self._path} nor its former version is the one asked for")

    def restore(self, version: str | None, run: str) -> Stored:
        """Put the former file back, byte for byte, if `run` wrote the one that lies there; repeating is harmless.

        `None` removes the file that this run made.
        """
        with self._locked():
            sealed = _bytes(self._path)
            if version == (None if sealed is None else _digest(sealed)):
                return Stored(version or "", "" if sealed is None else self._open(sealed).get(MARK, ""))
            if sealed is None or self._open(sealed).get(MARK) != run:
                raise self._conflict()
            if version is None:
                self._path.unlink()
                _flush(self._path.parent)
                return Stored("", "")
            former = _bytes(self._former)
            if former is None or _digest(former) != version:
                raise ProviderError(Trouble.GONE, f"{self._former} is not the version to bring back")
            _replace(self._path, former)
            return Stored(version, self._open(former).get(MARK, ""))

    def _conflict(self) -> ProviderError:
        return ProviderError(Trouble.CONFLICT, f"{self._path} was changed by somebody else; look who did, begin again")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._path.with_name(f".{self._path.name}.lock")
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as e:
            raise ProviderError(Trouble.DENIED, f"cannot write beside {self._path}: {e.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        except OSError as e:
            raise ProviderError(Trouble.DENIED, f"cannot write {self._path}: {e.strerror}") from None
        finally:
            os.close(handle)

    def _identities(self) -> list[Any]:
        """Return age identities; a key file that others may read is refused."""
        age = _age()
        name = self._settings.get("identity_file")
        if name:
            path = Path(name).expanduser()
            try:
                if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise ProviderError(Trouble.DENIED, f"others may read the age key in {path}: chmod 600 it")
                text = path.read_text()
            except OSError as e:
                raise ProviderError(Trouble.DENIED, f"cannot read the age key in {path}: {e.strerror}") from None
        else:
            text = os.environ.get("LAPSE_AGE_IDENTITY", "")
        keys = [line.strip() for line in text.splitlines() if line.strip().startswith(_KEY)]
        if not keys:
            where = name or "LAPSE_AGE_IDENTITY"
            raise ProviderError(Trouble.DENIED, f"{where} holds no age key: make one with age-keygen")
        try:
            return [age.x25519.Identity.from_str(key) for key in keys]
        except age.IdentityError:
            raise ProviderError(Trouble.DENIED, "the age key cannot be read: it was cut or mistyped") from None

    def _open(self, sealed: bytes) -> dict[str, str]:
        age = _age()
        try:
            plain = age.decrypt(sealed, self._identities())
        except age.DecryptError:
            raise ProviderError(Trouble.DENIED, f"our age key does not open {self._path}, or it is damaged") from None
        try:
            return msgspec.json.decode(plain, type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            reason = f"{self._path} does not hold a JSON object of texts: it is not a file of ours"
            raise ProviderError(Trouble.REFUSED, reason) from None

    def _seal(self, fields: Mapping[str, str]) -> bytes:
        return bytes(_age().encrypt(msgspec.json.encode(fields), self._recipients()))

    def _recipients(self) -> list[Any]:
        """Return whom the file is for: we, and the colleagues that the slot names."""
        age = _age()
        to = [identity.to_public() for identity in self._identities()]
        for text in filter(None, (r.strip() for r in self._settings.get("recipients", "").split(","))):
            try:
                to.append(age.x25519.Recipient.from_str(text))
            except age.RecipientError:
                raise ProviderError(Trouble.REFUSED, f"recipients: {text!r} is not an age public key") from None
        return to


def _age() -> Any:  # noqa: ANN401  # no types published
    try:
        return import_module("pyrage")
    except ImportError:
        raise ProviderError(Trouble.REFUSED, "encrypted_file needs the package pyrage: install it") from None


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ProviderError(Trouble.DENIED, f"cannot read {path}: {e.strerror}") from None


def _digest(sealed: bytes) -> str:
    return hashlib.sha256(sealed).hexdigest()[:32]


def _replace(path: Path, content: bytes) -> None:
    """Write beside, flush, rename, flush the folder."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _flush(path.parent)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make(settings: Settings) -> EncryptedFile:
    """Return the store for a playbook's slot."""
    return EncryptedFile(settings)
