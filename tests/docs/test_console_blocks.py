"""Every command that the documentation shows is run, page by page, and does what the page says."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import docs_newcomer
import docs_world
import pytest
from docs_player import Player
from docs_session import Block, Command, Session, blocks
from presence import lacking

sys.path.insert(0, str(Path(__file__).parents[1] / "lapse"))
from desk import simulator

from verifier.model import Doubt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.sandbox.saas import Saas

ROOT = Path(__file__).parents[2]
PAGES = {
    str(p.relative_to(ROOT)): blocks(p.read_text("utf-8"))
    for p in (*ROOT.glob("docs/**/*.md"), *(ROOT / n for n in ("README.md", "CONTRIBUTING.md", "SECURITY.md")))
}
CODE = ("lapse", "playbooks", "rotators", "verifier")
WHY = frozenset(Doubt)
NEEDS, STAYS = "Needs ", "Leave this running"
"""How the title of a block begins that cannot run here (the rest says what it needs); and the title of one that stays
up until the page is through."""


def consoles(page: str) -> list[Block]:
    return [b for b in PAGES[page] if b.language == "console"]


PLAYED = sorted(p for p in PAGES if any(not b.title.startswith(NEEDS) for b in consoles(p)))


@pytest.fixture(scope="module")
def saas() -> Iterator[Saas]:
    with simulator() as made:
        yield made


@pytest.mark.parametrize("page", PLAYED)
def test_a_page_does_what_it_says(page: str, saas: Saas, tmp_path: Path) -> None:
    if shutil.which("curl") is None and any("curl " in b.text for b in consoles(page)):
        lacking("curl is not installed")
    with Player(tmp_path, docs_world.build(tmp_path, saas)) as player:
        session = Session(page)
        for block in PAGES[page]:
            if block.title == STAYS:
                said = player.leave_running(session, block)
                link = re.search(r"http://127\.0\.0\.1:\d+/login\?t=\S+", said)
                if link and page == "docs/first-incident.md":
                    assert "proven dead" in (docs_newcomer.kill_a_key(link[0]) or "proven dead")
            elif block.language == "console" and not block.title.startswith(NEEDS):
                for command in block.commands():
                    session.compare(command, *player.run(session.typed(command)))
            elif block.title.endswith((".toml", ".json", ".jsonl")):
                text = docs_world.beneath(block.text, saas) if block.title == "lapse.toml" else block.text
                (tmp_path / block.title).write_text(text, "utf-8")


def test_what_cannot_run_here_says_what_it_needs() -> None:
    """A list to read: it grows only by somebody's hand."""
    waits = [(page, block.title) for page in PAGES for block in consoles(page) if block.title.startswith(NEEDS)]
    assert [w for w in waits if len(w[1].split()) < 3] == []
    assert len(waits) <= 12, waits
    ran = sum(len(b.commands()) for page in PLAYED for b in consoles(page) if not b.title.startswith(NEEDS))
    assert ran >= 30


def test_every_prompt_is_in_a_console_block() -> None:
    """What looks like a command but is none would not be run."""
    stray = [
        (page, block.line)
        for page, found in PAGES.items()
        for block in found
        if block.language != "console" and any(line.startswith("$ ") for line in block.text.splitlines())
    ]
    assert stray == []


PAGE = """
```console
$ lapse verify   # exit code 10
KEY  VERDICT
aws-111111  live  at 127.0.0.1:80
aws-222222  dead  …
```
```console title="Needs a cloud"
$ lapse rotate aws-111111 --apply
```
"""
SAID = "KEY     VERDICT\naws-aaaaaa  live   at 127.0.0.1:4711\naws-bbbbbb  dead  revoked\n"


def _session() -> tuple[Session, Command]:
    first, second = blocks(PAGE)
    assert second.title == "Needs a cloud"
    return Session("page.md"), first.commands()[0]


def test_ids_of_the_page_stand_for_those_of_the_run() -> None:
    session, command = _session()
    session.compare(command, 10, SAID)
    assert session.bound == {"aws-111111": "aws-aaaaaa", "aws-222222": "aws-bbbbbb"}
    assert session.typed(blocks(PAGE)[1].commands()[0]) == "lapse rotate aws-aaaaaa --apply"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, SAID),
        (10, SAID.replace("dead", "live")),
        (10, SAID.replace("aws-bbbbbb  dead  revoked\n", "")),
        (10, SAID.replace("aws-bbbbbb", "aws-aaaaaa")),
        (10, SAID.replace("aws-bbbbbb", "gcp-bbbbbb")),
        (10, ""),
    ],
)
def test_what_a_page_does_not_say_is_found_out(code: int, said: str) -> None:
    session, command = _session()
    with pytest.raises(AssertionError, match=r"page\.md:3"):
        session.compare(command, code, said)


def test_an_id_that_nothing_showed_cannot_be_used() -> None:
    with pytest.raises(AssertionError, match="before any output shows it"):
        Session("page.md").typed(blocks(PAGE)[1].commands()[0])


def test_the_sentences_of_the_troubleshooting_page_are_said() -> None:
    """Each piece between two `…` stands in the code, whatever is put into the gaps."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    said = [s for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for s in re.findall(r"`([^`]+)`", row)]
    said += re.findall(r"^- `([^`]+)`", text, re.MULTILINE)
    code = "".join(p.read_text("utf-8") for folder in CODE for p in (ROOT / folder).rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code).replace("`", "")
    assert len(said) > 20
    missing = [
        s for s in said for piece in s.split("…") if (p := piece.strip(" ;,")) and p not in code and p not in WHY
    ]
    assert missing == []
