"""The smallest unit of rotation, the four ways it can end, and what it is handed.

`intent → check → do → record`: whoever runs a step writes down the intent, asks `check` whether the world already shows
the effect, and only then does it. `do` must be safe to repeat after `check` said no.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct

from verifier.model import Credential


class Effect(StrEnum):
    """What a step does to the world. `adds` and `changes` can be undone; `destroys` cannot, and needs an approval."""

    READS = "reads"
    ADDS = "adds"
    CHANGES = "changes"
    DESTROYS = "destroys"


Output: TypeAlias = Mapping[str, str]
"""References only (key ids, versions, times): an output goes into the record and into the engine's tables."""


class Done(Struct, frozen=True, tag="done"):
    """It happened, or had already happened."""

    note: str = ""
    output: Output = {}


class Failed(Struct, frozen=True, tag="failed"):
    """It did not happen, and the world is as before. `retry_after` is set when trying again may help."""

    reason: str
    hint: str = ""
    retry_after: timedelta | None = None


class Unsure(Struct, frozen=True, tag="unsure"):
    """It may or may not have happened: `check` must be asked before trying again."""

    reason: str


class Waiting(Struct, frozen=True, tag="waiting"):
    """It goes on when a person or a clock says so."""

    on: Literal["approval", "time", "person"]
    until: datetime | None = None
    instructions: str = ""


Outcome: TypeAlias = Done | Failed | Unsure | Waiting


class Context(Struct, frozen=True):
    """What a step is given: the leaked credential, the run, and what earlier steps put out (by step name).

    `intent_at` is when this step was first intended; anything of ours in the world is not older than that.
    `marker` names this run at the provider (a display name, a tag), where the provider has room for one.
    """

    run: str
    old: Credential
    outputs: Mapping[str, Output]
    intent_at: datetime
    marker: str

    def output(self, step: str, name: str) -> str:
        """Return a reference that an earlier step put out; a missing one is a `KeyError` naming the step."""
        try:
            return self.outputs[step][name]
        except KeyError:
            raise KeyError(f"step {step} put out no {name}") from None


class Step(Struct, frozen=True):
    """A named action with its check, its undo and the rights it needs.

    `check` returns `Done` when the world already shows the effect, `None` when it does not, and `Failed` or `Unsure`
    when going on would be wrong. `undo` brings back what was before, and is itself safe to repeat.
    """

    name: str
    title: str
    effect: Effect
    do: Callable[[Context], Outcome]
    check: Callable[[Context], Outcome | None]
    undo: Callable[[Context], Outcome] | None = None
    permissions: tuple[str, ...] = ()
