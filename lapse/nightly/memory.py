"""What the nightly job remembers besides the ledger: which reports it read, and up to when it told.

A file that may be lost: everything is then read again, and the figures begin anew.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from lapse.config import data_dir

if TYPE_CHECKING:
    from pathlib import Path


class Kept(Struct):
    """`read`: source and name of each report to what it was then (size and time, or the store's own tag)."""

    last: datetime | None = None
    read: dict[str, str] = {}


class Memory:
    """The file, of one ledger."""

    def __init__(self, path: Path) -> None:
        """Read the file; one that cannot be read is as good as none."""
        self._path = path
        try:
            self._kept = msgspec.json.decode(path.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            self._kept = Kept()

    @classmethod
    def of(cls, ledger: str) -> Memory:
        """Return the memory of the ledger of this name."""
        return cls(data_dir() / f"nightly-{ledger}.json")

    @property
    def last(self) -> datetime | None:
        """Up to when the figures of the last night spoke: the next ones begin there."""
        return self._kept.last

    def knows(self, name: str, mark: str) -> bool:
        """Say whether this report was read as it is now."""
        return self._kept.read.get(name) == mark

    def note(self, name: str, mark: str) -> None:
        """Note that a report was read, and save: what was read once need not be read again after a crash."""
        self._kept.read[name] = mark
        self._save()

    def reported(self, at: datetime) -> None:
        """Note up to when the figures that are out speak."""
        self._kept.last = at
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(self._kept))
        part.replace(self._path)
