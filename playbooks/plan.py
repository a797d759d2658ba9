"""Compiles a playbook to the steps of one rotation, in order. Pure: no clock, no network, no secret.

What it returns is what the dry run prints, what is approved, and what the engine runs: the plan is kept with the run,
so a playbook that is edited meanwhile changes nothing under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct

from playbooks.schema import OPEN, By, Duration, Need, Playbook, Replace, fill, span
from rotators.interface import Style
from rotators.step import Effect
from verifier.model import CredentialID, KindID
from verifier.words import plural


class Mode(StrEnum):
    """Graceful: the new key first, then the old one goes slowly. Emergency: the old key is stopped first."""

    GRACEFUL = "graceful"
    EMERGENCY = "emergency"


class Slot(StrEnum):
    """The skeleton that every playbook fills."""

    EVIDENCE = "evidence"
    CONTAIN = "contain"
    CREATE = "create"
    STORE = "store"
    VERIFY = "verify"
    CONSUMERS = "consumers"
    RETIRE = "retire"
    PROVE = "prove"
    REPLACE = "replace"


class Action(StrEnum):
    """What a step does; `playbooks.steps` has the code of each."""

    EVIDENCE = "evidence"
    PREFLIGHT = "preflight"
    SNAPSHOT = "snapshot"
    MINT = "mint"
    APPLY = "apply"
    ENTER = "enter"
    VERIFY = "verify"
    PUSH = "push"
    DRAIN = "drain"
    DISABLE = "disable"
    SOAK = "soak"
    DELETE = "delete"
    HAND_DELETE = "hand-delete"
    SESSIONS = "sessions"
    LIFT = "lift"
    ROOM = "room"
    SETUP = "setup"
    WORKS = "works"
    PROVE = "prove"
    SUGGEST = "suggest"


class IssuerFacts(Struct, frozen=True):
    """What `rotators.interface.Issuer` says of itself."""

    style: Style
    reversible: bool
    propagation: float
    permissions: Mapping[str, tuple[str, ...]]
    also_dies: str = ""
    makes_room: bool = False


class HandFacts(Struct, frozen=True):
    """What a store, consumer, session killer or successor says of itself.

    `reversible` counts for killers and successors, `stops_new` for killers, `displaces` and `about` for successors.
    """

    permissions: Mapping[str, tuple[str, ...]]
    reversible: bool = False
    stops_new: bool = False
    displaces: bool = False
    about: str = ""


class Facts(Struct, frozen=True):
    """What the plan must know of the leaked key and of those who will act. `public` are its public parts by name."""

    credential: CredentialID
    short: str
    kind: KindID
    public: Mapping[str, str]
    since: str | None
    issuer: IssuerFacts | None
    store: HandFacts | None
    consumers: tuple[HandFacts, ...]
    sessions: tuple[HandFacts, ...]
    successor: HandFacts | None = None


class Unfit(ValueError):  # noqa: N818  # reads as what it is
    """A playbook that contradicts what its hands say of themselves: one sentence with the remedy."""


class Used(Struct, frozen=True):
    """Who acts, and with which settings (references to secrets, never secrets)."""

    name: str
    settings: dict[str, str]


class Planned(Struct, frozen=True, omit_defaults=True):
    """One step as it will run. `approvals` people must agree first; `undo` says how it is taken back, if it can be.

    `hand` counts consumers or session killers; `seconds`, `every` and `limit` are spans, `times` how many in a row.
    """

    name: str
    slot: Slot
    action: Action
    title: str
    effect: Effect
    permissions: tuple[str, ...] = ()
    undo: str = ""
    approvals: int = 0
    hand: int = 0
    times: int = 0
    seconds: float = 0.0
    every: float = 0.0
    limit: float = 0.0


class Plan(Struct, frozen=True):
    """All of one rotation. `write` maps stored fields to `{new.PART}`; `since` is when the leak was first seen."""

    playbook: str
    digest: str
    title: str
    mode: Mode
    credential: CredentialID
    short: str
    kind: KindID
    style: Style | None
    issuer: Used | None
    store: Used | None
    consumers: tuple[Used, ...]
    sessions: tuple[Used, ...]
    write: dict[str, str]
    steps: tuple[Planned, ...]
    approval_seconds: float
    since: str | None = None
    also_dies: str = ""
    page: str = ""
    old_page: str = ""
    ask: str = ""
    part: str = "secret"
    replace: Replace | None = None
    managed: bool = False
    successor: Used | None = None
    notes: tuple[str, ...] = ()

    def step(self, name: str) -> Planned:
        """Return the step called so; `KeyError` if there is none."""
        for planned in self.steps:
            if planned.name == name:
                return planned
        raise KeyError(name)

    def index(self, name: str) -> int:
        """Return where the step stands, from 0."""
        return next(i for i, s in enumerate(self.steps) if s.name == name)

    @property
    def makes(self) -> Planned | None:
        """Return the step that makes and stores the new key, if there is one."""
        return next((s for s in self.steps if s.name == "create"), None)

    @property
    def way(self) -> Planned | None:
        """Return the step that sees the new way work, if the run sets one up."""
        return next((s for s in self.steps if s.action is Action.WORKS), None)

    def open_settings(self) -> list[str]:
        """Return the settings that still have to be given, as `--set` names them."""
        found = [name for name, page in (("create.open", self.page), ("retire.open", self.old_page)) if page == OPEN]
        owners = [("issuer", self.issuer), ("store", self.store), ("replace", self.successor)]
        owners += [(f"consumers.{i}", c) for i, c in enumerate(self.consumers)]
        owners += [(f"sessions.{i}", s) for i, s in enumerate(self.sessions)]
        for prefix, used in owners:
            if used is None:
                continue
            if used.name == OPEN:
                found.append(f"{prefix}.use")
            found += [f"{prefix}.{name}" for name, value in used.settings.items() if value == OPEN]
        return found


def plan(book: Playbook, mode: Mode, facts: Facts) -> Plan:
    """Return the plan. `facts` must have as many consumers and session killers as the playbook."""
    values = {f"old.{name}": value for name, value in facts.public.items()} | {"key": facts.short}

    def used(name: str, settings: Mapping[str, str]) -> Used:
        return Used(name, {k: fill(v, values) for k, v in settings.items()})

    style = facts.issuer.style if facts.issuer else None
    compiler = _Compiler(book, mode, facts)
    return Plan(
        playbook=book.id,
        digest=book.digest,
        title=book.title,
        mode=mode,
        credential=facts.credential,
        short=facts.short,
        kind=facts.kind,
        style=style,
        issuer=used(book.issuer, book.issuer_settings) if book.issuer else None,
        store=used(book.store.use, book.store.settings) if book.store else None,
        consumers=tuple(used(c.use, c.settings) for c in book.consumers),
        sessions=tuple(used(s.use, s.settings) for s in book.sessions),
        write=dict(book.store.write) if book.store else {},
        steps=tuple(compiler.steps()),
        approval_seconds=span(book.approvals.expire).total_seconds(),
        since=facts.since,
        also_dies=facts.issuer.also_dies if facts.issuer else "",
        page=book.create.open if book.create else "",
        old_page=book.retire.open,
        ask=book.create.ask if book.create else "",
        part=book.create.part if book.create else "secret",
        replace=book.replace,
        managed=book.store is not None and book.store.managed,
        successor=used(book.replace.use, book.replace.settings) if book.replace and book.replace.use else None,
        notes=tuple(compiler.notes()),
    )


class _Compiler:
    """One method a slot; the order of the slots is in `steps`."""

    def __init__(self, book: Playbook, mode: Mode, facts: Facts) -> None:
        self.book, self.mode, self.facts, self.issuer = book, mode, facts, facts.issuer
        self.urgent = mode is Mode.EMERGENCY
        self.by_hand = book.create is not None and book.create.by is By.PERSON
        self.makes = book.create is not None and (self.by_hand or self.style is not Style.REVOKE)
        self.in_place = self.makes and not self.by_hand and self.style is Style.REPLACE
        self.way = facts.successor if book.replace is not None and book.replace.use else None
        killers = list(enumerate(facts.sessions))
        self.early = [i for i, s in killers if self.urgent and s.reversible]
        self.lifted = [i for i, s in killers if i in self.early and s.stops_new]
        self.late = [i for i, s in killers if i not in self.early and not s.stops_new]

    @property
    def style(self) -> Style | None:
        return self.issuer.style if self.issuer else None

    def steps(self) -> Iterator[Planned]:
        """Graceful: make, deploy, drain, disable, soak, delete. Emergency: contain first, then the same, unhurried."""
        yield from self.evidence()
        contained = self.urgent and self.can_disable and self.book.contain.disable
        if contained:
            yield self.disable("contain", Slot.CONTAIN, "Stop the leaked key at once: disable it")
        for i in self.early:
            yield self.session(i, Slot.CONTAIN)
        if self.makes:
            yield from self.create(contained=contained)
        if self.way is not None:
            yield from self.successor(self.way)
        if not self.in_place and not (self.way is not None and self.way.displaces):
            yield from self.retire(contained=contained)
        if not self.makes:
            yield from self.lift(contained=True)
        for i in self.late:
            yield self.session(i, Slot.RETIRE)
        yield self.prove()
        if self.book.replace is not None and self.way is None:
            title = f"Suggest what makes this key unnecessary: {self.book.replace.suggest}"
            yield self.step("replace", Slot.REPLACE, Action.SUGGEST, title, Effect.READS)

    def step(  # noqa: PLR0913  # one place where policy meets effect; a step has that many nouns
        self, name: str, slot: Slot, action: Action, title: str, effect: Effect, *, undo: str = "", rights: str = "",
        hand: int = 0, times: int = 0, seconds: float = 0.0, every: float = 0.0, limit: float = 0.0, least: int = 0,
    ) -> Planned:  # fmt: skip
        needs = {
            Effect.READS: Need.NONE,
            Effect.ADDS: self.book.approvals.adds,
            Effect.CHANGES: self.book.approvals.changes,
            Effect.DESTROYS: self.book.approvals.destroys,
        }
        return Planned(
            name=name,
            slot=slot,
            action=action,
            title=title,
            effect=effect,
            permissions=self.rights(action, rights, hand),
            undo=undo,
            approvals=max(least, needs[effect].people),
            hand=hand,
            times=times,
            seconds=seconds,
            every=every,
            limit=limit,
        )

    def rights(self, action: Action, names: str, hand: int) -> tuple[str, ...]:
        """Return the rights that a step needs; `names` are the issuer's own names of what it does."""
        issuer = self.issuer.permissions if self.issuer else {}
        store = self.facts.store.permissions if self.facts.store else {}
        found = [right for name in names.split() for right in issuer.get(name, ())]
        if action in {Action.MINT, Action.ENTER}:
            found += [r for name in ("current", "put") for r in store.get(name, ())]
        if action is Action.PUSH:
            found += [r for rights in self.facts.consumers[hand].permissions.values() for r in rights]
        if action in {Action.SESSIONS, Action.LIFT}:
            found += [r for rights in self.facts.sessions[hand].permissions.values() for r in rights]
        if action in {Action.SETUP, Action.WORKS} and self.facts.successor is not None:
            found += self.facts.successor.permissions.get("setup" if action is Action.SETUP else "check", ())
        return tuple(dict.fromkeys(found))

    # ── slots ──────────────────────────────────────────────────────────────────────────────────────────

    def evidence(self) -> Iterator[Planned]:
        if self.issuer is not None:
            title = "Ask whose key it is, what it may do and what it did (bounded in time, stops nothing)"
            seconds = span(self.book.evidence.within).total_seconds()
            yield self.step(
                "evidence", Slot.EVIDENCE, Action.EVIDENCE, title, Effect.READS, rights="evidence", seconds=seconds
            )
        title = "Find exactly this key at its issuer; check rights and room" if self.issuer else "Check the store"
        yield self.step("preflight", Slot.EVIDENCE, Action.PREFLIGHT, title, Effect.READS, rights="locate")

    def create(self, *, contained: bool) -> Iterator[Planned]:
        store = self.book.store.use if self.book.store else ""
        if self.issuer is not None and self.issuer.makes_room and not self.by_hand:
            title = (
                "If the owner has no room: delete the one key that is inactive and was never used, not the leaked one"
            )
            yield self.step("room", Slot.CREATE, Action.ROOM, title, Effect.DESTROYS, rights="retire")
        title = "Note which keys the owner has and what the store holds"
        yield self.step("snapshot", Slot.CREATE, Action.SNAPSHOT, title, Effect.READS)
        back = "bring back the store's former version, retire the new key"
        if self.by_hand and self.book.create is not None:
            title = f"A person makes the new key at {_page(self.book.create.open)}; keep it in {store}"
            back = "bring back the store's former version (a person deletes the new key)"
            yield self.step("create", Slot.CREATE, Action.ENTER, title, Effect.ADDS, undo=back)
        elif self.in_place and self.book.store is not None and self.book.store.managed:
            title = "Have the issuer set and keep a new secret, which kills the old one in the same moment"
            yield self.step("create", Slot.CREATE, Action.APPLY, title, Effect.DESTROYS, rights="apply")
        elif self.in_place:
            title = f"Make a new secret on this machine and keep it in {store} (one step); the old one still stands"
            back = "bring back the store's former version"
            yield self.step("create", Slot.CREATE, Action.MINT, title, Effect.ADDS, undo=back, rights="mint")
            title = "Set the stored secret at the issuer, which kills the old one in the same moment"
            if self.issuer is not None and self.issuer.also_dies:
                title = f"{title} ({self.issuer.also_dies})"
            yield self.step("apply", Slot.CREATE, Action.APPLY, title, Effect.DESTROYS, rights="apply")
        else:
            title = f"Make a new key and keep it in {store} (one step)"
            yield self.step("create", Slot.CREATE, Action.MINT, title, Effect.ADDS, undo=back, rights="mint retire")
        yield from self.lift(contained=contained)
        v = self.book.verify
        title = f"The new key, read back from the store, is accepted {plural(v.times, 'time')} in a row"
        yield self.step(
            "verify", Slot.VERIFY, Action.VERIFY, title, Effect.READS,
            times=v.times, seconds=span(v.within).total_seconds(), every=span(v.every).total_seconds(),
        )  # fmt: skip
        for i, consumer in enumerate(self.book.consumers):
            undo = "hand back the former value" if not self.in_place else ""
            title = f"Give the new key to {consumer.use}"
            yield self.step(f"consumer-{i + 1}", Slot.CONSUMERS, Action.PUSH, title, Effect.CHANGES, undo=undo, hand=i)

    def lift(self, *, contained: bool) -> Iterator[Planned]:
        """Take back what stops the new key as well. Where nothing else holds the leaked one, somebody agrees to it."""
        for i in self.lifted:
            name = self.book.sessions[i].use
            title = f"Let the owner act again, which {name} stopped along with the leaked key"
            if not contained:
                title = f"{title}; that one works again from here until it is retired"
            undo = "nothing: what was stopped for the rotation stays open, as it was before"
            yield self.step(
                f"lift-{i + 1}", Slot.CONTAIN, Action.LIFT, title, Effect.CHANGES, undo=undo, hand=i,
                least=0 if contained else 1,
            )  # fmt: skip

    def successor(self, way: HandFacts) -> Iterator[Planned]:
        """Set up what makes the key unnecessary, with a name under it, and see it work before the old key goes."""
        if way.displaces and self.makes:
            use = self.book.replace.use if self.book.replace else ""
            raise Unfit(f"{use} takes the key's own place: leave out [create] and [store], or replace.use")
        title, undo = f"Set up what makes this key unnecessary: {way.about}", "remove it, or bring its former self back"
        if way.displaces:
            title = f"{title}. That ends the leaked key in the same moment"
        if way.reversible:
            yield self.step("successor", Slot.REPLACE, Action.SETUP, title, Effect.CHANGES, undo=undo, least=1)
        else:
            yield self.step("successor", Slot.REPLACE, Action.SETUP, title, Effect.DESTROYS)
        yield self.step("successor-check", Slot.REPLACE, Action.WORKS, "The new way works: log in by it", Effect.READS)

    def notes(self) -> Iterator[str]:
        """Say what the playbook names and this plan leaves out, and why."""
        for i, s in enumerate(self.facts.sessions):
            if s.stops_new and i not in self.early:
                name = self.book.sessions[i].use
                yield f"{name} is left out: it would stop the new key too; it is for --mode emergency"

    def retire(self, *, contained: bool) -> Iterator[Planned]:
        r = self.book.retire
        goes_on = self.makes or self.way is not None
        if goes_on and not self.urgent and span(r.drain).total_seconds() > 0:
            title = f"Wait until the old key has not been used for {r.drain}"
            yield self.wait("drain", Action.DRAIN, title, r.drain)
        if self.can_disable and r.disable and not contained:
            yield self.disable("disable", Slot.RETIRE, "Disable the old key")
            if r.delete and not self.urgent and span(r.soak).total_seconds() > 0:
                yield self.wait("soak", Action.SOAK, f"Wait {r.soak}, in case somebody still needs the old key", r.soak)
        if not r.delete:
            return
        if self.issuer is not None and self.style is Style.REPLACE and not self.makes:
            title = f"Set a secret that nobody keeps, which ends the leaked one for good ({self.issuer.also_dies})"
            yield self.step("delete", Slot.RETIRE, Action.DELETE, title, Effect.DESTROYS, rights="apply")
            return
        if self.style is Style.REPLACE or self.issuer is None:
            title = f"A person deletes the old key at {_page(r.open)}"
            yield self.step("delete", Slot.RETIRE, Action.HAND_DELETE, title, Effect.DESTROYS)
            return
        title = "Delete the old key for good"
        if self.style is Style.REVOKE:
            title = "Revoke the leaked key with itself, for good" + (
                "" if self.makes or self.way else ": it has no successor"
            )
        if self.issuer.also_dies:
            title = f"{title} ({self.issuer.also_dies})"
        yield self.step("delete", Slot.RETIRE, Action.DELETE, title, Effect.DESTROYS, rights="retire")

    def prove(self) -> Planned:
        p = self.book.prove
        window = max(span(p.window).total_seconds(), self.issuer.propagation if self.issuer else 0.0)
        title = f"Prove the old key dead: {plural(p.times, 'refusal')} in a row over {_said(window)}"
        every = max(0.5, window / (2 * p.times))
        return self.step(
            "prove", Slot.PROVE, Action.PROVE, title, Effect.READS,
            times=p.times, seconds=window, every=min(every, 300.0), limit=span(p.give_up).total_seconds(),
        )  # fmt: skip

    # ── pieces ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def can_disable(self) -> bool:
        """Say whether the old key can be disabled alone: not where old and new are one account."""
        taken_over = self.way is not None and self.way.displaces
        return self.issuer is not None and self.issuer.reversible and not self.in_place and not taken_over

    def disable(self, name: str, slot: Slot, title: str) -> Planned:
        return self.step(name, slot, Action.DISABLE, title, Effect.CHANGES, undo="enable it again", rights="disable")

    def wait(self, name: str, action: Action, title: str, duration: Duration) -> Planned:
        seconds = span(duration).total_seconds()
        every = min(3600.0, max(1.0, seconds / 8))
        return self.step(name, Slot.RETIRE, action, title, Effect.READS, seconds=seconds, every=every)

    def session(self, i: int, slot: Slot) -> Planned:
        facts, name = self.facts.sessions[i], self.book.sessions[i].use
        effect = Effect.CHANGES if facts.reversible else Effect.DESTROYS
        undo = "take the denial back" if facts.reversible else ""
        title = f"End what the old key opened ({name})"
        return self.step(f"sessions-{i + 1}", slot, Action.SESSIONS, title, effect, undo=undo, hand=i)


def _page(address: str) -> str:
    return "the provider's page" if address == OPEN else address


def _said(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
