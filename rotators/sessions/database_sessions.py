"""Ends open sessions of a database user: a new password, NOLOGIN and ACCOUNT LOCK let them live on.

The setting `database` says where (`postgresql`, `mysql`, `redis`), `admin_dsn_env` as whom. PostgreSQL and Redis know
since when a connection is open, so those of the new password are left alone; MySQL and MariaDB do not tell, so there
every connection of the user is ended, and clients with the new password connect again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rotators.databases import mysql, part, postgresql, redis_admin
from rotators.interface import ProviderError, Trouble
from rotators.step import Done, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rotators.interface import KeyRef, Settings
    from verifier.model import Credential

_GONE = {1094}


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
        ways = {"postgresql": self._postgresql, "mysql": self._mysql, "redis": self._redis}
        if (name := settings.get("database", "")) not in ways:
            raise ProviderError(Trouble.REFUSED, f"database = {name!r} is none of {', '.join(ways)}")
        self._kill = ways[name]

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        """End the user's sessions that are older than `moment`; repeating is harmless."""
        user = part(old, "username") or ref.owner
        killed, left = self._kill(user, moment)
        if left:
            return Failed(f"{left} sessions of {user} are still there", "try again", timedelta(seconds=5))
        return Done(f"{killed} sessions of {user} ended", {"killed": str(killed)})

    def _postgresql(self, user: str, moment: datetime) -> tuple[int, int]:
        ours = "FROM pg_stat_activity WHERE usename = %s AND backend_start <= %s AND pid <> pg_backend_pid()"
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
