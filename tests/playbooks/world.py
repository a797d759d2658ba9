# the contracts' arguments, whether needed or not
"""A small world in one SQLite database: an issuer, a store, a consumer, sessions. It outlives the process that acts.

It models what makes rotation hard: new keys that are refused for a while and flap, deleted keys that go on working,
full slots, colleagues who make keys and write to the store, calls whose answer is lost, an API that is down.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from playbooks.world import World
from rotators.interface import Fact, KeyRef, Minted, Presence, ProviderError, State, Stored, Style, Trouble
from rotators.step import Done, Failed, Outcome, Waiting
from verifier.model import (
    Credential,
    CredentialID,
    Dead,
    Doubt,
    Evidence,
    How,
    Identity,
    KindID,
    Live,
    Parts,
    Undecided,
    Verdict,
)
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from playbooks.plan import Plan

KIND = KindID("sim_key")
OWNER = "bot"
OLD = "K-old"
START = datetime(2026, 5, 1, tzinfo=UTC)

_TABLES = """
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, owner TEXT, secret TEXT, state TEXT, created REAL,
  live_from REAL, dead_from REAL, used REAL, label TEXT, creator TEXT);
CREATE TABLE IF NOT EXISTS store (version INTEGER PRIMARY KEY, fields TEXT, run TEXT);
CREATE TABLE IF NOT EXISTS consumer (id INTEGER PRIMARY KEY, fields TEXT, run TEXT);
CREATE TABLE IF NOT EXISTS touched (id TEXT, what TEXT);
CREATE TABLE IF NOT EXISTS looks (key TEXT, at REAL, said TEXT);
CREATE TABLE IF NOT EXISTS trouble (op TEXT, kind TEXT, times INTEGER);
CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, denied INTEGER);
CREATE TABLE IF NOT EXISTS ways (name TEXT PRIMARY KEY, run TEXT, spec TEXT);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT);
"""


class Small:
    """The world's state and its people. `tick` is called before and after every change: where a test crashes."""

    def __init__(self, path: Path | str = ":memory:", tick: Callable[[str], None] = lambda _: None) -> None:
        self.path, self.tick = path, tick
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        if path != ":memory:":
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=OFF")  # kill -9 loses no page that the system has
        self.db.executescript(_TABLES)

    # ── settings and the clock ─────────────────────────────────────────────────────────────────────────

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            self.db.execute("INSERT OR REPLACE INTO settings VALUES (?,?)", (name, json.dumps(value)))

    def get(self, name: str, default: Any = None) -> Any:
        row = self.db.execute("SELECT value FROM settings WHERE name=?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def seconds(self) -> float:
        """Return the time in seconds since START; a `clock` that a test set stands still until it is moved."""
        at = self.get("clock")
        return time.time() - START.timestamp() if at is None else float(at)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds())

    def pass_time(self, seconds: float) -> None:
        self.set(clock=self.seconds() + seconds)

    def begin(self, *, stored: bool = True) -> None:
        """Put a live, leaked key into the world, the store and the consumer."""
        self.db.execute(
            "INSERT OR IGNORE INTO keys VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                OLD,
                OWNER,
                "old-planted-secret",
                "active",
                self.seconds() - 9e6,
                -9e9,
                None,
                self.seconds() - 9e5,
                "",
                "x",
            ),
        )
        if stored and not self.db.execute("SELECT 1 FROM store").fetchone():
            fields = json.dumps({"key_id": OLD, "key_secret": "old-planted-secret"})
            self.db.execute("INSERT INTO store VALUES (1, ?, '')", (fields,))
            self.db.execute("INSERT OR REPLACE INTO consumer VALUES (1, ?, '')", (fields,))

    def trouble(self, op: str, kind: Trouble | str, times: int = 1) -> None:
        """Make the next `times` calls of `op` fail so; `lost` acts first, then fails."""
        self.db.execute("INSERT INTO trouble VALUES (?,?,?)", (op, str(kind), times))

    def _trip(self, op: str, *, after: bool) -> None:
        row = self.db.execute("SELECT rowid, kind, times FROM trouble WHERE op=? AND times>0", (op,)).fetchone()
        if row is None or (row[1] == "lost") is not after:
            return
        self.db.execute("UPDATE trouble SET times=times-1 WHERE rowid=?", (row[0],))
        kind = Trouble.LATER if row[1] == "lost" else Trouble(row[1])
        wait = self.get("retry_after")
        raise ProviderError(kind, f"{op}: {row[1]}", None if wait is None else timedelta(seconds=wait))

    def act(self, op: str, work: Callable[[], Any]) -> Any:
        """One change: it may be refused before, its answer may be lost after, the process may die on either side."""
        self.tick(f"before {op}")
        self._trip(op, after=False)
        result = work()
        self.tick(f"after {op}")
        self._trip(op, after=True)
        return result

    # ── others ─────────────────────────────────────────────────────────────────────────────────────────

    def colleague_makes(self) -> str:
        name = f"K-colleague-{secrets.token_hex(3)}"
        now = self.seconds()
        self.db.execute(
            "INSERT INTO keys VALUES (?,?,?,'active',?,?,NULL,NULL,'','colleague')", (name, OWNER, "theirs", now, now)
        )
        return name

    def spare(self) -> str:
        """Put a second key of the owner there that is disabled and was never used, and leave no room for a third."""
        name = self.colleague_makes()
        self.db.execute("UPDATE keys SET state='disabled', creator='spare' WHERE id=?", (name,))
        self.set(slots=2, makes_room=True)
        return name

    def colleague_writes(self) -> None:
        top = self.db.execute("SELECT max(version) FROM store").fetchone()[0] or 0
        self.db.execute(
            "INSERT INTO store VALUES (?, ?, '')", (top + 1, json.dumps({"key_id": "x", "key_secret": "y"}))
        )

    def land(self) -> None:
        """Let what was under way when its process died come out: a key, and a write if the store is as it expects."""
        if (key := self.get("asked_for")) is not None:
            self.set(asked_for=None)
            self.db.execute("INSERT INTO keys VALUES (?,?,?,'active',?,?,NULL,NULL,?,'us')", key)
        if (late := self.get("under_way")) is not None:
            self.set(under_way=None)
            top = self.db.execute("SELECT max(version) FROM store").fetchone()[0] or 0
            if str(top or "") == late[0]:
                self.db.execute("INSERT INTO store VALUES (?, ?, ?)", (top + 1, *late[1:]))

    # ── what tests ask ─────────────────────────────────────────────────────────────────────────────────

    def keys(self, creator: str | None = None) -> list[str]:
        rows = self.db.execute("SELECT id, creator FROM keys WHERE state != 'gone'")
        return [name for name, who in rows if creator in {None, who}]

    def accepted(self, name: str, secret: str) -> bool:
        """Whether the provider accepts this key now, propagation included."""
        row = self.db.execute("SELECT secret, state, live_from, dead_from FROM keys WHERE id=?", (name,)).fetchone()
        if row is None or (self.get("stops_new") and self.denied() == 1):
            return False
        now = self.seconds()
        if row[0] != secret:
            former = self.db.execute("SELECT what FROM touched WHERE id=? AND what LIKE 'was:%'", (name,)).fetchall()
            return any(w == f"was:{secret}" for (w,) in former) and row[3] is not None and now < row[3]
        if row[1] == "active":
            if now >= row[2]:
                return True
            return bool(self.get("flaps")) and secrets.randbelow(2) == 1 and now > row[2] - 1
        return row[3] is not None and now < row[3]

    def stored(self) -> dict[str, str]:
        row = self.db.execute("SELECT fields FROM store ORDER BY version DESC").fetchone()
        return {} if row is None else dict(json.loads(row[0]))

    def store_works(self) -> bool:
        held = self.stored()
        row = self.db.execute("SELECT secret, state FROM keys WHERE id=?", (held.get("key_id"),)).fetchone()
        return row is not None and row == (held["key_secret"], "active")

    def way(self) -> tuple[str, str] | None:
        """Return the new way, as (run, spec)."""
        row = self.db.execute("SELECT run, spec FROM ways WHERE name='app'").fetchone()
        return None if row is None else (row[0], row[1])

    def at_consumer(self) -> dict[str, str]:
        return dict(json.loads(self.db.execute("SELECT fields FROM consumer WHERE id=1").fetchone()[0]))

    def denied(self) -> int:
        """1: the owner is stopped; 2: only older sessions are; 0: nothing is."""
        row = self.db.execute("SELECT denied FROM sessions").fetchone()
        return 0 if row is None else int(row[0])

    def harmed(self) -> list[tuple[str, str]]:
        """Keys of others that were changed."""
        sql = "SELECT t.id, t.what FROM touched t JOIN keys k ON k.id=t.id WHERE k.creator='colleague'"
        return list(self.db.execute(sql))

    # ── the verifier's stand-in ────────────────────────────────────────────────────────────────────────

    def probe(self, credential: Credential) -> Verdict:
        name, secret = credential.parts["id"].reveal(), credential.parts["secret"].reveal()
        self.tick("probe")
        evidence = Evidence("GET https://sim/", 200, "{}", "0" * 64, "sim@0", self.now(), "sim")
        row = self.db.execute("SELECT rowid FROM trouble WHERE op='probe' AND times>0").fetchone()
        if row is not None:
            self.db.execute("UPDATE trouble SET times=times-1 WHERE rowid=?", row)
            return Undecided(Doubt.UNREACHABLE, note="down")
        said = self.accepted(name, secret)
        self.db.execute("INSERT INTO looks VALUES (?,?,?)", (name, self.seconds(), "live" if said else "dead"))
        return Live(evidence, Identity(principal=OWNER)) if said else Dead(evidence, How.REVOKED)

    def world(self, ask: Callable[[str], Secret | None] = lambda _: None) -> Callable[[Plan], World]:
        def of(plan: Plan) -> World:
            return World(
                old=old(),
                issuer=SimIssuer(self) if plan.issuer else None,
                store=SimStore(self) if plan.store else None,
                consumers=tuple(SimConsumer(self) for _ in plan.consumers),
                sessions=tuple(SimSessions(self) for _ in plan.sessions),
                probe=self.probe,
                print_of=print_of,
                ask=ask,
                now=self.now,
                successor=SimSuccessor(self) if plan.successor else None,
            )

        return of


def old() -> Credential:
    parts = {"id": Secret(OLD), "secret": Secret("old-planted-secret")}
    return Credential(CredentialID("sim-" + "0" * 32), KIND, parts)


def print_of(parts: Parts) -> str:
    row = sorted((n, v.reveal()) for n, v in parts.items())
    return sha256(json.dumps(row).encode()).hexdigest()


class SimIssuer:
    name = "sim"
    kinds: tuple[str, ...] = (KIND,)
    permissions: Mapping[str, tuple[str, ...]] = {
        n: (f"sim:{n}",) for n in ("locate", "mint", "disable", "enable", "retire", "evidence")
    }
    also_dies = ""

    def __init__(self, small: Small) -> None:
        self.w = small
        self.style = Style(small.get("style", "displace"))
        self.reversible = bool(small.get("reversible", True))
        self.propagation = timedelta(seconds=small.get("propagation", 4))
        self.makes_room = bool(small.get("makes_room"))

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:
        self.w._trip("preflight", after=False)
        return [Fact("rights", "enough")]

    def room(self, ref: KeyRef) -> KeyRef | None:
        keys = self.siblings(ref)
        if len(keys) < self.w.get("slots", 10):
            return None
        spare = [k for k in keys if k.id != ref.id and k.state is State.DISABLED and k.never_used]
        if not spare or not self.makes_room:
            raise ProviderError(Trouble.FULL, "the owner has no room for another key")
        return spare[0]

    def locate(self, old: Credential) -> KeyRef:
        self.w._trip("locate", after=False)
        for ref in self._all():
            if ref.id == old.parts["id"].reveal():
                held = self.w.db.execute("SELECT secret FROM keys WHERE id=?", (ref.id,)).fetchone()[0]
                if ref.state is State.GONE or (self.style is Style.REPLACE and held != old.parts["secret"].reveal()):
                    break
                return ref
        raise ProviderError(Trouble.GONE, "the issuer has no such key")

    def _all(self) -> list[KeyRef]:
        return [
            KeyRef(
                i, o, State(s), START + timedelta(seconds=c), None if u is None else START + timedelta(seconds=u),
                u is None, label,
            )
            for i, o, s, c, u, label in self.w.db.execute("SELECT id, owner, state, created, used, label FROM keys")
        ]  # fmt: skip

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        return [k for k in self._all() if k.owner == ref.owner and k.state is not State.GONE]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        secret = f"planted-new-{secrets.token_hex(8)}"
        lag = float(self.w.get("lag_new", 3))
        now = self.w.seconds()

        def beside() -> KeyRef:
            if len(self.w.keys()) >= self.w.get("slots", 10):
                raise ProviderError(Trouble.FULL, "the owner has no room for another key")
            name = f"K-{secrets.token_hex(4)}"
            label = marker if self.w.get("marks", True) else ""
            if self.w.get("mint_late"):
                self.w.set(mint_late=False, asked_for=[name, ref.owner, secret, now, now + lag, label])
                self.w.tick("during mint")
            self.w.db.execute(
                "INSERT INTO keys VALUES (?,?,?,'active',?,?,NULL,NULL,?,'us')",
                (name, ref.owner, secret, now, now + lag, label),
            )
            return KeyRef(name, ref.owner, created=START + timedelta(seconds=now), label=label)

        made: KeyRef = ref if self.style is Style.REPLACE else self.w.act("mint", beside)
        return Minted(made, {"id": Secret(made.id), "secret": Secret(secret)})

    def apply(self, ref: KeyRef, parts: Parts) -> None:
        def work() -> None:
            before = self.w.db.execute("SELECT secret FROM keys WHERE id=?", (ref.id,)).fetchone()[0]
            if self.w.get("managed"):  # as Vault's static roles: it makes and keeps the value itself
                secret = f"planted-new-{secrets.token_hex(8)}"
                top = self.w.db.execute("SELECT max(version) FROM store").fetchone()[0]
                fields = json.dumps({"key_id": ref.id, "key_secret": secret})
                self.w.db.execute("INSERT INTO store VALUES (?,?,'')", (top + 1, fields))
            else:
                secret = parts["secret"].reveal()
            if before == secret:
                return
            self.w.db.execute("INSERT INTO touched VALUES (?,?)", (ref.id, f"was:{before}"))
            dead = self.w.seconds() + float(self.w.get("lag_dead", 0))
            self.w.db.execute("UPDATE keys SET secret=?, dead_from=? WHERE id=?", (secret, dead, ref.id))

        self.w.act("apply", work)

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        self.w._trip("orphans", after=False)
        if self.style is not Style.DISPLACE or self.w.get("blind"):
            return []  # blind: an audit log that lags, and no marks
        whose = "SELECT id FROM keys WHERE creator='us' OR ?"  # as an audit log would tell; without one nobody does
        ours = {r[0] for r in self.w.db.execute(whose, (bool(self.w.get("no_audit")),))}
        found = []
        for key in self.siblings(ref):
            marked = bool(key.label) and key.label == marker
            lost = key.id in ours and not key.label and key.id not in before and key.never_used
            if marked or (lost and key.created is not None and key.created >= since):
                found.append(key)
        return found

    def _set(self, ref: KeyRef, state: str, op: str) -> None:
        def work() -> None:
            dead = self.w.seconds() + float(self.w.get("lag_dead", 0))
            held = self.w.db.execute("SELECT state, dead_from FROM keys WHERE id=?", (ref.id,)).fetchone()
            if held is None or held[0] == "gone" or (self.w.get("deaf") and op == "retire"):
                return  # deaf: accepted, says the provider, and does nothing
            dead = held[1] if held[0] == "disabled" and held[1] is not None else dead
            self.w.db.execute("INSERT INTO touched VALUES (?,?)", (ref.id, op))
            self.w.db.execute("UPDATE keys SET state=?, dead_from=? WHERE id=?", (state, dead, ref.id))

        self.w.act(op, work)

    def disable(self, ref: KeyRef) -> None:
        self._set(ref, "disabled", "disable")

    def enable(self, ref: KeyRef) -> None:
        self._set(ref, "active", "enable")

    def retire(self, ref: KeyRef) -> None:
        self._set(ref, "gone", "retire")

    def state(self, ref: KeyRef) -> State:
        row = self.w.db.execute("SELECT state FROM keys WHERE id=?", (ref.id,)).fetchone()
        return State.GONE if row is None else State(row[0])

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:
        time.sleep(float(self.w.get("slow_evidence", 0)))
        self.w._trip("evidence", after=False)
        return [Fact("owner", ref.owner), Fact("could read", "secret/other")]


class SimStore:
    name = "simstore"
    permissions: Mapping[str, tuple[str, ...]] = {"current": ("sim:read",), "put": ("sim:write",)}

    def __init__(self, small: Small) -> None:
        self.w = small

    def preflight(self) -> Sequence[Fact]:
        self.w._trip("store preflight", after=False)
        return [Fact("store", "is there")]

    def current(self) -> Stored | None:
        row = self.w.db.execute("SELECT version, run FROM store ORDER BY version DESC").fetchone()
        return None if row is None else Stored(str(row[0]), row[1])

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Write; a write that is `put_late` is not seen before `land`: its process dies on the way."""
        text = json.dumps({n: v.reveal() for n, v in fields.items()})
        if self.w.get("put_late"):
            self.w.set(put_late=False, under_way=[expected.version if expected else "", text, run])
            self.w.tick("during put")

        def work() -> Stored:
            if self.w.get("rival") and not self.w.get("rival_done"):
                self.w.set(rival_done=True)
                self.w.colleague_writes()
            held = self.current()
            if held != expected:
                raise ProviderError(Trouble.CONFLICT, "somebody else wrote first")
            version = int(held.version) + 1 if held else 1
            self.w.db.execute("INSERT INTO store VALUES (?,?,?)", (version, text, run))
            return Stored(str(version), run)

        stored: Stored = self.w.act("put", work)
        return stored

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        sql = (
            "SELECT fields FROM store ORDER BY version DESC"
            if version is None
            else "SELECT fields FROM store WHERE version=?"
        )
        row = self.w.db.execute(sql, () if version is None else (int(version),)).fetchone()
        if row is None:
            raise ProviderError(Trouble.GONE, "no such version")
        return {n: Secret(v) for n, v in json.loads(row[0]).items()}

    def restore(self, version: str | None, run: str) -> Stored:
        def work() -> Stored:
            held = self.current()
            if held is None or held.run != run:
                raise ProviderError(Trouble.CONFLICT, "somebody else wrote since")
            fields = "{}"
            if version is not None:
                fields = self.w.db.execute("SELECT fields FROM store WHERE version=?", (int(version),)).fetchone()[0]
            top = int(held.version) + 1
            if self.w.get("restore_late"):
                self.w.set(restore_late=False, under_way=[held.version, fields, f"{run}-undo"])
                self.w.tick("during restore")
            self.w.db.execute("INSERT INTO store VALUES (?,?,?)", (top, fields, f"{run}-undo"))
            return Stored(str(top), f"{run}-undo")

        stored: Stored = self.w.act("restore", work)
        return stored


class SimConsumer:
    name = "simconsumer"
    permissions: Mapping[str, tuple[str, ...]] = {"push": ("sim:push",)}

    def __init__(self, small: Small) -> None:
        self.w = small

    def preflight(self) -> Sequence[Fact]:
        self.w._trip("consumer preflight", after=False)
        return [Fact("consumer", "is there")]

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        text = json.dumps({n: v.reveal() for n, v in fields.items()})
        self.w.act("push", lambda: self.w.db.execute("INSERT OR REPLACE INTO consumer VALUES (1,?,?)", (text, run)))
        return Done("given")

    def pushed(self, run: str) -> bool | None:
        row = self.w.db.execute("SELECT run FROM consumer WHERE id=1").fetchone()
        return row is not None and row[0] == run


class SimSessions:
    name = "simsessions"
    permissions: Mapping[str, tuple[str, ...]] = {"kill": ("sim:deny",)}

    def __init__(self, small: Small) -> None:
        self.w = small
        self.reversible = bool(small.get("sessions_reversible", True))
        self.stops_new = bool(small.get("stops_new"))

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:
        self.w._trip("sessions preflight", after=False)
        return [Fact("sessions", "can be ended")]

    def shut(self, old: Credential, ref: KeyRef) -> bool:
        return self.w.denied() == 1

    def lift(self, old: Credential, ref: KeyRef, killed: datetime, moment: datetime) -> Outcome:
        over = killed + timedelta(seconds=self.w.get("lift_after", 0))
        if self.w.now() < over:
            return Waiting("time", over, "sessions are not over yet")
        self.w.act("lift", lambda: self.w.db.execute("INSERT OR REPLACE INTO sessions VALUES (1,2)"))
        return Done("lifted")

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        self.w.act("deny", lambda: self.w.db.execute("INSERT OR REPLACE INTO sessions VALUES (1,1)"))
        return Done("denied", {"possible_until": (moment + timedelta(hours=1)).isoformat()})

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:
        if not self.reversible:
            return Failed("no way back")
        self.w.act("allow", lambda: self.w.db.execute("INSERT OR REPLACE INTO sessions VALUES (1,0)"))
        return Done("allowed")


class SimSuccessor:
    """A role of the small world, with a spec and the run that made it. `way_works` is what a log-in by it says."""

    name = "simsuccessor"
    permissions: Mapping[str, tuple[str, ...]] = {"setup": ("sim:role",), "check": ("sim:login",)}

    def __init__(self, small: Small) -> None:
        self.w = small
        self.reversible = not small.get("way_displaces", False)

    def about(self) -> str:
        return "the role app"

    def displaces(self, old: Credential) -> bool:
        return not self.reversible

    def preflight(self, old: Credential) -> Sequence[Fact]:
        self.w._trip("way preflight", after=False)
        return [Fact("new way", "can be set up")]

    def present(self, old: Credential, run: str) -> Presence:
        held = self.w.way()
        if held is None:
            return Presence.ABSENT
        if held[0] == run:
            return Presence.OURS if held[1] == "wanted" else Presence.OTHERS
        return Presence.EARLIER if held[0] else Presence.OTHERS

    def snapshot(self) -> str:
        held = self.w.way()
        return "" if held is None else json.dumps(held)

    def setup(self, old: Credential, run: str) -> Outcome:
        if self.present(old, run) is Presence.OTHERS:
            return Failed("somebody else has the role app")

        def work() -> None:
            self.w.db.execute("INSERT OR REPLACE INTO ways VALUES ('app', ?, 'wanted')", (run,))
            if self.displaces(old):
                dead = self.w.seconds() + float(self.w.get("lag_dead", 0))
                self.w.db.execute("UPDATE keys SET secret='planted-new-x', dead_from=? WHERE id=?", (dead, OLD))

        self.w.act("setup", work)
        return Done("set up")

    def check(self, old: Credential, run: str, since: datetime) -> Outcome:
        self.w._trip("way", after=False)
        said = self.w.get("way_works", True)
        if said == "unseen":
            return Waiting("person", instructions="let it be seen")
        return Done("logged in") if said and self.present(old, run) is Presence.OURS else Failed("refused")

    def undo(self, old: Credential, run: str, former: str) -> Outcome:
        held = self.w.way()
        if held is None or held[0] != run:
            return Done("not ours")

        def work() -> None:
            self.w.db.execute("DELETE FROM ways")
            if former:
                self.w.db.execute("INSERT INTO ways VALUES ('app', ?, ?)", json.loads(former))

        self.w.act("unset", work)
        return Done("as before")


def renamed(credential: Credential, name: str) -> Credential:
    return replace(credential, id=CredentialID(name))
