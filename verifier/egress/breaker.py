"""A circuit breaker: after a run of failures nobody is asked for a while, then one trial decides."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifier.egress.limiter import Clock

_THRESHOLD = 5
_SHORTEST = 5.0
_LONGEST = 300.0
_LEAST = 0.01


class Breaker:
    """One host's circuit. Closed lets all through; open none; after the cool-down one trial, whose end decides.

    The cool-down doubles from 5 s to 5 min with every failed trial.
    """

    __slots__ = ("_clock", "_cooldown", "_fails", "_open_until", "_trial")

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Start closed."""
        self._clock = clock
        self._fails = 0
        self._cooldown = _SHORTEST
        self._open_until = 0.0
        self._trial = False

    def blocked(self) -> float:
        """Return 0.0 for go ahead (then `failed` or `abandon` must follow), else the seconds left to wait."""
        if self._fails < _THRESHOLD:
            return 0.0
        left = self._open_until - self._clock()
        if left > 0:
            return max(left, _LEAST)
        if self._trial:
            return 1.0
        self._trial = True
        return 0.0

    def failed(self) -> None:
        """Note that the host could not be reached. Stragglers of the run that opened the circuit change nothing."""
        if self._fails < _THRESHOLD:
            self._fails += 1
            if self._fails == _THRESHOLD:
                self._open_until = self._clock() + self._cooldown
        elif self._trial:
            self._trial = False
            self._cooldown = min(self._cooldown * 2, _LONGEST)
            self._open_until = self._clock() + self._cooldown

    def abandon(self) -> None:
        """Note that a request ended without telling anything (cancelled, or refused before it left)."""
        self._trial = False
