"""Where text goes: data to stdout, everything said to people to stderr. Terminal control in scanner text is blunted."""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from typing import TYPE_CHECKING

from verifier.words import noun_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def out(text: str = "") -> None:
    """Write a line of data to stdout."""
    sys.stdout.write(text + "\n")


def raw(data: bytes) -> None:
    """Write a line of bytes to stdout and flush it: what is printed is on record already."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def say(text: str, *, quiet: bool = False) -> None:
    """Write a line for people to stderr."""
    if not quiet:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def safe(text: str | None) -> str:
    """Return hostile text fit for a terminal: no control characters, no direction changes."""
    return "".join(
        "�" if c in _BIDI or (unicodedata.category(c) == "Cc" and c != "\t") else c for c in text or ""
    ).replace("\t", " ")


def colour() -> bool:
    """Whether stdout is a terminal that wants colour."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print an aligned table: rich on a terminal, plain columns elsewhere."""
    listed = [tuple(safe(cell) for cell in row) for row in rows]
    if not listed:
        return
    if colour():
        from rich.console import Console  # noqa: PLC0415  # slow to import, terminals only
        from rich.table import Table  # noqa: PLC0415  # slow to import
        from rich.text import Text  # noqa: PLC0415  # slow to import

        drawn = Table(*heads, box=None, pad_edge=False, header_style="bold")
        for row in listed:
            drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        Console().print(drawn)
        return
    widths = [max(len(h), *(len(r[i]) for r in listed)) for i, h in enumerate(heads)]
    for row in (tuple(heads), *listed):
        out("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


STYLES = {
    "live": "bold red",
    "dead": "green",
    "undecided": "yellow",
    "live (restricted)": "red",
    "dead (unconfirmed)": "cyan",
}


class Progress:
    """One line on stderr, redrawn on a terminal, every ten seconds elsewhere: counts, rate, time left."""

    def __init__(self, total: int | None, *, quiet: bool) -> None:
        """`total` is how many keys are expected, `None` when nobody knows."""
        self._total, self._quiet = total, quiet
        self._start = self._drawn = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self.live = self.dead = self.undecided = 0

    def step(self, word: str) -> None:
        """Count one verdict and redraw if it is time."""
        setattr(self, word, getattr(self, word) + 1)
        now = time.monotonic()
        if not self._quiet and now - self._drawn >= (0.1 if self._terminal else 10.0):
            self._drawn = now
            self._draw(now)

    def line(self, now: float) -> str:
        """Return the line as it stands at `now` (monotonic seconds)."""
        done = self.live + self.dead + self.undecided
        rate = done / max(now - self._start, 1e-6)
        of = f"/{self._total}" if self._total else ""
        left = f", {_span((self._total - done) / rate)} left" if self._total and rate and self._total > done else ""
        noun = noun_of(self._total or done, "key")
        return f"{done}{of} {noun}, {rate:.0f}/s{left}: {self.live} live, {self.dead} dead, {self.undecided} undecided"

    def _draw(self, now: float) -> None:
        text = self.line(now)
        sys.stderr.write(f"\r\x1b[2K{text}" if self._terminal else text + "\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Say something without tearing the line."""
        if not self._quiet:
            sys.stderr.write(("\r\x1b[2K" if self._terminal else "") + text + "\n")
            sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._terminal and not self._quiet:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _span(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02}m" if hours else f"{m}m{s:02}s" if m else f"{s}s"
