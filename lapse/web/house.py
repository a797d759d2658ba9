"""What every page stands on: the ledger, its figures kept fresh in the background, who may come in.

A page never waits for a pass over the whole ledger: it shows the figures of a moment ago, and says of when they are.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path  # noqa: TC003  # the dataclass reads it
from typing import TYPE_CHECKING, Generic, TypeVar

from lapse.config import data_dir
from lapse.diff import DiffOut, diff
from lapse.figures import Figures, figures
from lapse.metrics import exposition
from lapse.names import Names, names
from lapse.owners import Owners
from lapse.rotation import Desk
from lapse.web.access import Limit, Links, Sessions, Tokens
from lapse.web.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from lapse.commands.setup import Setup
    from lapse.ledger import Checked, Ledger
    from lapse.web.settings import ServeConfig

T = TypeVar("T")
FRESH = 5.0
"""Seconds for which figures are fresh, whatever happens to the ledger."""

STALE = 600.0
"""Seconds after which the slow figures (owners, diff) are made anew, if the ledger has changed."""

WEEK = timedelta(days=7)


class Kept(Generic[T]):
    """A value that costs time: the first asker may wait a little, all others get what there is.

    Made anew in the background when `mark` changed and it is older than `fresh` seconds, and than ten times what making
    it took: a large ledger that changes all the time is not counted all the time.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, make: Callable[[], T], mark: Callable[[], object], fresh: float
    ) -> None:
        """Take who makes it and what tells that it is out of date."""
        self._pool, self._make, self._mark, self._fresh = pool, make, mark, fresh
        self._lock = threading.Lock()
        self._first = threading.Event()
        self._value: T | None = None
        self._made_of: object = None
        self._at, self._pause = 0.0, fresh
        self._busy = self._slow = False
        self.trouble = ""

    def get(self, wait: float = 0.0) -> T | None:
        """Return what there is, None while there is nothing yet; the first asker waits up to so many seconds."""
        mark = self._mark()
        with self._lock:
            old = not self._first.is_set() or (mark != self._made_of and time.monotonic() - self._at > self._pause)
            if old and not self._busy:
                self._busy = True
                self._pool.submit(self._renew, mark)
        if wait and not self._slow:
            self._slow = not self._first.wait(wait)
        return self._value

    def _renew(self, mark: object) -> None:
        began = time.monotonic()
        try:
            self._value, self.trouble = self._make(), ""
            self._made_of = mark
        except Exception as e:  # noqa: BLE001  # a page says so; the console lives on
            self.trouble = f"could not be counted ({type(e).__name__})"
        finally:
            with self._lock:
                self._at, self._busy = time.monotonic(), False
                self._pause = max(self._fresh, 10 * (self._at - began))
            self._first.set()


@dataclass
class House:
    """The console's parts, made once."""

    setup: Setup
    ledger: Ledger
    serve: ServeConfig
    user: str
    links: Links = field(default_factory=Links)
    limit: Limit = field(default_factory=Limit)
    config: Path | None = None

    def __post_init__(self) -> None:
        """Open a second way into the ledger, for reading."""
        self.db = self.ledger.reader()
        self._pool = ThreadPoolExecutor(2, "figures")
        self.checked: tuple[datetime, Checked] | None = None
        self.checking = False

    @cached_property
    def sessions(self) -> Sessions:
        """Who is logged in."""
        return Sessions(self.serve.session.seconds, self.serve.idle.seconds)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens of programs."""
        return Tokens(data_dir() / f"tokens-{self.ledger.name}.json")

    @cached_property
    def desk(self) -> Desk:
        """The rotations. The console is never their executor: it may be killed at any moment."""
        return Desk(self.setup, self.ledger)

    @cached_property
    def executor(self) -> Executor:
        """Who sees to it that somebody goes on with rotations."""
        return Executor(self.desk, self.config, ours=self.serve.execute)

    @cached_property
    def figures(self) -> Kept[Figures]:
        """The figures of the whole ledger."""
        return Kept(self._pool, lambda: figures(self.ledger, self.db), self.seq, FRESH)

    @cached_property
    def names(self) -> Kept[Names]:
        """The names that a search looks through."""
        return Kept(self._pool, lambda: names(self.db), self.seq, FRESH)

    @cached_property
    def metrics(self) -> Kept[bytes]:
        """The figures as Prometheus reads them: counted anew at most every `FRESH` seconds, whoever asks how often."""
        return Kept(self._pool, lambda: exposition(self.ledger), self.seq, FRESH)

    @cached_property
    def changes(self) -> Kept[DiffOut]:
        """What changed within a week, and whose it is: one look at every live key."""
        return Kept(self._pool, self._diff, self.seq, STALE)

    def _diff(self) -> DiffOut:
        now = datetime.now(UTC)
        config = self.setup.config
        return diff(self.ledger, self.setup.catalogue, Owners.of(config), config, (now - WEEK, now))

    def seq(self) -> int:
        """Return the number of the newest event."""
        with self.db.read() as connection:
            return int(connection.exec_driver_sql("SELECT seq FROM head").scalar() or 0)

    def check(self) -> None:
        """Check the whole chain in the background."""
        if not self.checking:
            self.checking = True
            self._pool.submit(self._check)

    def _check(self) -> None:
        try:
            self.checked = (datetime.now(UTC), self.ledger.check())
        finally:
            self.checking = False

    def close(self) -> None:
        """Let go of everything but the ledger."""
        self.executor.let_go()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.db.close()
