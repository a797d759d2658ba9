"""Figures and pages of keys over a whole ledger, by SQL: what the console and the HTML report both show.

Nothing here writes. `figures` passes over every state once (half a second at a million keys), so whoever serves pages
keeps what it returned; `page` reads one page by the index that `URGENCY` names, and is quick at any size.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lapse.ledger.clock import moment, moment_or_none, stamp
from lapse.ledger.model import Key, Select, Status
from lapse.ledger.schema import URGENCY
from verifier.model import CredentialID, Privilege

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lapse.ledger import Ledger
    from lapse.ledger.db import Database
    from lapse.names import Names

DAY = timedelta(days=1)
DAYS = 30
"""How many days back the daily chart looks."""

TOP = 12
"""Most bars of a chart."""

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


class Span(Struct, frozen=True):
    """Median and 90th percentile of some times, in days; None where there are none."""

    count: int = 0
    median: float | None = None
    p90: float | None = None


class Funnel(Struct, frozen=True):
    """How far keys came: each counts distinct keys. `removed`: of those ever live, every place is gone.

    Times run from first seen: `to_live` to first answered live, `to_removed` until the last place was gone,
    `to_replaced` to the end of the rotation here, `to_dead` to first refused, of those live before and now proven dead.
    """

    seen: int
    live_once: int
    removed: int
    replaced: int
    dead: int
    to_live: Span
    to_removed: Span
    to_replaced: Span
    to_dead: Span


class ProviderFigure(Struct, frozen=True):
    """One kind of key: what is known of its keys, and why the newest answers were none.

    `circuit`: keys that were not asked because the circuit to their host was open after a run of failures.
    """

    provider: str
    keys: int
    live: int
    dead: int
    unconfirmed: int
    undecided: int
    unchecked: int
    doubts: dict[str, int]
    asked_at: datetime | None
    circuit: int = 0

    @property
    def troubled(self) -> int:
        """How many keys got no answer of the provider's own when last asked: throttled, unreachable, blocked."""
        return sum(self.doubts.get(d, 0) for d in ("throttled", "unreachable", "blocked"))


class Day(Struct, frozen=True):
    """What turned on one day (UTC)."""

    day: str
    found_live: int = 0
    died: int = 0
    revived: int = 0


class Night(Struct, frozen=True):
    """What the nightly job was told in the night that began on this day (UTC): answers, not keys."""

    day: str
    live: int = 0
    undecided: int = 0
    dead: int = 0


class Cell(Struct, frozen=True):
    """Live keys of one age and privilege: all, those seen in a public place, those seen in private places only."""

    count: int = 0
    public: int = 0
    private: int = 0


class Figures(Struct, frozen=True):
    """All figures of one moment. `ages` counts live keys by how long ago they were first seen.

    `risk` has a row for each age, with a cell for each privilege in the order of `PRIVILEGES`.
    """

    at: datetime
    seq: int
    status: Status
    funnel: Funnel
    ages: tuple[tuple[str, int], ...]
    to_dead: tuple[tuple[str, int], ...]
    providers: tuple[ProviderFigure, ...]
    namespaces: tuple[tuple[str, int], ...]
    days: tuple[Day, ...]
    nights: tuple[Night, ...]
    risk: tuple[tuple[str, tuple[Cell, ...]], ...]


PRIVILEGES = (Privilege.ADMIN, Privilege.WRITE, Privilege.UNKNOWN, Privilege.READ)
"""As they are listed: the most dangerous first; nobody knows what an unknown one may do."""

_AGES = (("under a day", 1), ("1 to 7 days", 7), ("7 to 30 days", 30), ("30 to 90 days", 90), ("90 to 365 days", 365))
_OLDER = "over a year"
_SPANS = (*(name for name, _ in _AGES), _OLDER)


def figures(ledger: Ledger, db: Database) -> Figures:
    """Count everything, as of now."""
    now = datetime.now(UTC)
    with db.read() as connection:
        ask = connection.exec_driver_sql
        seq = int(ask("SELECT seq FROM head").scalar() or 0)
        risk = _risk(ask(_RISK_SQL, (stamp(now),)).fetchall())
        dead = sorted(row / _MICRO_DAY for row in ask(_DEAD_SQL).scalars())
        live = sorted(row / _MICRO_DAY for row in ask(_LIVE_SQL).scalars())
        once, removed = ask(_ONCE_SQL).one()
        gone = sorted(max(0, row) / _MICRO_DAY for row in ask(_GONE_SQL).scalars())
        replaced = sorted(max(0, row) / _MICRO_DAY for row in ask(_REPLACED_SQL).scalars())
        circuits = {str(name): int(n) for name, n in ask(_CIRCUIT_SQL)}
        providers = _providers(ask(_PROVIDER_SQL).fetchall(), circuits)
        names = ask(_NAMES_SQL, (TOP,)).fetchall()
        turned = ask(_TURNS_SQL, (stamp(now - DAYS * DAY),)).fetchall()
        told = ask(_NIGHTS_SQL, (stamp(now - DAYS * DAY),)).fetchall()
    status = ledger.status()
    return Figures(
        at=now,
        seq=seq,
        status=status,
        funnel=Funnel(
            seen=status.keys,
            live_once=int(once or 0),
            removed=int(removed or 0),
            replaced=len(replaced),
            dead=len(dead),
            to_live=_span(live),
            to_removed=_span(gone),
            to_replaced=_span(replaced),
            to_dead=_span(dead),
        ),
        ages=tuple((age, sum(cell.count for cell in row)) for age, row in risk),
        to_dead=_buckets(dead),
        providers=providers,
        namespaces=tuple((str(name), int(n)) for name, n in names),
        days=_days(now, turned),
        nights=_nights(now, told),
        risk=risk,
    )


_MICRO_DAY = 86_400_000_000
_RISK_SQL = (
    "SELECT days, privilege, seen, count(*) FROM (SELECT (? - a.at) / 86400000000 AS days,"
    " coalesce(s.privilege, 'unknown') AS privilege,"
    " (SELECT max(CASE h.visibility WHEN 'public' THEN 2 WHEN 'private' THEN 0 ELSE 1 END) FROM findings f"
    " JOIN holders h ON h.id = f.holder WHERE f.credential = s.credential) AS seen"
    " FROM states s JOIN credentials c ON c.id = s.credential JOIN scans a ON a.id = c.scan WHERE s.known = 'live') l"
    " GROUP BY days, privilege, seen"
)
_DEAD_SQL = (
    "SELECT CASE WHEN s.dead_since > a.at THEN s.dead_since - a.at ELSE 0 END FROM states s"
    " JOIN credentials c ON c.id = s.credential"
    " JOIN scans a ON a.id = c.scan WHERE s.known = 'dead' AND s.confirmed = 1 AND s.first_live IS NOT NULL"
)
_LIVE_SQL = (
    "SELECT CASE WHEN s.first_live > a.at THEN s.first_live - a.at ELSE 0 END FROM states s"
    " JOIN credentials c ON c.id = s.credential"
    " JOIN scans a ON a.id = c.scan WHERE s.first_live IS NOT NULL"
)
_ONCE_SQL = (
    "SELECT count(*), count(*) FILTER (WHERE findings > 0 AND present = 0) FROM states WHERE first_live IS NOT NULL"
)
_GONE_SQL = (
    "SELECT max(f.removed) - min(a.at) FROM states s JOIN findings f ON f.credential = s.credential"
    " JOIN credentials c ON c.id = s.credential JOIN scans a ON a.id = c.scan"
    " WHERE s.first_live IS NOT NULL AND s.findings > 0 AND s.present = 0 GROUP BY s.credential"
)
_REPLACED_SQL = (
    "SELECT min(r.at) - min(a.at) FROM rotations r JOIN credentials c ON c.id = r.credential"
    " JOIN scans a ON a.id = c.scan"
    " WHERE r.what = 'ended' AND r.data LIKE '%\"how\":\"finished\"%' GROUP BY r.credential"  # written without blanks
)
_CIRCUIT_SQL = (
    "SELECT c.provider, count(*) FROM states s JOIN verdicts v ON v.id = s.last"
    " JOIN credentials c ON c.id = s.credential"
    " WHERE s.verdict = 'undecided' AND s.why = 'unreachable' AND v.note LIKE '%circuit open%' GROUP BY c.provider"
)
_NIGHTS_SQL = (
    "SELECT r.started / 86400000000, v.verdict, count(*) FROM verdicts v JOIN runs r ON r.id = v.run"
    " WHERE r.what = 'nightly' AND r.started >= ? GROUP BY 1, 2"
)
_PROVIDER_SQL = (
    "SELECT c.provider, s.known, s.verdict, s.confirmed, coalesce(s.why, ''), count(*), max(s.at)"
    " FROM states s CROSS JOIN credentials c WHERE c.id = s.credential GROUP BY 1, 2, 3, 4, 5"
)
_NAMES_SQL = (
    "SELECT CASE WHEN h.name IS NOT NULL THEN coalesce(h.registry, 'docker.io') || '/' ||"
    " coalesce(h.namespace, 'library') ELSE coalesce(h.repository, h.source) END, count(DISTINCT f.credential) n"
    " FROM states s JOIN findings f ON f.credential = s.credential JOIN holders h ON h.id = f.holder"
    " WHERE s.known = 'live' GROUP BY 1 ORDER BY n DESC, 1 LIMIT ?"
)
_TURNS_SQL = "SELECT at / 86400000000, turn, count(*) FROM verdicts WHERE turn IS NOT NULL AND at >= ? GROUP BY 1, 2"


def _buckets(days: Sequence[float]) -> tuple[tuple[str, int], ...]:
    counts = dict.fromkeys(_SPANS, 0)
    for d in days:
        counts[_span_of(d)] += 1
    return tuple(counts.items())


def _span_of(days: float) -> str:
    return next((name for name, most in _AGES if days < most), _OLDER)


def _risk(rows: Sequence[Any]) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    counts: dict[tuple[str, str], list[int]] = {}
    for days, privilege, seen, n in rows:
        cell = counts.setdefault((_span_of(days), privilege), [0, 0, 0])
        for i, belongs in enumerate((True, seen == 2, seen == 0)):
            cell[i] += n if belongs else 0
    return tuple((age, tuple(Cell(*counts.get((age, p.value), ())) for p in PRIVILEGES)) for age in _SPANS)


def _span(days: Sequence[float]) -> Span:
    """Return the figures of sorted times."""
    if not days:
        return Span()
    middle = len(days) // 2
    median = days[middle] if len(days) % 2 else (days[middle - 1] + days[middle]) / 2
    return Span(len(days), round(median, 2), round(days[math.ceil(0.9 * len(days)) - 1], 2))


def _providers(rows: Sequence[Any], circuits: dict[str, int]) -> tuple[ProviderFigure, ...]:
    made: dict[str, dict[str, Any]] = {}
    for provider, known, verdict, confirmed, why, n, at in rows:
        p = made.setdefault(
            provider,
            {
                "keys": 0,
                "live": 0,
                "dead": 0,
                "unconfirmed": 0,
                "undecided": 0,
                "unchecked": 0,
                "doubts": {},
                "at": None,
            },
        )
        p["keys"] += n
        name = known or ("unchecked" if verdict is None else "undecided")
        p["unconfirmed" if name == "dead" and not confirmed else name] += n
        if verdict == "undecided":
            p["doubts"][why] = p["doubts"].get(why, 0) + n
        p["at"] = max(filter(None, (p["at"], at)), default=None)
    found = [
        ProviderFigure(provider=k, asked_at=moment_or_none(p.pop("at")), circuit=circuits.get(k, 0), **p)
        for k, p in made.items()
    ]
    return tuple(sorted(found, key=lambda p: (-p.live, -p.keys, p.provider)))


def _days(now: datetime, rows: Sequence[Any]) -> tuple[Day, ...]:
    counts: dict[str, dict[str, int]] = {day: {} for day in _last_days(now)}
    for number, turn, n in rows:
        day = f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m-%d}"
        if day in counts:
            counts[day][turn] = n
    return tuple(Day(day, c.get("found-live", 0), c.get("died", 0), c.get("revived", 0)) for day, c in counts.items())


def _nights(now: datetime, rows: Sequence[Any]) -> tuple[Night, ...]:
    counts: dict[str, dict[str, int]] = {day: {} for day in _last_days(now)}
    for number, verdict, n in rows:
        day = f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m-%d}"
        if day in counts:
            counts[day][verdict] = n
    return tuple(Night(day, **c) for day, c in counts.items())


def _last_days(now: datetime) -> list[str]:
    return [f"{now - n * DAY:%Y-%m-%d}" for n in range(DAYS - 1, -1, -1)]


# ── pages of keys ──────────────────────────────────────────────────────────────────────────────────────


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


class Job(Struct, frozen=True):
    """One verification run of the ledger."""

    id: int
    what: str
    started: datetime
    ended: datetime | None


class Read(Struct, frozen=True):
    """One report that was read in."""

    id: int
    scanner: str
    file: str
    origin: str
    complete: bool
    at: datetime
    findings: int | None
    keys: int | None
    new: int | None
    removed: int | None


def jobs(db: Database, limit: int = 20) -> list[Job]:
    """Return the newest verification runs."""
    with db.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id, what, started, ended FROM runs ORDER BY id DESC LIMIT ?", (limit,)
        ).fetchall()
    return [Job(n, what, moment(started), moment_or_none(ended)) for n, what, started, ended in rows]


def scans(db: Database, limit: int = 20) -> list[Read]:
    """Return the newest reports."""
    sql = (
        "SELECT id, scanner, file, coalesce(origin, ''), complete, at, findings, keys, new, removed"
        " FROM scans ORDER BY id DESC LIMIT ?"
    )
    with db.read() as connection:
        rows = connection.exec_driver_sql(sql, (limit,)).fetchall()
    return [
        Read(n, scanner, file, origin, bool(complete), moment(at), *rest)
        for n, scanner, file, origin, complete, at, *rest in rows
    ]


class Happened(Struct, frozen=True):
    """One event of the chain."""

    seq: int
    at: datetime
    kind: str
    text: str
    hash: str


def _counted(n: int, name: str) -> str:
    return f"{n} {name.removesuffix('s') if n == 1 else name}"


def events(db: Database, before: int | None = None, limit: int = 100) -> list[Happened]:
    """Return events, newest first; `before` leads on from the last one of a page."""
    from lapse.ledger.chain import read_payload  # noqa: PLC0415  # with the ledger

    sql = "SELECT seq, at, kind, payload, hash FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"
    with db.read() as connection:
        rows = connection.exec_driver_sql(sql, (before if before is not None else 1 << 62, limit)).fetchall()
    found = []
    for seq, at, kind, payload, digest in rows:
        said = read_payload(payload)
        counts = [f"{s.count} {s.table if s.count != 1 else s.table[:-1]}" for s in said.rows if not said.text]
        counts += [f"schema {n}" if name == "schema" else _counted(n, name) for name, n in said.figures.items()]
        text = said.text or ", ".join(counts) or " ".join(filter(None, (said.owner, said.canary)))
        found.append(Happened(seq, moment(at), kind, text, digest.hex()))
    return found
