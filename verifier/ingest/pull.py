"""Pulls findings from where a platform keeps them: GitHub secret-scanning alerts, GitLab secret detection.

Only GET requests through the verifier's `Door`; `CALLS` belongs on its manifest. For an own instance the door gets
`overrides={kind: base}` and these functions the same `base` (`https://ghe.example.org/api/v3`,
`https://gitlab.example.org`). Rows go through the same parsers as the file formats.

Endpoints: docs.github.com/rest/secret-scanning/secret-scanning, docs.gitlab.com/api/vulnerability_findings and
docs.gitlab.com/api/project_vulnerabilities. The next page is the one that the `Link` header names; only its query is
followed, never its host or path, so the token goes nowhere else. A page that does not fit into the door's 64 KiB is
asked again in smaller pieces.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from msgspec import Raw, Struct

from verifier.exchange import Call, Reply, Request, Trouble
from verifier.ingest.formats.github_alerts import Alert, Location, parse_alert
from verifier.ingest.formats.gitlab import Item, parse_item
from verifier.ingest.stream import bad
from verifier.model import Claim, Doubt, Skipped
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from verifier.exchange import Door

GITHUB: Final = "github-alerts"
GITLAB: Final = "gitlab-secret-detection"
GITHUB_BASE: Final = "https://api.github.com"
GITLAB_BASE: Final = "https://gitlab.com"

T = TypeVar("T")

Pulled: TypeAlias = Claim | Skipped | Trouble
"""A row, a bad row, or the trouble that ended the pull: what was not pulled is then unknown, not gone."""

_REST = "https://docs.github.com/en/rest/secret-scanning/secret-scanning"
_FINDINGS = "https://docs.gitlab.com/api/vulnerability_findings/"
_VULNERABILITIES = "https://docs.gitlab.com/api/project_vulnerabilities/"

REPOSITORY_ALERTS: Final = Call(
    GITHUB, "GET", "https", "api.github.com", "/repos/{owner}/{repo}/secret-scanning/alerts", "lists alerts", _REST
)
ORGANISATION_ALERTS: Final = Call(
    GITHUB, "GET", "https", "api.github.com", "/orgs/{org}/secret-scanning/alerts", "lists alerts", _REST
)
ALERT_LOCATIONS: Final = Call(
    GITHUB,
    "GET",
    "https",
    "api.github.com",
    "/repos/{owner}/{repo}/secret-scanning/alerts/{number}/locations",
    "lists where one alert's secret stands",
    _REST,
)

_MAX_DEPTH = 12


def _project_calls(what: str, docs: str) -> tuple[Call, ...]:
    """One call for each depth of groups: the slashes of a project's path are written `%2F`, and no field holds one."""
    paths = ("%2F".join(f"{{level{n}}}" for n in range(depth)) for depth in range(1, _MAX_DEPTH + 1))
    return tuple(
        Call(GITLAB, "GET", "https", "gitlab.com", f"/api/v4/projects/{path}/{what}", "lists findings", docs)
        for path in paths
    )


PROJECT_FINDINGS: Final = _project_calls("vulnerability_findings", _FINDINGS)
PROJECT_VULNERABILITIES: Final = _project_calls("vulnerabilities", _VULNERABILITIES)

CALLS: Final = (
    REPOSITORY_ALERTS,
    ORGANISATION_ALERTS,
    ALERT_LOCATIONS,
    *PROJECT_FINDINGS,
    *PROJECT_VULNERABILITIES,
)
"""Every call that this module makes."""

_PAGE = 16
"""Rows asked for at once: mostly well below 64 KiB, and a power of two, so that halves line up."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,<]*\brel="?next"?')
_OK, _FORBIDDEN, _THROTTLED, _BROKEN = 200, 403, 429, 500


class _Words(Struct, frozen=True):
    """What to tell people about one platform."""

    name: str
    rights: str


_GITHUB = _Words("GitHub", "a token that may read secret-scanning alerts (`security_events`)")
_GITLAB = _Words("GitLab", "a token with `read_api` of somebody who sees the project's security dashboard")


class _Feed(Struct, frozen=True):
    """One list to read to its end. `url` has no query."""

    call: Call
    url: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, Secret]
    carrier: str
    words: _Words


# ── GitHub ─────────────────────────────────────────────────────────────────────────────────────────────


async def github_alerts(
    door: Door, token: Secret, owner: str, repo: str | None = None, *, base: str = GITHUB_BASE
) -> AsyncIterator[Pulled]:
    """Yield the alerts of a repository, or with no `repo` of a whole organisation, open and closed, with all places.

    A name that GitHub cannot have is a `ValueError`. `Trouble` comes last, if at all.
    """
    path = f"/repos/{_named(owner)}/{_named(repo)}" if repo is not None else f"/orgs/{_named(owner)}"
    call = REPOSITORY_ALERTS if repo is not None else ORGANISATION_ALERTS
    headers = {
        "authorization": Secret(f"Bearer {token.reveal()}"),
        "accept": Secret("application/vnd.github+json"),
        "x-github-api-version": Secret("2022-11-28"),
    }
    feed = _Feed(call, f"{base}{path}/secret-scanning/alerts", (), headers, "authorization", _GITHUB)
    number = 0
    async for raw in _rows(door, feed):
        if not isinstance(raw, Raw):
            yield raw
            continue
        number += 1
        alert = _decoded(raw, Alert, number)
        if isinstance(alert, Skipped):
            yield alert
            continue
        trouble = await _locate(door, feed, alert, base, repo and f"{owner}/{repo}")
        for claim in parse_alert(number, alert):
            yield claim
        if trouble is not None:
            yield trouble
            return


async def _locate(door: Door, feed: _Feed, alert: Alert, base: str, whole: str | None) -> Trouble | None:
    """Fetch the places of an alert, unless the alert itself has its only one."""
    full = (alert.repository.full_name if alert.repository else None) or whole or ""
    owner, _, repo = full.partition("/")
    known = alert.first_location_detected is not None and alert.has_more_locations is False
    if known or alert.number is None or not (_NAME.fullmatch(owner) and _NAME.fullmatch(repo)):
        return None
    url = f"{base}/repos/{full}/secret-scanning/alerts/{alert.number}/locations"
    found: list[Location] = []
    async for raw in _rows(door, msgspec.structs.replace(feed, call=ALERT_LOCATIONS, url=url)):
        if isinstance(raw, Trouble):
            alert.locations = found or None
            return raw
        location = _decoded(raw, Location, 0) if isinstance(raw, Raw) else raw
        if isinstance(location, Location):
            found.append(location)
    alert.locations = found or None
    return None


# ── GitLab ─────────────────────────────────────────────────────────────────────────────────────────────


async def gitlab_findings(
    door: Door, token: Secret, project: str, *, base: str = GITLAB_BASE, with_extract: bool = False
) -> AsyncIterator[Pulled]:
    """Yield the secret-detection findings of a project (its number, or its path `group/sub/project`).

    The findings API never holds the secret; `with_extract` reads the vulnerabilities API instead, which has it where
    the CI report had. Both are for GitLab Ultimate. A path that GitLab cannot have is a `ValueError`.
    """
    levels = [_named(level) for level in project.strip("/").split("/")]
    if len(levels) > _MAX_DEPTH:
        raise ValueError(f"the project's path has over {_MAX_DEPTH} levels; give the project's number instead")
    calls, what = (
        (PROJECT_VULNERABILITIES, "vulnerabilities") if with_extract else (PROJECT_FINDINGS, "vulnerability_findings")
    )
    query = () if with_extract else (("report_type", "secret_detection"), ("scope", "all"))
    url = f"{base}/api/v4/projects/{'%2F'.join(levels)}/{what}"
    feed = _Feed(calls[len(levels) - 1], url, query, {"private-token": token}, "private-token", _GITLAB)
    number = 0
    async for raw in _rows(door, feed):
        if not isinstance(raw, Raw):
            yield raw
            continue
        number += 1
        item = _decoded(raw, Item, number)
        claim = item if isinstance(item, Skipped) else parse_item(number, item)
        if claim is not None:
            yield claim


# ── pages ──────────────────────────────────────────────────────────────────────────────────────────────


def _named(name: str) -> str:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError("a name of an owner, repository or project has letters, digits, `-`, `_` and `.` only")
    return name


def _decoded(raw: Raw, into: type[T], number: int) -> T | Skipped:
    try:
        return msgspec.json.decode(raw, type=into)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return bad(number, bytes(raw), error)


async def _rows(door: Door, feed: _Feed) -> AsyncIterator[Raw | Skipped | Trouble]:
    """Yield every row of every page; `Trouble` ends it."""
    size, query, asked = _PAGE, urlencode((*feed.query, ("per_page", str(_PAGE)), ("page", "1"))), set[str]()
    while query:
        if query in asked:
            yield Trouble(Doubt.AMBIGUOUS, f"{feed.words.name} names a page as next that was read already")
            return
        asked.add(query)
        url = f"{feed.url}?{query}"
        reply = await door.send(
            Request(call=feed.call, url=Secret(url), shown=url, headers=feed.headers, carrier=feed.carrier)
        )
        answer = reply if isinstance(reply, Trouble) else _checked(reply, feed.words)
        if isinstance(answer, Trouble):
            yield answer
            return
        if answer.truncated and size > 1:
            query, size = _smaller(query, size), size // 2
            continue
        if answer.truncated:
            yield Skipped(0, None, "one entry of the answer is over 64 KiB", "look at it on the platform itself")
        else:
            rows = _array(answer.body)
            if rows is None:
                note = f"{feed.words.name} answered with something else than a list; check the base URL"
                yield Trouble(Doubt.AMBIGUOUS, note, answer.host)
                return
            for row in rows:
                yield row
        query = _next(answer.headers.get("link", ""))


def _array(body: bytes) -> list[Raw] | None:
    try:
        return msgspec.json.decode(body, type=list[Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _next(link: str) -> str:
    """Return the query of the next page, or nothing."""
    found = _NEXT.search(link)
    return urlsplit(found[1]).query if found else ""


def _smaller(query: str, size: int) -> str:
    """Return the query for the first half of the same page. A cursor marks a place by itself; a page number doubles."""
    fields = dict(parse_qsl(query, keep_blank_values=True))
    fields["per_page"] = str(size // 2)
    if "page" in fields and fields["page"].isdigit():
        fields["page"] = str((int(fields["page"]) - 1) * 2 + 1)
    return urlencode(fields)


def _checked(reply: Reply, words: _Words) -> Reply | Trouble:
    """Return the reply, or say in a sentence what a status other than 200 means here."""
    if reply.status == _OK:
        return reply
    spent = reply.headers.get("x-ratelimit-remaining", reply.headers.get("ratelimit-remaining")) == "0"
    wait = reply.headers.get("retry-after", "")
    if reply.status == _THROTTLED or (reply.status == _FORBIDDEN and (spent or wait)):
        pause = timedelta(seconds=int(wait)) if wait.isdigit() and len(wait) < 8 else None  # 115 days
        return Trouble(Doubt.THROTTLED, f"{words.name} asks to slow down; pull again later", reply.host, pause)
    match reply.status:
        case 401:
            note = f"{words.name} does not accept the token; give {words.rights}"
        case 403:
            note = f"the token may not read this; give {words.rights}"
        case 404:
            note = f"{words.name} shows no such place to this token, or the feature is off there; give {words.rights}"
        case status if status >= _BROKEN:
            return Trouble(Doubt.UNREACHABLE, f"{words.name} answered {status}; pull again later", reply.host)
        case status:
            return Trouble(Doubt.AMBIGUOUS, f"{words.name} answered {status}; check the base URL", reply.host)
    return Trouble(Doubt.REFUSED, note, reply.host)
