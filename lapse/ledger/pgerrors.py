"""What PostgreSQL's errors mean for somebody who has never seen them. Never quotes the server: it may quote values."""

from __future__ import annotations

import re

import psycopg

from lapse.ledger.errors import LedgerError

_CODES = {
    "28P01": "PostgreSQL does not let us log in to {0}: give the user in the address and the right password by"
    " ledger.password, PGPASSWORD or ~/.pgpass",
    "28000": "PostgreSQL does not let this user in from this machine to {0}; ask for a line in pg_hba.conf",
    "3D000": "there is no such database at {0}; make it (`createdb`), or name another in ledger.url",
    "42501": "the database user lacks rights on the ledger {0}; it needs CREATE on the database once, or ownership of"
    " the schema",
    "25006": "the ledger {0} is a replica that only reads; name the primary in ledger.url",
    "53100": "the disk that holds the ledger {0} is full; free some space and run the command again",
    "53300": "PostgreSQL at {0} has no connection left; raise max_connections, or run fewer workers",
    "55P03": "another process has held the ledger {0} for too long; wait for it to end and run again",
    "25P03": "this process was stopped in the middle of its work on the ledger {0}; run the command again",
    "42P01": "the ledger {0} lacks one of its tables; restore it from a copy, then run `lapse ledger check`",
    "57P03": "PostgreSQL at {0} is starting or stopping; run the command again in a moment",
}
_CLASSES = {
    "08": "the connection to the ledger {0} broke; run the command again",
    "53": "PostgreSQL at {0} has run out of memory or space; see its log, then run the command again",
    "57": "PostgreSQL at {0} was stopped; run the command again when it is back",
    "58": "PostgreSQL at {0} reports an error of its system; see its log, then run the command again",
    "XX": "the ledger {0} is damaged; see PostgreSQL's log, restore it from a copy, run `lapse ledger check`",
}
# libpq gives no code where it never got as far as a session: its own words tell.
_WORDS = (
    (re.compile(r"starting up|shutting down|recovery mode|not yet accepting"), "57P03"),
    (re.compile(r"password authentication failed|no password supplied|SASL|SCRAM"), "28P01"),
    (re.compile(r"pg_hba\.conf|role \".*\" |[Ii]dent authentication|Peer authentication"), "28000"),
    (re.compile(r"database \".*\" does not exist"), "3D000"),
    (re.compile(r"too many clients|remaining connection slots"), "53300"),
)
_UNREACHED = "the ledger {0} cannot be reached ({1}); check the address, the network and that PostgreSQL runs"
_REASONS = (
    (re.compile(r"SSL|certificate"), "TLS did not come about"),
    (re.compile(r"Connection refused|No such file"), "nothing listens there"),
    (re.compile(r"could not translate|Name or service|getaddrinfo|resolve"), "no such host"),
    (re.compile(r"timeout|timed out"), "no answer in time"),
)


def sentence(error: BaseException | None, where: str) -> LedgerError:
    """Return what `error` means."""
    code = code_of(error)
    known = _CODES.get(code) or _CLASSES.get(code[:2])
    if known is not None:
        return LedgerError(known.format(where))
    if isinstance(error, psycopg.OperationalError) and not code:
        text = str(error)
        reason = next((said for words, said in _REASONS if words.search(text)), "the connection failed")
        return LedgerError(_UNREACHED.format(where, reason))
    kind = code or type(error).__name__
    return LedgerError(f"the ledger {where} answered with an unknown trouble ({kind}); run `lapse ledger check`")


def passing(error: BaseException | None) -> bool:
    """Say whether the server itself says that it will soon be back."""
    return code_of(error) == "57P03"


def unreached(error: BaseException | None) -> bool:
    """Say whether no session came about, for a reason that time may heal."""
    code = code_of(error)
    return (
        code in {"57P01", "57P02", "57P03", "53300"}
        or code[:2] == "08"
        or (not code and isinstance(error, psycopg.OperationalError))
    )


def code_of(error: BaseException | None) -> str:
    """Return the SQLSTATE of an error, read out of libpq's words where it has none; empty if unknown."""
    code = getattr(error, "sqlstate", None)
    if code:
        return str(code)
    if not isinstance(error, psycopg.OperationalError):
        return ""
    text = str(error)
    return next((found for words, found in _WORDS if words.search(text)), "")
