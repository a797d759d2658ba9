"""What every writing part of the ledger needs: the write lock, the chain, the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lapse.ledger import chain
from lapse.ledger.clock import now, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lapse.ledger.chain import EventKind, Payload, Refs
    from lapse.ledger.db import Database
    from lapse.ledger.raw import Raw
    from lapse.ledger.seal import Seal


T = TypeVar("T")


class Writer:
    """Write transactions, and events appended inside them."""

    def __init__(self, db: Database, seal: Seal, ledger: str) -> None:
        """Bind database, signing key and the ledger's name together."""
        self._db = db
        self._seal = seal
        self._ledger = ledger

    def write(self, body: Callable[[Raw], T]) -> T:
        """Run `body` with the write lock held; what it returned is returned once it is committed.

        Where a server went away it may be called again, so it changes nothing but the database.
        """
        return self._db.transact(body)

    def append(self, raw: Raw, kind: EventKind, payload: Payload, *, at: int, refs: Refs | None = None) -> int:
        """Append an event to the chain and return its number."""
        return chain.append(raw, self._seal, self._ledger, kind, payload, at=at, refs=refs)

    def mention(self, raw: Raw, credentials: Iterable[int], seq: int) -> None:
        """Note that event `seq` speaks of these credentials, for `story`."""
        raw.executemany("INSERT INTO mentions VALUES (?,?)", [(c, seq) for c in credentials])

    @staticmethod
    def stamp() -> int:
        """Return the present time."""
        return stamp(now())
