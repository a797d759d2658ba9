"""Ends open sessions of a database user: a new password, NOLOGIN and ACCOUNT LOCK let them live on.

The setting `database` says where (`postgresql`, `mysql`, `redis`), `admin_dsn_env` as whom. PostgreSQL and Redis know
since when a connection is open, so those of the new password are left alone; MySQL and MariaDB do not tell (nor does
PostgreSQL an admin without `pg_read_all_stats`), so there every connection of the user is ended, and clients with the
new password connect again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rotators.databases import mysql, part, postgresql, redis_admin
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import KeyRef, Settings
    from verifier.model import Credential

_GONE = {1094}
_MYSQL_RIGHTS = (("PROCESS",), ("CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"))
"""What it takes to see and to end other users' connections: MariaDB's name, MySQL's, the old one of both."""


class DatabaseSessions:
    """Sessions of one user, on one server."""

    name = "database_sessions"
    reversible = False
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "kill": ("PostgreSQL: pg_signal_backend", "MySQL: CONNECTION ADMIN or SUPER, PROCESS", "Redis: +client|kill")
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; another `database` is `ProviderError(REFUSED)`."""
        self._settings = settings
        ways = {
            "postgresql": (self._may_postgresql, self._postgresql),
            "mysql": (self._may_mysql, self._mysql),
            "redis": (self._may_redis, self._redis),
        }
        if (name := settings.get("database", "")) not in ways:
            raise ProviderError(Trouble.REFUSED, f"database = {name!r} is none of {', '.join(ways)}")
        self._tell, self._kill = ways[name]

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:
        """Ask the server whether the admin may end the user's sessions."""
        return [Fact("sessions", self._tell(part(old, "username") or ref.owner))]

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        """End the user's sessions that are older than `moment`; repeating is harmless."""
        user = part(old, "username") or ref.owner
        killed, left = self._kill(user, moment)
        if left:
            return Failed(f"{left} sessions of {user} are still there", "try again", timedelta(seconds=5))
        return Done(f"{killed} sessions of {user} ended", {"killed": str(killed)})

    def _may_postgresql(self, user: str) -> str:
        may = (
            "SELECT current_user, a.rolsuper OR (NOT u.rolsuper AND (pg_has_role(u.oid, 'USAGE')"
            " OR pg_has_role('pg_signal_backend', 'USAGE'))) FROM pg_roles a, pg_roles u"
            " WHERE a.rolname = current_user AND u.rolname = %s"
        )
        with postgresql(self._settings) as db:
            row = db.execute(may, (user,)).fetchone()
        if row is None:
            raise ProviderError(Trouble.GONE, f"PostgreSQL has no role {user}")
        if not row[1]:
            raise ProviderError(Trouble.DENIED, f"{row[0]} may not end sessions of {user}: grant pg_signal_backend")
        return f"{row[0]} may end sessions of {user}"

    def _may_mysql(self, user: str) -> str:
        with mysql(self._settings) as db:
            db.execute("SHOW GRANTS")
            grants = [str(next(iter(row.values()))).upper() for row in db.fetchall()]
        everywhere = " ".join(g.partition(" ON ")[0] for g in grants if " ON *.* " in g)
        lacks = [names[0] for names in _MYSQL_RIGHTS if not any(n in everywhere for n in (*names, "ALL PRIVILEGES"))]
        if not lacks:
            return f"the admin may end sessions of {user}"
        if any(" ON " not in g for g in grants):  # a role, whose rights are told elsewhere
            return f"the admin has {' and '.join(lacks)} by a role, if at all"
        raise ProviderError(Trouble.DENIED, f"the database admin may not end sessions: it needs {' and '.join(lacks)}")

    def _may_redis(self, user: str) -> str:
        with redis_admin(self._settings) as db:
            me = str(db.execute_command("ACL", "WHOAMI"))
            for words in (("TIME",), ("CLIENT", "LIST"), ("CLIENT", "KILL", "ID", "1")):
                said = db.execute_command("ACL", "DRYRUN", me, *words)
                if str(said) != "OK":
                    raise ProviderError(Trouble.DENIED, f"Redis user {me} may not call {' '.join(words[:2])}")
        return f"Redis user {me} may end connections of {user}"

    def _postgresql(self, user: str, moment: datetime) -> tuple[int, int]:
        ours = (  # an admin who may signal but not read statistics is told no start: then every session goes
            "FROM pg_stat_activity WHERE usename = %s AND coalesce(backend_start <= %s, true)"
            " AND pid <> pg_backend_pid()"
        )
        with postgresql(self._settings) as db:
            row = db.execute(f"SELECT count(pg_terminate_backend(pid, 5000)) {ours}", (user, moment)).fetchone()
            left = db.execute(f"SELECT count(*) {ours}", (user, moment)).fetchone()
        return int(row[0]) if row else 0, int(left[0]) if left else 0

    def _mysql(self, user: str, moment: datetime) -> tuple[int, int]:  # noqa: ARG002  # the server does not tell since when
        import pymysql

        found = "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = %s AND COMMAND <> 'Killed'"
        with mysql(self._settings) as db:
            db.execute(found, (user,))
            ids = [int(row["id"]) for row in db.fetchall()]
            for number in ids:
                try:
                    db.execute(f"KILL CONNECTION {number:d}")
                except pymysql.MySQLError as e:
                    if e.args[0] not in _GONE:
                        raise
        return len(ids), 0

    def _redis(self, user: str, moment: datetime) -> tuple[int, int]:
        with redis_admin(self._settings) as db:
            seconds, _ = db.execute_command("TIME")
            now = datetime.fromtimestamp(int(seconds), UTC)
            old = [
                c["id"]
                for c in db.client_list()
                if c.get("user") == user and now - timedelta(seconds=int(c["age"])) <= moment
            ]
            killed = sum(int(db.execute_command("CLIENT", "KILL", "ID", number, "SKIPME", "yes")) for number in old)
        return killed, 0

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:
        """Fail: a session that was ended stays ended."""
        return Failed(
            f"ended sessions of {part(old, 'username') or ref.owner} do not come back", "clients connect again"
        )


def make(settings: Settings) -> DatabaseSessions:
    """Return the session killer for a playbook's slot."""
    return DatabaseSessions(settings)
