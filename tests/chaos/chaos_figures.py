"""Keeps what campaigns came to under `build/`, and tells it as a table: run by itself, it prints all there are."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chaos_campaign import Figures

BUILD = Path(__file__).parents[2] / "build"
_HEAD = ("playbook", "engine", "kills", "resumes", "runs", "undone", "failures", "seconds")
_TEXTS = 2


def keep(figures: Figures, build: Path = BUILD) -> None:
    """Write one campaign's figures, and all there are together to `build/chaos.json`."""
    folder = build / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    found = {**vars(figures), "seconds": round(figures.seconds, 1), "where": dict(figures.where.most_common())}
    found["at"] = datetime.now(UTC).isoformat(timespec="seconds")
    (folder / f"{figures.playbook}-{figures.engine}.json").write_text(json.dumps(found, indent=1))
    (build / "chaos.json").write_text(json.dumps(read(build), indent=1))


def read(build: Path = BUILD) -> list[dict[str, Any]]:
    """Return the kept figures, by playbook and engine."""
    return [json.loads(p.read_text()) for p in sorted((build / "chaos").glob("*.json"))]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return figures as lines, with a sum, and every failure below."""
    cells = [[_shown(row, name) for name in _HEAD] for row in rows]
    sums = [str(sum(int(line[i]) for line in cells)) for i in range(_TEXTS, len(_HEAD))]
    every = [list(_HEAD), *cells, ["all", "", *sums]]
    widths = [max(len(line[i]) for line in every) for i in range(len(_HEAD))]
    lines = [
        "  ".join(c.ljust(w) if i < _TEXTS else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in every
    ]
    return [*lines, *(f"{row['playbook']} on {row['engine']}: {said}" for row in rows for said in row["failures"])]


def _shown(row: dict[str, Any], name: str) -> str:
    value = row[name]
    return str(len(value) if isinstance(value, list) else round(value) if isinstance(value, float) else value)


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(read())) + "\n")
