"""Words that people read, whoever says them."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """Return `1 key`, `2 keys`, `1,000 keys`."""
    return f"{number:,} {noun_of(number, noun)}"


def noun_of(number: int, noun: str) -> str:
    """Return `key` for one, `keys` for any other number: where the number stands by itself."""
    return noun if number == 1 else f"{noun}s"
