"""Lists of keys in every output format, and what they add up to."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from msgspec.structs import replace

from lapse.exits import Exit
from lapse.ledger.model import Order, Select
from lapse.output import csvfile, jsonv1
from lapse.output.console import say, table
from lapse.output.sarif import sarif
from verifier.model import Dead, Live, Undecided
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lapse.ledger import Ledger
    from lapse.ledger.model import Found, Key, Sort

TOGETHER = 200
"""Keys whose places are fetched in one query, those with more than `FEW` apart: a batch must fit into memory."""
FEW = 500

ROWS = 200
"""Most rows of a table; the rest is in `lapse report`."""


@dataclass
class Counts:
    """How many keys are what. `unsure`: live when last answered, undecided since."""

    keys: int = 0
    live: int = 0
    unsure: int = 0
    removed: int = 0
    dead: int = 0
    unconfirmed: int = 0
    undecided: int = 0

    def exit(self) -> Exit:
        """Return the exit code that these counts mean."""
        if self.live or self.unsure:
            return Exit.LIVE
        if self.undecided:
            return Exit.UNDECIDED
        return Exit.WAITING if self.unconfirmed else Exit.OK

    def sentence(self) -> str:
        """Return the summary, the most urgent first."""
        said = [f"{self.live} live"]
        if self.removed:
            said.insert(0, f"{self.removed} removed from source but never revoked")
        if self.unsure:
            said.append(f"{self.unsure} live when last asked")
        said += [f"{self.undecided} undecided", f"{self.dead} dead"]
        if self.unconfirmed:
            said.append(f"{self.unconfirmed} dead but unconfirmed")
        return f"{plural(self.keys, 'key')}: " + ", ".join(said)


def counts(sorts: Iterable[Sort]) -> Counts:
    """Add up."""
    c = Counts()
    for sort in sorts:
        c.keys += sort.keys
        if sort.known == "live":
            c.removed += sort.keys if sort.removed else 0
            if sort.last == "undecided":
                c.unsure += sort.keys
            else:
                c.live += sort.keys
        elif sort.known == "dead" and sort.confirmed:
            c.dead += sort.keys
        elif sort.known == "dead" and sort.last != "undecided":
            c.unconfirmed += sort.keys
        else:
            c.undecided += sort.keys
    return c


def reports(ledger: Ledger, select: Select) -> Iterator[jsonv1.KeyReport]:
    """Yield every key with its places, fetched for many keys at once: one query a key is most of a report's time."""
    keys = ledger.keys(select)
    while batch := tuple(islice(keys, TOGETHER)):
        found: dict[str, list[Found]] = {key.id: [] for key in batch}
        for name, one in ledger.places_of([k.id for k in batch if k.findings <= FEW], FEW):
            found[name].append(one)
        for key in batch:
            places = ledger.places(key.id) if key.findings > FEW else found.pop(key.id)
            yield jsonv1.full(key, tuple(places))


def write(ledger: Ledger, select: Select, shape: str, out: TextIO) -> None:
    """Write the keys in `shape`. `jsonl` writes nothing: verify prints its lines as they come."""
    match shape:
        case "table":
            _table(ledger, select)
        case "json":
            _json(reports(ledger, select), out)
        case "csv":
            csvfile.write(reports(ledger, select), out)
        case "sarif":
            out.writelines(sarif(reports(ledger, select)))
        case _:
            pass


def _json(keys: Iterable[jsonv1.KeyReport], out: TextIO) -> None:
    """Write the report document key by key, so that its size costs no memory."""
    out.write('{"v":1,"keys":[')
    out.writelines((",\n" if n else "\n") + jsonv1.encode(key).decode() for n, key in enumerate(keys))
    out.write("\n]}\n")


def lines(ledger: Ledger, select: Select, out: TextIO) -> None:
    """Write one line of json-v1 a key."""
    out.writelines(jsonv1.encode(key).decode() + "\n" for key in reports(ledger, select))


def _table(ledger: Ledger, select: Select) -> None:
    shown = list(ledger.keys(replace(select, order=Order.RISK, limit=ROWS + 1)))
    table(("KEY", "VERDICT", "PROVIDER", "WHO / WHY", "SEEN", "WHERE"), (row(ledger, k) for k in shown[:ROWS]))
    if len(shown) > ROWS:
        sys.stdout.flush()
        say(f"only the first {ROWS} are shown; `lapse report` has all")


def row(ledger: Ledger, key: Key) -> tuple[str, ...]:
    """Return one row of a table."""
    first = next(ledger.places(key.id), None)
    where = ""
    if first is not None:
        p = first.place
        name = p.image.reference if p.image else p.repository or ""
        where = f"{name} {p.path or ''}{f':{p.line}' if p.line else ''}".strip()
        where += " (removed)" if key.removed_from_source else ""
    return (key.short, verdict(key), key.provider, who(key), str(key.findings), _cut(where, 80))


def verdict(key: Key) -> str:
    """Return the verdict in words."""
    match key.last:
        case Live(restricted=True):
            return "live (restricted)"
        case Live():
            return "live"
        case Dead():
            return "dead" if key.confirmed else "dead (unconfirmed)"
        case Undecided() if isinstance(key.known, Live):
            return "undecided (was live)"
        case Undecided():
            return "undecided"
        case None:
            return "not asked"


def who(key: Key) -> str:
    """Return whom a live key speaks for, else why the verdict is what it is."""
    match key.last:
        case None:
            return ""
        case Live(identity=i):
            names = [n for n in (i.principal, i.account, i.organisation) if n] if i else []
            return _cut(" / ".join(dict.fromkeys(names)), 60)
        case Dead(how=how):
            return str(how)
        case Undecided(why=why, note=note):
            return _cut(f"{why}: {note}", 70) if note else str(why)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
