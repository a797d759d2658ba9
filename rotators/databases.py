"""Log-ins of database admins, from a variable that the setting `admin_dsn_env` names, and passwords for the new key.

A DSN is `postgresql://user:password@host:port/database`, `mysql://…` or `redis[s]://…`. The clients' own error texts
quote users, hosts and statements, so none of them is passed on.
"""

from __future__ import annotations

import os
import secrets
import string
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    import pymysql

    from verifier.model import Credential

CONNECT = 10
"""Seconds to connect, and (where the client knows it) to wait for one answer."""
LETTERS = string.ascii_letters + string.digits
LENGTH = 40
"""Letters and digits of a new password: 238 bits, and nothing that a URL, a shell or an .ini file would bend."""


def new_password(settings: Settings) -> str:
    """Return a fresh password; the setting `length` (16 to 128) changes how long."""
    text = settings.get("length") or str(LENGTH)
    if not text.isdigit() or not 16 <= int(text) <= 128:  # named in the sentence
        raise ProviderError(Trouble.REFUSED, f"length = {text!r} is not a number from 16 to 128")
    return "".join(secrets.choice(LETTERS) for _ in range(int(text)))


def part(old: Credential, name: str, default: str = "") -> str:
    """Return a part in clear, `default` where the finding does not hold it."""
    value = old.parts.get(name)
    return value.reveal() if value is not None else default


def password_of(old: Credential) -> str:
    """Return the leaked password: the part `password`, or `secret` where the kind calls it so."""
    return part(old, "password") or part(old, "secret")


class Dsn:
    """An admin's DSN taken apart. It holds a password: there is no way to print it."""

    __slots__ = ("database", "host", "options", "password", "port", "scheme", "text", "username")

    def __init__(self, settings: Settings, default_variable: str) -> None:
        """Read the variable; one that is not set, or that holds no URL, is `ProviderError(DENIED)`."""
        variable = settings.get("admin_dsn_env") or default_variable
        self.text = os.environ.get(variable, "").strip()
        if not self.text:
            raise ProviderError(Trouble.DENIED, f"no admin log-in: set {variable} to a URL, or name another variable")
        try:
            parts = urlsplit(self.text)
            self.port = parts.port
        except ValueError:
            raise ProviderError(Trouble.DENIED, f"{variable} does not hold a URL that can be read") from None
        self.scheme, self.host = parts.scheme, parts.hostname or "localhost"
        self.username, self.password = unquote(parts.username or ""), unquote(parts.password or "")
        self.database = parts.path.strip("/")
        self.options: Mapping[str, str] = {k: v[-1] for k, v in parse_qs(parts.query).items()}

    def refuse(self, old: Credential) -> None:
        """Refuse a leaked log-in as its own admin: after the change it would be locked out half-way."""
        if self.username == part(old, "username"):
            raise ProviderError(
                Trouble.DENIED, f"the admin log-in is the leaked user {self.username} itself: use another one"
            )

    def same_server(self, old: Credential, default_port: int, settings: Settings) -> None:
        """Refuse a server that is not where the leaked log-in leads, unless the setting `same_server` is `yes`.

        Asked only where the server does not let us compare the password itself.
        """
        if settings.get("same_server") == "yes":
            return
        host, port = part(old, "host").lower(), part(old, "port") or str(default_port)
        if (host, port) != (self.host.lower(), str(self.port or default_port)):
            hint = "if they are the same server, set same_server = yes"
            raise ProviderError(
                Trouble.REFUSED, f"the admin log-in is at {self.host}, the leaked one at {host or 'no host'}; {hint}"
            )


@contextmanager
def postgresql(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """Connect to PostgreSQL as admin; every statement is its own transaction."""
    import psycopg as pg

    dsn = Dsn(settings, "LAPSE_POSTGRESQL_ADMIN")
    with _postgresql_errors():
        connection = pg.connect(dsn.text, autocommit=True, connect_timeout=CONNECT, application_name="lapse")
    with connection, _postgresql_errors():
        connection.execute("SET statement_timeout = '20s'")
        yield connection


@contextmanager
def _postgresql_errors() -> Iterator[None]:
    import psycopg as pg

    try:
        yield
    except (pg.errors.InsufficientPrivilege, pg.errors.InvalidAuthorizationSpecification) as e:
        raise ProviderError(Trouble.DENIED, f"PostgreSQL refuses this to the admin ({e.sqlstate})") from None
    except pg.errors.UndefinedObject:
        raise ProviderError(Trouble.GONE, "PostgreSQL has no such role") from None
    except pg.OperationalError as e:
        if "authentication failed" in str(e):
            raise ProviderError(Trouble.DENIED, "PostgreSQL refuses the admin's password") from None
        raise ProviderError(Trouble.LATER, f"PostgreSQL did not answer ({e.sqlstate or 'no connection'})") from None
    except pg.Error as e:
        raise ProviderError(Trouble.REFUSED, f"PostgreSQL refuses the statement ({e.sqlstate})") from None


_NO_RIGHT = {1044, 1045, 1142, 1143, 1227, 1396}
_NO_ANSWER = {1040, 1205, 1213, 2003, 2006, 2013}


@contextmanager
def mysql(settings: Settings) -> Iterator[pymysql.cursors.DictCursor]:
    """Connect to MySQL or MariaDB as admin. `?tls=no` in the DSN leaves TLS out; else it is taken where offered."""
    import pymysql as my
    from pymysql.cursors import DictCursor

    dsn = Dsn(settings, "LAPSE_MYSQL_ADMIN")
    with _mysql_errors():
        connection = my.connect(
            host=dsn.host,
            port=dsn.port or 3306,
            user=dsn.username,
            password=dsn.password,
            autocommit=True,
            connect_timeout=CONNECT,
            read_timeout=2 * CONNECT,
            cursorclass=DictCursor,
            ssl_disabled=dsn.options.get("tls") == "no",
            ssl_ca=dsn.options.get("ca"),
        )
    with connection, _mysql_errors():
        yield connection.cursor()


@contextmanager
def _mysql_errors() -> Iterator[None]:
    import pymysql as my

    try:
        yield
    except my.MySQLError as e:
        code = e.args[0] if e.args and isinstance(e.args[0], int) else 0
        if code in _NO_RIGHT:
            raise ProviderError(Trouble.DENIED, f"the server refuses this to the admin ({code})") from None
        if code in _NO_ANSWER:
            raise ProviderError(Trouble.LATER, f"the server did not answer ({code})") from None
        raise ProviderError(Trouble.REFUSED, f"the server refuses the statement ({code})") from None


class Redis(Protocol):
    """What we use of a Redis client: words in, whatever the server says out."""

    def execute_command(self, *words: str) -> Any:  # noqa: ANN401  # whatever RESP holds
        """Run one command."""
        ...

    def pipeline(self, *, transaction: bool) -> Any:  # noqa: ANN401  # a context with `execute_command` and `execute`
        """Collect commands to run as one."""
        ...

    def client_list(self) -> list[dict[str, str]]:
        """Return every connection's fields."""
        ...


@contextmanager
def redis_admin(settings: Settings) -> Iterator[Redis]:
    """Connect to Redis or Valkey as admin."""
    import redis as lib

    dsn = Dsn(settings, "LAPSE_REDIS_ADMIN")
    client = lib.Redis.from_url(
        dsn.text, protocol=2, decode_responses=True, socket_connect_timeout=CONNECT, socket_timeout=CONNECT
    )
    try:
        with client:
            yield cast("Redis", client)
    except (lib.AuthenticationError, lib.exceptions.NoPermissionError):
        raise ProviderError(Trouble.DENIED, "Redis refuses this to the admin: it needs ACL and CLIENT") from None
    except (lib.ConnectionError, lib.TimeoutError, lib.exceptions.BusyLoadingError):
        raise ProviderError(Trouble.LATER, "Redis did not answer") from None
    except lib.RedisError:
        raise ProviderError(Trouble.REFUSED, "Redis refuses the command") from None
