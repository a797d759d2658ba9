"""Connection strings that are no URIs, or only look like them: JDBC's dialects, libpq, Go's MySQL, .NET's Redis.

Nothing here raises; text of no such form is `None`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from verifier.classify.split import SCHEMES, Split, put, put_address, put_named, read_pairs
from verifier.model import GENERIC, KindID

_LONGEST = 8192
_ORACLE = re.compile(r"jdbc:oracle:(?:thin|oci8?):([^/@\s]+)/(\"[^\"]+\"|.+)@(?://)?(\(.+\)|[^@\s]+)", re.DOTALL)
_ORACLE_PLACE = re.compile(r"(?:tcps?://)?([^:/\s()]+)(?::(\d{1,5}))?(?:[:/]([^?\s]+))?(?:\?\S*)?")
_DESCRIBED = re.compile(r"\(\s*(HOST|PORT|SERVICE_NAME|SID)\s*=\s*([^()\s]+)\s*\)", re.IGNORECASE)
_DB2 = re.compile(r"jdbc:(db2|ids|informix-sqli|as400)://([^/;]+)/?([^:;]*)[:;](.+)", re.DOTALL)
_FIELDS = re.compile(r"jdbc:((?:[A-Za-z][A-Za-z0-9-]{1,24}:){1,4})//([^;?]*);(.+)", re.DOTALL)
_TERADATA = re.compile(r"jdbc:teradata://([^/\s]+)/(.+)", re.DOTALL)
_BARE = re.compile(r"jdbc:sybase:Tds:([^/?\s]+)(?:/([^?\s]*))?\?(.+)", re.DOTALL)
_PLACED = re.compile(r"jdbc:(mysql|mariadb)(?::[a-z]+)?://(?:address=)?(\(.+\))(?:/([^?\s]*))?(?:\?(.*))?", re.DOTALL)
_IN_BRACKETS = re.compile(r"[(,]\s*(\w+)\s*=\s*([^(),]*)")
_GO = re.compile(r"([^:/@\s]+):(.+)@(?:tcp6?|unix)\(([^()\s]*)\)/([^?\s]*)(?:\?\S*)?", re.DOTALL)
_REDIS = re.compile(r"([A-Za-z0-9_.-]+)(?::(\d{1,5}))?((?:,[A-Za-z0-9_. -]+(?::\d{1,5})?)*),((?:\w+=[^,]*,?)+)")
_LIBPQ = re.compile(r"\s*(?:(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']*)(?:\s+|\Z))")
_LIBPQ_NAMES = {"host": "host", "hostaddr": "host", "port": "port", "dbname": "database", "user": "username",
                "password": "password"}  # fmt: skip
_NAMES = {"user": "username", "username": "username", "uid": "username", "password": "password", "pwd": "password",
          "host": "host", "port": "port", "database": "database"}  # fmt: skip


def take(text: str) -> Split | None:
    """Take a connection string apart whose parts stand in the order of its own product."""
    if len(text) > _LONGEST or ("=" not in text and "@" not in text):
        return None
    if text[:5].lower() == "jdbc:":
        return _jdbc(text)
    if "@tcp(" in text or "@unix(" in text or "@tcp6(" in text:
        return _go(text)
    low = text.lower()
    if "password=" in low and "," in text and ";" not in text and "://" not in text:
        return _redis(text)
    if "password" in low and ("dbname" in low or "host" in low) and ";" not in text:
        return _libpq(text)
    if "description" in low and "host" in low and ";" in text:
        return _oracle_fields(text)
    return None


def _jdbc(text: str) -> Split | None:
    if text[:12].lower() == "jdbc:oracle:":
        return oracle(text)
    for read in (_db2, _teradata, _placed, _bare, _with_fields):
        found = read(text)
        if found is not None:
            return found
    return None


def oracle(text: str) -> Split | None:
    """Read `thin:user/password@host:port:sid`, `user/"password"@//host/service` and the long form in brackets."""
    m = _ORACLE.fullmatch(text)
    if m is None:
        return None
    parts: dict[str, str] = {}
    put(parts, "username", m.group(1))
    put(parts, "password", m.group(2).strip('"'))
    _oracle_place(parts, m.group(3))
    return Split(KindID("oracle_db"), parts)


def _oracle_place(parts: dict[str, str], text: str) -> None:
    if text.lstrip().startswith("("):
        told = {name.lower(): value for name, value in reversed(_DESCRIBED.findall(text))}
        put(parts, "host", told.get("host", "").lower())
        put(parts, "port", told.get("port", ""))
        put(parts, "database", told.get("service_name", "") or told.get("sid", ""))
        return
    place = _ORACLE_PLACE.fullmatch(text)
    for name, value in zip(("host", "port", "database"), place.groups() if place else (), strict=False):
        put(parts, name, value.lower() if name == "host" and value else value or "")


def _oracle_fields(text: str) -> Split | None:
    """Read .NET's `Data Source=(DESCRIPTION=…);User Id=…;Password=…`."""
    found = dict(read_pairs(text))
    place = found.get("data source", "")
    parts: dict[str, str] = {}
    put(parts, "username", found.get("user id", "") or found.get("uid", ""))
    put(parts, "password", found.get("password", "") or found.get("pwd", ""))
    if not place.startswith("(") or "password" not in parts:
        return None
    _oracle_place(parts, place)
    return Split(KindID("oracle_db"), parts)


def _db2(text: str) -> Split | None:
    m = _DB2.fullmatch(text)
    if m is None or "=" not in m.group(4):
        return None
    parts: dict[str, str] = {}
    put_address(parts, m.group(2))
    put(parts, "database", m.group(3))
    put_named(parts, m.group(4))
    return Split(KindID("db2" if m.group(1) in {"db2", "as400"} else GENERIC), parts)


def _teradata(text: str) -> Split | None:
    m = _TERADATA.fullmatch(text)
    if m is None:
        return None
    parts: dict[str, str] = {}
    put_address(parts, m.group(1))
    put_named(parts, m.group(2).replace(",", ";"))
    parts.pop("options", None)
    return Split(KindID("teradata"), parts)


def _placed(text: str) -> Split | None:
    """Read MySQL's `address=(host=h)(port=3306)(user=u)(password=p)` and `(host=h,port=3306,user=u,password=p)`."""
    m = _PLACED.fullmatch(text)
    if m is None:
        return None
    parts: dict[str, str] = {}
    for name, value in _IN_BRACKETS.findall(m.group(2)):
        if (part := _NAMES.get(name.lower())) and value:
            parts.setdefault(part, value.strip())
    put(parts, "database", m.group(3) or "")
    _ampersands(parts, m.group(4) or "")
    return Split(KindID("mysql"), parts)


def _bare(text: str) -> Split | None:
    """Read Sybase's `Tds:host:port/database?USER=…&PASSWORD=…`."""
    m = _BARE.fullmatch(text)
    if m is None:
        return None
    parts: dict[str, str] = {}
    put_address(parts, m.group(1))
    put(parts, "database", m.group(2) or "")
    _ampersands(parts, m.group(3))
    return Split(KindID("sybase"), parts)


def _ampersands(parts: dict[str, str], query: str) -> None:
    for item in query.split("&"):
        name, _, value = item.partition("=")
        if (part := _NAMES.get(name.lower())) and value:
            parts.setdefault(part, unquote(value))


def _with_fields(text: str) -> Split | None:
    """Read `jdbc:PRODUCT://host:port/database;user=…;password=…` of any product but SQL Server, whose is its own."""
    m = _FIELDS.fullmatch(re.sub(r"^jdbc:exa:(?!//)", "jdbc:exa://", text))
    if m is None:
        return None
    words = m.group(1).lower().split(":")
    kind = next((SCHEMES[w] for w in words if w in SCHEMES), None)
    if kind == "sqlserver" or not {name for name, _ in read_pairs(m.group(3))} & {"password", "pwd"}:
        return None
    address, _, database = m.group(2).partition("/")
    parts: dict[str, str] = {}
    put_address(parts, address.rpartition("@")[2])
    put(parts, "database", database)
    put_named(parts, m.group(3))
    if "databricks" in words or "spark" in words:
        return _databricks(parts)
    return Split(KindID(kind) if kind else GENERIC, parts)


def _databricks(parts: dict[str, str]) -> Split:
    """Databricks' driver takes its token as the password of the user `token`."""
    if parts.get("username", "token") != "token":
        return Split(GENERIC, parts)
    kept = {"host": parts.get("host", ""), "secret": parts.get("password", "")}
    return Split(KindID("databricks"), {n: v for n, v in kept.items() if v})


def _go(text: str) -> Split | None:
    """Read Go's `user:password@tcp(host:3306)/database?parseTime=true`."""
    m = _GO.fullmatch(text.strip())
    if m is None:
        return None
    parts = {"username": m.group(1), "password": m.group(2)}
    if "@unix(" not in text:
        put_address(parts, m.group(3))
    put(parts, "database", unquote(m.group(4)))
    return Split(KindID("mysql"), parts)


def _redis(text: str) -> Split | None:
    """Read .NET's `host:6380,password=…,ssl=True`; several hosts stay one text."""
    m = _REDIS.fullmatch(text.strip())
    if m is None:
        return None
    given = {name.lower(): value for name, _, value in (i.partition("=") for i in m.group(4).split(",")) if value}
    parts: dict[str, str] = {}
    if not given.get("password"):
        return None
    put(parts, "username", given.get("user", ""))
    parts["password"] = given["password"]
    first, port, others = m.group(1), m.group(2) or "", m.group(3)
    put(parts, "host", (first + (f":{port}" if port and others else "") + others).lower())
    put(parts, "port", "" if others else port)
    put(parts, "database", given.get("defaultdatabase", ""))
    if given.get("ssl", "").lower() == "true":
        parts["scheme"] = "rediss"
    return Split(KindID("redis"), parts)


def _libpq(text: str) -> Split | None:
    """Read libpq's `host=h dbname=d user=u password='p w'`."""
    parts: dict[str, str] = {}
    at = 0
    options = ""
    while at < len(text):
        m = _LIBPQ.match(text, at)
        if m is None:
            return None
        name, value = m.groups()
        if value.startswith("'"):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        if name in _LIBPQ_NAMES and value:
            parts.setdefault(_LIBPQ_NAMES[name], value)
        elif name == "sslmode" and value:
            options = f"sslmode={value}"
        at = m.end()
    if not parts.get("password") or not {"database", "username"} & set(parts):
        return None
    put(parts, "options", options)
    return Split(KindID("postgres"), parts)
