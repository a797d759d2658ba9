"""A summary in Markdown, for a ticket, a pull request or a CI step: the figures, then the keys that need a hand.

Short on purpose: GitHub cuts a step summary at 1 MiB. Scanner text is shown as code, so that it can neither mention
people, link, nor format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.ledger.model import Order, Select, State
from lapse.output.console import safe
from lapse.output.listing import row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.ledger import Ledger
    from lapse.ledger.model import Key, Status

MOST = 50
"""Most keys of one table."""


def markdown(ledger: Ledger) -> Iterator[str]:
    """Yield the pieces of the summary."""
    s = ledger.status()
    yield f"## Leaked keys: {headline(s)}\n\n"
    yield "| | keys |\n|---|---:|\n"
    for name, number in (
        ("**Removed from source, never revoked**", s.removed_never_revoked),
        ("**Live**", s.live),
        ("Undecided", s.undecided),
        ("Not asked yet", s.unchecked),
        ("Dead, not confirmed yet", s.dead_unconfirmed),
        ("Proven dead", s.dead),
        ("All", s.keys),
    ):
        yield f"| {name} | {number:,} |\n"
    gone = s.removed_never_revoked
    yield from _table(ledger, "Removed from source, never revoked", gone, removed=True)
    yield from _table(ledger, "Live", s.live - gone, removed=False)
    yield "\n`lapse show KEY` tells the story of one key; `lapse rotate KEY` prints the plan that replaces it.\n"


def headline(s: Status) -> str:
    """Return the state of things in a few words, the most urgent first."""
    if s.removed_never_revoked:
        return f"{s.live:,} live, {s.removed_never_revoked:,} of them removed but never revoked"
    if s.live:
        return f"{s.live:,} live"
    if s.undecided or s.unchecked:
        return f"none known to be live, {s.undecided + s.unchecked:,} undecided"
    return "none live"


def _table(ledger: Ledger, title: str, number: int, *, removed: bool) -> Iterator[str]:
    if not number:
        return
    yield f"\n### {title} ({number:,})\n\n| key | kind | speaks for | seen | where |\n|---|---|---|---:|---|\n"
    select = Select(states=frozenset({State.LIVE}), removed=removed, order=Order.RISK, limit=MOST)
    for key in ledger.keys(select):
        yield _row(ledger, key)
    if number > MOST:
        yield f"\nand {number - MOST:,} more: `lapse report -o report.html`\n"


def _row(ledger: Ledger, key: Key) -> str:
    short, _, kind, who, seen, where = row(ledger, key)
    return f"| `{short}` | {kind} | {_code(who)} | {seen} | {_code(where)} |\n"


def _code(text: str) -> str:
    """Return hostile text as code inside a table cell: no pipe ends the cell, no backtick the code."""
    shown = safe(text).replace("`", "'").replace("|", "¦").strip()
    return f"`{shown}`" if shown else ""
