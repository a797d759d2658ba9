"""The journal of rotations: entries in a log table, each with an event in the chain; what `playbooks.journal` asks for.

Nothing is ever updated: where a run stands is a fold of its entries, so `lapse ledger check` covers all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lapse.ledger.chain import EventKind, Payload, Refs, pack_ids
from lapse.ledger.clock import moment, stamp
from lapse.ledger.clock import now as present
from lapse.ledger.record import numbers
from lapse.ledger.rowlog import Row, next_id, segment
from playbooks.journal import Entry, Taken, Unknown, What
from verifier.model import CredentialID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from lapse.ledger.db import Database
    from lapse.ledger.raw import Raw
    from lapse.ledger.writer import Writer

_COLUMNS = "id, at, step, what, text, data"
_OPEN = "NOT EXISTS (SELECT 1 FROM rotations e WHERE e.run = r.run AND e.what = 'ended')"
_encode = msgspec.json.Encoder(order="deterministic").encode
_data = msgspec.json.Decoder(dict[str, str]).decode
_QUIET = frozenset({What.NOTE, What.CLAIMED})
"""Entries that no story of a key tells: there are many, and the others say what came of them."""


class Rotations:
    """The rotations of one ledger. Safe between threads and processes; every append is on disk when it returns."""

    def __init__(self, db: Database, writer: Callable[[], Writer], clock: Callable[[], datetime] = present) -> None:
        """Use `Ledger.rotations`. The writer is asked for at the first write: it needs the ledger's key."""
        self._db, self._writer, self._clock = db, writer, clock

    def start(self, run: str, credential: CredentialID, text: str, data: Mapping[str, str]) -> int:
        """Append `started`, unless this credential has an open run (`Taken`)."""

        def begin(raw: Raw) -> int:
            number = numbers(raw, [credential])[credential]
            sql = f"SELECT r.run FROM rotations r WHERE r.credential = ? AND r.what = 'started' AND {_OPEN}"
            if held := raw.execute(sql, (number,)).fetchone():
                raise Taken(held[0], "this key")
            if raw.execute("SELECT 1 FROM rotations WHERE run = ?", (run,)).fetchone():
                raise Taken(run, "this name")
            return self._append(raw, run, number, "", What.STARTED, text, data)

        return self._writer().write(begin)

    def claim(self, run: str, resource: str) -> None:
        """Append `claimed` for `resource` once, unless another open run holds it (`Taken`)."""

        def take(raw: Raw) -> None:
            sql = f"SELECT r.run FROM rotations r WHERE r.what = 'claimed' AND r.step = ? AND {_OPEN}"
            holders = {row[0] for row in raw.execute(sql, (resource,))}
            if others := holders - {run}:
                raise Taken(min(others), resource)
            if not holders:
                self._append(raw, run, _credential(raw, run), resource, What.CLAIMED, "", {})

        self._writer().write(take)

    def append(self, run: str, step: str, what: What, text: str = "", data: Mapping[str, str] | None = None) -> int:
        """Append an entry; return its number."""
        told = data or {}
        return self._writer().write(lambda raw: self._append(raw, run, _credential(raw, run), step, what, text, told))

    def entries(self, run: str) -> Sequence[Entry]:
        """Return a run's entries, oldest first."""
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM rotations WHERE run = ? ORDER BY id", (run,))
        if not rows:
            raise Unknown(f"there is no rotation {run}; `lapse status` lists those under way")
        return [Entry(n, moment(at), step, What(what), text, _data(data)) for n, at, step, what, text, data in rows]

    def open_runs(self) -> Sequence[str]:
        """Return the runs that have not ended, oldest first."""
        sql = f"SELECT r.run FROM rotations r WHERE r.what = 'started' AND {_OPEN} ORDER BY r.id"
        return [str(row[0]) for row in self._db.rows(sql)]

    def runs(self, credential: CredentialID | None = None) -> Sequence[str]:
        """Return all runs, or those of one key, oldest first."""
        sql = "SELECT r.run FROM rotations r JOIN credentials c ON c.id = r.credential WHERE r.what = 'started'"
        args: tuple[bytes, ...] = ()
        if credential is not None:
            sql += " AND c.hash = ?"
            args = (bytes.fromhex(credential.rpartition("-")[2]),)
        return [str(row[0]) for row in self._db.rows(f"{sql} ORDER BY r.id", args)]

    def credential(self, run: str) -> CredentialID:
        """Return whose run it is."""
        sql = "SELECT c.vendor, c.hash FROM rotations r JOIN credentials c ON c.id = r.credential WHERE r.run = ?"
        rows = self._db.rows(f"{sql} LIMIT 1", (run,))
        if not rows:
            raise Unknown(f"there is no rotation {run}; `lapse status` lists those under way")
        return CredentialID(f"{rows[0][0]}-{rows[0][1].hex()}")

    def resolve(self, prefix: str) -> str:
        """Return the run that a name or its unique beginning means; `Unknown` otherwise."""
        found = [r for r in self.runs() if r == prefix] or [r for r in self.runs() if r.startswith(prefix)]
        if len(found) != 1:
            said = "is not unique" if found else "is no rotation"
            raise Unknown(f"{prefix!r} {said}; `lapse status` lists those under way")
        return found[0]

    def _append(  # noqa: PLR0917  # the columns of a row
        self, raw: Raw, run: str, credential: int, step: str, what: What, text: str,
        data: Mapping[str, str],
    ) -> int:  # fmt: skip
        at = stamp(self._clock())
        number = next_id(raw, "rotations")
        row: Row = (number, run, credential, at, step, what.value, text, _encode(dict(data)).decode())
        raw.execute("INSERT INTO rotations VALUES (?,?,?,?,?,?,?,?)", row)
        told, marks = segment("rotations", [row])
        about = " ".join(p for p in (f"rotation {run}:", step, what.value) if p)
        payload = Payload(rows=(told,), text=f"{about}: {text}" if text else about)
        writer = self._writer()
        quiet = what in _QUIET or (what is What.WAITING and data.get("on") == "time")
        loud = set[int]() if quiet else {credential}
        refs = Refs(marks=(marks,), touched=pack_ids(loud))
        seq = writer.append(raw, EventKind.ROTATION, payload, refs=refs, at=at)
        writer.mention(raw, loud, seq)
        return number


def _credential(raw: Raw, run: str) -> int:
    row = raw.execute("SELECT credential FROM rotations WHERE run = ? LIMIT 1", (run,)).fetchone()
    if row is None:
        raise Unknown(f"there is no rotation {run}; `lapse status` lists those under way")
    return int(row[0])
