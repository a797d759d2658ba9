"""`lapse diff --since`: what changed, and how long keys live."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.diff import diff, since
from lapse.exits import Exit
from lapse.output import jsonv1
from lapse.output.console import out, raw, table
from lapse.owners import Owners

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.diff import DiffOut, Figures, KeyDelta

ROWS = 20
"""Most rows of a list; the JSON has all."""


def run(begin: str, config: Path | None, *, json: bool) -> Exit:
    """Print what changed since `begin`; exit 10 while a key is live."""
    setup = Setup.of(config)
    now = datetime.now(UTC)
    start = since(begin, now)
    owners = Owners.of(setup.config)
    with setup.ledger() as ledger:
        news = diff(ledger, setup.catalogue, owners, setup.config, (start, now))
    if json:
        raw(jsonv1.encode(news))
    else:
        tell(news)
    return Exit.LIVE if news.total.live else Exit.OK


def tell(news: DiffOut) -> None:
    """Print the figures and the lists, the most urgent first."""
    out(f"since {news.since:%Y-%m-%d %H:%M} UTC")
    t = news.total
    for number, text in (
        (t.revived, "back from the dead: were proven dead, work again"),
        (t.removed_never_revoked, "removed from source, never revoked: still live"),
        (t.new, "new live"),
        (t.died, "proven dead"),
        (t.unproven, "refused, not proven dead yet"),
        (t.live, "live in all"),
        (t.breaches, "of these live for too long"),
    ):
        out(f"{number:>10,}  {text}")
    if t.revoke_mean_days is not None and t.revoke_p90_days is not None:
        out(f"{'':>10}  days from first seen to dead: mean {t.revoke_mean_days:.1f}, p90 {t.revoke_p90_days:.1f}")
    for head, items in (
        ("BACK FROM THE DEAD", news.revived),
        ("REMOVED, NEVER REVOKED", news.removed_never_revoked),
        ("NEW LIVE", news.new),
        ("LIVE FOR TOO LONG", news.breaches),
        ("PROVEN DEAD", news.died),
    ):
        _list(head, items)
    for head, groups in (("OWNER", news.by_owner), ("KIND", news.by_provider), ("NAMESPACE", news.by_namespace)):
        _groups(head, groups)
    if news.shadow_registries:
        out("\nSHADOW REGISTRIES: image namespaces that no [[owner]] names")
        table(("NAMESPACE", "KEYS"), ((n, str(count)) for n, count in news.shadow_registries.items()))


def _list(head: str, items: tuple[KeyDelta, ...]) -> None:
    if not items:
        return
    out(f"\n{head}")
    rows = ((d.key, d.provider, d.owner, f"{d.days:.0f}", d.exposure, d.where[:80]) for d in items[:ROWS])
    table(("KEY", "KIND", "OWNER", "DAYS", "EXPOSURE", "WHERE"), rows)
    if len(items) > ROWS:
        out(f"and {len(items) - ROWS:,} more: --format json has all")


def _groups(head: str, groups: dict[str, Figures]) -> None:
    if not groups:
        return
    out()
    rows = sorted(groups.items(), key=lambda x: (-x[1].live, x[0]))[:ROWS]
    table(
        (head, "LIVE", "NEW", "DEAD", "REVIVED", "TOO LONG", "MEAN DAYS", "P90 DAYS"),
        (
            (n, str(f.live), str(f.new), str(f.died), str(f.revived), str(f.breaches), _days(f.revoke_mean_days),
             _days(f.revoke_p90_days))
            for n, f in rows
        ),
    )  # fmt: skip


def _days(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
