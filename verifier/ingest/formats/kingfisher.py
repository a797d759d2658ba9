"""Kingfisher 1.x and 2.x: JSON, JSONL and SARIF.

Shapes read off Kingfisher 2.14's own output and, for 1.x, its reporters' source. One envelope
`{findings, audit, access_map}` a repository; several may follow one another, and a summary of counts may stand last.
Early 1.x wrote an array (or lines) of `{id, matches: [...]}`. JSONL ends with audit lines. Redaction leaves
`[REDACTED:hash]`, of which nothing can be learnt, and no companions. Rule ids `kingfisher.*` are those of 1.x.

Images: `scan docker` names a file `IMAGE | path`, the layer lost; a saved image scanned as a file gives
`api.tar!<id>/layer.tar!path`, with the layer.
"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import MsgspecError, Raw, Struct, json

from verifier.ingest import sarif
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.pieces import address, author, companions, image_or_file, in_image, moment, repository
from verifier.ingest.stream import claims, json_items, jsonl
from verifier.ingest.walk import first
from verifier.model import Absent, Claim, Claimed, Place, Skipped, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verifier.ingest.interface import Row, Source
    from verifier.ingest.stream import Notes
    from verifier.model import Hidden

SCANNER = "kingfisher"
SCANNER_1 = "kingfisher-1.x"
NOTHING = Raw()
_REDACTED = re.compile(r"\[REDACTED(?::[0-9A-Fa-f]*)?\]")
_IN_IMAGE = " | "


class Rule(Struct, frozen=True):
    """The rule; `name` has meant several things, `id` only one."""

    id: str


class Validation(Struct, frozen=True):
    """What Kingfisher found out; `outcome` since 2.x."""

    outcome: str | None = None
    status: str | None = None


class Person(Struct, frozen=True):
    """A committer or author."""

    name: str | None = None
    email: str | None = None


class Commit(Struct, frozen=True):
    """A commit; `date` is a day."""

    id: str | None = None
    date: str | None = None
    committer: Person | None = None
    author: Person | None = None


class GitFile(Struct, frozen=True):
    """A file at a commit."""

    path: str | None = None
    url: str | None = None


class Git(Struct, frozen=True):
    """Where in a repository. Addresses may hold a password."""

    repository_url: str | None = None
    commit: Commit | None = None
    file: GitFile | None = None


class Finding(Struct, frozen=True):
    """What was found."""

    snippet: str = ""
    path: str = ""
    line: int | None = None
    column_start: int | None = None
    validation: Validation = Validation()
    dependent_captures: dict[str, str] | None = None
    git_metadata: Git | None = None
    validate_command: str | None = None


class Match(Struct, frozen=True):
    """Rule and finding."""

    rule: Rule
    finding: Finding


class Counts(Struct, frozen=True):
    """How the scanned repositories fared."""

    fetch_failed: int = 0
    scan_partial: int = 0
    scan_failed: int = 0
    pending: int = 0


class Audit(Struct, frozen=True):
    """The audit record of a run."""

    summary: Counts = Counts()


class Line(Struct, frozen=True):
    """One line of JSONL: a match, an early group of matches, or one of the closing records."""

    rule: Rule | None = None
    finding: Finding | None = None
    matches: tuple[Match, ...] | None = None
    audit: Raw = NOTHING
    access_map: Raw = NOTHING
    metadata: Raw = NOTHING
    findings: Raw = NOTHING


class Group(Struct, frozen=True):
    """One entry of the early arrays, which held either matches or groups of them."""

    matches: tuple[Match, ...] = ()
    rule: Rule | None = None
    finding: Finding | None = None


def _claimed(validation: Validation) -> Claimed:
    match validation.outcome or validation.status:
        case "verified_active" | "Active Credential":
            return Claimed.LIVE
        case "verified_inactive" | "Inactive Credential":
            return Claimed.DEAD
        case None | "" | "not_attempted" | "Not Attempted":
            return Claimed.UNCHECKED
        case _:
            return Claimed.UNKNOWN


def _value(snippet: str, command: str | None = None) -> Secret | Hidden:
    return Absent() if not snippet or _REDACTED.fullmatch(snippet) else Secret(_whole(snippet, command))


def _whole(snippet: str, command: str | None) -> str:
    """Return the connection string of which 2.x reports the password alone: it stands in the validate command only."""
    if not command or "://" not in command or "://" in snippet:
        return snippet
    try:
        last = shlex.split(command)[-1]
    except ValueError:
        return snippet
    return last if f":{snippet}@" in last else snippet


def _vars(command: str | None) -> Iterator[tuple[str, str]]:
    """Read `--var NAME='value'` out of a validate command: before 2.x, and in SARIF, companions stand only there."""
    if command and "--var " in command:
        try:
            words = shlex.split(command)
        except ValueError:
            return
        for flag, word in pairwise(words):
            if flag == "--var":
                name, _, value = word.partition("=")
                yield name, value


def _place(path: str, line: int | None, column: int | None, git: Git | None) -> Place:
    line, column = line or None, column or None
    if git:
        commit, file = git.commit or Commit(), git.file or GitFile()
        who = commit.author or commit.committer or Person()
        return Place(
            SourceKind.GIT,
            repository=repository(git.repository_url or ""),
            path=file.path or path or None,
            line=line,
            column=column,
            revision=commit.id,
            author=author(who.name, who.email),
            url=address(file.url or ""),
        )
    if _IN_IMAGE in path:
        named, _, inside = path.partition(_IN_IMAGE)
        return Place(SourceKind.DOCKER, image=image_or_file(named), path=inside, line=line, column=column)
    if "!" in path and (found := in_image(path)):
        return Place(SourceKind.DOCKER, image=found[0], path=found[1], line=line, column=column)
    return Place(SourceKind.FILESYSTEM, path=path or None, line=line, column=column)


def _claim(row: int, rule: Rule, finding: Finding) -> Claim:
    git = finding.git_metadata
    date = git.commit.date if git and git.commit else None
    beside = companions((finding.dependent_captures or {}).items()) or companions(_vars(finding.validate_command))
    return Claim(
        SCANNER_1 if rule.id.startswith("kingfisher.") else SCANNER,
        rule.id,
        _value(finding.snippet, finding.validate_command),
        _place(finding.path, finding.line, finding.column_start, git),
        row,
        beside,
        claimed=_claimed(finding.validation),
        seen_at=moment(date) if date else None,
    )


def _audited(source: Source) -> Callable[[bytes], None]:
    """Return what reads an audit record: a repository that was not fetched or scanned to its end cuts the report."""

    def note(raw: bytes) -> None:
        try:
            counts = json.decode(raw, type=Audit).summary
        except (MsgspecError, ValueError, RecursionError):
            return
        if counts.fetch_failed or counts.scan_partial or counts.scan_failed or counts.pending:
            source.cut()

    return note


def _parse_json(source: Source) -> Iterator[Claim | Skipped]:
    rows = json_items(source, Match, "findings", "*", notes={("audit",): _audited(source)})
    return claims(rows, lambda row, match: _claim(row, match.rule, match.finding))


def _groups(rows: Iterator[Row[Group] | Skipped]) -> Iterator[Claim | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
        elif row.item.rule and row.item.finding:
            yield _claim(row.number, row.item.rule, row.item.finding)
        elif row.item.matches:
            yield from (_claim(row.number, match.rule, match.finding) for match in row.item.matches)
        else:
            yield _nothing(row.number)


def _nothing(row: int) -> Skipped:
    return Skipped(row, "finding", "it holds neither a finding nor an audit record", "give Kingfisher's own report")


def _parse_early(source: Source) -> Iterator[Claim | Skipped]:
    return _groups(json_items(source, Group, "*"))


def _parse_jsonl(source: Source) -> Iterator[Claim | Skipped]:
    audited = _audited(source)
    for row in jsonl(source, Line):
        if isinstance(row, Skipped):
            yield row
            continue
        number, line = row
        if line.rule and line.finding:
            yield _claim(number, line.rule, line.finding)
        elif line.matches is not None:
            yield from (_claim(number, match.rule, match.finding) for match in line.matches)
        elif line.audit:
            audited(bytes(line.audit))
        elif not (line.access_map or line.metadata or line.findings):
            yield _nothing(number)


def _claim_sarif(row: int, result: sarif.Result) -> Claim:
    location = result.locations[0] if result.locations else sarif.Location()
    where, extra = location.physical_location, location.properties
    finding = Finding(
        snippet=where.region.snippet.text if where.region.snippet else "",
        path=where.artifact_location.uri,
        line=where.region.start_line,
        column_start=where.region.start_column,
        validation=Validation(extra.validation_outcome, extra.validation_status),
        git_metadata=_git(extra.git_metadata) if extra.git_metadata else None,
        validate_command=extra.validate_command,
    )
    return _claim(row, Rule(result.rule_id), finding)


def _git(raw: Raw) -> Git | None:
    try:
        return json.decode(raw, type=Git | None)
    except (MsgspecError, ValueError, RecursionError):
        return None


def _parse_sarif(source: Source) -> Iterator[Claim | Skipped]:
    notes: Notes = {("runs", "*", "properties", "repository_audit"): _audited(source)}
    return claims(sarif.results(source, notes), _claim_sarif)


def _is_match(head: bytes) -> bool:
    return b'"finding"' in head and b'"rule"' in head and (b'"snippet"' in head or b'"column_start"' in head)


def _sniff_json(head: bytes) -> Likelihood:
    start = re.match(rb'\s*\{\s*"findings"\s*:\s*\[(\s*\])?', head)
    if start and (_is_match(first(head, "findings", "*")) or b"kingfisher.repository-audit" in head):
        return Likelihood.CERTAIN
    return Likelihood.LIKELY if start and start[1] else Likelihood.NO


def _sniff_early(head: bytes) -> Likelihood:
    fits = head.lstrip()[:1] == b"[" and _is_match(first(head, "*"))
    return Likelihood.CERTAIN if fits else Likelihood.NO


def _sniff_jsonl(head: bytes) -> Likelihood:
    start = re.match(rb'\s*\{\s*"(?:rule|finding|id|audit)"\s*:', head)
    audited = b"kingfisher.repository-audit" in head
    return Likelihood.CERTAIN if start and (_is_match(first(head)) or audited) else Likelihood.NO


def _sniff_sarif(head: bytes) -> Likelihood:
    fits = (
        b'"validation_outcome"' in head
        or b'"validation_status"' in head
        or re.search(rb'"name"\s*:\s*"kingfisher"|kingfisher\.repository-audit', head)
    )
    return Likelihood.CERTAIN if b'"runs"' in head and fits else Likelihood.NO


FORMATS = (
    Format("kingfisher-json", SCANNER, "Kingfisher, --format json", _sniff_json, _parse_json),
    Format("kingfisher-jsonl", SCANNER, "Kingfisher, --format jsonl", _sniff_jsonl, _parse_jsonl),
    Format("kingfisher-array", SCANNER_1, "Kingfisher of early 2025, --format json", _sniff_early, _parse_early),
    Format("kingfisher-sarif", SCANNER, "Kingfisher, --format sarif", _sniff_sarif, _parse_sarif),
)
