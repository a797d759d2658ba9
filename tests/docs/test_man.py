"""The manual pages: one a verb, without a mistake that `mandoc` or `groff` would find, whole, and in the wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from presence import lacking

from lapse.cli import app
from lapse.exits import Exit

ROOT = Path(__file__).parents[2]
MAN = ROOT / "docs" / "man"
PAGES = sorted(p.name for p in MAN.glob("*.1"))
CLI: Any = typer.main.get_command(app)
_LINTERS = ("mandoc", "groff")


@pytest.fixture
def linter() -> None:
    if not any(map(shutil.which, _LINTERS)):
        lacking("neither mandoc nor groff is installed")


def test_every_verb_has_a_page_and_no_other() -> None:
    verbs = {f"lapse-{name}.1" for name, command in CLI.commands.items() if not command.hidden}
    assert set(PAGES) == {"lapse.1", *verbs}


@pytest.mark.usefixtures("linter")
@pytest.mark.parametrize("page", PAGES)
def test_no_page_has_a_mistake(page: str) -> None:
    assert complaints((MAN / page).read_text("utf-8")) == []


@pytest.mark.usefixtures("linter")
def test_a_mistake_is_found() -> None:
    text = (MAN / "lapse.1").read_text("utf-8")
    assert complaints(text.replace(".El", ".Ed", 1)) != []


def complaints(text: str) -> list[str]:
    """Return what the stricter of the two that are there finds."""
    mandoc, groff = ["mandoc", "-T", "lint", "-W", "style"], ["groff", "-ww", "-mandoc", "-z"]
    command = mandoc if shutil.which("mandoc") else groff
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    return [s for s in said if "referenced manual not found" not in s]  # they are installed together, later


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_its_sections_options_and_exit_codes(page: str) -> None:
    text = (MAN / page).read_text("utf-8")
    heads = re.findall(r"^\.Sh (.+)$", text, re.MULTILINE)
    assert heads[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert {"OPTIONS", "EXIT STATUS"} <= set(heads)
    assert {int(n) for n in re.findall(r"^\.It (\d+)$", text, re.MULTILINE)} == {int(e) for e in Exit}
    assert text.isascii()
    if page != "lapse.1":
        command = CLI.commands[page.removeprefix("lapse-").removesuffix(".1")]
        for one in (command, *getattr(command, "commands", {}).values()):
            for param in one.params:
                for flag in param.opts if param.param_type_name == "option" else ():
                    assert "Fl " + flag[1:].replace("-", r"\-") in text, f"{page}: {flag}"


def test_the_wheel_carries_them() -> None:
    target = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert target.get("shared-data", {}).get("docs/man") == "share/man/man1"
