"""A tab of a real browser, and how Chromium is started for tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "build" / "screens"
AXE = ROOT / "build" / "axe"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def lacking(what: str) -> NoReturn:
    """Skip, or fail where everything is asked for."""
    if os.environ.get("LAPSE_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{what}, and LAPSE_REQUIRE_SERVERS=1 asks for it")
    pytest.skip(f"{what}; install it to run this test")


class Tab:
    """One tab; what its console complained of is kept."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("dialog", lambda d: (self.complaints.append("dialog"), d.dismiss()))

    def open(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page
