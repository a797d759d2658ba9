"""Passwords of MySQL and MariaDB accounts: one at a time here, so the new one kills the old in the same statement.

An account is a user *at a host pattern*: `app@%` and `app@10.0.0.%` have passwords of their own, and which of them the
leaked one opens is told by its stored hash. (MySQL 8.0.14 can keep two passwords; MariaDB cannot.)
https://mariadb.com/kb/en/alter-user/ and https://dev.mysql.com/doc/refman/8.4/en/alter-user.html
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.clouds.bounded import Gathering, listed
from rotators.databases import Dsn, mysql, new_password, part, password_of
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pymysql.cursors import DictCursor

    from rotators.interface import Settings
    from verifier.model import Credential, Parts

PORT = 3306
_NATIVE = "mysql_native_password"


class MySql:
    """Account passwords. Settings: `admin_dsn_env`, `length`, `same_server`, `account_host` (where several match)."""

    name = "mysql"
    kinds = ("mysql",)
    style = Style.REPLACE
    reversible = True
    propagation = timedelta(seconds=1)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("SELECT on mysql.*",),
        "apply": ("CREATE USER",),
        "disable": ("CREATE USER",),
        "enable": ("CREATE USER",),
        "evidence": ("SELECT on mysql.*", "PROCESS"),
    }
    also_dies = (
        "Every client that still has the old password fails at its next connect; open sessions live on until ended."
    )

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Log in, and see that the admin may change accounts."""
        with mysql(self._settings) as db:
            db.execute("SHOW GRANTS")
            grants = [str(next(iter(row.values()))).upper() for row in db.fetchall()]
            db.execute("SELECT CURRENT_USER() AS me, VERSION() AS version")
            row = db.fetchone() or {}
        if not any(" ON *.* " in g and ("ALL PRIVILEGES" in g or "CREATE USER" in g) for g in grants):
            raise ProviderError(Trouble.DENIED, "the database admin may not change accounts: it needs CREATE USER")
        return [Fact("admin", f"{row.get('me')} on {row.get('version')}")]

    def locate(self, old: Credential) -> KeyRef:
        """Find the one account of this user that the leaked password opens."""
        dsn = Dsn(self._settings, "LAPSE_MYSQL_ADMIN")
        dsn.refuse(old)
        user, password = part(old, "username"), password_of(old)
        with mysql(self._settings) as db:
            rows = self._accounts(db, user)
        if wanted := self._settings.get("account_host"):
            rows = [r for r in rows if r["host"] == wanted]
        if not rows:
            raise ProviderError(Trouble.GONE, f"the server has no account of user {user}")
        comparable = [r for r in rows if r["plugin"] == _NATIVE and r["hash"]]
        found = [r for r in comparable if matches(r["hash"], password)]
        if not found:
            found = [r for r in rows if r not in comparable]
            if not found:
                raise ProviderError(Trouble.GONE, f"user {user} has another password now: it was changed already")
            dsn.same_server(old, PORT, self._settings)
        if len(found) > 1:
            hosts = ", ".join(sorted(r["host"] for r in found))
            raise ProviderError(Trouble.REFUSED, f"the password may open {user} at {hosts}: name one as account_host")
        return _ref(found[0])

    @staticmethod
    def _accounts(db: DictCursor, user: str) -> list[dict[str, Any]]:
        """Return host, plugin, hash and lock of every account of this user, on either server."""
        db.execute("SELECT VERSION() AS version")
        if "MariaDB" in str((db.fetchone() or {}).get("version")):
            db.execute(
                "SELECT User AS user, Host AS host, JSON_VALUE(Priv, '$.plugin') AS plugin,"
                " JSON_VALUE(Priv, '$.authentication_string') AS hash, JSON_VALUE(Priv, '$.account_locked') AS locked"
                " FROM mysql.global_priv WHERE User = %s ORDER BY Host",
                (user,),
            )
        else:
            db.execute(
                "SELECT User AS user, Host AS host, plugin, authentication_string AS hash, account_locked AS locked"
                " FROM mysql.user WHERE User = %s ORDER BY Host",
                (user,),
            )
        return [{k: str(v or "") for k, v in row.items()} for row in db.fetchall()]

    def _account(self, db: DictCursor, ref: KeyRef) -> dict[str, Any]:
        for row in self._accounts(db, ref.owner):
            if _ref(row).id == ref.id:
                return row
        raise ProviderError(Trouble.GONE, f"the server has no account {ref.id}")

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List every account of the user: the same name at other hosts."""
        with mysql(self._settings) as db:
            return [_ref(row) for row in self._accounts(db, ref.owner)]

    def mint(self, ref: KeyRef, marker: str) -> Minted:  # noqa: ARG002  # nothing is made in the world, so no mark
        """Make a password on this machine; nothing changes at the server until `apply`."""
        return Minted(ref, {"username": Secret(ref.owner), "password": Secret(new_password(self._settings))})

    def apply(self, ref: KeyRef, parts: Parts) -> None:
        """Set exactly this password: by its hash where the account logs in the native way, so no log holds it.

        Elsewhere the server needs the password itself; its general log is turned off for this session where allowed.
        """
        value = parts["password"].reveal()
        with mysql(self._settings) as db:
            row = self._account(db, ref)
            user, host = ref.owner, row["host"]
            if row["plugin"] == _NATIVE:
                db.execute("SELECT VERSION() AS version")
                maria = "MariaDB" in str((db.fetchone() or {}).get("version"))
                way = "VIA mysql_native_password USING %s" if maria else "WITH mysql_native_password AS %s"
                db.execute(f"ALTER USER %s@%s IDENTIFIED {way}", (user, host, native(value)))
                return
            try:
                db.execute("SET SESSION sql_log_off = 1")
            except Exception as e:
                import pymysql

                if not isinstance(e, pymysql.MySQLError):
                    raise
            db.execute("ALTER USER %s@%s IDENTIFIED BY %s", (user, host, value))

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:  # noqa: ARG002  # the contract's arguments
        """Return nothing: what is not applied exists on no server."""
        return []

    def disable(self, ref: KeyRef) -> None:
        """Lock the account; its open sessions live on."""
        with mysql(self._settings) as db:
            db.execute("ALTER USER %s@%s ACCOUNT LOCK", (ref.owner, self._account(db, ref)["host"]))

    def enable(self, ref: KeyRef) -> None:
        """Unlock the account."""
        with mysql(self._settings) as db:
            db.execute("ALTER USER %s@%s ACCOUNT UNLOCK", (ref.owner, self._account(db, ref)["host"]))

    def retire(self, ref: KeyRef) -> None:
        """Do nothing: the new password took the old one's place, and the account itself is not ours to drop."""

    def state(self, ref: KeyRef) -> State:
        """Say whether the account is locked."""
        try:
            with mysql(self._settings) as db:
                return _ref(self._account(db, ref)).state
        except ProviderError as e:
            if e.trouble is Trouble.GONE:
                return State.GONE
            raise

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # no history is kept
        """Say what the account may do and from where it is connected now."""
        gathering = Gathering()
        with mysql(self._settings) as db:

            def grants() -> str:
                db.execute("SHOW GRANTS FOR %s@%s", (ref.owner, ref.id.removeprefix(f"{ref.owner}@")))
                said = [str(next(iter(row.values()))).split(" IDENTIFIED ")[0] for row in db.fetchall()]
                return listed([s.removeprefix("GRANT ") for s in said])

            def sessions() -> str:
                db.execute(
                    "SELECT HOST AS host, DB AS db FROM information_schema.PROCESSLIST WHERE USER = %s", (ref.owner,)
                )
                return listed([f"{row['host']} {row['db'] or ''}".strip() for row in db.fetchall()])

            gathering.add("grants", grants)
            gathering.add("connected now", sessions)
            gathering.add("accounts", lambda: ", ".join(k.id for k in self.siblings(ref)))
        return gathering.facts


def native(password: str) -> str:
    """Return what the server stores for the native log-in: `*` and the SHA-1 of the SHA-1."""
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def matches(stored: str, password: str) -> bool:
    """Tell whether a stored native hash is of this password."""
    return hmac.compare_digest(stored.upper().encode(), native(password).encode())


def _ref(row: Mapping[str, Any]) -> KeyRef:
    locked = str(row["locked"]).lower() in ("y", "true", "1")
    return KeyRef(f"{row['user']}@{row['host']}", row["user"], State.DISABLED if locked else State.ACTIVE)


def make(settings: Settings) -> MySql:
    """Return the issuer for a playbook's slot."""
    return MySql(settings)
