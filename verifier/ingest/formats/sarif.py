"""SARIF 2.1.0 of any tool (OASIS standard), for what its scanner's own SARIF format does not take first.

A snippet may be wider than the secret. Where there is no doubt which part is the secret it is taken; where there is,
the row is kept as a finding without it, to be read back with `--source`. The scanner is the tool's name, mapped to
ours where known; with several runs each has its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from verifier.ingest.clues import has_keys, isolate, opens_with, unword
from verifier.ingest.interface import Format, Likelihood, Row
from verifier.ingest.stream import json_items
from verifier.model import Absent, Claim, Claimed, Hidden, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source
    from verifier.ingest.stream import Notes
    from verifier.secret import Secret

_SCANNERS = {
    "betterleaks": "betterleaks",
    "detect-secrets": "detect-secrets",
    "ggshield": "ggshield",
    "gitleaks": "gitleaks",
    "keyhog": "keyhog",
    "kingfisher": "kingfisher",
    "nosey parker": "noseyparker",
    "noseyparker": "noseyparker",
    "semgrep": "semgrep",
    "semgrep oss": "semgrep",
    "titus": "titus",
    "trivy": "trivy",
    "trufflehog": "trufflehog",
}
_DEAD = frozenset({"revoked", "invalid", "inactive", "dead"})
_LIVE = frozenset({"valid", "verified", "active", "live", "confirmed_valid"})
_STATES = ("validity", "validation_status", "validation_state", "verification", "status")


class _Text(Struct):
    text: str | None = None


class _Region(Struct, rename="camel"):
    start_line: int | None = None
    start_column: int | None = None
    snippet: _Text | None = None


class _Artifact(Struct):
    uri: str | None = None


class _Physical(Struct, rename="camel"):
    artifact_location: _Artifact | None = None
    region: _Region | None = None


class _Location(Struct, rename="camel"):
    physical_location: _Physical | None = None


class _Rule(Struct):
    id: str | None = None


class _Result(Struct, rename="camel"):
    rule_id: str | None = None
    rule: _Rule | None = None
    rule_index: int | None = None
    kind: str = "fail"
    locations: list[_Location] | None = None
    partial_fingerprints: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None


class _Driver(Struct):
    name: str = ""
    rules: list[_Rule] = []


class _Tool:
    """The tool of the run being read, once its description has come by (it mostly stands first)."""

    def __init__(self) -> None:
        self.scanner = "sarif"
        self.rules: list[_Rule] = []
        self.notes: Notes = {("runs", "*", "tool", "driver"): self._take}

    def _take(self, raw: bytes) -> None:
        try:
            driver = msgspec.json.decode(raw, type=_Driver)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            driver = _Driver()
        name = driver.name.lower()
        self.scanner = _SCANNERS.get(name) or re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "sarif"
        self.rules = driver.rules

    def rule(self, result: _Result) -> str:
        """Return the rule's id, by name or by its number in the tool's list."""
        named = result.rule_id or (result.rule and result.rule.id)
        if named:
            return named
        index = result.rule_index
        listed = self.rules[index].id if index is not None and 0 <= index < len(self.rules) else None
        return listed or "unknown"


def _path(uri: str | None) -> str | None:
    """Return the file's path: URI escapes undone, `file://` dropped."""
    if not uri:
        return None
    parts = urlsplit(uri) if uri.startswith("file:") else None
    return unquote(parts.path if parts else uri)


def _claimed(result: _Result) -> Claimed:
    """Return what the tool says of validity, under the names that tools use."""
    for key in _STATES:
        state = (result.properties or {}).get(key)
        if isinstance(state, str) and state.lower() in _LIVE:
            return Claimed.LIVE
        if isinstance(state, str) and state.lower() in _DEAD:
            return Claimed.DEAD
    return Claimed.UNCHECKED


def _claims(row: Row[_Result], tool: _Tool) -> Iterator[Claim]:
    result = row.item
    if result.kind in ("pass", "notApplicable"):
        return
    commit = (result.partial_fingerprints or {}).get("commitSha")
    revision = commit if isinstance(commit, str) and commit else None
    for location in result.locations or [_Location()]:
        physical = location.physical_location or _Physical()
        region = physical.region or _Region()
        value: Secret | Hidden = unword(isolate(region.snippet.text)) if region.snippet else Absent()
        yield Claim(
            scanner=tool.scanner,
            rule=tool.rule(result),
            value=value,
            place=Place(
                SourceKind.GIT if revision else SourceKind.FILESYSTEM,
                path=_path(physical.artifact_location.uri) if physical.artifact_location else None,
                line=region.start_line or None,
                column=region.start_column or None,
                revision=revision,
            ),
            row=row.number,
            claimed=_claimed(result),
        )


def _sniff(head: bytes) -> Likelihood:
    if opens_with(head, b"{") and has_keys(head, "runs") and (b"sarif" in head.lower() or has_keys(head, "tool")):
        return Likelihood.GENERIC
    return Likelihood.NO


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    tool = _Tool()
    for row in json_items(source, _Result, "runs", "*", "results", "*", notes=tool.notes):
        yield from (row,) if isinstance(row, Skipped) else _claims(row, tool)


FORMATS = (Format(name="sarif", scanner="sarif", summary="SARIF 2.1.0 of any tool", sniff=_sniff, parse=_parse),)
