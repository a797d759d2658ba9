"""`lapse status`: the figures, the most urgent first, and the keys that need a hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit
from lapse.ledger import Order, Select, State
from lapse.output import jsonv1
from lapse.output.console import out, raw, table
from lapse.output.listing import row

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.ledger import Key, Ledger, Status


def run(config: Path | None, limit: int, *, json: bool) -> Exit:
    """Print the totals and the `limit` most urgent live keys."""
    with Setup.of(config).ledger() as ledger:
        status = ledger.status()
        live = _urgent(ledger, limit)
        if json:
            raw(jsonv1.encode(jsonv1.StatusOut(status, tuple(map(jsonv1.line, live)))))
            return _exit(status)
        for text, number in _figures(status):
            out(f"{number:>10,}  {text}")
        if live:
            out()
            table(("KEY", "VERDICT", "PROVIDER", "WHO / WHY", "SEEN", "WHERE"), (row(ledger, k) for k in live))
            if status.live > len(live):
                out(f"and {status.live - len(live):,} more: lapse report")
    return _exit(status)


def _urgent(ledger: Ledger, limit: int) -> list[Key]:
    """Return live keys, first those that are gone from the source and were never revoked; the most harmful first."""
    found: list[Key] = []
    for removed in (True, False):
        if room := limit - len(found):
            live = Select(states=frozenset({State.LIVE}), removed=removed, order=Order.RISK, limit=room)
            found += ledger.keys(live)
    return found


def _figures(s: Status) -> list[tuple[str, int]]:
    every = [
        ("removed from source, never revoked: still live", s.removed_never_revoked),
        ("live", s.live),
        ("  of these restricted", s.live_restricted),
        ("  of these undecided when last asked", s.live_unsure),
        ("undecided: asked, not answered", s.undecided),
        ("not asked yet", s.unchecked),
        ("dead, not confirmed yet", s.dead_unconfirmed),
        ("proven dead", s.dead),
        ("canary keys (never called)", s.canaries),
        ("somebody else's", s.foreign),
        ("distinct keys in all", s.keys),
        ("findings", s.findings),
    ]
    always = {"removed from source, never revoked: still live", "live", "proven dead", "distinct keys in all"}
    return [(text, number) for text, number in every if number or text in always]


def _exit(s: Status) -> Exit:
    if s.live:
        return Exit.LIVE
    if s.undecided or s.unchecked:
        return Exit.UNDECIDED
    return Exit.WAITING if s.dead_unconfirmed else Exit.OK
