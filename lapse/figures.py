"""Figures over a whole ledger, by SQL: what the console and the HTML report both show.

Nothing here writes. `figures` passes over every state once (half a second at a million keys), so whoever serves pages
keeps what it returned.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lapse.ledger.clock import moment_or_none, stamp
from lapse.ledger.model import Status
from verifier.model import Privilege

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapse.ledger import Ledger
    from lapse.ledger.db import Database

DAY = timedelta(days=1)
DAYS = 30
"""How many days back the daily chart looks."""

TOP = 12
"""Most bars of a chart."""


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
