"""`lapse verify`: asks the providers, records each answer, and prints it only when it is on record."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from lapse.asking import Ears, Job, ask, only_one
from lapse.commands.ingest import Intake, open_tree
from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError, Select
from lapse.output import jsonv1, listing
from lapse.output.console import Progress, raw, say
from verifier.model import Dead
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lapse.ledger import Ledger, Run
    from verifier.egress import Exchange
    from verifier.model import CredentialID
    from verifier.ports import Due

RESUME = timedelta(hours=12)
"""A run that was cut off less than this ago is gone on with."""

FAR = timedelta(days=3650)
"""`verify` asks about everything, due or not; the nightly job asks only about what is due."""


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
        stack.enter_context(only_one(ledger))
        if setup.config.fleet.url:
            from lapse.fleet.lead import nobody_asks  # DBOS is slow to import

            nobody_asks(setup, ledger)
        chosen = _choose(setup, ledger, options, stack)
        try:
            uvloop.run(_ask(setup, ledger, options, chosen))
        except LedgerError as e:
            raise Stop(str(e)) from None
        except KeyboardInterrupt:
            said = "interrupted; what was learnt is kept, and the next run goes on from here"
            raise Stop(said, Exit.INTERRUPTED) from None
        return _finish(ledger, options, chosen)


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
    files = [k for k in options.keys if k == "-" or "/" in k or "." in k or Path(k).is_file()]
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
    return Chosen(Select(ids=tuple(ids)), due, ledger.begin_run("verify-keys"), len(ids))


def _reported(setup: Setup, ledger: Ledger, options: Options, files: list[str], stack: ExitStack) -> Chosen:
    intake = Intake(setup, ledger, quiet=options.quiet)
    tree = open_tree(stack, options.source)
    for name in files:
        intake.file(name, options.as_format, tree, options.origin, partial=options.partial)
    if not intake.scans:
        raise Stop("no report could be read", Exit.NO_INPUT)
    result = intake.result()
    say(
        f"{plural(result.findings, 'finding')}, {plural(result.keys, 'distinct key')}, {result.new} new",
        quiet=options.quiet,
    )
    select = Select(scan=min(intake.scans), provider=options.provider)
    run = _resumed(ledger, options)
    since = run.started if run.resumed else None
    if ledger.keeps_secrets:
        by_kind: dict[str, list[CredentialID]] = defaultdict(list)
        for name, kind, proven in ledger.names(select):
            if options.every or not proven:
                by_kind[kind].append(name)
        now = datetime.now(UTC)
        due: Mapping[str, Iterable[Due]] = {k: ledger.due(now, ids=ids, since=since) for k, ids in by_kind.items()}
        return Chosen(select, due, run, None if since else sum(map(len, by_kind.values())), intake.failed)
    held: dict[str, list[Due]] = defaultdict(list)
    for item in ledger.recall(list(intake.held.values()), since):
        if options.provider in {None, item.credential.provider}:
            held[item.credential.provider].append(item)
    return Chosen(select, held, run, sum(map(len, held.values())), intake.failed)


def _resumed(ledger: Ledger, options: Options) -> Run:
    run = ledger.begin_run(resume_within=RESUME)
    if run.resumed:
        say(f"going on with the run of {run.started:%Y-%m-%d %H:%M} UTC, which was cut off", quiet=options.quiet)
    return run


def _everything(setup: Setup, ledger: Ledger, options: Options) -> Chosen:
    run = _resumed(ledger, options)
    at = datetime.now(UTC) + FAR
    since = run if run.resumed else None
    kinds = ledger.providers() if options.provider is None else [options.provider]
    if options.provider is not None and setup.catalogue.get(options.provider) is None:
        raise Stop(f"no kind of key is called {options.provider}; `lapse providers` lists them", Exit.USAGE)
    due = {k: _living(ledger.due(at, provider=k, since=since), every=options.every) for k in kinds}
    if lacking := ledger.lacking(at, options.provider, since):
        say(f"{plural(lacking, 'key')} cannot be asked about: no secret is kept (see `lapse ledger init`)")
    return Chosen(Select(provider=options.provider), due, run, None)


def _living(items: Iterable[Due], *, every: bool) -> Iterator[Due]:
    """Leave out what is confirmed dead, unless everything is wanted."""
    return (d for d in items if every or not (isinstance(d.last, Dead) and d.last.confirmed))


# ── asking ─────────────────────────────────────────────────────────────────────────────────────────────


async def _ask(setup: Setup, ledger: Ledger, options: Options, chosen: Chosen) -> None:
    def lines(ids: Sequence[CredentialID]) -> None:
        found = {k.id: k for k in ledger.keys(Select(ids=tuple(ids)))}
        raw(b"\n".join(jsonv1.encode(jsonv1.line(found[name])) for name in ids))

    ears = Ears(
        Progress(chosen.total, quiet=options.quiet),
        ready=lines if options.shape == "jsonl" else None,
        exchange=_trace if options.verbose else None,
    )
    await ask(setup, ledger, Job(chosen.select, chosen.due, chosen.run), ears, wait=options.wait)
    ledger.end_run(chosen.run)


def _trace(exchange: Exchange) -> None:
    said = exchange.status if exchange.status is not None else exchange.trouble
    call = exchange.call
    say(f"{call.kind}: {call.method} {exchange.host}{call.path} → {said} in {exchange.elapsed:.3f} s")


# ── saying ─────────────────────────────────────────────────────────────────────────────────────────────


def _finish(ledger: Ledger, options: Options, chosen: Chosen) -> Exit:
    counts = listing.counts(ledger.sorts(chosen.select))
    listing.write(ledger, chosen.select, options.shape, sys.stdout)
    say(counts.sentence(), quiet=options.quiet)
    return Exit.BROKE if chosen.failed else counts.exit()
