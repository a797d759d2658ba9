"""gitleaks: JSON, CSV, SARIF and JUnit of version 8, JSON of version 7.

Shapes read off gitleaks 8.30 and the samples in its own tests. Empty reports are `[]` or `null` in JSON and nothing at
all in CSV. `--redact` puts `REDACTED`, `--redact=N` the first characters and `...`. Version 8 names no repository, but
links to it where it could.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.ingest import sarif
from verifier.ingest.interface import Format, Likelihood, Row
from verifier.ingest.pieces import address, author, in_image, moment, repository, repository_of, shown
from verifier.ingest.stream import bad, claims, csv_rows, json_items, jsonl, xml_texts
from verifier.ingest.walk import first
from verifier.model import Claim, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source

SCANNER = "gitleaks"
_BETTERLEAKS = (b'"Attributes"', b'"ValidationStatus"', b'"RequiredSets"', b'"CaptureGroups"')
_TOOL = re.compile(rb'"driver"\s*:\s*\{[^{}\[\]]*?"name"\s*:\s*"(?i:gitleaks)"')


class Found(Struct, frozen=True, gc=False, rename="pascal"):
    """One finding of version 8."""

    rule_id: str = msgspec.field(name="RuleID")
    secret: str = ""
    file: str = ""
    symlink_file: str = ""
    start_line: int | None = None
    start_column: int | None = None
    commit: str = ""
    link: str = ""
    author: str = ""
    email: str = ""
    date: str = ""


class Found7(Struct, frozen=True, gc=False, rename="camel"):
    """One finding of version 7."""

    rule: str
    offender: str
    file: str = ""
    line_number: int | None = None
    commit: str = ""
    repo: str = ""
    repo_url: str = msgspec.field(name="repoURL", default="")
    leak_url: str = msgspec.field(name="leakURL", default="")
    author: str = ""
    email: str = ""
    date: str = ""


def _place(found: Found) -> Place:
    path = found.symlink_file or found.file
    if found.commit:
        return Place(
            SourceKind.GIT,
            repository=repository_of(found.link) if found.link else None,
            path=path or None,
            line=found.start_line or None,
            column=found.start_column or None,
            revision=found.commit,
            author=author(found.author, found.email),
            url=address(found.link),
        )
    image, path = ("!" in path and in_image(path)) or (None, path)
    return Place(
        SourceKind.DOCKER if image else SourceKind.FILESYSTEM,
        image=image,
        path=path or None,
        line=found.start_line or None,
        column=found.start_column or None,
    )


def _claim(row: int, found: Found) -> Claim:
    return Claim(
        SCANNER,
        found.rule_id,
        shown(found.secret),
        _place(found),
        row,
        seen_at=moment(found.date) if found.date else None,
    )


def _claim7(row: int, found: Found7) -> Claim:
    named = found.repo_url or (found.repo if found.repo != "." else "")
    place = Place(
        SourceKind.GIT if found.commit else SourceKind.FILESYSTEM,
        repository=repository(named),
        path=found.file or None,
        line=found.line_number or None,
        revision=found.commit or None,
        author=author(found.author, found.email),
        url=address(found.leak_url),
    )
    return Claim(SCANNER, found.rule, shown(found.offender), place, row, seen_at=moment(found.date))


def _parse_json(source: Source) -> Iterator[Claim | Skipped]:
    return claims(json_items(source, Found, "*"), _claim)


def _parse_jsonl(source: Source) -> Iterator[Claim | Skipped]:
    return claims(jsonl(source, Found), _claim)


def _parse_json7(source: Source) -> Iterator[Claim | Skipped]:
    return claims(json_items(source, Found7, "*"), _claim7)


def _parse_csv(source: Source) -> Iterator[Claim | Skipped]:
    for row in csv_rows(source, "RuleID", "Secret", "File"):
        if isinstance(row, Skipped):
            yield row
            continue
        try:
            found = msgspec.convert(row.item, Found, strict=False)
        except msgspec.ValidationError as error:
            yield bad(row.number, b"", error)
        else:
            yield _claim(row.number, found)


def _parse_sarif(source: Source) -> Iterator[Claim | Skipped]:
    return claims(sarif.results(source), _claim_sarif)


def _claim_sarif(row: int, result: sarif.Result) -> Claim:
    where = result.locations[0].physical_location if result.locations else sarif.Physical()
    prints = result.partial_fingerprints
    return _claim(
        row,
        Found(
            rule_id=result.rule_id,
            secret=where.region.snippet.text if where.region.snippet else "",
            file=where.artifact_location.uri,
            start_line=where.region.start_line,
            start_column=where.region.start_column,
            commit=prints.commit_sha,
            author=prints.author,
            email=prints.email,
            date=prints.date,
        ),
    )


def _parse_junit(source: Source) -> Iterator[Claim | Skipped]:
    return claims(_junit_rows(source), _claim)


def _junit_rows(source: Source) -> Iterator[Row[Found] | Skipped]:
    """Each `<failure>` holds one finding as JSON."""
    decode = msgspec.json.Decoder(Found).decode
    for row in xml_texts(source, "failure"):
        if isinstance(row, Skipped):
            yield row
            continue
        try:
            found = decode(row.item)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            yield bad(row.number, row.item.encode(errors="replace"), error)
        else:
            yield Row(row.number, found)


def _sniff_json(head: bytes) -> Likelihood:
    head = head.lstrip()
    if head.rstrip() in (b"[]", b"null"):
        return Likelihood.GENERIC
    return Likelihood.LIKELY if head[:1] == b"[" and _is_found(first(head, "*")) else Likelihood.NO


def _sniff_jsonl(head: bytes) -> Likelihood:
    return Likelihood.LIKELY if head.lstrip()[:1] == b"{" and _is_found(first(head)) else Likelihood.NO


def _is_found(row: bytes) -> bool:
    fits = b'"RuleID"' in row and b'"Secret"' in row and b'"StartLine"' in row
    return fits and not any(mark in row for mark in _BETTERLEAKS)


def _sniff_json7(head: bytes) -> Likelihood:
    row = first(head, "*") if head.lstrip()[:1] == b"[" else b""
    fits = b'"offender"' in row and b'"lineNumber"' in row
    return Likelihood.CERTAIN if fits else Likelihood.NO


def _sniff_csv(head: bytes) -> Likelihood:
    first = head.lstrip().split(b"\n", 1)[0]
    fits = first.startswith((b"RuleID,", b"RuleID;", b"RuleID\t")) and b"SymlinkFile" in first
    return Likelihood.LIKELY if fits and b"MatchContext" not in first else Likelihood.NO


def _sniff_sarif(head: bytes) -> Likelihood:
    return Likelihood.CERTAIN if b'"runs"' in head and _TOOL.search(head) else Likelihood.NO


def _sniff_junit(head: bytes) -> Likelihood:
    fits = b"<testsuite" in head and (b'name="gitleaks"' in head or b"&#34;RuleID&#34;" in head)
    return Likelihood.CERTAIN if fits else Likelihood.NO


FORMATS = (
    Format("gitleaks-json", SCANNER, "gitleaks 8, --report-format json", _sniff_json, _parse_json),
    Format("gitleaks-jsonl", SCANNER, "gitleaks 8, JSON taken apart into lines", _sniff_jsonl, _parse_jsonl),
    Format("gitleaks-json-v7", SCANNER, "gitleaks 7, JSON", _sniff_json7, _parse_json7),
    Format("gitleaks-csv", SCANNER, "gitleaks 8, --report-format csv", _sniff_csv, _parse_csv),
    Format("gitleaks-sarif", SCANNER, "gitleaks 8, --report-format sarif", _sniff_sarif, _parse_sarif),
    Format("gitleaks-junit", SCANNER, "gitleaks 8, --report-format junit", _sniff_junit, _parse_junit),
)
