"""kill -9 at random instants, on SQLite and on PostgreSQL, of every shipped playbook in its own world.

A sample in every run; `LAPSE_CHAOS=1` (`make chaos`) goes on to 200 kills of each playbook on each engine, and keeps
the figures in `build/chaos.json`.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from chaos_campaign import Campaign, Figures
from chaos_figures import keep, read, table
from chaos_worlds import WORLDS

from playbooks.specfile import library

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("LAPSE_CHAOS_KILLS", "200"))
WHOLE = os.environ.get("LAPSE_CHAOS") == "1"
SAMPLE = [("small-world", "sqlite"), ("vault-token", "sqlite"), ("postgres-password", "postgresql")]
ALL = [(playbook, engine) for playbook in WORLDS for engine in ("sqlite", "postgresql")]


def test_every_shipped_playbook_has_a_world() -> None:
    assert set(library()) == set(WORLDS) - {"small-world"}
    for name, book in library().items():
        assert {WORLDS[name].kind, "*"} & set(book.kinds), name


def test_figures_are_kept_and_told(tmp_path: Path) -> None:
    keep(Figures("vault-token", "sqlite", 201, 190, 40, 9, 61.04, ["r-1: lost"], Counter({"create note": 3})), tmp_path)
    keep(Figures("vault-token", "postgresql", 200, 180, 41, 8, 70.0), tmp_path)
    rows = read(tmp_path)
    assert rows[1]["where"] == {"create note": 3}
    assert table(rows)[-2].split() == ["all", "401", "370", "81", "17", "1", "131"]
    assert table(rows)[-1] == "vault-token on sqlite: r-1: lost"


@pytest.mark.chaos
@pytest.mark.parametrize(("playbook", "engine"), ALL if WHOLE else SAMPLE)
def test_killed_again_and_again(playbook: str, engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    world = WORLDS[playbook]
    servers = {name: request.getfixturevalue(name) for name in world.needs}
    url = request.getfixturevalue("engine_database") if engine == "postgresql" else ""
    campaign = Campaign(world(servers, tmp_path), tmp_path, url)
    if WHOLE:
        figures = campaign.run(KILLS)
        keep(figures)
    else:
        figures = campaign.run(2, 2, measure=False)
    _held(figures, KILLS if WHOLE else 1)


def _held(figures: Figures, kills: int) -> None:
    assert figures.failures == []
    assert figures.kills >= kills
    assert figures.resumes >= figures.kills - figures.where["nothing yet"] - figures.runs
