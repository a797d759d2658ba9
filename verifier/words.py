"""Words that people read, whoever says them."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """Return `1 key`, `2 keys`, `1,000 keys`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
