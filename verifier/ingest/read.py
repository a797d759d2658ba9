"""Opens one report, whatever it is, and yields its claims."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from verifier.ingest.catalogue import named, sniffed
from verifier.ingest.interface import UnreadableReport
from verifier.ingest.plain import HEAD, Plain
from verifier.model import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from verifier.ingest.interface import Format
    from verifier.ingest.plain import Limits
    from verifier.model import Claim

STDIN = "-"
_PACKED = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd"),
    (b"\xfd7zXZ\x00", "packed with xz"),
    (b"BZh", "packed with bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
)
_TAR_MARK = slice(257, 262)


class Report:
    """One open report: iterate it once for `Claim | Skipped`; close it, or use it in a `with` statement.

    `findings` and `skipped` count as it goes. `complete` is the answer, after the iteration, to: may what this report
    lacks be taken as gone? Only when it was read to its end, no row was skipped, and it does not say otherwise itself.
    """

    def __init__(self, format_: Format, plain: Plain) -> None:
        """Take the format and the open source."""
        self.format = format_
        self.file = plain.name
        self.findings = 0
        self.skipped = 0
        self._plain = plain
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether the report was read to its end without a loss and claims to hold the whole scan."""
        return self._ended and self._plain.whole and not self.skipped

    def __iter__(self) -> Iterator[Claim | Skipped]:
        """Yield the rows, once, and close the file at the end."""
        try:
            for item in self.format.parse(self._plain):
                if isinstance(item, Skipped):
                    self.skipped += 1
                else:
                    self.findings += 1
                yield item
            self._ended = True
        finally:
            self.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; harmless twice."""
        self._plain.close()


def read(file: str | Path, as_format: str | None = None, *, limits: Limits | None = None) -> Report:
    """Open a report (`-` is stdin) and find out its format, unless `as_format` names it.

    Raises `UnreadableReport`, whose text is one sentence for people, when nothing can be read: no such file, a
    directory, no permission, an archive, an empty file, an unknown or ambiguous format.
    """
    name = str(file)
    format_ = named(as_format, name) if as_format else None
    plain = Plain(name, _open(name), limits)
    try:
        return Report(format_ or _fitting(plain), plain)
    except BaseException:
        plain.close()
        raise


def _open(name: str) -> BinaryIO:
    if name == STDIN:
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except FileNotFoundError:
        raise UnreadableReport(name, "there is no such file", "check the path") from None
    except IsADirectoryError:
        raise UnreadableReport(name, "it is a directory", "name the report files in it") from None
    except PermissionError:
        raise UnreadableReport(name, "you may not read it", "change its permissions or run as its owner") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise UnreadableReport(name, f"it cannot be opened ({reason})", "check the path") from None


def _fitting(plain: Plain) -> Format:
    head = plain.head
    for mark, words in _PACKED:
        if head.startswith(mark):
            raise UnreadableReport(plain.name, f"it is {words}", "unpack it first, or pack it with gzip")
    if head[_TAR_MARK] == b"ustar":
        remedy = "scan it with a scanner first and give the report; --source takes the archive itself"
        raise UnreadableReport(plain.name, "it is a tar archive, not a report", remedy)
    if len(head) < HEAD and not head.strip(b" \t\r\n\0"):
        if plain.damage:
            raise UnreadableReport(plain.name, *plain.damage)
        remedy = "if the scan found nothing, name its format with --as FORMAT; else run the scan again"
        raise UnreadableReport(plain.name, "it is empty", remedy)
    return sniffed(head, plain.name)
