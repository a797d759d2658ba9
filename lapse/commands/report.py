"""`lapse report -o FILE`: every key with places and verdict."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import Select
from lapse.output import listing
from lapse.output.console import say

if TYPE_CHECKING:
    from typing import TextIO

    from lapse.ledger import Ledger

ENDINGS = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".sarif": "sarif"}


def run(output: str, shape: str | None, config: Path | None) -> Exit:
    """Write the report whole or not at all; the format is told by `--format` or by the file's ending."""
    shape = shape or ("json" if output == "-" else ENDINGS.get(Path(output).suffix))
    if shape is None:
        raise Stop(f"{output}: say which format with --format, or end the name in {' '.join(ENDINGS)}", Exit.USAGE)
    with Setup.of(config).ledger() as ledger:
        if output == "-":
            _write(ledger, shape, sys.stdout)
            return Exit.OK
        target = Path(output)
        write_file(ledger, target, shape)
    say(f"wrote {target}")
    return Exit.OK


def write_file(ledger: Ledger, target: Path, shape: str) -> None:
    """Write the report whole or not at all."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8", newline="") as out:
            _write(ledger, shape, out)
        part.replace(target)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink()
        raise Stop(f"cannot write {target}: {e.strerror}") from None


def _write(ledger: Ledger, shape: str, out: TextIO) -> None:
    if shape == "jsonl":
        listing.lines(ledger, Select(), out)
    else:
        listing.write(ledger, Select(), shape, out)
