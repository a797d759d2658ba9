"""Betterleaks 1 and 2: JSON, JSONL, CSV and SARIF.

Shapes read off Betterleaks 2.0.0-rc.4's own output and, for 1.x, its reporters' source. Version 1 is gitleaks' shape
and more: `Attributes`, `RequiredSets`, `ValidationStatus`. Between the two stood a shape in camel case. Version 2 wraps
each finding; its JSONL ends with a `scan` record, so a file without one is of a scan that did not end. A finding with
several sets of components yields one claim a set: each is a credential of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import MsgspecError, Struct

from verifier.ingest import sarif
from verifier.ingest.image import image
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.pieces import address, author, companions, in_image, moment, repository, repository_of, shown
from verifier.ingest.stream import bad, claims, csv_rows, json_items, jsonl
from verifier.ingest.walk import first
from verifier.model import Claim, Claimed, Place, Skipped, SourceKind, Visibility

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from verifier.ingest.interface import Row, Source

SCANNER = "betterleaks"
Attributes: TypeAlias = dict[str, str]
_TOOL = re.compile(rb'"driver"\s*:\s*\{[^{}\[\]]*?"name"\s*:\s*"(?i:betterleaks)"')
_FORMULA = ("'=", "'+", "'-", "'@", "'\t", "'\r")


class Component1(Struct, frozen=True):
    """A companion found by another rule."""

    rule: str = msgspec.field(name="RuleID", default="")
    secret: str = msgspec.field(name="Secret", default="")


class Set1(Struct, frozen=True):
    """One combination of companions."""

    components: tuple[Component1 | None, ...] | None = None
    status: str = msgspec.field(name="validationStatus", default="")


class Found1(Struct, frozen=True, rename="pascal"):
    """One finding of version 1."""

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
    attributes: Attributes | None = None
    capture_groups: dict[str, str] | None = None
    required_sets: tuple[Set1, ...] | None = None
    validation_status: str = ""


class Status(Struct, frozen=True):
    """A verdict of Betterleaks'."""

    status: str = ""


class Spot(Struct, frozen=True, rename="camel"):
    """A position, in the camel-case shape."""

    start_line: int | None = None
    start_column: int | None = None


class ComponentC(Struct, frozen=True, rename="camel"):
    """A companion, in the camel-case shape."""

    rule_id: str = msgspec.field(name="ruleID", default="")
    secret: str = ""


class SetC(Struct, frozen=True):
    """One combination of companions, in the camel-case shape."""

    components: tuple[ComponentC | None, ...] | None = None
    validation: Status = Status()
    analysis: Status = Status()


class FoundC(Struct, frozen=True, rename="camel"):
    """One finding in the camel-case shape of the development between 1 and 2."""

    rule_id: str = msgspec.field(name="ruleID")
    secret: str = ""
    attributes: Attributes | None = None
    capture_groups: dict[str, str] | None = None
    location: Spot = Spot()
    validation: Status = Status()
    analysis: Status = Status()
    component_sets: tuple[SetC, ...] | None = None


class Match(Struct, frozen=True):
    """What matched: `value` is the secret, `full` (not read) is wider."""

    value: str = ""


class Location(Struct, frozen=True):
    """Where, in version 2."""

    path: str = ""
    start_line: int | None = None
    start_column: int | None = None


class Component2(Struct, frozen=True):
    """A companion, in version 2."""

    rule_id: str = ""
    match: Match = Match()


class Set2(Struct, frozen=True):
    """One combination of companions, in version 2."""

    components: tuple[Component2 | None, ...] | None = None
    analysis: Status = Status()


class Found2(Struct, frozen=True):
    """One finding of version 2."""

    rule_id: str
    match: Match
    location: Location = Location()
    attributes: Attributes | None = None
    analysis: Status = Status()
    component_sets: tuple[Set2, ...] | None = None


class Scan(Struct, frozen=True):
    """The closing record of version 2."""

    state: str = ""


class Line2(Struct, frozen=True):
    """One line of version 2."""

    schema_version: str
    finding: Found2 | None = None
    scan: Scan | None = None


class _Set(Struct, frozen=True):
    """Any version's combination of companions: names and values, and its own verdict."""

    pairs: tuple[tuple[str, str], ...] = ()
    status: str = ""


def _claimed(status: str) -> Claimed:
    match status:
        case "valid":
            return Claimed.LIVE
        case "invalid" | "revoked":
            return Claimed.DEAD
        case "" | "none" | "needs_validation":
            return Claimed.UNCHECKED
        case _:
            return Claimed.UNKNOWN


def _visibility(told: Attributes) -> Visibility:
    word = told.get("github.visibility") or told.get("gitlab.visibility") or told.get("huggingface.visibility")
    return {"public": Visibility.PUBLIC, "private": Visibility.PRIVATE, "internal": Visibility.PRIVATE}.get(
        word or "", Visibility.UNKNOWN
    )


def _place(told: Attributes, path: str, line: int | None, column: int | None) -> Place:
    """Build the place from the attributes, whose keys are the same in all versions."""
    path, line, column = path or told.get("path", ""), line or None, column or None
    if name := told.get("container.image"):
        named = image(name, digest=told.get("container.digest"), layer=told.get("container.layer_digest"))
        return Place(SourceKind.DOCKER, image=named, path=path or None, line=line, column=column)
    if bucket := told.get("s3.bucket") or told.get("gcs.bucket"):
        return Place(SourceKind.BUCKET, repository=bucket, path=path or None, line=line, column=column)
    link = told.get("url", "")
    home = (
        told.get("git.remote_url")
        or told.get("github.repo_url")
        or told.get("gitlab.project.url")
        or told.get("huggingface.repo_url")
    )
    if home or "git.sha" in told or told.get("resource", "").startswith(("git.", "github.", "gitlab.")):
        return Place(
            SourceKind.GIT,
            repository=repository(home) if home else repository_of(link),
            path=path or None,
            line=line,
            column=column,
            revision=told.get("git.sha") or None,
            author=author(told.get("git.author_name"), told.get("git.author_email")),
            visibility=_visibility(told),
            url=address(link),
        )
    if "!" in path and (found := in_image(path)):
        return Place(SourceKind.DOCKER, image=found[0], path=found[1], line=line, column=column)
    return Place(SourceKind.FILESYSTEM, path=path or None, line=line, column=column, url=address(link))


class _Found(Struct, frozen=True):
    """Any version's finding."""

    rule: str
    secret: str
    place: Place
    status: str
    date: str
    sets: tuple[_Set, ...] = ()
    captures: tuple[tuple[str, str], ...] = ()


def _emit(row: int, found: _Found) -> Iterator[Claim]:
    value = shown(found.secret)
    own = tuple((name, text) for name, text in found.captures if text != found.secret)
    for one in found.sets or (_Set(),):
        yield Claim(
            SCANNER,
            found.rule,
            value,
            found.place,
            row,
            companions((*one.pairs, *own)),
            claimed=_claimed(one.status or found.status),
            seen_at=moment(found.date) if found.date else None,
        )


def _claims1(row: int, found: Found1) -> Iterator[Claim]:
    told = dict(found.attributes or {})
    for key, text in (
        ("git.sha", found.commit),
        ("git.author_name", found.author),
        ("git.author_email", found.email),
        ("git.date", found.date),
        ("url", found.link),
    ):
        if text:
            told.setdefault(key, text)
    sets = tuple(
        _Set(tuple((one.rule, one.secret) for one in some.components or () if one), some.status)
        for some in found.required_sets or ()
    )
    place = _place(told, found.symlink_file or found.file, found.start_line, found.start_column)
    captures = tuple((found.capture_groups or {}).items())
    date = told.get("git.date", "")
    return _emit(row, _Found(found.rule_id, found.secret, place, found.validation_status, date, sets, captures))


def _claims_c(row: int, found: FoundC) -> Iterator[Claim]:
    told = found.attributes or {}
    sets = tuple(
        _Set(
            tuple((one.rule_id, one.secret) for one in some.components or () if one),
            some.analysis.status or some.validation.status,
        )
        for some in found.component_sets or ()
    )
    place = _place(told, "", found.location.start_line, found.location.start_column)
    status = found.analysis.status or found.validation.status
    captures = tuple((found.capture_groups or {}).items())
    date = told.get("git.date", "")
    return _emit(row, _Found(found.rule_id, found.secret, place, status, date, sets, captures))


def _claims2(row: int, found: Found2) -> Iterator[Claim]:
    told = found.attributes or {}
    sets = tuple(
        _Set(tuple((one.rule_id, one.match.value) for one in some.components or () if one), some.analysis.status)
        for some in found.component_sets or ()
    )
    where = found.location
    place = _place(told, where.path, where.start_line, where.start_column)
    date = told.get("git.date", "")
    return _emit(row, _Found(found.rule_id, found.match.value, place, found.analysis.status, date, sets))


def _many(
    rows: Iterable[Row[msgspec.Struct] | Skipped], build: Callable[..., Iterator[Claim]]
) -> Iterator[Claim | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
        else:
            yield from build(row.number, row.item)


def _parse1(source: Source) -> Iterator[Claim | Skipped]:
    return _many(json_items(source, Found1, "*"), _claims1)


def _parse_c(source: Source) -> Iterator[Claim | Skipped]:
    return _many(json_items(source, FoundC, "*"), _claims_c)


def _parse_c_lines(source: Source) -> Iterator[Claim | Skipped]:
    return _many(jsonl(source, FoundC), _claims_c)


def _parse2(source: Source) -> Iterator[Claim | Skipped]:
    def note(raw: bytes) -> None:
        try:
            whole = msgspec.json.decode(raw, type=Scan).state == "complete"
        except (MsgspecError, ValueError, RecursionError):
            whole = False
        if not whole:
            source.cut()

    return _many(json_items(source, Found2, "findings", "*", notes={("scan",): note}), _claims2)


def _parse2_lines(source: Source) -> Iterator[Claim | Skipped]:
    state = ""
    for row in jsonl(source, Line2):
        if isinstance(row, Skipped):
            yield row
        elif row.item.finding:
            yield from _claims2(row.number, row.item.finding)
        elif row.item.scan:
            state = row.item.scan.state
        else:
            yield Skipped(
                row.number, "finding", "it holds neither a finding nor a scan", "give Betterleaks' own report"
            )
    if state != "complete":
        source.cut()


def _parse_csv(source: Source) -> Iterator[Claim | Skipped]:
    for row in csv_rows(source, "RuleID", "Secret", "File"):
        if isinstance(row, Skipped):
            yield row
            continue
        cells = {name: text[1:] if text.startswith(_FORMULA) else text for name, text in row.item.items()}
        try:
            found = msgspec.convert(cells, Found1, strict=False)
        except msgspec.ValidationError as error:
            yield bad(row.number, b"", error)
        else:
            yield from _claims1(row.number, found)


def _claim_sarif(row: int, result: sarif.Result) -> Claim:
    where = result.locations[0].physical_location if result.locations else sarif.Physical()
    prints = result.partial_fingerprints
    found = Found1(
        rule_id=result.rule_id,
        secret=where.region.snippet.text if where.region.snippet else "",
        file=where.artifact_location.uri,
        start_line=where.region.start_line,
        start_column=where.region.start_column,
        commit=prints.commit_sha,
        author=prints.author,
        email=prints.email,
        date=prints.date,
    )
    return next(_claims1(row, found))


def _parse_sarif(source: Source) -> Iterator[Claim | Skipped]:
    return claims(sarif.results(source), _claim_sarif)


def _is(sure: object) -> Likelihood:
    return Likelihood.CERTAIN if sure else Likelihood.NO


def _sniff1(head: bytes) -> Likelihood:
    marks = (b'"Attributes"', b'"ValidationStatus"', b'"RequiredSets"', b'"CaptureGroups"')
    row = first(head, "*") if head.lstrip()[:1] == b"[" else b""
    return _is(b'"RuleID"' in row and any(mark in row for mark in marks))


def _sniff_c(head: bytes) -> Likelihood:
    row = first(head, "*") if head.lstrip()[:1] == b"[" else b""
    return _is(b'"ruleID"' in row and b'"secret"' in row)


def _sniff_c_lines(head: bytes) -> Likelihood:
    return _is(re.match(rb'\s*\{\s*"ruleID"\s*:', head) and b'"secret"' in head)


def _sniff2(head: bytes) -> Likelihood:
    return _is(re.match(rb'\s*\{\s*"schema_version"\s*:\s*"[^"]*"\s*,\s*"findings"', head))


def _sniff2_lines(head: bytes) -> Likelihood:
    return _is(re.match(rb'\s*\{\s*"schema_version"\s*:\s*"[^"]*"\s*,\s*"(?:finding|scan)"', head))


def _sniff_csv(head: bytes) -> Likelihood:
    first = head.lstrip().split(b"\n", 1)[0]
    return _is(first.startswith(b"RuleID") and b"SymlinkFile" in first and b"MatchContext" in first)


def _sniff_sarif(head: bytes) -> Likelihood:
    return _is(b'"runs"' in head and _TOOL.search(head))


FORMATS = (
    Format("betterleaks-json", SCANNER, "Betterleaks 2, -o FILE.json", _sniff2, _parse2),
    Format("betterleaks-jsonl", SCANNER, "Betterleaks 2, --jsonl or -o FILE.jsonl", _sniff2_lines, _parse2_lines),
    Format("betterleaks-json-v1", SCANNER, "Betterleaks 1, --report-format json", _sniff1, _parse1),
    Format("betterleaks-json-dev", SCANNER, "Betterleaks between 1 and 2, JSON", _sniff_c, _parse_c),
    Format("betterleaks-jsonl-dev", SCANNER, "Betterleaks between 1 and 2, JSONL", _sniff_c_lines, _parse_c_lines),
    Format("betterleaks-csv", SCANNER, "Betterleaks 1, --report-format csv", _sniff_csv, _parse_csv),
    Format("betterleaks-sarif", SCANNER, "Betterleaks 1, --report-format sarif", _sniff_sarif, _parse_sarif),
)
