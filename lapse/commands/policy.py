"""`lapse policy test KEY`: which rule fires for a key, and why each earlier one does not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError
from lapse.output import jsonv1
from lapse.output.console import out, raw, safe
from lapse.owners import Owners
from lapse.policy import Missed, decide, proposal, subject
from lapse.sections import Act

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.policy import Decision, Subject


class PolicyOut(Struct, frozen=True):
    """`policy test --format json`. `rule` counts from 1, 0 for the default; `command` shows a rotation's plan."""

    key: str
    action: Act
    rule: int
    name: str
    missed: tuple[Missed, ...]
    held: str
    command: str
    owner: str
    owner_why: str
    exposure: str
    privilege: str
    verdict: str
    age_days: float
    removed_from_source: bool
    v: Literal[1] = 1


def run(name: str, config: Path | None, *, json: bool) -> Exit:
    """Print what policy would do. It does nothing."""
    setup = Setup.of(config)
    now = datetime.now(UTC)
    owners = Owners.of(setup.config)
    with setup.ledger() as ledger:
        try:
            key = ledger.key(ledger.resolve(name))
        except LedgerError as e:
            raise Stop(str(e), Exit.USAGE) from None
        about = subject(ledger, setup.catalogue, owners, key, now)
    told = _told(about, decide(setup.config.policy, about))
    if json:
        raw(jsonv1.encode(told))
    else:
        _print(told)
    return Exit.OK


def _told(about: Subject, decision: Decision) -> PolicyOut:
    wanted = proposal(decision, about)
    return PolicyOut(
        key=about.short,
        action=decision.action,
        rule=decision.number,
        name=(decision.rule and decision.rule.name) or "",
        missed=decision.missed,
        held=decision.held,
        command=wanted.command if wanted else "",
        owner=about.owner.name,
        owner_why=about.owner.why,
        exposure=about.exposure,
        privilege=about.privilege,
        verdict=about.verdict,
        age_days=round(about.age.total_seconds() / 86400, 3),
        removed_from_source=about.removed,
    )


def _print(p: PolicyOut) -> None:
    out(f"{p.key}  {p.verdict}, {p.exposure}, first seen {p.age_days:.1f} days ago, privilege {p.privilege}")
    out(f"  owner   {safe(p.owner)} ({safe(p.owner_why)})")
    for m in p.missed:
        out(f"  rule {m.number:<3} {safe(m.name)}: no, {safe(m.why)}")
    if p.rule:
        out(f"  rule {p.rule:<3} {safe(p.name) or 'without a name'}: fires")
    else:
        out("  default  no rule fires: live keys are notified, others left alone")
    if p.held:
        out(f"  held    it wants a rotation, and none is proposed: {p.held}")
    out(f"  action  {p.action}")
    if p.command:
        out(f"  plan    {p.command}")
