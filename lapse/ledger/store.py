"""The ledger as a whole: what the rest of Lapse calls."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Self

from lapse.ledger import check as checking
from lapse.ledger import record as recording
from lapse.ledger import views
from lapse.ledger.chain import EventKind, Payload, Refs, append, pack_ids
from lapse.ledger.clock import moment, now, stamp
from lapse.ledger.db import Database, database
from lapse.ledger.errors import Busy, KeyTrouble, LedgerError
from lapse.ledger.intake import BATCH, Intake, rare_collections
from lapse.ledger.keys import KeySource, key_source
from lapse.ledger.migrations import migrate, version_of
from lapse.ledger.model import Canary, Checked, Head, IngestCount, Purged, Run, Scan, Schedule, Select
from lapse.ledger.rotations import Rotations
from lapse.ledger.rowlog import Row, next_id, segment
from lapse.ledger.schema import VERSION
from lapse.ledger.seal import Seal, fresh_bundle, pack, unpack
from lapse.ledger.writer import Writer
from verifier.model import CredentialID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Connection

    from lapse.ledger.model import Found, Key, Noted, Sort, Status, Story, Turned
    from lapse.ledger.raw import Raw
    from verifier.model import Credential, Finding, KindID
    from verifier.ports import Due, Fallen, Judged
    from verifier.scope import Ownership

_RUNS_AGE_LIMIT = "SELECT id, started, ended FROM runs WHERE what=? AND started>=? ORDER BY id DESC LIMIT 1"
_NOTES = frozenset({EventKind.REVEALED, EventKind.SCOPE, EventKind.ALARM, EventKind.NOTE})


class Ledger:
    """One ledger, open. A context manager; safe to share among threads; several processes may have it open.

    Every method may raise `LedgerError` (or a subclass), whose text is one sentence for people.
    """

    def __init__(self, db: Database, name: str, kek: KeySource | None, schedule: Schedule, *, wrapped: bool) -> None:
        """Use `open_ledger`."""
        self._db = db
        self._kek = kek
        self._wrapped = wrapped
        self._schedule = schedule
        self.name = name

    @property
    def path(self) -> Path:
        """Return the file; with a PostgreSQL ledger, the path in this machine's state folder that stands for it.

        What belongs to the ledger on this machine (locks, the engine's tables) stands beside it.
        """
        return self._db.beside(self.name)

    @property
    def where(self) -> str:
        """Return the ledger's place as it may be shown: the file, or the database's address without log-in."""
        return self._db.name

    def reader(self) -> Database:
        """Open a second way into the ledger, for reading by SQL; the caller closes it."""
        return self._db.again()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one, on any machine, who verifies this ledger's keys; `Busy` if somebody else is."""
        with self._db.alone(self.name) as held:
            if not held:
                raise Busy(f"another verification is at work on {self.where}; wait for it or stop it")
            yield

    @property
    def keeps_secrets(self) -> bool:
        """Say whether secrets are sealed and kept. False: no key is configured; say so, they live for the run only."""
        return self._wrapped and self._kek is not None

    @property
    def id_key(self) -> bytes:
        """Return the 32 bytes for `verifier.fingerprint.Fingerprinter`.

        Wrapped in the file where a key is configured, bare where none is: then whoever has the file can test guesses
        of a secret against its id. Made with the ledger, and never changed.
        """
        return self._seal.ids

    @cached_property
    def _seal(self) -> Seal:
        if self._wrapped and self._kek is None:
            raise KeyTrouble(
                f"the ledger {self._db.name} is sealed; configure the key that it was made with (ledger.key)"
            )
        return Seal(unpack(self._bundle(), self.name, self._kek if self._wrapped else None))

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self._db, self._seal, self.name)

    @cached_property
    def rotations(self) -> Rotations:
        """Return the journal of rotations."""
        return Rotations(self._db, lambda: self._writer)

    def close(self) -> None:
        """Close every connection."""
        self._db.close()

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # ── reports ────────────────────────────────────────────────────────────────────────────────────────

    def ingest(
        self,
        scan: Scan,
        rows: Iterable[tuple[Finding, CredentialID, str]],
        *,
        whole: Callable[[], bool] = lambda: True,
    ) -> IngestCount:
        """Read a report in: findings, their ids (by `id_key`) and a display hint each, which must be safe to show.

        Streams: memory does not grow with the report; each `BATCH` rows are committed as they come. `whole` is asked
        once the rows are exhausted: False (rows were skipped, the report was cut off) keeps a complete scan from
        marking anything as removed. If `rows` raises, what was read so far stays, and nothing is marked as removed.
        """
        at = stamp(scan.at or now())
        intake = Intake(self._writer, self._seal, scan, at, keep=self.keeps_secrets)
        source = iter(rows)
        with rare_collections():
            while batch := list(islice(source, BATCH)):
                intake.feed(batch)
        return intake.end(stamp(now()), whole=whole())

    # ── verification ───────────────────────────────────────────────────────────────────────────────────

    def begin_run(self, what: str = "verify", resume_within: timedelta | None = None) -> Run:
        """Begin a run; or go on with the newest of this sort if it is unfinished and began within `resume_within`."""
        at = stamp(now())

        def begin(raw: Raw) -> Run:
            if resume_within is not None:
                found = raw.execute(_RUNS_AGE_LIMIT, (what, stamp(now() - resume_within))).fetchone()
                if found and found[2] is None:
                    return Run(found[0], moment(found[1]), resumed=True)
            number = next_id(raw, "runs")
            row: Row = (number, what, at)
            raw.execute("INSERT INTO runs VALUES (?,?,?,NULL)", row)
            told, marks = segment("runs", [row])
            payload = Payload(rows=(told,), run=number)
            self._writer.append(raw, EventKind.RUN, payload, refs=Refs(marks=(marks,)), at=at)
            return Run(number, moment(at))

        return self._writer.write(begin)

    def end_run(self, run: Run) -> None:
        """Note that the run came to its end, so that nobody goes on with it."""
        at = stamp(now())

        def end(raw: Raw) -> None:
            raw.execute("UPDATE runs SET ended=? WHERE id=?", (at, run.id))
            self._writer.append(raw, EventKind.RUN_ENDED, Payload(run=run.id), at=at)

        self._writer.write(end)

    def due(
        self,
        at: datetime,
        ids: Sequence[CredentialID] | None = None,
        provider: str | None = None,
        since: datetime | Run | None = None,
    ) -> Iterator[Due]:
        """Yield credentials whose next verdict is wanted by `at`, parts unsealed, in the order they were first seen.

        `ids` asks for these alone, due or not. `since=run` leaves out what the run has judged already, but for a first
        Dead whose confirmation has fallen due; `since=run.started` does so by the clock alone. Those whose secret is
        not kept are counted by `lacking`.
        Record while iterating as you like: each page is read on its own.
        """
        yield from recording.due(self._db, self._seal, *self._wanted(at, ids, provider, since), ids)

    def _wanted(
        self, at: datetime, ids: Sequence[CredentialID] | None, provider: str | None, since: datetime | Run | None
    ) -> tuple[str, list[int | str]]:
        return recording.due_where(None if ids is not None else at, at, provider, since)

    def lacking(self, at: datetime, provider: str | None = None, since: datetime | Run | None = None) -> int:
        """Count the credentials that are due but whose secret is not in the ledger (never kept, or purged undead)."""
        where, args = recording.due_where(at, at, provider, since)
        sql = (
            "SELECT count(*) FROM states s JOIN credentials c ON c.id = s.credential"
            f" WHERE s.kept != 1 AND s.confirmed = 0 {where}"
        )
        return int(self._db.rows(sql, args)[0][0])

    def fallen(self, since: datetime) -> list[Fallen]:
        """Return the keys that worked once and whose row of deaths began after `since`, as the brake remembers them.

        Of those whose death is confirmed only the ones that nothing at their vendor outlived: an answer that was Live
        after they died shows that they did not die of an outage.
        """
        return views.fallen(self._db, since)

    def recall(self, credentials: Sequence[Credential], since: datetime | None = None) -> Iterator[Due]:
        """Yield credentials that the caller holds itself (secrets not kept), with what the ledger remembers of each.

        `since` leaves out what this run has judged already, as in `due`; nothing else is left out.
        """
        yield from recording.recall(self._db, credentials, since, now())

    def lived(self, run: Run) -> dict[str, int]:
        """Count the keys of each vendor that answered Live in this run so far."""
        sql = (
            "SELECT c.vendor, count(*) FROM verdicts v JOIN credentials c ON c.id = v.credential"
            " WHERE v.run = ? AND v.verdict = 'live' GROUP BY c.vendor"
        )
        return {vendor: int(n) for vendor, n in self._db.rows(sql, (run.id,))}

    def record(self, judged: Sequence[Judged], run: Run | None = None, *, once: bool = False) -> None:
        """Write verdicts, a few hundred at a time at best; committed when this returns, so print only then.

        `once`: a verdict that this run has on record already is not written again, whoever wrote it.
        """
        for start in range(0, len(judged), BATCH):
            recording.record(self._writer, self._schedule, judged[start : start + BATCH], run, once=once)

    def mark(
        self, ids: Sequence[CredentialID], *, owner: Ownership | None = None, canary: Canary | None = None
    ) -> None:
        """Note whose account these keys open, or that they are trip-wires."""
        values = {"owner": owner, "canary": canary}

        def write(raw: Raw, batch: Sequence[CredentialID]) -> None:
            numbers = set(recording.numbers(raw, batch).values())
            for column, value in values.items():
                if value is not None:
                    raw.put("states", "credential", (column,), [(value.value, number) for number in numbers])
            payload = Payload(owner=owner or "", canary=canary or "")
            refs = Refs(touched=pack_ids(numbers))
            seq = self._writer.append(raw, EventKind.MARKED, payload, refs=refs, at=stamp(now()))
            self._writer.mention(raw, numbers, seq)

        for batch in _batches(ids):
            self._writer.write(partial(write, batch=batch))

    def note(
        self,
        kind: EventKind,
        text: str,
        ids: Sequence[CredentialID] = (),
        detail: Mapping[str, str] | None = None,
    ) -> int:
        """Append a revealed, scope, alarm or note event about these keys (never a secret); return its number."""
        if kind not in _NOTES:
            raise ValueError(f"{kind} events are the ledger's own to write")

        def write(raw: Raw) -> int:
            numbers = set(recording.numbers(raw, ids).values())
            payload = Payload(text=text, detail=dict(detail or {}))
            seq = self._writer.append(raw, kind, payload, refs=Refs(touched=pack_ids(numbers)), at=stamp(now()))
            self._writer.mention(raw, numbers, seq)
            return seq

        return self._writer.write(write)

    # ── secrets ────────────────────────────────────────────────────────────────────────────────────────

    def purge(self, ids: Sequence[CredentialID]) -> Purged:
        """Delete the sealed parts of these keys for good: zeroed in the file, and gone from the write-ahead log.

        PostgreSQL keeps what was deleted in its log and backups for a time, sealed as it was: `flushed` is False then.
        """

        def write(raw: Raw, batch: Sequence[CredentialID]) -> int:
            numbers = sorted(set(recording.numbers(raw, batch).values()))
            marks = ",".join("?" * len(numbers))
            found = raw.execute(f"SELECT credential FROM sealed WHERE credential IN ({marks})", numbers).fetchall()
            held = [row[0] for row in found]
            if held:
                raw.executemany("DELETE FROM sealed WHERE credential=?", [(number,) for number in held])
                raw.put("states", "credential", ("kept",), [(2, number) for number in held])
                refs = Refs(touched=pack_ids(held))
                payload = Payload(figures={"keys": len(held)})
                seq = self._writer.append(raw, EventKind.PURGED, payload, refs=refs, at=stamp(now()))
                self._writer.mention(raw, held, seq)
            return len(held)

        done = sum(self._writer.write(partial(write, batch=batch)) for batch in _batches(ids))
        return Purged(done, self._db.flush() if done else True)

    def purge_dead(self, retention: timedelta) -> Purged:
        """Purge the keys whose death was confirmed at least `retention` ago."""
        sql = (
            "SELECT c.vendor, c.hash FROM states s JOIN credentials c ON c.id = s.credential"
            " WHERE s.kept = 1 AND s.known = 'dead' AND s.confirmed = 1 AND s.confirmed_at <= ?"
        )
        rows = self._db.rows(sql, (stamp(now() - retention),))
        return self.purge([CredentialID(f"{vendor}-{digest.hex()}") for vendor, digest in rows])

    def adopt(self, source: KeySource) -> None:
        """Give a ledger that has no wrapping key its first; one that another process just gave it is as good."""
        try:
            self.rewrap(source)
        except LedgerError:
            if self._db.rows("SELECT kek FROM meta")[0][0] is None:
                raise
            self._wrapped = True

    def rewrap(self, new: KeySource | str) -> None:
        """Wrap the ledger's keys with another key; needs the present one once more. Sealed secrets stay as they are.

        Where the ledger had none, its data and signing keys are made anew (the old ones lay bare in the file); the id
        key stays, because every id depends on it.
        """
        source = key_source(new) if isinstance(new, str) else new
        blob = self._bundle()
        bundle = unpack(blob, self.name, self._kek if self._wrapped else None)
        if not self._wrapped:
            bundle = fresh_bundle(self.name, bundle.ids)
        seal = Seal(bundle)
        wrapped = pack(bundle, source)

        def write(raw: Raw) -> None:
            if bytes(raw.execute("SELECT keys FROM meta").fetchone()[0]) != blob:
                raise LedgerError("another process changed the ledger's key just now; run the command again")
            raw.execute("UPDATE meta SET keys=?, kek=?, public_key=?", (wrapped, source.reference, seal.public_key))
            payload = Payload(public_key=seal.public_key.hex(), kek=source.reference)
            append(raw, seal, self.name, EventKind.REWRAPPED, payload, at=stamp(now()))

        self._db.transact(write)
        self._kek, self._wrapped = source, True
        self.__dict__.pop("_seal", None)
        self.__dict__.pop("_writer", None)
        self._db.flush()

    def _bundle(self) -> bytes:
        return bytes(self._db.rows("SELECT keys FROM meta")[0][0])

    # ── what there is to see ───────────────────────────────────────────────────────────────────────────

    def status(self) -> Status:
        """Count everything."""
        return views.status(self._db)

    def providers(self) -> list[str]:
        """Return the kinds of key that the ledger holds, sorted."""
        return views.providers(self._db)

    def keys(self, select: Select | None = None) -> Iterator[Key]:
        """Yield the keys that `select` describes, all by default."""
        return views.keys(self._db, select or Select())

    def names(self, select: Select) -> Iterator[tuple[CredentialID, KindID, bool]]:
        """Yield id, kind and whether proven dead of the keys that `select` describes, in the order first seen.

        Ids, order, limit and offset of `select` are not used.
        """
        return views.names(self._db, select)

    def sorts(self, select: Select) -> Iterator[Sort]:
        """Yield how many keys of each sort `select` describes; its order, limit and offset are not used."""
        return views.sorts(self._db, select)

    def key(self, name: CredentialID) -> Key:
        """Return one key; `UnknownKey` if the ledger lacks it."""
        views.number_of(self._db, name)
        return next(self.keys(Select(ids=(name,))))

    def places(self, name: CredentialID) -> Iterator[Found]:
        """Yield where a key was found, removed places included."""
        return views.places(self._db, name)

    def places_of(self, names: Sequence[CredentialID], most: int = 500) -> Iterator[tuple[CredentialID, Found]]:
        """Yield the first `most` places of each of many keys, in a few queries."""
        return views.places_of(self._db, names, most)

    def remarks(
        self, names: Sequence[CredentialID]
    ) -> Iterator[tuple[CredentialID, datetime | None, tuple[Noted, ...]]]:
        """Yield when each of many keys last turned, and the notes about it since."""
        return views.remarks(self._db, names)

    def story(self, name: CredentialID) -> list[Story]:
        """Return what happened to a key, oldest first."""
        return views.story(self._db, name)

    def turns(self, since: datetime) -> Iterator[Turned]:
        """Yield what died, revived or was first found live or dead at or after `since`."""
        return views.turns(self._db, since)

    def resolve(self, prefix: str) -> CredentialID:
        """Return the id that a short id or a unique beginning means; else `UnknownKey` or `AmbiguousKey`."""
        return views.resolve(self._db, prefix)

    # ── integrity ──────────────────────────────────────────────────────────────────────────────────────

    def head(self) -> Head:
        """Return the newest event, signed, to be kept elsewhere (`msgspec.json.encode` it)."""
        rows = self._db.rows("SELECT h.seq, h.at, h.hash, h.signature, m.public_key FROM head h, meta m")
        if len(rows) != 1:
            raise LedgerError(f"the ledger {self.where} has no head; run `lapse ledger check`")
        seq, at, digest, signature, key = rows[0]
        return Head(self.name, seq, at, digest.hex(), signature.hex(), key.hex())

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a connection that sees one consistent state until the block ends; SQL takes `?` for each value."""
        return self._db.read()

    def attest(self, purpose: str, data: bytes) -> tuple[bytes, bytes]:
        """Return the public key and the Ed25519 signature over `lapse PURPOSE 1`, a line feed, and `data`.

        Whoever reads it checks it with that key alone. Heads have a purpose of their own and are signed only here.
        """
        if purpose == "ledger head":
            raise ValueError("heads are the ledger's own to sign")
        return self._seal.public_key, self._seal.sign(f"lapse {purpose} 1\n".encode() + data)

    def check(self, head: Head | None = None) -> Checked:
        """Recompute the whole ledger; with an exported `head`, prove that it is a beginning of this chain.

        About 5 µs a row and 13 bytes of memory a finding.
        """
        with self._db.read() as connection:
            return checking.check(self._db.raw(connection), head)


def open_ledger(
    address: str | Path,
    key: KeySource | str | None = None,
    schedule: Schedule | None = None,
    state: Path | None = None,
) -> Ledger:
    """Open the ledger at a path, `sqlite:///PATH` (mode 0600) or `postgresql://…`, making it where there is none.

    `key` names the wrapping key (`lapse.ledger.keys`). A ledger made without one takes it on at the first opening with
    one (`rewrap`). A sealed ledger opened without its key can be looked at, but neither written nor asked for secrets.
    `state` is where a PostgreSQL ledger's files of this machine go (the user's data folder by default).
    """
    source = key_source(key) if isinstance(key, str) else key
    db = database(address, state)
    try:
        version = db.look(lambda connection: version_of(connection, db))
        if version != VERSION:
            _prepare(db, source)
        [(name, kek)] = db.rows("SELECT ledger, kek FROM meta")
        ledger = Ledger(db, name, source, schedule or Schedule(), wrapped=kek is not None)
        if source is not None and kek is None:
            ledger.adopt(source)
    except BaseException:
        db.close()
        raise
    return ledger


def made(address: str | Path) -> bool:
    """Say whether there is a ledger at an address yet; nothing is made in a database. One out of reach is an error."""
    db = database(address)
    try:
        return db.look(lambda connection: version_of(connection, db)) > 0
    finally:
        db.close()


def _prepare(db: Database, source: KeySource | None) -> None:
    """Make or migrate the tables. What wraps is asked before the write lock is taken: it may be far away."""
    name = secrets.token_hex(16)
    bundle = fresh_bundle(name)
    blob = pack(bundle, source)
    with db.write() as connection:
        before, after = migrate(connection, db)
        raw = db.raw(connection)
        if before == 0:
            seal = Seal(bundle)
            reference = None if source is None else source.reference
            raw.execute("INSERT INTO meta VALUES (1,?,?,?,?)", (name, seal.public_key, blob, reference))
            payload = Payload(public_key=seal.public_key.hex(), kek=reference or "", figures={"schema": after})
            append(raw, seal, name, EventKind.MADE, payload, at=stamp(now()))
        elif before != after:
            held, wrapped, kek = raw.execute("SELECT ledger, keys, kek FROM meta").fetchone()
            seal = Seal(unpack(wrapped, held, source if kek is not None else None))
            payload = Payload(figures={"from": before, "to": after})
            append(raw, seal, held, EventKind.MIGRATED, payload, at=stamp(now()))


def _batches(ids: Sequence[CredentialID]) -> Iterator[Sequence[CredentialID]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]
