"""Playbooks for the small world, a journal in memory, and a driver that moves the world's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from world import KIND, OLD, START, SimConsumer, SimIssuer, SimSessions, SimStore, SimSuccessor, Small, old

from playbooks.journal import Entry, Taken, Unknown, What
from playbooks.plan import Facts, HandFacts, IssuerFacts, Mode, Plan, plan
from playbooks.specfile import parse
from rotators.step import Done, Outcome, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from playbooks.engine import Engine
    from verifier.model import CredentialID

BOOK = """
id = "sim"
title = "A key of the small world"
for = ["sim_key"]
issuer = "sim"
[store]
use = "simstore"
write = { key_id = "{new.id}", key_secret = "{new.secret}" }
[create]
[verify]
times = 3
within = "60s"
every = "2s"
[[consumers]]
use = "simconsumer"
[[sessions]]
use = "simsessions"
[retire]
drain = "2s"
soak = "3s"
[prove]
times = 3
window = "6s"
[replace]
suggest = "use sessions"
"""
IN_PLACE = BOOK.replace("[retire]", "[approvals]\ndestroys = 'one'\n[retire]")
MANAGED = IN_PLACE.replace('use = "simstore"', 'use = "simstore"\nmanaged = true')
REVOKE = """
id = "sim-revoke"
title = "A key that revokes itself"
for = ["sim_key"]
issuer = "sim"
[prove]
times = 3
window = "5s"
"""
WAY = """
id = "sim-way"
title = "A key whose place a role takes"
for = ["sim_key"]
issuer = "sim"
[[sessions]]
use = "simsessions"
[retire]
drain = "2s"
soak = "3s"
[prove]
times = 3
window = "6s"
[replace]
suggest = "a role"
use = "simsuccessor"
"""
BOTH = BOOK.replace('suggest = "use sessions"', 'suggest = "a role"\nuse = "simsuccessor"')
PERSON = """
id = "sim-person"
title = "No API"
for = ["sim_key"]
[store]
use = "simstore"
write = { key_id = "{old.id}", key_secret = "{new.secret}" }
[create]
by = "person"
open = "https://provider.example/keys"
ask = "New secret"
[verify]
times = 1
[retire]
open = "https://provider.example/keys"
[prove]
times = 2
window = "1s"
"""


def facts(small: Small, text: str) -> Facts:
    book = parse(text.encode(), "book.toml")
    issuer = SimIssuer(small) if book.issuer else None
    return Facts(
        credential=old().id,
        short="sim-000000",
        kind=KIND,
        public={"id": OLD},
        since=START.isoformat(),
        issuer=IssuerFacts(
            issuer.style,
            issuer.reversible,
            issuer.propagation.total_seconds(),
            issuer.permissions,
            issuer.also_dies,
            issuer.makes_room,
        )
        if issuer
        else None,
        store=HandFacts(SimStore.permissions) if book.store else None,
        consumers=tuple(HandFacts(SimConsumer.permissions) for _ in book.consumers),
        sessions=tuple(
            HandFacts(SimSessions.permissions, SimSessions(small).reversible, SimSessions(small).stops_new)
            for _ in book.sessions
        ),
        successor=_way(SimSuccessor(small)) if book.replace and book.replace.use else None,
    )


def _way(way: SimSuccessor) -> HandFacts:
    return HandFacts(way.permissions, way.reversible, displaces=way.displaces(old()), about=way.about())


def planned(small: Small, text: str = BOOK, mode: Mode = Mode.GRACEFUL) -> Plan:
    return plan(parse(text.encode(), "book.toml"), mode, facts(small, text))


class Remembered:
    """A journal in memory. `tick` is called before and after every write: where a test crashes."""

    def __init__(self, now: Callable[[], datetime], tick: Callable[[str], None] = lambda _: None) -> None:
        self.now, self.tick = now, tick
        self.rows: list[tuple[str, CredentialID, Entry]] = []

    def _ended(self, run: str) -> bool:
        return any(r == run and e.what is What.ENDED for r, _, e in self.rows)

    def start(self, run: str, credential: CredentialID, text: str, data: Mapping[str, str]) -> int:
        for r, c, e in self.rows:
            if e.what is What.STARTED and c == credential and not self._ended(r):
                raise Taken(r, "this key")
        return self._add(run, credential, "", What.STARTED, text, data)

    def claim(self, run: str, resource: str) -> None:
        held = [r for r, _, e in self.rows if e.what is What.CLAIMED and e.step == resource and not self._ended(r)]
        if others := [r for r in held if r != run]:
            raise Taken(others[0], resource)
        if not held:
            self._add(run, self._of(run), resource, What.CLAIMED, "", {})

    def append(self, run: str, step: str, what: What, text: str = "", data: Mapping[str, str] | None = None) -> int:
        return self._add(run, self._of(run), step, what, text, data or {})

    def _of(self, run: str) -> CredentialID:
        for r, c, _ in self.rows:
            if r == run:
                return c
        raise Unknown(run)

    def _add(
        self, run: str, credential: CredentialID, step: str, what: What, text: str, data: Mapping[str, str]
    ) -> int:
        self.tick(f"journal {step} {what}")
        entry = Entry(len(self.rows) + 1, self.now(), step, what, text, dict(data))
        self.rows.append((run, credential, entry))
        self.tick(f"journalled {step} {what}")
        return entry.seq

    def entries(self, run: str) -> Sequence[Entry]:
        return [e for r, _, e in self.rows if r == run]

    def open_runs(self) -> Sequence[str]:
        return [r for r, _, e in self.rows if e.what is What.STARTED and not self._ended(r)]


def drive(engine: Engine, small: Small, run: str, *, approve: str | None = "ann", most: int = 400) -> Outcome:
    """Go on as long as only time or an approval is missing, moving the world's clock; return what stopped it."""
    outcome: Outcome = Done()
    for _ in range(most):
        outcome = engine.advance(run)
        match outcome:
            case Waiting(on="time", until=until):
                assert until is not None
                small.pass_time(max(0.01, (until - small.now()).total_seconds()))
            case Waiting(on="approval") if approve is not None:
                engine.approve(run, approve)
            case _:
                return outcome
    raise AssertionError(f"no end: {outcome}")
