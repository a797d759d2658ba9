"""Titus JSON (Praetorian): an array of findings with their matches, or of bare matches; bytes are Base64.

Field names are those of Go structs without tags (`RuleID`, `Groups`, `Snippet.Matching`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.ingest.clues import has_keys, opens_with, when
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.pieces import repository
from verifier.ingest.stream import json_items
from verifier.model import Absent, Claim, Claimed, Hidden, Place, Skipped, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source

_CLAIMED = {"valid": Claimed.LIVE, "invalid": Claimed.DEAD, "undetermined": Claimed.UNKNOWN}
_SECRET_NAMES = ("secret", "token", "password", "key", "apikey", "api_key", "value")


class _Point(Struct, rename="pascal"):
    line: int | None = None
    column: int | None = None


class _Span(Struct, rename="pascal"):
    start: _Point = msgspec.field(default_factory=_Point)


class _Location(Struct, rename="pascal"):
    source: _Span = msgspec.field(default_factory=_Span)


class _Snippet(Struct, rename="pascal"):
    matching: bytes | None = None


class _Commit(Struct):
    commit: str | None = msgspec.field(default=None, name="CommitID")
    author: str | None = msgspec.field(default=None, name="AuthorEmail")
    date: str | None = msgspec.field(default=None, name="AuthorTimestamp")


class _Provenance(Struct, rename="pascal"):
    file_path: str | None = None
    repo_path: str | None = None
    blob_path: str | None = None
    commit: _Commit | None = None


class _Verdict(Struct):
    status: str = ""
    validated_at: str | None = None


class _Match(Struct, rename="pascal"):
    rule: str = msgspec.field(default="", name="RuleID")
    location: _Location = msgspec.field(default_factory=_Location)
    groups: list[bytes] | None = None
    named_groups: dict[str, bytes] | None = None
    snippet: _Snippet = msgspec.field(default_factory=_Snippet)
    provenance: list[_Provenance] | _Provenance | None = None
    validation: _Verdict | None = msgspec.field(default=None, name="validation_result")


class _Finding(_Match, rename="pascal"):
    matches: list[_Match] | None = None


def _sniff(head: bytes) -> Likelihood:
    if not opens_with(head, b"[") or not has_keys(head, "RuleID") or has_keys(head, "StartLine"):
        return Likelihood.NO
    if has_keys(head, "Groups") and (has_keys(head, "Matches") or has_keys(head, "Snippet")):
        return Likelihood.CERTAIN
    return Likelihood.NO


def _value(finding: _Finding, match: _Match) -> tuple[Secret | Hidden, dict[str, Secret]]:
    matching = (match.snippet.matching or b"").decode("utf-8", "surrogateescape")
    named = {name: raw.decode("utf-8", "surrogateescape") for name, raw in (match.named_groups or {}).items() if raw}
    for name, value in named.items():
        if name.lower() in _SECRET_NAMES:
            return Secret(value), {other: Secret(text) for other, text in named.items() if other != name}
    groups = [raw.decode("utf-8", "surrogateescape") for raw in (match.groups or finding.groups or ()) if raw]
    if len(groups) > 1 and "://" in matching:
        return Secret(matching), {}
    if not groups:
        return (Secret(matching) if matching else Absent()), {}
    return Secret(groups[-1]), {f"group{n + 1}": Secret(text) for n, text in enumerate(groups[:-1])}


def _places(match: _Match) -> Iterator[tuple[Place, str | None]]:
    point, given = match.location.source.start, match.provenance
    for origin in given if isinstance(given, list) else [given or _Provenance()]:
        commit = origin.commit or _Commit()
        git = origin.repo_path is not None or origin.commit is not None
        kind = SourceKind.GIT if git else SourceKind.FILESYSTEM if origin.file_path else SourceKind.OTHER
        place = Place(
            kind,
            repository=repository(origin.repo_path or ""),
            path=origin.blob_path or origin.file_path,
            line=point.line or None,
            column=point.column or None,
            revision=commit.commit,
            author=commit.author,
        )
        yield place, commit.date


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    for row in json_items(source, _Finding, "*"):
        if isinstance(row, Skipped):
            yield row
            continue
        finding = row.item
        for match in finding.matches or (finding,):
            value, rest = _value(finding, match)
            verdict = match.validation or _Verdict()
            for place, date in _places(match):
                yield Claim(
                    scanner="titus",
                    rule=match.rule or finding.rule,
                    value=value,
                    place=place,
                    row=row.number,
                    companions=rest,
                    claimed=_CLAIMED.get(verdict.status, Claimed.UNCHECKED),
                    seen_at=when(verdict.validated_at) or when(date),
                )


FORMATS = (Format(name="titus-json", scanner="titus", summary="Titus `--format json`", sniff=_sniff, parse=_parse),)
