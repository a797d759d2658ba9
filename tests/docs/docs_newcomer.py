"""Somebody who has only the page "Your first incident" and a browser: the steps of its third part, as written there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def kill_a_key(link: str) -> str:
    """Do it; return what the run's page says in the end, or `` where there is no browser."""
    if not Path(CHROMIUM).exists():
        if os.environ.get("LAPSE_REQUIRE_SERVERS") == "1":
            pytest.fail("chromium is not installed, and LAPSE_REQUIRE_SERVERS=1 asks for it")
        return ""
    from playwright.sync_api import sync_playwright  # only where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(link)
        try:
            return _steps(page)
        finally:
            browser.close()


def _steps(page: Page) -> str:
    assert "Removed from source, never revoked" in page.inner_text("main")
    page.keyboard.press("/")
    page.wait_for_url("**/keys")
    page.keyboard.press("/")
    page.keyboard.type("release-bot")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=release-bot*")
    (key,) = page.locator("table.keys tbody tr").all()
    key.locator("a").first.click()
    page.get_by_role("link", name="Replace this key").click()
    page.wait_for_url("**/rotate")
    short = page.inner_text("h1 code")
    page.get_by_label(f"Type {short} to start").fill(short)
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/r-*")
    run = page.url.rpartition("/")[2]
    page.get_by_label(f"Type {run} to agree").fill(run)
    page.get_by_role("button", name="Approve").click()
    page.wait_for_selector("text=is replaced where it had to be, and proven dead")
    return page.inner_text("main")
