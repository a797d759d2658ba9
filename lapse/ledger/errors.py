"""What can go wrong with a ledger, each as one clear sentence and never with a secret.

LedgerError
├── KeyTrouble      the key that wraps this ledger's keys is missing, wrong or out of reach
├── NewerSchema     a newer Lapse wrote this file
├── UnknownKey      no credential has this id
├── AmbiguousKey    several have
├── Lost            the database server went away in the middle of a transaction
└── Busy            somebody else is at work who must be alone
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator


class LedgerError(Exception):
    """The ledger cannot do what was asked; `str()` is one sentence for people, with the remedy."""


class KeyTrouble(LedgerError):  # noqa: N818  # reads as what happened
    """The wrapping key is not configured, cannot be reached, or is not the one this ledger was sealed with."""


class NewerSchema(LedgerError):  # noqa: N818  # reads as what happened
    """The file has a schema that this version of Lapse does not know."""


class Lost(LedgerError):  # noqa: N818  # reads as what happened
    """The connection broke in the middle of a transaction, which is rolled back; at its commit, only maybe."""


class Busy(LedgerError):  # noqa: N818  # reads as what happened
    """Another process, here or on another machine, does what one at a time may do."""


class UnknownKey(LedgerError):  # noqa: N818  # reads as what happened
    """No credential of this ledger has the id that was asked for."""


class AmbiguousKey(LedgerError):  # noqa: N818  # reads as what happened
    """More than one credential starts like this; `candidates` holds the short ids of the first few."""

    def __init__(self, prefix: str, candidates: tuple[str, ...]) -> None:
        """Name the prefix and what it could mean."""
        self.candidates = candidates
        super().__init__(f"{prefix!r} is not unique: it could be {', '.join(candidates)}; add a digit or two")


_SENTENCES = {
    sqlite3.SQLITE_FULL: "the disk that holds the ledger {0} is full; free some space and run the command again",
    sqlite3.SQLITE_READONLY: "the ledger {0} cannot be written; check who owns the file and its folder, and its mode",
    sqlite3.SQLITE_CORRUPT: "the ledger {0} is damaged; restore it from a copy, then run `lapse ledger check`",
    sqlite3.SQLITE_NOTADB: "{0} is not a ledger of Lapse (not a database at all); give the right file",
    sqlite3.SQLITE_BUSY: "another process has held the ledger {0} for too long; wait for it to end and run again",
    sqlite3.SQLITE_LOCKED: "another process has held the ledger {0} for too long; wait for it to end and run again",
    sqlite3.SQLITE_CANTOPEN: "the ledger {0} cannot be opened; check that its folder exists and may be entered",
    sqlite3.SQLITE_PERM: "the ledger {0} cannot be opened; check who owns the file and its mode",
    sqlite3.SQLITE_IOERR: "the disk that holds the ledger {0} reports an error; check the disk, then run again",
}
_PRIMARY = 0xFF  # SQLite's extended result codes keep the primary one in the low byte


def sentence(error: sqlite3.Error, where: str) -> LedgerError:
    """Return what `error` means for somebody who has never seen SQLite. Never quotes SQL or its parameters."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return LedgerError(f"the ledger {where} answered with an unknown trouble ({type(error).__name__})")
    known = _SENTENCES.get(code & _PRIMARY)
    if known is None:
        name = getattr(error, "sqlite_errorname", str(code))
        return LedgerError(f"the ledger {where} answered with {name}; run `lapse ledger check`")
    return LedgerError(known.format(where))


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn the driver's exceptions into `LedgerError`; the original is cut off, for it may quote parameters."""
    try:
        yield
    except sqlite3.Error as error:
        raise sentence(error, where) from None
    except DBAPIError as error:
        origin = error.orig
        if isinstance(origin, sqlite3.Error):
            raise sentence(origin, where) from None
        raise LedgerError(f"the ledger {where} answered with an unknown trouble") from None
