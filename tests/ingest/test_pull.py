"""Pulling alerts: a small world of alerts behind a door that checks every request against the true manifest."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from verifier.egress.manifest import Manifest
from verifier.exchange import Admitted, Call, Reply, Request, Trouble
from verifier.ingest.pull import CALLS, GITHUB, GITLAB, github_alerts, gitlab_findings
from verifier.model import Absent, Claim, Claimed, Doubt, Skipped
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CAP = 64 << 10
TOKEN = "ghs_" + "t" * 36


def key(number: int) -> str:
    return "ghp_" + f"{number:036d}"


class World:
    """Alerts, locations and findings served in pages, as GitHub and GitLab do."""

    def __init__(self, alerts: list[Any], places: dict[str, list[Any]] | None = None, base: str | None = None) -> None:
        """Take the rows, the locations by path, and where an own instance is said to be."""
        self.rows = alerts
        self.places = places or {}
        self.base = base
        overrides = {} if base is None else {GITHUB: base, GITLAB: base}
        self.manifest = Manifest(CALLS, overrides)
        self.asked: list[str] = []
        self.cursor = False
        self.before: Callable[[str], Reply | Trouble | None] = lambda _: None

    async def send(self, request: Request) -> Reply | Trouble:
        url = request.url.reveal()
        self.manifest.match(request.call, url)
        assert TOKEN not in request.shown
        assert any(TOKEN in value.reveal() for value in request.headers.values())
        self.asked.append(url)
        if (early := self.before(url)) is not None:
            return early
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        rows = self.places.get(parts.path, []) if parts.path.endswith("/locations") else self.rows
        size = int(query["per_page"])
        start = int(query["after"]) if "after" in query else (int(query.get("page", "1")) - 1) * size
        chunk = rows[start : start + size]
        headers = {"content-type": "application/json"}
        if start + size < len(rows):
            step = f"after={start + size}" if self.cursor else f"page={start // size + 2}"
            # GitHub names repositories by number in its links.
            where = "https://elsewhere.example.org/repositories/1300192/secret-scanning/alerts"
            headers["link"] = f'<{where}?per_page={size}&{step}>; rel="next", <{where}?page=99>; rel="last"'
        body = json.dumps(chunk).encode()
        return Reply(200, headers, body[:CAP], parts.hostname or "", truncated=len(body) > CAP)

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        raise NotImplementedError


def alert(number: int, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "html_url": f"https://github.com/acme/shop/security/secret-scanning/{number}",
        "secret_type": "github_personal_access_token",
        "secret": key(number),
        "validity": "active",
        "first_location_detected": {"path": "a.env", "start_line": number},
        "has_more_locations": False,
        **more,
    }


async def gathered(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def revealed(items: list[Any]) -> list[str]:
    return [item.value.reveal() for item in items if isinstance(item, Claim)]


@pytest.mark.parametrize("cursor", [False, True])
@pytest.mark.parametrize("padding", [0, 3_000, 9_000, 30_000, 60_000])
async def test_github_reads_every_page_once_whatever_its_size(padding: int, cursor: bool) -> None:
    world = World([alert(n, resolution_comment="c" * padding) for n in range(1, 41)])
    world.cursor = cursor
    items = await gathered(github_alerts(world, Secret(TOKEN), "acme", "shop"))
    assert revealed(items) == [key(n) for n in range(1, 41)]
    assert [item.row for item in items] == list(range(1, 41))
    assert all(url.startswith("https://api.github.com/repos/acme/shop/secret-scanning/alerts?") for url in world.asked)


async def test_github_fetches_the_places_of_alerts_that_have_more() -> None:
    path = "/repos/acme/web/secret-scanning/alerts/2/locations"
    spots = [{"type": "commit", "details": {"path": f"{n}.env", "start_line": n}} for n in range(1, 21)]
    more = alert(2, has_more_locations=True, repository={"full_name": "acme/web", "private": True})
    world = World([alert(1), more], {path: [*spots, {"type": 7}]})
    items = await gathered(github_alerts(world, Secret(TOKEN), "acme"))
    assert [item.place.path for item in items] == ["a.env", *(f"{n}.env" for n in range(1, 21))]
    assert items[1].place.repository == "acme/web"
    assert urlsplit(world.asked[0]).path == "/orgs/acme/secret-scanning/alerts"


async def test_github_on_an_own_instance_and_bad_rows() -> None:
    base = "https://ghe.example.org/api/v3"
    world = World([alert(1), {"secret_type": 1}, alert(3, secret=None, validity="inactive")], base=base)
    first, second, third = await gathered(github_alerts(world, Secret(TOKEN), "acme", "shop", base=base))
    assert isinstance(first, Claim)
    assert isinstance(second, Skipped)
    assert second.row == 2
    assert isinstance(third, Claim)
    assert (third.value, third.claimed) == (Absent(), Claimed.DEAD)
    assert world.asked[0].startswith(base + "/repos/acme/shop/")


async def test_an_entry_over_the_cap_is_skipped_and_the_rest_kept() -> None:
    world = World([alert(1), alert(2, resolution_comment="c" * CAP), alert(3)])
    items = await gathered(github_alerts(world, Secret(TOKEN), "acme", "shop"))
    assert revealed(items) == [key(1), key(3)]
    assert [type(item) for item in items] == [Claim, Skipped, Claim]


@pytest.mark.parametrize(
    ("reply", "why", "word"),
    [
        (Reply(401, {}, b"", "h"), Doubt.REFUSED, "token"),
        (Reply(403, {}, b"", "h"), Doubt.REFUSED, "security_events"),
        (Reply(403, {"x-ratelimit-remaining": "0"}, b"", "h"), Doubt.THROTTLED, "later"),
        (Reply(429, {"retry-after": "60"}, b"", "h"), Doubt.THROTTLED, "later"),
        (Reply(404, {}, b"", "h"), Doubt.REFUSED, "no such place"),
        (Reply(502, {}, b"", "h"), Doubt.UNREACHABLE, "502"),
        (Reply(302, {}, b"", "h"), Doubt.AMBIGUOUS, "302"),
        (Reply(200, {}, b"<html>", "h"), Doubt.AMBIGUOUS, "list"),
        (Reply(200, {}, b"{}", "h"), Doubt.AMBIGUOUS, "list"),
        (Trouble(Doubt.BLOCKED, "no"), Doubt.BLOCKED, "no"),
    ],
)
async def test_trouble_ends_the_pull_and_is_said(reply: Reply | Trouble, why: Doubt, word: str) -> None:
    world = World([alert(n) for n in range(1, 41)])
    world.before = lambda url: reply if "page=2" in url else None
    items = await gathered(github_alerts(world, Secret(TOKEN), "acme", "shop"))
    assert len(items) == 17
    last = items[-1]
    assert isinstance(last, Trouble)
    assert last.why is why
    assert word in last.note
    if why is Doubt.THROTTLED and isinstance(reply, Reply) and reply.status == 429:
        assert last.retry_after == timedelta(seconds=60)


async def test_trouble_with_the_places_keeps_the_alert() -> None:
    world = World([alert(1, has_more_locations=True), alert(2)])
    world.before = lambda url: Reply(500, {}, b"", "h") if "/locations" in url else None
    items = await gathered(github_alerts(world, Secret(TOKEN), "acme", "shop"))
    assert [type(item) for item in items] == [Claim, Trouble]
    assert items[0].place.path == "a.env"


async def test_a_page_that_names_itself_as_next_ends_it() -> None:
    world = World([])
    again = '<https://api.github.com/x?per_page=16&page=1>; rel="next"'
    world.before = lambda _: Reply(200, {"link": again}, b"[]", "h")
    items = await gathered(github_alerts(world, Secret(TOKEN), "acme", "shop"))
    assert [type(item) for item in items] == [Trouble]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "a b", "ä"])
async def test_names_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await gathered(github_alerts(World([]), Secret(TOKEN), name, "shop"))


def finding(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "report_type": "secret_detection",
        "name": "GitHub Personal Access Token",
        "identifiers": [{"external_type": "gitleaks_rule_id", "external_id": "Github PAT"}],
        "project": {"full_path": "acme/team/shop"},
        "location": {"file": "a.env", "start_line": number},
    }


@pytest.mark.parametrize("project", ["42", "acme/team/shop", "a/b/c/d/e/f/g/h"])
async def test_gitlab_findings(project: str) -> None:
    world = World([finding(n) for n in range(1, 36)] + [{"report_type": "sast"}, {"location": 5}])
    items = await gathered(gitlab_findings(world, Secret(TOKEN), project))
    claims = [item for item in items if isinstance(item, Claim)]
    assert [claim.place.line for claim in claims] == list(range(1, 36))
    assert claims[0].value == Absent()
    assert (claims[0].rule, claims[0].place.repository) == ("Github PAT", "acme/team/shop")
    assert isinstance(items[-1], Skipped)
    assert urlsplit(world.asked[0]).path.endswith("/vulnerability_findings")
    assert project.replace("/", "%2F") in world.asked[0]


async def test_gitlab_vulnerabilities_hold_the_extract() -> None:
    inner = {"category": "secret_detection", "name": "n", "raw_source_code_extract": key(1), "location": {"file": "a"}}
    row = {"report_type": "secret_detection", "title": "n", "finding": {"raw_metadata": json.dumps(inner)}}
    base = "https://gitlab.example.org"
    world = World([row], base=base)
    items = await gathered(gitlab_findings(world, Secret(TOKEN), "42", base=base, with_extract=True))
    assert revealed(items) == [key(1)]
    assert world.asked[0].startswith(base + "/api/v4/projects/42/vulnerabilities?")


async def test_gitlab_paths_are_bounded() -> None:
    with pytest.raises(ValueError, match="levels"):
        await gathered(gitlab_findings(World([]), Secret(TOKEN), "/".join("abcdefghijklm")))


def test_calls_only_read() -> None:
    assert {call.method for call in CALLS} == {"GET"}
    assert all(call.reads and call.docs.startswith("https://") for call in CALLS)
