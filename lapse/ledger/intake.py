"""Reading a report in: batches of findings to rows, in constant memory. One of the two hot paths (raw SQL).

A batch is one transaction and one event. Within it: ids to credentials (a bounded cache, then range queries that also
show rivals for the short id), places to 64-bit hashes, joined look-ups for findings that may be known, bulk inserts.
"""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from lapse.ledger.chain import EventKind, Payload, Refs, pack_ids
from lapse.ledger.clock import stamp
from lapse.ledger.model import IngestCount, Scan
from lapse.ledger.rowlog import Row, Segment, next_id, segment
from lapse.ledger.schema import LOGS
from verifier.model import CredentialID, Finding, Image, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lapse.ledger.raw import Raw
    from lapse.ledger.seal import Seal
    from lapse.ledger.writer import Writer

BATCH = 4_096
"""Findings to a transaction and event: about 50 ms of the write lock."""

SHORT_DIGITS = 6
_CACHE = 65_536
_MOST = 2**63 - 1
_PAIRS = 256
_HASH_BYTES = 16
_GC_EVERY = 100_000
_HIGHEST = b"\xff" * 14
_CREDENTIAL = LOGS["credentials"].info["log"]
_FINDING = LOGS["findings"].info["log"]
_NEW_STATE = {"streak": 0, "due": 0, "confirmed": 0, "restricted": 0}
_encode = msgspec.msgpack.Encoder().encode
_Claimed = tuple[Finding, CredentialID, str]
T = TypeVar("T")


class _Tally(NamedTuple):
    """What one batch brought."""

    keys: int
    new: int
    places: int
    returned: int


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the cycle collector run rarely for a while: batches hold no cycles, and it took 12 % of the CPU."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _GC_EVERY) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Intake:
    """One scan being read in. `feed` batches, then `end`. Caches hold ids only, which never change once committed."""

    def __init__(self, writer: Writer, seal: Seal, scan: Scan, at: int, *, keep: bool) -> None:
        """Begin the scan: its row and event are written at once."""
        self.writer = writer
        self.seal = seal
        self.keep = keep
        self.scan = scan
        self.whole = int(scan.complete)
        self._forget()
        self.origins: set[int] = set()
        self.findings = self.keys = self.new = self.places = self.removed = self.returned = 0
        words = (_text(scan.scanner), _text(scan.origin), _text(scan.file), _text(scan.format))

        def begin(raw: Raw) -> int:
            number = next_id(raw, "scans")
            row: Row = (number, *words, self.whole, at)
            raw.execute("INSERT INTO scans VALUES (?,?,?,?,?,?,?,NULL,NULL,NULL,NULL,NULL)", row)
            told, marks = segment("scans", [row])
            writer.append(raw, EventKind.SCAN, Payload(rows=(told,), scan=number), refs=Refs(marks=(marks,)), at=at)
            return number

        self.id = writer.write(begin)

    def _forget(self) -> None:
        self.credentials: dict[str, int] = {}
        self.holders: dict[tuple[Any, ...], tuple[int, int]] = {}
        self.rules: dict[tuple[str, str], int] = {}
        self.sources: dict[tuple[str, str], int] = {}

    def feed(self, batch: Sequence[_Claimed]) -> None:
        """Write one batch, at most `BATCH` rows, in one transaction."""
        if len(self.credentials) > _CACHE:
            self.credentials.clear()
        tally = self._write(lambda raw: _Batch(raw, self).write(batch))
        self.findings += len(batch)
        self.keys += tally.keys
        self.new += tally.new
        self.places += tally.places
        self.returned += tally.returned

    def _write(self, body: Callable[[Raw], T]) -> T:
        """Run `body`, which may fill the caches; ids handed out in a transaction that was rolled back are forgotten."""
        origins, begun = frozenset(self.origins), False

        def once(raw: Raw) -> T:
            nonlocal begun
            if begun:
                self._forget()
                self.origins = set(origins)
            begun = True
            return body(raw)

        try:
            return self.writer.write(once)
        except BaseException:
            self._forget()
            raise

    def end(self, at: int, *, whole: bool) -> IngestCount:
        """Close the scan; when it was complete and all of it was read, mark what it lacks as removed."""
        if whole and self.scan.complete:
            self._remove(at)
        figures = {"findings": self.findings, "keys": self.keys, "new": self.new, "removed": self.removed}

        def close(raw: Raw) -> None:
            sql = "UPDATE scans SET ended=?, findings=?, keys=?, new=?, removed=? WHERE id=?"
            raw.execute(sql, (at, *figures.values(), self.id))
            payload = Payload(scan=self.id, whole=whole, figures=figures)
            self.writer.append(raw, EventKind.SCAN_ENDED, payload, at=at)

        self.writer.write(close)
        return IngestCount(
            findings=self.findings,
            keys=self.keys,
            new=self.new,
            places=self.places,
            removed=self.removed,
            returned=self.returned,
            scan=self.id,
        )

    def _remove(self, at: int) -> None:
        origin = self.scan.origin
        if origin is not None:

            def name(raw: Raw) -> int:
                batch = _Batch(raw, self)
                number = batch.source(self.scan.scanner, origin)
                batch.tell(at, ())
                return number

            self.origins.add(self._write(name))
        origins = sorted(self.origins)
        for start in range(0, len(origins), _PAIRS):
            self._remove_from(origins[start : start + _PAIRS], at)

    def _remove_from(self, origins: Sequence[int], at: int) -> None:
        """Mark what earlier complete scans had in these sources and this one lacks; one transaction a batch."""
        gone = (
            "SELECT id, credential FROM findings WHERE source IN (" + ",".join("?" * len(origins)) + ")"
            " AND last_scan<? AND whole=1 AND removed IS NULL LIMIT ?"
        )

        def remove(raw: Raw) -> int:
            rows = raw.execute(gone, (*origins, self.id, BATCH)).fetchall()
            if rows:
                raw.put("findings", "id", ("removed",), [(at, i) for i, _ in rows])
                raw.add("states", "credential", ("present",), [(-n, c) for c, n in Counter(c for _, c in rows).items()])
                refs = Refs(touched=pack_ids(i for i, _ in rows))
                self.writer.append(raw, EventKind.REMOVED, Payload(scan=self.id), refs=refs, at=at)
            return len(rows)

        count = BATCH
        while count == BATCH:
            count = self.writer.write(remove)
            self.removed += count


class _Batch:
    """The work of one transaction."""

    def __init__(self, raw: Raw, intake: Intake) -> None:
        self._raw = raw
        self._in = intake
        self._new: dict[str, list[Row]] = {}
        self._shorts: set[str] = set()

    def write(self, batch: Sequence[_Claimed]) -> _Tally:
        raw, intake = self._raw, self._in
        first_new = next_id(raw, "credentials")
        met, touched, sealed = self._meet(batch, first_new)
        returned = 0
        pending = self._rows(batch)
        known = raw.known([pair for pair in pending if pair[0] < first_new])
        again: list[tuple[int, int, None, int]] = []
        counts: dict[int, list[int]] = {}
        for credential, place, finding, last_scan, removed, whole in known:
            pending.pop((credential, place))
            if last_scan >= intake.id and removed is None and whole >= intake.whole:
                continue
            again.append((max(last_scan, intake.id), max(whole, intake.whole), None, finding))
            if removed is not None:
                counts.setdefault(credential, [0, 0])[1] += 1
                returned += 1
        fresh = next_id(raw, "findings")
        rows: list[Row] = [(number, *row) for number, row in enumerate(pending.values(), fresh)]
        for credential, _ in pending:
            count = counts.setdefault(credential, [0, 0])
            count[0] += 1
            count[1] += 1
        raw.insert("findings", _FINDING, rows, {"whole": intake.whole, "last_scan": intake.id})
        raw.put("findings", "id", ("last_scan", "whole", "removed"), again)
        raw.insert(
            "states",
            ("credential", "findings", "present", "last_scan", "kept"),
            [(c, *counts.pop(c, (0, 0)), intake.id, kept) for c, kept in met],
            _NEW_STATE,
        )
        raw.put("states", "credential", ("last_scan",), [(intake.id, c) for c in touched])
        changed = [(n, present, c) for c, (n, present) in counts.items()]
        raw.add("states", "credential", ("findings", "present"), changed)
        raw.insert("sealed", ("credential", "nonce", "blob"), [(c, *box) for c, box in sealed.items()])
        raw.put("states", "credential", ("kept",), [(1, c) for c in sealed if c < first_new])
        if rows:
            self._new["findings"] = rows
        self.tell(intake.writer.stamp(), [one[-1] for one in again], sealed)
        return _Tally(len(met) + len(touched), len(met), len(rows), returned)

    def _meet(
        self, batch: Sequence[_Claimed], first_new: int
    ) -> tuple[list[tuple[int, int]], list[int], dict[int, tuple[bytes, bytes]]]:
        """Give every id of the batch its credential.

        Returns the new ones with whether kept, the old ones that this scan had not seen yet, and what was sealed.
        """
        intake = self._in
        cache, seal = intake.credentials, intake.seal if intake.keep else None
        strange = {name: (finding, hint) for finding, name, hint in batch if name not in cache}
        ids = {name: split_id(name) for name in strange}
        near = self._near([digest for _, digest in ids.values()])
        rows: list[Row] = []
        met: list[tuple[int, int]] = []
        touched: list[int] = []
        sealed: dict[int, tuple[bytes, bytes]] = {}
        for name, (finding, hint) in strange.items():
            vendor, digest = ids[name]
            old = near.get(digest)
            if old is not None:
                number, kept, last_scan = old
                if last_scan < intake.id:
                    touched.append(number)
                if seal is not None and not kept:
                    sealed[number] = seal.close_parts(name, finding.parts)
            else:
                number = first_new + len(rows)
                digits = self._digits(name, len(vendor) + 1)
                kinds = ",".join(finding.candidates) or None
                incomplete = int(finding.hidden is not None)
                kind = _text(finding.provider)
                rows.append((number, digest, vendor, digits, kind, _text(kinds), _text(hint), incomplete, intake.id))
                met.append((number, int(intake.keep)))
                if seal is not None:
                    sealed[number] = seal.close_parts(name, finding.parts)
            cache[name] = number
        if rows:
            self._raw.insert("credentials", _CREDENTIAL, rows)
            self._new["credentials"] = rows
        return met, touched, sealed

    def _near(self, hashes: Sequence[bytes]) -> dict[bytes, tuple[int, int, int]]:
        """Return hash → (row id, kept, last scan) of the known; notes the short ids of all that begin alike."""
        found: dict[bytes, tuple[int, int, int]] = {}
        ranges = [(digest[:3], digest[:3] + _HIGHEST) for digest in hashes]
        for number, digest, vendor, digits, kept, last_scan in self._raw.near(ranges):
            found[digest] = (number, kept, last_scan)
            self._shorts.add(f"{vendor}-{digest.hex()[:digits]}")
        return found

    def _digits(self, name: str, start: int) -> int:
        """Return how many digits the short id of a new credential gets, and take that short id."""
        digits = SHORT_DIGITS
        while (short := name[: start + digits]) in self._shorts:
            digits += 1
        self._shorts.add(short)
        return digits

    def _rows(self, batch: Sequence[_Claimed]) -> dict[tuple[int, int], Row]:
        """Turn findings into rows without their id, each (credential, place) once."""
        intake = self._in
        credentials, holders, rules = intake.credentials, intake.holders, intake.rules
        scan = intake.id
        rows: dict[tuple[int, int], Row] = {}
        for finding, name, _ in batch:
            place = finding.place
            scanner = finding.scanner
            held = (scanner, place.source, place.repository, place.image, place.visibility)
            pair = holders.get(held)
            if pair is None:
                pair = holders[held] = self._hold(scanner, place)
            holder, source = pair
            rule = rules.get((scanner, finding.rule))
            if rule is None:
                rule = self._rule(scanner, finding.rule)
            path, line, col, revision = place.path, place.line, place.column, place.revision
            author, url = place.author, place.url
            spot = (source, holder, path, line, col, revision)
            try:
                if (line is not None and line > _MOST) or (col is not None and col > _MOST):
                    raise OverflowError  # noqa: TRY301  # msgpack counts to 2**64, databases to 2**63
                mark = _encode(spot)
                held_by = _encode((author, url)) if author is not None or url is not None else b""
                if b"\0" in mark or b"\0" in held_by:  # in a number mostly; PostgreSQL stores none in a text
                    raise OverflowError  # noqa: TRY301  # both ways into the slow path meet below
            except (UnicodeEncodeError, OverflowError):
                path, revision, author, url = _text(path), _text(revision), _text(author), _text(url)
                line, col = _number(line), _number(col)
                mark = _encode((source, holder, path, line, col, revision))
            where = int.from_bytes(blake2b(mark, digest_size=8).digest(), "big", signed=True)
            credential = credentials[name]
            key = (credential, where)
            if key not in rows:
                claimed = finding.claimed._value_
                seen = None if finding.seen_at is None else stamp(finding.seen_at)
                rows[key] = (
                    credential, source, holder, rule, where, path, line, col, revision, author, url, claimed, seen, scan
                )  # fmt: skip
        return rows

    def _hold(self, scanner: str, place: Place) -> tuple[int, int]:
        """Return the ids of the holder (repository or image layer) and of the source it counts towards."""
        image = place.image or Image(name="")
        fields = (place.repository, image.registry, image.namespace, image.name, image.tag, image.digest, image.layer)
        fate = None if place.image is None else image.fate.value
        row = (place.source.value, *map(_text, fields), fate, place.visibility.value)
        if place.image is None:
            row = (*row[:4], None, *row[5:])
        mark = blake2b(_encode(row), digest_size=16).digest()
        sql = "SELECT id FROM holders WHERE mark=?"
        holder = self._intern("holders", sql, (mark,), (mark, *row))
        scan = self._in.scan
        origin = scan.origin if scan.origin is not None else place.origin or scan.fallback
        source = self.source(scanner, origin or "")
        if origin:
            self._in.origins.add(source)
        return holder, source

    def source(self, scanner: str, origin: str) -> int:
        """Return the id of a scanner's view of an origin."""
        known = self._in.sources.get((scanner, origin))
        if known is None:
            row = (_text(scanner), _text(origin))
            known = self._intern("sources", "SELECT id FROM sources WHERE scanner=? AND origin=?", row, row)
            self._in.sources[scanner, origin] = known
        return known

    def _rule(self, scanner: str, rule: str) -> int:
        row = (_text(scanner), _text(rule))
        known = self._intern("rules", "SELECT id FROM rules WHERE scanner=? AND rule=?", row, row)
        self._in.rules[scanner, rule] = known
        return known

    def _intern(self, table: str, sql: str, key: tuple[Any, ...], row: tuple[Any, ...]) -> int:
        """Return the id of a small row that many share, writing it where it is new."""
        found = self._raw.execute(sql, key).fetchone()
        if found:
            return int(found[0])
        rows = self._new.setdefault(table, [])
        number = next_id(self._raw, table)
        rows.append((number, *row))
        self._raw.execute(f"INSERT INTO {table} VALUES ({','.join('?' * (len(row) + 1))})", rows[-1])
        return number

    def tell(self, at: int, again: Sequence[int], sealed: Sequence[int] | dict[int, Any] = ()) -> None:
        """Append the batch's event, if it brought anything."""
        parts: list[tuple[Segment, bytes]] = [segment(table, rows) for table, rows in sorted(self._new.items())]
        if not parts and not again and not sealed:
            return
        refs = Refs(marks=tuple(marks for _, marks in parts), touched=pack_ids(again), sealed=pack_ids(sealed))
        payload = Payload(rows=tuple(told for told, _ in parts), scan=self._in.id)
        self._in.writer.append(self._raw, EventKind.FINDINGS, payload, refs=refs, at=at)


def split_id(name: CredentialID) -> tuple[str, bytes]:
    """Return vendor and the 16 bytes of an id; anything of another form is a `ValueError`."""
    vendor, _, digits = name.rpartition("-")
    digest = bytes.fromhex(digits)
    if not vendor or len(digest) != _HASH_BYTES:
        raise ValueError(f"{name!r} is not a credential id")
    return vendor, digest


def _text(value: str | None) -> str | None:
    """Replace what no database stores, or not every one: lone surrogates (undecodable file names), null characters."""
    return None if value is None else value.encode("utf-8", "replace").decode().replace("\0", "?")


def _number(value: int | None) -> int | None:
    return value if value is not None and -(2**63) <= value < 2**63 else None
