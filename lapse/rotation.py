"""What the rotation commands share: choosing a playbook, building the world and the engine, following a run."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from msgspec.structs import replace

from lapse.exits import Exit, Stop
from lapse.ledger import Canary, Kept, LedgerError, Ownership
from lapse.ledger.db import is_postgres
from lapse.narrator import Narrator
from lapse.output.console import say
from lapse.references import REFERENCE, looks_like_key, resolve
from playbooks.engine import Engine, Refused
from playbooks.journal import RunState, Taken, Unknown
from playbooks.plan import Facts, HandFacts, IssuerFacts, Mode, Plan, Unfit, plan
from playbooks.schema import HIDDEN, OPEN
from playbooks.settle import chosen, settled
from playbooks.specfile import PlaybookError, library
from playbooks.world import CONSUMERS, ISSUERS, SESSIONS, STORES, SUCCESSORS, Unready, World, hands
from rotators.interface import ProviderError, Quarantine, Roomy, SelfRevoker
from verifier.egress import Egress
from verifier.egress.address import loopback
from verifier.fingerprint import Fingerprinter
from verifier.model import Dead, KindID
from verifier.offline import check
from verifier.ports import Judged
from verifier.probe import probe
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lapse.commands.setup import Setup
    from lapse.ledger import Key, Ledger
    from playbooks.place import Place
    from playbooks.schema import Playbook
    from verifier.model import Credential, Parts, Verdict

ANY = "*"
"""In a playbook's `for`: fits any kind, but is taken only when named."""


@dataclass(frozen=True)
class Desk:
    """One ledger's rotations. `value` gives the new secret to a run that asks a person, for the keys `asked` only."""

    setup: Setup
    ledger: Ledger
    value: Callable[[str], Secret | None] = lambda _: None
    asked: frozenset[str] = frozenset()

    @cached_property
    def books(self) -> dict[str, Playbook]:
        """All playbooks by id."""
        try:
            return library([Path(f).expanduser() for f in self.setup.config.rotate.playbooks])
        except PlaybookError as e:
            raise Stop(str(e), Exit.USAGE) from None

    @cached_property
    def engine(self) -> Engine:
        """The engine on this ledger's journal."""
        return Engine(self.ledger.rotations, self.world)

    @property
    def place(self) -> Place:
        """Where the executor keeps its tables: where the config says, first for a fleet; else beside the ledger.

        Beside a ledger in PostgreSQL is in the same database: several machines then share its rotations, too.
        """
        from playbooks.place import Place  # noqa: PLC0415  # DBOS is slow to import
        from playbooks.seat import libpq  # noqa: PLC0415  # same

        config = self.setup.config
        path, named = self.ledger.path.absolute(), config.fleet.url or config.rotate.engine
        if named:
            url = _resolved(named)
        elif is_postgres(config.ledger_url):
            url = libpq(config.ledger_url)
        else:
            url = str(path.with_name(f"{path.stem}-engine.db"))
        if "://" not in url:
            url = f"sqlite:///{Path(url).expanduser().absolute()}"
        return Place(url, path.with_name(f"{path.name}.engine.lock"), self.ledger.name)

    # ── before a run ───────────────────────────────────────────────────────────────────────────────────

    def key(self, name: str) -> Key:
        """Return a key that may be rotated: ours, no canary, its secret kept; else a `Stop` that says why not."""
        try:
            key = self.ledger.key(self.ledger.resolve(name))
        except LedgerError as e:
            raise Stop(str(e), Exit.USAGE) from None
        if key.canary is Canary.YES:
            raise Stop(f"{key.short} is a canary: it is never touched", Exit.USAGE)
        match key.owner:
            case Ownership.OURS:
                pass
            case Ownership.FOREIGN:
                raise Stop(f"{key.short} belongs to somebody else and can never be rotated; tell its owner", Exit.USAGE)
            case Ownership.UNKNOWN:
                raise Stop(
                    f"nobody knows whose {key.short} is: name its account, organisation, domain or host in [scope] of "
                    f"the config, then `lapse verify {key.short}`",
                    Exit.USAGE,
                )
            case _:
                assert_never(key.owner)
        if key.kept is not Kept.SEALED:
            raise Stop(
                f"the secret of {key.short} is not kept, and without it no death can be proven; give the ledger a "
                "sealing key (`lapse ledger init`) and ingest the report again",
                Exit.USAGE,
            )
        return key

    def plan(self, key: Key, mode: Mode, named: str | None, sets: Mapping[str, str]) -> Plan:
        """Return the plan for a key: nothing is asked of anybody yet."""
        book = self.book(key, named)
        try:
            book = settled(book, chosen(self.setup.config.rotate.set, book.id) | dict(sets))
        except PlaybookError as e:
            raise Stop(str(e), Exit.USAGE) from None
        try:
            return plan(book, mode, self._facts(key, book))
        except Unfit as e:
            raise Stop(str(e), Exit.USAGE) from None

    def book(self, key: Key, named: str | None) -> Playbook:
        """Return the playbook that is named, or the one that fits the kind of key; else a `Stop`."""
        if named is not None:
            book = self.books.get(named)
            if book is None:
                raise Stop(f"there is no playbook {named}; `lapse playbooks` lists them", Exit.USAGE)
            if key.provider not in book.kinds and ANY not in book.kinds:
                raise Stop(f"the playbook {named} is for {', '.join(book.kinds)}, not {key.provider}", Exit.USAGE)
            return book
        fitting = [b for b in self.books.values() if key.provider in b.kinds and not b.named]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            raise Stop(f"no playbook is for {key.provider}; try --playbook assisted, or write one", Exit.USAGE)
        names = ", ".join(b.id for b in fitting)
        raise Stop(f"several playbooks are for {key.provider}: {names}; choose with --playbook", Exit.USAGE)

    def _facts(self, key: Key, book: Playbook) -> Facts:
        """Ask issuer, store and others what they say of themselves; with open settings, what their class says."""
        old = self.credential(key.id)
        public = {n: v.reveal() for n, v in old.parts.items() if n not in HIDDEN}
        bare = plan(book, Mode.GRACEFUL, _bare(key, book, public))
        modules = frozenset(self.setup.config.rotate.modules)
        try:
            issuer = ISSUERS.make(_shut(bare.issuer), modules, _resolved) if bare.issuer else None
            store = STORES.make(_shut(bare.store), modules, _resolved) if _given(bare.store) else None
            consumers = tuple(CONSUMERS.make(_shut(c), modules, _resolved) for c in bare.consumers)
            killers = tuple(SESSIONS.make(_shut(s), modules, _resolved) for s in bare.sessions)
            successor = _of_successor(bare.successor, modules, old)
        except Unready as e:
            raise Stop(str(e), Exit.USAGE) from None
        dies = ""
        if issuer is not None:
            dies = issuer.also_dies
            with contextlib.suppress(ProviderError):
                dies = issuer.consequence(old) if isinstance(issuer, SelfRevoker) else dies
        sandbox = loopback(self.setup.base_urls.get(key.provider, ""))  # no vendor's propagation is about it
        return Facts(
            credential=key.id,
            short=key.short,
            kind=key.provider,
            public=public,
            since=key.first_seen.isoformat(),
            issuer=None
            if issuer is None
            else IssuerFacts(
                issuer.style,
                issuer.reversible,
                0.0 if sandbox else issuer.propagation.total_seconds(),
                issuer.permissions,
                dies,
                isinstance(issuer, Roomy) and issuer.makes_room,
            ),
            store=HandFacts(store.permissions) if store else None,
            consumers=tuple(HandFacts(c.permissions) for c in consumers),
            sessions=tuple(
                HandFacts(s.permissions, s.reversible, isinstance(s, Quarantine) and s.stops_new) for s in killers
            ),
            successor=successor,
        )

    # ── the world ──────────────────────────────────────────────────────────────────────────────────────

    def credential(self, name: str) -> Credential:
        """Return a key with its parts; `Unready` where the ledger does not keep them."""
        from verifier.model import CredentialID  # noqa: PLC0415  # a name, not a type, here

        due = next(iter(self.ledger.due(datetime.now(UTC), ids=(CredentialID(name),))), None)
        if due is None:
            raise Unready(f"the secret of {name} is not kept any more")
        return due.credential

    def world(self, made: Plan) -> World:
        """Build everybody whom a plan names, with the verifier's one door out."""
        modules = frozenset(self.setup.config.rotate.modules)
        issuer, store, consumers, sessions, successor = hands(made, modules, _resolved)
        old = self.credential(made.credential)
        prints = Fingerprinter(self.ledger.id_key)

        def print_of(parts: Parts) -> str:
            return prints.of("rotation", KindID("rotation"), parts)

        def record(verdict: Verdict, *, proven: bool) -> None:
            if proven and isinstance(verdict, Dead):
                verdict = replace(verdict, confirmed=True)
            self.ledger.record([Judged(old.id, old.provider, verdict, datetime.now(UTC))])

        def ask(prompt: str) -> Secret | None:
            return self.value(prompt) if made.credential in self.asked else None

        return World(old, issuer, store, consumers, sessions, self.probe, print_of, ask, record, successor=successor)

    def probe(self, credential: Credential) -> Verdict:
        """Ask the provider about one credential, through the same door and manifest as `lapse verify`."""
        return asyncio.run(self._probe(credential))

    async def _probe(self, credential: Credential) -> Verdict:
        setup = self.setup
        terms = setup.terms()
        kind = setup.catalogue.get(credential.provider)
        known = check(kind, credential, datetime.now(UTC), terms.canary_accounts)
        if known.verdict is not None:
            return known.verdict
        limits = {k.id: k.limits for k in setup.catalogue if k.id == credential.provider}
        door = Egress(setup.catalogue.manifest(), settings=setup.settings(), limits=limits, overrides=setup.base_urls)
        async with door:
            return await probe(setup.catalogue, credential, door, setup.base_urls.get(credential.provider))

    # ── during a run ───────────────────────────────────────────────────────────────────────────────────

    def drive(self, runs: Sequence[str], patience: timedelta, *, quiet: bool = False) -> list[RunState]:
        """Go on with runs until each ends, stops or waits for long; say what happens. Return their states.

        Where another process is the executor, hand the turns to it and watch; should it leave, take its place.
        """
        from playbooks.durable import Broken, Busy, Remote, Worker  # noqa: PLC0415  # DBOS is slow to import

        narrators = {run: Narrator(self.engine, run, quiet=quiet) for run in runs}
        try:
            while True:
                with contextlib.ExitStack() as stack:
                    executor: Worker | Remote
                    try:
                        executor = stack.enter_context(Worker(self.engine, self.place))
                    except Busy:
                        executor = stack.enter_context(Remote(self.place))
                        say("another process goes on with the rotations of this ledger; watching it", quiet=quiet)
                    for run in runs:
                        executor.go(run, self.engine.state(run).turn)
                    there = None if isinstance(executor, Worker) else self._executor_there
                    states = [narrator.follow(patience, there) for narrator in narrators.values()]
                    if all(states):
                        return [state for state in states if state is not None]
                say("it has left; this process goes on", quiet=quiet)
        except Broken as e:
            raise Stop(str(e), Exit.PART_WAY) from None
        except KeyboardInterrupt:
            said = "interrupted; everything is on record, `lapse resume` goes on from here"
            raise Stop(said, Exit.INTERRUPTED) from None

    def _executor_there(self) -> bool:
        from playbooks.durable import at_work  # noqa: PLC0415  # DBOS is slow to import

        return at_work(self.place)


@contextlib.contextmanager
def said_plainly() -> Iterator[None]:
    """Turn the engine's refusals into the one sentence that a user sees."""
    try:
        yield
    except (Refused, Taken, Unready) as e:
        raise Stop(str(e), Exit.USAGE) from None
    except Unknown as e:
        raise Stop(str(e.args[0]), Exit.USAGE) from None
    except LedgerError as e:
        raise Stop(str(e)) from None


def person(named: str | None) -> str:
    """Return the name that goes on record: `--as`, else the log-in name."""
    return named.strip() if named and named.strip() else getpass.getuser()


def reader(fd: int | None, file: Path | None) -> Callable[[str], Secret | None]:
    """Return how a new secret is taken in: a descriptor, a file, a hidden prompt on a terminal, or not at all."""

    def ask(prompt: str) -> Secret | None:
        if fd is not None:
            with os.fdopen(os.dup(fd)) as source:
                return Secret(source.read().strip())
        if file is not None:
            return Secret(file.read_text().strip())
        if not sys.stdin.isatty():
            return None
        return Secret(getpass.getpass(f"{prompt}: "))

    return ask


def pairs(sets: tuple[str, ...]) -> dict[str, str]:
    """Return `--set NAME=VALUE` as a mapping."""
    found: dict[str, str] = {}
    for one in sets:
        name, equals, value = one.partition("=")
        if not equals:
            raise Stop(f"--set {one}: write NAME=VALUE, such as store.path=ci/aws", Exit.USAGE)
        if looks_like_key(value):
            said = "looks like a key, and settings are printed and kept; write a reference: env:NAME or file:PATH"
            raise Stop(f"--set {name.strip()}: {said}", Exit.USAGE)
        found[name.strip()] = value
    return found


def _resolved(value: str) -> str:
    return resolve(value, "a setting").reveal() if REFERENCE.fullmatch(value) else value


def _bare(key: Key, book: Playbook, public: Mapping[str, str]) -> Facts:
    """Return facts of nobody, to learn which hands a playbook names."""
    nobody = HandFacts({})
    return Facts(
        key.id, key.short, key.provider, public, None, None, nobody,
        tuple(nobody for _ in book.consumers), tuple(nobody for _ in book.sessions),
    )  # fmt: skip


if TYPE_CHECKING:
    from typing import TypeGuard

    from playbooks.plan import Used


def _given(used: Used | None) -> TypeGuard[Used]:
    return used is not None and used.name != OPEN and OPEN not in used.settings.values()


def _of_successor(used: Used | None, modules: frozenset[str], old: Credential) -> HandFacts | None:
    """Ask a successor what it says of itself. With open settings only what it surely is, by its own name."""
    if used is None:
        return None
    open_ones = OPEN in used.settings.values()
    trial = replace(used, settings={n: "to-be-said" if v == OPEN else v for n, v in used.settings.items()})
    try:
        way = SUCCESSORS.make(trial, modules, _resolved)
    except Unready:
        if not open_ones:
            raise
        return HandFacts({}, reversible=True, about=used.name)
    about = used.name if open_ones else way.about()
    return HandFacts(way.permissions, way.reversible, displaces=way.displaces(old), about=about)


def _shut(used: Used) -> Used:
    """Return the hand without the settings that are still open; it says of itself what it can."""
    return replace(used, settings={n: v for n, v in used.settings.items() if v != OPEN and "{" not in v})
