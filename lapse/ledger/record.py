"""What is due, and what was learnt: the other hot path (raw SQL)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lapse.ledger.chain import EventKind, Payload, Refs, pack_ids
from lapse.ledger.clock import moment_or_none, stamp
from lapse.ledger.codec import COLUMNS, read_verdict, verdict_row
from lapse.ledger.errors import UnknownKey
from lapse.ledger.fold import Facts, Knowledge, fold, turn, wait
from lapse.ledger.intake import split_id
from lapse.ledger.model import Run
from lapse.ledger.rowlog import Row, next_id, segment
from lapse.ledger.schema import LOGS
from verifier.model import Credential, CredentialID, Dead, KindID, Live
from verifier.ports import Due, Judged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lapse.ledger.db import Database
    from lapse.ledger.model import Schedule
    from lapse.ledger.raw import Raw
    from lapse.ledger.seal import Seal
    from lapse.ledger.writer import Writer

PAGE = 500
_FOLDED = Knowledge.__struct_fields__
_LOGGED = LOGS["verdicts"].info["log"]
_VERDICT = ",".join(f"v.{name}" for name in COLUMNS)
_DUE = (
    f"SELECT c.id, c.hash, c.vendor, c.provider, c.candidates, s.last_live, s.dead_since, b.nonce, b.blob, {_VERDICT}"
    " FROM states s JOIN credentials c ON c.id = s.credential"
    " JOIN sealed b ON b.credential = s.credential LEFT JOIN verdicts v ON v.id = s.last"
    " WHERE c.id > ? {where} ORDER BY c.id LIMIT ?"
)
_NOT_SINCE = (
    " AND (s.at IS NULL OR (s.at < ? AND NOT EXISTS (SELECT 1 FROM verdicts w WHERE w.id = s.last AND w.run = ?))"
    " OR (s.verdict = 'dead' AND s.confirmed = 0 AND s.due <= ?))"
)
_BY_HASH = (
    "SELECT c.id, c.hash, {fields} FROM credentials c JOIN states s ON s.credential=c.id WHERE c.hash IN ({marks})"
)


def due_where(
    by: datetime | None, at: datetime, provider: str | None, since: datetime | Run | None
) -> tuple[str, list[int | str]]:
    """Return the SQL conditions, and their values, of what a run should ask about; `by` None asks due or not.

    A `Run` as `since` leaves out what it judged whatever the clock said then: a clock may be set back in the middle.
    """
    where, args = "", list[int | str]()
    if by is not None:
        where += " AND s.due <= ?"
        args.append(stamp(by))
    if provider is not None:
        where += " AND c.provider = ?"
        args.append(provider)
    if since is not None:
        where += _NOT_SINCE
        began, run = (since.started, since.id) if isinstance(since, Run) else (since, -1)
        args += [stamp(began), run, stamp(at)]
    return where, args


def due(
    db: Database, seal: Seal, where: str, args: Sequence[int | str], ids: Iterable[CredentialID] | None
) -> Iterator[Due]:
    """Yield credentials with their parts, a page at a time, so that no read transaction outlives a page."""
    if ids is not None:
        yield from _due_ids(db, seal, where, args, list(ids))
        return
    sql = _DUE.format(where=where)
    after = 0
    while True:
        rows = db.rows(sql, (after, *args, PAGE))
        for row in rows:
            yield _due(seal, row)
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def _due_ids(db: Database, seal: Seal, where: str, args: Sequence[int | str], ids: list[CredentialID]) -> Iterator[Due]:
    for start in range(0, len(ids), PAGE):
        hashes = [split_id(name)[1] for name in ids[start : start + PAGE]]
        marks = ",".join("?" * len(hashes))
        sql = _DUE.format(where=f"{where} AND c.hash IN ({marks})")
        for row in db.rows(sql, (0, *args, *hashes, PAGE)):
            yield _due(seal, row)


def _due(seal: Seal, row: Sequence[Any]) -> Due:
    _, digest, vendor, provider, candidates, last_live, dead_since, nonce, blob = row[:9]
    name = CredentialID(f"{vendor}-{digest.hex()}")
    parts = seal.open_parts(name, nonce, blob)
    credential = Credential(name, KindID(provider), parts, read_kinds(candidates))
    return _remembered(credential, tuple(row[9:]), last_live, dead_since)


def _remembered(credential: Credential, verdict: tuple[Any, ...], last_live: int | None, dead_since: int | None) -> Due:
    last = read_verdict(verdict)
    unbroken = dead_since if verdict[0] == "dead" else None
    return Due(credential, last, moment_or_none(last_live), moment_or_none(unbroken))


def recall(db: Database, credentials: Sequence[Credential], since: datetime | None, now: datetime) -> Iterator[Due]:
    """Yield these credentials, which the caller holds itself, with what the ledger remembers of each."""
    for start in range(0, len(credentials), PAGE):
        page = credentials[start : start + PAGE]
        hashes = [split_id(c.id)[1] for c in page]
        marks = ",".join("?" * len(hashes))
        sql = (
            f"SELECT c.hash, s.last_live, s.dead_since, s.at, s.confirmed, s.due, {_VERDICT} FROM credentials c"
            " JOIN states s ON s.credential = c.id LEFT JOIN verdicts v ON v.id = s.last"
            f" WHERE c.hash IN ({marks})"
        )
        rows = {row[0]: row for row in db.rows(sql, hashes)}
        for credential, digest in zip(page, hashes, strict=True):
            row = rows.get(digest)
            if row is None:
                yield Due(credential)
                continue
            _, last_live, dead_since, at, confirmed, when = row[:6]
            again = row[6] == "dead" and not confirmed and when <= stamp(now)
            if since is None or at is None or at < stamp(since) or again:
                yield _remembered(credential, tuple(row[6:]), last_live, dead_since)


def record(
    writer: Writer, schedule: Schedule, judged: Sequence[Judged], run: Run | None, *, once: bool = False
) -> None:
    """Write verdicts, fold them, append one event; committed on return. An id the ledger lacks is an `UnknownKey`.

    `once`: what this run has on record already, from another process perhaps, is not written again.
    """
    number = 0 if run is None else run.id

    def write(raw: Raw) -> None:
        known = _knowledge(raw, [j.id for j in judged])
        fresh = judged
        if once:
            before = _told(raw, number, known)
            fresh = [j for j in judged if j.id not in before or _again(known[j.id][1], j)]
            known = {j.id: known[j.id] for j in fresh}
            if not fresh:
                return
        first = next_id(raw, "verdicts")
        rows: list[Row] = []
        for verdict_id, one in enumerate(fresh, first):
            credential, old = known[one.id]
            at = stamp(one.at)
            row = verdict_row(one.verdict)
            later = at + wait(schedule, old, one.verdict)
            turned = turn(old, row[0])
            rows.append((verdict_id, credential, number, at, *row, later, None if turned is None else turned.value))
            who = one.verdict.identity if isinstance(one.verdict, Live) else None
            privilege = None if who is None else who.privilege.value
            facts = Facts(verdict_id, at, row[0], row[1], row[3], row[4], privilege, later)
            known[one.id] = (credential, fold(old, facts))
        raw.insert("verdicts", _LOGGED, rows)
        folded = [(*(getattr(state, name) for name in _FOLDED), credential) for credential, state in known.values()]
        raw.put("states", "credential", _FOLDED, folded)
        told, marks = segment("verdicts", rows)
        touched = pack_ids({credential for credential, _ in known.values()})
        refs = Refs(marks=(marks,), touched=touched)
        writer.append(raw, EventKind.VERDICTS, Payload(rows=(told,), run=number), refs=refs, at=writer.stamp())

    writer.write(write)


def _told(raw: Raw, run: int, known: Mapping[CredentialID, tuple[int, Knowledge]]) -> set[CredentialID]:
    """Return the credentials whose newest verdict is one of this run."""
    names = {state.last: name for name, (_, state) in known.items() if state.last is not None}
    lasts, found = list(names), set[CredentialID]()
    for start in range(0, len(lasts), PAGE):
        part = lasts[start : start + PAGE]
        sql = f"SELECT id FROM verdicts WHERE run = ? AND id IN ({','.join('?' * len(part))})"
        found |= {names[row[0]] for row in raw.execute(sql, [run, *part])}
    return found


def _again(state: Knowledge, one: Judged) -> bool:
    """Say whether this may be the second look that a first Dead of the same run waits for, or confirms it."""
    if state.verdict != "dead" or state.confirmed:
        return False
    return state.due <= stamp(one.at) or (isinstance(one.verdict, Dead) and one.verdict.confirmed)


def _knowledge(raw: Raw, ids: Sequence[CredentialID]) -> dict[CredentialID, tuple[int, Knowledge]]:
    """Return row id and present knowledge of each credential."""
    fields = ",".join(f"s.{name}" for name in _FOLDED)
    found: dict[bytes, tuple[int, Knowledge]] = {}
    wanted = {name: split_id(name)[1] for name in ids}
    hashes = list(wanted.values())
    for start in range(0, len(hashes), PAGE):
        part = hashes[start : start + PAGE]
        sql = _BY_HASH.format(fields=fields, marks=",".join("?" * len(part)))
        for row in raw.execute(sql, part):
            found[row[1]] = (row[0], Knowledge(*row[2:]))
    try:
        return {name: found[digest] for name, digest in wanted.items()}
    except KeyError:
        lost = next(name for name, digest in wanted.items() if digest not in found)
        raise UnknownKey(f"the ledger has no key {lost}; ingest the report that it came from first") from None


def numbers(raw: Raw, ids: Iterable[CredentialID]) -> dict[CredentialID, int]:
    """Return the row id of each credential; one that the ledger lacks is an `UnknownKey`."""
    return {name: number for name, (number, _) in _knowledge(raw, list(ids)).items()}


def read_kinds(joined: str | None) -> tuple[KindID, ...]:
    """Return the kinds of a `candidates` column."""
    return tuple(KindID(kind) for kind in joined.split(",")) if joined else ()
