"""Who goes on with rotations while the console is up: a process beside it, never the console itself.

The process has a session of its own, so that neither Ctrl-C nor `kill -9` of the console reaches it; killed itself, it
is started again, and the journal says where each run stands. It leaves when nothing is left to do.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, assert_never

from lapse.config import data_dir
from lapse.exits import Exit, Stop
from lapse.output.console import safe, say
from playbooks.journal import Status, What

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lapse.rotation import Desk
    from playbooks.journal import RunState

LINGER = 15.0
"""Seconds for which the process stays when nothing moves: whoever approves one step often approves the next."""

NEAR = timedelta(seconds=60)
"""A wait that ends within this is waited out. A longer one ends the process; when it is due, it is started again."""

BUSY_TRIES = 10
_PAUSES = (5.0, 15.0, 60.0, 300.0)
_LOOK = 0.3


def moves(state: RunState, now: datetime) -> bool:
    """Say whether a run goes on without a person within `NEAR`."""
    match state.status:
        case Status.RUNNING:
            return True
        case Status.STOPPED | Status.ENDED:
            return False
        case Status.WAITING:
            waited = next(e for e in reversed(state.entries) if e.what is What.WAITING)
            if waited.data["on"] == "time":
                return datetime.fromisoformat(waited.data["until"]) - now <= NEAR
            return waited.data["on"] == "approval" and not state.lacking(state.plan.step(waited.step), now)
        case _:
            assert_never(state.status)


def due_at(state: RunState) -> datetime | None:
    """Return when a run's newest turn may begin, None for at once."""
    if state.last.what is What.WAITING and state.last.data["on"] == "time":
        return datetime.fromisoformat(state.last.data["until"])
    return None


class Executor:
    """The console's side: hands turns over, and starts the process when something moves and nobody is at work.

    With `ours` false another machine is the executor, and turns are only handed over.
    """

    def __init__(self, desk: Desk, config: Path | None, *, ours: bool) -> None:
        """Take the ledger's rotations and the configuration that the process is to read."""
        self._desk, self._config, self._ours = desk, config, ours
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._handed: set[tuple[str, int]] = set()
        self._began: tuple[tuple[str, int], ...] = ()
        self._next, self._tries = 0.0, 0
        self.trouble = ""

    @property
    def log(self) -> Path:
        """Where the process says why it could not start."""
        return data_dir() / f"executor-{self._desk.ledger.name}.log"

    def hand(self, run: str, turn: int) -> bool:
        """See to it that somebody goes on with this turn; False where nobody can be found to."""
        from playbooks.durable import at_work  # DBOS is slow to import

        with self._lock:
            if (not self._ours or at_work(self._desk.place)) and self._hand_over([(run, turn)]):
                return True
            if not self._ours:
                return False
            self._tries = 0
            return self._start(((run, turn),))

    def tend(self) -> None:
        """Look once whether something moves that nobody goes on with. Called every few seconds."""
        from playbooks.durable import at_work  # DBOS is slow to import

        log, engine, now = self._desk.ledger.rotations, self._desk.engine, datetime.now(UTC)
        with self._lock:
            self._look_after()
            moving = [s for s in map(engine.state, log.open_runs()) if moves(s, now)]
            if not moving or not self._ours:
                return
            turns = [(s.run, s.turn) for s in moving if (due_at(s) or now) <= now]
            if at_work(self._desk.place):
                self._hand_over(t for t in turns if t not in self._handed)
                return
            marks = tuple((s.run, s.last.seq) for s in moving)
            if marks != self._began:
                self._tries = 0
            if time.monotonic() >= self._next or not self._tries:
                self._start(marks)

    def _hand_over(self, turns: Iterable[tuple[str, int]]) -> bool:
        from playbooks.durable import Broken, Remote

        wanted = list(turns)
        if not wanted:
            return True
        try:
            with Remote(self._desk.place) as remote:
                for run, turn in wanted:
                    remote.go(run, turn)
        except Broken:
            return False
        self._handed.update(wanted)
        return True

    def _start(self, marks: tuple[tuple[str, int], ...]) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        self._began = marks
        self._next = time.monotonic() + _PAUSES[min(self._tries, len(_PAUSES) - 1)]
        self._tries += 1
        named = [] if self._config is None else [str(self._config)]
        # -P: whatever lies in the folder that the console was started in is no module of ours
        words = [sys.executable, "-P", "-m", "lapse.web.executor", *named]
        try:
            self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self.log.chmod(0o600)
                self._process = subprocess.Popen(  # noqa: S603  # our own words
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
                )
        except OSError as e:
            self.trouble = f"no process could be started ({e.strerror})"
            return False
        return True

    def let_go(self) -> None:
        """Leave the process to itself: it outlives the console."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.returncode = 0  # nobody is left to wait for it
            self._process = None

    def _look_after(self) -> None:
        """Keep what an ended process said, and let it go."""
        if self._process is None or (code := self._process.poll()) is None:
            return
        said = self.log.read_text("utf-8", "replace").strip().splitlines() if self.log.exists() else []
        self.trouble = "" if code == Exit.OK else (said[-1] if said else f"it ended with code {code}")
        self._process = None


def run(config: Path | None, linger: float = LINGER) -> Exit:
    """Be the executor until nothing moves for `linger` seconds. Beside another executor there is nothing to do."""
    from lapse.commands.setup import Setup
    from lapse.rotation import Desk
    from playbooks.durable import Busy, Worker

    setup = Setup.of(config)
    with setup.ledger() as ledger:
        desk = Desk(setup, ledger)
        for _ in range(BUSY_TRIES):  # somebody may only have looked whether the lock is free
            try:
                with Worker(desk.engine, desk.place) as worker:
                    _work(desk, worker, linger)
            except Busy:
                time.sleep(0.05)
            else:
                return Exit.OK
    say("another process goes on with the rotations of this ledger")
    return Exit.OK


def _work(desk: Desk, worker: Worker, linger: float) -> None:
    gone: set[tuple[str, int]] = set()
    left = time.monotonic() + linger
    while time.monotonic() < left:
        now = datetime.now(UTC)
        for name in desk.ledger.rotations.open_runs():
            state = desk.engine.state(name)
            if not moves(state, now) or worker.gave_up(name, state.turn):
                continue
            left = time.monotonic() + linger
            if (name, state.turn) not in gone:
                gone.add((name, state.turn))
                worker.go(name, state.turn, due_at(state))
        time.sleep(_LOOK)


def main() -> None:
    """Run as `python -m lapse.web.executor [CONFIG]`: what the console starts."""
    try:
        code = run(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except Stop as e:
        say(safe(str(e)))
        code = e.code
    except Exception as e:  # noqa: BLE001  # the log is shown on a page: a type, no text
        say(f"something broke ({type(e).__name__})")
        code = Exit.BROKE
    sys.exit(code)


if TYPE_CHECKING:
    from playbooks.durable import Worker

if __name__ == "__main__":
    main()
