"""One self-contained HTML file: figures, charts, and every key in sections, the most urgent first.

Written row by row, so that its size costs no memory here; for the reader's browser keys lie in closed blocks of
`BLOCK` rows, which it lays out only when they are opened. No script and no network; what scanners wrote is escaped, and
a policy in the file forbids scripts besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping  # msgspec reads the first
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from lapse import __version__
from lapse.config import cache_dir
from lapse.figures import PRIVILEGES, Figures, figures
from lapse.keypages import Group, first_places
from lapse.ledger.model import Key, Order, Select, State
from lapse.output import charts, jsonv1, listing
from lapse.output.console import safe
from lapse.output.markdown import headline
from verifier.model import Dead
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lapse.ledger import Ledger, Status
    from lapse.ledger.db import Database

BLOCK = 500
"""Rows of one closed block."""

PLACES = 3
"""Places shown of one key."""

_BUFFER = 256


class Row(Struct):
    """One key of the report, with its first places and how many more there are."""

    key: Key
    places: tuple[str, ...]
    more: int


class Block(Struct):
    """So many rows under one heading that can be opened."""

    label: str
    rows: Iterable[Row]


class Section(Struct):
    """One state of keys."""

    title: str
    says: str
    open: bool
    blocks: Iterable[Block]


_SECTIONS: tuple[tuple[str, str, Select], ...] = (
    (
        "Removed from source, never revoked",
        "Every place is gone and the key still works: deleting the file did not help.",
        Select(states=frozenset({State.LIVE}), removed=True, order=Order.RISK),
    ),
    ("Live", "They still work. The most privileged first.",
     Select(states=frozenset({State.LIVE}), removed=False, order=Order.RISK)),
    ("Undecided", "Asked, and the answer proves nothing. They may be live.",
     Select(states=frozenset({State.UNDECIDED}))),
    ("Not asked", "No answer is on record yet.", Select(states=frozenset({State.UNCHECKED}))),
    ("Dead, not confirmed", "Refused once. Not believed before a second look.",
     Select(states=frozenset({State.DEAD}), confirmed=False)),
    ("Proven dead", "The provider's own words, twice.", Select(states=frozenset({State.DEAD}), confirmed=True)),
)  # fmt: skip


def write(ledger: Ledger, out: TextIO) -> None:
    """Write the report."""
    database = ledger.reader()
    try:
        f = figures(ledger, database)
        stream = (
            environment()
            .get_template("report.html")
            .stream(
                f=f,
                headline=headline(f.status),
                style=Markup(style()),  # noqa: S704  # our own style sheet
                sections=_sections(ledger, database),
                version=__version__,
            )
        )
        stream.enable_buffering(_BUFFER)
        out.writelines(stream)
    finally:
        database.close()


def style() -> str:
    """Return the style sheet."""
    return files("lapse.web").joinpath("static/style.css").read_text("utf-8")


@cache
def environment() -> Environment:
    """Return the templates' environment: everything escaped, an unknown name an error."""
    made = Environment(
        loader=PackageLoader("lapse.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "verdict": listing.verdict,
        "plural": plural,
        "word": word,
        "who": listing.who,
        "when": when,
        "second": second,
        "day": lambda at: f"{at:%Y-%m-%d}" if at else "—",
        "days": days,
        "tiles": tiles,
        "charts": drawn,
        "privileges": lambda _: [p.value for p in PRIVILEGES],
        "safe_text": safe,
        "safe_json": lambda text: "\n".join(map(safe, text.split("\n"))),
        "by_live": lambda groups: sorted(groups.items(), key=lambda x: (-x[1].removed_never_revoked, -x[1].live)),
        "first_up": lambda text: text[:1].upper() + text[1:],
    }
    return made


def word(key: Key) -> str:
    """Return the colour class of a key: what is known counts, not last night's silence; no death before its proof."""
    if isinstance(key.known, Dead) and not key.confirmed:
        return "undecided"
    return jsonv1.word(key.known) if key.known else jsonv1.word(key.last)


def when(at: datetime | None) -> str:
    """Return a moment in UTC, to the minute."""
    return f"{at:%Y-%m-%d %H:%M}" if at else "—"


def second(at: datetime | None) -> str:
    """Return a moment in UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "—"


def days(value: float | None) -> str:
    """Return a span in days, or in hours and minutes where it is short."""
    if value is None:
        return "—"
    if value >= 2:
        return f"{value:,.0f} days"
    hours = value * 24
    return f"{hours:.0f} h" if hours >= 2 else f"{hours * 60:.0f} min"


def tiles(s: Status) -> list[tuple[str, int, str, str]]:
    """Return the figures of the head: text, number, group, and how loud."""
    return [
        ("removed from source, never revoked", s.removed_never_revoked, Group.REMOVED.value, "hot"),
        ("live", s.live, Group.LIVE.value, "hot"),
        ("undecided", s.undecided, Group.UNDECIDED.value, ""),
        ("not asked", s.unchecked, Group.UNCHECKED.value, ""),
        ("dead, not confirmed", s.dead_unconfirmed, Group.UNCONFIRMED.value, ""),
        ("proven dead", s.dead, Group.DEAD.value, "good"),
    ]


@cache
def categories() -> Mapping[str, str]:
    """Return the category of each kind of key that Lapse ships."""
    from verifier.catalogue import load_catalogue  # noqa: PLC0415  # slow to load

    return {kind.id: kind.category for kind in load_catalogue(cache=cache_dir())}


def by_category(f: Figures) -> list[tuple[str, tuple[int, ...]]]:
    """Return live, undecided and dead keys by category, the most live first."""
    known, counts = categories(), dict[str, list[int]]()
    for p in f.providers:
        row = counts.setdefault(known.get(p.provider, "other"), [0, 0, 0])
        for i, n in enumerate((p.live, p.undecided + p.unchecked, p.dead + p.unconfirmed)):
            row[i] += n
    return sorted(((c, tuple(row)) for c, row in counts.items()), key=lambda x: (-x[1][0], -sum(x[1])))


def drawn(f: Figures) -> list[Markup]:
    """Return the charts of the figures."""
    kinds = [(p.provider, (p.live, p.undecided + p.unchecked, p.dead + p.unconfirmed)) for p in f.providers[:12]]
    told = [(n.day, (n.live, n.undecided, n.dead)) for n in f.nights]
    states = (charts.LIVE, charts.UNDECIDED, charts.DEAD)
    turned = [(d.day, (d.found_live + d.revived, d.died)) for d in f.days]
    plain = charts.Series("keys", "c-plain")
    return [
        charts.bars("Age of live keys", ("First seen", "live keys"), f.ages, charts.LIVE),
        charts.bars("Time from first seen to dead", ("Time", "keys"), f.to_dead, plain),
        charts.columns("Verdicts by night", "Night", states, told),
        charts.stacked("Verdicts by category", "Category", states, by_category(f)),
        charts.stacked("Verdicts by kind of key", "Kind", states, kinds),
        charts.bars("Live keys by image namespace or repository", ("Where", "live keys"), f.namespaces, charts.LIVE),
        charts.columns(
            "The last 30 days", "Day", (charts.Series("found live", "c-live"), charts.Series("died", "c-dead")), turned
        ),
    ]


# ── rows ───────────────────────────────────────────────────────────────────────────────────────────────


def _sections(ledger: Ledger, database: Database) -> Iterator[Section]:
    for n, (title, says, select) in enumerate(_SECTIONS):
        yield Section(title, says, n < 2, _blocks(ledger, database, select))  # what is live is open


def _blocks(ledger: Ledger, database: Database, select: Select) -> Iterator[Block]:
    """Yield blocks: a block's places are read at once."""
    keys, start = ledger.keys(select), 0
    while taken := list(islice(keys, BLOCK)):
        places = first_places(database, [k.id for k in taken], PLACES)
        rows = [_row(key, places.get(key.id, [])) for key in taken]
        yield Block(f"Keys {start + 1:,} to {start + len(rows):,}" if len(rows) > 1 else f"Key {start + 1:,}", rows)
        start += len(rows)


def _row(key: Key, places: list[str]) -> Row:
    shown = tuple(safe(text) for text in places)
    return Row(key, shown, max(0, key.findings - len(shown)))
