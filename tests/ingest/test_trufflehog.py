"""TruffleHog 3."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from samples import COMMIT, aws_id, aws_secret, beside, ingest, jsonl, parse, token, trufflehog_row, value

from verifier.model import Absent, Claimed, Image, Masked, Place, SourceKind, Visibility

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.model import Claim

DIGEST = "sha256:" + "0f" * 32


def one(row: dict[str, object]) -> Claim:
    (claim,) = parse("trufflehog-jsonl", jsonl(row))
    return claim


def test_a_git_result() -> None:
    claim = one(trufflehog_row())
    assert (claim.scanner, claim.rule, value(claim), claim.row) == ("trufflehog", "Github", token(), 1)
    assert claim.place == Place(
        SourceKind.GIT,
        repository="https://github.com/acme/api",
        path="keys",
        line=4,
        revision=COMMIT,
        author="Jo Doe <jo@example.com>",
    )
    assert claim.seen_at == datetime(2022, 6, 16, 10, 17, 40, tzinfo=timezone(timedelta(hours=-7)))
    assert (claim.claimed, claim.companions) == (Claimed.UNCHECKED, {})


@pytest.mark.parametrize(
    ("source", "told", "place"),
    [
        (
            "Docker",
            {"image": "acme/api", "tag": "1.2", "layer": DIGEST, "file": "/app/.env"},
            Place(
                SourceKind.DOCKER,
                image=Image(name="api", namespace="acme", tag="1.2", layer=DIGEST),
                path="/app/.env",
            ),
        ),
        (
            "Docker",
            {"image": "r.example.com:5000/acme/api", "tag": DIGEST, "file": "image-metadata:history:3:created-by"},
            Place(
                SourceKind.DOCKER,
                image=Image(name="api", namespace="acme", registry="r.example.com:5000", digest=DIGEST),
                path="image-metadata:history:3:created-by",
            ),
        ),
        (
            "Docker",
            {"image": "file:///tmp/api.tar", "layer": DIGEST, "file": "/.env", "line": 7},
            Place(SourceKind.DOCKER, image=Image(name="/tmp/api.tar", layer=DIGEST), path="/.env", line=7),
        ),
        (
            "ECR",
            {"image": "acme/api:1", "registry": "1.dkr.ecr.example.com", "layer": DIGEST, "file": "a"},
            Place(
                SourceKind.DOCKER,
                image=Image(name="api", namespace="acme", registry="1.dkr.ecr.example.com", tag="1", layer=DIGEST),
                path="a",
            ),
        ),
        ("Filesystem", {"file": "/a/b", "line": 2}, Place(SourceKind.FILESYSTEM, path="/a/b", line=2)),
        (
            "Github",
            {"link": "https://x:y@github.com/a/b#L1", "username": "jo", "repository": "https://x:y@github.com/a/b",
             "visibility": 1},
            Place(SourceKind.GIT, repository="https://github.com/a/b", author="jo", visibility=Visibility.PRIVATE,
                  url="https://github.com/a/b#L1"),
        ),
        ("AzureRepos", {"repository": "r", "visibility": {}}, Place(SourceKind.GIT, repository="r")),
        ("S3", {"bucket": "b", "file": "k"}, Place(SourceKind.BUCKET, repository="b", path="k")),
        ("GCS", {"bucket": "b", "filename": "k"}, Place(SourceKind.BUCKET, repository="b", path="k")),
        ("Slack", {"channel_name": "c", "visibility": "public"},
         Place(SourceKind.CHAT, repository="c", visibility=Visibility.PUBLIC)),
        ("Jira", {"issue": "I-1", "author": "jo"}, Place(SourceKind.TICKET, repository="I-1", author="jo")),
        ("Jenkins", {"project_name": "p", "build_number": 7}, Place(SourceKind.CI, repository="p")),
        ("NPM", {"package": "p", "release": "1.0", "file": "i.js"},
         Place(SourceKind.PACKAGE, repository="p", path="i.js", revision="1.0")),
        ("Webhook", {"Vector": {"timestamp": {"seconds": 1}}}, Place(SourceKind.OTHER)),
        ("Stdin", {}, None),
    ],
)  # fmt: skip
def test_every_source_has_its_place(source: str, told: dict[str, object], place: Place | None) -> None:
    row = trufflehog_row()
    row["SourceMetadata"] = {"Data": {source: told}}
    assert one(row).place == (place or Place(SourceKind.FILESYSTEM))


@pytest.mark.parametrize("metadata", [None, {}, {"Data": None}, {"Data": {}}])
def test_a_result_without_a_place_is_still_a_finding(metadata: object) -> None:
    claim = one(trufflehog_row(SourceMetadata=metadata))
    assert (claim.place, claim.seen_at) == (Place(SourceKind.OTHER), None)


@pytest.mark.parametrize(
    ("change", "claimed"),
    [
        ({"Verified": True}, Claimed.LIVE),
        ({"VerificationError": "timeout"}, Claimed.UNKNOWN),
        ({"VerificationError": None}, Claimed.UNCHECKED),
    ],
)
def test_what_the_scanner_believed(change: dict[str, object], claimed: Claimed) -> None:
    assert one(trufflehog_row(**change)).claimed is claimed


@pytest.mark.parametrize(
    ("change", "raw", "pieces"),
    [
        ({"Raw": "i", "RawV2": "i:s"}, "i", {"secret": "s"}),
        ({"Raw": "i", "RawV2": "is"}, "i", {"secret": "s"}),
        ({"Raw": "s", "RawV2": "i:s"}, "s", {"id": "i"}),
        ({"Raw": "k", "RawV2": "k:https://v.example.com"}, "k", {"host": "https://v.example.com"}),
        ({"Raw": "k", "RawV2": "kv.example.com:8200"}, "k", {"host": "v.example.com:8200"}),
        ({"Raw": "k", "RawV2": "kjo@example.com"}, "k", {"email": "jo@example.com"}),
        ({"Raw": "b", "RawV2": "a:b:c"}, "b", {"RawV2": "a:b:c"}),
        ({"Raw": "s", "RawV2": "s"}, "s", {}),
        ({"Raw": "", "RawV2": "i:s"}, "i:s", {}),
        ({"Raw": "k", "RawV2": "k:e", "SecretParts": {"key": "k", "endpoint": "e"}}, "k", {"endpoint": "e"}),
        ({"Raw": "k", "SecretParts": {"key": "k"}}, "k", {}),
    ],
)
def test_the_parts_of_a_pair(change: dict[str, object], raw: str, pieces: dict[str, str]) -> None:
    claim = one(trufflehog_row(**change))
    assert (value(claim), beside(claim)) == (raw, pieces)


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def test_old_files_hold_base64() -> None:
    row = trufflehog_row(Raw=b64(aws_id()), RawV2=b64(f"{aws_id()}:{aws_secret()}"))
    del row["DecoderName"]
    claim = one(row)
    assert (value(claim), beside(claim)) == (aws_id(), {"secret": aws_secret()})


@pytest.mark.parametrize("raw", ["Zm9v" * 9 + "\u00e9", token(length=37), b64("\x00\x01\x02" * 8), "a" * 40])
def test_what_only_looks_like_base64_is_left_alone(raw: str) -> None:
    row = trufflehog_row(Raw=raw)
    del row["DecoderName"]
    assert value(one(row)) == raw


def test_newer_files_are_never_decoded() -> None:
    assert value(one(trufflehog_row(Raw=b64(aws_id())))) == b64(aws_id())


def test_a_result_without_its_secret() -> None:
    assert one(trufflehog_row(Raw="", Redacted="https://*****:*****@example.com")).value == Masked(
        "https://*****:*****@example.com"
    )
    assert one(trufflehog_row(Raw="", Redacted=aws_id())).value == Absent()


def test_log_lines_are_no_rows(tmp_path: Path) -> None:
    data = (
        b"\xf0\x9f\x90\xb7 TruffleHog. Unearth your secrets.\n\n"
        + jsonl({"level": "info-0", "ts": "2024", "logger": "trufflehog", "msg": "running source"})
        + jsonl(trufflehog_row())
        + b"2024-05-01T00:00:00Z\tinfo-0\ttrufflehog\tfinished scanning\n"
    )
    report, found, skipped = ingest(tmp_path / "r", data)
    assert report.format.name == "trufflehog-jsonl"
    assert ([claim.row for claim in found], skipped, report.complete) == ([4], [], True)


def test_an_error_in_the_log_makes_the_scan_incomplete(tmp_path: Path) -> None:
    log = b'{"level":"error","ts":"2024","msg":"error scanning repo"}\n'
    report, found, skipped = ingest(tmp_path / "r", jsonl(trufflehog_row()) + log)
    assert (len(found), skipped, report.complete) == (1, [], False)


def test_what_is_neither_result_nor_log_is_named() -> None:
    rows = parse("trufflehog-jsonl", jsonl({"a": 1}, trufflehog_row(), [1]) + b'  "RuleID": "x",\n  }\n')
    assert [(row.row, type(row).__name__) for row in rows] == [
        (1, "Skipped"),
        (2, "Claim"),
        (3, "Skipped"),
        (4, "Skipped"),
        (5, "Skipped"),
    ]
    assert rows[0].field == "DetectorName"


def test_an_array_of_results(tmp_path: Path) -> None:
    report, found, _ = ingest(tmp_path / "r", json.dumps([trufflehog_row()] * 2, indent=2).encode())
    assert report.format.name == "trufflehog-array"
    assert [claim.row for claim in found] == [1, 2]
