"""Nosey Parker reports (Praetorian), JSON and JSONL: one finding a group of equal matches, one place a provenance.

Since 0.17 the capture groups are Base64; before, plain text. A rule with several groups (user, password, host) has
its opening one last; a credential URI is taken whole.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.ingest.clues import has_keys, opens_with, when
from verifier.ingest.interface import Format, Likelihood, Row
from verifier.ingest.pieces import repository
from verifier.ingest.stream import json_items, jsonl
from verifier.model import Absent, Claim, Hidden, Place, Skipped, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.ingest.interface import Source

_PUBLIC_HALF = re.compile(r"A[KS]IA[A-Z0-9]{16}|[0-9]+-[a-z0-9]+\.apps\.googleusercontent\.com")


class _Point(Struct):
    line: int | None = None
    column: int | None = None


class _Span(Struct):
    start: _Point = msgspec.field(default_factory=_Point)


class _Location(Struct):
    source_span: _Span = msgspec.field(default_factory=_Span)


class _Snippet(Struct):
    matching: str = ""


class _Metadata(Struct):
    commit_id: str | None = None
    author_email: str | None = None
    author_timestamp: str | None = None
    committer_timestamp: str | None = None


class _Commit(Struct):
    blob_path: str | None = None
    commit_metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _Provenance(Struct):
    kind: str = ""
    path: str | None = None
    repo_path: str | None = None
    first_commit: _Commit | None = None
    commit_provenance: _Commit | None = None


class _Match(Struct):
    provenance: list[_Provenance] | _Provenance | None = None
    location: _Location = msgspec.field(default_factory=_Location)
    snippet: _Snippet = msgspec.field(default_factory=_Snippet)
    groups: list[str] = []
    match_content: str | None = None


class _Finding(Struct):
    matches: list[_Match]
    rule_name: str = ""
    rule_text_id: str = ""
    groups: list[str] = []
    match_content: str | None = None


def _unwrap(group: str, matching: str) -> str:
    """Undo Base64 where that gives a part of the match; old reports hold the text itself."""
    if group in matching:
        return group
    try:
        text = b64decode(group, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return group
    return text if text in matching or not matching else group


def _split(texts: list[str], matching: str) -> tuple[Secret | Hidden, dict[str, Secret]]:
    """Tell the value from its companions."""
    texts = [text for text in texts if text]
    if not texts:
        return (Secret(matching) if matching else Absent()), {}
    if len(texts) == 1:
        return Secret(texts[0]), {}
    if "://" in matching:
        return Secret(matching), {}
    opening = [n for n, text in enumerate(texts) if not _PUBLIC_HALF.fullmatch(text)] or [0]
    chosen = opening[-1]
    rest = {
        "id" if _PUBLIC_HALF.fullmatch(text) else f"group{n + 1}": Secret(text)
        for n, text in enumerate(texts)
        if n != chosen
    }
    return Secret(texts[chosen]), rest


def _places(match: _Match) -> Iterator[tuple[Place, str | None]]:
    point = match.location.source_span.start
    given = match.provenance
    column = None if point.column is None else max(point.column, 1)
    for origin in given if isinstance(given, list) else [given or _Provenance()]:
        commit = origin.first_commit or origin.commit_provenance
        if origin.kind == "git_repo" or commit is not None:
            known = commit.commit_metadata if commit else _Metadata()
            place = Place(
                SourceKind.GIT,
                repository=repository(origin.repo_path or origin.path or ""),
                path=commit.blob_path if commit else None,
                line=point.line,
                column=column,
                revision=known.commit_id,
                author=known.author_email,
            )
            yield place, known.author_timestamp or known.committer_timestamp
        else:
            kind = SourceKind.FILESYSTEM if origin.kind in ("file", "") else SourceKind.OTHER
            yield Place(kind, path=origin.path, line=point.line, column=column), None


def _claims(rows: Iterable[Row[_Finding] | Skipped]) -> Iterator[Claim | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
            continue
        finding = row.item
        for match in finding.matches:
            matching = match.snippet.matching or match.match_content or finding.match_content or ""
            groups = match.groups or finding.groups
            value, rest = _split([_unwrap(group, matching) for group in groups], match.match_content or matching)
            for place, date in _places(match):
                yield Claim(
                    scanner="noseyparker",
                    rule=finding.rule_text_id or finding.rule_name,
                    value=value,
                    place=place,
                    row=row.number,
                    companions=rest,
                    seen_at=when(date),
                )


def _is_ours(head: bytes) -> Likelihood:
    if has_keys(head, "rule_text_id") or has_keys(head, "rule_structural_id"):
        return Likelihood.CERTAIN
    if has_keys(head, "rule_name", "num_matches"):
        return Likelihood.CERTAIN
    return Likelihood.LIKELY if has_keys(head, "rule_name", "provenance", "matches") else Likelihood.NO


def _sniff_json(head: bytes) -> Likelihood:
    return _is_ours(head) if opens_with(head, b"[") else Likelihood.NO


def _sniff_jsonl(head: bytes) -> Likelihood:
    return _is_ours(head) if opens_with(head, b"{") else Likelihood.NO


def _parse_json(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(json_items(source, _Finding, "*"))


def _parse_jsonl(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(jsonl(source, _Finding))


FORMATS = (
    Format(
        name="noseyparker-json",
        scanner="noseyparker",
        summary="Nosey Parker `report --format json`",
        sniff=_sniff_json,
        parse=_parse_json,
    ),
    Format(
        name="noseyparker-jsonl",
        scanner="noseyparker",
        summary="Nosey Parker `report --format jsonl`",
        sniff=_sniff_jsonl,
        parse=_parse_jsonl,
    ),
)
