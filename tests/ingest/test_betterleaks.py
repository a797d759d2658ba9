"""Betterleaks 1, 2 and what stood between."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from samples import (
    COMMIT,
    LAYER,
    beside,
    betterleaks_row,
    gitleaks_row,
    ingest,
    jsonl,
    parse,
    sarif,
    sarif_result,
    token,
    value,
)

from verifier.model import Claimed, Image, Masked, Place, SourceKind, Visibility

if TYPE_CHECKING:
    from pathlib import Path

SCAN = {"state": "complete", "num_findings": 1, "status_counts": {"valid": 0, "none": 1}}


def version2(*rows: dict[str, object], scan: object = SCAN) -> bytes:
    return json.dumps({"schema_version": "1", "findings": list(rows), "scan": scan}, indent=1).encode()


def version2_lines(*rows: dict[str, object], scan: object = SCAN) -> bytes:
    lines = [{"schema_version": "1", "finding": row} for row in rows]
    return jsonl(*lines, {"schema_version": "1", "scan": scan})


def component(rule: str, text: str) -> dict[str, object]:
    return {"rule_id": rule, "match": {"full": text, "value": text}, "location": {"path": "a"}}


def version1_row(**change: object) -> dict[str, object]:
    return gitleaks_row(Attributes={"path": "app/settings.py", "resource": "fs.content"}) | change


def camel_row(**change: object) -> dict[str, object]:
    row = {
        "ruleID": "github-pat",
        "description": "d",
        "confidence": "high",
        "match": "m",
        "secret": token(),
        "attributes": {"path": "app/settings.py", "resource": "fs.content"},
        "location": {"startLine": 3, "endLine": 3, "startColumn": 7, "endColumn": 9},
        "tags": [],
    }
    return row | change


def as_json(*rows: dict[str, object]) -> bytes:
    return json.dumps(rows, indent=1).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("betterleaks-json", version2(betterleaks_row())),
        ("betterleaks-jsonl", version2_lines(betterleaks_row())),
        ("betterleaks-json-v1", as_json(version1_row())),
        ("betterleaks-json-dev", as_json(camel_row())),
        ("betterleaks-jsonl-dev", jsonl(camel_row())),
        ("betterleaks-sarif", sarif("betterleaks", sarif_result("github-pat", token()))),
    ],
)
def test_every_form_is_sniffed_and_told_whole(name: str, data: bytes, tmp_path: Path) -> None:
    report, (claim,), skipped = ingest(tmp_path / "r", data)
    assert (report.format.name, skipped, report.complete) == (name, [], True)
    assert claim.scanner == "betterleaks"
    assert (claim.rule, value(claim)) in {("gitlab-pat", token("glpat-", 20)), ("github-pat", token())}
    assert claim.place.source is SourceKind.FILESYSTEM
    assert claim.place.line in {3, 4}
    assert claim.place.path in {"app/settings.py", "tree/app/.env"}


def test_csv_with_context_and_defused_formulas(tmp_path: Path) -> None:
    data = (
        b"RuleID,Commit,File,SymlinkFile,Secret,Match,StartLine,EndLine,StartColumn,EndColumn,Author,Message,Date,"
        b"Email,Fingerprint,Tags,MatchContext\n"
        b"generic,,'-f.py,,'=2+5,m,3,3,7,9,,,,,fp,,ctx\n"
        b"generic,,f.py,,x,m,three,3,7,9,,,,,fp,,ctx\n"
        b"generic,,f.py,,x\n"
    )
    report, (claim,), skipped = ingest(tmp_path / "r", data)
    assert report.format.name == "betterleaks-csv"
    assert (value(claim), claim.place.path, claim.place.line) == ("=2+5", "-f.py", 3)
    assert [(row.row, row.field) for row in skipped] == [(3, "StartLine"), (4, None)]


def test_each_set_of_components_is_a_claim_of_its_own() -> None:
    sets = [
        {"components": [component("aws-secret-access-key", "a"), None], "analysis": {"status": "valid"}},
        {"components": [component("aws-secret-access-key", "b")]},
        {"components": None},
    ]
    row = betterleaks_row(component_sets=sets, analysis={"status": "invalid"})
    for name, form in (("betterleaks-json", version2), ("betterleaks-jsonl", version2_lines)):
        rows = parse(name, form(row))
        assert [(beside(c), c.claimed) for c in rows] == [
            ({"aws-secret-access-key": "a"}, Claimed.LIVE),
            ({"aws-secret-access-key": "b"}, Claimed.DEAD),
            ({}, Claimed.DEAD),
        ]


def test_sets_and_capture_groups_of_earlier_shapes() -> None:
    old = version1_row(
        CaptureGroups={"user": "jo", "secret": token()},
        RequiredSets=[{"components": [{"RuleID": "c", "Secret": "s", "Match": "m"}], "validationStatus": "revoked"}],
    )
    (claim,) = parse("betterleaks-json-v1", as_json(old))
    assert (beside(claim), claim.claimed) == ({"c": "s", "user": "jo"}, Claimed.DEAD)
    between = camel_row(
        captureGroups={"user": "jo"},
        componentSets=[{"components": [{"ruleID": "c", "secret": "REDACTED"}], "validation": {"status": "valid"}}],
    )
    (claim,) = parse("betterleaks-json-dev", as_json(between))
    assert (beside(claim), claim.claimed) == ({"user": "jo"}, Claimed.LIVE)


@pytest.mark.parametrize(
    ("status", "claimed"),
    [
        ("valid", Claimed.LIVE),
        ("invalid", Claimed.DEAD),
        ("revoked", Claimed.DEAD),
        ("needs_validation", Claimed.UNCHECKED),
        ("", Claimed.UNCHECKED),
        ("none", Claimed.UNCHECKED),
        ("unknown", Claimed.UNKNOWN),
        ("error", Claimed.UNKNOWN),
    ],
)
def test_what_the_scanner_believed(status: str, claimed: Claimed) -> None:
    (two,) = parse("betterleaks-json", version2(betterleaks_row(analysis={"status": status})))
    (first,) = parse("betterleaks-json-v1", as_json(version1_row(ValidationStatus=status)))
    (between,) = parse("betterleaks-json-dev", as_json(camel_row(validation={"status": status})))
    assert (two.claimed, first.claimed, between.claimed) == (claimed, claimed, claimed)


def test_a_redacted_value_is_a_mask() -> None:
    (claim,) = parse("betterleaks-json", version2(betterleaks_row(match={"value": "glpat-vS..."})))
    assert claim.value == Masked("glpat-vS...")


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (
            {"container.image": "r.example.com/acme/api:1.2", "container.digest": f"sha256:{LAYER}",
             "container.layer_digest": f"sha256:{LAYER}", "resource": "container.file", "path": "/app.env"},
            Place(
                SourceKind.DOCKER,
                image=Image(name="api", namespace="acme", registry="r.example.com", tag="1.2",
                            digest=f"sha256:{LAYER}", layer=f"sha256:{LAYER}"),
                path="/app.env", line=4, column=14,
            ),
        ),
        ({"s3.bucket": "b", "path": "k"}, Place(SourceKind.BUCKET, repository="b", path="k", line=4, column=14)),
        (
            {"resource": "git.patch_content", "git.sha": COMMIT, "git.author_name": "Jo", "git.remote_url":
             "https://u:p@github.com/a/b.git", "github.visibility": "public", "path": "f"},
            Place(SourceKind.GIT, repository="https://github.com/a/b", path="f", line=4, column=14, revision=COMMIT,
                  author="Jo", visibility=Visibility.PUBLIC),
        ),
        (
            {"resource": "gitlab.issue", "url": "https://gitlab.com/a/b/-/issues/1", "gitlab.visibility": "internal"},
            Place(SourceKind.GIT, line=4, column=14, visibility=Visibility.PRIVATE,
                  url="https://gitlab.com/a/b/-/issues/1"),
        ),
        (
            {"path": f"a.tar!{LAYER}/layer.tar!x"},
            Place(SourceKind.DOCKER, image=Image(name="a.tar", layer=LAYER), path="x", line=4, column=14),
        ),
    ],
)  # fmt: skip
def test_every_attribute_finds_its_place(told: dict[str, str], place: Place) -> None:
    row = betterleaks_row(attributes=told, location={"start_line": 4, "start_column": 14})
    (claim,) = parse("betterleaks-json", version2(row))
    assert claim.place == place


def test_version_1_tells_the_commit() -> None:
    row = version1_row(
        Commit=COMMIT, Author="Jo", Email="jo@x.y", Date="2026-01-02T03:04:05Z", Link=f"https://h/a/b/blob/{COMMIT}/f"
    )
    (claim,) = parse("betterleaks-json-v1", as_json(row))
    assert (claim.place.repository, claim.place.revision, claim.place.author) == (
        "https://h/a/b",
        COMMIT,
        "Jo <jo@x.y>",
    )
    assert claim.seen_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("scan", [{"state": "canceled"}, {}, [1]])
def test_a_scan_that_did_not_end_is_incomplete(scan: object, tmp_path: Path) -> None:
    report, found, _ = ingest(tmp_path / "r", version2(betterleaks_row(), scan=scan))
    assert (len(found), report.complete) == (1, False)
    report, found, _ = ingest(tmp_path / "r", version2_lines(betterleaks_row(), scan=scan))
    assert (len(found), report.complete) == (1, False)


def test_lines_without_the_closing_record_are_incomplete(tmp_path: Path) -> None:
    data = jsonl({"schema_version": "1", "finding": betterleaks_row()})
    report, found, skipped = ingest(tmp_path / "r", data)
    assert (len(found), skipped, report.complete) == (1, [], False)


def test_an_empty_scan_is_complete(tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", version2_lines())
    assert (report.format.name, found, skipped, report.complete) == ("betterleaks-jsonl", [], [], True)


def test_bad_rows_are_named() -> None:
    rows = parse(
        "betterleaks-jsonl", jsonl({"schema_version": "1"}, {"schema_version": "1", "finding": {"rule_id": 5}})
    )
    assert [(row.row, row.field) for row in rows] == [(1, "finding"), (2, "finding.rule_id")]
    rows = parse("betterleaks-json", version2({"rule_id": "r"}, betterleaks_row()))
    assert [(row.row, getattr(row, "field", "ok")) for row in rows] == [(1, "match"), (2, "ok")]
