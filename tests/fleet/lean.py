"""`lapse` for many workers on two cores: `python lean.py worker --config …`.

It keeps no process ready for takeovers, so that each of those takes a start of Python longer, and its seat may be
silent for LAPSE_TEST_LEASE seconds only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lapse.cli import main
from playbooks import seat

if TYPE_CHECKING:
    from collections.abc import Iterable

sit = seat.Seat.__init__


def lean(self: seat.Seat, url: str, roles: Iterable[str] = (), *, spare: bool = False) -> None:
    del spare
    sit(self, url, roles)


if __name__ == "__main__":
    seat.Seat.__init__ = lean  # type: ignore[method-assign]  # what `lapse worker` asks for is too much here
    if lease := float(os.environ.get("LAPSE_TEST_LEASE", "0")):
        seat.LEASE, seat.FENCE, seat.BEAT = lease, lease * 0.6, lease * 0.1
    main()
