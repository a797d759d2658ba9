"""Asking the providers: what `verify` and `nightly` share. Each answer is on record before anybody hears of it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, cast

from msgspec.structs import replace

from lapse.exits import Stop
from lapse.ledger import Canary, EventKind, LedgerError, Select, State
from lapse.ledger.intake import rare_collections
from lapse.output import jsonv1
from verifier.egress import Egress
from verifier.model import Dead, Doubt, Undecided
from verifier.offline import CANARY
from verifier.ports import Judged
from verifier.scope import Ownership
from verifier.verify import Alarm, verify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence

    from lapse.commands.setup import Setup
    from lapse.ledger import Ledger, Run
    from lapse.output.console import Progress
    from verifier.egress import Exchange
    from verifier.model import CredentialID
    from verifier.ports import Due
    from verifier.verify import Event


@dataclass(frozen=True)
class Job:
    """What one run is about: `due` by kind, read lazily; `select`, the keys among which the hidden ones are named."""

    select: Select
    due: Mapping[str, Iterable[Due]]
    run: Run


class Brakes(Protocol):
    """Who may end the asking early: it is armed with the time-out that cuts what is still under way."""

    def arm(self, limit: asyncio.Timeout) -> None:
        """Take the time-out; `reschedule` it when the end has come."""
        ...

    def cut(self) -> None:
        """Hear that the time-out struck while something was under way."""
        ...


@dataclass(frozen=True)
class Ears:
    """Who hears what: `ready` of keys whose verdict of this run is final, `exchange` of every attempt."""

    progress: Progress
    ready: Callable[[Sequence[CredentialID]], None] | None = None
    exchange: Callable[[Exchange], None] | None = None


@contextmanager
def only_one(ledger: Ledger) -> Iterator[None]:
    """Let one verification at a time work on a ledger, on whichever machine: one probe a key is a promise."""
    with ExitStack() as stack:
        try:
            stack.enter_context(ledger.alone())
        except LedgerError as e:
            raise Stop(str(e)) from None
        yield


async def ask(
    setup: Setup, ledger: Ledger, job: Job, ears: Ears, *, wait: bool | None = None, brakes: Brakes | None = None
) -> list[Alarm]:
    """Ask about everything in `job`, record each answer, return the alarms. The run is not ended: the caller does it.

    `wait` overrides the config's: stay for the second look at keys that just died.
    """
    terms = setup.terms(wait=wait)
    scribe = _Scribe(ledger, job.run, ears, awaits=terms.wait)
    alarms: list[Alarm] = []
    door = Egress(
        setup.catalogue.manifest(),
        settings=setup.settings(),
        limits={k.id: k.limits for k in setup.catalogue},
        overrides=setup.base_urls,
        observer=ears.exchange,
    )
    scribe.write(list(hidden(ledger, job.select)))
    fallen = ledger.fallen(datetime.now(UTC) - terms.patience.apart)
    lived = ledger.lived(job.run) if fallen and job.run.resumed else {}
    limit = asyncio.timeout(None)
    try:
        with rare_collections():
            async with limit, door:
                if brakes is not None:
                    brakes.arm(limit)
                answers = cast(
                    "AsyncGenerator[list[Event]]",
                    verify(job.due, setup.catalogue, door, terms, fallen=fallen, lived=lived),
                )
                async with aclosing(answers) as batches:
                    async for batch in batches:
                        scribe.write([e for e in batch if isinstance(e, Judged)])
                        for event in batch:
                            if isinstance(event, Alarm):
                                ledger.note(EventKind.ALARM, event.text)
                                ears.progress.note(f"ALARM: {event.text}")
                                alarms.append(event)
    except TimeoutError:
        if brakes is None or not limit.expired():
            raise
        brakes.cut()
    scribe.end()
    ears.progress.end()
    return alarms


def hidden(ledger: Ledger, select: Select) -> Iterator[Judged]:
    """Say of keys whose secret no report holds that nobody can be asked."""
    now = datetime.now(UTC)
    note = "the report holds no secret; read it back with --source"
    for key in ledger.keys(replace(select, states=frozenset({State.UNCHECKED}), incomplete=True)):
        yield Judged(key.id, key.provider, Undecided(Doubt.INCOMPLETE, note=note), now)


def mark(ledger: Ledger, judged: Sequence[Judged]) -> None:
    """Note whose keys these turned out to be, and which are trip-wires."""
    for owner in (Ownership.OURS, Ownership.FOREIGN):
        if ids := [j.id for j in judged if j.ownership is owner]:
            ledger.mark(ids, owner=owner)
    if ids := [j.id for j in judged if isinstance(j.verdict, Undecided) and j.verdict.note == CANARY]:
        ledger.mark(ids, canary=Canary.YES)


class _Scribe:
    """Records verdicts, then tells of them. A first Dead waits for its second look, so that a key has one line."""

    def __init__(self, ledger: Ledger, run: Run, ears: Ears, *, awaits: bool) -> None:
        self._ledger, self._run, self._ears = ledger, run, ears
        self._awaits = awaits
        self._pending: dict[CredentialID, None] = {}

    def write(self, judged: list[Judged]) -> None:
        if not judged:
            return
        mark(self._ledger, judged)  # first: what is on record is not asked about, and so not marked, again
        self._ledger.record(judged, self._run)
        ready: list[CredentialID] = []
        for one in judged:
            fresh = isinstance(one.verdict, Dead) and not one.verdict.confirmed
            if one.id not in self._pending:
                self._ears.progress.step(jsonv1.word(one.verdict))
            if fresh and self._awaits and one.id not in self._pending:
                self._pending[one.id] = None
                continue
            self._pending.pop(one.id, None)
            ready.append(one.id)
        self._tell(ready)

    def end(self) -> None:
        self._tell(list(self._pending))
        self._pending.clear()

    def _tell(self, ids: list[CredentialID]) -> None:
        if ids and self._ears.ready is not None:
            self._ears.ready(ids)
