"""Every command that the documentation shows is run, page by page, and does what the page says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import docs_world
import pytest
from docs_session import Block, Session, Zygote, blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "lapse"))
from desk import simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.sandbox.saas import Saas

ROOT = Path(__file__).parents[2]
PAGES = {
    str(p.relative_to(ROOT)): blocks(p.read_text("utf-8"))
    for p in (*ROOT.glob("docs/**/*.md"), *(ROOT / n for n in ("README.md", "CONTRIBUTING.md", "SECURITY.md")))
}
NEEDS, STAYS = "Needs ", "Leave this running"
"""How the title of a block begins that cannot run here (the rest says what it needs); and the title of one that stays
up until the page is through."""


def consoles(page: str) -> list[Block]:
    return [b for b in PAGES[page] if b.language == "console"]


PLAYED = sorted(p for p in PAGES if any(not b.title.startswith(NEEDS) for b in consoles(p)))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


@pytest.fixture(scope="module")
def saas() -> Iterator[Saas]:
    with simulator() as made:
        yield made


@pytest.mark.parametrize("page", PLAYED)
def test_a_page_does_what_it_says(page: str, zygote: Zygote, saas: Saas, tmp_path: Path) -> None:
    env = docs_world.build(tmp_path, saas)
    session = Session(page)
    for block in PAGES[page]:
        if block.language == "console" and not block.title.startswith((NEEDS, STAYS)):
            for command in block.commands():
                code, said = run(session.typed(command), tmp_path, env, zygote)
                session.compare(command, code, said)
        elif block.title.endswith((".toml", ".json", ".jsonl")):
            text = docs_world.beneath(block.text, saas) if block.title == "lapse.toml" else block.text
            (tmp_path / block.title).write_text(text, "utf-8")


def run(typed: str, folder: Path, env: dict[str, str], zygote: Zygote) -> tuple[int, str]:
    """Run a line as a shell would; what is `lapse` alone is forked, which is quicker."""
    if typed.startswith("lapse ") and not set("|;&><$*`") & set(typed):
        return zygote.run(shlex.split(typed)[1:], folder, env)
    done = subprocess.run(
        ["bash", "-c", typed], cwd=folder, env=env, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout
