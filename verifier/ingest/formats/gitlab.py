"""GitLab secret detection: the CI report (`gl-secret-detection-report.json`, schemas 14 and 15) and API answers.

Schema: gitlab.com/gitlab-org/security-products/security-report-schemas. `raw_source_code_extract` is the secret; of a
private key only its first line; some versions leave it out, and Semgrep's writer gives whole lines. The findings API
has no extract; the vulnerabilities API has it inside `finding.raw_metadata`. `parse_item` is shared with the pull.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.ingest.clues import has_keys, has_pair, isolate, opens_with, plain, when
from verifier.ingest.image import image
from verifier.ingest.interface import Format, Likelihood, Row
from verifier.ingest.stream import json_items
from verifier.model import Absent, Claim, Hidden, Image, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.ingest.interface import Source
    from verifier.secret import Secret

SECRETS = "secret_detection"
_KEY_HEAD = re.compile(r"-----BEGIN [A-Z0-9 ]+-----\s*")
_NO_COMMIT = re.compile(r"0+")


class _Commit(Struct):
    sha: str | None = None
    date: str | None = None
    author: str | None = None


class _Location(Struct):
    file: str | None = None
    start_line: int | None = None
    commit: _Commit | None = None
    image: str | None = None
    blob_path: str | None = None


class _Identifier(Struct):
    type: str | None = None
    external_type: str | None = None
    value: str | None = None
    external_id: str | None = None


class _Project(Struct):
    full_path: str | None = None


class _Finding(Struct):
    raw_metadata: str | None = None


class Item(Struct):
    """One vulnerability of a report, or one finding or vulnerability of an API answer."""

    name: str | None = None
    title: str | None = None
    category: str | None = None
    report_type: str | None = None
    raw_source_code_extract: str | list[str] | None = None
    location: _Location | None = None
    identifiers: list[_Identifier] = []
    project: _Project | None = None
    finding: _Finding | None = None
    blob_path: str | None = None
    created_at: str | None = None


def _rule(item: Item) -> str:
    """Return the rule's id where GitLab gives it, else its title."""
    for identifier in item.identifiers:
        kind = identifier.type or identifier.external_type or ""
        value = identifier.value or identifier.external_id
        if value and "rule" in kind:
            return value
    ids = (identifier.value or identifier.external_id for identifier in item.identifiers)
    return item.name or item.title or next((value for value in ids if value), "") or "unknown"


def _value(extract: str | list[str] | None) -> Secret | Hidden:
    if isinstance(extract, list):
        return isolate("".join(extract))
    if extract and _KEY_HEAD.fullmatch(extract):
        return Absent()
    return plain(extract)


def parse_item(row: int, item: Item) -> Claim | Skipped | None:
    """Return the claim; None for an item of another kind of scan."""
    if (item.report_type or item.category or SECRETS) != SECRETS:
        return None
    if item.finding is not None and item.finding.raw_metadata:
        try:
            inner = msgspec.json.decode(item.finding.raw_metadata, type=Item)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return Skipped(row, "finding.raw_metadata", "it is not the JSON that it should be", "export it again")
        item = msgspec.structs.replace(
            inner, project=item.project, name=inner.name or item.title, created_at=item.created_at, finding=None
        )
    location = item.location or _Location()
    commit = location.commit or _Commit()
    where: Image | None = image(location.image) if location.image else None
    known = commit.sha and not _NO_COMMIT.fullmatch(commit.sha)
    return Claim(
        scanner="gitlab",
        rule=_rule(item),
        value=_value(item.raw_source_code_extract),
        place=Place(
            SourceKind.DOCKER if where else SourceKind.GIT,
            repository=item.project.full_path if item.project else None,
            image=where,
            path=location.file,
            line=location.start_line or None,
            revision=commit.sha if known else None,
            author=commit.author,
            url=item.blob_path or location.blob_path,
        ),
        row=row,
        seen_at=when(item.created_at) or (when(commit.date) if known else None),
    )


def _sniff_report(head: bytes) -> Likelihood:
    if not opens_with(head, b"{") or not has_keys(head, "vulnerabilities"):
        return Likelihood.NO
    ours = (
        has_pair(head, "category", SECRETS)
        or has_pair(head, "type", SECRETS)
        or has_keys(head, "raw_source_code_extract")
        or has_pair(head, "type", "gitleaks_rule_id")
    )
    return Likelihood.CERTAIN if ours else Likelihood.NO


def _sniff_api(head: bytes) -> Likelihood:
    ours = opens_with(head, b"[") and has_pair(head, "report_type", SECRETS)
    return Likelihood.CERTAIN if ours else Likelihood.NO


def _claims(rows: Iterable[Row[Item] | Skipped]) -> Iterator[Claim | Skipped]:
    for row in rows:
        claim = row if isinstance(row, Skipped) else parse_item(row.number, row.item)
        if claim is not None:
            yield claim


def _parse_report(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(json_items(source, Item, "vulnerabilities", "*"))


def _parse_api(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(json_items(source, Item, "*"))


FORMATS = (
    Format(
        name="gitlab-secret-detection",
        scanner="gitlab",
        summary="GitLab CI report gl-secret-detection-report.json, schemas 14 and 15",
        sniff=_sniff_report,
        parse=_parse_report,
    ),
    Format(
        name="gitlab-api",
        scanner="gitlab",
        summary="GitLab vulnerability or finding API answer saved to a file, secret detection only",
        sniff=_sniff_api,
        parse=_parse_api,
    ),
)
