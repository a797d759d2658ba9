"""Pages of keys: filtered, sorted, searched, and quick at any size. What the console and its API list.

`page` reads one page by the index that `URGENCY` names. Nothing here writes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lapse.figures import PRIVILEGES
from lapse.ledger.model import Key, Select
from lapse.ledger.schema import URGENCY
from verifier.model import CredentialID, Privilege

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lapse.ledger import Ledger
    from lapse.ledger.db import Database
    from lapse.names import Names

FEW = 5_000
"""Keys of a search that are listed by number, and sorted; more are found by going through the order."""

MOST = 50_000
"""Keys of a kind that are listed by number."""

MANY = 20_000
"""Most names that a search looks at."""

_WIDTH = 8
_HEX = frozenset("0123456789abcdef")


class Group(StrEnum):
    """What a list of keys can be narrowed to, the most urgent first. `REMOVED` is part of `LIVE`."""

    REMOVED = "removed"
    LIVE = "live"
    UNDECIDED = "undecided"
    UNCHECKED = "unchecked"
    UNCONFIRMED = "unconfirmed"
    DEAD = "dead"


_RANGES = {
    Group.REMOVED: (0, 1),
    Group.LIVE: (0, 2),
    Group.UNDECIDED: (2, 3),
    Group.UNCHECKED: (3, 4),
    Group.UNCONFIRMED: (4, 5),
    Group.DEAD: (5, 6),
}


class Sort(StrEnum):
    """In which order keys are listed."""

    URGENT = "urgent"
    NEWEST = "newest"
    OLDEST = "oldest"


class Ask(Struct, frozen=True):
    """One page of keys. `text` is a beginning of an id, or a part of an image, repository or account's name.

    `privilege` is what a live key may do; `public` asks for keys that were seen in a public place.
    """

    group: Group | None = None
    provider: str = ""
    privilege: Privilege | None = None
    public: bool = False
    text: str = ""
    sort: Sort = Sort.URGENT
    after: tuple[int, int] | None = None
    limit: int = 50


class Line(Struct, frozen=True):
    """One key of a page, and one place where it was seen, in words."""

    key: Key
    where: str


class Page(Struct, frozen=True):
    """One page of keys; `after` leads to the next one, None at the end. `cut`: not all fitting names were looked at."""

    lines: tuple[Line, ...]
    after: tuple[int, int] | None
    cut: bool = False


def page(ledger: Ledger, db: Database, ask: Ask, names: Names | None = None) -> Page:
    """Return one page of keys. Cost: the page, wherever it is. Without `names`, `ask.text` finds ids alone."""
    where, args = ["TRUE"], list[Any]()
    if ask.group is not None:
        low, high = (_WIDTH * n for n in _RANGES[ask.group])
        where.append(f"{URGENCY} >= ? AND {URGENCY} < ?")
        args += [low, high]
    if ask.privilege is not None:  # the index of URGENCY says it
        where.append(f"{URGENCY} < ? AND ({URGENCY} / 2) % 4 = ?")
        args += [_WIDTH * _RANGES[Group.LIVE][1], PRIVILEGES.index(ask.privilege)]
    with db.read() as connection:
        driver, cut = connection.exec_driver_sql, False
        if ask.provider:
            where.append(_of_kind(driver, ask.provider))
            args += [ask.provider] if "?" in where[-1] else []
        if ask.public:
            where.append(_in_public(driver))
        if ask.text:
            ids = _by_id(driver, ask.text.strip())
            if ids or names is None:
                where.append(f"s.credential IN ({_listed(ids)})")
            else:
                found, cut = _by_name(driver, ask.text.strip(), names)
                where.append(f"({found})")
        rank, order, after = _ordered(ask)
        if after:
            where.append(after)
            args += _cursor(ask)
        sql = f"SELECT s.credential, {rank} FROM states s WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
        rows = connection.exec_driver_sql(sql, (*args, ask.limit + 1)).fetchall()
        shown = rows[: ask.limit]
        lines = _lines(ledger, connection.exec_driver_sql, [row[0] for row in shown])
    more = len(rows) > ask.limit
    return Page(lines, (int(shown[-1][1]), int(shown[-1][0])) if more else None, cut)


def _ordered(ask: Ask) -> tuple[str, str, str]:
    """Return rank, order and the condition that leads past the last key of the page before."""
    match ask.sort:
        case Sort.NEWEST:
            return "0", "s.credential DESC", "s.credential < ?" if ask.after else ""
        case Sort.OLDEST:
            return "0", "s.credential", "s.credential > ?" if ask.after else ""
        case Sort.URGENT:
            past = f"{URGENCY} >= ? AND ({URGENCY} > ? OR s.credential > ?)" if ask.after else ""
            return URGENCY, f"{URGENCY}, s.credential", past


def _cursor(ask: Ask) -> list[int]:
    if ask.after is None:
        return []
    rank, number = ask.after
    return [rank, rank, number] if ask.sort is Sort.URGENT else [number]


def _by_id(ask: Any, text: str) -> list[int]:  # noqa: ANN401  # the connection's own call
    """Return the row ids of the keys whose short or whole id begins so."""
    vendor, _, digits = text.lower().rpartition("-")
    if not digits or len(digits) > 32 or not set(digits) <= _HEX or not (vendor or len(digits) > 3):
        return []
    low, high = bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))
    sql = "SELECT id FROM credentials WHERE hash BETWEEN ? AND ? AND (? = '' OR vendor = ?) LIMIT ?"
    return list(ask(sql, (low, high, vendor, vendor, FEW)).scalars())


# Few keys are listed by number and sorted; where there are many, those next in order are tried until a page is full.


def _of_kind(ask: Any, provider: str) -> str:  # noqa: ANN401  # as above
    few = list(ask("SELECT id FROM credentials WHERE provider = ? LIMIT ?", (provider, MOST + 1)).scalars())
    if len(few) <= MOST:
        return f"s.credential IN ({_listed(few)})"
    return "(SELECT c.provider FROM credentials c WHERE c.id = s.credential) = ?"


def _in_public(ask: Any) -> str:  # noqa: ANN401  # as above
    """Return the condition that strangers can read one of a key's places."""
    sql = "SELECT f.credential FROM holders h JOIN findings f ON f.holder = h.id WHERE h.visibility = 'public' LIMIT ?"
    few = list(ask(sql, (FEW + 1,)).scalars())
    if len(few) <= FEW:
        return f"s.credential IN ({_listed(few)})"
    return (
        "EXISTS (SELECT 1 FROM findings f JOIN holders h ON h.id = f.holder"
        " WHERE f.credential = s.credential AND h.visibility = 'public')"
    )


def _by_name(ask: Any, text: str, names: Names) -> tuple[str, bool]:  # noqa: ANN401  # as above
    """Return the condition that a key's holder or principal has this text in its name; and whether that is not all."""
    people, places = names.principals.find(text, MANY), names.holders.find(text, MANY)
    cut, principals, holders = MANY in {len(people), len(places)}, _listed(people), _listed(places)
    few = list(ask(f"SELECT credential FROM findings WHERE holder IN ({holders}) LIMIT ?", (FEW + 1,)).scalars())
    if len(few) <= FEW:
        return f"s.credential IN ({_listed(few)}) OR s.credential IN ({principals})", cut
    held = f"EXISTS (SELECT 1 FROM findings f WHERE f.credential = s.credential AND f.holder IN ({holders}))"
    return f"{held} OR s.credential IN ({principals})", cut


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "NULL"


def _lines(ledger: Ledger, ask: Any, numbers: Sequence[int]) -> tuple[Line, ...]:  # noqa: ANN401  # as above
    if not numbers:
        return ()
    marks = ",".join("?" * len(numbers))
    sql = (
        "SELECT c.id, c.vendor, c.hash, h.source, h.repository, h.registry, h.namespace, h.name, h.tag, f.path, f.line"
        " FROM credentials c LEFT JOIN findings f ON f.id = (SELECT id FROM findings WHERE credential = c.id LIMIT 1)"
        f" LEFT JOIN holders h ON h.id = f.holder WHERE c.id IN ({marks})"
    )
    names: dict[CredentialID, tuple[int, str]] = {}
    for number, vendor, digest, *place in ask(sql, tuple(numbers)):
        names[CredentialID(f"{vendor}-{digest.hex()}")] = (number, _where(*place))
    found = {names[k.id][0]: Line(k, names[k.id][1]) for k in ledger.keys(Select(ids=tuple(names)))}
    return tuple(found[n] for n in numbers if n in found)


def _where(  # noqa: PLR0917  # the columns of a row
    source: str | None, repository: str | None, registry: str | None, namespace: str | None, name: str | None,
    tag: str | None, path: str | None, line: int | None,
) -> str:  # fmt: skip
    if source is None:
        return ""
    image = "/".join(p for p in (registry, namespace, name) if p)
    holder = f"{image}:{tag}" if image and tag else image or repository or ""
    return f"{holder} {path or ''}{f':{line}' if line else ''}".strip()


def first_places(db: Database, names: Sequence[CredentialID], most: int) -> dict[CredentialID, list[str]]:
    """Return the first `most` places of each of these keys in words; a few hundred keys at a time at best."""
    digests = [bytes.fromhex(name.rpartition("-")[2]) for name in names]
    marks = ",".join("?" * len(digests))
    sql = (
        "SELECT c.vendor, c.hash, f.removed, h.layer, h.source, h.repository, h.registry, h.namespace, h.name, h.tag,"
        f" f.path, f.line FROM credentials c {db.few_findings}"
        f" JOIN holders h ON h.id = f.holder WHERE c.hash IN ({marks}) ORDER BY f.id"
    )
    found: dict[CredentialID, list[str]] = {}
    with db.read() as connection:
        for vendor, digest, removed, layer, *place in connection.exec_driver_sql(sql, (most, *digests)):
            text = _where(*place) + (f" layer {layer[:19]}" if layer else "") + (" (gone)" if removed else "")
            found.setdefault(CredentialID(f"{vendor}-{digest.hex()}"), []).append(text)
    return found
