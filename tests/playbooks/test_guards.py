"""Each guard of the durable engine, pinned: take one away and its test fails."""

from __future__ import annotations

import base64
import pickle
import sqlite3
import stat
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from dbos import DBOS, DBOSClient
from dbos import _serialization as stock
from ledger_made import credential_in, made
from rotor import QUICK
from stage import planned
from world import Small

from playbooks import durable
from playbooks.durable import Broken, Busy, Remote, Worker, at_work
from playbooks.engine import Engine
from playbooks.journal import End
from playbooks.place import Json, PickleRefusedError, Place, config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.ledger import Ledger

SOON = timedelta(seconds=8)


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Ledger, Small, Place]]:
    small = Small(tmp_path / "world.db")
    small.set(lag_new=0.05, lag_dead=0.05, propagation=0)
    small.begin()
    with made(tmp_path) as ledger:
        credential_in(ledger)
        yield ledger, small, Place(f"sqlite:///{tmp_path}/engine.db", tmp_path / "lock", ledger.name)


def test_pickles_are_refused_whoever_reads_them() -> None:
    bomb = base64.b64encode(pickle.dumps(Bomb())).decode()
    for reader in (stock.DBOSDefaultSerializer, stock.DefaultSerializer()):
        with pytest.raises(PickleRefusedError):
            reader.deserialize(bomb)
        with pytest.raises(PickleRefusedError):
            reader.serialize({})
    with pytest.raises(PickleRefusedError):
        stock.deserialize_value(bomb, "py_pickle", Json())
    with pytest.raises(PickleRefusedError):
        stock.deserialize_args(bomb, "py_pickle", Json())
    with pytest.raises(TypeError):
        Json().serialize(object())


def test_a_pickle_planted_in_the_tables_does_not_run(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    engine = Engine(ledger.rotations, small.world())
    with Worker(engine, place, poll=0.02):
        pass
    assert place.file is not None
    raw = sqlite3.connect(place.file)
    bomb = base64.b64encode(pickle.dumps(Bomb())).decode()
    raw.execute(
        "INSERT INTO workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, serialization,"
        " application_version, executor_id, created_at, updated_at, priority, recovery_attempts, application_name)"
        " VALUES ('planted','PENDING','phase',?, 'x', 'py_pickle', ?, ?, 1, 1, 0, 0, 'lapse')",
        (place.queue, durable.VERSION, place.executor),
    )
    raw.execute("INSERT INTO workflow_input (workflow_uuid, inputs) VALUES ('planted', ?)", (bomb,))
    raw.commit()
    raw.close()
    with Worker(engine, place, poll=0.02) as worker:
        turn = engine.start("r-1", planned(small, QUICK), "bob")
        engine.approve("r-1", "ann", ("delete",))
        worker.go("r-1", engine.state("r-1").turn)
        assert worker.follow("r-1", SOON).end is End.FINISHED
        assert turn


def test_the_configuration_has_every_guard(tmp_path: Path) -> None:
    file = config(Place(f"sqlite:///{tmp_path}/e.db", tmp_path / "lock", "abc"))
    far = config(Place("postgresql://u@h/db", tmp_path / "lock", "abc"))
    for made_config in (file, far):
        assert isinstance(made_config["serializer"], Json)
        assert made_config["executor_id"] == "lapse-abc"
        assert made_config["application_version"] == "lapse-rotations-1"
        assert made_config["sys_db_idle_transaction_timeout_sec"] == 5.0
    assert far["system_database_url"] == "postgresql://u@h/db"
    engine = file["system_database_engine"]
    assert engine is not None
    with engine.connect() as connection:
        ask = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()  # noqa: E731  # four uses of one line
        assert (ask("journal_mode"), ask("busy_timeout"), ask("synchronous"), ask("foreign_keys")) == (
            "wal",
            30000,
            2,
            1,
        )
        assert connection.connection.driver_connection is not None
        assert connection.connection.driver_connection.isolation_level == "IMMEDIATE"
    engine.dispose()
    assert stat.S_IMODE((tmp_path / "e.db").stat().st_mode) == 0o600


def test_one_executor_a_ledger(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    engine = Engine(ledger.rotations, small.world())
    assert not at_work(place)
    with Worker(engine, place, poll=0.02):
        assert at_work(place)
        with pytest.raises(Busy), Worker(engine, place):
            pass
    assert not at_work(place)


def test_a_second_one_can_stand_by(scene: tuple[Ledger, Small, Place]) -> None:
    _, _, place = scene
    held = durable._locked(place.lock, wait=False)
    done = threading.Event()

    def stand_by() -> None:
        durable.os.close(durable._locked(place.lock, wait=True))
        done.set()

    waiting = threading.Thread(target=stand_by)
    waiting.start()
    assert not done.wait(0.1)
    durable.os.close(held)
    assert done.wait(5)
    waiting.join()


def test_the_queue_is_bounded_and_a_run_is_taken_by_one_phase_at_a_time(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    with Worker(Engine(ledger.rotations, small.world()), place, concurrency=3, poll=0.02):
        queue = DBOS.retrieve_queue(place.queue)
        assert queue is not None
        assert (queue.worker_concurrency, queue.partition_concurrency) == (3, 1)


def test_recovery_never_runs_out(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    engine = Engine(ledger.rotations, small.world())
    with Worker(engine, place, poll=0.02) as worker:
        engine.start("r-1", planned(small, QUICK), "bob")
        worker.go("r-1", engine.state("r-1").turn)
        worker.follow("r-1", SOON)
    assert place.file is not None
    raw = sqlite3.connect(place.file)
    raw.execute("UPDATE workflow_status SET status='PENDING', recovery_attempts=5000")
    raw.commit()
    with Worker(engine, place, poll=0.02) as worker:
        engine.approve("r-1", "ann", ("delete",))
        worker.go("r-1", engine.state("r-1").turn)
        assert worker.follow("r-1", SOON).end is End.FINISHED
    assert {s for (s,) in raw.execute("SELECT status FROM workflow_status")} == {"SUCCESS"}
    raw.close()


def test_a_waiting_run_holds_no_slot(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    engine = Engine(ledger.rotations, small.world())
    soak = QUICK.replace('soak = "50ms"', 'soak = "1h"')
    with Worker(engine, place, concurrency=1, poll=0.02) as worker:
        engine.start("r-1", planned(small, soak), "bob")
        worker.go("r-1", engine.state("r-1").turn)
        state = worker.follow("r-1", SOON)
        assert state.last.data["on"] == "time"
        left = datetime.fromisoformat(state.last.data["until"]) - datetime.now(UTC)
        assert left > timedelta(minutes=50)
        for _ in range(100):
            busy = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
            if not busy:
                break
            threading.Event().wait(0.05)
        assert busy == []
        delayed = DBOS.list_workflows(status="DELAYED", load_input=False, load_output=False)
        assert [w.workflow_id for w in delayed] == [place.phase("r-1", state.turn)]


def test_a_client_makes_no_engine_of_its_own(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/none.db", tmp_path / "lock", "abc")
    with pytest.raises(Broken, match="lapse resume"):
        Remote(place)
    assert not (tmp_path / "none.db").exists()


def test_a_client_hands_turns_over_without_launching(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    engine = Engine(ledger.rotations, small.world())
    with Worker(engine, place, poll=0.02) as worker:
        engine.start("r-1", planned(small, QUICK), "bob")
        engine.approve("r-1", "ann", ("delete",))
        with Remote(place) as remote:
            remote.go("r-1", engine.state("r-1").turn)
            remote.go("r-1", engine.state("r-1").turn)
            assert isinstance(remote._client, DBOSClient)
        assert worker.follow("r-1", SOON).end is End.FINISHED


def test_the_engine_keeps_no_exceptions_text(scene: tuple[Ledger, Small, Place]) -> None:
    ledger, small, place = scene
    engine = Engine(ledger.rotations, small.world())

    def explode(run: str, name: str) -> Any:
        raise RuntimeError("planted-new-in-an-exception")

    engine.take = explode  # type: ignore[method-assign]  # broken on purpose, and put back
    with Worker(engine, place, poll=0.02) as worker:
        engine.start("r-1", planned(small, QUICK), "bob")
        durable_options = durable._options
        durable._options = lambda name: {**durable_options(name), "max_attempts": 1, "retries_allowed": False}  # type: ignore[assignment]  # broken on purpose, and put back
        try:
            worker.go("r-1", engine.state("r-1").turn)
            with pytest.raises(Broken, match="lapse resume"):
                worker.follow("r-1", SOON)
        finally:
            durable._options = durable_options
    assert place.file is not None
    blob = b"".join(p.read_bytes() for p in place.file.parent.glob("engine.db*"))
    assert b"planted-new" not in blob
    assert b"RuntimeError" in blob
