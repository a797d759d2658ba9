"""A report's bytes made plain: unpacked, decoded to UTF-8, without byte order mark, in bounded memory."""

from __future__ import annotations

import codecs
import zlib
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from verifier.model import Skipped

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

BLOCK = 1 << 20
HEAD = 64 << 10

_GZIP = b"\x1f\x8b"
_GZIP_OR_ZLIB_HEADER = 31
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the other's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_BOM = 4
_AGAIN = "fetch the file or run the scan again"


class Limits(Struct, frozen=True):
    """How far a packed file may unpack: `ratio` counts only beyond `free` bytes, as small bombs do no harm."""

    free: int = 256 << 20
    ratio: int = 250
    most: int = 64 << 30


class Plain:
    """One open report as a `Source`. Owns `stream` and closes it with `close`."""

    def __init__(self, name: str, stream: BinaryIO, limits: Limits | None = None) -> None:
        """Read the first bytes to learn packing and encoding, and keep 64 KiB of plain text as `head`."""
        self.name = name
        self.damage: tuple[str, str] | None = None
        self.whole = True
        self._stream = stream
        self._limits = limits or Limits()
        self._blocks = self._plain()
        kept: list[bytes] = []
        size = 0
        while size < HEAD and (block := next(self._blocks, b"")):
            kept.append(block)
            size += len(block)
        self.head = b"".join(kept)[:HEAD]
        self._kept = kept

    def blocks(self) -> Iterator[bytes]:
        """Yield the plain text in pieces, once."""
        kept, self._kept = self._kept, []
        yield from kept
        kept.clear()
        yield from self._blocks

    def cut(self) -> None:
        """Record that the report does not hold the whole scan."""
        self.whole = False

    def close(self) -> None:
        """Close the file; harmless twice."""
        self._blocks.close()
        self._stream.close()

    def _hurt(self, reason: str, remedy: str) -> None:
        self.damage = (reason, remedy)
        self.whole = False

    def _raw(self) -> Iterator[bytes]:
        try:
            while block := self._stream.read(BLOCK):
                yield block
        except OSError as error:
            self._hurt(f"it could not be read to its end ({error.strerror or 'read error'})", _AGAIN)

    def _plain(self) -> Generator[bytes, None, None]:
        start, blocks = _prime(self._raw())
        if start.startswith(_GZIP):
            start, blocks = _prime(self._gunzip(blocks))
        for mark, encoding in _BOMS:
            if start.startswith(mark):
                yield from self._decode(_without(blocks, len(mark)), encoding)
                return
        yield from self._decode(blocks, _unmarked(start))

    def _gunzip(self, packed: Iterable[bytes]) -> Iterator[bytes]:
        member = zlib.decompressobj(_GZIP_OR_ZLIB_HEADER)
        taken = given = 0
        for block in packed:
            taken += len(block)
            data = block
            while data:
                if member.eof:
                    if not (data := data.lstrip(b"\0")):  # padding, as tapes and some uploaders leave it
                        break
                    member = zlib.decompressobj(_GZIP_OR_ZLIB_HEADER)
                try:
                    piece = member.decompress(data, BLOCK)
                except zlib.error:
                    self._hurt("its gzip data is damaged here", _AGAIN)
                    return
                data = member.unused_data if member.eof else member.unconsumed_tail
                given += len(piece)
                if given > self._limits.most or given > max(self._limits.free, taken * self._limits.ratio):
                    self._hurt(
                        f"it unpacks to over {given >> 20} MiB from {max(1, taken >> 10)} KiB, as a zip bomb does",
                        "unpack it yourself if you trust it, and give the plain file",
                    )
                    return
                if piece:
                    yield piece
        if not member.eof:
            self._hurt("its gzip data ends too early", _AGAIN)

    def _decode(self, blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
        if encoding == "utf-8":
            yield from blocks
            return
        # Lone surrogates pass, to fail as one bad row later instead of ending the file here.
        decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        try:
            for block in blocks:
                if text := decoder.decode(block):
                    yield text.encode("utf-8", "surrogatepass")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
            self._hurt(f"its {encoding[:-3].upper()} text is damaged or ends too early here", _AGAIN)


def damaged(plain_damage: tuple[str, str], row: int, field: str | None = None) -> Skipped:
    """Return the skipped row that stands for everything after the damage."""
    reason, remedy = plain_damage
    return Skipped(row=row, field=field, reason=f"{reason}; all rows after this point are missing", remedy=remedy)


def _prime(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return enough first bytes to know a byte order mark, and the same blocks from the start."""
    start = b""
    for block in blocks:
        start += block
        if len(start) >= _LONGEST_BOM:
            break
    return start, chain((start,) if start else (), blocks)


def _without(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    yield next(blocks)[count:]
    yield from blocks


def _unmarked(start: bytes) -> str:
    """Tell UTF-16 without a mark by the NULs between its first two characters (reports start in ASCII)."""
    if len(start) >= _LONGEST_BOM:
        empty = tuple(byte == 0 for byte in start[:_LONGEST_BOM])
        if empty == (False, True, False, True):
            return "utf-16-le"
        if empty == (True, False, True, False):
            return "utf-16-be"
    return "utf-8"
