"""Where the durable engine keeps its tables, and how DBOS is set up there: JSON only, short locks, one version.

Import this module inside commands only: it brings DBOS and SQLAlchemy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy
from dbos import DBOSPortableJSONSerializer
from dbos import _serialization as stock
from sqlalchemy import event

if TYPE_CHECKING:
    from dbos import DBOSConfig

VERSION = "lapse-rotations-1"
"""DBOS only goes on with workflows of its own application version. Ours stays the same from release to release, because
`phase` asks the journal for everything: it changes only when the arguments of `phase` do, and then old rows are moved.
"""

IDLE_SECONDS = 5.0
"""How long PostgreSQL keeps the locks of a worker that froze inside a transaction."""


class PickleRefusedError(Exception):
    """Somebody wrote a pickle into the engine's tables: unpickling it would run their code."""


class Json(DBOSPortableJSONSerializer):
    """JSON and nothing else."""


def _refuse(*_: object) -> NoReturn:
    raise PickleRefusedError("the engine's tables hold JSON only; a pickle was put in by hand and is not read")


def refuse_pickle() -> None:
    """Take DBOS's own serialiser out of service: it reads any row that says `py_pickle`, whatever is configured."""
    for name in ("serialize", "deserialize"):
        setattr(stock.DefaultSerializer, name, _refuse)


refuse_pickle()


@dataclass(frozen=True)
class Place:
    """Where the engine keeps its tables, and which ledger it works for.

    `url` is `sqlite:///PATH` or `postgresql://…`; `lock` is a file of this machine; `ledger` the ledger's name, so that
    several can share one PostgreSQL.
    """

    url: str
    lock: Path
    ledger: str

    @property
    def file(self) -> Path | None:
        """Return the SQLite file, None for PostgreSQL."""
        scheme, _, rest = self.url.partition(":///")
        return Path(rest) if scheme == "sqlite" else None

    @property
    def queue(self) -> str:
        """Return the queue's name, which is also the role of those who take from it."""
        return f"rotations-{self.ledger}"

    @property
    def executor(self) -> str:
        """Return the executor's id on SQLite: fixed, so that a restart finds the work of the process before it."""
        return f"lapse-{self.ledger}"

    def phase(self, run: str, turn: int) -> str:
        """Return the workflow id of a turn: the same for everybody, so that enqueueing twice is enqueueing once.

        Ids are the whole database's, so the ledger is part of it.
        """
        return f"{self.ledger}:{run}:{turn}"


def sqlite_engine(path: Path) -> sqlalchemy.Engine:
    """Return an engine for DBOS's tables in a SQLite file of mode 0600: WAL, writers in line, safe at power loss."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite+pysqlite", database=str(path)), connect_args={"timeout": 30}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _record: Any) -> None:  # noqa: ANN401  # the driver's own
        raw.execute("PRAGMA busy_timeout=30000")
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        raw.isolation_level = "IMMEDIATE"

    return engine


def config(place: Place, executor: str = "") -> DBOSConfig:
    """Return the configuration of an executor: of `place`'s own, or of this id."""
    made: DBOSConfig = {
        "name": "lapse",
        "application_version": VERSION,
        "executor_id": executor or place.executor,
        "serializer": Json(),
        "run_migrations": True,
        "log_level": "CRITICAL",
        "enable_otlp": False,
        "sys_db_idle_transaction_timeout_sec": IDLE_SECONDS,
        "notification_listener_polling_interval_sec": 0.5,
    }
    if place.file is not None:
        made["system_database_engine"] = sqlite_engine(place.file)
    else:
        made["system_database_url"] = place.url
    return made
