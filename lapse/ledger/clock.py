"""Times in the ledger: microseconds since 1970, UTC, as integers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def stamp(moment: datetime) -> int:
    """Return `moment` in microseconds since 1970. A time without a zone is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def moment(stamp: int) -> datetime:
    """Return the time, in UTC, of a stamp."""
    return _EPOCH + timedelta(microseconds=stamp)


def moment_or_none(stamp: int | None) -> datetime | None:
    """Return the time of a stamp, None for none."""
    return None if stamp is None else moment(stamp)


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)
