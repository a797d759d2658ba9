"""The documentation as a site: it builds strictly, holds every page, and asks nobody anything when it is read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = {"providers", "playbooks", "adr"}
"""Folders whose index is in the navigation, and whose pages the index lists."""


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False, timeout=120)


def copy(folder: Path) -> Path:
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy(tmp_path_factory.mktemp("site"))
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


def test_every_page_is_there(site: Path) -> None:
    pages = {p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")}
    wanted = {p.with_name("index.html") if p.stem == "README" else p.with_suffix(".html") for p in pages}
    assert {w for w in wanted if not (site / w).is_file()} == set()
    assert (site / "schemas" / "json-v1.schema.json").is_file()
    assert list(site.rglob("*.py")) == []


def test_every_page_can_be_reached() -> None:
    named = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text("utf-8")))
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs")
        if name.parts[0] in GENERATED and len(name.parts) == 2 and page.stem != "README":
            index = ROOT / "docs" / ("decisions.md" if name.parts[0] == "adr" else f"{name.parts[0]}/README.md")
            assert name.name in index.read_text("utf-8"), name
        else:
            assert str(name) in named, f"{name} is not in the navigation of zensical.toml"


class Fetched(HTMLParser):
    """What a browser would fetch for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "video", "audio"}:
            self.found.append(held.get("src") or "")
        if tag == "link" and held.get("rel") not in {"canonical", "prev", "next", "alternate"}:
            self.found.append(held.get("href") or "")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        parser = Fetched()
        parser.feed(page.read_text("utf-8"))
        assert [f for f in parser.found if "//" in f] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//", style.read_text("utf-8")) == [], style.name


@pytest.mark.parametrize("link", ["nowhere.md", "cli.md#nothing-of-the-sort"])
def test_a_broken_link_is_a_failure(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "cli.md", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(f"# Lapse\n\n[this]({link})\n")
    text = (ROOT / "zensical.toml").read_text("utf-8")
    (tmp_path / "zensical.toml").write_text(re.sub(r"^nav = \[.*?^\]", "", text, flags=re.DOTALL | re.MULTILINE))
    assert build(tmp_path).returncode != 0
