"""What there is to see. Every list is an iterator; none holds a read transaction longer than a page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lapse.ledger.chain import read_payload
from lapse.ledger.clock import moment, moment_or_none, stamp
from lapse.ledger.codec import COLUMNS, read_verdict
from lapse.ledger.errors import AmbiguousKey, UnknownKey
from lapse.ledger.model import (
    Canary,
    Found,
    Gone,
    Kept,
    Key,
    Noted,
    Order,
    Seen,
    Select,
    Sort,
    State,
    Status,
    Story,
    Told,
    Turn,
    Turned,
)
from lapse.ledger.record import read_kinds
from verifier.model import (
    Claimed,
    CredentialID,
    Image,
    KindID,
    LayerFate,
    Place,
    SourceKind,
    Undecided,
    Visibility,
)
from verifier.ports import Fallen
from verifier.scope import Ownership

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from lapse.ledger.db import Database

_PAGE = 500
_LISTED = 10
_ALL_OF_THEM = 2**62
_KEPT = (Kept.NEVER, Kept.SEALED, Kept.PURGED)
_V = ",".join(f"v.{name}" for name in COLUMNS)
_W = ",".join(f"w.{name}" for name in COLUMNS)
_KEYS = (
    "SELECT c.id, c.hash, c.vendor, c.digits, c.provider, c.candidates, c.hint, c.incomplete, a.at, z.at,"
    " s.findings, s.present, s.kept, s.owner, s.canary, s.at, s.confirmed, s.first_live, s.last_live, s.dead_since,"
    f" s.confirmed_at, s.due, s.streak, s.known_id = s.last, {_V}, {_W}"
    " FROM states s JOIN credentials c ON c.id = s.credential JOIN scans a ON a.id = c.scan"
    " JOIN scans z ON z.id = s.last_scan LEFT JOIN verdicts v ON v.id = s.last"
    " LEFT JOIN verdicts w ON w.id = s.known_id AND w.id <> s.last"
)
# Three passes over a million rows: each comparison and sum costs 40 ms, so the rare rows are counted by themselves.
_ALL = (
    "SELECT count(*), coalesce(sum(findings), 0), coalesce(sum(present), 0), count(verdict), count(known),"
    " coalesce(sum(confirmed), 0), count(*) FILTER (WHERE kept = 1) FROM states"
)
_LIVE = (
    "SELECT count(*), count(*) FILTER (WHERE findings > 0 AND present = 0), coalesce(sum(restricted), 0),"
    " count(*) FILTER (WHERE verdict = 'undecided') FROM states WHERE known = 'live'"
)
_MARKED = (
    "SELECT count(*) FILTER (WHERE owner = 'foreign'), count(*) FILTER (WHERE canary = 'yes') FROM states"
    " WHERE owner IS NOT NULL OR canary IS NOT NULL"
)
_STATES = {
    State.LIVE: "s.known = 'live'",
    State.DEAD: "s.known = 'dead'",
    State.UNDECIDED: "(s.known IS NULL AND s.verdict IS NOT NULL)",
    State.UNCHECKED: "s.verdict IS NULL",
}
_ORDERS = {
    Order.SEEN: "c.id",
    Order.NEWEST: "c.id DESC",
    Order.RISK: (
        "CASE s.known WHEN 'live' THEN 0 WHEN 'dead' THEN 2 ELSE 1 END, s.restricted,"
        " CASE s.privilege WHEN 'admin' THEN 0 WHEN 'write' THEN 1 WHEN 'read' THEN 3 ELSE 2 END,"
        " s.findings DESC, s.credential"
    ),
}


_NAMES = (
    "SELECT c.id, c.hash, c.vendor, c.provider, s.confirmed FROM states s JOIN credentials c ON c.id = s.credential"
    " WHERE {where} AND c.id > ? ORDER BY c.id LIMIT ?"
)
_SORTS = (
    "SELECT s.known, s.verdict, s.confirmed, CASE WHEN s.findings > 0 AND s.present = 0 THEN 1 ELSE 0 END, count(*)"
    " FROM states s JOIN credentials c ON c.id = s.credential WHERE "
)
_BY = " GROUP BY 1, 2, 3, 4"


def status(db: Database) -> Status:
    """Count everything: under half a second at a million keys, however many findings."""

    def count(connection: Connection) -> list[int]:
        ask = connection.exec_driver_sql
        figures = [int(n) for sql in (_ALL, _LIVE, _MARKED) for n in ask(sql).one()]
        return [*figures, int(ask("SELECT seq FROM head").scalar() or 0)]

    counted = db.look(count)
    every, findings, present, judged, answered, dead, secrets = counted[:7]
    live, removed, restricted, unsure, foreign, canaries, events = counted[7:]
    return Status(
        keys=every,
        findings=findings,
        present=present,
        removed_never_revoked=removed,
        live=live,
        live_restricted=restricted,
        live_unsure=unsure,
        dead=dead,
        dead_unconfirmed=answered - live - dead,
        undecided=judged - answered,
        unchecked=every - judged,
        foreign=foreign,
        canaries=canaries,
        secrets=secrets,
        events=events,
    )


def providers(db: Database) -> list[str]:
    """Return the kinds of key there are."""
    return sorted(str(row[0]) for row in db.rows("SELECT DISTINCT provider FROM credentials"))


def keys(db: Database, select: Select) -> Iterator[Key]:
    """Yield the keys that `select` describes, a page at a time."""
    where, args = _where(select)
    if select.ids is not None:
        for start in range(0, len(select.ids), _PAGE):
            hashes = [bytes.fromhex(name.rpartition("-")[2]) for name in select.ids[start : start + _PAGE]]
            marks = ",".join("?" * len(hashes))
            part = f"{where} AND c.hash IN ({marks})"
            for row in db.rows(*_asked(part, [*args, *hashes], select.order, _ALL_OF_THEM, 0)):
                yield _key(tuple(row))
        return
    if select.order is Order.SEEN and select.limit is None and not select.offset:
        after = 0
        while True:
            rows = db.rows(*_asked(f"{where} AND c.id > ?", [*args, after], select.order, _PAGE, 0))
            for row in rows:
                yield _key(tuple(row))
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]
    limit = _ALL_OF_THEM if select.limit is None else select.limit
    for row in db.stream(*_asked(where, args, select.order, limit, select.offset)):
        yield _key(tuple(row))


def names(db: Database, select: Select) -> Iterator[tuple[CredentialID, KindID, bool]]:
    """Yield id, kind and whether proven dead of the keys that `select` describes, as first seen: no verdict is read."""
    where, args = _where(select)
    after = 0
    while True:
        rows = db.rows(_NAMES.format(where=where), (*args, after, _PAGE))
        for _, digest, vendor, provider, confirmed in rows:
            yield CredentialID(f"{vendor}-{digest.hex()}"), KindID(provider), bool(confirmed)
        if len(rows) < _PAGE:
            return
        after = rows[-1][0]


def sorts(db: Database, select: Select) -> Iterator[Sort]:
    """Yield how many keys of each sort `select` describes; a sort may come more than once where ids are named."""
    where, args = _where(select)
    for start in range(0, 1 if select.ids is None else len(select.ids), _PAGE):
        part, hashes = where, list[bytes]()
        if select.ids is not None:
            hashes = [bytes.fromhex(name.rpartition("-")[2]) for name in select.ids[start : start + _PAGE]]
            part = f"{where} AND c.hash IN ({','.join('?' * len(hashes))})"
        for known, last, confirmed, removed, number in db.rows(_SORTS + part + _BY, (*args, *hashes)):
            yield Sort(known, last, bool(confirmed), bool(removed), number)


def _where(select: Select) -> tuple[str, list[Any]]:
    terms, args = ["TRUE"], list[Any]()
    if select.states:
        terms.append("(" + " OR ".join(_STATES[state] for state in sorted(select.states)) + ")")
    if select.removed is not None:
        gone = "(s.findings > 0 AND s.present = 0)"
        terms.append(gone if select.removed else f"NOT {gone}")
    for column, value in (
        ("c.provider = ?", select.provider),
        ("s.confirmed = ?", None if select.confirmed is None else int(select.confirmed)),
        ("coalesce(s.owner, 'unknown') = ?", None if select.owner is None else select.owner.value),
        ("c.incomplete = ?", None if select.incomplete is None else int(select.incomplete)),
        ("s.last_scan >= ?", select.scan),
    ):
        if value is not None:
            terms.append(column)
            args.append(value)
    return " AND ".join(terms), args


def _asked(where: str, args: list[Any], order: Order, limit: int, offset: int) -> tuple[str, list[Any]]:
    return f"{_KEYS} WHERE {where} ORDER BY {_ORDERS[order]} LIMIT ? OFFSET ?", [*args, limit, offset]


def _key(row: tuple[Any, ...]) -> Key:
    (_, digest, vendor, digits, provider, candidates, hint, incomplete, first, last, findings, present, kept) = row[:13]
    (owner, canary, at, confirmed, first_live, last_live, dead_since, confirmed_at, due, streak, same) = row[13:24]
    newest = read_verdict(row[24 : 24 + len(COLUMNS)])
    known = newest if same else read_verdict(row[24 + len(COLUMNS) :])
    text = digest.hex()
    return Key(
        id=CredentialID(f"{vendor}-{text}"),
        short=f"{vendor}-{text[:digits]}",
        provider=KindID(provider),
        candidates=read_kinds(candidates),
        hint=hint,
        incomplete=bool(incomplete),
        first_seen=moment(first),
        last_seen=moment(last),
        findings=findings,
        present=present,
        kept=_KEPT[kept],
        owner=Ownership(owner or "unknown"),
        canary=Canary(canary or "unknown"),
        last=newest,
        last_at=moment_or_none(at),
        known=None if isinstance(known, Undecided) else known,
        confirmed=bool(confirmed),
        first_live=moment_or_none(first_live),
        last_live=moment_or_none(last_live),
        dead_since=moment_or_none(dead_since),
        confirmed_at=moment_or_none(confirmed_at),
        due=moment(due),
        attempts=streak,
    )


def number_of(db: Database, name: CredentialID) -> int:
    """Return a credential's row id; one that the ledger lacks is an `UnknownKey`."""
    found = db.rows("SELECT id FROM credentials WHERE hash=?", (bytes.fromhex(name.rpartition("-")[2]),))
    if not found:
        raise UnknownKey(f"the ledger has no key {name}; `lapse status` lists what it has")
    return int(found[0][0])


_FOUND = (
    "f.id, h.source, h.repository, h.registry, h.namespace, h.name, h.tag, h.digest, h.layer, h.fate,"
    " h.visibility, f.path, f.line, f.col, f.revision, f.author, f.url, r.scanner, r.rule, f.claimed, f.seen_at,"
    " a.at, z.at, f.removed"
)
_JOINS = (
    " JOIN holders h ON h.id = f.holder JOIN rules r ON r.id = f.rule"
    " JOIN scans a ON a.id = f.scan JOIN scans z ON z.id = f.last_scan"
)


def places(db: Database, name: CredentialID) -> Iterator[Found]:
    """Yield where a credential was found, as first seen, removed places included."""
    sql = f"SELECT {_FOUND} FROM findings f{_JOINS} WHERE f.credential = ? AND f.id > ? ORDER BY f.id LIMIT ?"
    number, after = number_of(db, name), 0
    while True:
        rows = db.rows(sql, (number, after, _PAGE))
        for row in rows:
            yield _found(tuple(row))
        if len(rows) < _PAGE:
            return
        after = rows[-1][0]


def places_of(db: Database, names: Sequence[CredentialID], most: int) -> Iterator[tuple[CredentialID, Found]]:
    """Yield where each of these credentials was found, its first `most` places: a few queries for all of them."""
    inner = (
        "SELECT f.*, c.hash, row_number() OVER (PARTITION BY f.credential ORDER BY f.id) AS nth"
        " FROM credentials c JOIN findings f ON f.credential = c.id WHERE c.hash IN ({marks})"
    )
    for start in range(0, len(names), _PAGE):
        wanted = {bytes.fromhex(name.rpartition("-")[2]): name for name in names[start : start + _PAGE]}
        marks = ",".join("?" * len(wanted))
        sql = f"SELECT f.hash, {_FOUND} FROM ({inner.format(marks=marks)}) f{_JOINS} WHERE f.nth <= ? ORDER BY f.id"
        for row in db.rows(sql, (*wanted, most)):
            yield wanted[bytes(row[0])], _found(tuple(row[1:]))


def remarks(
    db: Database, names: Sequence[CredentialID]
) -> Iterator[tuple[CredentialID, datetime | None, tuple[Noted, ...]]]:
    """Yield, of each of these credentials, when it last turned and the notes about it since, oldest first."""
    for start in range(0, len(names), _PAGE):
        wanted = {bytes.fromhex(name.rpartition("-")[2]): name for name in names[start : start + _PAGE]}
        where = f"c.hash IN ({','.join('?' * len(wanted))})"
        turned = (
            "SELECT c.hash, max(v.at) FROM credentials c JOIN verdicts v ON v.credential = c.id"
            f" WHERE {where} AND v.turn IS NOT NULL GROUP BY c.hash"
        )
        noted = (
            "SELECT c.hash, e.at, e.kind, e.payload FROM credentials c JOIN mentions m ON m.credential = c.id"
            f" JOIN events e ON e.seq = m.seq WHERE {where} AND e.kind = 'note' ORDER BY e.seq"
        )
        turned_at, told = db.look(partial(_both, turned, noted, tuple(wanted)))
        turns = {bytes(h): int(at) for h, at in turned_at}
        notes: dict[bytes, list[Noted]] = {}
        for digest, at, kind, payload in told:
            if at >= turns.get(bytes(digest), 0):
                said = read_payload(payload)
                notes.setdefault(bytes(digest), []).append(Noted(moment(at), kind, said.text, dict(said.detail)))
        for digest, name in wanted.items():
            yield name, moment_or_none(turns.get(digest)), tuple(notes.get(digest, ()))


def _both(one: str, two: str, args: tuple[Any, ...], connection: Connection) -> tuple[Sequence[Any], Sequence[Any]]:
    ask = connection.exec_driver_sql
    return ask(one, args).fetchall(), ask(two, args).fetchall()


def _found(row: tuple[Any, ...]) -> Found:
    number, source, repository, registry, namespace, name, tag, digest, layer, fate, visibility = row[:11]
    path, line, col, revision, author, url, scanner, rule, claimed, seen_at, first, last, removed = row[11:]
    image = None
    if name is not None:
        image = Image(
            name=name, registry=registry, namespace=namespace, tag=tag, digest=digest, layer=layer, fate=LayerFate(fate)
        )
    place = Place(
        source=SourceKind(source),
        repository=repository,
        image=image,
        path=path,
        line=line,
        column=col,
        revision=revision,
        author=author,
        visibility=Visibility(visibility),
        url=url,
    )
    return Found(
        id=number,
        place=place,
        scanner=scanner,
        rule=rule,
        claimed=Claimed(claimed),
        seen_at=moment_or_none(seen_at),
        first_seen=moment(first),
        last_seen=moment(last),
        removed_at=moment_or_none(removed),
    )


def story(db: Database, name: CredentialID) -> list[Story]:
    """Return everything that happened to one credential, oldest first."""
    return db.look(partial(_story, number_of(db, name)))


def _story(number: int, connection: Connection) -> list[Story]:
    told: list[Story] = []
    ask = connection.exec_driver_sql
    seen = (
        "SELECT s.at, s.scanner, s.file, count(*) FROM findings f JOIN scans s ON s.id = f.scan"
        " WHERE f.credential = ? GROUP BY s.id ORDER BY s.id"
    )
    told += [Seen(moment(at), scanner, file, n) for at, scanner, file, n in ask(seen, (number,))]
    gone = (
        "SELECT removed, count(*) FROM findings WHERE credential = ? AND removed IS NOT NULL"
        " GROUP BY removed ORDER BY removed"
    )
    told += [Gone(moment(at), n) for at, n in ask(gone, (number,))]
    for row in ask(f"SELECT v.at, v.run, v.turn, {_V} FROM verdicts v WHERE v.credential=? ORDER BY v.id", (number,)):
        verdict = read_verdict(tuple(row[3:]))
        if verdict is not None:
            told.append(Told(moment(row[0]), verdict, row[1], None if row[2] is None else Turn(row[2])))
    noted = (
        "SELECT e.at, e.kind, e.payload FROM mentions m JOIN events e ON e.seq = m.seq"
        " WHERE m.credential = ? ORDER BY e.seq"
    )
    for at, kind, payload in ask(noted, (number,)):
        said = read_payload(payload)
        detail = dict(said.detail)
        detail |= {name: value for name, value in (("owner", said.owner), ("canary", said.canary)) if value}
        told.append(Noted(moment(at), kind, said.text, detail))
    return sorted(told, key=lambda line: line.at)


def resolve(db: Database, prefix: str) -> CredentialID:
    """Return the id that a short id, or a unique beginning of an id (vendor included or digits alone), means."""
    vendor, _, digits = prefix.strip().lower().rpartition("-")
    if len(digits) > 32 or not set(digits) <= set("0123456789abcdef") or not (vendor or digits):
        raise UnknownKey(f"{prefix!r} is not the id of a key; ids look like aws-7f3a9c")
    low, high = bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))
    sql = "SELECT hash, vendor, digits FROM credentials WHERE hash BETWEEN ? AND ?"
    args: list[Any] = [low, high]
    if vendor:
        sql += " AND vendor = ?"
        args.append(vendor)
    rows = db.rows(f"{sql} AND digits = ? LIMIT 2", (*args, len(digits))) if vendor else []
    rows = rows or db.rows(f"{sql} ORDER BY hash LIMIT {_LISTED + 1}", args)
    if not rows:
        raise UnknownKey(f"the ledger has no key {prefix!r}; `lapse status` lists what it has")
    if len(rows) > 1:
        raise AmbiguousKey(prefix, tuple(f"{v}-{h.hex()[:d]}" for h, v, d in rows[:_LISTED]))
    return CredentialID(f"{rows[0][1]}-{rows[0][0].hex()}")


def fallen(db: Database, since: datetime) -> list[Fallen]:
    """Return what `Ledger.fallen` promises. One pass over the states, and one more for each vendor concerned."""
    sql = (
        "SELECT c.vendor, c.hash, s.confirmed, s.dead_since FROM states s JOIN credentials c ON c.id = s.credential"
        " WHERE s.known = 'dead' AND s.last_live IS NOT NULL AND s.dead_since > ?"
        " ORDER BY s.credential"
    )
    newest = "SELECT max(s.last_live) FROM states s JOIN credentials c ON c.id = s.credential WHERE c.vendor = ?"
    rows = db.rows(sql, (stamp(since),))
    alive = {v: int(db.rows(newest, (v,))[0][0]) for v in {vendor for vendor, _, confirmed, _ in rows if confirmed}}
    return [
        Fallen(vendor, CredentialID(f"{vendor}-{digest.hex()}"))
        for vendor, digest, confirmed, died in rows
        if not confirmed or died > alive[vendor]
    ]


def turns(db: Database, since: datetime) -> Iterator[Turned]:
    """Yield what died, revived or was found live or dead at or after `since`: key by key, each in order of time."""
    sql = (
        "SELECT c.hash, c.vendor, c.digits, v.at, v.turn FROM verdicts v JOIN credentials c ON c.id = v.credential"
        " WHERE v.turn IS NOT NULL AND v.at >= ? ORDER BY v.credential, v.at, v.id"
    )
    for digest, vendor, digits, at, turned in db.stream(sql, (stamp(since),)):
        text = digest.hex()
        yield Turned(CredentialID(f"{vendor}-{text}"), f"{vendor}-{text[:digits]}", moment(at), Turn(turned))
