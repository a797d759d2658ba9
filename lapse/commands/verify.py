"""`lapse verify`: asks the providers, records each answer, and prints it only when it is on record."""

from __future__ import annotations

import fcntl
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from msgspec.structs import replace

from lapse.commands.ingest import Intake, open_tree
from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import Canary, EventKind, LedgerError, Owner, Select, State
from lapse.output import jsonv1, listing
from lapse.output.console import Progress, raw, say
from verifier.egress import Egress
from verifier.model import Dead, Doubt, Undecided
from verifier.ports import Judged
from verifier.scope import Ownership
from verifier.verify import Alarm, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lapse.ledger import Ledger, Run
    from verifier.egress import Exchange
    from verifier.model import CredentialID
    from verifier.ports import Due

RESUME = timedelta(hours=12)
"""A run that was cut off less than this ago is gone on with."""

FAR = timedelta(days=3650)
"""`verify` asks about everything, due or not; the nightly job asks only about what is due."""

CANARY_NOTE = "canary"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    keys: tuple[str, ...] = ()
    provider: str | None = None
    every: bool = False
    wait: bool | None = None
    as_format: str | None = None
    source: Path | None = None
    origin: str | None = None
    partial: bool = False
    shape: str = "table"
    quiet: bool = False
    verbose: bool = False


def run(options: Options, config: Path | None) -> Exit:
    """Verify and report.

    Exit 10 while a key is live, 11 when only undecided ones remain, 12 when deaths await confirmation.
    """
    setup = Setup.of(config)
    with ExitStack() as stack:
        ledger = stack.enter_context(setup.ledger())
        stack.enter_context(only_one(ledger.path))
        chosen = _choose(setup, ledger, options, stack)
        try:
            uvloop.run(_ask(setup, ledger, options, chosen))
        except LedgerError as e:
            raise Stop(str(e)) from None
        except KeyboardInterrupt:
            said = "interrupted; what was learnt is kept, and the next run goes on from here"
            raise Stop(said, Exit.INTERRUPTED) from None
        return _finish(ledger, options, chosen)


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Let one verification at a time work on a ledger: one probe a key is a promise."""
    with Path(f"{path}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Stop(f"another verification is at work on {path}; wait for it or stop it") from None
        yield


# ── what is asked about ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Chosen:
    """What this run is about: everything, or certain keys. `held` are credentials the ledger may not keep."""

    select: Select
    due: Mapping[str, Iterable[Due]]
    run: Run
    total: int | None
    failed: int = 0


def _choose(setup: Setup, ledger: Ledger, options: Options, stack: ExitStack) -> Chosen:
    files = [k for k in options.keys if k == "-" or "/" in k or Path(k).is_file()]
    names = [k for k in options.keys if k not in files]
    if files and names:
        raise Stop("name keys or reports, not both in one run", Exit.USAGE)
    if names:
        return _named(ledger, names)
    if files:
        return _reported(setup, ledger, options, files, stack)
    return _everything(setup, ledger, options)


def _named(ledger: Ledger, names: list[str]) -> Chosen:
    try:
        ids = [ledger.resolve(n) for n in names]
    except LedgerError as e:
        raise Stop(str(e), Exit.USAGE) from None
    by_kind: dict[str, list[CredentialID]] = defaultdict(list)
    for key in ledger.keys(Select(ids=tuple(ids))):
        by_kind[key.provider].append(key.id)
    now = datetime.now(UTC)
    due = {kind: ledger.due(now, ids=kids) for kind, kids in by_kind.items()}
    return Chosen(Select(ids=tuple(ids)), due, ledger.begin_run(), len(ids))


def _reported(setup: Setup, ledger: Ledger, options: Options, files: list[str], stack: ExitStack) -> Chosen:
    intake = Intake(setup, ledger, quiet=options.quiet)
    tree = open_tree(stack, options.source)
    for name in files:
        intake.file(name, options.as_format, tree, options.origin, partial=options.partial)
    if not intake.scans:
        raise Stop("no report could be read", Exit.NO_INPUT)
    result = intake.result()
    say(f"{result.findings} findings, {result.keys} distinct keys, {result.new} new", quiet=options.quiet)
    select = Select(scan=min(intake.scans), provider=options.provider)
    if ledger.keeps_secrets:
        by_kind: dict[str, list[CredentialID]] = defaultdict(list)
        for key in ledger.keys(select):
            if options.every or not key.confirmed:
                by_kind[key.provider].append(key.id)
        now = datetime.now(UTC)
        due: Mapping[str, Iterable[Due]] = {k: ledger.due(now, ids=ids) for k, ids in by_kind.items()}
        return Chosen(select, due, ledger.begin_run(), sum(map(len, by_kind.values())), intake.failed)
    held: dict[str, list[Due]] = defaultdict(list)
    for item in ledger.recall(list(intake.held.values())):
        if options.provider in {None, item.credential.provider}:
            held[item.credential.provider].append(item)
    return Chosen(select, held, ledger.begin_run(), sum(map(len, held.values())), intake.failed)


def _everything(setup: Setup, ledger: Ledger, options: Options) -> Chosen:
    run = ledger.begin_run(resume_within=RESUME)
    if run.resumed:
        say(f"going on with the run of {run.started:%Y-%m-%d %H:%M} UTC, which was cut off", quiet=options.quiet)
    at = datetime.now(UTC) + FAR
    since = run.started if run.resumed else None
    kinds = ledger.providers() if options.provider is None else [options.provider]
    if options.provider is not None and setup.catalogue.get(options.provider) is None:
        raise Stop(f"no kind of key is called {options.provider}; `lapse providers` lists them", Exit.USAGE)
    due = {k: _living(ledger.due(at, provider=k, since=since), every=options.every) for k in kinds}
    if lacking := ledger.lacking(at, options.provider, since):
        say(f"{lacking} keys cannot be asked about: their secrets are not kept (see `lapse ledger init`)")
    return Chosen(Select(provider=options.provider), due, run, None)


def _living(items: Iterable[Due], *, every: bool) -> Iterator[Due]:
    """Leave out what is confirmed dead, unless everything is wanted."""
    return (d for d in items if every or not (isinstance(d.last, Dead) and d.last.confirmed))


# ── asking ─────────────────────────────────────────────────────────────────────────────────────────────


async def _ask(setup: Setup, ledger: Ledger, options: Options, chosen: Chosen) -> None:
    terms = setup.terms(wait=options.wait)
    progress = Progress(chosen.total, quiet=options.quiet)
    scribe = _Scribe(ledger, chosen.run, progress, jsonl=options.shape == "jsonl", awaits=terms.wait)
    observer = _trace if options.verbose else None
    limits = {k.id: k.limits for k in setup.catalogue}
    door = Egress(
        setup.catalogue.manifest(),
        settings=setup.settings(),
        limits=limits,
        overrides=setup.base_urls,
        observer=observer,
    )
    scribe.write(list(_hidden(ledger, chosen.select)))
    async with door:
        async for batch in verify(chosen.due, setup.catalogue, door, terms):
            scribe.write([e for e in batch if isinstance(e, Judged)])
            for event in batch:
                if isinstance(event, Alarm):
                    ledger.note(EventKind.ALARM, event.text)
                    progress.note(f"ALARM: {event.text}")
    scribe.end()
    progress.end()
    ledger.end_run(chosen.run)


def _trace(exchange: Exchange) -> None:
    said = exchange.status if exchange.status is not None else exchange.trouble
    call = exchange.call
    say(f"{call.kind}: {call.method} {exchange.host}{call.path} → {said} in {exchange.elapsed:.3f} s")


def _hidden(ledger: Ledger, select: Select) -> Iterator[Judged]:
    """Say of keys whose secret no report holds that nobody can be asked."""
    now = datetime.now(UTC)
    note = "the report holds no secret; read it back with --source"
    for key in ledger.keys(replace(select, states=frozenset({State.UNCHECKED}))):
        if key.incomplete:
            yield Judged(key.id, key.provider, Undecided(Doubt.INCOMPLETE, note=note), now)


class _Scribe:
    """Records verdicts, then prints them. A first Dead waits for its second look, so that a key has one line."""

    def __init__(self, ledger: Ledger, run: Run, progress: Progress, *, jsonl: bool, awaits: bool) -> None:
        self._ledger, self._run, self._progress = ledger, run, progress
        self._jsonl, self._awaits = jsonl, awaits
        self._pending: dict[CredentialID, None] = {}
        self._seen: set[CredentialID] = set()

    def write(self, judged: list[Judged]) -> None:
        if not judged:
            return
        self._ledger.record(judged, self._run)
        self._mark(judged)
        ready: list[CredentialID] = []
        for one in judged:
            fresh = isinstance(one.verdict, Dead) and not one.verdict.confirmed
            if one.id not in self._pending:
                self._progress.step(jsonv1.word(one.verdict))
            if fresh and self._awaits and one.id not in self._pending:
                self._pending[one.id] = None
                continue
            self._pending.pop(one.id, None)
            ready.append(one.id)
        self._print(ready)

    def end(self) -> None:
        self._print(list(self._pending))
        self._pending.clear()

    def _mark(self, judged: list[Judged]) -> None:
        for ownership, owner in ((Ownership.OURS, Owner.OURS), (Ownership.FOREIGN, Owner.FOREIGN)):
            if ids := [j.id for j in judged if j.ownership is ownership]:
                self._ledger.mark(ids, owner=owner)
        if ids := [j.id for j in judged if isinstance(j.verdict, Undecided) and j.verdict.note.startswith(CANARY_NOTE)]:
            self._ledger.mark(ids, canary=Canary.YES)

    def _print(self, ids: list[CredentialID]) -> None:
        if self._jsonl and ids:
            lines = {k.id: k for k in self._ledger.keys(Select(ids=tuple(ids)))}
            for name in ids:
                raw(jsonv1.encode(jsonv1.line(lines[name])))


# ── saying ─────────────────────────────────────────────────────────────────────────────────────────────


def _finish(ledger: Ledger, options: Options, chosen: Chosen) -> Exit:
    counts = listing.counts(ledger.keys(chosen.select))
    listing.write(ledger, chosen.select, options.shape, sys.stdout)
    say(counts.sentence(), quiet=options.quiet)
    return Exit.BROKE if chosen.failed else counts.exit()
