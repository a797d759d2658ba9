"""What docs/evidence.md tells an auditor to type works, with other people's tools, and fails on a changed file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evidence_made import Office, made
from presence import lacking

from lapse.evidence.signing import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs/evidence.md").read_text()


def recipe(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bytes, str]]:
    with made(tmp_path_factory.mktemp("recipes")) as ledger:
        office = Office.at(ledger, path='ü "\\{}\u007f\u2028 body.env')
        office.rotate()
        yield office.json(), fingerprint(bytes.fromhex(ledger.head().public_key))


def _python(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "check.py").write_text(recipe("python"))
    return subprocess.run(
        [sys.executable, "check.py", "evidence.json"], cwd=folder, text=True, capture_output=True, check=False
    )


def _shell(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-ec", recipe("sh")], cwd=folder, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("tool", [_python, _shell], ids=["python", "openssl"])
def test_stock_tools_check_a_file(tool: object, told: tuple[bytes, str], tmp_path: Path) -> None:
    if tool is _shell and shutil.which("openssl") is None:
        lacking("openssl is not installed")
    assert callable(tool)
    data, ours = told
    (tmp_path / "evidence.json").write_bytes(data)
    done = tool(tmp_path)
    assert done.returncode == 0, done.stderr
    assert ours in done.stdout
    changed = data.replace(b'"who":"ann"', b'"who":"eve"')
    assert changed != data
    (tmp_path / "evidence.json").write_bytes(changed)
    assert tool(tmp_path).returncode != 0


def test_recipes_are_short() -> None:
    assert [len(recipe(language).splitlines()) <= 10 for language in ("python", "sh")] == [True, True]
