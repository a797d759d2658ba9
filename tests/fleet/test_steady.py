"""While the ledger takes no answers, a worker asks for no more of them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from fleet_folder import Fleet, made, until

from lapse.commands import ingest
from lapse.commands.setup import Setup
from lapse.config import load
from lapse.fleet.chunk import Chunk, packed
from lapse.fleet.hands import Hands
from lapse.ledger import Select

if TYPE_CHECKING:
    from pathlib import Path

    from counting import Counting

KEYS = 240
STILL = 0.5
"""Seconds without a call, at 60 calls a second."""


def test_no_call_begins_while_the_ledger_is_away(tmp_path: Path, provider: Counting) -> None:
    with Fleet(tmp_path, provider, "", {"alpha": (60.0, 1, 4)}, shared=False) as fleet, fleet.inside():
        fleet.report(made("alpha", KEYS, 0))
        ingest.run(["reports/a.jsonl"], None, None, None, fleet.config, partial=False, json=True, quiet=True)
        with fleet.ledger() as ledger, closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
            run = ledger.begin_run("nightly")
            hands = Hands(Setup(load(fleet.config)), ledger)
            hands.start()
            order = packed(Chunk(run.id, run.started, "alpha", tuple(k.id for k in ledger.keys(Select()))))
            worker = threading.Thread(target=hands, args=(order,))
            worker.start()
            until(lambda: len(provider.asked) > 10, "calls")
            other.execute("BEGIN IMMEDIATE")  # nobody else writes from now on
            until(lambda: time.monotonic() - provider.asked[-1].at > STILL, "the end of the calls")
            asked = len(provider.asked)
            other.execute("ROLLBACK")
            worker.join(60)
            hands.stop(1.0)
            assert hands._door is not None  # which a worker leaves to the end of its process
            asyncio.run_coroutine_threadsafe(hands._door.__aexit__(None, None, None), hands._loop).result(10)
            assert ledger.status().live == KEYS
    assert asked < KEYS / 2, "it held back as soon as a commit took long"
    assert set(provider.often().values()) == {1}
