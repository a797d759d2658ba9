"""Several processes at once, and one that is killed in the middle of its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from ledger_making import KEY, ingest, judged, live, made, name_of, set_key

from lapse.ledger import Told, open_ledger

WORKER = Path(__file__).with_name("ledger_worker.py")
ROOT = WORKER.parents[2]


def worker(path: Path | str, what: str, first: int = 0, count: int = 10_000) -> subprocess.Popen[str]:
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(WORKER.parent)))}
    words = [sys.executable, str(WORKER), str(path), what, str(first), str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "locked" not in errors
    return out.split()


@pytest.mark.parametrize("wanted", [7, 40])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(address: str, wanted: int) -> None:
    with made(address) as ledger:
        ingest(ledger, [(key, 0) for key in range(50)])
        head = ledger.head()
    process = worker(address, "record")
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(wanted)]
    process.kill()
    acknowledged += [int(line) for line in process.stdout.read().split() if line.isdigit()]
    process.communicate()
    assert process.returncode == -9
    with open_ledger(address, KEY) as ledger:
        checked = ledger.check(head)
        assert checked.ok, checked.problems
        told = sum(isinstance(line, Told) for key in range(50) for line in ledger.story(name_of(key)))
        assert told in {len(acknowledged), len(acknowledged) + 1}, "at most the one that was committed, not yet printed"
        ledger.record([judged(1, live(), 10_001)])
        assert ledger.check(head).ok


def test_a_reader_killed_in_the_middle_hinders_nobody(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(key, 0) for key in range(50)])
        process = worker(tmp_path / "ledger.db", "look")
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.communicate()
        ledger.record([judged(1, live())])
        assert ledger.purge([name_of(2)]).flushed


def test_writers_and_readers_work_side_by_side(address: str) -> None:
    with made(address) as ledger:
        ingest(ledger, [(key, 0) for key in range(50)])
        crew = [worker(address, what, first, 12) for what, first in (("record", 0), ("ingest", 100), ("look", 0))]
        assert [len(finish(process)) for process in crew] == [12, 12, 12]
        status = ledger.status()
        assert (status.keys, status.live + status.dead_unconfirmed, status.findings) == (60, 12, 50 + 12 * 10)
        checked = ledger.check()
        assert checked.ok, checked.problems


def test_processes_that_make_the_ledger_together_make_one(address: str) -> None:
    set_key()
    crew = [worker(address, "ingest", first, 2) for first in (0, 10, 20)]
    assert [len(finish(process)) for process in crew] == [2, 2, 2]
    with open_ledger(address, KEY) as ledger:
        assert (ledger.status().keys, ledger.status().findings) == (10, 60)
        assert ledger.check().ok
        assert ledger._db.rows("SELECT count(*) FROM events WHERE kind='made'") == [(1,)]


def test_threads_share_one_ledger(address: str) -> None:
    with made(address) as ledger:
        ingest(ledger, [(key, 0) for key in range(20)])
        troubles: list[BaseException] = []

        def work(first: int) -> None:
            try:
                for number in range(first, first + 10):
                    ledger.record([judged(number, live(), number)])
                    ledger.status()
            except BaseException as error:  # noqa: BLE001  # told below
                troubles.append(error)

        threads = [Thread(target=work, args=(first,)) for first in (0, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not troubles
        assert ledger.status().live == 20
        assert ledger.check().ok
