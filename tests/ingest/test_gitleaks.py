"""gitleaks 8 and 7, in all their forms."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import pytest
from samples import COMMIT, LAYER, gitleaks_row, ingest, jsonl, parse, sarif, sarif_result, token, value

from verifier.model import Absent, Image, Masked, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

GIT = {
    "Commit": COMMIT,
    "Author": "Jo Doe",
    "Email": "jo@example.com",
    "Date": "2026-11-24T03:34:14Z",
    "Link": f"https://github.com/acme/api/blob/{COMMIT}/app/settings.py#L3",
}


def as_csv(*rows: dict[str, object]) -> bytes:
    columns = [
        *("RuleID", "Commit", "File", "SymlinkFile", "Secret", "Match", "StartLine", "EndLine", "StartColumn"),
        *("EndColumn", "Author", "Message", "Date", "Email", "Fingerprint", "Tags"),
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"Tags": ""} for row in rows)
    return out.getvalue().encode()


def as_junit(*rows: dict[str, object]) -> bytes:
    cases = "".join(
        f'<testcase classname="c" file="f" name="n"><failure message="m" type="t">{escape(json.dumps(row, indent=1))}'
        "</failure></testcase>"
        for row in rows
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites><testsuite failures="1" name="gitleaks" tests="1">'
    return f"{head}{cases}</testsuite></testsuites>".encode()


def as_json(*rows: dict[str, object]) -> bytes:
    return json.dumps(list(rows), indent=1).encode()


def as_sarif(*rows: dict[str, object]) -> bytes:
    return sarif("gitleaks", *(sarif_result(str(row["RuleID"]), str(row["Secret"])) for row in rows))


FORMS = {
    "gitleaks-json": as_json,
    "gitleaks-jsonl": jsonl,
    "gitleaks-csv": as_csv,
    "gitleaks-junit": as_junit,
    "gitleaks-sarif": as_sarif,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_tells_rule_secret_and_place(name: str, tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", FORMS[name](gitleaks_row(), gitleaks_row(RuleID="other")))
    assert report.format.name == name
    assert report.complete
    assert not skipped
    assert [(c.scanner, c.rule) for c in found] == [("gitleaks", "github-pat"), ("gitleaks", "other")]
    assert value(found[0]) == token()
    assert found[0].place == Place(SourceKind.FILESYSTEM, path="app/settings.py", line=3, column=7)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("text", "kind"), [("REDACTED", Masked), (token()[:9] + "...", Masked), ("", Absent)])
def test_redacted_secrets_stay_findings(name: str, text: str, kind: type) -> None:
    (claim,) = parse(name, FORMS[name](gitleaks_row(Secret=text)))
    assert isinstance(claim.value, kind)
    assert not isinstance(claim.value, Secret)
    if isinstance(claim.value, Masked):
        assert claim.value.text == text


def test_a_git_finding_tells_commit_author_and_repository() -> None:
    (claim,) = parse("gitleaks-json", as_json(gitleaks_row(**GIT)))
    assert claim.place == Place(
        SourceKind.GIT,
        repository="https://github.com/acme/api",
        path="app/settings.py",
        line=3,
        column=7,
        revision=COMMIT,
        author="Jo Doe <jo@example.com>",
        url=GIT["Link"],
    )
    assert claim.seen_at == datetime(2026, 11, 24, 3, 34, 14, tzinfo=UTC)


def test_csv_and_junit_tell_the_commit_too() -> None:
    for name in ("gitleaks-csv", "gitleaks-junit"):
        (claim,) = parse(name, FORMS[name](gitleaks_row(**GIT)))
        assert (claim.place.revision, claim.place.author) == (COMMIT, "Jo Doe <jo@example.com>")


def test_sarif_tells_the_commit_too() -> None:
    result = sarif_result("github-pat", token()) | {
        "partialFingerprints": {"commitSha": COMMIT, "email": "jo@example.com", "author": "", "date": "10-19-2003"}
    }
    (claim,) = parse("gitleaks-sarif", sarif("gitleaks", result))
    assert (claim.place.source, claim.place.revision, claim.place.author) == (SourceKind.GIT, COMMIT, "jo@example.com")
    assert claim.seen_at is None  # a date of nobody's format


def test_a_symlink_is_the_place() -> None:
    (claim,) = parse("gitleaks-json", as_json(gitleaks_row(SymlinkFile="link.py", StartLine=0)))
    assert (claim.place.path, claim.place.line) == ("link.py", None)


def test_a_layer_inside_a_saved_image_is_a_docker_place() -> None:
    (claim,) = parse("gitleaks-json", as_json(gitleaks_row(File=f"img/api.tar!{LAYER}/layer.tar!app/.env")))
    assert claim.place == Place(
        SourceKind.DOCKER, image=Image(name="img/api.tar", layer=LAYER), path="app/.env", line=3, column=7
    )


@pytest.mark.parametrize("text", [b"[]", b"null", b"[]\n", b" null \n"])
def test_an_empty_report_is_complete_and_has_no_findings(text: bytes, tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", text, "gitleaks-json")
    assert (found, skipped, report.complete) == ([], [], True)


def test_an_empty_csv_is_a_complete_report_when_named(tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", b"", "gitleaks-csv")
    assert (found, skipped, report.complete) == ([], [], True)


def test_version_7() -> None:
    row = {
        "line": "x",
        "lineNumber": 13,
        "offender": token(),
        "commit": COMMIT,
        "repo": ".",
        "repoURL": "https://user:pw@example.com/acme/api.git",
        "leakURL": f"https://example.com/acme/api/blob/{COMMIT}/a.json#L13",
        "rule": "Github Personal Access Token",
        "commitMessage": "oops",
        "author": "Jo Doe",
        "email": "jo@example.com",
        "file": "a.json",
        "date": "2021-07-15T22:00:32+07:00",
        "tags": "key, Github",
    }
    data = as_json(row, row | {"repoURL": "", "repo": "api", "commit": ""})
    first, second = parse("gitleaks-json-v7", data)
    assert (first.rule, value(first), first.row) == ("Github Personal Access Token", token(), 1)
    assert first.place.repository == "https://example.com/acme/api"
    assert (first.place.line, first.place.revision) == (13, COMMIT)
    assert first.seen_at == datetime(2021, 7, 15, 22, 0, 32, tzinfo=timezone(timedelta(hours=7)))
    assert (second.place.source, second.place.repository) == (SourceKind.FILESYSTEM, "api")


def test_version_7_is_sniffed(tmp_path: Path) -> None:
    row = {"lineNumber": 13, "offender": token(), "rule": "r", "file": "a"}
    assert ingest(tmp_path / "r", as_json(row))[0].format.name == "gitleaks-json-v7"


def test_bad_rows_are_named_by_field_and_never_quoted() -> None:
    bad = gitleaks_row(StartLine=token("line"))
    del bad["RuleID"]
    rows = parse("gitleaks-json", as_json(gitleaks_row(), bad, gitleaks_row(Secret=5), gitleaks_row()))
    assert [getattr(row, "field", "ok") for row in rows] == ["ok", "StartLine", "Secret", "ok"]
    assert rows[1].row == 2
    assert "xxx" not in repr(rows)


@pytest.mark.parametrize("change", [{"StartLine": "three"}, {"StartLine": ""}])
def test_bad_numbers_in_csv_are_named(change: dict[str, str]) -> None:
    rows = parse("gitleaks-csv", as_csv(gitleaks_row(**change), gitleaks_row()))
    assert [getattr(row, "field", "ok") for row in rows] == ["StartLine", "ok"]


def test_bad_json_in_junit_is_named() -> None:
    good = as_junit(gitleaks_row())
    rows = parse("gitleaks-junit", good.replace(b"<testcase", b"<x><failure>{oops</failure></x><testcase", 1))
    assert [row.row for row in rows] == [1, 2]
    assert rows[0].reason == "it is not valid JSON"
