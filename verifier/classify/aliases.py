"""What each scanner calls its rules, and which kind of key that means.

`data/aliases.tsv` has one rule a line: scanner, rule exactly as reported, target, what the rule captures.
The target is a kind id; `generic`, `private_key`, `jwt` or `connection_string` for classes of secret; `-` for a
product that has no kind of ours; `?:a,b` where the shape must decide between kinds (one alone: the rule also fires
for something else). The capture is a part name, or `uri`, `json`, `login` (user and password in one),
`several` (any of the parts) or `hash`.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from verifier.shapes import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Says(StrEnum):
    """How much a rule's name says."""

    KIND = "kind"
    CHOICE = "choice"
    GENERIC = "generic"
    PRIVATE_KEY = "private_key"
    JWT = "jwt"
    CONNECTION_STRING = "connection_string"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"


class Alias(Struct, frozen=True):
    """What one rule means. `kinds` has one id for KIND, one or more for CHOICE, and none otherwise."""

    says: Says
    kinds: tuple[str, ...] = ()
    captures: str = "secret"


UNKNOWN = Alias(Says.UNKNOWN)

_CLASSES = {
    "generic": Says.GENERIC,
    "private_key": Says.PRIVATE_KEY,
    "jwt": Says.JWT,
    "connection_string": Says.CONNECTION_STRING,
    "-": Says.UNSUPPORTED,
}

_RELATED = {
    "betterleaks": ("gitleaks",),
    "ggshield": ("gitguardian-api",),
    "gitlab": ("gitleaks",),
    "gitleaks": ("betterleaks",),
    "kingfisher": ("kingfisher-1.x", "betterleaks"),
    "kingfisher-1.x": ("kingfisher",),
    "noseyparker": ("noseyparker-name", "titus"),
    "titus": ("noseyparker", "kingfisher-1.x", "noseyparker-name"),
}
"""Scanners that share rule names, tried in order when the scanner's own table has none."""


def read_alias(target: str, captures: str) -> Alias:
    """Return the meaning of a table row."""
    if target.startswith("?:"):
        return Alias(Says.CHOICE, tuple(target[2:].split(",")), captures)
    says = _CLASSES.get(target)
    return Alias(Says.KIND, (target,), captures) if says is None else Alias(says, (), captures)


class Aliases:
    """The table, read when first asked (a few milliseconds). `extra` rows (scanner, rule, kind) go before it."""

    def __init__(self, extra: Iterable[tuple[str, str, str]] = ()) -> None:
        """Keep `extra`, which provider specs declare; read nothing yet."""
        self._extra = tuple(extra)
        self._tables: dict[str, dict[str, Alias | tuple[str, str]]] = {}

    @property
    def tables(self) -> Mapping[str, Mapping[str, object]]:
        """Scanner to its rules."""
        return self._load()

    def get(self, scanner: str, rule: str) -> Alias | None:
        """Return what `rule` of `scanner` means, `None` if nobody ever said.

        A scanner without a table of its own (a converter, a wrapper) may use anybody's names.
        """
        tables = self._tables or self._load()
        own = tables.get(scanner)
        if own is not None:
            hit = own.get(rule)
            if hit is not None:
                return hit if type(hit) is Alias else self._parse(scanner, rule)
        others = _RELATED.get(scanner, ()) if own is not None else tuple(tables)
        for other in others:
            if rule in tables.get(other, ()):
                return self._parse(other, rule)
        if scanner == "semgrep" and "." in rule:
            return self.get("gitleaks", rule.rpartition(".")[2])
        return None

    def coverage(self, scanner: str) -> Counter[Says]:
        """Count the scanner's rules by how much they say; empty for a scanner without a table."""
        return Counter(self._parse(scanner, rule).says for rule in tuple(self._load().get(scanner, ())))

    def _parse(self, scanner: str, rule: str) -> Alias:
        hit = self._tables[scanner][rule]
        if not isinstance(hit, Alias):
            hit = self._tables[scanner][rule] = read_alias(*hit)
        return hit

    def _load(self) -> dict[str, dict[str, Alias | tuple[str, str]]]:
        if not self._tables:
            tables = self._tables
            for scanner, rule, target, captures in rows("aliases.tsv"):
                tables.setdefault(scanner, {})[rule] = (target, captures)
            said: dict[tuple[str, str], list[str]] = {}
            for scanner, rule, kind in self._extra:
                said.setdefault((scanner, rule), []).append(kind)
            for (scanner, rule), kinds in said.items():
                table = tables.setdefault(scanner, {})
                shipped = table.get(rule)
                target, captures = shipped if isinstance(shipped, tuple) else ("-", "secret")
                # the shipped row already chooses among these kinds, or knows that the rule fires for more
                if not set(kinds) & set(target.removeprefix("?:").split(",")):
                    table[rule] = (kinds[0] if len(kinds) == 1 else "?:" + ",".join(kinds), captures)
        return self._tables
