"""Who gets in, who may do what, and what a page elsewhere can make a browser do here: nothing."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request
from starlette.routing import Route
from web_made import RUN, Browser, name_of

from lapse.commands.serve import _check
from lapse.config import load
from lapse.exits import Stop
from lapse.web.access import ATTEMPTS, COOKIE, LINK_SECONDS, Limit, Links, Sessions, Tokens
from lapse.web.app import application
from lapse.web.guard import client_of
from lapse.web.settings import Role, ServeConfig

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.web.house import House


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _routes(house: House, method: str) -> list[str]:
    filled = {"{key}": name_of(0), "{run}": RUN, "{verb}": "approve", "{sender}": "nobody"}
    found = []
    for route in application(house).routes:
        if isinstance(route, Route) and method in (route.methods or set()):
            path = route.path
            for name, value in filled.items():
                path = path.replace(name, value)
            found.append(path)
    return found


def test_without_a_log_in_nothing_is_shown(browser: Browser, house: House) -> None:
    paths = [p for p in _routes(house, "GET") if not p.startswith(("/login", "/healthz"))]
    assert len(paths) > 12
    for path in paths:
        reply = browser.get(path)
        assert reply.status_code == (401 if path.startswith(("/api/", "/metrics")) else 303), path
        assert "openai-" not in reply.text
    for path in _routes(house, "POST"):
        open_, program = path.startswith("/hooks/"), path.startswith("/api/")
        assert browser.post(path).status_code == (404 if open_ else 401 if program else 303), path


def test_every_form_takes_its_token(browser: Browser, house: House) -> None:
    browser.log_in()
    paths = [p for p in _routes(house, "POST") if not p.startswith(("/hooks/", "/api/"))]
    assert len(paths) >= 5
    before = house.seq()
    for path in paths:
        for fields in ({}, {"csrf": ""}, {"csrf": "x" * 43}):
            assert browser.post(path, data={**fields, "confirm": RUN}).status_code == 403, path
    assert house.seq() == before


def test_a_form_from_elsewhere_is_refused_even_with_its_token(browser: Browser) -> None:
    browser.log_in()
    token = browser.csrf()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert browser.post("/audit/check", data={"csrf": token}, headers=headers).status_code == 403


def test_a_token_of_another_session_is_refused(browser: Browser, house: House) -> None:
    other = house.sessions.begin("eve", Role.ADMIN)[0].csrf
    assert browser.log_in().post("/audit/check", data={"csrf": other}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:8017", "10.0.0.1:8017"])
def test_only_our_own_names_are_served(browser: Browser, host: str) -> None:
    assert browser.get("/login", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8017", "localhost:9", "[::1]:8017", "LOCALHOST"])
def test_names_of_this_machine_are_served(browser: Browser, host: str) -> None:
    assert browser.get("/login", headers={"Host": host}).status_code == 200


def test_every_reply_forbids_what_a_page_does_not_need(browser: Browser) -> None:
    browser.log_in()
    for path in ("/", "/login", "/keys/none", "/static/app.js", "/api/v1/status", "/nowhere"):
        headers = browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"


def test_the_cookie_is_for_this_site_and_no_script(browser: Browser, house: House) -> None:
    reply = browser.get(f"/login?t={house.links.make('ann', Role.VIEWER)}")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie


def test_a_link_works_once(browser: Browser, house: House) -> None:
    token = house.links.make("ann", Role.VIEWER)
    assert browser.get(f"/login?t={token}").status_code == 303
    assert browser.get(f"/login?t={token}").status_code == 403


def test_guessing_links_is_slow(browser: Browser, house: House) -> None:
    for _ in range(ATTEMPTS):
        assert browser.get("/login?t=guess").status_code == 403
    assert browser.get(f"/login?t={house.links.make('ann', Role.VIEWER)}").status_code == 429


def test_a_link_grows_old() -> None:
    clock = Clock()
    links = Links(clock)
    token = links.make("ann", Role.VIEWER)
    clock.now = LINK_SECONDS + 1
    assert links.take(token) is None


def test_a_session_ends_by_age_idleness_and_log_out() -> None:
    clock = Clock()
    sessions = Sessions(100, 10, clock)
    person, cookie = sessions.begin("ann", Role.VIEWER)
    for clock.now in range(0, 100, 9):
        assert sessions.find(cookie)
    clock.now = 101
    assert sessions.find(cookie) is None
    person, cookie = sessions.begin("ann", Role.VIEWER)
    clock.now = 112
    assert sessions.find(cookie) is None
    person, cookie = sessions.begin("ann", Role.VIEWER)
    sessions.end(person)
    assert sessions.find(cookie) is None


def test_a_forged_cookie_is_nobody(browser: Browser) -> None:
    browser.log_in()
    cookie = browser.cookies[COOKIE]
    session, _, signature = cookie.partition(".")
    for forged in (session, f"{session}.", f"{session}.{'0' * 64}", f"x{session}.{signature}", "ä.ö"):
        browser.cookies.clear()
        assert browser.get("/", headers={"Cookie": f"{COOKIE}={forged}".encode()}).status_code == 303


def test_logging_out_ends_it(browser: Browser) -> None:
    browser.log_in()
    assert browser.submit("/logout").headers["location"] == "/login"
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize(
    ("role", "verb", "allowed"),
    [
        (Role.VIEWER, "resume", False),
        (Role.RESPONDER, "resume", True),
        (Role.RESPONDER, "approve", False),
        (Role.APPROVER, "approve", True),
        (Role.RESPONDER, "undo", False),
        (Role.RESPONDER, "decline", False),
        (Role.RESPONDER, "withdraw", False),
    ],
)
def test_roles(browser: Browser, role: Role, verb: str, *, allowed: bool) -> None:
    browser.log_in(role)
    code = browser.submit(f"/runs/{RUN}/{verb}", confirm=RUN, step="disable").status_code
    assert code == (303 if allowed else 403)


def test_a_form_has_a_size(browser: Browser) -> None:
    browser.log_in()
    assert browser.submit("/audit/check", more="x" * 70_000).status_code == 413


@pytest.mark.parametrize(
    ("peer", "named", "told"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("::1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the proxy's own word is the last one
        ("127.0.0.1", "", "127.0.0.1"),
        ("203.0.113.9", "203.0.113.7", "203.0.113.9"),  # from elsewhere anybody could name anything
    ],
)
def test_behind_a_proxy_of_this_machine_everybody_has_a_limit_of_their_own(peer: str, named: str, told: str) -> None:
    headers = [(b"x-forwarded-for", named.encode())] if named else []
    assert client_of(Request({"type": "http", "client": (peer, 4711), "headers": headers})) == told


def test_the_limit_counts_by_address() -> None:
    clock = Clock()
    limit = Limit(2, 60, clock)
    assert [limit.passes("a"), limit.passes("a"), limit.passes("a"), limit.passes("b")] == [True, True, False, True]
    clock.now = 61
    assert limit.passes("a")


def test_tokens_are_kept_as_hashes_and_end_when_revoked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "t" / "tokens.json")
    token = tokens.add("ci", "viewer")
    text = (tmp_path / "t" / "tokens.json").read_text()
    assert token not in text
    assert token.removeprefix("lapse_") not in text
    assert stat.S_IMODE((tmp_path / "t" / "tokens.json").stat().st_mode) == 0o600
    found = Tokens(tmp_path / "t" / "tokens.json").find(token)
    assert found is not None
    assert found.role is Role.VIEWER
    assert tokens.find(token + "x") is None
    assert tokens.revoke("ci")
    assert tokens.find(token) is None
    assert not tokens.revoke("ci")
    for odd in (b"[{", b'[{"name": "\xf1"}]'):
        tokens._path.write_bytes(odd)
        with pytest.raises(Stop, match="no file of tokens; restore it"):
            tokens.all()


def test_others_are_served_only_with_their_names_told() -> None:
    _check(ServeConfig(), "127.0.0.1")
    _check(ServeConfig(), "::1")
    with pytest.raises(Stop, match=r"serve\.oidc"):
        _check(ServeConfig(), "0.0.0.0")  # noqa: S104  # what is refused


def test_secrets_of_hooks_and_oidc_are_references(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[serve.hooks]\ngithub = "hunter2"\n')
    with pytest.raises(Stop, match="reference"):
        load(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text('[serve.oidc]\nissuer = "https://x"\n')
    with pytest.raises(Stop, match="client_id"):
        load(tmp_path / "c.toml")
