"""`lapse report -o FILE`: every key with places and verdict; with `--run`, the evidence of one rotation."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import Select
from lapse.output import listing
from lapse.output.console import say
from lapse.output.defectdojo import defectdojo
from lapse.output.markdown import markdown
from lapse.output.ocsf import ocsf

if TYPE_CHECKING:
    from typing import TextIO

    from lapse.ledger import Ledger

ENDINGS = {
    ".html": "html",
    ".md": "markdown",
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".sarif": "sarif",
}
DOUBLE = {".defectdojo.json": "defectdojo", ".ocsf.json": "ocsf", ".ocsf.jsonl": "ocsf"}
"""Endings of formats that are JSON as well."""


class Evidence(Struct, frozen=True):
    """What is asked about one rotation: its evidence (`run`), or whether such a `file` is whole, signed by `key`."""

    run: str | None = None
    file: Path | None = None
    key: str | None = None


def run(output: str, shape: str | None, config: Path | None, evidence: Evidence | None = None) -> Exit:
    """Write the report whole or not at all; the format is told by `--format` or by the file's ending."""
    if evidence is not None and evidence != Evidence():
        return _evidence(output, shape, config, evidence)
    shape = shape or ("json" if output == "-" else shape_of(output))
    if shape is None:
        known = " ".join((*ENDINGS, *DOUBLE))
        raise Stop(f"{output}: say which format with --format, or end the name in {known}", Exit.USAGE)
    with Setup.of(config).ledger() as ledger:
        if output == "-":
            _write(ledger, shape, sys.stdout)
            return Exit.OK
        target = Path(output)
        write_file(ledger, target, shape)
    say(f"wrote {target}")
    return Exit.OK


def _evidence(output: str, shape: str | None, config: Path | None, asked: Evidence) -> Exit:
    from lapse.commands import evidence

    match asked:
        case Evidence(run=str(name), file=None, key=None):
            return evidence.give(name, output, shape, config)
        case Evidence(run=None, file=Path() as file) if output == "-" and shape is None:
            return evidence.verify(file, asked.key)
        case _:
            raise Stop("say --run RUN [-o FILE], or --verify FILE [--public-key KEY], and nothing else", Exit.USAGE)


def shape_of(name: str) -> str | None:
    """Return the format that a file's ending names, None if it names none."""
    double = next((shape for ending, shape in DOUBLE.items() if name.endswith(ending)), None)
    return double or ENDINGS.get(Path(name).suffix)


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
    match shape:
        case "jsonl":
            listing.lines(ledger, Select(), out)
        case "html":
            from lapse.output import html  # Jinja2 is slow to import

            html.write(ledger, out)
        case "markdown":
            out.writelines(markdown(ledger))
        case "defectdojo":
            out.writelines(defectdojo(listing.reports(ledger, Select())))
        case "ocsf":
            out.writelines(ocsf(listing.reports(ledger, Select())))
        case _:
            listing.write(ledger, Select(), shape, out)
