"""Reads from a ledger what an evidence file needs: the run's journal and its events, as of one moment."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from lapse.evidence.model import LedgerEvent, LedgerSlice, Rows
from lapse.ledger.chain import EventKind, read_payload, read_refs, unpack_ids
from lapse.ledger.clock import moment
from lapse.ledger.errors import LedgerError
from lapse.ledger.model import Head
from lapse.ledger.schema import LOGS
from playbooks.journal import Entry, RunState, What, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from lapse.ledger import Ledger
    from lapse.ledger.chain import Payload

_SPEAKS = (EventKind.ROTATION, EventKind.VERDICTS, EventKind.MARKED, EventKind.NOTE, EventKind.REVEALED,
           EventKind.ALARM, EventKind.PURGED)  # fmt: skip
"""Events that may be about one key alone."""

_OWN = (EventKind.ROTATION, EventKind.VERDICTS)
"""Events whose rows are given along."""

_data = msgspec.json.Decoder(dict[str, str]).decode


def extract(ledger: Ledger, run: str) -> tuple[RunState, LedgerSlice]:
    """Return a run's state and its slice of the chain, both of one moment; an unknown run is `Unknown`."""
    with ledger.reading() as connection:
        columns = ",".join(LOGS["rotations"].info["log"])
        sql = f"SELECT {columns} FROM rotations WHERE run = ? ORDER BY id"  # noqa: S608  # our own column names
        rows = [tuple(row) for row in connection.exec_driver_sql(sql, (run,))]
        state = state_of(run, map(_entry, rows))
        head = _head(connection)
        events = tuple(_events(connection, rows[0][2], {row[0] for row in rows}))
    return state, LedgerSlice(head.ledger, events, head)


def _entry(row: tuple[Any, ...]) -> Entry:
    number, _, _, at, step, what, text, data = row
    return Entry(number, moment(at), step, What(what), text, _data(data))


def _head(connection: Connection) -> Head:
    name, key = connection.exec_driver_sql("SELECT ledger, public_key FROM meta").one()
    seq, at, digest, signature = connection.exec_driver_sql("SELECT seq, at, hash, signature FROM head").one()
    return Head(name, seq, at, bytes(digest).hex(), bytes(signature).hex(), bytes(key).hex())


def _events(connection: Connection, credential: int, own: set[int]) -> Iterator[LedgerEvent]:
    """Yield the events that brought the run's rows, and those since its start that touch this key and no other."""
    columns = "seq, at, kind, payload, refs, prev, hash"
    kinds = ",".join("?" * len(_SPEAKS))
    sql = f"SELECT {columns} FROM events WHERE seq >= ? AND kind IN ({kinds}) ORDER BY seq"  # noqa: S608  # our own
    start = _start(connection, credential, min(own))
    for seq, at, kind, payload, packed, prev, digest in connection.exec_driver_sql(
        sql, (start, *(k.value for k in _SPEAKS))
    ):
        refs, said, sort = bytes(packed), read_payload(payload), EventKind(kind)
        brought = _brought(connection, sort, said, credential)
        if sort is EventKind.ROTATION:
            if brought is None or brought.rows[0][0] not in own:
                continue
        elif unpack_ids(read_refs(refs).touched) != [credential]:
            continue
        yield LedgerEvent(
            seq, at, kind, payload, b64encode(refs).decode(), bytes(prev).hex(), bytes(digest).hex(), brought
        )


def _start(connection: Connection, credential: int, first: int) -> int:
    """Return the event that brought the run's first row: rotations begin loudly, so the key's mentions name it."""
    sql = (
        "SELECT e.seq, e.payload FROM mentions m JOIN events e ON e.seq = m.seq"
        " WHERE m.credential = ? AND e.kind = 'rotation' ORDER BY e.seq"
    )
    for seq, payload in connection.exec_driver_sql(sql, (credential,)):
        if any(s.table == "rotations" and s.first == first for s in read_payload(payload).rows):
            return int(seq)
    raise LedgerError("the events of this rotation cannot be found; `lapse ledger check` says what is wrong")


def _brought(connection: Connection, kind: EventKind, said: Payload, credential: int) -> Rows | None:
    """Return the rows of an event that are this key's alone."""
    if kind not in _OWN or len(said.rows) != 1:
        return None
    told = said.rows[0]
    columns = ",".join(LOGS[told.table].info["log"])
    sql = f"SELECT {columns} FROM {told.table} WHERE id >= ? AND id < ? AND credential = ? ORDER BY id"  # noqa: S608  # our own names
    found = connection.exec_driver_sql(sql, (told.first, told.first + told.count, credential)).fetchall()
    return Rows(told.table, tuple(map(tuple, found))) if len(found) == told.count else None
