"""One night: sources → what is due → policy → news → reports → figures. All of it may be cut off and gone on with."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import uvloop
from msgspec import Struct

from lapse.asking import Ears, Job, ask, hidden
from lapse.commands.ingest import Intake
from lapse.diff import DiffOut, diff
from lapse.ledger import Select
from lapse.metrics import keep
from lapse.nightly.act import Acted, Actor
from lapse.nightly.gate import Gate
from lapse.nightly.memory import Memory
from lapse.nightly.second import owed
from lapse.nightly.sources import Sources
from lapse.nightly.spool import place, take_in
from lapse.notify import Notifier, items
from lapse.output.console import Progress, say
from lapse.owners import Owners
from lapse.traces import traces
from verifier.model import Doubt
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lapse.commands.setup import Setup
    from lapse.fleet.lead import Lead
    from lapse.ledger import Ledger, Run
    from lapse.notify import Sender
    from lapse.policy import Rotation
    from lapse.traces import Traces
    from verifier.egress import Exchange
    from verifier.ports import Due
    from verifier.verify import Alarm

RESUME = timedelta(days=7)
"""A night that was cut off less than this ago is gone on with."""

GRACE = 5.0
"""Seconds over one call's own time-out that what is under way has at the end of the night."""


class Night(Struct, frozen=True):
    """What a night did: `nightly --format json`. `calls` and `throttled` by kind of key.

    `asked`: keys asked about. `cut_off`: due keys were left for the next night. `resumed`: it went on with one that was
    cut off. `failed`: sources, tickets, rotations and messages that did not succeed, a sentence each.
    """

    began: datetime
    ended: datetime
    findings: int
    keys: int
    new_keys: int
    unchanged_reports: int
    asked: int
    calls: dict[str, int]
    throttled: dict[str, int]
    cut_off: bool
    resumed: bool
    lacking: int
    purged: int
    alarms: tuple[str, ...]
    acted: tuple[Acted, ...]
    told: int
    failed: tuple[str, ...]
    diff: DiffOut
    v: Literal[1] = 1


class Plan(Struct, frozen=True):
    """How a night is to go. `deadline` in seconds; None and False leave it to the config.

    `fleet`: let workers ask (`lapse.fleet`); None: if `[fleet] url` is set.
    """

    deadline: float | None = None
    wait: bool | None = None
    sources: bool = True
    quiet: bool = False
    fleet: bool | None = None


class Nightly:
    """The nightly job on one open ledger, which the caller has for itself (`Ledger.alone`)."""

    def __init__(
        self,
        setup: Setup,
        ledger: Ledger,
        plan: Plan,
        send: Sender | None = None,
        rotation: Rotation | None = None,
        spans: Traces | None = None,
    ) -> None:
        """Read owners and resolve every reference first, so that a mistake costs no night."""
        self._setup, self._ledger, self._plan = setup, ledger, plan
        config = setup.config
        self._config = config
        self._owners = Owners.of(config)
        self._notifier = Notifier(config) if send is None else Notifier(config, send)
        self._memory = Memory.of(ledger.name)
        told = config.nightly.deadline
        seconds = plan.deadline if plan.deadline is not None else told.seconds if told is not None else None
        until = None if seconds is None else time.monotonic() + seconds
        grace = config.verify.timeout.seconds + GRACE
        self._gate = Gate(until, grace, config.nightly.budget, config.nightly.budgets)
        self._actor = Actor(config, ledger, rotation or self._opener())
        self._calls: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._alarms: list[Alarm] = []
        self._resumed = False
        self._lead: Lead | None = None
        self._given_up = 0
        self._run: Run | None = None
        self._spans = traces(config) if spans is None else spans
        self._trace = ""

    def _opener(self) -> Rotation | None:
        if not any(rule.action == "rotate" for rule in self._config.policy):
            return None
        from lapse.nightly.rotate import Opener  # brings the rotators

        return Opener(self._setup, self._ledger, self._gate, quiet=self._plan.quiet)

    def run(self) -> Night:
        """Do it. Raises `Stop` and `LedgerError`, KeyboardInterrupt when interrupted: the next one then goes on."""
        try:
            with self._spans.span("night", {"lapse.ledger": self._ledger.name}) as self._trace:
                return self._night()
        finally:
            if lost := self._spans.close():
                say(lost)

    def _night(self) -> Night:
        began = datetime.now(UTC)
        intake = Intake(self._setup, self._ledger, quiet=self._plan.quiet)
        sources = Sources(self._setup, intake, self._memory, quiet=self._plan.quiet)
        bad = take_in(intake, place(self._ledger.name)) if self._plan.sources else []
        for rule in self._config.nightly.source if self._plan.sources else ():
            if self._gate.closed:
                self._gate.cut_off = True
                break
            sources.read(rule)
        with self._leading():
            self._ask(intake, began)
        purged = self._ledger.purge_dead(self._config.ledger.retention.delta).keys
        now = datetime.now(UTC)
        span = (self._memory.last or began, now)
        news = diff(self._ledger, self._setup.catalogue, self._owners, self._config, span, self._actor.consider)
        self._actor.undecided(self._setup.catalogue, self._owners, now)
        acted = self._actor.act()
        told = self._tell(news, acted)
        self._memory.reported(now)
        if self._run is not None:
            self._ledger.end_run(self._run)
        done = intake.result()
        night = Night(
            began=began,
            ended=datetime.now(UTC),
            findings=done.findings,
            keys=done.keys,
            new_keys=done.new,
            unchanged_reports=sources.unchanged,
            asked=self._gate.passed,
            calls=dict(self._calls),
            throttled=dict(self._throttled),
            cut_off=self._gate.cut_off,
            resumed=self._resumed,
            lacking=self._ledger.lacking(began),
            purged=purged,
            alarms=tuple(a.text for a in self._alarms),
            acted=tuple(acted),
            told=told,
            failed=(*bad, *sources.failed, *self._lost(), *self._actor.failed, *self._notifier.failed),
            diff=news,
        )
        keep(self._ledger, night)
        return night

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _leading(self) -> Iterator[None]:
        """Lead the fleet while the asking goes on, where there is one."""
        wanted = bool(self._config.fleet.url) if self._plan.fleet is None else self._plan.fleet
        if not wanted:
            if self._config.fleet.url:
                from lapse.fleet.lead import nobody_asks

                nobody_asks(self._setup, self._ledger)
            yield
            return
        from lapse.fleet.lead import Lead  # DBOS is slow to import
        from lapse.fleet.place import meeting

        progress = Progress(None, quiet=self._plan.quiet)
        lead = Lead(self._setup, self._ledger, meeting(self._setup, self._ledger), progress, quiet=self._plan.quiet)
        with lead, self._gate.on_signal():
            self._lead = lead
            lead.catch_up(self._gate)
            yield
        progress.end()
        self._calls, self._throttled, self._alarms = lead.calls, lead.throttled, lead.alarms
        self._given_up = lead.failed

    def _lost(self) -> list[str]:
        n, chunks = self._given_up, plural(self._given_up, "chunk")
        return [f"{chunks} of the fleet's given up; the workers say why, and their keys stay due"] if n else []

    def _ask(self, intake: Intake, began: datetime) -> None:
        """Go on with a night that was cut off, then ask about all that is due, once each."""
        if not self._ledger.keeps_secrets:
            self._round(self._ledger.begin_run("nightly"), self._held(intake))
            return
        run = self._ledger.begin_run("nightly", resume_within=RESUME)
        if not run.resumed:
            self._round(run, self._due(began, None))
            return
        self._resumed = True
        say(f"goes on with the night of {run.started:%Y-%m-%d %H:%M} UTC, which was cut off", quiet=self._plan.quiet)
        pause = self._config.nightly.round.delta
        if self._round(run, self._due(began, run)) and began - run.started >= pause:
            self._ledger.end_run(run)
            self._round(self._ledger.begin_run("nightly"), self._due(began, began - pause))

    def _round(self, run: Run, due: Mapping[str, Iterable[Due]]) -> bool:
        """Ask. Return whether it came to its end: then the run ends with the night, when all are told of it."""
        feeds = {kind: self._gate.feed(kind, self._setup.catalogue.vendor(kind), items) for kind, items in due.items()}
        if self._lead is not None:
            return self._lead_round(self._lead, run, feeds)
        ears = Ears(Progress(None, quiet=self._plan.quiet), exchange=self._hear)
        job = Job(Select(), feeds, run)
        wait = False if self._gate.closed else self._plan.wait
        self._alarms += uvloop.run(ask(self._setup, self._ledger, job, ears, wait=wait, brakes=self._gate))
        if run.resumed and not self._gate.closed and (self._config.verify.wait if wait is None else wait):
            self._look_again(run, ears)
        return self._over(run)

    def _over(self, run: Run) -> bool:
        self._run = None if self._gate.cut_off else run
        return not self._gate.cut_off

    def _look_again(self, run: Run, ears: Ears) -> None:
        """Take the second looks that the run owed when it was cut off, each when its time has come."""
        found = [o for items in owed(self._setup, self._ledger, run, self._ledger.providers()).values() for o in items]
        if not found:
            return
        ready = max(o.ready for o in found)
        while not self._gate.closed and (left := (ready - datetime.now(UTC)).total_seconds()) > 0:
            time.sleep(min(0.2, left))
        if self._gate.closed:
            self._gate.cut_off = True
            return
        due: dict[str, list[Due]] = defaultdict(list)
        for o in found:
            due[o.item.credential.provider].append(o.item)
        job = Job(Select(), due, run)
        self._alarms += uvloop.run(ask(self._setup, self._ledger, job, ears, wait=False, brakes=self._gate))

    def _lead_round(self, lead: Lead, run: Run, feeds: Mapping[str, Iterable[Due]]) -> bool:
        """Have the fleet ask, as `_round` does."""
        self._ledger.record(list(hidden(self._ledger, Select())), run)
        wait = self._config.verify.wait if self._plan.wait is None else self._plan.wait
        lead.ask(run, feeds, self._gate, wait=wait, trace=self._trace)
        self._gate.cut_off |= lead.left
        return self._over(run)

    def _due(self, at: datetime, since: datetime | Run | None) -> dict[str, Iterable[Due]]:
        return {kind: self._ledger.due(at, provider=kind, since=since) for kind in self._ledger.providers()}

    def _held(self, intake: Intake) -> dict[str, Iterable[Due]]:
        """Without a sealing key only what tonight's reports hold can be asked about."""
        held: dict[str, list[Due]] = defaultdict(list)
        for item in self._ledger.recall(list(intake.held.values())):
            held[item.credential.provider].append(item)
        return dict(held)

    def _hear(self, exchange: Exchange) -> None:
        kind = exchange.call.kind
        self._calls[kind] += 1
        self._spans.call(exchange, self._trace)
        if exchange.status == 429 or exchange.trouble is Doubt.THROTTLED:
            self._throttled[kind] += 1

    # ── acting and telling ─────────────────────────────────────────────────────────────────────────────

    def _tell(self, news: DiffOut, acted: list[Acted]) -> int:
        if self._notifier.idle:
            return 0
        said = {a.id: a.said for a in acted if not a.again}
        found = items(news, said, frozenset(self._actor.quiet))
        return self._notifier.tell(self._ledger, found, [a.text for a in self._alarms], sentence(news))


def sentence(news: DiffOut) -> str:
    """Return the night in one line, the most urgent first."""
    t = news.total
    said = [
        (t.revived, "back from the dead"),
        (t.removed_never_revoked, "removed from source but never revoked"),
        (t.new, "new live"),
        (t.breaches, "live for too long"),
        (t.died, "proven dead"),
        (t.unproven, "refused, not proven dead yet"),
    ]
    return ", ".join([*(f"{n} {text}" for n, text in said if n), f"{t.live} live in all"])


def write_reports(ledger: Ledger, paths: Iterable[str]) -> None:
    """Write the configured reports, each whole or not at all."""
    from lapse.commands.report import ENDINGS, write_file  # where reports are written

    for path in paths:
        target = Path(path).expanduser()
        write_file(ledger, target, ENDINGS[target.suffix])
