"""CODEOWNERS files, as GitHub and GitLab read them: the last pattern that fits a path names its owners."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTION = re.compile(r"\^?\[[^\]]+\](?:\[\d+\])?(.*)")
_TOKEN = re.compile(r"\*\*/|/\*\*$|\*\*|\*|\?|\\.|.", re.DOTALL)
_REGEX = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class Entry(Struct, frozen=True):
    """One line: what it matches, and the owners it names (none: nobody owns it)."""

    pattern: re.Pattern[str]
    owners: tuple[str, ...]


class CodeOwners:
    """The lines of a file. GitLab's sections give their default owners to lines without any."""

    def __init__(self, text: str) -> None:
        """Read the file's text; lines that say nothing are left out."""
        self._entries = tuple(_entries(text))

    def of(self, path: str) -> tuple[str, ...]:
        """Return the owners of a path (relative to the repository); none where nobody is named."""
        path = path.removeprefix("./").lstrip("/")
        for entry in reversed(self._entries):
            if entry.pattern.fullmatch(path):
                return entry.owners
        return ()


def _entries(text: str) -> Iterator[Entry]:
    default: tuple[str, ...] = ()
    for raw in text.splitlines():
        line = raw.strip()
        if section := _SECTION.fullmatch(line):
            default = tuple(section.group(1).split())
        elif line and not line.startswith("#"):
            pattern, *owners = re.split(r"(?<!\\)\s+", line.partition(" #")[0].strip())
            yield Entry(_compile(pattern), tuple(owners) or default)


def _compile(pattern: str) -> re.Pattern[str]:
    """Return the expression of a pattern of gitignore's kind; one that ends in `/*` stops at that folder."""
    body = pattern.strip("/")
    anchored = "/" in pattern.rstrip("/")
    inside = "/.*" if pattern.endswith("/") else "" if body.endswith("/*") else "(?:/.*)?"
    found = "".join(_REGEX.get(t) or re.escape(t[-1]) for t in _TOKEN.findall(body))
    return re.compile(("" if anchored else "(?:.*/)?") + found + inside, re.DOTALL)
