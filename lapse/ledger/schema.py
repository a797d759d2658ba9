"""The tables, written once in SQLAlchemy Core for SQLite and PostgreSQL.

Two sorts of table. A *log* is append-only: its ids count up from 1 without a gap, every row is covered by exactly one
event, and `info["log"]` names the columns that the event's digest covers (the others are folded state kept beside
them because a join over millions of rows would cost more). A *fold* (`states`, `sealed`, `mentions`, `head`, and the
columns of a log outside `info["log"]`) can be computed anew from events and logs, and `check` does so.

Times are microseconds since 1970, UTC. Verdicts, doubts and the like are stored as the enum's own word.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

metadata = MetaData()

Number = BigInteger().with_variant(Integer(), "sqlite")
"""Ids and counts: 64 bits everywhere (SQLite's rows are numbered by an INTEGER, which has as many)."""

VERSION = 3
"""The schema that this code reads and writes."""

URGENCY = (
    "((CASE known WHEN 'live' THEN CASE WHEN findings > 0 AND present = 0 THEN 0 ELSE 1 END"
    " WHEN 'dead' THEN 4 + confirmed ELSE CASE WHEN verdict IS NULL THEN 3 ELSE 2 END END) * 8"
    " + (CASE privilege WHEN 'admin' THEN 0 WHEN 'write' THEN 1 WHEN 'read' THEN 3 ELSE 2 END) * 2 + restricted)"
)
"""How urgent a key is, smallest first: removed but never revoked, live, undecided, never asked, dead; within each the
most privileged first. Part of the schema: the index on `(URGENCY, credential)` makes every list of keys quick, as long
as a query says it in these very words."""


def _log(name: str, *columns: Column[Any], state: tuple[str, ...] = ()) -> Table:
    table = Table(name, metadata, Column("id", Number, primary_key=True, autoincrement=False), *columns)
    table.info["log"] = tuple(c.name for c in table.columns if c.name not in state)
    return table


schema_version = Table(
    "schema_version",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

# One row: what this ledger is. `keys` is the key bundle, wrapped by `kek` (its reference) or bare where that is null.
meta = Table(
    "meta",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("ledger", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("keys", LargeBinary, nullable=False),
    Column("kek", Text),
)

events = Table(
    "events",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", Text, nullable=False),  # canonical JSON
    Column("refs", LargeBinary, nullable=False),  # msgpack: row marks, ids of rows touched
    Column("prev", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# One row: the newest event, signed.
head = Table(
    "head",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("seq", Number, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

rules = _log("rules", Column("scanner", Text, nullable=False), Column("rule", Text, nullable=False))
Index("rules_name", rules.c.scanner, rules.c.rule, unique=True)

# What one complete scan speaks for: one scanner's view of one origin ("" = loose files, never complete).
sources = _log("sources", Column("scanner", Text, nullable=False), Column("origin", Text, nullable=False))
Index("sources_name", sources.c.scanner, sources.c.origin, unique=True)

# The repository or image layer that holds the file: few rows, many findings. `mark` is a digest of the other columns.
holders = _log(
    "holders",
    Column("mark", LargeBinary, nullable=False),
    Column("source", Text, nullable=False),
    Column("repository", Text),
    Column("registry", Text),
    Column("namespace", Text),
    Column("name", Text),
    Column("tag", Text),
    Column("digest", Text),
    Column("layer", Text),
    Column("fate", Text),
    Column("visibility", Text, nullable=False),
)
Index("holders_mark", holders.c.mark, unique=True)

scans = _log(
    "scans",
    Column("scanner", Text, nullable=False),
    Column("origin", Text),
    Column("file", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("complete", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("findings", Number),
    Column("keys", Number),
    Column("new", Number),
    Column("removed", Number),
    state=("ended", "findings", "keys", "new", "removed"),
)

runs = _log(
    "runs",
    Column("what", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger),
    state=("ended",),
)

credentials = _log(
    "credentials",
    Column("hash", LargeBinary, nullable=False),  # the 16 bytes of the id
    Column("vendor", Text, nullable=False),
    Column("digits", Integer, nullable=False),  # hex digits in the short id
    Column("provider", Text, nullable=False),
    Column("candidates", Text),  # kind ids, comma-separated
    Column("hint", Text, nullable=False),
    Column("incomplete", Integer, nullable=False),
    Column("scan", Number, nullable=False),  # the first that saw it
)
Index("credentials_hash", credentials.c.hash, unique=True)
credentials_provider = Index("credentials_provider", credentials.c.provider)  # since version 3

findings = _log(
    "findings",
    Column("credential", Number, nullable=False),
    Column("source", Number, nullable=False),
    Column("holder", Number, nullable=False),
    Column("rule", Number, nullable=False),
    Column("place", BigInteger, nullable=False),  # 64-bit hash of source, holder, path, line, column, revision
    Column("path", Text),
    Column("line", BigInteger),
    Column("col", BigInteger),
    Column("revision", Text),
    Column("author", Text),
    Column("url", Text),
    Column("claimed", Text, nullable=False),
    Column("seen_at", BigInteger),
    Column("scan", Number, nullable=False),  # the first that saw it
    Column("whole", Integer, nullable=False),  # has a complete scan seen it?
    Column("last_scan", Number, nullable=False),
    Column("removed", BigInteger),
    state=("whole", "last_scan", "removed"),
)
Index("findings_place", findings.c.credential, findings.c.place, unique=True)
Index("findings_source", findings.c.source)
findings_holder = Index("findings_holder", findings.c.holder)  # since version 3

verdicts = _log(
    "verdicts",
    Column("credential", Number, nullable=False),
    Column("run", Number, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("why", Text),
    Column("how", Text),
    Column("confirmed", Integer, nullable=False),
    Column("restricted", Integer, nullable=False),
    Column("retry_after", BigInteger),  # microseconds
    Column("note", Text),
    Column("identity", Text),  # JSON
    Column("evidence", Text),  # JSON
    Column("due", BigInteger, nullable=False),
    Column("turn", Text),  # what changed: found-live, died, revived
)
Index("verdicts_credential", verdicts.c.credential)
_turned = verdicts.c.turn.is_not(None)
TURNED = Index("verdicts_turn", verdicts.c.at, sqlite_where=_turned)
"""Of verdicts that turned alone; `lapse.ledger.postgres` says so for its database, whose dialect is slow to import."""

# What rotations intended and did (`lapse.ledger.rotations`): a run's state is the fold of its rows. Since version 2.
rotations = _log(
    "rotations",
    Column("run", Text, nullable=False),
    Column("credential", Number, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("step", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON: names and references
)
Index("rotations_run", rotations.c.run)
Index("rotations_what", rotations.c.what, rotations.c.step)

# What is known of each credential now. `verdict` is the latest; `known` the latest that was not undecided.
states = Table(
    "states",
    metadata,
    Column("credential", Number, primary_key=True, autoincrement=False),
    Column("findings", Number, nullable=False),
    Column("present", Number, nullable=False),  # findings not removed
    Column("last_scan", Number, nullable=False),
    Column("kept", Integer, nullable=False),  # 0 never, 1 sealed, 2 purged
    Column("owner", Text),
    Column("canary", Text),
    Column("verdict", Text),
    Column("why", Text),
    Column("at", BigInteger),
    Column("streak", Number, nullable=False),  # verdicts of the same sort in a row
    Column("due", BigInteger, nullable=False),
    Column("last", Number),  # verdicts.id
    Column("known", Text),
    Column("known_id", Number),
    Column("confirmed", Integer, nullable=False),
    Column("restricted", Integer, nullable=False),
    Column("privilege", Text),
    Column("first_live", BigInteger),
    Column("last_live", BigInteger),
    Column("dead_since", BigInteger),
    Column("confirmed_at", BigInteger),
)

states_urgency = Index("states_urgency", text(URGENCY), states.c.credential)  # since version 3

sealed = Table(
    "sealed",
    metadata,
    Column("credential", Number, primary_key=True, autoincrement=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("blob", LargeBinary, nullable=False),
)

# Which events speak of a credential (purge, reveal, marks, …; not findings and verdicts, which have their own rows).
mentions = Table(
    "mentions",
    metadata,
    Column("credential", Number, primary_key=True, autoincrement=False),
    Column("seq", Number, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

LOGS: dict[str, Table] = {
    t.name: t for t in (rules, sources, holders, scans, runs, credentials, findings, verdicts, rotations)
}
"""The append-only tables by name."""
