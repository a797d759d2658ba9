"""Looks a value up among some three hundred shapes in about a microsecond.

The first characters choose the few shapes worth trying; shapes without a literal beginning are tried as one joined
expression first. Expressions are compiled when first needed, so that start-up costs nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from verifier.shapes import Shape

HEAD = 8
"""Prefixes are told apart by at most this many characters; the expression checks the rest."""

LONGEST = 4096
"""Values longer than this share one bucket: bare shapes are short."""

_NAMED = re.compile(r"\(\?P<\w+>")
_UNBOUNDED = (0, 1 << 30)


class _Lazy:
    """A shape whose expression is compiled at first use; `match` answers for the whole value."""

    __slots__ = ("match", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.match: Callable[[str], object] = self._first

    def _first(self, value: str) -> object:
        self.match = re.compile(self.shape.pattern, re.ASCII).fullmatch
        return self.match(value)


class ShapeIndex:
    """All shapes, arranged for three questions: `alone`, `part` and `bare`."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        """Arrange `shapes`; nothing is compiled yet."""
        self._heads: dict[str, list[_Lazy]] = {}
        self._loose: list[_Lazy] = []
        self._kinds: dict[str, list[_Lazy]] = {}
        bare: dict[str, list[str]] = {}
        for shape in shapes:
            lazy = _Lazy(shape)
            self._kinds.setdefault(shape.kind, []).append(lazy)
            if shape.context == "rule":
                if shape.part == "secret":
                    bare.setdefault(shape.pattern, []).append(shape.kind)
                continue
            if not shape.prefixes:
                self._loose.append(lazy)
            for prefix in shape.prefixes:
                self._heads.setdefault(prefix[:HEAD], []).append(lazy)
        self._lengths = tuple(sorted({len(h) for h in self._heads}))
        self._any_loose: Callable[[str], object] | None = None
        self._bare = bare
        self._widths: list[tuple[int, int, Callable[[str], object], list[str]]] = []
        self._buckets: dict[int, tuple[tuple[Callable[[str], object], list[str]], ...]] = {}

    def alone(self, value: str) -> list[Shape]:
        """Return the shapes that by themselves name a kind and match the whole `value`."""
        found: list[Shape] = []
        heads = self._heads
        for n in self._lengths:
            tries = heads.get(value[:n])
            if tries:
                found += [t.shape for t in tries if t.shape not in found and t.match(value)]
        if not found and self._loose and self._joined()(value):
            found = [t.shape for t in self._loose if t.match(value)]
        return found

    def _joined(self) -> Callable[[str], object]:
        if self._any_loose is None:
            joined = "|".join(f"(?:{_NAMED.sub('(?:', t.shape.pattern)})" for t in self._loose)
            self._any_loose = re.compile(joined, re.ASCII).fullmatch
        return self._any_loose

    def part(self, kind: str, value: str) -> str | None:
        """Return which part of `kind` the value has the shape of, whatever the context; `None` for no part."""
        for lazy in self._kinds.get(kind, ()):
            if lazy.match(value):
                return lazy.shape.part
        return None

    def could_be(self, kind: str, part: str, value: str) -> bool:
        """Say whether `value` has a shape of that very part of `kind`."""
        return any(t.shape.part == part and t.match(value) for t in self._kinds.get(kind, ()))

    def begins(self, text: str, kinds: Iterable[str] | None = None) -> set[str]:
        """Return the kinds with the longest distinctive prefix (3 characters or more) that begins `text`."""
        best = 2
        found: set[str] = set()
        for kind in self._kinds if kinds is None else kinds:
            for lazy in self._kinds.get(kind, ()):
                if lazy.shape.context == "rule":
                    continue
                for prefix in lazy.shape.prefixes:
                    if len(prefix) >= max(best, 3) and text.startswith(prefix):
                        if len(prefix) > best:
                            found, best = set(), len(prefix)
                        found.add(kind)
        return found

    def bare(self, value: str) -> tuple[str, ...]:
        """Return, in table order, the kinds whose secret may look like `value`: a shape that proves nothing."""
        n = min(len(value), LONGEST)
        bucket = self._buckets.get(n)
        if bucket is None:
            bucket = self._buckets[n] = self._bucket(n)
        kinds: dict[str, None] = {}
        for match, names in bucket:
            if match(value):
                kinds.update(dict.fromkeys(names))
        return tuple(kinds)

    def _bucket(self, n: int) -> tuple[tuple[Callable[[str], object], list[str]], ...]:
        if not self._widths:
            for pattern, kinds in self._bare.items():
                low, high = _width(pattern)
                self._widths.append((low, high, re.compile(pattern, re.ASCII).fullmatch, kinds))
        return tuple((m, k) for low, high, m, k in self._widths if low <= n and (n <= high or n == LONGEST))

    def shapes(self, kind: str) -> tuple[Shape, ...]:
        """Return all shapes of `kind`."""
        return tuple(t.shape for t in self._kinds.get(kind, ()))


def _width(pattern: str) -> tuple[int, int]:
    """Return the least and greatest length a match can have. Only speed depends on it: unknown means any length."""
    try:
        from re import _parser  # type: ignore[attr-defined]  # noqa: PLC0415  # private to CPython; absent elsewhere
    except ImportError:  # pragma: no cover
        return _UNBOUNDED
    low, high = _parser.parse(pattern).getwidth()
    return int(low), int(high)
