"""A console on a made-up ledger whose every text is hostile, and a browser of a sort for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from presence import lacking
from web_made import SEALING, Browser, house_on, served
from web_tab import CHROMIUM, FLAGS

from lapse.web.app import application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser as Chromium

    from lapse.web.house import House

sys.path.insert(0, str(Path(__file__).parents[1] / "lapse"))  # `desk`: the command line in its own process


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to make a console in, with the environment that its configuration refers to."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LAPSE_TEST_SEAL", SEALING)
    monkeypatch.setenv("LAPSE_TEST_HOOK", "hook" * 8)
    return tmp_path


@pytest.fixture
def house(around: Path) -> Iterator[House]:
    """Make a console's parts, on a ledger in a file."""
    with house_on(str(around / "ledger.db"), around) as made:
        yield made


@pytest.fixture
def browser(house: House) -> Iterator[Browser]:
    """Make a browser that is not logged in."""
    with Browser(application(house), house) as made:
        yield made


@pytest.fixture(scope="module")  # no longer: Playwright's loop would be in the way of asynchronous tests
def chromium() -> Iterator[Chromium]:
    """Start Chromium once a file."""
    if not Path(CHROMIUM).exists():
        lacking("chromium is not installed")
    from playwright.sync_api import sync_playwright  # only where there is a browser

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def address(house: House) -> Iterator[str]:
    """Serve the console on a port of its own."""
    with served(house) as made:
        yield made
