"""Logging in to a database as a client would, to see that credentials work; nothing is read there.

The server is where the leaked log-in led; the settings `host`, `port`, `database` and `tls` (`no`: MySQL without it)
say otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from rotators.databases import CONNECT, part
from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from verifier.model import Credential

_PORTS = {"postgresql": 5432, "mysql": 3306}
_DENIED = {1044, 1045, 1698, 4151}


def sort_of(plugin: str) -> str:
    """Return `postgresql` or `mysql` for a plugin of Vault's database engine; another is `ProviderError(REFUSED)`."""
    for sort in _PORTS:
        if plugin.startswith(sort):
            return sort
    raise ProviderError(
        Trouble.REFUSED, f"Lapse cannot log in where {plugin or 'this plugin'} leads, so it proves nothing"
    )


class Place(Struct, frozen=True):
    """A database server as clients reach it: `sort` is `postgresql` or `mysql`."""

    sort: str
    host: str
    port: int
    database: str
    tls: bool = True

    def opens(self, user: str, password: str) -> bool:
        """Log in and out; whether it was let in. A server that does not answer is `ProviderError(LATER)`."""
        return self._postgresql(user, password) if self.sort == "postgresql" else self._mysql(user, password)

    def _postgresql(self, user: str, password: str) -> bool:
        import psycopg

        try:
            psycopg.connect(
                host=self.host, port=self.port, user=user, password=password,
                dbname=self.database or "postgres", connect_timeout=CONNECT, application_name="lapse",
            ).close()  # fmt: skip
        except psycopg.OperationalError as e:
            said = str(e)  # the state is not told at the start of a connection; the text quotes user and host
            if "authentication failed" in said or "not permitted to log in" in said or "does not exist" in said:
                return False
            raise ProviderError(Trouble.LATER, f"PostgreSQL at {self.host} did not answer a new log-in") from None
        return True

    def _mysql(self, user: str, password: str) -> bool:
        import pymysql

        try:
            pymysql.connect(
                host=self.host, port=self.port, user=user, password=password, database=self.database or None,
                connect_timeout=CONNECT, read_timeout=CONNECT, ssl_disabled=not self.tls,
            ).close()  # fmt: skip
        except pymysql.MySQLError as e:
            if e.args and e.args[0] in _DENIED:
                return False
            raise ProviderError(Trouble.LATER, f"the server at {self.host} did not answer a new log-in") from None
        return True


def place(settings: Settings, old: Credential, sort: str) -> Place:
    """Return the server that the leaked log-in led to, or that the settings name; none is `ProviderError(REFUSED)`."""
    host = settings.get("host") or part(old, "host")
    port = settings.get("port") or part(old, "port") or str(_PORTS[sort])
    if not host or not port.isdigit():
        raise ProviderError(Trouble.REFUSED, "the finding does not say where the database is: --set replace.host=HOST")
    return Place(sort, host, int(port), settings.get("database") or part(old, "database"), settings.get("tls") != "no")
