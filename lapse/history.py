"""What was done with a ledger lately: verification runs, reports read in, events of the chain."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from lapse.ledger.clock import moment, moment_or_none
from verifier.words import plural

if TYPE_CHECKING:
    from lapse.ledger.db import Database


class Job(Struct, frozen=True):
    """One verification run of the ledger."""

    id: int
    what: str
    started: datetime
    ended: datetime | None


class Read(Struct, frozen=True):
    """One report that was read in."""

    id: int
    scanner: str
    file: str
    origin: str
    complete: bool
    at: datetime
    findings: int | None
    keys: int | None
    new: int | None
    removed: int | None


def jobs(db: Database, limit: int = 20) -> list[Job]:
    """Return the newest verification runs."""
    with db.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id, what, started, ended FROM runs ORDER BY id DESC LIMIT ?", (limit,)
        ).fetchall()
    return [Job(n, what, moment(started), moment_or_none(ended)) for n, what, started, ended in rows]


def scans(db: Database, limit: int = 20) -> list[Read]:
    """Return the newest reports."""
    sql = (
        "SELECT id, scanner, file, coalesce(origin, ''), complete, at, findings, keys, new, removed"
        " FROM scans ORDER BY id DESC LIMIT ?"
    )
    with db.read() as connection:
        rows = connection.exec_driver_sql(sql, (limit,)).fetchall()
    return [
        Read(n, scanner, file, origin, bool(complete), moment(at), *rest)
        for n, scanner, file, origin, complete, at, *rest in rows
    ]


class Happened(Struct, frozen=True):
    """One event of the chain."""

    seq: int
    at: datetime
    kind: str
    text: str
    hash: str


def _counted(n: int, name: str) -> str:
    """Return `1 finding` of `findings`, `2 sealed` of `sealed`, `schema 3` of `schema`."""
    if name == "schema":
        return f"schema {n}"
    return plural(n, name.removesuffix("s")) if name.endswith("s") else f"{n:,} {name}"


def events(db: Database, before: int | None = None, limit: int = 100) -> list[Happened]:
    """Return events, newest first; `before` leads on from the last one of a page."""
    from lapse.ledger.chain import read_payload  # noqa: PLC0415  # with the ledger

    sql = "SELECT seq, at, kind, payload, hash FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"
    with db.read() as connection:
        rows = connection.exec_driver_sql(sql, (before if before is not None else 1 << 62, limit)).fetchall()
    found = []
    for seq, at, kind, payload, digest in rows:
        said = read_payload(payload)
        counts = [_counted(s.count, s.table) for s in said.rows if not said.text]
        counts += [_counted(n, name) for name, n in said.figures.items()]
        text = said.text or ", ".join(counts) or " ".join(filter(None, (said.owner, said.canary)))
        found.append(Happened(seq, moment(at), kind, text, digest.hex()))
    return found
