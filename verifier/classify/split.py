"""Takes compound secrets apart: connection strings, service-account files, private keys, `user:password`.

Nothing here decides what a bare token is. Every function returns `None` for text that is not of its form and never
raises. Equal secrets written differently (line ends, JSON spacing) come out equal, or one key would count as two.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_plus

import msgspec
from msgspec import Struct

from verifier.model import GENERIC, KindID

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMES = {
    "postgres": "postgres", "postgresql": "postgres", "postgis": "postgres", "cockroachdb": "postgres",
    "redshift": "postgres", "timescaledb": "postgres",
    "mysql": "mysql", "mysql2": "mysql", "mariadb": "mysql", "mysqlx": "mysql",
    "mongodb": "mongodb_uri", "mongodb+srv": "mongodb_uri",
    "redis": "redis", "rediss": "redis", "redis+sentinel": "redis", "valkey": "redis", "valkeys": "redis",
    "amqp": "rabbitmq", "amqps": "rabbitmq",
    "ldap": "ldap", "ldaps": "ldap",
    "mssql": "sqlserver", "sqlserver": "sqlserver",
    "ftp": "sftp_ftp", "ftps": "sftp_ftp", "sftp": "sftp_ftp", "ssh": "ssh_password", "scp": "ssh_password",
    "smtp": "smtp", "smtps": "smtp", "submission": "smtp",
    "imap": "imap", "imaps": "imap",
    "http": "basic_auth_url", "https": "basic_auth_url",
    "oracle": "oracle_db", "db2": "db2", "ibm_db_sa": "db2", "db2i": "db2",
    "snowflake": "snowflake_login",
    "clickhouse": "clickhouse_db", "clickhousedb": "clickhouse_db", "ch": "clickhouse_db",
    "cassandra": "cassandra", "scylla": "cassandra", "scylladb": "cassandra",
    "neo4j": "neo4j", "bolt": "neo4j",
    "hana": "sap_hana", "hdbcli": "sap_hana", "sap": "sap_hana",
    "teradata": "teradata", "teradatasql": "teradata",
    "vertica": "vertica",
    "trino": "trino", "presto": "trino", "hive": "trino", "hive2": "trino", "impala": "trino",
    "couchbase": "couchbase_db", "couchbases": "couchbase_db",
    "sybase": "sybase", "exa": "exasol", "firebird": "firebird", "firebirdsql": "firebird",
    "nats": "nats", "mqtt": "mqtt", "mqtts": "mqtt",
}  # fmt: skip
"""URI scheme to kind; a driver suffix (`postgresql+psycopg2`) is cut off first."""

_PLAIN = {"postgres", "mysql", "mongodb", "redis", "amqp", "ldap", "sqlserver", "mssql", "ftp", "smtp", "imap", "https"}
"""Schemes that need no `scheme` part: what the kind means by default."""

_OPTIONS = frozenset({"authsource", "authmechanism", "tls", "ssl", "sslmode"})
"""Query options that change how a log-in goes; all others say nothing about the credential."""

_URI = re.compile(r"((?:jdbc:(?:[A-Za-z][A-Za-z0-9-]{1,24}:){0,3})?)([A-Za-z][A-Za-z0-9+._-]{1,24})://(.*)", re.DOTALL)
_SERVICE = re.compile(r"(?:^|&)(?:service_name|sid)=([^&#]+)", re.IGNORECASE)
_NAMED_LOGIN = re.compile(r"[^@]*;\s*(?:user(?:name| id)?|uid|password|pwd)\s*=", re.IGNORECASE)
_DRIVER = re.compile(r"driver\s*=\s*\{?([^;}]*)", re.IGNORECASE)
_ADDRESS = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::(\d{1,5}))?|([^:/?#\[\]]*)(?::(\d{1,5}))?")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_LOGIN = re.compile(r"[A-Za-z0-9+/]{6,}={0,2}")

_KEYS = {
    "server": "host", "data source": "host", "datasource": "host", "address": "host", "addr": "host",
    "network address": "host", "host": "host", "hostname": "host",
    "port": "port", "database": "database", "initial catalog": "database", "dbname": "database", "db": "database",
    "databasename": "database",
    "server name": "host", "servername": "host", "host name": "host", "contact points": "host",
    "portnumber": "port", "port number": "port", "dbalias": "database", "catalog": "database",
    "userid": "username", "user_id": "username",
    "user id": "username", "uid": "username", "user": "username", "username": "username", "user name": "username",
    "password": "password", "pwd": "password", "pass": "password",
    "accountname": "account", "account": "account", "accountkey": "secret",
    "sharedaccesskey": "secret", "sharedaccesskeyname": "id",
    "entitypath": "database", "sharedaccesssignature": "secret",
}  # fmt: skip
"""Field names of `key=value;` connection strings, lower case, to part names."""


class Split(Struct, frozen=True):
    """A compound taken apart: the kind it speaks for (`GENERIC` when unclear) and its parts as plain text."""

    kind: KindID
    parts: dict[str, str]


def uri(text: str) -> Split | None:
    """Take `scheme://user:password@host:port/path?options` apart; parts that are not there are left out.

    JDBC's own ways too: drivers around drivers (`jdbc:p6spy:mysql:…`), SQL Server's fields after `;`. What is no URI,
    or only looks like one, is in `verifier.classify.dialects`.
    """
    m = _URI.fullmatch(text)
    if m is None:
        return None
    base = _base(*m.group(1, 2))
    if base == "cloudinary":
        return _cloudinary(m.group(3))
    kind = KindID(SCHEMES.get(base, GENERIC))
    if kind == "sqlserver" and _NAMED_LOGIN.match(m.group(3)):
        return _jdbc(m.group(3))
    rest, _, query = m.group(3).partition("?")
    authority, at, tail = rest.rpartition("@")
    if not at:
        authority, tail = "", rest
    hosts, _, path = tail.partition("/")
    parts: dict[str, str] = {}
    user, colon, password = authority.partition(":")
    try:
        put(parts, "username", unquote(user, errors="strict"))
        put(parts, "password", unquote(password, errors="strict") if colon else "")
    except UnicodeDecodeError:  # bytes that are no UTF-8: as text they would be another password
        return None
    put_address(parts, hosts)
    put(parts, "path" if kind in _WITHOUT_DATABASE else "database", unquote(path).strip("/"))
    if (base not in _PLAIN and base not in {"postgresql", "mysql2", "mariadb", "http"}) or base == "http":
        put(parts, "scheme", base)
    try:
        _query(parts, query)
    except UnicodeDecodeError:
        return None
    if kind == "sqlserver":
        return _sqlserver(parts, query)
    if kind == "oracle_db" and (m := _SERVICE.search(query)):
        parts.setdefault("database", m.group(1))
    return Split(kind, parts)


def _base(around: str, scheme: str) -> str:
    """Return the word of a scheme that names the product: `mysql` of `jdbc:mysql:replication` and `mysql+pymysql`.

    Of `git+https` the second half.
    """
    words = [*around.lower().removeprefix("jdbc:").split(":")[:-1], scheme.lower()]
    for word in words:
        for name in (word, word.partition("+")[0], word.partition("+")[2]):
            if name in SCHEMES:
                return name
    return words[-1].partition("+")[0]


def _sqlserver(parts: dict[str, str], query: str) -> Split:
    """Finish a URL of SQL Server: the database stands in its query, a path names an instance (Go's driver)."""
    for item in query.partition("#")[0].split("&"):
        name, _, value = item.partition("=")
        if name.lower() == "database":
            if instance := parts.get("database"):
                parts["host"] = parts.get("host", "") + "\\" + instance
            parts["database"] = unquote(value)
        elif name.lower() == "odbc_connect":
            found = fields(unquote_plus(value))
            if found is not None:
                return Split(KindID("sqlserver"), found.parts)
    _instance(parts)
    parts.pop("scheme", None)
    parts.pop("options", None)
    items = (item.partition("=") for item in query.partition("#")[0].split("&"))
    put(parts, "options", way_in((name, unquote(value)) for name, _, value in items))
    return Split(KindID("sqlserver"), parts)


def way_in(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the options of SQL Server that change how a log-in goes: another way in, "strict", any certificate."""
    kept = {}
    for name, value in pairs:
        low, said = re.sub(r"[ _]", "", name.lower()), value.lower().replace(" ", "")
        if low in {"authentication", "fedauth"} and said not in {"", "sqlpassword", "notspecified"}:
            kept["authentication"] = said
        elif low in {"integratedsecurity", "trustedconnection"} and said in {"true", "yes", "sspi"}:
            kept["integratedsecurity"] = "true"
        elif low == "trustservercertificate" and said in {"true", "yes"}:
            kept[low] = "true"
        elif low == "encrypt" and said == "strict":
            kept[low] = said
    return "&".join(f"{name}={quote(said)}" for name, said in sorted(kept.items()))


def _instance(parts: dict[str, str]) -> None:
    """Drop the name of an instance where a port says the same; without one, only its host knows where it listens."""
    if parts.get("port"):
        put(parts, "host", parts.get("host", "").partition("\\")[0])


_WITHOUT_DATABASE = frozenset({GENERIC, "sftp_ftp", "ssh_password", "smtp", "imap", "basic_auth_url", "nats", "mqtt"})
"""Kinds whose path names no database."""


def put(parts: dict[str, str], name: str, value: str) -> None:
    """Set a part that is not empty."""
    if value:
        parts[name] = value


def put_address(parts: dict[str, str], hosts: str) -> None:
    """Read `host:port`; several hosts with commas stay one text, because only the driver knows what they mean."""
    m = _ADDRESS.fullmatch(hosts)
    if m is None:
        put(parts, "host", hosts)
        return
    put(parts, "host", (m.group(1) or m.group(3) or "").lower())
    put(parts, "port", m.group(2) or m.group(4) or "")


def _query(parts: dict[str, str], query: str) -> None:
    kept = []
    for item in query.partition("#")[0].split("&"):
        name, _, value = item.partition("=")
        low = name.lower()
        part = _KEYS.get(low)
        if part in {"username", "password"}:
            parts.setdefault(part, unquote(value, errors="strict"))
        elif low in _OPTIONS:
            kept.append(f"{low}={unquote(value)}")
    put(parts, "options", "&".join(sorted(kept)))


def _jdbc(text: str) -> Split:
    r"""Read SQL Server's `host\instance:port;user=…;password=…`, and `host:port/database;…` as jTDS has it."""
    address, _, rest = text.partition(";")
    address, _, database = address.partition("/")
    parts: dict[str, str] = {}
    put_address(parts, address)
    put(parts, "database", database)
    put_named(parts, rest)
    _instance(parts)
    put(parts, "options", way_in(read_pairs(rest)))
    return Split(KindID("sqlserver"), parts)


def put_named(parts: dict[str, str], text: str) -> None:
    """Set the parts that `name=value;` pairs name, where they are not set yet."""
    for name, value in read_pairs(text):
        part = _KEYS.get(name)
        if part is not None and value:
            parts.setdefault(part, value)


def _cloudinary(rest: str) -> Split:
    login, _, cloud = rest.rpartition("@")
    key, _, secret = login.partition(":")
    parts: dict[str, str] = {}
    put(parts, "id", unquote(key))
    put(parts, "secret", unquote(secret))
    put(parts, "account", cloud.partition("?")[0].strip("/"))
    return Split(KindID("cloudinary"), parts)


def fields(text: str) -> Split | None:
    """Take a `Key=value;Key=value` string apart: Azure Storage, Service Bus, Cosmos DB, SQL Server and kin."""
    pairs = read_pairs(text)
    if len(pairs) < 2:  # one pair is an assignment, not a connection string
        return None
    parts: dict[str, str] = {}
    names = {name for name, _ in pairs}
    for name, value in pairs:
        part = _KEYS.get(name)
        if part is not None and value:
            parts.setdefault(part, value)
    named = dict(pairs)
    if "accountendpoint" in names:
        put_address(parts, _host(named["accountendpoint"]))
        parts.pop("port", None)
        return Split(KindID("azure_cosmos"), parts)
    if "accountkey" in names:
        endpoint = named.get("blobendpoint", "")
        put(parts, "host", _host(endpoint))
        return Split(KindID("azure_storage"), parts)
    if {"endpoint", "id", "secret"} <= names and ".azconfig." in named["endpoint"]:
        store = {"host": _host(named["endpoint"]), "id": named["id"], "secret": named["secret"]}
        return Split(KindID("azure_app_config"), {n: v for n, v in store.items() if v})
    if "endpoint" in names and names & {"sharedaccesskey", "sharedaccesssignature"}:
        put(parts, "host", _host(named["endpoint"]))
        return Split(KindID("azure_sb"), parts)
    if "password" not in parts:
        return None
    driver = _DRIVER.search(text)
    found = _sql(parts, names, driver.group(1).lower() if driver else "")
    if found.kind == "sqlserver":
        put(found.parts, "options", way_in(pairs))
    return found


_DRIVERS = (
    ("sql server", "sqlserver"), ("sqlncli", "sqlserver"), ("freetds", "sqlserver"),
    ("mysql", "mysql"), ("mariadb", "mysql"), ("postgres", "postgres"), ("psqlodbc", "postgres"),
    ("redshift", "postgres"), ("oracle", "oracle_db"), ("snowflake", "snowflake_login"),
    ("clickhouse", "clickhouse_db"), ("db2", "db2"), ("hdbodbc", "sap_hana"), ("teradata", "teradata"),
    ("vertica", "vertica"), ("cassandra", "cassandra"),
    ("mongodb", "mongodb_uri"), ("trino", "trino"), ("presto", "trino"), ("hive", "trino"), ("impala", "trino"),
    ("exasol", "exasol"), ("firebird", "firebird"), ("sybase", "sybase"), ("adaptive server", "sybase"),
)  # fmt: skip
"""What an ODBC driver is called, and what it logs in to."""

_PORTS = {
    "1433": "sqlserver",
    "1521": "oracle_db",
    "3306": "mysql",
    "5432": "postgres",
    "50000": "db2",
    "9042": "cassandra",
}
"""Ports that tell whose string it is, where its fields are everybody's."""


def _sql(parts: dict[str, str], names: set[str], driver: str = "") -> Split:
    host = parts.get("host", "")
    if host.lower().startswith("tcp:"):
        host = host[4:]
    address, comma, port = host.partition(",")
    if comma:
        parts["port"] = port.strip()
    put(parts, "host", address.strip().lower())
    _instance(parts)
    for word, product in _DRIVERS:
        if word in driver:
            return Split(KindID(product), parts)
    if "account" in parts or host.endswith("snowflakecomputing.com"):
        return Split(KindID("snowflake_login"), parts)
    if "virtualhost" in names:
        return Split(KindID("rabbitmq"), parts)
    if "contact points" in names:
        return Split(KindID("cassandra"), parts)
    sql_server = names & {"data source", "initial catalog", "user id", "encrypt", "trustservercertificate"}
    told = _PORTS.get(parts.get("port", ""))
    if told is None and sql_server and names & {"server", "data source"} and not names & {"host"}:
        told = "sqlserver"
    return Split(KindID(told) if told else GENERIC, parts)


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Read the pairs. A quoted value (`"a;b"`, `'it''s'`, `{a;b}`) is unwrapped; one that never ends spoils them all.

    `{word}` may be a quoted value or a gap to be filled in: such a pair is left out.
    """
    out = []
    at = 0
    while at < len(text):
        end = text.find(";", at) % (len(text) + 1)
        eq = text.find("=", at, end)
        if eq < 0:
            at = end + 1
            continue
        name, value = text[at:eq].strip().lower(), text[eq + 1 : end].strip()
        form = _QUOTED.get(value[:1])
        if form is None:
            out.append((name, value))
            at = end + 1
            continue
        quoted = form.match(text, eq + 1)
        if quoted is None:
            return []
        inner, close = quoted.groups()
        if close != "}" or ";" in inner:
            out.append((name, inner.replace(close * 2, close)))
        at = quoted.end()
    return out


_QUOTED = {
    '"': re.compile(r'\s*"((?:[^"]|"")*)(")\s*(?:;|\Z)'),
    "'": re.compile(r"\s*'((?:[^']|'')*)(')\s*(?:;|\Z)"),
    "{": re.compile(r"\s*\{((?:[^}]|\}\})*)(\})\s*(?:;|\Z)"),
}


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].lower()


def json_file(text: str) -> Split | None:
    """Take a Google credential file (the file, rewritten plainly, is the secret) or docker `auths` apart."""
    try:
        data: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    if not isinstance(data, dict):
        return None
    if data.get("type") == "service_account" or ("private_key" in data and "client_email" in data):
        parts = {"secret": _plain(data)}
        if isinstance(data.get("client_email"), str):
            parts["account"] = data["client_email"]
        return Split(KindID("gcp_sa"), parts)
    if "refresh_token" in data and "client_id" in data:
        return Split(KindID("gcp_adc"), {"secret": _plain(data)})
    auths = data.get("auths", data)  # the older .dockercfg has the registries at its root
    if isinstance(auths, dict) and len(auths) == 1:
        return _docker(*next(iter(auths.items())))
    return None


def _plain(data: dict[str, Any]) -> str:
    return msgspec.json.encode(data, order="sorted").decode()


def _docker(host: str, entry: Any) -> Split | None:  # noqa: ANN401  # whatever stands in the file
    if not isinstance(entry, dict):
        return None
    parts = {"host": _host(host) or host.partition("/")[0].lower()}
    for name in ("username", "password"):
        if isinstance(entry.get(name), str):
            parts[name] = entry[name]
    if "password" not in parts and isinstance(entry.get("auth"), str):
        parts |= login(entry["auth"]) or {}
    if "password" not in parts:
        return None
    if parts.get("username") in {"_json_key", "_json_key_base64"}:  # Google's registries take a whole key file
        text = parts["password"]
        if not text.startswith("{"):
            text = _decoded(text)
        return json_file(text)
    hub = parts["host"].endswith("docker.io")
    if hub:
        return Split(KindID("dockerhub"), {"secret": parts["password"], "username": parts.get("username", "")})
    return Split(KindID("ghcr_generic_registry"), parts)


def _decoded(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""


def docker_base64(text: str) -> Split | None:
    """Read a `.dockerconfigjson` as a Kubernetes secret holds it: docker's `auths` in base64."""
    return json_file(_decoded(text)) if text.startswith("eyJhdXRocyI") else None


def pem(text: str) -> str | None:
    r"""Return the PEM blocks of `text` with plain line ends (`\n` written out is one too); `None` if there are none."""
    if "\\n" in text:
        text = text.replace("\\r", "").replace("\\n", "\n")
    blocks = _PEM.findall(text)
    if not blocks:
        return None
    lines = "\n".join(blocks).replace("\r", "\n").split("\n")
    return "\n".join(line.strip() for line in lines if line.strip()) + "\n"


def login(text: str) -> dict[str, str] | None:
    """Read `user:password`, plain or in base64 (with or without `Basic` before it)."""
    if ":" not in text:
        text = text.removeprefix("Basic ").removeprefix("basic ").strip()
        if not _LOGIN.fullmatch(text):
            return None
        try:
            text = b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    user, colon, password = text.partition(":")
    if not (colon and password) or "\n" in text:
        return None
    parts = {"password": password}
    put(parts, "username", user)
    return parts
