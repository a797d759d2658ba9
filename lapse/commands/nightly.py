"""`lapse nightly`: sources in, what is due asked about, policy, news, report; exit by code."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.diff import tell
from lapse.commands.report import ENDINGS
from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError
from lapse.nightly.night import Night, Nightly, Plan, sentence, write_reports
from lapse.output import jsonv1
from lapse.output.console import raw, safe, say
from lapse.sections import DURATION, Duration
from verifier.words import plural

if TYPE_CHECKING:
    from lapse.ledger import Ledger
    from lapse.ledger.model import Status


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    deadline: str | None = None
    wait: bool | None = None
    sources: bool = True
    json: bool = False
    quiet: bool = False
    fleet: bool | None = None


def run(options: Options, config: Path | None) -> Exit:
    """Run one night. Exit 1 when a source or a message failed, 13 when due keys are left for the next night."""
    if options.deadline is not None and not DURATION.fullmatch(options.deadline):
        raise Stop(f"--deadline {options.deadline!r} is no duration; write 90s, 10m or 6h", Exit.USAGE)
    seconds = Duration(options.deadline).seconds if options.deadline is not None else None
    setup = Setup.of(config)
    check_outputs(setup)
    with ExitStack() as stack:
        ledger = stack.enter_context(setup.ledger())
        _alone(ledger, stack)
        if not ledger.keeps_secrets:
            say("no sealing key is configured: only keys of tonight's reports can be asked about (`lapse ledger init`)")
        try:
            night = Nightly(
                setup, ledger, Plan(seconds, options.wait, options.sources, options.quiet, options.fleet)
            ).run()
            status = ledger.status()
            write_reports(ledger, setup.config.nightly.reports)
            if setup.config.metrics.textfile:
                from lapse.metrics import registry, write_textfile  # only where it is wanted

                write_textfile(setup.config.metrics.textfile, registry(ledger, night))
        except LedgerError as e:
            raise Stop(str(e)) from None
        except KeyboardInterrupt:
            said = "interrupted; what was learnt is kept, and the next night goes on from here"
            raise Stop(said, Exit.INTERRUPTED) from None
    _print(night, options)
    return _exit(night, status)


def _alone(ledger: Ledger, stack: ExitStack) -> None:
    try:
        stack.enter_context(ledger.alone())
    except LedgerError as e:
        raise Stop(str(e)) from None


def check_outputs(setup: Setup) -> None:
    """Refuse before the night what could not be written after it."""
    for path in setup.config.nightly.reports:
        if Path(path).suffix not in ENDINGS:
            raise Stop(f"nightly.reports: {path}: end the name in {' '.join(ENDINGS)}", Exit.USAGE)
    outputs = [*setup.config.nightly.reports, *filter(None, [setup.config.metrics.textfile])]
    for path in outputs:
        folder = Path(path).expanduser().parent
        if not folder.is_dir():
            raise Stop(f"{path}: there is no folder {folder}; make it", Exit.USAGE)


def _print(night: Night, options: Options) -> None:
    if options.json:
        raw(jsonv1.encode(night))
    else:
        tell(night.diff)
    for text in night.failed:
        say(f"FAILED: {safe(text)}")
    if options.quiet:
        return
    for a in night.acted:
        if a.said and not a.again:
            say(f"{a.key}: {safe(a.said)} ({safe(a.rule)})")
    if night.lacking:
        say(f"{plural(night.lacking, 'due key')} cannot be asked about: no secret is kept")
    calls = plural(sum(night.calls.values()), "call")
    say(f"asked about {plural(night.asked, 'key')} in {calls}; {night.told} told: {sentence(night.diff)}")
    if night.cut_off:
        say("the night ended before all was asked; the next one goes on from here")


def _exit(night: Night, s: Status) -> Exit:
    if night.failed:
        return Exit.BROKE
    if night.cut_off:
        return Exit.PART_WAY
    if s.live:
        return Exit.LIVE
    if s.undecided or s.unchecked:
        return Exit.UNDECIDED
    return Exit.WAITING if s.dead_unconfirmed else Exit.OK
