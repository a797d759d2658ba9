"""GitHub secret-scanning alerts: the REST answer saved to a file (array or lines), and webhook deliveries.

Fields: docs.github.com/rest/secret-scanning. `hide_secret=true` leaves the secret out; a webhook never has it. An
alert has one place in `first_location_detected`; `locations`, where somebody joined them, holds all of them.
`parse_alert` is shared with the pull from the API.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from verifier.ingest.clues import Peeked, has_keys, opens_with, plain, when
from verifier.ingest.interface import Format, Likelihood, Row
from verifier.ingest.stream import json_items, jsonl
from verifier.model import Claim, Claimed, Place, Skipped, SourceKind, Visibility

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.ingest.interface import Source

_CLAIMED = {"active": Claimed.LIVE, "inactive": Claimed.DEAD, "unknown": Claimed.UNKNOWN}
_REPOSITORY = re.compile(r"https?://[^/]+/(?:api/v3/)?(?:repos/)?([^/]+/[^/]+)/(?:security/)?secret-scanning/")


class Details(Struct):
    """Where one location lies: a file in a commit (or wiki page), or the URL of an issue, a comment, a discussion."""

    path: str | None = None
    start_line: float | None = None
    start_column: float | None = None
    commit_sha: str | None = None
    html_url: str | None = None
    page_url: str | None = None
    issue_title_url: str | None = None
    issue_body_url: str | None = None
    issue_comment_url: str | None = None
    pull_request_title_url: str | None = None
    pull_request_body_url: str | None = None
    pull_request_comment_url: str | None = None
    pull_request_review_url: str | None = None
    pull_request_review_comment_url: str | None = None
    discussion_title_url: str | None = None
    discussion_body_url: str | None = None
    discussion_comment_url: str | None = None

    @property
    def talk(self) -> str | None:
        """The URL, for a location that is no file."""
        urls = (getattr(self, field) for field in self.__struct_fields__ if field.endswith("_url"))
        return next((url for url in urls if url), None)


class Location(Struct):
    """One element of the locations answer."""

    type: str = "commit"
    details: Details | None = None


class Repository(Struct):
    """The repository that an organisation's alert belongs to."""

    full_name: str | None = None
    private: bool | None = None


class Alert(Struct):
    """One alert, as far as it matters here."""

    secret_type: str
    number: int | None = None
    secret: str | None = None
    state: str | None = None
    resolution: str | None = None
    validity: str | None = None
    publicly_leaked: bool | None = None
    created_at: str | None = None
    html_url: str | None = None
    url: str | None = None
    repository: Repository | None = None
    first_location_detected: Details | None = None
    has_more_locations: bool | None = None
    locations: list[Location] | None = None


class _Any(Alert):
    """Either shape in one: msgspec tells unions of objects apart by a tag only."""

    secret_type: str = ""
    alert: Alert | None = None
    location: Location | None = None


def _visibility(alert: Alert, repository: Repository) -> Visibility:
    if alert.publicly_leaked or repository.private is False:
        return Visibility.PUBLIC
    return Visibility.PRIVATE if repository.private else Visibility.UNKNOWN


def _places(alert: Alert, locations: list[Location]) -> Iterator[Place]:
    repository = alert.repository or Repository()
    found = _REPOSITORY.match(alert.html_url or alert.url or "")
    name = repository.full_name or (found[1] if found else None)
    seen = _visibility(alert, repository)
    for location in locations or [Location()]:
        details = location.details or Details()
        talk = details.path is None and details.talk is not None
        yield Place(
            SourceKind.TICKET if talk else SourceKind.GIT,
            repository=name,
            path=details.path.lstrip("/") if details.path else None,
            line=int(details.start_line) if details.start_line else None,
            column=int(details.start_column) if details.start_column else None,
            revision=details.commit_sha,
            visibility=seen,
            url=details.talk if talk else alert.html_url,
        )


def parse_alert(row: int, alert: Alert) -> Iterator[Claim]:
    """Yield one claim a place. Closed as `revoked`, with no validity check to say otherwise, counts as claimed dead."""
    claimed = _CLAIMED.get(alert.validity or "", Claimed.UNCHECKED)
    if claimed in (Claimed.UNCHECKED, Claimed.UNKNOWN) and alert.resolution == "revoked":
        claimed = Claimed.DEAD
    locations = alert.locations or []
    if not locations and alert.first_location_detected is not None:
        locations = [Location(details=alert.first_location_detected)]
    for place in _places(alert, locations):
        yield Claim(
            scanner="github",
            rule=alert.secret_type,
            value=plain(alert.secret),
            place=place,
            row=row,
            claimed=claimed,
            seen_at=when(alert.created_at),
        )


def _claims(rows: Iterable[Row[_Any] | Skipped]) -> Iterator[Claim | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
            continue
        alert: Alert = row.item
        if row.item.alert is not None:
            alert = row.item.alert
            alert.repository = alert.repository or row.item.repository
            alert.locations = alert.locations or ([row.item.location] if row.item.location else None)
        if not alert.secret_type:
            yield Skipped(row.number, "secret_type", "it has no secret_type", "give the alerts as the API returns them")
            continue
        yield from parse_alert(row.number, alert)


def _is_ours(head: bytes) -> Likelihood:
    if not has_keys(head, "secret_type"):
        return Likelihood.NO
    own = ("locations_url", "push_protection_bypassed", "secret_type_display_name", "publicly_leaked")
    return Likelihood.CERTAIN if any(has_keys(head, key) for key in own) else Likelihood.LIKELY


def _sniff_json(head: bytes) -> Likelihood:
    return _is_ours(head) if opens_with(head, b"[") else Likelihood.NO


def _sniff_objects(head: bytes) -> Likelihood:
    return _is_ours(head) if opens_with(head, b"{") else Likelihood.NO


def _parse_json(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(json_items(source, _Any, "*"))


def _parse_objects(source: Source) -> Iterator[Claim | Skipped]:
    """One object a line, or one printed over many lines (a saved webhook delivery)."""
    peeked = Peeked(source)
    indented = peeked.first.lstrip().partition(b"\n")[0].strip() == b"{"
    return _claims(json_items(peeked, _Any) if indented else jsonl(peeked, _Any))


FORMATS = (
    Format(
        name="github-alerts",
        scanner="github",
        summary="GitHub secret-scanning alerts, the API's array saved to a file",
        sniff=_sniff_json,
        parse=_parse_json,
    ),
    Format(
        name="github-alerts-jsonl",
        scanner="github",
        summary="GitHub secret-scanning alerts or webhook deliveries, one a line",
        sniff=_sniff_objects,
        parse=_parse_objects,
    ),
)
