"""Second looks that a run still owes: keys that it saw dead and that nobody looked at again yet.

A run on one machine takes them itself as it goes. They are owed where it was cut off in between, and in a fleet, where
the leader orders them.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from verifier.confirm import Doubter
from verifier.model import Dead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lapse.commands.setup import Setup
    from lapse.ledger import Ledger, Run
    from verifier.ports import Due

SPARE = 0.5
"""Seconds more than needed before a second look: machines' clocks differ a little."""


class Owed(NamedTuple):
    """A key that is to be looked at again, not before `ready`."""

    item: Due
    ready: datetime


def owed(setup: Setup, ledger: Ledger, run: Run, kinds: Iterable[str]) -> dict[str, list[Owed]]:
    """Return the second looks owed to these kinds, by vendor, the earliest first.

    None where so many died at a vendor that it looks like an outage, nor for kinds whose deaths take longer to believe
    than a run waits.
    """
    patience, now = setup.terms().patience, datetime.now(UTC)
    wait = timedelta(seconds=patience.confirm_after + SPARE)
    doubter: Doubter | None = None
    found: dict[str, list[Owed]] = defaultdict(list)
    for kind in kinds:
        spec, vendor = setup.catalogue.get(kind), setup.catalogue.vendor(kind)
        if ((spec and spec.confirm_after) or 0.0) > patience.confirm_after:
            continue
        for item in ledger.due(now + wait, provider=kind, since=run):
            if not isinstance(item.last, Dead) or item.last.confirmed or item.dead_since is None:
                continue
            if doubter is None:
                doubter = Doubter(patience, ledger.fallen(now - patience.apart), ledger.lived(run))
            if not doubter.braked(vendor):
                found[vendor].append(Owed(item, item.dead_since + wait))
    return {vendor: sorted(items, key=lambda o: o.ready) for vendor, items in found.items()}
