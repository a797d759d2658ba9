"""CSV: one row a key and place, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from lapse.output.console import safe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from lapse.output.jsonv1 import KeyReport

COLUMNS = (
    "key",
    "provider",
    "verdict",
    "known",
    "why",
    "how",
    "confirmed",
    "restricted",
    "owner",
    "principal",
    "account",
    "findings",
    "first_seen",
    "last_live",
    "removed_from_source",
    "source",
    "repository",
    "image",
    "path",
    "line",
    "revision",
)


def write(keys: Iterable[KeyReport], out: TextIO) -> None:
    """Write a header and the rows; a key without a place has one row."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for k in keys:
        who = k.identity
        head: list[object] = [k.key, k.provider, k.verdict, k.known, k.why, k.how, k.confirmed, k.restricted, k.owner]
        head += [who.principal if who else "", who.account if who else "", k.findings, k.first_seen.isoformat()]
        head += [k.last_live.isoformat() if k.last_live else "", k.removed_from_source]
        for p in k.places or (None,):
            tail: list[object] = [p.source, p.repository, p.image, p.path, p.line, p.revision] if p else [""] * 6
            writer.writerow([_cell(x) for x in (*head, *tail)])


def _cell(value: object) -> str:
    """Blunt what a spreadsheet would run: scanner text is hostile."""
    text = "" if value is None else safe(str(value))
    return "'" + text if text[:1] in {"=", "+", "-", "@"} else text
