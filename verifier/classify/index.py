"""Looks a value up among some three hundred shapes in about a microsecond.

The first characters choose the few shapes worth trying; shapes without a literal beginning are chosen by length.
Expressions are compiled when first needed, so that start-up costs nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from verifier.model import KindID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from verifier.shapes import Shape

HEAD = 8
"""Prefixes are told apart by at most this many characters; the expression checks the rest."""

LONGEST = 4096
"""Values longer than this share one bucket: bare shapes are short."""

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


class _ByLength:
    """Shapes without a literal beginning, sorted by the lengths their matches can have."""

    __slots__ = ("_buckets", "_items", "_widths")

    def __init__(self, items: Iterable[_Lazy]) -> None:
        self._items = tuple(items)
        self._widths: list[tuple[int, int]] = []
        self._buckets: dict[int, tuple[_Lazy, ...]] = {}

    def of(self, n: int) -> tuple[_Lazy, ...]:
        """Return the shapes that can match a value of `n` characters; those over `LONGEST` share one bucket."""
        n = min(n, LONGEST)
        found = self._buckets.get(n)
        if found is None:
            self._widths = self._widths or [_width(i.shape.pattern) for i in self._items]
            pairs = zip(self._items, self._widths, strict=True)
            found = tuple(i for i, (low, high) in pairs if low <= n and (n <= high or n == LONGEST))
            self._buckets[n] = found
        return found


class ShapeIndex:
    """All shapes, arranged for three questions: `alone`, `part` and `bare`."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        """Arrange `shapes`; nothing is compiled yet."""
        self._heads: dict[str, list[_Lazy]] = {}
        self._kinds: dict[str, list[_Lazy]] = {}
        loose: list[_Lazy] = []
        bare: dict[str, _Lazy] = {}
        self._sharing: dict[str, list[str]] = {}
        for shape in shapes:
            lazy = _Lazy(shape)
            self._kinds.setdefault(shape.kind, []).append(lazy)
            if shape.context == "rule":
                if shape.part == "secret":
                    bare.setdefault(shape.pattern, lazy)
                    self._sharing.setdefault(shape.pattern, []).append(shape.kind)
                continue
            if not shape.prefixes:
                loose.append(lazy)
            for prefix in shape.prefixes:
                self._heads.setdefault(prefix[:HEAD], []).append(lazy)
        lengths: dict[str, set[int]] = {}
        for head in self._heads:
            lengths.setdefault(head[0], set()).add(len(head))
        self._lengths = {first: tuple(sorted(some)) for first, some in lengths.items()}
        self._threes = {p[:3] for some in self._heads.values() for t in some for p in t.shape.prefixes if len(p) >= 3}
        self._loose = _ByLength(loose)
        self._bare = _ByLength(bare.values())
        self._sets: dict[tuple[str, ...], tuple[KindID, ...]] = {}

    def alone(self, value: str) -> list[Shape]:
        """Return the shapes that by themselves name a kind and match the whole `value`."""
        found: list[Shape] = []
        heads = self._heads
        for n in self._lengths.get(value[:1], ()):
            tries = heads.get(value[:n])
            if tries:
                found += [t.shape for t in tries if t.match(value) and t.shape not in found]
        if not found:
            found = [t.shape for t in self._loose.of(len(value)) if t.match(value)]
        return found

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
        """Return the kinds (of `kinds`, if given) with the longest distinctive prefix, of 3 characters at least."""
        best = 2
        found: set[str] = set()
        if text[:3] not in self._threes:
            return found
        for n in self._lengths.get(text[:1], ()):
            for lazy in self._heads.get(text[:n], ()):
                kind = lazy.shape.kind
                size = max((len(p) for p in lazy.shape.prefixes if text.startswith(p)), default=0)
                if size < max(best, 3) or (kinds is not None and kind not in kinds):
                    continue
                if size > best:
                    found, best = set(), size
                found.add(kind)
        return found

    def bare(self, value: str) -> tuple[KindID, ...]:
        """Return, in table order, the kinds whose secret may look like `value`: a shape that proves nothing."""
        patterns = tuple([t.shape.pattern for t in self._bare.of(len(value)) if t.match(value)])
        kinds = self._sets.get(patterns)
        if kinds is None:
            # one tuple for all values that match the same patterns: there are a few dozen such sets
            kinds = tuple(dict.fromkeys(KindID(k) for p in patterns for k in self._sharing[p]))
            self._sets[patterns] = kinds
        return kinds

    def shapes(self, kind: str) -> tuple[Shape, ...]:
        """Return all shapes of `kind`."""
        return tuple(t.shape for t in self._kinds.get(kind, ()))


def _width(pattern: str) -> tuple[int, int]:
    """Return the least and greatest length a match can have. Only speed depends on it: unknown means any length."""
    try:
        from re import _parser  # type: ignore[attr-defined]  # noqa: PLC0415  # private to CPython; absent elsewhere
    except ImportError:  # pragma: no cover  # CPython always has it
        return _UNBOUNDED
    low, high = _parser.parse(pattern).getwidth()
    return int(low), int(high)
