"""Deliveries of web hooks, on their way from the disk into the ledger. Nothing is lost on it, and nothing comes twice.

`lapse serve` answers a sender once the delivery is a file here. A file is removed only when what it tells is committed;
whoever dies in between leaves it to the next reader, and the ledger knows a finding that it has. What nobody can read
is kept, under a name that ends in `.bad`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lapse.config import data_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.commands.ingest import Intake

BAD = ".bad"


def place(ledger: str) -> Path:
    """Return the folder where deliveries for the ledger of this name wait."""
    return data_dir() / f"spool-{ledger}"


def waiting(folder: Path) -> list[Path]:
    """Return the deliveries that wait, oldest first."""
    try:
        found = [(entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(folder) if entry.name.endswith(".json")]
    except FileNotFoundError:
        return []
    return [folder / name for _, name in sorted(found)]


def take_in(intake: Intake, folder: Path) -> list[str]:
    """Read every delivery into the ledger, then remove it; return a sentence for each that could not be read.

    One process at a time: another one waits. A `LedgerError` leaves the rest where it is.
    """
    failed: list[str] = []
    if not waiting(folder):
        return failed
    with _alone(folder):
        for file in waiting(folder):
            before, sender = intake.failed, file.name.partition("-")[0]
            # A delivery tells of a few findings and is never a whole scan: nothing is gone because it is not in here.
            intake.file(str(file), None, None, None, partial=True, known_as=f"hook:{sender}")
            if intake.failed == before:
                file.unlink()
                continue
            kept = file.with_name(file.name + BAD)
            file.replace(kept)
            failed.append(f"a delivery of {sender} could not be read; it is kept as {kept}")
    return failed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
