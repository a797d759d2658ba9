"""Does the ledger still say what was written into it? Recomputes the chain, every row's digest and every folded column.

What it finds, it names: the event, the table, the row. Without an exported head, whoever can write the file *and* has
the signing key could rebuild everything; with one, nothing up to that head can have changed.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from lapse.ledger.chain import (
    GENESIS,
    EventKind,
    Payload,
    Refs,
    event_hash,
    head_message,
    read_payload,
    read_refs,
    unpack_ids,
)
from lapse.ledger.fold import Facts, Knowledge, fold
from lapse.ledger.model import Checked, Head, Problem
from lapse.ledger.rowlog import encode_row
from lapse.ledger.schema import LOGS
from lapse.ledger.seal import verified
from verifier.model import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lapse.ledger.raw import Raw
    from lapse.ledger.rowlog import Segment

MOST_PROBLEMS = 100
_FOLDED = Knowledge.__struct_fields__
_PRIVILEGE = msgspec.json.Decoder(Identity).decode


class _EnoughError(Exception):
    """A hundred problems: the rest would help nobody."""


def check(raw: Raw, exported: Head | None) -> Checked:
    """Go through everything, inside one read transaction of the caller's."""
    work = _Check(raw, exported)
    try:
        work.events()
        work.exported()
        work.uncovered()
        work.findings()
        work.ends()
        work.states()
        work.mentions()
    except _EnoughError:
        pass
    except (TypeError, ValueError, LookupError) as error:
        what = (
            f"a column holds something that was never written there ({type(error).__name__}): no check goes beyond it"
        )
        work.problems.append(Problem("unknown", None, None, what))
    return Checked(work.seq, work.rows, tuple(work.problems))


class _Check:
    """The running totals of one check."""

    def __init__(self, raw: Raw, exported: Head | None) -> None:
        self.raw = raw
        self.head = exported
        self.seq = self.rows = 0
        self.problems: list[Problem] = []
        self.covered = dict.fromkeys(LOGS, 0)
        self.announced: list[str] = []
        self.hash_at: bytes | None = None
        self.complete: dict[int, int] = {}
        self.scan_ends: dict[int, tuple[int, ...]] = {}
        self.run_ends: dict[int, int] = {}
        self.last_scan = array("I", [0])
        self.whole = bytearray(1)
        self.removed = array("q", [-1])
        self.kept = bytearray(1)
        self.owners: dict[int, str] = {}
        self.canaries: dict[int, str] = {}
        self.mentioned: list[tuple[int, int]] = []
        self.ledger = str(raw.execute("SELECT ledger FROM meta").fetchone()[0])

    def bad(self, table: str, row: int | None, event: int | None, what: str) -> None:
        self.problems.append(Problem(table, row, event, what))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _EnoughError

    # ── the chain ──────────────────────────────────────────────────────────────────────────────────────

    def events(self) -> None:
        before = GENESIS
        sql = "SELECT seq, at, kind, payload, refs, prev, hash FROM events ORDER BY seq"
        for seq, at, kind, payload, refs, prev, digest in self.raw.stream(sql):
            while self.seq + 1 < seq and self.seq >= 0:
                self.seq += 1
                self.bad("events", self.seq, self.seq, f"event {self.seq} is missing")
                before = prev
            if seq < 1:
                self.bad("events", seq, seq, f"event {seq} was put in by hand: events count from 1")
                continue
            self.seq = seq
            try:
                true = event_hash(prev, seq, at, kind, payload, refs)
                said, bulk, sort = read_payload(payload), read_refs(refs), EventKind(kind)
            except (msgspec.MsgspecError, TypeError, ValueError, AttributeError, OverflowError):
                self.bad("events", seq, seq, f"event {seq} was edited: it can no longer be read")
                before = digest
                continue
            if true != digest:
                self.bad("events", seq, seq, f"event {seq} was edited, or moved from elsewhere in the chain")
            elif prev != before:
                what = f"event {seq} does not follow from event {seq - 1}: one of them was replaced"
                self.bad("events", seq - 1, seq, what)
            before = digest
            if self.head is not None and seq == self.head.seq:
                self.hash_at = digest
            self._event(seq, at, sort, said, bulk)
        self._signature(before)

    def _event(self, seq: int, at: int, kind: EventKind, said: Payload, refs: Refs) -> None:
        for told, marks in zip(said.rows, refs.marks, strict=False):
            self._segment(seq, told, marks)
        if said.public_key:
            self.announced.append(said.public_key)
        try:
            touched, sealed = unpack_ids(refs.touched), unpack_ids(refs.sealed)
        except (zlib.error, ValueError):
            self.bad("events", seq, seq, f"event {seq} was edited: its list of rows cannot be read")
            return
        complete = self.complete.get(said.scan, 0)
        self._grow(said.scan, complete)
        try:
            self._apply(seq, at, kind, said, touched, complete)
            for credential in sealed:
                self.kept[credential] = 1
        except IndexError:
            self.bad("events", seq, seq, f"event {seq} speaks of a row that no event brought")

    def _grow(self, scan: int, complete: int) -> None:
        more = self.covered["findings"] + 1 - len(self.last_scan)
        if more > 0:
            self.last_scan.extend([scan] * more)
            self.whole.extend([complete] * more)
            self.removed.extend([-1] * more)
        self.kept.extend(bytes(max(0, self.covered["credentials"] + 1 - len(self.kept))))

    def _apply(  # noqa: C901, PLR0912  # one branch a kind
        self, seq: int, at: int, kind: EventKind, said: Payload, touched: list[int], complete: int
    ) -> None:
        match kind:
            case EventKind.FINDINGS:
                for finding in touched:
                    self.last_scan[finding] = max(self.last_scan[finding], said.scan)
                    self.whole[finding] |= complete
                    self.removed[finding] = -1
            case EventKind.REMOVED:
                for finding in touched:
                    self.removed[finding] = at
            case EventKind.SCAN:
                row = self.raw.execute("SELECT complete FROM scans WHERE id=?", (said.scan,)).fetchone()
                self.complete[said.scan] = int(bool(row and row[0]))
            case EventKind.SCAN_ENDED:
                figures = said.figures
                names = ("findings", "keys", "new", "removed")
                self.scan_ends[said.scan] = (at, *(figures.get(name, -1) for name in names))
            case EventKind.RUN_ENDED:
                self.run_ends[said.run] = at
            case EventKind.MARKED:
                for credential in touched:
                    if said.owner:
                        self.owners[credential] = said.owner
                    if said.canary:
                        self.canaries[credential] = said.canary
            case EventKind.PURGED:
                for credential in touched:
                    self.kept[credential] = 2
            case _:
                pass
        if kind not in {EventKind.FINDINGS, EventKind.REMOVED, EventKind.VERDICTS}:
            self.mentioned += [(credential, seq) for credential in touched]

    def _segment(self, seq: int, told: Segment, marks: bytes) -> None:
        table = LOGS.get(told.table)
        if table is None or told.first != self.covered[told.table] + 1:
            self.bad(
                "events", seq, seq, f"event {seq} was edited: its rows of {told.table} do not follow the last ones"
            )
            return
        columns = ",".join(table.info["log"])
        end = told.first + told.count
        sql = f"SELECT {columns} FROM {told.table} WHERE id >= ? AND id < ? ORDER BY id"
        hashed = sha256()
        named = False
        expected = told.first
        wanted = struct.unpack(f"<{len(marks) // 4}I", marks) if len(marks) == 4 * told.count else ()
        for row in self.raw.stream(sql, (told.first, end)):
            number = row[0]
            for lost in range(expected, number):
                named = True
                self.bad(told.table, lost, seq, f"row {lost} of {told.table} is missing; event {seq} brought it")
            expected = number + 1
            encoded = encode_row(row)
            hashed.update(encoded)
            if wanted and zlib.crc32(encoded) != wanted[number - told.first]:
                named = True
                self.bad(
                    told.table, number, seq, f"row {number} of {told.table} was edited since event {seq} brought it"
                )
            self.rows += 1
        for lost in range(expected, end):
            named = True
            self.bad(told.table, lost, seq, f"row {lost} of {told.table} is missing; event {seq} brought it")
        if not named and hashed.hexdigest() != told.digest:
            what = (
                f"one of the rows {told.first} to {end - 1} of {told.table} was edited since event {seq} brought them"
            )
            self.bad(told.table, None, seq, what)
        self.covered[told.table] = end - 1

    def _signature(self, last: bytes) -> None:
        row = self.raw.execute("SELECT seq, at, hash, signature FROM head WHERE id=1").fetchone()
        if row is None:
            self.bad("head", None, None, "the signed head is missing")
            return
        seq, at, digest, signature = row
        if not self.announced or not verified(
            bytes.fromhex(self.announced[-1]), signature, head_message(self.ledger, seq, at, digest)
        ):
            self.bad("head", 1, seq, "the head's signature does not hold")
        if seq > self.seq:
            self.bad("events", seq, seq, f"the events after {self.seq} are missing: the signed head is event {seq}")
        elif seq < self.seq:
            self.bad(
                "events", seq + 1, seq + 1, f"the events after {seq} were put in by hand: no head was signed for them"
            )
        elif digest != last:
            self.bad("events", seq, seq, f"event {seq} was replaced: its hash is not the one that was signed")
        key = self.raw.execute("SELECT public_key FROM meta").fetchone()[0]
        if not self.announced or key.hex() != self.announced[-1]:
            self.bad("meta", 1, None, "the ledger's public key was replaced")

    def exported(self) -> None:
        head = self.head
        if head is None:
            return
        try:
            digest = bytes.fromhex(head.hash)
            sound = verified(
                bytes.fromhex(head.public_key),
                bytes.fromhex(head.signature),
                head_message(head.ledger, head.seq, head.at, digest),
            )
        except ValueError:
            sound, digest = False, b""
        if head.ledger != self.ledger:
            self.bad("head", None, head.seq, "the exported head belongs to another ledger")
        elif not sound:
            self.bad("head", None, head.seq, "the exported head's own signature does not hold")
        elif head.public_key not in self.announced:
            self.bad("head", None, head.seq, "the exported head was signed with a key that this ledger never had")
        elif self.hash_at is None:
            self.bad("events", head.seq, head.seq, f"event {head.seq}, the exported head, is missing")
        elif self.hash_at != digest:
            what = f"the chain up to event {head.seq} is not the one that was exported"
            self.bad("events", head.seq, head.seq, what)

    # ── the tables ─────────────────────────────────────────────────────────────────────────────────────

    def uncovered(self) -> None:
        for name, last in self.covered.items():
            sql = f"SELECT id FROM {name} WHERE id > ? OR id < 1 ORDER BY id"
            for (number,) in self.raw.execute(sql, (last,)):
                self.bad(name, number, None, f"row {number} of {name} was put in by hand: no event brought it")

    def findings(self) -> None:
        sql = "SELECT id, last_scan, whole, removed FROM findings WHERE id BETWEEN 1 AND ? ORDER BY id"
        for number, last_scan, whole, removed in self.raw.stream(sql, (len(self.last_scan) - 1,)):
            gone = self.removed[number]
            if (last_scan, whole, removed) != (self.last_scan[number], self.whole[number], None if gone < 0 else gone):
                what = f"row {number} of findings says otherwise than the events: when last seen, or whether removed"
                self.bad("findings", number, None, what)

    def ends(self) -> None:
        for number, *row in self.raw.execute('SELECT id, ended, findings, "keys", new, removed FROM scans'):
            if tuple(row) != self.scan_ends.get(number, (None,) * 5):
                self.bad("scans", number, None, f"row {number} of scans says otherwise than the events: its totals")
        for number, ended in self.raw.execute("SELECT id, ended FROM runs"):
            if ended != self.run_ends.get(number):
                self.bad("runs", number, None, f"row {number} of runs says otherwise than the events: its end")

    def states(self) -> None:
        counts = _grouped(
            self.raw,
            "SELECT credential, count(*), count(*) FILTER (WHERE removed IS NULL), max(last_scan) FROM findings"
            " GROUP BY credential ORDER BY credential",
        )
        verdicts = _grouped(
            self.raw,
            "SELECT credential, id, at, verdict, why, confirmed, restricted, identity, due FROM verdicts"
            " ORDER BY credential, id",
        )
        boxes = _grouped(self.raw, "SELECT credential FROM sealed ORDER BY credential")
        merged = _Merge(counts), _Merge(verdicts), _Merge(boxes)
        columns = ",".join(("credential", "findings", "present", "last_scan", "kept", "owner", "canary", *_FOLDED))
        expected = 1
        last = self.covered["credentials"]
        for row in self.raw.stream(f"SELECT {columns} FROM states ORDER BY credential"):
            number = row[0]
            for lost in range(expected, min(number, last + 1)):
                self.bad("states", lost, None, f"row {lost} of states is missing")
            expected = number + 1
            if not 1 <= number <= last:
                self.bad("states", number, None, f"row {number} of states was put in by hand")
                continue
            self._state(number, row, *(m.at(number) for m in merged))
        for lost in range(expected, last + 1):
            self.bad("states", lost, None, f"row {lost} of states is missing")
        strays = "SELECT credential FROM sealed WHERE credential NOT IN (SELECT credential FROM states)"
        for (number,) in self.raw.execute(strays):
            self.bad("sealed", number, None, f"the sealed secret of row {number} belongs to no key")

    def _state(  # one row against what was folded of it
        self, number: int, row: Sequence[Any], counts: list[Any], verdicts: list[Any], boxes: list[Any]
    ) -> None:
        held = counts[0][1:] if counts else (0, 0, row[3])
        if row[1:4] != tuple(held):
            self.bad("states", number, None, f"row {number} of states says otherwise than the findings")
        marks = (self.owners.get(number), self.canaries.get(number))
        if row[5:7] != marks:
            self.bad("states", number, None, f"row {number} of states says otherwise than the events: owner or canary")
        kept = self.kept[number] if number < len(self.kept) else 0
        if row[4] != kept:
            self.bad(
                "states", number, None, f"row {number} of states says otherwise than the events: secret kept or not"
            )
        if bool(boxes) != (kept == 1):
            what = (
                f"the sealed secret of row {number} is {'missing' if kept == 1 else 'there, though no event says so'}"
            )
            self.bad("sealed", number, None, what)
        knowledge = Knowledge()
        for _, verdict_id, at, verdict, why, confirmed, restricted, identity, due in verdicts:
            privilege = None if identity is None else _privilege(identity)
            facts = Facts(verdict_id, at, verdict, why, confirmed, restricted, privilege, due)
            knowledge = fold(knowledge, facts)
        if tuple(row[7:]) != tuple(getattr(knowledge, name) for name in _FOLDED):
            self.bad("states", number, None, f"row {number} of states says otherwise than the verdicts")

    def mentions(self) -> None:
        wanted = set(self.mentioned)
        for credential, seq in self.raw.stream("SELECT credential, seq FROM mentions"):
            if (credential, seq) not in wanted:
                self.bad(
                    "mentions", credential, seq, f"a mention of key row {credential} in event {seq} was put in by hand"
                )
            wanted.discard((credential, seq))
        for credential, seq in sorted(wanted):
            self.bad("mentions", credential, seq, f"the mention of key row {credential} in event {seq} is missing")


def _privilege(identity: str) -> str:
    try:
        return _PRIVILEGE(identity).privilege.value
    except (msgspec.MsgspecError, TypeError):
        return "unreadable"


def _grouped(raw: Raw, sql: str) -> Iterator[tuple[int, list[Any]]]:
    for number, rows in groupby(raw.stream(sql), key=itemgetter(0)):
        yield number, list(rows)


class _Merge:
    """Walks along groups that come in order of credential."""

    def __init__(self, groups: Iterator[tuple[int, list[Any]]]) -> None:
        self._groups = groups
        self._next = next(groups, None)

    def at(self, number: int) -> list[Any]:
        """Return the rows of `number`, which only ever grows."""
        while self._next is not None and self._next[0] < number:
            self._next = next(self._groups, None)
        return self._next[1] if self._next is not None and self._next[0] == number else []
