"""Finds every provider file and answers: which kinds of key are there, what do they call, who probes them.

Nothing to register: a file in `verifier/providers/` is a provider, `.toml` or `.py`; so is one in a folder that the
config names. TOML is compiled once to a cache that loads in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from hashlib import sha256
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
from msgspec.structs import replace

from verifier.rules import Judge
from verifier.spec import Kind
from verifier.specfile import SpecError, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.exchange import Call, Door
    from verifier.model import Credential, Verdict

SCHEMA = 3
"""Counts up when `Kind` changes, so that an old cache is never read."""


@runtime_checkable
class Prober(Protocol):
    """A provider written in Python: `verifier/providers/VENDOR.py`, for signatures, exchanges and wire protocols."""

    TITLE: str
    KINDS: tuple[Kind, ...]

    async def probe(self, kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
        """Ask whether `credential` still works. Never raises for what the network or the credential does.

        `base_url` is the config's override: the only host then asked.
        """
        ...


class Catalogue:
    """All kinds of key by id. Unknown ids are `KeyError`; ask `get`."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        """Index `kinds`; two of one id are a `SpecError`."""
        self.kinds: dict[str, Kind] = {}
        for kind in kinds:
            other = self.kinds.get(kind.id)
            if other is not None:
                raise SpecError(
                    f"two providers describe `{kind.id}`: {other.vendor} and {kind.vendor}; remove one of them"
                )
            self.kinds[kind.id] = kind
        self._judges: dict[str, Judge] = {}

    def __iter__(self) -> Iterator[Kind]:
        """Yield every kind, sorted by id."""
        return iter(sorted(self.kinds.values(), key=lambda k: k.id))

    def __len__(self) -> int:
        """Count the kinds."""
        return len(self.kinds)

    def get(self, kind: str) -> Kind | None:
        """Return the kind called so, or `None`."""
        return self.kinds.get(kind)

    def judge(self, kind: Kind) -> Judge:
        """Return the compiled rules of `kind`."""
        found = self._judges.get(kind.id)
        if found is None:
            found = self._judges[kind.id] = Judge(kind)
        return found

    def prober(self, kind: Kind) -> Prober:
        """Return the Python provider behind a kind whose probe is code."""
        module: object = import_module(kind.module)
        if not isinstance(module, Prober):
            raise SpecError(f"{kind.module} is no provider any more: restart with a clean installation")
        return module

    def vendor(self, kind: str) -> str:
        """Return the vendor's name of a kind id, as credential ids begin: `aws` for `aws_akia`."""
        found = self.kinds.get(kind)
        return found.vendor if found else kind.partition("_")[0] or "generic"

    def manifest(self) -> frozenset[Call]:
        """Return every call that any probe may make."""
        return frozenset(call for kind in self.kinds.values() for call in kind.manifest())


def load_catalogue(folders: Iterable[Path] = (), modules: Iterable[str] = (), cache: Path | None = None) -> Catalogue:
    """Load the shipped providers, then those in `folders` and the Python `modules` that the config names.

    `cache` is a folder for the compiled form; a cache that cannot be read or written costs time, never an error.
    A kind in `folders` or `modules` replaces a shipped one of the same id.
    """
    shipped = Path(str(files("verifier.providers")))
    kinds = {k.id: k for k in Catalogue(_cached(shipped, cache)).kinds.values()}
    for folder in folders:
        kinds |= Catalogue(_read(sorted(folder.glob("*.toml")))).kinds
    for module in modules:
        kinds |= {k.id: k for k in _python(module)}
    return Catalogue(kinds.values())


def _cached(folder: Path, cache: Path | None) -> tuple[Kind, ...]:
    entries = [e for e in os.scandir(folder) if e.name.endswith((".toml", ".py")) and not e.name.startswith("_")]
    return _load(folder, sorted(entries, key=lambda e: e.name), cache)


def _load(folder: Path, entries: list[os.DirEntry[str]], cache: Path | None) -> tuple[Kind, ...]:
    if cache is None:
        return tuple(_compile(folder, [e.name for e in entries]))
    stamp = sha256(f"{SCHEMA}{folder}".encode())
    for entry in entries:
        seen = entry.stat()
        stamp.update(f"{entry.name}:{seen.st_size}:{seen.st_mtime_ns};".encode())
    file = cache / f"catalogue-{stamp.hexdigest()[:20]}.msgpack"
    with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return msgspec.msgpack.decode(file.read_bytes(), type=tuple[Kind, ...])
    kinds = tuple(_compile(folder, [e.name for e in entries]))
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob("catalogue-*.msgpack"):
            old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as out:
            out.write(msgspec.msgpack.encode(kinds))
        Path(out.name).replace(file)
    return kinds


def _compile(folder: Path, names: list[str]) -> Iterator[Kind]:
    yield from _read(folder / n for n in names if n.endswith(".toml"))
    for name in names:
        if name.endswith(".py"):
            yield from _python(f"verifier.providers.{name.removesuffix('.py')}")


def _read(paths: Iterable[Path]) -> Iterator[Kind]:
    for path in paths:
        yield from load(path).kind


def _python(name: str) -> Iterator[Kind]:
    module = import_module(name)
    if not isinstance(module, Prober):
        raise SpecError(
            f"{name}: a Python provider defines TITLE, KINDS and `async def probe(kind, credential, door, *, base_url)`"
        )
    source = module.__file__
    digest = sha256(Path(source).read_bytes()).hexdigest() if source else ""
    for kind in module.KINDS:
        yield replace(kind, vendor=name.rpartition(".")[2], module=name, digest=digest)
