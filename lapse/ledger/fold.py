"""What a verdict changes in what is known. Pure: `record` applies it, `check` applies it again to all of history."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from lapse.ledger.model import Schedule, Turn
from verifier.model import Dead, Doubt, Live, Undecided, Verdict

_MICROSECOND = timedelta(microseconds=1)
_MOST_DOUBLINGS = 16


class Knowledge(Struct, frozen=True):
    """The folded columns of `states`, in the table's order. Times in microseconds."""

    verdict: str | None = None
    why: str | None = None
    at: int | None = None
    streak: int = 0
    due: int = 0
    last: int | None = None
    known: str | None = None
    known_id: int | None = None
    confirmed: int = 0
    restricted: int = 0
    privilege: str | None = None
    first_live: int | None = None
    last_live: int | None = None
    dead_since: int | None = None
    confirmed_at: int | None = None


class Facts(Struct, frozen=True):
    """What the fold needs of one verdict, whether it comes from a provider or back out of the `verdicts` table."""

    id: int
    at: int
    verdict: str
    why: str | None
    confirmed: int
    restricted: int
    privilege: str | None
    due: int


def fold(old: Knowledge, new: Facts) -> Knowledge:
    """Return what is known after `new`.

    Live: ends any row of deaths. Dead: begins one, or goes on with it if nothing came between; once confirmed it stays
    confirmed until a Live. Undecided: shown as the latest, and takes nothing back of what was known.
    """
    streak = old.streak + 1 if old.verdict == new.verdict else 1
    seen = replace(old, verdict=new.verdict, why=new.why, at=new.at, streak=streak, due=new.due, last=new.id)
    if new.verdict == "undecided":
        return seen
    if new.verdict == "live":
        return replace(
            seen,
            known="live",
            known_id=new.id,
            confirmed=0,
            restricted=new.restricted,
            privilege=new.privilege,
            first_live=new.at if old.first_live is None else old.first_live,
            last_live=new.at,
            dead_since=None,
            confirmed_at=None,
        )
    proven = old.known == "dead" and old.confirmed
    return replace(
        seen,
        known="dead",
        known_id=new.id,
        confirmed=1 if new.confirmed or proven else 0,
        restricted=0,
        dead_since=old.dead_since if old.verdict == "dead" or proven else new.at,
        confirmed_at=old.confirmed_at if proven else new.at if new.confirmed else None,
    )


def turn(old: Knowledge, verdict: str) -> Turn | None:
    """Return what `verdict` turns, given what was known before."""
    match old.known, verdict:
        case None, "live":
            return Turn.FOUND_LIVE
        case None, "dead":
            return Turn.FOUND_DEAD
        case "live", "dead":
            return Turn.DIED
        case "dead", "live":
            return Turn.REVIVED
        case _:
            return None


def wait(schedule: Schedule, old: Knowledge, verdict: Verdict) -> int:
    """Return how long, in microseconds, until the next verdict on this key is wanted.

    Live keys are always due. A first Dead is due after `confirm_after`, further unconfirmed ones hours apart; proven
    deaths days apart. Undecided backs off, doubling, never sooner than the provider asked for.
    """
    match verdict:
        case Live():
            return 0
        case Dead(confirmed=confirmed):
            before = old.streak if old.verdict == "dead" else 0
            if confirmed or (old.known == "dead" and old.confirmed):
                pause = schedule.confirmed_again[0 if old.confirmed_at is None else -1]
            elif not before:
                pause = schedule.confirm_after
            else:
                pause = schedule.unconfirmed_again[min(before, len(schedule.unconfirmed_again)) - 1]
        case Undecided(why=why, retry_after=retry_after):
            pause = max(_doubt(schedule, old, why), retry_after or timedelta(0))
        case _:
            assert_never(verdict)
    return pause // _MICROSECOND


def _doubt(schedule: Schedule, old: Knowledge, why: Doubt) -> timedelta:
    match why:
        case Doubt.THROTTLED | Doubt.UNREACHABLE | Doubt.BLOCKED | Doubt.AMBIGUOUS:
            before = old.streak if old.verdict == "undecided" else 0
            doubled: int = 1 << min(before, _MOST_DOUBLINGS)
            return min(schedule.retry_first * doubled, schedule.retry_most)
        case Doubt.UNSUPPORTED | Doubt.INCOMPLETE:
            return schedule.hopeless
        case Doubt.REFUSED:
            return schedule.refused
        case _:
            assert_never(why)
