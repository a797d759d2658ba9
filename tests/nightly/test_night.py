"""Whole nights against the simulator: what is asked, what is told, what is left over."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import pytest
from rows import row, sendgrid

from lapse.exits import Exit, Stop

if TYPE_CHECKING:
    from night import Folder

    from lapse.sandbox.saas import Saas


def test_a_night_reads_asks_and_tells_what_changed(folder: Folder, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report(row(n) for n in range(3))
    first = folder.night(Exit.LIVE)
    assert (first["keys"], first["new_keys"], first["asked"]) == (3, 3, 3)
    assert first["calls"] == {"sendgrid": 5}, "one a key, and one more for each that was refused"
    assert [d["key"][:9] for d in first["diff"]["new"]] == ["sendgrid-"]

    second = folder.night(Exit.LIVE)
    assert (second["unchanged_reports"], second["asked"]) == (1, 1), "only the live key is asked about again"
    assert (second["diff"]["total"]["new"], second["diff"]["total"]["live"]) == (0, 1)

    saas.add("sendgrid", sendgrid(1), "dead")
    third = folder.night(Exit.OK)
    assert [d["confirmed"] for d in third["diff"]["died"]] == [True]
    assert third["diff"]["total"]["revoke_mean_days"] is not None
