"""What a part of a key looks like: the neutral form that specs and the shipped table are turned into.

Two tables ship with the package and are overridden, kind by kind, by what a provider's spec says: `data/shapes.tsv`
(one shape a line) and `data/kinds.tsv` (which parts a kind needs). They exist so that a key of a vendor without a
spec is still named, listed and deduplicated, although nobody can ask about it yet.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.spec import Kind

Context = Literal["alone", "rule"]


class Shape(Struct, frozen=True):
    """One shape of one part of one kind of key.

    `pattern` matches the whole value (ASCII classes). `prefixes` are literal beginnings, one of which every match has;
    empty where there is none. `context`: `alone` when the shape by itself names the kind, `rule` when a scanner's
    rule or a companion must. `checksum` names one of `verifier.offline.checksums`.
    """

    kind: str
    part: str
    pattern: str
    prefixes: tuple[str, ...] = ()
    context: Context = "alone"
    checksum: str | None = None


class Needs(Struct, frozen=True):
    """Which parts a kind of key needs before anybody can be asked about it, and which others may help."""

    parts: tuple[str, ...] = ("secret",)
    optional: tuple[str, ...] = ()


def rows(name: str) -> Iterator[list[str]]:
    """Yield the tab-separated fields of each line of a shipped table; lines that begin with `#` are remarks."""
    text = files("verifier.data").joinpath(name).read_text("utf-8")
    for line in text.splitlines():
        if line and line[0] != "#":
            yield line.split("\t")


@cache
def shipped_shapes() -> tuple[Shape, ...]:
    """Return the shapes of `data/shapes.tsv`."""
    return tuple(
        Shape(
            kind=kind,
            part=part,
            pattern=pattern,
            prefixes=() if prefixes == "-" else tuple(prefixes.split(",")),
            context="alone" if context == "alone" else "rule",
            checksum=None if checksum == "-" else checksum,
        )
        for kind, part, context, checksum, prefixes, pattern in rows("shapes.tsv")
    )


@cache
def shipped_needs() -> dict[str, Needs]:
    """Return the parts of every kind we have an id for, from `data/kinds.tsv`."""
    return {
        kind: Needs(tuple(parts.split(",")), () if optional == "-" else tuple(optional.split(",")))
        for kind, parts, optional in rows("kinds.tsv")
    }


def spec_shapes(kinds: Iterable[Kind]) -> Iterator[Shape]:
    """Yield the shapes that provider specs declare."""
    for kind in kinds:
        for shape in kind.shape:
            yield Shape(kind.id, shape.part, shape.pattern, shape.prefix, shape.context, shape.checksum)


def merge(shipped: Iterable[Shape], specs: Iterable[Shape]) -> tuple[Shape, ...]:
    """Return the specs' shapes plus the shipped ones of kinds and parts for which no spec gives any."""
    said = tuple(specs)
    known = {(s.kind, s.part) for s in said}
    return (*said, *(s for s in shipped if (s.kind, s.part) not in known))
