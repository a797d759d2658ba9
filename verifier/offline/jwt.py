"""Reads JSON Web Tokens without verifying them: the holder's own copy says when it ends."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

SKEW = timedelta(minutes=5)
"""A token is called expired only this long after its `exp`: clocks differ."""

EARLIEST = 1_000_000_000
"""Times before September 2001 are no dates of ours (a counter, a zero): ignored."""

MAX_TOKEN = 64 << 10
_SEGMENTS = 3


def _segment(text: str) -> dict[str, Any] | None:
    try:
        data = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def header(token: str) -> dict[str, Any] | None:
    """Return the header of a signed token, `None` if the text is no JSON Web Token."""
    segments = token.split(".", _SEGMENTS) if len(token) <= MAX_TOKEN else []
    return _segment(segments[0]) if len(segments) == _SEGMENTS else None


def payload(token: str) -> dict[str, Any] | None:
    """Return the claims of a signed token, `None` if the text is no JSON Web Token."""
    segments = token.split(".", _SEGMENTS) if len(token) <= MAX_TOKEN else []
    if len(segments) != _SEGMENTS or _segment(segments[0]) is None:
        return None
    return _segment(segments[1])


def expiry(token: str) -> datetime | None:
    """Return when the token ends by its own `exp`, `None` if it has none or none that makes sense."""
    exp = (payload(token) or {}).get("exp")
    if isinstance(exp, bool) or not isinstance(exp, int | float) or not exp >= EARLIEST:
        return None
    try:
        return datetime.fromtimestamp(exp, UTC)
    except (OverflowError, ValueError, OSError):
        return None
