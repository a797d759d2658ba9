"""Finding keys by a part of a name (image, repository, account) at once, however many there are.

No database finds the middle of a word quickly in every dialect, so the names are held in memory: some forty bytes for
each place that holds keys and each live key. They are read anew now and then; an id is looked up in the ledger.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lapse.ledger.db import Database

_BREAK = "\n"


class Haystack:
    """Lines with numbers: one long text, and where each line begins."""

    def __init__(self, rows: Iterable[tuple[int, str]]) -> None:
        """Take (number, text) pairs."""
        self._numbers, self._starts = array("q"), array("q")
        parts, at = list[str](), 0
        for number, text in rows:
            line = text.casefold().replace(_BREAK, " ")
            self._numbers.append(number)
            self._starts.append(at)
            parts.append(line)
            at += len(line) + 1
        self._text = _BREAK.join(parts)

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._numbers)

    def find(self, part: str, most: int) -> list[int]:
        """Return the numbers of the first `most` lines that hold `part`, whatever its case."""
        needle, found = part.casefold(), list[int]()
        if not needle or _BREAK in needle:
            return found
        at = self._text.find(needle)
        while at >= 0 and len(found) < most:
            line = bisect_right(self._starts, at) - 1
            found.append(self._numbers[line])
            if line + 1 == len(self._starts):
                break
            at = self._text.find(needle, self._starts[line + 1])
        return found


class Names(Struct, frozen=True):
    """All names: `holders` by holder, `principals` (principal, account, organisation) by live credential."""

    holders: Haystack
    principals: Haystack


class _Who(Struct):
    principal: str | None = None
    account: str | None = None
    organisation: str | None = None


_HOLDERS = (
    "SELECT id, coalesce(registry || '/', '') || coalesce(namespace || '/', '') || coalesce(name, '')"
    " || coalesce(repository, '') FROM holders ORDER BY id"
)
_PRINCIPALS = (
    "SELECT s.credential, v.identity FROM states s JOIN verdicts v ON v.id = s.known_id"
    " WHERE s.known = 'live' AND v.identity IS NOT NULL ORDER BY s.credential"
)


def names(db: Database) -> Names:
    """Read all names: a second at a million keys."""
    who = msgspec.json.Decoder(_Who).decode
    with db.read() as connection:
        holders = Haystack((n, text) for n, text in connection.exec_driver_sql(_HOLDERS))
        rows = ((n, who(text)) for n, text in connection.exec_driver_sql(_PRINCIPALS))
        principals = Haystack((n, " ".join(filter(None, (w.principal, w.account, w.organisation)))) for n, w in rows)
    return Names(holders, principals)
