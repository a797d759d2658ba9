"""Seats: who is alive, who is refused, who must end."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from fleet_folder import ROOT, Fleet, until
from pooling import pooling

from lapse.exits import Exit
from playbooks import seat as module
from playbooks.seat import LEASE, LOST, NoSeatError, Seat, libpq, seated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from counting import Counting
    from servers import Server

ROLE = "rotations-of-nobody"


@pytest.fixture
def sitting(database: str) -> Iterator[list[Seat]]:
    """Seats that are left at the end."""
    made = [Seat(database, [ROLE]) for _ in range(2)]
    for one in made:
        one.take()
    yield made
    for one in made:
        one.leave()


def test_who_sits_is_counted_and_who_left_is_not(database: str, sitting: list[Seat]) -> None:
    first, second = sitting
    assert first.executor != second.executor
    assert (seated(database, ROLE), seated(database, "another role")) == (2, 0)
    first.leave()
    until(lambda: seated(database, ROLE) == 1, "the first seat to be free")


def test_a_silent_session_is_ended_by_the_server(database: str) -> None:
    with module.connect(database) as session:
        row = session.execute("SELECT current_setting('idle_session_timeout')").fetchone()
        assert row == (f"{LEASE:.0f}s",)
    assert module.BEAT < module.FENCE < LEASE - module.BEAT


SITTER = """
import sys, time
from playbooks import seat
it = seat.Seat(sys.argv[1], ["sitter"])
it.take()
print(it.executor, flush=True)
if sys.argv[2] == "late":
    it._over.set()        # neither beat nor watchdog: only the clock of whoever works is left
    it._over.clear()
    it._seen = time.monotonic() - seat.FENCE - 0.1
    it.clock()
    print("went on", flush=True)
time.sleep(60)
"""


def sitter(url: str, how: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SITTER, url, how]
    return subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_whoever_is_out_of_touch_ends_before_it_does_anything(database: str) -> None:
    out, err = sitter(database, "late").communicate(timeout=60)
    assert "went on" not in out
    assert "was frozen or cut off" in err


def test_whoever_loses_its_session_ends(database: str) -> None:
    process = sitter(database, "quiet")
    assert process.stdout is not None
    process.stdout.readline()
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lapse seat'")
    _, err = process.communicate(timeout=60)
    assert process.returncode == LOST
    assert "lost its session" in err


def test_a_pool_in_transaction_mode_is_refused(postgresql: Server, database: str) -> None:
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("DO $$ BEGIN CREATE ROLE trusted LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    refused = pytest.raises(NoSeatError, match=r"pool in transaction mode .* session mode")
    with pooling(postgresql.host, postgresql.port, "trusted", name) as url, refused:
        Seat(url).take()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("made-up-superuser-password", "password authentication failed"),
        ("/fleet_", "does not exist"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_its_password(database: str, broken: str, said: str) -> None:
    with pytest.raises(NoSeatError, match=said) as caught:
        Seat(database.replace(broken, broken[:-1] + "x")).take()
    assert "password@" not in str(caught.value)
    assert "made-up" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("postgresql+psycopg://u@h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://u@h/d?schema=lapse", "postgresql://u@h/d"),
        ("postgresql://u@h/d?sslmode=require&schema=x&a=b", "postgresql://u@h/d?sslmode=require&a=b"),
    ],
)
def test_an_address_is_read_as_the_library_reads_it(url: str, read: str) -> None:
    assert libpq(url) == read


def test_a_worker_without_postgresql_says_so(tmp_path: Path, provider: Counting) -> None:
    with Fleet(tmp_path, provider, "", shared=False) as alone:
        text = alone.config.read_text()
        alone.config.write_text(text.replace('url = "env:LAPSE_TEST_FLEET"', 'url = ""'))
        process = alone.start("worker")
        _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.USAGE
    assert "a fleet needs PostgreSQL" in err
    assert "Traceback" not in err


def test_a_night_that_nobody_can_lead_says_so(tmp_path: Path, provider: Counting, database: str) -> None:
    with Fleet(tmp_path, provider, database) as fleet:
        fleet.report([])
        process = fleet.start("nightly")
        _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.BROKE
    assert "start `lapse worker` first" in err


def test_the_clock_is_the_clock(database: str, sitting: list[Seat]) -> None:
    before = time.monotonic()
    assert before <= sitting[0].clock() <= time.monotonic()
