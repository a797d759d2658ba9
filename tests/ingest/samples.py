"""Small reports made up at run time, and how to read them: shared by the tests of all formats."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from verifier.ingest import read
from verifier.ingest.catalogue import formats
from verifier.ingest.plain import Plain
from verifier.model import Claim, Skipped
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from verifier.ingest import Report

LAYER = "ab" * 32
COMMIT = "1234567890" * 4


def token(prefix: str = "ghp_", length: int = 36, letter: str = "x") -> str:
    """Return a made-up token, put together at run time."""
    return prefix + letter * length


def aws_id() -> str:
    return "AK" + "IA" + "QWERTYUIOPASDFGH"


def aws_secret() -> str:
    return "s3cr3t/" * 5 + "abcde"


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Chopped(io.RawIOBase):
    """A stream that gives `size` bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    def read(self, _: int = -1) -> bytes:
        piece, self._data = self._data[: self._size], self._data[self._size :]
        return piece


def plain(data: bytes, size: int = 1 << 20) -> Plain:
    return Plain("report", Chopped(data, size))


def parse(name: str, data: bytes, size: int = 1 << 20) -> list[Claim | Skipped]:
    """Parse bytes as the named format."""
    source = plain(data, size)
    return list(formats()[name].parse(source))


def ingest(path: Path, data: bytes, as_format: str | None = None) -> tuple[Report, list[Claim], list[Skipped]]:
    """Write a report, read it as a user would, and sort what came out."""
    path.write_bytes(data)
    report = read(path, as_format)
    rows = list(report)
    found = [row for row in rows if isinstance(row, Claim)]
    skipped = [row for row in rows if isinstance(row, Skipped)]
    assert (report.findings, report.skipped) == (len(found), len(skipped))
    return report, found, skipped


def value(claim: Claim) -> str:
    """Return the secret of a claim."""
    assert isinstance(claim.value, Secret)
    return claim.value.reveal()


def beside(claim: Claim) -> dict[str, str]:
    """Return the companions of a claim."""
    return {name: secret.reveal() for name, secret in claim.companions.items()}


def everywhere(node: Any) -> Iterator[str]:
    """Yield every string in a decoded JSON value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, item in node.items():
            yield key
            yield from everywhere(item)
    elif isinstance(node, list):
        for item in node:
            yield from everywhere(item)


def gitleaks_row(**change: object) -> dict[str, object]:
    """One finding of gitleaks 8."""
    row = {
        "RuleID": "github-pat",
        "Description": "Uncovered a GitHub Personal Access Token.",
        "StartLine": 3,
        "EndLine": 3,
        "StartColumn": 7,
        "EndColumn": 47,
        "Match": f"key = {token()}",
        "Secret": token(),
        "File": "app/settings.py",
        "SymlinkFile": "",
        "Commit": "",
        "Entropy": 3.9,
        "Author": "",
        "Email": "",
        "Date": "",
        "Message": "",
        "Tags": [],
        "Fingerprint": "app/settings.py:github-pat:3",
    }
    return row | change


def trufflehog_row(source: str = "Git", where: dict[str, object] | None = None, **change: object) -> dict[str, object]:
    """One result of TruffleHog 3."""
    told = where or {
        "commit": COMMIT,
        "file": "keys",
        "email": "Jo Doe <jo@example.com>",
        "repository": "https://github.com/acme/api.git",
        "timestamp": "2022-06-16 10:17:40 -0700 -0700",
        "line": 4,
    }
    row = {
        "SourceMetadata": {"Data": {source: told}},
        "SourceID": 1,
        "SourceType": 16,
        "SourceName": "trufflehog - git",
        "DetectorType": 8,
        "DetectorName": "Github",
        "DetectorDescription": "GitHub hosts code.",
        "DecoderName": "PLAIN",
        "Verified": False,
        "VerificationFromCache": False,
        "Raw": token(),
        "RawV2": "",
        "Redacted": "",
        "ExtraData": {"rotation_guide": "https://example.com"},
        "StructuredData": None,
    }
    return row | change


def kingfisher_row(**change: object) -> dict[str, object]:
    """One match of Kingfisher 2."""
    finding = {
        "snippet": token("glpat-", 20),
        "fingerprint": "2794637658772212637",
        "confidence": "high",
        "entropy": "4.44",
        "validation": {"outcome": "not_attempted", "status": "Not Attempted", "response": ""},
        "language": "Unknown",
        "line": 4,
        "column_start": 13,
        "column_end": 38,
        "path": "tree/app/.env",
    }
    rule = {
        "title": "GITLAB-PAT => [BETTERLEAKS.GITLAB-PAT]",
        "name": "gitlab-pat",
        "id": "betterleaks.gitlab-pat",
        "description": "Identified a GitLab token.",
    }
    return {"rule": rule | {"id": change.pop("rule", rule["id"])}, "finding": finding | change}


def kingfisher_audit(**counts: int) -> dict[str, object]:
    summary = {
        "discovered": 1,
        "fetch_failed": 0,
        "scan_succeeded": 1,
        "scan_partial": 0,
        "scan_failed": 0,
        "pending": 0,
    }
    return {"schema": "kingfisher.repository-audit.v1", "run_id": "x", "summary": summary | counts, "repositories": []}


def betterleaks_row(**change: object) -> dict[str, object]:
    """One finding of Betterleaks 2."""
    finding = {
        "rule_id": "gitlab-pat",
        "rule_hash": "eb40",
        "description": "Identified a GitLab token.",
        "confidence": "high",
        "match": {"full": "T=" + token("glpat-", 20), "value": token("glpat-", 20), "fingerprint": "ebd5"},
        "attributes": {"resource": "fs.content"},
        "location": {"path": "tree/app/.env", "start_line": 4, "end_line": 4, "start_column": 14, "end_column": 39},
    }
    return finding | change


def sarif(tool: str, *results: dict[str, object], **run: object) -> bytes:
    """Return a SARIF file of one run."""
    driver = {"name": tool, "semanticVersion": "v8.0.0", "rules": [{"id": "r", "shortDescription": {"text": "]}"}}]}
    whole = {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": list(results)} | run]}
    return json.dumps(whole, indent=1).encode()


def sarif_result(rule: str, snippet: str, **properties: object) -> dict[str, object]:
    region = {"startLine": 3, "startColumn": 7, "endLine": 3, "endColumn": 9, "snippet": {"text": snippet}}
    place = {"physicalLocation": {"artifactLocation": {"uri": "app/settings.py"}, "region": region}}
    return {"ruleId": rule, "message": {"text": "found"}, "locations": [place | properties]}
