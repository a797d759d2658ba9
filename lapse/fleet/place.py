"""Where the fleet meets: one PostgreSQL, the queue of a ledger's nights in it, and the role of its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.exits import Exit, Stop
from lapse.rotation import Desk
from playbooks.seat import NoSeatError, seated

if TYPE_CHECKING:
    from lapse.commands.setup import Setup
    from lapse.ledger import Ledger
    from playbooks.place import Place


def meeting(setup: Setup, ledger: Ledger) -> Place:
    """Return where this ledger's fleet meets; a `Stop` where that is no PostgreSQL or the ledger keeps no secrets."""
    place = Desk(setup, ledger).place
    if place.file is not None:
        said = (
            "a fleet needs PostgreSQL: put a reference to its URL into [fleet] url (env:LAPSE_FLEET_URL); "
            "on one machine `lapse nightly` needs no worker"
        )
        raise Stop(said, Exit.USAGE)
    if not ledger.keeps_secrets:
        said = (
            "a fleet needs a sealing key (`lapse ledger init`): the keys' secrets reach the workers by the ledger alone"
        )
        raise Stop(said, Exit.USAGE)
    return place


def nights(place: Place) -> str:
    """Return the name of the queue of a ledger's nights, which is also the role of its workers."""
    return f"nights-{place.ledger}"


def at_work(place: Place) -> int:
    """Count the workers that are alive. A `Stop` where the database cannot be reached or used."""
    try:
        return seated(place.url, nights(place))
    except NoSeatError as e:
        raise Stop(f"fleet.url: {e}") from None
