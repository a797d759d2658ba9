"""`lapse status`: the figures, the most urgent first, the rotations that are not over, the keys that need a hand."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit
from lapse.ledger import Order, Select, State
from lapse.output import jsonv1
from lapse.output.console import out, raw, table
from lapse.output.listing import row
from lapse.output.rotations import age, waiting
from playbooks.journal import state_of
from verifier.words import noun_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lapse.ledger import Key, Ledger, Status
    from lapse.output.rotations import RotationOut

SAYS = 100
"""Most characters of what a rotation says."""


def run(config: Path | None, limit: int, who: str | None = None, *, json: bool) -> Exit:
    """Print the totals, what waits for whom, and the `limit` most urgent live keys."""
    with Setup.of(config).ledger() as ledger:
        status = ledger.status()
        live = _urgent(ledger, limit)
        log = ledger.rotations
        states = [state_of(name, log.entries(name)) for name in log.open_runs()]
        rotations = waiting(states, _me(who), datetime.now(UTC))
        if json:
            raw(jsonv1.encode(jsonv1.StatusOut(status, tuple(map(jsonv1.line, live)), tuple(rotations))))
            return _exit(status, rotations)
        for text, number in _figures(status):
            out(f"{number:>10,}  {text}")
        if rotations:
            out()
            table(("ROTATION", "KEY", "STANDS", "SINCE", "STEP", "SAYS", "NEXT"), map(_turn, rotations))
        if live:
            out()
            table(("KEY", "VERDICT", "PROVIDER", "WHO / WHY", "SEEN", "WHERE"), (row(ledger, k) for k in live))
            if status.live > len(live):
                out(f"and {status.live - len(live):,} more: lapse report")
    return _exit(status, rotations)


def _me(named: str | None) -> str:
    """Return who asks; nobody where neither the option nor the system says."""
    try:
        return (named or getpass.getuser()).strip()
    except (OSError, KeyError):  # a container whose user has no name
        return ""


def _turn(r: RotationOut) -> tuple[str, ...]:
    """Return one rotation as a row of the table."""
    says = r.says.partition("; `lapse")[0]
    if r.lacking and r.not_by:
        says += f" (not {', '.join(r.not_by)})"
    if r.until is not None:
        says += f" (until {r.until:%Y-%m-%d %H:%M} UTC)"
    return (
        r.run,
        r.key,
        r.stands,
        age(r.age_seconds),
        r.step,
        says if len(says) <= SAYS else says[:SAYS] + "…",
        r.next,
    )


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
        (f"{noun_of(s.canaries, 'canary key')} (never called)", s.canaries),
        ("somebody else's", s.foreign),
        (f"{noun_of(s.keys, 'distinct key')} in all", s.keys),
        (noun_of(s.findings, "finding"), s.findings),
    ]
    always = {"removed from source, never revoked: still live", "live", "proven dead"}
    return [(text, number) for text, number in every if number or text in always or text.startswith("distinct")]


def _exit(s: Status, rotations: Sequence[RotationOut]) -> Exit:
    if s.live:
        return Exit.LIVE
    if s.undecided or s.unchecked:
        return Exit.UNDECIDED
    if any(r.stands == "stopped" for r in rotations):
        return Exit.PART_WAY
    return Exit.WAITING if s.dead_unconfirmed or rotations else Exit.OK
