"""The story of one key as a single line of time: findings, verdicts, and the steps of its rotations among them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, assert_never

from msgspec import Struct

from lapse.evidence.fold import moments_of
from lapse.ledger import EventKind, Gone, Noted, Seen, Told
from lapse.output import jsonv1
from lapse.output.rotations import RotationOut  # noqa: TC001  # msgspec reads it
from playbooks.journal import End, What
from playbooks.plan import Slot
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lapse.evidence.model import Exposure
    from lapse.ledger import Key, Story
    from playbooks.journal import Entry, RunState

Stage = Literal["leaked", "seen", "live", "contained", "minted", "deployed", "disabled", "deleted", "dead"]


class StageOut(Struct, frozen=True):
    """One stage on a key's way from the leak to its death, and when it was reached."""

    stage: Stage
    at: datetime


class StoryLine(Struct, frozen=True):
    """One line of the story. `kind` is what it comes from; `run` and `step` name a rotation's step, where it is one."""

    at: datetime
    kind: Literal["leaked", "seen", "gone", "verdict", "rotation", "note"]
    text: str
    run: str = ""
    step: str = ""


class KeyShown(jsonv1.KeyReport, frozen=True, kw_only=True):
    """`show --format json`: a key with its places, its way, its story and its rotations."""

    way: tuple[StageOut, ...] = ()
    story: tuple[StoryLine, ...] = ()
    rotations: tuple[RotationOut, ...] = ()


_LOUD = frozenset(What) - {What.NOTE, What.CLAIMED, What.INTENT, What.UNDO_INTENT, What.UNSURE}
"""Entries that are told: what was intended is told by what came of it."""


def way(key: Key, exposure: Exposure, story: Sequence[Story], states: Sequence[RunState]) -> tuple[StageOut, ...]:
    """Return the stages that a key has reached, in order of time; a rotation that was taken back counts for nothing."""
    stages: list[tuple[Stage, datetime | None]] = [
        ("leaked", exposure.earliest),
        ("seen", key.first_seen),
        ("live", key.first_live),
    ]
    state = next((s for s in reversed(states) if s.end not in {End.UNDONE, End.FAILED}), None)
    if state is not None:
        m = moments_of(state, key, exposure, story)
        urgent = any(s.slot is Slot.CONTAIN for s in state.plan.steps)
        stages += [
            ("contained", m.contained if urgent else None),
            ("minted", m.stored),
            ("deployed", m.deployed),
            ("disabled", None if urgent else m.disabled),
            ("deleted", m.deleted),
        ]
    stages.append(("dead", key.confirmed_at if key.confirmed else None))
    reached = [StageOut(stage, at) for stage, at in stages if at is not None]
    return tuple(sorted(reached, key=lambda s: s.at))


def storyline(exposure: Exposure, story: Iterable[Story], states: Iterable[RunState]) -> tuple[StoryLine, ...]:
    """Return everything that happened to a key, in order of time."""
    lines = [line for event in story if (line := _line(event)) is not None]
    if exposure.earliest is not None:
        lines.append(
            StoryLine(exposure.earliest, "leaked", f"in {exposure.earliest_place}, the earliest date on record")
        )
    for state in states:
        lines += _told(state)
    return tuple(sorted(lines, key=lambda line: line.at))


def _line(event: Story) -> StoryLine | None:
    match event:
        case Seen():
            text = f"{event.scanner} saw it in {plural(event.places, 'new place')} ({event.file})"
            return StoryLine(event.at, "seen", text)
        case Gone():
            return StoryLine(event.at, "gone", gone(event))
        case Told():
            said = jsonv1.word(event.verdict)
            return StoryLine(event.at, "verdict", f"{said}{f' ({event.turn})' if event.turn else ''}")
        case Noted() if event.kind == EventKind.ROTATION:
            return None  # its run's own journal tells it, with more
        case Noted():
            return StoryLine(event.at, "note", noted(event))
        case _:
            assert_never(event)


def gone(event: Gone) -> str:
    """Return in words that places are gone."""
    it = "it" if event.places == 1 else "them"
    return f"gone from {plural(event.places, 'place')}: a complete scan no longer had {it}"


def noted(event: Noted) -> str:
    """Return a note in words: what, by whom, and its text; where it has none, what it says besides."""
    if not event.text:
        return f"{event.kind} {' '.join(event.detail.values())}".rstrip()
    who = f" by {event.detail['who']}" if "who" in event.detail else ""
    return f"{event.kind}{who}: {event.text}"


def _told(state: RunState) -> list[StoryLine]:
    lines: list[StoryLine] = []
    said: tuple[str, str] = ("", "")
    for e in state.entries:
        if e.what not in _LOUD or (e.what is What.WAITING and (e.data.get("on") == "time" or said == (e.step, e.text))):
            continue
        said = (e.step, e.text) if e.what is What.WAITING else ("", "")
        lines.append(StoryLine(e.at, "rotation", _words(state, e), state.run, e.step))
    if state.last.what is What.INTENT:
        e = state.last
        lines.append(StoryLine(e.at, "rotation", f"{state.run} {e.step} under way: {e.text}", state.run, e.step))
    return lines


def _words(state: RunState, e: Entry) -> str:
    about = " ".join(p for p in (state.run, e.step, e.what.value) if p)
    return f"{about}: {e.text}" if e.text else about
