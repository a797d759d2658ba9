"""Kingfisher 1.x and 2.x: samples, and the real scanner where it is installed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from presence import lacking
from samples import (
    COMMIT,
    LAYER,
    beside,
    ingest,
    jsonl,
    kingfisher_audit,
    kingfisher_row,
    parse,
    sarif,
    sarif_result,
    token,
    value,
)

from verifier.ingest import read
from verifier.model import Absent, Claim, Claimed, Image, Place, SourceKind
from verifier.secret import Secret

GIT = {
    "repository_url": "https://user:pw@github.com/acme/api",
    "commit": {
        "id": COMMIT,
        "url": "https://user:pw@github.com/acme/api/commit/1",
        "date": "2026-11-24",
        "committer": {"name": "Bot", "email": "bot@example.com"},
        "author": {"name": "Jo Doe", "email": "jo@example.com"},
        "message": "oops",
    },
    "file": {"path": "a.env", "url": "https://user:pw@github.com/acme/api/blob/1/a.env#L4", "git_command": "git show"},
}


def envelope(*rows: dict[str, object], **more: object) -> bytes:
    return json.dumps({"findings": list(rows), "audit": kingfisher_audit()} | more).encode() + b"\n"


def as_jsonl(*rows: dict[str, object]) -> bytes:
    return jsonl(*rows, {"access_map": []}, {"audit": kingfisher_audit()}, {"findings": 1, "scan_duration": 0.1})


def as_array(*rows: dict[str, object]) -> bytes:
    return json.dumps([{"id": "x", "matches": [row]} for row in rows], indent=2).encode()


def as_sarif(*rows: dict[str, object]) -> bytes:
    results = []
    for row in rows:
        finding = row["finding"]
        validation = finding["validation"]
        properties = {
            "validation_outcome": validation.get("outcome"),
            "validation_status": validation.get("status"),
            "validate_command": "kingfisher validate",
            "git_metadata": finding.get("git_metadata"),
        }
        result = sarif_result(row["rule"]["id"], finding["snippet"], properties=properties)
        where = result["locations"][0]["physicalLocation"]
        where["artifactLocation"]["uri"] = finding["path"]
        where["region"] |= {"startLine": finding["line"], "startColumn": finding["column_start"]}
        results.append(result)
    return sarif("kingfisher", *results, properties={"repository_audit": kingfisher_audit()})


FORMS = {
    "kingfisher-json": envelope,
    "kingfisher-jsonl": as_jsonl,
    "kingfisher-array": as_array,
    "kingfisher-sarif": as_sarif,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_tells_rule_secret_and_place(name: str, tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", FORMS[name](kingfisher_row(), kingfisher_row()))
    assert (report.format.name, skipped, report.complete) == (name, [], True)
    assert [(c.scanner, c.rule, value(c)) for c in found] == [
        ("kingfisher", "betterleaks.gitlab-pat", token("glpat-", 20))
    ] * 2
    assert found[0].place == Place(SourceKind.FILESYSTEM, path="tree/app/.env", line=4, column=13)


@pytest.mark.parametrize("name", FORMS)
def test_a_git_finding_tells_all_and_no_password(name: str) -> None:
    claim = parse(name, FORMS[name](kingfisher_row(git_metadata=GIT, path="")))[0]
    assert claim.place == Place(
        SourceKind.GIT,
        repository="https://github.com/acme/api",
        path="a.env",
        line=4,
        column=13,
        revision=COMMIT,
        author="Jo Doe <jo@example.com>",
        url="https://github.com/acme/api/blob/1/a.env#L4",
    )
    assert claim.seen_at == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize("name", FORMS)
def test_a_redacted_snippet_is_absent(name: str) -> None:
    assert parse(name, FORMS[name](kingfisher_row(snippet="[REDACTED:507eb50f]")))[0].value == Absent()


@pytest.mark.parametrize(
    ("validation", "claimed"),
    [
        ({"outcome": "verified_active", "status": "Active Credential"}, Claimed.LIVE),
        ({"outcome": "verified_inactive"}, Claimed.DEAD),
        ({"outcome": "inconclusive", "status": "Inactive Credential"}, Claimed.UNKNOWN),
        ({"status": "Active Credential"}, Claimed.LIVE),
        ({"status": "Inactive Credential"}, Claimed.DEAD),
        ({"status": "Not Attempted"}, Claimed.UNCHECKED),
        ({}, Claimed.UNCHECKED),
    ],
)
def test_what_the_scanner_believed(validation: dict[str, str], claimed: Claimed) -> None:
    for name, form in FORMS.items():
        assert parse(name, form(kingfisher_row(validation=validation)))[0].claimed is claimed


def test_companions() -> None:
    command = "kingfisher validate --rule 'r' --var AKID='a'\\''b' --var HOST=h 'secret'"
    rows = [
        kingfisher_row(dependent_captures={"AWS_SECRET_ACCESS_KEY": "s", "EMPTY": ""}, validate_command=command),
        kingfisher_row(validate_command=command),
        kingfisher_row(validate_command="kingfisher --var X='unclosed"),
        kingfisher_row(validate_command="kingfisher validate 'x'"),
    ]
    assert [beside(claim) for claim in parse("kingfisher-json", envelope(*rows))] == [
        {"AWS_SECRET_ACCESS_KEY": "s"},
        {"AKID": "a'b", "HOST": "h"},
        {},
        {},
    ]


@pytest.mark.parametrize(
    ("path", "image", "inside"),
    [
        ("img/api.tar | app/.env", Image(name="img/api.tar"), "app/.env"),
        (
            "r.example.com/acme/api:1.2 | app/.env",
            Image(name="api", namespace="acme", registry="r.example.com", tag="1.2"),
            "app/.env",
        ),
        (f"img/api.tar!{LAYER}/layer.tar!app/.env", Image(name="img/api.tar", layer=LAYER), "app/.env"),
        (f"unpacked/{LAYER}/layer.tar!app/.env", Image(name="unpacked", layer=LAYER), "app/.env"),
        (f"a.tar!blobs/sha256/{LAYER}!x/.env", Image(name="a.tar", layer=f"sha256:{LAYER}"), "x/.env"),
        (f"a.tar!blobs/sha256/{LAYER}", Image(name="a.tar"), f"blobs/sha256/{LAYER}"),
        (f"a.tar!{LAYER}.json", Image(name="a.tar"), f"{LAYER}.json"),
        ("backup.zip!a/.env", None, "backup.zip!a/.env"),
    ],
)
def test_places_in_images(path: str, image: Image | None, inside: str) -> None:
    place = parse("kingfisher-json", envelope(kingfisher_row(path=path)))[0].place
    kind = SourceKind.DOCKER if image else SourceKind.FILESYSTEM
    assert place == Place(kind, image=image, path=inside, line=4, column=13)


def test_rules_of_the_first_version_keep_its_name() -> None:
    assert parse("kingfisher-json", envelope(kingfisher_row(rule="kingfisher.aws.1")))[0].scanner == "kingfisher-1.x"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (envelope(), "kingfisher-json"),
        (b'{"findings": []}', "kingfisher-json"),
        (as_jsonl()[len(jsonl({"access_map": []})) :], "kingfisher-jsonl"),
        (as_sarif(), "kingfisher-sarif"),
    ],
)
def test_an_empty_report_is_complete(data: bytes, name: str, tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", data)
    assert (report.format.name, found, skipped, report.complete) == (name, [], [], True)


def test_envelopes_and_a_summary_may_follow_one_another(tmp_path: Path) -> None:
    data = envelope(kingfisher_row()) + envelope(kingfisher_row()) + jsonl({"findings": 2, "scan_duration": 1})
    report, found, skipped = ingest(tmp_path / "r", data)
    assert ([claim.row for claim in found], skipped, report.complete) == ([1, 2], [], True)


@pytest.mark.parametrize("count", ["fetch_failed", "scan_partial", "scan_failed", "pending"])
def test_a_repository_that_was_not_scanned_makes_the_scan_incomplete(count: str, tmp_path: Path) -> None:
    audit = kingfisher_audit(**{count: 1})
    run = {"properties": {"repository_audit": audit}}
    for data in (
        envelope(kingfisher_row(), audit=audit),
        jsonl(kingfisher_row(), {"audit": audit}),
        sarif("kingfisher", sarif_result("r", "s"), **run),
    ):
        report, found, skipped = ingest(tmp_path / "r", data)
        assert (len(found), skipped, report.complete) == (1, [], False)


def test_an_audit_of_another_shape_is_passed_over() -> None:
    assert len(parse("kingfisher-json", envelope(kingfisher_row(), audit=[1]))) == 1


def test_rows_that_are_no_findings_are_named() -> None:
    for name, data in (
        ("kingfisher-jsonl", jsonl({"other": 1}, {"rule": 5})),
        ("kingfisher-array", json.dumps([{"other": 1}, {"rule": 5}]).encode()),
    ):
        assert [(row.row, row.field) for row in parse(name, data)] == [(1, "finding"), (2, "rule")]


def test_early_lines_hold_groups() -> None:
    group = {"id": "x", "matches": [kingfisher_row(rule="kingfisher.a.1"), kingfisher_row()]}
    rows = parse("kingfisher-jsonl", jsonl(group))
    assert [claim.scanner for claim in rows] == ["kingfisher-1.x", "kingfisher"]


def test_a_flat_early_array() -> None:
    assert len(parse("kingfisher-array", json.dumps([kingfisher_row()]).encode())) == 1


def test_a_result_without_a_location_is_a_finding_without_a_place() -> None:
    (claim,) = parse("kingfisher-sarif", sarif("kingfisher", {"ruleId": "r"}))
    assert (claim.value, claim.place) == (Absent(), Place(SourceKind.FILESYSTEM))


def test_git_metadata_of_another_shape_is_passed_over() -> None:
    data = as_sarif(kingfisher_row(git_metadata={"commit": 5}))
    assert parse("kingfisher-sarif", data)[0].place.source is SourceKind.FILESYSTEM


# ── the real one ───────────────────────────────────────────────────────────────────────────────────────

KINGFISHER = shutil.which("kingfisher", path=str(Path(sys.executable).parent)) or shutil.which("kingfisher")


def slack() -> str:
    return "xoxb-" + "819093786579" + "-" + "7543231948757" + "-" + "sMehGAkWvj7FAc9QeWJKY40u"


def scan(tmp_path: Path, form: str, *args: str) -> Path:
    out = tmp_path / f"out.{form}"
    command = [KINGFISHER, "scan", *args, "--no-validate", "--no-update-check", "--format", form, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, cwd=tmp_path)  # a pinned wheel
    assert done.returncode in (0, 200), done.stderr[-500:]
    return out


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("form", ["json", "jsonl", "sarif"])
def test_the_real_scanner_on_a_saved_image(form: str, tmp_path: Path) -> None:
    if KINGFISHER is None:
        lacking("kingfisher-bin is not installed")
    layer = tar({"app/.env": f"SLACK={slack()}\n".encode()})
    name = sha256(layer).hexdigest()
    manifest = [{"Config": "c.json", "RepoTags": ["acme/api:1.2"], "Layers": [f"{name}/layer.tar"]}]
    whole = tar({f"{name}/layer.tar": layer, "c.json": b"{}", "manifest.json": json.dumps(manifest).encode()})
    (tmp_path / "api.tar").write_bytes(whole)
    with read(scan(tmp_path, form, "api.tar")) as report:
        (claim,) = report
    assert isinstance(claim, Claim)
    assert (report.format.name, report.complete, value(claim)) == (f"kingfisher-{form}", True, slack())
    assert claim.place == Place(
        SourceKind.DOCKER, image=Image(name="api.tar", layer=name), path="app/.env", line=1, column=claim.place.column
    )
    with read(scan(tmp_path, form, "docker", "--archive", "api.tar", "--redact")) as report:
        (claim,) = report
    assert not isinstance(claim.value, Secret)
    assert (claim.place.image, claim.place.path) == (Image(name="api.tar"), "app/.env")
