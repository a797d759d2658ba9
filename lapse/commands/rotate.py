"""`lapse rotate KEY`: prints the plan; with `--apply` runs it until it ends, stops, or waits."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.narrator import verdict_of
from lapse.output.console import out, raw, safe, say
from lapse.rotation import Desk, pairs, person, reader, said_plainly
from lapse.sections import Duration
from playbooks.plan import Mode
from rotators.step import Effect

if TYPE_CHECKING:
    from pathlib import Path

    from playbooks.plan import Plan


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    key: str
    apply: bool = False
    mode: str = "graceful"
    playbook: str | None = None
    yes: bool = False
    sets: tuple[str, ...] = ()
    who: str | None = None
    wait: str | None = None
    fd: int | None = None
    secret_file: Path | None = None
    json: bool = False
    quiet: bool = False


def run(options: Options, config: Path | None) -> Exit:
    """Print the plan, and run it if told to. Exit 12 while it waits, 13 when it stopped part-way, 4 without rights."""
    setup = Setup.of(config)
    with setup.ledger() as ledger, said_plainly():
        key = Desk(setup, ledger).key(options.key)
        desk = Desk(setup, ledger, reader(options.fd, options.secret_file), frozenset({key.id}))
        made = desk.plan(key, Mode(options.mode), options.playbook, pairs(options.sets))
        if options.json:
            raw(msgspec.json.encode(made))
        else:
            show(made)
        missing = made.open_settings()
        if not options.apply:
            if missing:
                say(f"still to be said: {', '.join(missing)}; give each with --set NAME=VALUE or in [rotate.set]")
            say("nothing was done; --apply runs this plan")
            return Exit.OK
        return _apply(desk, made, options)


def _apply(desk: Desk, made: Plan, options: Options) -> Exit:
    desk.world(made)  # whoever is missing is missed before anything is on record
    who, name = person(options.who), f"r-{secrets.token_hex(3)}"
    desk.engine.start(name, made, who)
    say(f"rotation {name} of {made.short}, started by {who}", quiet=options.quiet)
    if options.yes:
        single = tuple(s.name for s in made.steps if s.approvals == 1)
        if single:
            desk.engine.approve(name, who, single)
    wait = desk.setup.config.rotate.wait if options.wait is None else span_of(options.wait)
    state = desk.drive([name], wait.delta, quiet=options.quiet)[0]
    text, code = verdict_of(state)
    say(text)
    return code


def span_of(text: str) -> Duration:
    """Return a span that was given as an option."""
    span = Duration(text)
    if span.seconds <= 0 and text != "0s":
        raise Stop(f"--wait {text}: no duration; write 90s, 10m or 6h", Exit.USAGE)
    return span


def show(made: Plan) -> None:
    """Print a plan for people: every step with its effect, its rights, its way back and who must agree."""
    _head(made)
    for i, s in enumerate(made.steps, 1):
        out(f"{i:>3}. {s.name:<12} {s.effect:<9} {safe(s.title)}")
        if s.permissions:
            out(f"     {'needs':<12} {', '.join(s.permissions)}")
        if s.undo:
            out(f"     {'undo':<12} {s.undo}")
        elif s.effect is Effect.DESTROYS:
            out(f"     {'undo':<12} none: this cannot be taken back")
        if s.approvals:
            people = "one person" if s.approvals == 1 else f"{s.approvals} people other than who starts it"
            out(f"     {'approval':<12} {people}")


def _head(made: Plan) -> None:
    out(f"{made.short}  {made.kind}  {made.mode} rotation by {made.playbook}: {safe(made.title)}")
    for label, used in (("issuer", made.issuer), ("store", made.store), ("new way", made.successor)):
        if used is not None:
            settings = " ".join(f"{n}={safe(v)}" for n, v in sorted(used.settings.items()))
            out(f"  {label:<9} {used.name} {settings}".rstrip())
    if made.also_dies:
        out(f"  also dies {safe(made.also_dies)}")
    if made.makes is None:
        gone = "whatever still uses the old one stops working"
        instead = "; it goes over to the new way" if made.successor is not None else ""
        out(f"  note      no new key is made: {gone}{instead}")
    for note in made.notes:
        out(f"  note      {safe(note)}")
