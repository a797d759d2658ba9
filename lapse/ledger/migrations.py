"""From any older schema to the present one: an empty database gets the tables at once, an older one step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.ledger.errors import LedgerError, NewerSchema
from lapse.ledger.schema import (
    VERSION,
    credentials_provider,
    findings_holder,
    metadata,
    rotations,
    states_urgency,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from lapse.ledger.db import Database


def _rotations(connection: Connection) -> None:
    """Add the journal of rotations."""
    rotations.create(connection)


def _console(connection: Connection) -> None:
    """Add the indexes that keep the console's pages quick at any size."""
    for index in (credentials_provider, findings_holder, states_urgency):
        index.create(connection)


STEPS: Mapping[int, Callable[[Connection], None]] = {2: _rotations, 3: _console}
"""Version that a step leads to → the step. Version 1 needs none: it is where ledgers begin."""


def version_of(connection: Connection, db: Database) -> int:
    """Return the schema version of a database: 0 for an empty one; one with other tables is a `LedgerError`."""
    tables = db.tables(connection)
    if not tables:
        return 0
    if "schema_version" not in tables or "events" not in tables:
        raise LedgerError(f"{db.name} is a database, but not a ledger of Lapse; give the right one")
    return int(connection.exec_driver_sql("SELECT version FROM schema_version").scalar_one())


def migrate(
    connection: Connection,
    db: Database,
    target: int = VERSION,
    steps: Mapping[int, Callable[[Connection], None]] = STEPS,
) -> tuple[int, int]:
    """Bring the tables to `target` inside the caller's write transaction; return from and to which version.

    Tables newer than `target` are a `NewerSchema`.
    """
    before = version_of(connection, db)
    if before > target:
        raise NewerSchema(
            f"the ledger {db.name} was written by a newer Lapse (schema {before}, this one knows {target})"
        )
    if before == 0:
        db.prepare(connection)
        metadata.create_all(connection, checkfirst=False)
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (1, ?)", (target,))
        return 0, target
    for version in range(before + 1, target + 1):
        steps[version](connection)
    if before != target:
        connection.exec_driver_sql("UPDATE schema_version SET version = ?", (target,))
    return before, target
