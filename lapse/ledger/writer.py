"""What every writing part of the ledger needs: the write lock, the chain, the clock."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lapse.ledger import chain
from lapse.ledger.clock import now, stamp
from lapse.ledger.db import Database, driver

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from lapse.ledger.chain import EventKind, Payload, Refs
    from lapse.ledger.seal import Seal


class Writer:
    """Write transactions, and events appended inside them."""

    def __init__(self, db: Database, seal: Seal, ledger: str) -> None:
        """Bind database, signing key and the ledger's name together."""
        self._db = db
        self._seal = seal
        self._ledger = ledger

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end of the block."""
        with self._db.write() as connection:
            yield driver(connection)

    def append(
        self, raw: sqlite3.Connection, kind: EventKind, payload: Payload, *, at: int, refs: Refs | None = None
    ) -> int:
        """Append an event to the chain and return its number."""
        return chain.append(raw, self._seal, self._ledger, kind, payload, at=at, refs=refs)

    def mention(self, raw: sqlite3.Connection, credentials: Iterable[int], seq: int) -> None:
        """Note that event `seq` speaks of these credentials, for `story`."""
        raw.executemany("INSERT INTO mentions VALUES (?,?)", [(c, seq) for c in credentials])

    @staticmethod
    def stamp() -> int:
        """Return the present time."""
        return stamp(now())
