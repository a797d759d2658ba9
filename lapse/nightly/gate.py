"""When a night ends early: at its deadline, on SIGTERM, and at each vendor's budget. What is left over stays due."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from verifier.ports import Due


class Gate:
    """Ends the feeds of a run. `cut_off` says afterwards whether anything due was left unasked; `passed` counts keys.

    After the gate closes nothing new is begun; what is under way has `grace` seconds to finish. `clock` is monotonic,
    in seconds, as is `until`.
    """

    def __init__(
        self,
        until: float | None = None,
        grace: float = 15.0,
        budget: int = 0,
        budgets: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the deadline, and how many keys may be asked about at one vendor (0: any number), by kind or vendor."""
        self._until, self._grace, self._clock = until, grace, clock
        self._budget, self._budgets = budget, dict(budgets or {})
        self._closed = False
        self._limit: asyncio.Timeout | None = None
        self.cut_off = False
        self._asked: Counter[str] = Counter()
        self.passed = 0

    @property
    def closed(self) -> bool:
        """Say whether the night is over."""
        return self._closed or (self._until is not None and self._clock() >= self._until)

    @property
    def left(self) -> float | None:
        """Return the seconds until the deadline; None where there is none."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def feed(self, kind: str, vendor: str, items: Iterable[Due]) -> Iterator[Due]:
        """Pass items on until the gate closes or the budget of the kind or the vendor is used up."""
        for item in items:
            if self.closed or self._spent(kind, vendor):
                self.cut_off = True
                return
            self.passed += 1
            for name in {kind, vendor}:
                self._asked[name] += 1
            yield item

    def _spent(self, kind: str, vendor: str) -> bool:
        own = self._budgets.get(kind)
        whole = self._budgets.get(vendor, self._budget)
        return (own is not None and self._asked[kind] >= own) or (whole > 0 and self._asked[vendor] >= whole)

    def close(self) -> None:
        """End the night now: begin nothing more, and cut what is still under way after the grace."""
        self._closed = True
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._grace)

    def arm(self, limit: asyncio.Timeout) -> None:
        """Take the time-out of the asking; close at the deadline and on SIGTERM."""
        self._limit = limit
        loop = asyncio.get_running_loop()
        if self._until is not None:
            loop.call_later(max(0.0, self._until - self._clock()), self.close)
        if threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGTERM, self.close)
        if self._closed:
            self.close()

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Close on SIGTERM, in a block without an event loop."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self.close())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def cut(self) -> None:
        """Note that something under way was cut."""
        self.cut_off = True
