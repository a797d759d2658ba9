"""How fast one provider is asked: a small bucket, a ceiling on what is under way, and manners after a 429."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol, TypeAlias

from msgspec import Struct

Clock: TypeAlias = Callable[[], float]
Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_RECOVERY = 0.1
"""Share of the nominal rate that comes back per second without a 429."""
_FLOOR = 1 / 64
_FIRST_PAUSE = 1.0
_MOST_STRIKES = 16


class HasLimits(Protocol):
    """What a spec says of a provider's manners."""

    @property
    def rate(self) -> float:
        """Requests per second, on average."""
        ...

    @property
    def burst(self) -> int:
        """Requests that may leave at once after a rest."""
        ...

    @property
    def concurrency(self) -> int:
        """Requests that may be under way."""
        ...


class Limits(Struct, frozen=True):
    """The manners of a kind that says nothing of its own."""

    rate: float = 5.0
    burst: int = 5
    concurrency: int = 8


class Limiter:
    """One provider's turnstile. In any second at most `rate + burst` pass.

    After a 429 the rate halves and everybody waits as long as the provider asked, but never much longer than
    `patience` seconds on its first word: a 429 may be about one key only. If the next one is refused too, the pause
    doubles. Whoever would have to wait longer than `patience` is told so instead of being kept.
    """

    __slots__ = (
        "_clock",
        "_due",
        "_gate",
        "_limits",
        "_patience",
        "_paused_until",
        "_raised",
        "_room",
        "_slack",
        "_sleep",
        "_strikes",
        "_struck",
        "rate",
    )

    def __init__(
        self, limits: HasLimits, *, patience: float = 20.0, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        """Start with a full bucket."""
        self._limits = limits
        self._clock, self._sleep, self._patience = clock, sleep, patience
        self._room = asyncio.Semaphore(limits.concurrency)
        self._gate = asyncio.Lock()
        self.rate = limits.rate
        self._slack = (limits.burst - 1) / limits.rate
        self._paused_until = self._raised = 0.0
        self._due = -inf
        self._strikes = 0
        self._struck = -inf

    async def enter(self) -> float:
        """Wait for a turn; 0.0 when it came (then `leave` must follow), else the seconds that a turn is away."""
        await self._room.acquire()
        try:
            away = await self.turn()
        except BaseException:
            self._room.release()
            raise
        if away:
            self._room.release()
        return away

    def leave(self) -> None:
        """Make room for the next."""
        self._room.release()

    async def turn(self) -> float:
        """Wait for the bucket alone; the answer is that of `enter`."""
        if not self._gate.locked() and self._take() <= 0:
            return 0.0
        async with self._gate:
            while (wait := self._take()) > 0:
                if (away := self._paused_until - self._clock()) > self._patience:
                    return away
                await self._sleep(wait)
        return 0.0

    def _take(self) -> float:
        """Take a turn and return 0.0, or return the seconds until there may be one."""
        now = self._clock()
        if now < self._paused_until:
            return self._paused_until - now
        if self.rate < self._limits.rate:
            self._recover(now)
        slot = max(self._due, now - self._slack)
        if slot > now:
            return slot - now
        self._due = slot + 1 / self.rate
        return 0.0

    def _recover(self, now: float) -> None:
        nominal = self._limits.rate
        self.rate = min(nominal, self.rate + nominal * _RECOVERY * max(0.0, now - self._raised))
        self._raised = max(now, self._raised)
        self._slack = (self._limits.burst - 1) / nominal if self.rate >= nominal else 0.0

    def drain(self) -> None:
        """Empty the bucket: somebody else may have been asking here until this moment, and used it up."""
        self._due = max(self._due, self._clock() + 1 / self.rate)

    def welcome(self, started: float) -> None:
        """Note an answer that was no 429, to a request that left at `started`."""
        if self._strikes and started > self._struck:
            self._strikes = 0

    def throttled(self, started: float, retry_after: float | None) -> None:
        """Note a 429 to a request that left at `started`. Those that left before the last one count once."""
        if started <= self._struck:
            return
        now = self._clock()
        longest = self._patience * 2 ** max(0, self._strikes)
        wanted = _FIRST_PAUSE * 2**self._strikes if retry_after is None else retry_after
        self._paused_until = max(self._paused_until, now + min(wanted, longest))
        self._strikes = min(self._strikes + 1, _MOST_STRIKES)
        self._struck = now
        self.rate = max(self.rate / 2, self._limits.rate * _FLOOR)
        self._slack = 0.0
        self._raised = self._paused_until
