"""Small readings that several report formats share: dates, snippets that hold a secret, first bytes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from msgspec import MsgspecError, json

from verifier.ingest.mask import is_masked, is_word
from verifier.ingest.pieces import moment
from verifier.model import Absent, Hidden, Masked
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source

_GIT_TIME: Final = re.compile(r"(\d{1,12}) ([+-])(\d\d)(\d\d)")
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.+-----END [A-Z0-9 ]+-----", re.DOTALL)
_BARE: Final = r"[A-Za-z0-9+/_.~|-]{6,}={0,2}"
_URL: Final = r"[a-z][a-z0-9+.-]*://[^\s\"'`<>]+"
_VALUE: Final = re.compile(rf"{_BARE}|{_URL}")
_ASSIGNMENT: Final = re.compile(
    rf"""(?: (?:export|const|let|var|set|ENV|ARG|final|static|public|private|String) \s+ )*
         [\w.$\[\]"'-]{{1,100}} \s* (?:=>|:=|=|:) \s*
         (?: (["'`]) (?P<quoted>[^\s"'`]{{4,}}) \1 | (?P<bare>{_BARE}|{_URL}) ) \s* [,;]?""",
    re.VERBOSE,
)
_QUOTED: Final = re.compile(r"""(["'`])([^\s"'`]{4,})\1""")


def when(text: str | None) -> datetime | None:
    """Return a moment with its zone: ISO 8601 or Git's `SECONDS +ZONE`; a date without a zone is UTC; else None."""
    if not text:
        return None
    if not (git := _GIT_TIME.fullmatch(text)):
        return moment(text)
    away = timedelta(hours=int(git[3]), minutes=int(git[4])) * (-1 if git[2] == "-" else 1)
    try:
        return datetime.fromtimestamp(int(git[1]), timezone(away))
    except (ValueError, OverflowError, OSError):
        return None


def plain(text: str | None) -> Secret | Hidden:
    """Take a field that holds the secret or, redacted, a mask of it, and nothing else."""
    if not text or not text.strip():
        return Absent()
    return Masked(text) if is_masked(text) else Secret(text)


def isolate(snippet: str | None) -> Secret | Hidden:
    """Take a snippet that may be wider than the secret.

    The secret only where there is no doubt which part it is: a whole key block, one bare token or URL, one quoted
    string, or one assignment of one. A masked snippet stays a mask; of anything else we say that we don't know.
    """
    text = (snippet or "").strip()
    if not text:
        return Absent()
    if _PEM.fullmatch(text):
        return Secret(text)
    if is_masked(text):
        return Masked(text)
    if _VALUE.fullmatch(text):
        return Secret(text)
    if quoted := _QUOTED.fullmatch(text):
        return Secret(quoted[2])
    if assigned := _ASSIGNMENT.fullmatch(text):
        return Secret(assigned["quoted"] or assigned["bare"])
    return Absent()


def unword(value: Secret | Hidden) -> Secret | Hidden:
    """Return `Absent` for a mask that is only a word (`REDACTED`, `requires login`): it says nothing."""
    return Absent() if isinstance(value, Masked) and is_word(value.text) else value


def string(raw: bytes) -> str:
    """Return a JSON string found above the rows (a name, an id); empty when it is none."""
    try:
        return json.decode(raw, type=str)
    except (MsgspecError, ValueError):
        return ""


def opens_with(head: bytes, byte: bytes) -> bool:
    """Whether the first character that is not white space is `byte`."""
    return head.lstrip()[:1] == byte


def has_keys(head: bytes, *keys: str) -> bool:
    """Whether each of the JSON keys occurs somewhere in the first bytes."""
    return all(re.search(rb'"%s"\s*:' % re.escape(key.encode()), head) for key in keys)


def has_pair(head: bytes, key: str, value: str) -> bool:
    """Whether a JSON string member `key: value` occurs somewhere in the first bytes."""
    return re.search(rb'"%s"\s*:\s*"%s"' % (re.escape(key.encode()), re.escape(value.encode())), head) is not None


class Peeked:
    """A source whose first block was looked at and is still there to be read."""

    def __init__(self, source: Source) -> None:
        """Read the first block."""
        self.name = source.name
        self._source = source
        self._blocks = source.blocks()
        self.first = next(self._blocks, b"")

    def blocks(self) -> Iterator[bytes]:
        """Yield everything, once."""
        yield self.first
        yield from self._blocks

    @property
    def damage(self) -> tuple[str, str] | None:
        """As of the source underneath."""
        return self._source.damage

    def cut(self) -> None:
        """Pass it on."""
        self._source.cut()
