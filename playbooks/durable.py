"""The durable executor: DBOS goes on with a run after any crash. Every guard here has a test in `tests/playbooks`.

One generic workflow, `phase`, takes the steps of one turn of a run; the plan it follows is the snapshot in the journal.
A wait ends the workflow: the next turn is a new one, enqueued with a delay or by whoever approves, so that no waiting
run holds a slot. What goes into the engine's tables is run ids, step names and times.

On SQLite one process at a time is the executor, by a lock file. On PostgreSQL any number are, each in a seat of its own
(`playbooks.seat`): a run is taken by one of them at a time, and another goes on when that one dies.

Import this module inside commands only: it brings DBOS and SQLAlchemy.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, assert_never

from dbos import DBOS, DBOSClient, Queue, SetEnqueueOptions, SetWorkflowID
from sqlalchemy.exc import SQLAlchemyError

from playbooks.journal import Status, What
from playbooks.place import IDLE_SECONDS, VERSION, Json, Place, config, sqlite_engine
from playbooks.seat import NoSeatError, Seat, seated
from rotators.step import Done, Failed, Outcome, Unsure, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from dbos import EnqueueOptions, StepOptions

    from playbooks.engine import Engine
    from playbooks.journal import RunState

RECOVERIES = 1_000_000
"""How often DBOS may recover one phase: a phase is short, so the number only has to be out of reach."""

NAP = 1.0
"""A wait of up to so many seconds is slept out by the next phase: DBOS looks for delayed work once a second only."""

CONCURRENCY = 4
"""Phases that one process takes at a time."""

_DEAD = frozenset({"ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})


class Busy(Exception):  # noqa: N818  # reads as what it is
    """Another process is the executor of this ledger."""


class Broken(Exception):  # noqa: N818  # reads as what it is
    """The executor gave a phase up; the run stands where its journal says."""


@dataclass(frozen=True)
class Duty:
    """More work for an executor: a workflow of this name, and the queue that it is taken from.

    One workflow of a partition runs at a time, in all executors together. `call` takes and returns plain JSON; it is
    called again, from the start, when the executor dies under it.
    """

    name: str
    queue: str
    concurrency: int
    call: Callable[[str], dict[str, Any]]


class Worker:
    """An executor of one ledger, in this process: a context manager.

    On SQLite a second process gets `Busy`; `wait` lets it stand by until the first one ends. On PostgreSQL it sits down
    beside the first (`Broken` where the database cannot be shared). Everything that is pending or due is gone on with,
    whatever run it belongs to.
    """

    def __init__(
        self,
        engine: Engine,
        place: Place,
        *,
        concurrency: int = CONCURRENCY,
        poll: float = 0.2,
        wait: bool = False,
        duties: Sequence[Duty] = (),
        seat: Seat | None = None,
    ) -> None:
        """Take the engine and where its tables are; `poll` is how often, in seconds, the queues are looked at.

        `seat` is one that the caller has made, not taken, on PostgreSQL only.
        """
        self._engine, self._place = engine, place
        self._concurrency, self._poll, self._wait = concurrency, poll, wait
        self._duties = tuple(duties)
        self._lock: int | None = None
        self._stopping, self._taking, self._steps = False, 0, threading.Condition()
        self._seat = seat or (Seat(place.url, [place.queue]) if place.file is None else None)

    def __enter__(self) -> Self:
        """Take the lock or a seat, then launch: what the process before left, or a dead one, is recovered."""
        if self._seat is None:
            self._lock = _locked(self._place.lock, wait=self._wait)
        else:
            try:
                self._seat.take()
            except NoSeatError as e:
                raise Broken(str(e)) from None
        try:
            self._launch()
        except BaseException:
            self._close(0)
            raise
        return self

    def _launch(self) -> None:
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        DBOS(config=config(self._place, self._seat.executor if self._seat else ""))

        def phase(run: str, turn: int) -> dict[str, str]:  # DBOS takes functions, no methods
            return self._take_turn(run, turn)

        self._phase = DBOS.workflow(name="phase", max_recovery_attempts=RECOVERIES)(phase)
        for duty in self._duties:
            DBOS.workflow(name=duty.name, max_recovery_attempts=RECOVERIES)(_named(duty))
        DBOS.listen_queues([self._place.queue, *(d.queue for d in self._duties)])
        DBOS.launch()
        self._queue = self._registered(self._place.queue, self._concurrency)
        for duty in self._duties:
            self._registered(duty.queue, duty.concurrency)
        if self._seat is not None:
            self._seat.guard()

    def _registered(self, name: str, concurrency: int) -> Queue:
        return DBOS.register_queue(
            name,
            worker_concurrency=concurrency,
            partition_concurrency=1,
            polling_interval_sec=self._poll,
            on_conflict="always_update",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let phases under way finish for a moment, then stop; what is cut off is recovered by the next process."""
        self._close(10 if error is None and not self._idle() else 0)

    @staticmethod
    def _idle() -> bool:
        """Say whether no phase is under way, after a few looks: DBOS itself takes a whole second to find that out."""
        mine: dict[str, Any] = {
            "status": "PENDING",
            "executor_id": DBOS.executor_id,
            "load_input": False,
            "load_output": False,
        }
        with contextlib.suppress(Exception):
            for _ in range(10):
                if not DBOS.list_workflows(**mine, limit=1):
                    return True
                time.sleep(0.02)
        return False

    def stop(self, patience: float) -> None:
        """Finish the steps under way, begin no other, and leave the rest to whoever is seated; then end the process.

        For a process that exits by `os._exit`: phases that are not done stay with their threads, and never come back.
        """
        self._stopping = True
        with self._steps:
            self._steps.wait_for(lambda: not self._taking, patience)
        if self._seat is not None:
            self._seat.leave()

    def _close(self, patience: int) -> None:
        try:
            with contextlib.suppress(Exception):
                DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=patience)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            if self._seat is not None:
                self._seat.leave()

    # ── the one workflow ───────────────────────────────────────────────────────────────────────────────

    def _take_turn(self, run: str, turn: int) -> dict[str, str]:
        """Take the steps of one turn until one is not done; a wait for time enqueues the next turn."""
        names = DBOS.run_step(_options("agenda"), self._agenda, run, turn)
        said: dict[str, str] = {"is": "stale"}
        for name in names:
            said = DBOS.run_step(_options(f"take {name}"), self._take, run, name)
            if said["is"] != "done":
                break
        if "until" in said:
            self.go(run, int(said["turn"]), datetime.fromisoformat(said["until"]))
        return said

    def _agenda(self, run: str, turn: int) -> list[str]:
        self._alive()
        with _plain():
            _nap(self._engine.state(run))
            return self._engine.agenda(run, turn)

    def _alive(self) -> None:
        """Go no further in a process that was frozen or cut off, or that ends: the run is in other hands."""
        if self._seat is not None:
            self._seat.clock()
        if self._stopping:
            threading.Event().wait()

    def _take(self, run: str, name: str) -> dict[str, str]:
        self._alive()
        with self._steps:
            self._taking += 1
        try:
            with _plain():
                outcome = self._engine.take(run, name)
                return _told(outcome, self._engine.state(run).turn)
        finally:
            with self._steps:
                self._taking -= 1
                self._steps.notify_all()

    def go(self, run: str, turn: int, at: datetime | None = None) -> None:
        """Enqueue a turn of a run, for now or for `at`. Doing so twice is doing it once."""
        wait = 0.0 if at is None else (at - datetime.now(UTC)).total_seconds()
        delay = None if wait <= NAP else wait
        with (
            SetWorkflowID(self._place.phase(run, turn)),
            SetEnqueueOptions(queue_partition_key=run, delay_seconds=delay),
        ):
            self._queue.enqueue(self._phase, run, turn)

    # ── waiting for it ─────────────────────────────────────────────────────────────────────────────────

    def follow(self, run: str, patience: timedelta) -> RunState:
        """Stay until the run ends, stops, or waits for a person or for longer than `patience`; return its state.

        A phase that the executor gave up is `Broken`.
        """
        while True:
            state = self._engine.state(run)
            if settled(state, patience):
                return state
            if self.gave_up(run, state.turn):
                raise Broken(f"{run}: the engine gave the phase up; `lapse resume {run}` goes on")
            time.sleep(min(0.1, self._poll))

    def gave_up(self, run: str, turn: int) -> bool:
        """Say whether the executor will not go on with this turn: it broke, or somebody cancelled it."""
        found = DBOS.get_workflow_status(self._place.phase(run, turn))
        return found is not None and found.status in _DEAD


class Remote:
    """Speaks to the executor of another process through its tables; launches nothing."""

    def __init__(self, place: Place) -> None:
        """Connect. A SQLite file that is not there is `Broken`: connecting would make an empty one."""
        self._place = place
        if place.file is not None and not place.file.exists():
            raise Broken(f"there is no engine at {place.file} yet; `lapse resume` starts one")
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        if place.file is not None:
            self._client = DBOSClient(system_database_engine=sqlite_engine(place.file), serializer=Json())
        else:
            self._client = DBOSClient(
                system_database_url=place.url,
                serializer=Json(),
                sys_db_idle_transaction_timeout_sec=IDLE_SECONDS,
                retry_connection_errors=False,
            )

    def __enter__(self) -> Self:
        """Return the connection itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._client.destroy()

    def go(self, run: str, turn: int) -> None:
        """Enqueue a turn of a run. Doing so twice is doing it once. No tables in the database yet is `Broken`."""
        told: EnqueueOptions = {
            "workflow_name": "phase",
            "queue_name": self._place.queue,
            "workflow_id": self._place.phase(run, turn),
            "app_version": VERSION,
            "queue_partition_key": run,
            "application_name": "lapse",
        }
        try:
            self._client.enqueue(told, run, turn)
        except SQLAlchemyError:
            raise Broken(f"the engine's database takes no work; `lapse resume {run}` goes on") from None


def settled(state: RunState, patience: timedelta) -> bool:
    """Say whether nothing will happen to a run by itself within `patience`."""
    match state.status:
        case Status.ENDED | Status.STOPPED:
            return True
        case Status.RUNNING:
            return False
        case Status.WAITING:
            waited = next(e for e in reversed(state.entries) if e.what is What.WAITING)
            now = datetime.now(UTC)
            if waited.data["on"] == "time":
                return datetime.fromisoformat(waited.data["until"]) - now > patience
            return waited.data["on"] == "person" or state.lacking(state.plan.step(waited.step), now) > 0
        case _:
            assert_never(state.status)


def _nap(state: RunState) -> None:
    waited = state.last
    if waited.what is What.WAITING and waited.data["on"] == "time":
        left = (datetime.fromisoformat(waited.data["until"]) - datetime.now(UTC)).total_seconds()
        time.sleep(max(0.0, min(NAP, left)))


def _options(name: str) -> StepOptions:
    """Return a step's options. The tries are for trouble with the journal: providers' trouble never raises."""
    return {"name": name, "retries_allowed": True, "interval_seconds": 0.5, "max_attempts": 6, "backoff_rate": 2.0}


class JournalError(Exception):
    """The journal could not be read or written. Named by type only: the engine keeps what is raised."""


@contextlib.contextmanager
def _plain() -> Any:  # noqa: ANN401  # a generator, as contextmanager wants it
    """Let no exception's text reach the engine's tables."""
    try:
        yield
    except Exception as e:  # noqa: BLE001  # whatever it is, only its type is told
        raise JournalError(type(e).__name__) from None


def _told(outcome: Outcome, turn: int) -> dict[str, str]:
    match outcome:
        case Done():
            return {"is": "done"}
        case Failed() | Unsure():
            return {"is": "stopped"}
        case Waiting(on="time", until=until) if until is not None:
            return {"is": "waiting", "until": until.isoformat(), "turn": str(turn)}
        case Waiting():
            return {"is": "waiting"}
        case _:
            assert_never(outcome)


def _named(duty: Duty) -> Callable[[str], dict[str, Any]]:
    """Return a duty's call as a function of its own: DBOS takes functions, no methods."""

    def call(order: str) -> dict[str, Any]:
        with _plain():
            return duty.call(order)

    call.__qualname__ = call.__name__ = duty.name
    return call


def at_work(place: Place) -> bool:
    """Say whether some process is an executor of this ledger now."""
    if place.file is None:
        try:
            return seated(place.url, place.queue) > 0
        except NoSeatError:
            return False
    try:
        os.close(_locked(place.lock, wait=False))
    except Busy:
        return True
    return False


def _locked(path: Path, *, wait: bool) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise Busy(f"another process goes on with the rotations of this ledger (lock {path})") from None
    return handle
