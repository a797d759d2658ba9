"""Rotations that are not over: what each waits for, who can help, and for how long it has stood so."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from playbooks.journal import Status, What, same

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from playbooks.journal import Entry, RunState

Stands = Literal["needs you", "needs somebody", "stopped", "part-way", "waits for time", "ended"]


class RotationOut(Struct, frozen=True):
    """One rotation. `stands` says whose turn it is: yours, another person's, the clock's, or nobody's until resumed.

    `step` and `says` are of the newest word on it, `since` when it began to stand so, `age_seconds` how long ago that
    was. `lacking` approvals are still needed, not from those in `not_by`; `until` is when a wait for time is over.
    `next` is the command that goes on. `outcome` is set once it has ended.
    """

    run: str
    key: str
    playbook: str
    mode: str
    by: str
    started: datetime
    stands: Stands
    step: str
    says: str
    since: datetime
    age_seconds: int
    lacking: int = 0
    not_by: tuple[str, ...] = ()
    until: datetime | None = None
    next: str = ""
    outcome: str | None = None


class _Rank(IntEnum):
    YOU, SOMEBODY, STOPPED, PART_WAY, TIME, ENDED = range(6)


_RANKS: dict[Stands, _Rank] = {
    "needs you": _Rank.YOU,
    "needs somebody": _Rank.SOMEBODY,
    "stopped": _Rank.STOPPED,
    "part-way": _Rank.PART_WAY,
    "waits for time": _Rank.TIME,
    "ended": _Rank.ENDED,
}
_ASIDE = frozenset({What.NOTE, What.CLAIMED, What.WITHDRAWN, What.APPROVED})
"""Entries that change nothing in how a run stands."""

_AGAIN = frozenset({*_ASIDE, What.WAITING, What.RESUMED, What.UNSURE, What.INTENT})
"""Entries across which the same wait goes on."""


def waiting(states: Iterable[RunState], me: str, now: datetime) -> list[RotationOut]:
    """Return rotations as they stand for `me`, those that need a person first, the longest wait first."""
    found = [rotation(state, me, now) for state in states]
    return sorted(found, key=lambda r: (_RANKS[r.stands], r.since))


def rotation(state: RunState, me: str, now: datetime) -> RotationOut:
    """Return how one rotation stands for `me`; an empty name is nobody's."""
    last = next((e for e in reversed(state.entries) if e.what not in _ASIDE), state.last)
    stands, lacking, not_by = _whose(state, last, me, now)
    since = _since(state, last)
    until = last.data.get("until") if last.what is What.WAITING else None
    return RotationOut(
        run=state.run,
        key=state.plan.short,
        playbook=state.plan.playbook,
        mode=state.plan.mode.value,
        by=state.by,
        started=state.started,
        stands=stands,
        step=last.step,
        says=_says(last),
        since=since,
        age_seconds=max(0, int((now - since).total_seconds())),
        lacking=lacking,
        not_by=not_by,
        until=datetime.fromisoformat(until) if until else None,
        next=_next(state, stands, lacking),
        outcome=state.end.value if state.end else None,
    )


def _whose(state: RunState, last: Entry, me: str, now: datetime) -> tuple[Stands, int, tuple[str, ...]]:
    """Return how it stands, how many approvals it lacks, and from whom none counts."""
    match state.status:
        case Status.ENDED:
            return "ended", 0, ()
        case Status.STOPPED:
            return "stopped", 0, ()
        case Status.WAITING if last.what is What.WAITING and last.data.get("on") == "time":
            return "waits for time", 0, ()
        case Status.WAITING if last.what is What.WAITING and last.data.get("on") == "approval":
            planned = state.plan.step(last.step)
            lacking = state.lacking(planned, now)
            if not lacking:
                return "part-way", 0, ()
            barred = sorted(state.approvers(planned.name, now))
            if planned.approvals > 1 and same(state.by) not in map(same, barred):
                barred.append(state.by)
            mine = bool(me) and same(me) not in map(same, barred)
            return ("needs you" if mine else "needs somebody"), lacking, tuple(barred)
        case Status.WAITING:
            return ("needs you" if me and same(me) == same(state.by) else "needs somebody"), 0, ()
        case _:
            return "part-way", 0, ()


def _since(state: RunState, last: Entry) -> datetime:
    """Return when it began to stand so: a wait that is renewed is one wait."""
    since = last.at
    if last.what is not What.WAITING:
        return since
    for e in reversed(state.entries):
        if e.what not in _AGAIN or e.step not in {last.step, ""}:
            break
        if e.what is What.WAITING and e.data.get("on") == last.data.get("on"):
            since = e.at
    return since


def _says(last: Entry) -> str:
    hint = last.data.get("hint", "")
    return f"{last.text}: {hint}" if hint else last.text


def _next(state: RunState, stands: Stands, lacking: int) -> str:
    match stands:
        case "ended":
            return ""
        case "needs you" | "needs somebody" if lacking:
            return f"lapse approve {state.run}"
        case _:
            return f"lapse resume {state.run}"


def age(span: timedelta | int) -> str:
    """Return a span (or seconds) in its largest unit."""
    seconds = span if isinstance(span, int) else int(span.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
