"""Passwords of PostgreSQL roles: one at a time, so the new one kills the old in the same statement.

The verifier is computed here (`PQencryptPasswordConn`), so the server, its log and its history never see the new
password. Open sessions survive a new password and NOLOGIN both: end them with `database_sessions`.
https://www.postgresql.org/docs/current/sql-alterrole.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.clouds.bounded import Gathering, listed
from rotators.databases import Dsn, new_password, part, password_of, postgresql
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.scram import prepared
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import psycopg

    from rotators.interface import Settings
    from verifier.model import Credential, Parts

PORT = 5432
_SCRAM = re.compile(r"SCRAM-SHA-256\$(\d{1,7}):([^$]+)\$([^:]+):(.+)")


class PostgreSql:
    """Role passwords. Settings: `admin_dsn_env`, `length`, `same_server` (see `rotators.databases`)."""

    name = "postgresql"
    kinds = ("postgres",)
    style = Style.REPLACE
    reversible = True
    propagation = timedelta(seconds=1)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("SELECT on pg_authid (superuser), else the server is told by host and port",),
        "apply": ("CREATEROLE with ADMIN on the role, or superuser",),
        "disable": ("CREATEROLE with ADMIN on the role, or superuser",),
        "enable": ("CREATEROLE with ADMIN on the role, or superuser",),
        "evidence": ("pg_read_all_stats",),
    }
    also_dies = (
        "Every client that still has the old password fails at its next connect; open sessions live on until ended."
    )

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Log in, and see that the admin may alter roles."""
        with postgresql(self._settings) as db:
            row = db.execute(
                "SELECT current_user, r.rolsuper, r.rolcreaterole FROM pg_roles r WHERE rolname = current_user"
            ).fetchone()
        if row is None or not (row[1] or row[2]):
            raise ProviderError(Trouble.DENIED, "the PostgreSQL admin may not alter roles: it needs CREATEROLE")
        return [Fact("admin", f"{row[0]}, {'superuser' if row[1] else 'CREATEROLE'}")]

    def locate(self, old: Credential) -> KeyRef:
        """Find the role, and see that the leaked password is its password now.

        An admin who may not read the stored verifier proves the server by host and port instead.
        """
        Dsn(self._settings, "LAPSE_POSTGRESQL_ADMIN").refuse(old)
        user = part(old, "username")
        with postgresql(self._settings) as db:
            ref = self._ref(db, user)
            stored = self._verifier(db, user)
        if stored is None:
            Dsn(self._settings, "LAPSE_POSTGRESQL_ADMIN").same_server(old, PORT, self._settings)
        elif not matches(stored, user, password_of(old)):
            raise ProviderError(Trouble.GONE, f"role {user} has another password now: it was changed already")
        return ref

    @staticmethod
    def _ref(db: psycopg.Connection[Any], user: str) -> KeyRef:
        row = db.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (user,)).fetchone()
        if row is None:
            raise ProviderError(Trouble.GONE, f"PostgreSQL has no role {user}")
        return KeyRef(user, user, State.ACTIVE if row[0] else State.DISABLED)

    @staticmethod
    def _verifier(db: psycopg.Connection[Any], user: str) -> str | None:
        """Return the stored verifier, empty for a role without password, None when the admin may not read it."""
        may = db.execute("SELECT has_table_privilege('pg_authid', 'SELECT')").fetchone()
        if may is None or not may[0]:
            return None
        row = db.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (user,)).fetchone()
        return (row[0] or "") if row is not None else ""

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """Return the role itself: it has one password."""
        with postgresql(self._settings) as db:
            return [self._ref(db, ref.id)]

    def mint(self, ref: KeyRef, marker: str) -> Minted:  # noqa: ARG002  # nothing is made in the world, so no mark
        """Make a password on this machine; nothing changes at the server until `apply`."""
        return Minted(ref, {"username": Secret(ref.id), "password": Secret(new_password(self._settings))})

    def apply(self, ref: KeyRef, parts: Parts) -> None:
        """Set exactly this password, as a SCRAM verifier that libpq computes."""
        import psycopg
        from psycopg import sql

        value = parts["password"].reveal().encode()
        with postgresql(self._settings) as db:
            stored = self._verifier(db, ref.id)
            if stored and matches(stored, ref.id, value.decode()):
                return
            try:
                verifier = db.pgconn.encrypt_password(value, ref.id.encode(), b"scram-sha-256").decode()
            except psycopg.Error:
                raise ProviderError(Trouble.REFUSED, "the new password cannot be made into a SCRAM verifier") from None
            db.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ref.id), sql.Literal(verifier)))

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:  # noqa: ARG002  # the contract's arguments
        """Return nothing: what is not applied exists on no server."""
        return []

    def disable(self, ref: KeyRef) -> None:
        """Take LOGIN from the role; its open sessions live on."""
        self._alter(ref, "NOLOGIN")

    def enable(self, ref: KeyRef) -> None:
        """Give LOGIN back."""
        self._alter(ref, "LOGIN")

    def _alter(self, ref: KeyRef, what: str) -> None:
        from psycopg import sql

        words = {"LOGIN": sql.SQL("LOGIN"), "NOLOGIN": sql.SQL("NOLOGIN")}
        with postgresql(self._settings) as db:
            db.execute(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(ref.id), words[what]))

    def retire(self, ref: KeyRef) -> None:
        """Do nothing: the new password took the old one's place, and the role itself is not ours to drop."""

    def state(self, ref: KeyRef) -> State:
        """Say whether the role may log in."""
        try:
            with postgresql(self._settings) as db:
                return self._ref(db, ref.id).state
        except ProviderError as e:
            if e.trouble is Trouble.GONE:
                return State.GONE
            raise

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # no history is kept
        """Say what the role may do, what it owns and could read, and from where it is connected now."""
        gathering = Gathering()
        with postgresql(self._settings) as db:

            def ask(query: str) -> str:
                from psycopg import sql

                rows = db.execute(sql.SQL(query), {"u": ref.id}).fetchall()
                return listed([" ".join(str(c) for c in row if c is not None) for row in rows])

            for about, query in _EVIDENCE:
                gathering.add(about, lambda query=query: ask(query))  # type: ignore[misc]  # a default binds the loop variable
        return gathering.facts


_EVIDENCE: Final = (
    (
        "role",
        (
            "SELECT CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreaterole THEN 'creates roles' END,"
            " CASE WHEN rolcreatedb THEN 'creates databases' END, CASE WHEN rolreplication THEN 'replicates' END,"
            " CASE WHEN rolbypassrls THEN 'bypasses row security' END, 'valid until ' || rolvaliduntil"
            " FROM pg_roles WHERE rolname = %(u)s"
        ),
    ),
    (
        "member of",
        (
            "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
            " JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %(u)s ORDER BY 1"
        ),
    ),
    ("owns databases", "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %(u)s ORDER BY 1"),
    (
        "owns here",
        (
            "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE pg_get_userbyid(c.relowner) = %(u)s AND c.relkind IN ('r','p','v','m') ORDER BY 1 LIMIT 100"
        ),
    ),
    (
        "granted here",
        (
            "SELECT table_schema || '.' || table_name, string_agg(privilege_type, '/' ORDER BY privilege_type)"
            " FROM information_schema.role_table_grants WHERE grantee = %(u)s"
            " GROUP BY table_schema, table_name ORDER BY 1 LIMIT 100"
        ),
    ),
    (
        "connected now",
        (
            "SELECT coalesce(host(client_addr), 'local'), datname, nullif(application_name, ''),"
            " 'since ' || date_trunc('second', backend_start) FROM pg_stat_activity WHERE usename = %(u)s"
            " ORDER BY backend_start LIMIT 100"
        ),
    ),
)


def matches(stored: str, user: str, password: str) -> bool:
    """Tell whether a stored verifier (SCRAM-SHA-256 or md5) is of this password."""
    if stored.startswith("md5"):
        digest = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(stored, f"md5{digest}")
    if (found := _SCRAM.fullmatch(stored)) is None:
        return False
    rounds, salt, _, server = found.groups()
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password).encode(), b64decode(salt), int(rounds))
    return hmac.compare_digest(hmac.digest(salted, b"Server Key", "sha256"), b64decode(server))


def make(settings: Settings) -> PostgreSql:
    """Return the issuer for a playbook's slot."""
    return PostgreSql(settings)
