"""The console in a real browser: by the link in, by keyboard alone through, on every page without a barrier.

Needs Debian's `chromium` and axe-core (npm, fetched into build/). Screenshots go to build/screens/.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from presence import lacking
from web_idp import SECRET, provider_at
from web_made import HOSTILE, RUN, name_of, served
from web_tab import AXE, SCREENS, Tab

from lapse.output import html
from lapse.web.settings import Role
from playbooks.journal import What

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

    from lapse.web.house import House

PAGES = {
    "now": "/", "keys": "/keys", "key": f"/keys/{name_of(0)}",
    "rotate": f"/keys/{name_of(0)}/rotate?set.store.path=ci/openai", "runs": "/runs", "run": f"/runs/{RUN}",
    "funnel": "/funnel", "owners": "/owners", "providers": "/providers", "nightly": "/nightly", "audit": "/audit",
}  # fmt: skip


@pytest.fixture(scope="session")
def axe() -> str:
    """Return axe-core's script; npm fetches it once."""
    script = AXE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        if shutil.which("npm") is None:
            lacking("npm is not installed")
        AXE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--silent", "axe-core@4.14.1"]
        done = subprocess.run(command, cwd=AXE, capture_output=True, check=False, timeout=120)
        if done.returncode or not script.exists():
            lacking("axe-core could not be fetched")
    return script.read_text("utf-8")


def tab(browser: Browser, address: str, house: House, **more: Any) -> Tab:
    page = browser.new_context(**more).new_page()
    page.set_default_timeout(60_000)  # on a machine with much else to do
    made = Tab(page, address)
    made.open(f"/login?t={house.links.make('ann', Role.ADMIN)}")
    assert page.url == f"{address}/"
    return made


def test_no_page_has_a_barrier_or_runs_what_scanners_wrote(
    chromium: Browser, axe: str, address: str, house: House
) -> None:
    house.changes.get(wait=10)
    house.figures.get(wait=10)
    SCREENS.mkdir(parents=True, exist_ok=True)
    wide = tab(chromium, address, house, viewport={"width": 1280, "height": 900}, bypass_csp=True)
    for name, path in PAGES.items():
        wide.open(path)
        looked_at(wide.page, name, axe)
    assert wide.complaints == []
    for path, code in (("/keys/aws-abcdef", 404), ("/keys?group=x", 400)):
        wide.open(path)
        looked_at(wide.page, f"error-{code}", axe)
    wide.page.context.close()


def test_the_organisations_log_in_lets_in_and_no_way_in_has_a_barrier(
    chromium: Browser, axe: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "client-secret")
    with provider_at("localhost") as provider:  # another site than 127.0.0.1: strict cookies do not come along
        house.serve = msgspec.structs.replace(house.serve, oidc=provider.config())
        with served(house) as address:
            made = Tab(chromium.new_context(bypass_csp=True).new_page(), address)
            page = made.open("/keys")
            assert page.url == f"{address}/login"
            looked_at(page, "login", axe)
            page.click("text=Log in with your organisation")
            page.wait_for_url(f"{address}/")
            assert "ann@example.com (approver)" in page.inner_text("header")
            assert made.complaints == []
            page.route("**/welcome", _welcome)
            made.open("/welcome")
            looked_at(page, "welcome", axe)
            page.click("text=Go on")
            page.wait_for_url(f"{address}/")
            provider.lie = {"groups": ["sales"]}
            made.open("/login/oidc")
            assert "None of your groups" in page.inner_text("main")
            looked_at(page, "refused", axe)
            page.context.close()


def _welcome(route: Route) -> None:
    """Serve the page after the log-in without its going on by itself, so that it can be looked at."""
    text = html.environment().get_template("welcome.html").render(person=None, path="/", who="ann@example.com")
    assert 'content="0; url=/"' in text
    route.fulfill(body=text.replace('content="0; url=/"', 'content="99999; url=/"'), content_type="text/html")


def test_the_report_has_no_barrier_and_stands_alone(chromium: Browser, axe: str, house: House, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    with target.open("w", encoding="utf-8") as out:
        html.write(house.ledger, out)
    context = chromium.new_context(offline=True, bypass_csp=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.goto(target.as_uri())
    looked_at(page, "report", axe)
    assert asked == [target.as_uri()]
    page.emulate_media(media="print")
    page.pdf(path=SCREENS / "report.pdf")
    context.close()


def test_narrow_pages_fit_and_obey_their_own_policy(chromium: Browser, address: str, house: House) -> None:
    narrow = tab(chromium, address, house, viewport={"width": 400, "height": 800})
    page = narrow.page

    def fits(name: str) -> None:
        page.screenshot(path=SCREENS / f"{name}-400.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, f"{name} is wider than the window"

    for name, path in PAGES.items():
        narrow.open(path)
        fits(name)
    page.click("text=Log out")
    page.wait_for_url("**/login")
    fits("login")
    assert narrow.complaints == [], "the policy must forbid nothing of ours"
    narrow.page.context.close()


def test_by_keyboard_alone_to_a_key_and_back(chromium: Browser, address: str, house: House) -> None:
    made = tab(chromium, address, house)
    page = made.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    page.wait_for_url("**/keys")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(house.ledger.key(name_of(7)).short)
    page.keyboard.press("Enter")
    page.wait_for_url("**q=openai*")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/keys/{name_of(7)}")
    assert HOSTILE[7] in page.inner_text("main")
    made.page.context.close()


def test_a_filter_acts_at_once(chromium: Browser, address: str, house: House) -> None:
    page = tab(chromium, address, house).open("/keys")
    page.select_option("#group", "removed")
    page.wait_for_url("**group=removed*")
    assert page.locator("table.keys tbody tr").count() == 1
    page.context.close()


def test_an_approval_is_typed_and_the_page_follows_the_run(chromium: Browser, address: str, house: House) -> None:
    page = tab(chromium, address, house).open(f"/runs/{RUN}")
    page.fill("#a-disable", RUN)
    page.press("#a-disable", "Enter")
    page.wait_for_selector("text=Recorded. Nobody goes on with it here")
    house.ledger.rotations.append(RUN, "disable", What.INTENT, "as the worker would")
    page.wait_for_selector("text=under way")
    house.ledger.rotations.append(RUN, "disable", What.DONE, "the old key is disabled")
    page.wait_for_selector("text=the old key is disabled")
    house.ledger.rotations.append(RUN, "", What.ENDED, "all is done", {"how": "finished"})
    page.wait_for_selector("text=proven dead")
    page.context.close()


def test_without_scripts_every_page_is_there(chromium: Browser, address: str, house: House) -> None:
    made = tab(chromium, address, house, java_script_enabled=False)
    for path in PAGES.values():
        assert made.open(path).locator("h1").count() == 1
    page = made.open("/keys")
    page.fill("#q", "no such key")
    page.click("text=Show")
    assert "No key fits" in page.inner_text("main")
    page.context.close()


def looked_at(page: Page, name: str, axe: str) -> None:
    """Keep how a page looks by day and by night, and find no barrier in either."""
    page.evaluate(axe)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=SCREENS / f"{name}-{scheme}.png", full_page=True)
        # By night nothing but colours is another.
        rules = {"resultTypes": ["violations"]} | ({"runOnly": ["color-contrast"]} if scheme == "dark" else {})
        found = page.evaluate("rules => axe.run(document, rules)", rules)["violations"]
        said = [f"{v['id']}: {[n['html'][:160] for n in v['nodes'][:3]]}" for v in found]
        assert said == [], f"{name}, {scheme}"
