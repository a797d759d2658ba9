"""Evidence is bounded in time and never a blocker: what cannot be read is said, not raised."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rotators.interface import Fact, ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable

EVIDENCE_SECONDS = 10.0
EVENTS = 50


class Gathering:
    """Collects facts until `seconds` have passed; each reading may fail on its own."""

    def __init__(self, seconds: float = EVIDENCE_SECONDS) -> None:
        """Start the clock."""
        self._end = time.monotonic() + seconds
        self.facts: list[Fact] = []

    def add(self, about: str, read: Callable[[], str]) -> None:
        """Read one fact. An empty text is left out; trouble and lack of time become the text."""
        if time.monotonic() >= self._end:
            self.facts.append(Fact(about, "not read: the time for evidence was up"))
            return
        try:
            text = read()
        except ProviderError as e:
            text = f"not known: {e}"
        if text:
            self.facts.append(Fact(about, text))


def listed(items: list[str], most: int = 12) -> str:
    """Join items with commas and say how many were left out."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
