"""Finds where the values of a JSON text begin and end, without decoding them or holding more than one.

Only brackets and strings are understood; whether a value is valid is for the decoder that gets it. The hot loop is
two regular expressions that jump from bracket to bracket in C. Their sets repeat possessively, so that nothing in them
is tried twice. Their groups don't, since Python before 3.11.5 matches possessive groups wrongly (gh-106052), but repeat
only so often: what is beyond is for the next round. Linear time, few frames.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from msgspec import MsgspecError, json

if TYPE_CHECKING:
    from collections.abc import Iterator

EACH = "*"
MAX_ROW = 16 << 20

Path: TypeAlias = tuple[str, ...]
Wanted: TypeAlias = tuple[tuple[int, Path], ...]

_SPACE = re.compile(rb"[ \t\r\n]*+")
_OUTSIDE = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+){0,999}"[^"{}\[\]]*+){0,999}', re.DOTALL)
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+){0,999}', re.DOTALL)
_SCALAR = re.compile(rb'[^,\[\]{}":\s]*+')
_OPENS = re.compile(rb"[\[{]++")
_CLOSES = re.compile(rb"[\]}]++")
_DEEP = 64

_QUOTE, _COMMA, _COLON, _BACKSLASH = b'",:\\'
_LEFT_BRACE, _RIGHT_BRACE, _LEFT_BRACKET, _RIGHT_BRACKET = b"{}[]"


class Ended(Exception):  # noqa: N818  # not an error of ours: the text stops within a value
    """The text ends in the middle of a value."""


class Found:
    """One value at a wanted path: which path, its key in an object, its bytes; `raw` None when over `MAX_ROW`.

    `fits` is False for a value where the path wanted a container of another sort; it was passed over.
    """

    __slots__ = ("fits", "index", "key", "raw")

    def __init__(self, index: int, key: str, raw: bytes | None, *, fits: bool = True) -> None:
        """Take the parts."""
        self.index = index
        self.key = key
        self.raw = raw
        self.fits = fits


class Walker:
    """Walks one text, which may hold several JSON documents one after another."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        """Take the text in pieces of any size."""
        self._blocks = blocks
        self._buf = b""
        self._pos = 0
        self.at_top = False
        """Whether the value just found is a whole document of the wrong sort."""

    def documents(self, *paths: Path) -> Iterator[Found]:
        """Yield the values at `paths` of every document; raise `Ended` when the text stops within one.

        `*` in a path is each element of an array or, below the top, each value of an object.
        """
        wanted = tuple(enumerate(paths))
        self._need()  # an empty text is no document
        while self._peek() >= 0:
            yield from self._walk(wanted, "", top=True)

    def _walk(self, wanted: Wanted, key: str, *, top: bool = False) -> Iterator[Found]:
        first = self._need()
        for index, path in wanted:
            if not path:
                yield Found(index, key, self._value(keep=True))
                return
        if first == _LEFT_BRACE and not (top and all(path == (EACH,) for _, path in wanted)):
            yield from self._object(wanted)
        elif first == _LEFT_BRACKET and (rest := tuple((i, path[1:]) for i, path in wanted if path[0] == EACH)):
            yield from self._array(rest)
        else:
            raw = self._value(keep=first not in (_LEFT_BRACE, _LEFT_BRACKET))
            # An empty Go slice is null; below the top, a number where a list may be is a summary's count.
            if raw != b"null" and (top or raw is None):
                self.at_top = top
                yield Found(wanted[0][0], key, None, fits=False)
                self.at_top = False

    def _array(self, rest: Wanted) -> Iterator[Found]:
        self._pos += 1
        index, path = rest[0]
        leaf = len(rest) == 1 and not path
        while True:
            first = self._need()
            if first == _RIGHT_BRACKET:
                self._pos += 1
                return
            if first in (_COMMA, _COLON, _RIGHT_BRACE):
                self._pos += 1
            elif leaf:
                yield Found(index, "", self._value(keep=True))
            else:
                yield from self._walk(rest, "")

    def _object(self, wanted: Wanted) -> Iterator[Found]:
        self._pos += 1
        while True:
            first = self._need()
            if first == _RIGHT_BRACE:
                self._pos += 1
                return
            if first != _QUOTE:
                self._pos += 1
                continue
            key = _text(self._value(keep=True))
            if self._need() == _COLON:
                self._pos += 1
            if self._need() in (_COMMA, _RIGHT_BRACE):
                continue
            if rest := tuple((i, path[1:]) for i, path in wanted if path[0] in (key, EACH)):
                yield from self._walk(rest, key)
            else:
                self._value(keep=False)

    def _peek(self) -> int:
        """Return the next byte that is not white space, or -1 at the end."""
        while True:
            end = _SPACE.match(self._buf, self._pos).end()  # type: ignore[union-attr]  # matches the empty text too
            self._pos = end
            if end < len(self._buf):
                return self._buf[end]
            if not self._more():
                return -1

    def _need(self) -> int:
        if (byte := self._peek()) < 0:
            raise Ended
        return byte

    def _more(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        self._buf = self._buf[self._pos :] + block
        self._pos = 0
        return True

    def _grow(self, at: int, *, keep: bool) -> int:
        """Fetch more text; return where `at` is now. What lies before it is dropped unless it is to be kept."""
        if not keep:
            self._pos = at
        at -= self._pos
        if not self._more():
            raise Ended
        return at

    def _value(self, *, keep: bool) -> bytes | None:
        """Pass over the value at the position; return its bytes, or None when not kept or too long to keep."""
        first = self._buf[self._pos]
        if first not in (_QUOTE, _LEFT_BRACE, _LEFT_BRACKET):
            return self._scalar(keep=keep)
        inside = first == _QUOTE
        at, depth = self._pos + inside, 0
        while True:
            buf = self._buf
            at = (_INSIDE if inside else _OUTSIDE).match(buf, at).end()  # type: ignore[union-attr]  # as above
            if at == len(buf) or (at + 1 == len(buf) and buf[at] == _BACKSLASH):  # its other half is yet to come
                keep = keep and at - self._pos <= MAX_ROW
                at = self._grow(at, keep=keep)
                continue
            byte = buf[at]
            at += 1 + (byte == _BACKSLASH)
            if inside:
                inside = byte == _BACKSLASH
            elif byte == _QUOTE:
                inside = True
                continue
            elif byte in (_LEFT_BRACE, _LEFT_BRACKET):
                depth += 1
                if depth > _DEEP and (run := _OPENS.match(buf, at)):
                    depth += run.end() - at
                    at = run.end()
            else:
                depth -= 1
                if depth > _DEEP and (run := _CLOSES.match(buf, at)):
                    closed = min(depth - 1, run.end() - at)
                    depth -= closed
                    at += closed
            if depth == 0:
                raw = buf[self._pos : at] if keep and at - self._pos <= MAX_ROW else None
                self._pos = at
                return raw

    def _scalar(self, *, keep: bool) -> bytes | None:
        at = self._pos
        while (at := _SCALAR.match(self._buf, at).end()) == len(self._buf):  # type: ignore[union-attr]  # as above
            keep = keep and at - self._pos <= MAX_ROW
            try:
                at = self._grow(at, keep=keep)
            except Ended:
                break
        at = max(at, self._pos + 1)  # a stray bracket or colon is passed over, too
        raw = self._buf[self._pos : at] if keep else None
        self._pos = at
        return raw


def _text(raw: bytes | None) -> str:
    try:
        return json.decode(raw or b'""', type=str)
    except (MsgspecError, ValueError):
        return ""


def first(head: bytes, *path: str) -> bytes:
    """Return the first value at `path`, for sniffing; all of `head` when it ends within it; else nothing."""
    try:
        return next((found.raw or b"" for found in Walker(iter((head,))).documents(path)), b"")
    except Ended:
        return head
