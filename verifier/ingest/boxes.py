"""The bytes of a saved image archive, guarded: tar members and streams that refuse to be bombs.

A tar file, plain or gzip, or the same unpacked into a folder. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_OUTER: Final = 100_000
"""Most members of the archive itself, layers and documents."""
GZIP: Final = b"\x1f\x8b"
MAX_HOPS: Final = 8
BROKEN: Final = (OSError, tarfile.TarError, EOFError, zlib.error, msgspec.MsgspecError, UnicodeDecodeError)
"""What reading a damaged archive raises."""

_MAX_READ: Final = 40 << 20
_FREE_BYTES: Final = 1 << 30
_MAX_RATIO: Final = 250


class UnreadableSource(Exception):  # noqa: N818  # reads as what it says: `except UnreadableSource`
    """A source that cannot be used. Its text is one sentence that names it, the reason and the remedy."""

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        """Take the source's name as given, why it can't be read, and what to do (an imperative, no full stop)."""
        super().__init__(f"{name}: {reason}; {remedy}.")


def damaged(name: str, error: Exception) -> UnreadableSource:
    """Return the sentence for an archive that does not read."""
    reason = f"it is damaged or no saved image ({type(error).__name__})"
    return UnreadableSource(name, reason, "save the image again with `docker save`")


def clean(path: str) -> str | None:
    """Return a path inside an image or folder without leading `/` and `./`; None when it climbs out with `..`."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


# ── guarded bytes ──────────────────────────────────────────────────────────────────────────────────────


class Guard(io.RawIOBase):
    """A seekable stream that refuses huge single reads and, unpacking, more than a bomb's worth of bytes."""

    def __init__(self, stream: BinaryIO, name: str, packed: int | None) -> None:
        """Take the stream, which this closes; `packed` is its size when it is gzip, to be unpacked here."""
        self._stream = stream
        self._inner = stream if packed is None else gzip.GzipFile(fileobj=stream)
        self._name = name
        self._limit = None if packed is None else _FREE_BYTES + _MAX_RATIO * packed

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes; going back in packed data unpacks it anew."""
        return True

    def _check(self, position: int) -> None:
        if self._limit is not None and position > self._limit:
            raise UnreadableSource(
                self._name, f"a layer unpacks to over {self._limit >> 20} MiB, as a bomb does", "look at it by hand"
            )

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes; all, or more than 40 MiB, at once is refused."""
        if size is None or size < 0 or size > _MAX_READ:
            raise UnreadableSource(
                self._name, f"a member asks for more than {_MAX_READ >> 20} MiB at once", "look at it by hand"
            )
        data = self._inner.read(size)
        self._check(self._inner.tell())
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset of the unpacked bytes."""
        if whence == os.SEEK_SET:
            self._check(offset)
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset in the unpacked bytes."""
        return self._inner.tell()

    def close(self) -> None:
        """Close both streams."""
        self._inner.close()
        self._stream.close()
        super().close()


def members(stream: Guard) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar from its headers, without keeping them."""
    try:
        tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115  # the caller owns the stream
        while member := tar.next():
            yield member
            tar.members.clear()  # type: ignore[attr-defined]  # TarFile keeps every member it has seen; a layer may have a million
    except tarfile.ReadError as error:
        if "empty file" not in str(error):
            raise


# ── where the files of the archive lie ─────────────────────────────────────────────────────────────────


class Box(Protocol):
    """The outer container: named byte streams."""

    name: str

    def open(self, member: str) -> tuple[BinaryIO, int] | None:
        """Open a member by its clean name: seekable stream and size, or None."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class TarBox:
    """A tar file, plain or gzip."""

    def __init__(self, path: Path) -> None:
        """List the members; `UnreadableSource` when it is no tar."""
        self.name = path.name
        file = path.open("rb")
        packed = path.stat().st_size if file.read(2) == GZIP else None
        file.seek(0)
        self._file = Guard(file, self.name, packed)
        self._index: dict[str, tarfile.TarInfo] = {}
        try:
            self._list()
        except BROKEN as error:
            self.close()
            raise damaged(self.name, error) from None
        except UnreadableSource:
            self.close()
            raise
        self._file.seek(0)
        self._tar = tarfile.TarFile(fileobj=self._file) if self._index else None

    def _list(self) -> None:
        for member in members(self._file):
            if (name := clean(member.name)) is not None:
                self._index[name] = member
            if len(self._index) > MAX_OUTER:
                raise UnreadableSource(self.name, "it has too many members for an image", "give the saved image only")

    def open(self, member: str) -> tuple[BinaryIO, int] | None:
        """Open a member, through links between members."""
        for _ in range(MAX_HOPS):
            info = self._index.get(member)
            if info is None or self._tar is None:
                return None
            if info.issym() or info.islnk():  # old `docker save` links equal layers to one another
                base = os.path.dirname(member) if info.issym() else ""  # noqa: PTH120  # not a path of this machine
                member = os.path.normpath(f"{base}/{info.linkname}").lstrip("/")
                continue
            stream = self._tar.extractfile(info)
            return None if stream is None else (stream, info.size)  # type: ignore[return-value]  # tarfile gives readers of bytes, typed more widely
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FolderBox:
    """The same, unpacked into a folder."""

    def __init__(self, path: Path) -> None:
        """Take the folder."""
        self.name = path.name
        self._root = path.resolve()

    def open(self, member: str) -> tuple[BinaryIO, int] | None:
        """Open a file below the folder, never outside it."""
        file = inside(self._root, member)
        return None if file is None else (file.open("rb"), file.stat().st_size)

    def close(self) -> None:
        """Nothing is held open."""


def inside(root: Path, relative: str) -> Path | None:
    """Return the regular file at `relative` under `root`, symlinks resolved; None when missing or outside."""
    name = clean(relative)
    if not name:
        return None
    try:
        path = (root / name).resolve(strict=True)
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError):
        return None
    return path if regular and path.is_relative_to(root) else None
