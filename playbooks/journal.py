"""The memory of a run: an append-only row of entries, and what they add up to.

The engine writes down what it intends before it acts and what came of it afterwards; nothing else decides where a run
stands. Whoever keeps the entries (the ledger; a list in a test) implements `Journal`. Entries hold references and
sentences, never a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from playbooks.plan import Action, Plan, Planned
from rotators.step import Effect

if TYPE_CHECKING:
    from verifier.model import CredentialID


class What(StrEnum):
    """What an entry says."""

    STARTED = "started"
    CLAIMED = "claimed"
    INTENT = "intent"
    NOTE = "note"
    DONE = "done"
    FAILED = "failed"
    UNSURE = "unsure"
    WAITING = "waiting"
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"
    RESUMED = "resumed"
    UNDO = "undo"
    UNDO_INTENT = "undo-intent"
    UNDONE = "undone"
    ENDED = "ended"


TURNS = frozenset({What.STARTED, What.WAITING, What.APPROVED, What.RESUMED, What.UNDO})
"""Entries that give the run a new turn: only the newest turn's phase may act, so that no two go on side by side."""


class End(StrEnum):
    """How a run ended: at its goal, taken back, or without having changed anything."""

    FINISHED = "finished"
    UNDONE = "undone"
    FAILED = "failed"


class Entry(Struct, frozen=True):
    """One line of a run's journal. `seq` counts up through the whole journal; `step` is empty for the run itself."""

    seq: int
    at: datetime
    step: str
    what: What
    text: str = ""
    data: Mapping[str, str] = {}


class Taken(Exception):  # noqa: N818  # reads as what happened
    """Another open run holds this credential or resource; `run` names it."""

    def __init__(self, run: str, what: str) -> None:
        """Name the run and what it holds."""
        super().__init__(f"the rotation {run} holds {what}: go on with it (`lapse resume {run}`) or take it back first")
        self.run = run


class Unknown(LookupError):  # noqa: N818  # reads as what it is
    """No run has this id."""


class Journal(Protocol):
    """Where entries are kept. Every call is on disk when it returns; all are safe between processes."""

    def start(self, run: str, credential: CredentialID, text: str, data: Mapping[str, str]) -> int:
        """Append `started`, unless the credential has an open run (`Taken`); return the entry's number."""
        ...

    def claim(self, run: str, resource: str) -> None:
        """Append `claimed` for `resource` (once), unless another open run holds it (`Taken`)."""
        ...

    def append(self, run: str, step: str, what: What, text: str = "", data: Mapping[str, str] | None = None) -> int:
        """Append an entry to a run and return its number; an unknown run is `Unknown`."""
        ...

    def entries(self, run: str) -> Sequence[Entry]:
        """Return a run's entries, oldest first; an unknown run is `Unknown`."""
        ...

    def open_runs(self) -> Sequence[str]:
        """Return the ids of runs that have not ended, oldest first."""
        ...


class Status(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"
    ENDED = "ended"


class RunState(Struct, frozen=True):
    """What a run's entries add up to. Made by `state_of`; times are the journal's."""

    run: str
    plan: Plan
    by: str
    started: datetime
    entries: tuple[Entry, ...]
    status: Status
    turn: int
    undoing: bool
    end: End | None
    last: Entry

    def done(self, step: str) -> Entry | None:
        """Return the entry that says `step` is done."""
        return next((e for e in self.entries if e.step == step and e.what is What.DONE), None)

    def intent(self, step: str) -> Entry | None:
        """Return the first intent of `step`."""
        return next((e for e in self.entries if e.step == step and e.what is What.INTENT), None)

    def notes(self, step: str) -> tuple[Entry, ...]:
        """Return what `step` noted."""
        return tuple(e for e in self.entries if e.step == step and e.what is What.NOTE)

    def outputs(self) -> dict[str, Mapping[str, str]]:
        """Return what the finished steps put out, by step name."""
        return {e.step: e.data for e in self.entries if e.what is What.DONE}

    def tries(self, step: str) -> int:
        """Count how often `step` was unsure since somebody last resumed the run."""
        count = 0
        for e in self.entries:
            if e.what is What.RESUMED:
                count = 0
            elif e.step == step and e.what is What.UNSURE:
                count += 1
        return count

    def touched(self, step: str) -> bool:
        """Say whether `step` may have changed the world: begun, and not known to have failed since and left nothing."""
        said = [e.what for e in self.entries if e.step == step]
        outcomes = [w for w in said if w in {What.INTENT, What.DONE, What.UNSURE, What.FAILED}]
        return bool(outcomes) and (outcomes[-1] is not What.FAILED or bool(self.left(step)))

    def left(self, step: str) -> frozenset[str]:
        """Return what `step` noted that it leaves in the world (`leaves`), and did not note as gone since (`gone`)."""
        found: set[str] = set()
        for e in self.notes(step):
            found.discard(e.data.get("gone", ""))
            found |= {e.data["leaves"]} if "leaves" in e.data else set()
        return frozenset(found)

    def undone(self, step: str) -> bool:
        """Say whether `step` was taken back."""
        return any(e.step == step and e.what is What.UNDONE for e in self.entries)

    def approvers(self, step: str, now: datetime) -> dict[str, datetime]:
        """Return who approves of `step` at `now`, each with the time at which that ends."""
        held: dict[str, tuple[str, datetime]] = {}
        for e in self.entries:
            if e.step != step or e.what not in {What.APPROVED, What.WITHDRAWN}:
                continue
            name = e.data["who"]
            if e.what is What.APPROVED:
                held[same(name)] = (name, datetime.fromisoformat(e.data["until"]))
            else:
                held.pop(same(name), None)
        return {name: until for name, until in held.values() if until > now}

    def lacking(self, planned: Planned, now: datetime) -> int:
        """Return how many approvals `planned` still needs. Where two are needed, the starter's does not count."""
        names = {same(n) for n in self.approvers(planned.name, now)}
        if planned.approvals > 1:
            names.discard(same(self.by))
        return max(0, planned.approvals - len(names))

    def changed(self) -> bool:
        """Say whether anything was, or may have been, changed in the world and not taken back."""
        return any(
            s.effect is not Effect.READS and self.touched(s.name) and not self.undone(s.name) for s in self.plan.steps
        )

    def destroyed(self) -> str | None:
        """Return the name of the first step that ended the old key, or may have. A spare key that made room is none."""
        ends = (s for s in self.plan.steps if s.effect is Effect.DESTROYS and s.action is not Action.ROOM)
        return next((s.name for s in ends if self.touched(s.name)), None)


def same(name: str) -> str:
    """Return a person's name as it is compared: without case and outer blanks."""
    return " ".join(name.split()).casefold()


def state_of(run: str, entries: Iterable[Entry]) -> RunState:
    """Fold a run's entries."""
    row = tuple(entries)
    if not row or row[0].what is not What.STARTED:
        raise Unknown(f"there is no rotation {run}")
    first = row[0]
    plan = msgspec.json.decode(first.data["plan"], type=Plan)
    end: End | None = None
    turn, undoing = first.seq, False
    for e in row:  # one pass: a run that waits for a day has thousands of entries
        if e.what in TURNS:
            turn, undoing = e.seq, undoing or e.what is What.UNDO
        elif e.what is What.ENDED and end is None:
            end = End(e.data["how"])
    return RunState(
        run=run,
        plan=plan,
        by=first.data["by"],
        started=first.at,
        entries=row,
        status=_status(row, end),
        turn=turn,
        undoing=undoing,
        end=end,
        last=row[-1],
    )


def _status(row: Sequence[Entry], end: End | None) -> Status:
    if end is not None:
        return Status.ENDED
    for e in reversed(row):
        match e.what:
            case What.WAITING:
                return Status.WAITING
            case What.FAILED:
                return Status.STOPPED
            case What.APPROVED | What.WITHDRAWN | What.NOTE | What.CLAIMED:
                continue
            case _:
                return Status.RUNNING
    return Status.RUNNING
