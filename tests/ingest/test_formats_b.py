"""ggshield, detect-secrets, Nosey Parker, Titus, Trivy, GitHub, GitLab, Semgrep, SARIF and the generic formats."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from verifier.ingest.clues import isolate, when
from verifier.ingest.formats import (
    detect_secrets,
    generic,
    ggshield,
    github_alerts,
    gitlab,
    keyhog,
    noseyparker,
    sarif,
    semgrep,
    titus,
    trivy,
)
from verifier.ingest.interface import Likelihood
from verifier.ingest.read import read
from verifier.model import Absent, Claim, Claimed, Hashed, Masked, Skipped, SourceKind, Visibility
from verifier.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "ghp_" + "a1B2c3D4" * 4 + "e5F6"
AWS_ID = "AKIA" + "QWERTYUI" * 2
AWS_SECRET = "wJalr" + "x9/Y+" * 7
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIE" * 12 + "\n-----END RSA " + "PRIVATE KEY-----"
DIFF_ID = "sha256:" + "ab" * 32

MODULES = (detect_secrets, generic, ggshield, github_alerts, gitlab, keyhog, noseyparker, sarif, semgrep, titus, trivy)


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def dumps(value: Any) -> str:
    return json.dumps(value)


def parse(tmp_path: Path, text: str, as_format: str | None = None) -> tuple[str, list[Claim | Skipped]]:
    file = tmp_path / "report"
    file.write_text(text, encoding="utf-8")
    with read(file, as_format) as report:
        return report.format.name, list(report)


def one(tmp_path: Path, value: Any, name: str) -> Claim:
    """Parse a report that sniffs as `name` and holds one claim."""
    text = value if isinstance(value, str) else dumps(value)
    found, items = parse(tmp_path, text)
    assert found == name
    assert len(items) == 1
    assert isinstance(items[0], Claim)
    return items[0]


def shown(value: object) -> object:
    """Make a claim's value comparable."""
    return value.reveal() if isinstance(value, Secret) else value


def parts(claim: Claim) -> dict[str, str]:
    return {name: part.reveal() for name, part in claim.companions.items()}


# ── ggshield ──


def starred(text: str) -> str:
    shown_ = -(-len(text) // 6)
    return text[:shown_] + "*" * (len(text) - 2 * shown_) + text[-shown_:]


def occurrence(text: str, kind: str, line: int = 3, column: int = 7) -> dict[str, Any]:
    return {
        "match": text,
        "type": kind,
        "line_start": line,
        "line_end": line,
        "index_start": column,
        "index_end": column + len(text),
    }


def incident(occurrences: list[dict[str, Any]], total: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "policy": "Secrets detection",
        "occurrences": occurrences,
        "type": "GitHub Access Token",
        "validity": "valid",
        "ignore_sha": "0" * 64,
        "total_occurrences": total,
        "incident_url": "",
        "known_secret": False,
        **more,
    }


def shield(incidents: list[dict[str, Any]], filename: str = "app/.env", **more: Any) -> dict[str, Any]:
    file = {"mode": "FILE", "filename": filename, "incidents": incidents, "total_incidents": 1, "total_occurrences": 1}
    return {
        "id": "x",
        "type": "path_scan",
        "total_incidents": 1,
        "total_occurrences": 1,
        "entities_with_incidents": [file],
        **more,
    }


def test_ggshield_shows_or_masks(tmp_path: Path) -> None:
    claim = one(tmp_path, shield([incident([occurrence(TOKEN, "apikey")])]), "ggshield-json")
    assert shown(claim.value) == TOKEN
    assert (claim.rule, claim.claimed) == ("GitHub Access Token", Claimed.LIVE)
    assert (claim.place.source, claim.place.path, claim.place.line) == (SourceKind.FILESYSTEM, "app/.env", 3)
    assert claim.place.column == 8
    masked = one(tmp_path, shield([incident([occurrence(starred(TOKEN), "apikey")], validity=None)]), "ggshield-json")
    assert masked.value == Masked(starred(TOKEN))
    assert masked.claimed is Claimed.UNCHECKED


@pytest.mark.parametrize(
    ("validity", "claimed"),
    [
        ("invalid", Claimed.DEAD),
        ("unknown", Claimed.UNKNOWN),
        ("failed_to_check", Claimed.UNKNOWN),
        ("no_checker", Claimed.UNCHECKED),
        ("not_checked", Claimed.UNCHECKED),
    ],
)
def test_ggshield_validity(tmp_path: Path, validity: str, claimed: Claimed) -> None:
    report = shield([incident([occurrence(TOKEN, "apikey")], validity=validity)])
    assert one(tmp_path, report, "ggshield-json").claimed is claimed


def test_ggshield_joins_the_matches_of_one_occurrence(tmp_path: Path) -> None:
    pair = [occurrence(AWS_ID, "client_id"), occurrence(AWS_SECRET, "client_secret", 4)]
    _, items = parse(tmp_path, dumps(shield([incident([*pair, *pair], total=2, type="AWS Keys")])))
    assert len(items) == 2
    for claim in items:
        assert isinstance(claim, Claim)
        assert shown(claim.value) == AWS_SECRET
        assert parts(claim) == {"id": AWS_ID}
        assert claim.place.line == 4


def test_ggshield_masked_pairs_become_a_claim_each(tmp_path: Path) -> None:
    pair = [occurrence(starred(AWS_ID), "client_id"), occurrence(starred(AWS_SECRET), "client_secret", 4)]
    _, items = parse(tmp_path, dumps(shield([incident(pair)])))
    assert [c.value for c in items if isinstance(c, Claim)] == [Masked(starred(AWS_ID)), Masked(starred(AWS_SECRET))]


def test_ggshield_commits_and_layers(tmp_path: Path) -> None:
    inner = shield([incident([occurrence(TOKEN, "apikey")])], "a.py")
    inner |= {"id": "c" * 40, "type": "commit", "extra_info": {"author": "Ann", "email": "a@x", "date": "2024-05-01"}}
    report = {"id": "r", "type": "commit-ranges", "total_incidents": 1, "total_occurrences": 1, "scans": [inner]}
    claim = one(tmp_path, report, "ggshield-json")
    assert (claim.place.source, claim.place.revision, claim.place.author) == (SourceKind.GIT, "c" * 40, "Ann")
    assert claim.seen_at is not None
    layered = shield([incident([occurrence(TOKEN, "apikey")])], f"{DIFF_ID}:/app/.env", id="scans/shop.tar")
    layered["type"] = "scan_docker_archive"
    claim = one(tmp_path, layered, "ggshield-json")
    assert claim.place.source is SourceKind.DOCKER
    assert claim.place.path == "/app/.env"
    assert claim.place.image is not None
    assert (claim.place.image.layer, claim.place.image.name) == (DIFF_ID, "shop.tar")


def test_ggshield_oddities(tmp_path: Path) -> None:
    short = shield([incident([occurrence("**c", "apikey")], total=0), incident([occurrence("a*c", "pin")], total=9)])
    _, items = parse(tmp_path, dumps(short))
    assert [shown(c.value) for c in items if isinstance(c, Claim)] == [Masked("**c"), Masked("a*c")]
    nameless = shield([incident([occurrence(TOKEN, "apikey")])], f"{DIFF_ID}:/a", id=None)
    nameless["type"] = 7
    place = one(tmp_path, nameless, "ggshield-json").place
    assert place.image is not None
    assert place.image.name == "image"
    old = shield([incident([occurrence(TOKEN, "apikey")], break_type="Old", type="")])
    old["results"] = old.pop("entities_with_incidents")
    assert one(tmp_path, old, "ggshield-json").rule == "Old"
    address = one(tmp_path, shield([incident([occurrence("db.example.org", "host")])]), "ggshield-json")
    assert shown(address.value) == "db.example.org"


# ── detect-secrets ──


def baseline(entries: dict[str, list[dict[str, Any]]], version: str = "1.5.0") -> dict[str, Any]:
    return {
        "version": version,
        "plugins_used": [{"name": "GitHubTokenDetector"}],
        "filters_used": [],
        "results": entries,
        "generated_at": "2024-01-01T00:00:00Z",
    }


def hashed(text: str, line: int = 1, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return {"type": "GitHub Token", "hashed_secret": digest, "line_number": line, **more}


def test_detect_secrets(tmp_path: Path) -> None:
    report = baseline({"a.env": [hashed(TOKEN, 3, filename="a.env", is_verified=True)], "b.env": [hashed("x")]})
    name, items = parse(tmp_path, dumps(report))
    assert name == "detect-secrets"
    first, second = items
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert first.value == Hashed("sha1", hashlib.sha1(TOKEN.encode(), usedforsecurity=False).hexdigest())
    assert (first.place.path, first.place.line, first.claimed) == ("a.env", 3, Claimed.LIVE)
    assert (second.place.path, second.row, second.claimed) == ("b.env", 2, Claimed.UNCHECKED)


def test_detect_secrets_keeps_the_good_entries_of_a_file(tmp_path: Path) -> None:
    report = baseline({"a.env": [{"type": "x"}, hashed(TOKEN)], "b.env": "no list"})  # type: ignore[dict-item]  # a report that breaks its own form
    _, items = parse(tmp_path, dumps(report))
    assert [type(item) for item in items] == [Skipped, Claim, Skipped]


def test_detect_secrets_of_an_old_version_or_without_findings(tmp_path: Path) -> None:
    old = {
        "exclude": {"files": None},
        "generated_at": "2019",
        "plugins_used": [],
        "results": {"a": [hashed(TOKEN)]},
        "version": "0.12.5",
    }
    assert isinstance(one(tmp_path, old, "detect-secrets").value, Hashed)
    assert parse(tmp_path, dumps(baseline({}))) == ("detect-secrets", [])


# ── Nosey Parker ──


def np_match(matching: str, groups: list[str], provenance: list[dict[str, Any]]) -> dict[str, Any]:
    span = {"start": {"line": 9, "column": 8}, "end": {"line": 9, "column": 27}}
    return {
        "blob_id": "f" * 40,
        "groups": groups,
        "location": {"offset_span": {"start": 1, "end": 2}, "source_span": span},
        "provenance": provenance,
        "rule_name": "AWS API Key",
        "rule_text_id": "np.aws.1",
        "snippet": {"before": "S3_KEY=", "matching": matching, "after": "\n"},
    }


def np_finding(matching: str, groups: list[str], provenance: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    where = provenance or [{"kind": "file", "path": "a.env"}]
    return {
        "finding_id": "4" * 40,
        "groups": groups,
        "matches": [np_match(matching, groups, where)],
        "num_matches": 1,
        "rule_name": "AWS API Key",
        "rule_structural_id": "6" * 40,
        "rule_text_id": "np.aws.1",
        "statuses": [],
    }


GIT_PROVENANCE = {
    "kind": "git_repo",
    "repo_path": "/repos/shop",
    "first_commit": {
        "blob_path": "my.env",
        "commit_metadata": {
            "commit_id": "9" * 40,
            "author_email": "ann@example.org",
            "author_timestamp": "1378126038 +0100",
            "committer_timestamp": "1378126038 +0100",
        },
    },
}


@pytest.mark.parametrize("wrap", [b64, str])
def test_noseyparker_groups_in_base64_and_plain(tmp_path: Path, wrap: Any) -> None:
    report = [np_finding(AWS_ID, [wrap(AWS_ID)], [GIT_PROVENANCE, {"kind": "file", "path": "x/my.env"}])]
    name, items = parse(tmp_path, dumps(report))
    assert name == "noseyparker-json"
    git, file = items
    assert isinstance(git, Claim)
    assert isinstance(file, Claim)
    assert shown(git.value) == shown(file.value) == AWS_ID
    assert (git.rule, git.place.line, git.place.column) == ("np.aws.1", 9, 8)
    assert (git.place.repository, git.place.path, git.place.revision) == ("/repos/shop", "my.env", "9" * 40)
    assert git.seen_at is not None
    assert git.seen_at.timestamp() == 1378126038
    assert (file.place.source, file.place.path) == (SourceKind.FILESYSTEM, "x/my.env")


def test_noseyparker_pairs_uris_and_lines(tmp_path: Path) -> None:
    pair = np_finding(f"{AWS_ID}\nS3={AWS_SECRET}", [b64(AWS_ID), b64(AWS_SECRET)])
    uri = "postgres://app:" + "pw123456" + "@db.example.org:5432/shop"
    link = np_finding(uri, [b64("app"), b64("pw123456"), b64("db.example.org")])
    name, items = parse(tmp_path, dumps(pair) + "\n" + dumps(link) + "\n{bad\n")
    assert name == "noseyparker-jsonl"
    first, second, third = items
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert (shown(first.value), parts(first)) == (AWS_SECRET, {"id": AWS_ID})
    assert shown(second.value) == uri
    assert isinstance(third, Skipped)
    assert third.row == 3


def test_noseyparker_before_text_ids(tmp_path: Path) -> None:
    match = {
        "provenance": {"kind": "git_repo", "path": "/r"},
        "snippet": {"before": "", "matching": "k=" + TOKEN, "after": ""},
        "match_content": TOKEN,
    }
    old = {"rule_name": "GitHub Token", "match_content": TOKEN, "num_matches": 1, "matches": [match]}
    claim = one(tmp_path, [old], "noseyparker-json")
    assert (shown(claim.value), claim.rule) == (TOKEN, "GitHub Token")
    assert (claim.place.source, claim.place.repository) == (SourceKind.GIT, "/r")


def test_noseyparker_without_anything_is_kept(tmp_path: Path) -> None:
    bare = np_finding("", [])
    claim = one(tmp_path, [bare], "noseyparker-json")
    assert claim.value == Absent()


# ── Titus ──


def titus_match(text: str, **more: Any) -> dict[str, Any]:
    return {
        "BlobID": "0" * 40,
        "StructuralID": "1" * 40,
        "RuleID": "np.github.1",
        "RuleName": "GitHub PAT",
        "Location": {"Offset": {"Start": 1, "End": 2}, "Source": {"Start": {"Line": 4, "Column": 2}}},
        "Groups": [b64(text)],
        "Snippet": {"Before": None, "Matching": b64(text), "After": None},
        **more,
    }


def test_titus_matches_in_findings_and_bare(tmp_path: Path) -> None:
    verdict = {"status": "valid", "confidence": 1.0, "message": "", "validated_at": "2025-01-02T03:04:05Z"}
    match = titus_match(TOKEN, validation_result=verdict)
    finding = {"ID": "f", "RuleID": "np.github.1", "Groups": [b64(TOKEN)], "Matches": [match]}
    claim = one(tmp_path, [finding], "titus-json")
    assert (shown(claim.value), claim.rule, claim.claimed) == (TOKEN, "np.github.1", Claimed.LIVE)
    assert (claim.place.line, claim.place.column) == (4, 2)
    assert claim.seen_at is not None
    assert claim.seen_at.year == 2025
    bare = one(tmp_path, [titus_match(TOKEN, Provenance=[{"FilePath": "a.env"}])], "titus-json")
    assert (shown(bare.value), bare.place.path, bare.place.source) == (TOKEN, "a.env", SourceKind.FILESYSTEM)
    alone = one(tmp_path, [{"ID": "f", "RuleID": "r", "Groups": [b64(TOKEN)], "Matches": None}], "titus-json")
    assert (shown(alone.value), alone.place.source) == (TOKEN, SourceKind.OTHER)


def test_titus_groups(tmp_path: Path) -> None:
    named = titus_match("x", NamedGroups={"client": b64("abc"), "Secret": b64(AWS_SECRET)})
    origin = {"RepoPath": "/r", "BlobPath": "b", "Commit": {"CommitID": "c" * 40, "AuthorEmail": "a@x"}}
    pair = titus_match("x", Groups=[b64(AWS_ID), b64(AWS_SECRET)], Provenance=origin)
    uri = "redis://u:" + "pw12345678" + "@h:1"
    link = titus_match(uri, Groups=[b64("u"), b64("pw12345678")])
    none = titus_match("", Groups=None)
    _, items = parse(tmp_path, dumps([named, pair, link, none]))
    claims = [item for item in items if isinstance(item, Claim)]
    assert [shown(claim.value) for claim in claims] == [AWS_SECRET, AWS_SECRET, uri, Absent()]
    assert parts(claims[0]) == {"client": "abc"}
    assert parts(claims[1]) == {"group1": AWS_ID}
    assert (claims[1].place.repository, claims[1].place.revision) == ("/r", "c" * 40)


# ── KeyHog ──


@pytest.mark.parametrize(
    ("state", "claimed"),
    [
        ("live", Claimed.LIVE),
        ("revoked", Claimed.DEAD),
        ("rate_limited", Claimed.UNKNOWN),
        ("skipped", Claimed.UNCHECKED),
        ({"error": "x"}, Claimed.UNKNOWN),
    ],
)
def test_keyhog(tmp_path: Path, state: Any, claimed: Claimed) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    row = {
        "detector_id": "github-classic-pat",
        "credential_redacted": "ghp_...e5F6",
        "credential_hash": digest.upper(),
        "location": {"source": "git", "file_path": "a.env", "line": 3, "commit": "c" * 40, "date": "2024-01-02"},
        "additional_locations": [{"source": "filesystem", "file_path": "b.env", "line": None}],
        "verification": state,
    }
    name, items = parse(tmp_path, dumps([row]))
    assert name == "keyhog-json"
    first, second = items
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert first.value == Hashed("sha256", digest)
    assert (first.claimed, first.place.revision, first.place.line) == (claimed, "c" * 40, 3)
    assert (second.place.path, second.place.source) == ("b.env", SourceKind.FILESYSTEM)
    masked = one(tmp_path, dumps({**row, "credential_hash": "?", "additional_locations": []}) + "\n", "keyhog-jsonl")
    assert masked.value == Masked("ghp_...e5F6")
    assert isinstance(parse(tmp_path, dumps([row, {"detector_id": 1}]))[1][-1], Skipped)


# ── Trivy ──


def trivy_report(secrets: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "SchemaVersion": 2,
        "CreatedAt": "2024-02-03T04:05:06.789+00:00",
        "ArtifactName": "ghcr.io/acme/api:1.2",
        "ArtifactType": "container_image",
        "Metadata": {"RepoTags": ["ghcr.io/acme/api:1.2"], "RepoDigests": ["ghcr.io/acme/api@sha256:" + "cd" * 32]},
        "Results": [
            {"Target": "os", "Class": "os-pkgs", "Vulnerabilities": [{"VulnerabilityID": "CVE-1"}]},
            {"Target": "/app/.env", "Class": "secret", "Secrets": secrets},
        ],
        **more,
    }


def trivy_secret(line: str, **more: Any) -> dict[str, Any]:
    return {
        "RuleID": "github-pat",
        "Category": "GitHub",
        "Severity": "CRITICAL",
        "Title": "GitHub Personal Access Token",
        "StartLine": 2,
        "EndLine": 2,
        "Match": line,
        "Layer": {"Digest": "sha256:" + "ef" * 32, "DiffID": DIFF_ID, "CreatedBy": "COPY"},
        **more,
    }


def test_trivy_image(tmp_path: Path) -> None:
    stars = "TOKEN=" + "*" * 40
    claim = one(tmp_path, trivy_report([trivy_secret(stars)]), "trivy-json")
    assert claim.value == Masked(stars)
    assert (claim.scanner, claim.rule, claim.place.line) == ("trivy", "github-pat", 2)
    image = claim.place.image
    assert image is not None
    assert image.reference == "ghcr.io/acme/api:1.2"
    assert (image.digest, image.layer) == ("sha256:" + "cd" * 32, DIFF_ID)
    assert claim.seen_at is not None


def test_trivy_prefers_the_whole_line_unless_it_was_cut(tmp_path: Path) -> None:
    whole = "  TOKEN=" + "*" * 40
    code = {"Lines": [{"Content": "x", "IsCause": False}, {"Content": whole, "IsCause": True}]}
    claim = one(tmp_path, trivy_report([trivy_secret("TOKEN=*****", Code=code)]), "trivy-json")
    assert claim.value == Masked(whole.strip())
    cut = {"Lines": [{"Content": "a" * 90 + "*" * 10, "IsCause": True}]}
    claim = one(tmp_path, trivy_report([trivy_secret("x\na=" + "*" * 40 + " b", Code=cut)]), "trivy-json")
    assert claim.value == Masked("a=" + "*" * 40 + " b")


def test_trivy_other_artifacts_and_bad_rows(tmp_path: Path) -> None:
    secrets = [trivy_secret('Binary file "x" matches a rule "GitHub"'), {"RuleID": 7}]
    _, items = parse(tmp_path, dumps(trivy_report(secrets, ArtifactType="filesystem", ArtifactName=".")))
    claim, skipped = items
    assert isinstance(claim, Claim)
    assert claim.value == Absent()
    assert (claim.place.source, claim.place.image, claim.place.path) == (SourceKind.FILESYSTEM, None, "/app/.env")
    assert isinstance(skipped, Skipped)
    assert skipped.row == 2
    url = "https://user:" + "password1@git.example.org/a.git"
    claim = one(
        tmp_path, trivy_report(secrets[:1], ArtifactType="repository", ArtifactName=url, Metadata=[]), "trivy-json"
    )
    assert (claim.place.source, claim.place.repository) == (SourceKind.GIT, "https://git.example.org/a")
    archive = trivy_report(secrets[:1], ArtifactName="image.tar", CreatedAt=7)
    claim = one(tmp_path, archive, "trivy-json")
    assert claim.place.image is not None
    assert (claim.place.image.name, claim.place.image.tag) == ("api", "1.2")


# ── GitHub ──


def alert(**more: Any) -> dict[str, Any]:
    return {
        "number": 7,
        "created_at": "2024-01-02T03:04:05Z",
        "url": "https://api.github.com/repos/acme/shop/secret-scanning/alerts/7",
        "html_url": "https://github.com/acme/shop/security/secret-scanning/7",
        "locations_url": "https://api.github.com/repos/acme/shop/secret-scanning/alerts/7/locations",
        "state": "open",
        "resolution": None,
        "secret_type": "github_personal_access_token",
        "secret": TOKEN,
        "validity": "active",
        "publicly_leaked": False,
        **more,
    }


WHERE = {"path": "/src/.env", "start_line": 4, "end_line": 4, "start_column": 7, "commit_sha": "d" * 40}


def test_github_alert(tmp_path: Path) -> None:
    claim = one(tmp_path, [alert(first_location_detected=WHERE)], "github-alerts")
    assert (shown(claim.value), claim.claimed) == (TOKEN, Claimed.LIVE)
    place = claim.place
    assert (place.repository, place.path, place.line, place.column) == ("acme/shop", "src/.env", 4, 7)
    assert (place.revision, place.visibility) == ("d" * 40, Visibility.UNKNOWN)


@pytest.mark.parametrize(
    ("fields", "value", "claimed", "seen"),
    [
        ({"secret": None}, Absent(), Claimed.LIVE, Visibility.UNKNOWN),
        ({"secret": "ghp_****"}, Masked("ghp_****"), Claimed.LIVE, Visibility.UNKNOWN),
        ({"validity": "inactive", "publicly_leaked": True}, TOKEN, Claimed.DEAD, Visibility.PUBLIC),
        (
            {"validity": "unknown", "repository": {"full_name": "a/b", "private": True}},
            TOKEN,
            Claimed.UNKNOWN,
            "private",
        ),
        ({"validity": None, "resolution": "revoked", "state": "resolved"}, TOKEN, Claimed.DEAD, Visibility.UNKNOWN),
        ({"validity": None, "repository": {"private": False}}, TOKEN, Claimed.UNCHECKED, Visibility.PUBLIC),
    ],
)
def test_github_fields(tmp_path: Path, fields: Any, value: object, claimed: Claimed, seen: str) -> None:
    claim = one(tmp_path, [alert(**fields)], "github-alerts")
    assert (shown(claim.value), claim.claimed, claim.place.visibility) == (value, claimed, seen)


def test_github_locations_lines_and_webhooks(tmp_path: Path) -> None:
    spots = [
        {"type": "commit", "details": WHERE},
        {"type": "issue_body", "details": {"issue_body_url": "https://api.github.com/repos/acme/shop/issues/1"}},
    ]
    hook = {
        "action": "created",
        "alert": alert(secret=None),
        "repository": {"full_name": "acme/web"},
        "location": spots[0],
    }
    name, items = parse(tmp_path, dumps(alert(locations=spots)) + "\n" + dumps(hook) + '\n{"secret_type": ""}\n')
    assert name == "github-alerts-jsonl"
    first, second, third, fourth = items
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert isinstance(third, Claim)
    assert isinstance(fourth, Skipped)
    assert (first.place.source, second.place.source) == (SourceKind.GIT, SourceKind.TICKET)
    assert second.place.url == "https://api.github.com/repos/acme/shop/issues/1"
    assert (third.place.repository, third.place.path, third.value) == ("acme/web", "src/.env", Absent())
    indented, [claim] = parse(tmp_path, json.dumps(hook, indent=2))
    assert indented == name
    assert isinstance(claim, Claim)


# ── GitLab ──


def vulnerability(**more: Any) -> dict[str, Any]:
    return {
        "id": "a" * 64,
        "category": "secret_detection",
        "name": "GitHub Personal Access Token",
        "severity": "Critical",
        "raw_source_code_extract": TOKEN,
        "scanner": {"id": "gitleaks", "name": "Gitleaks"},
        "location": {
            "file": "src/.env",
            "start_line": 5,
            "commit": {"sha": "e" * 40, "author": "Ann", "date": "2024-01-02T03:04:05Z"},
        },
        "identifiers": [{"type": "gitleaks_rule_id", "name": "Gitleaks rule ID x", "value": "Github PAT"}],
        **more,
    }


def gl_report(items: list[Any]) -> dict[str, Any]:
    return {"version": "15.0.7", "vulnerabilities": items, "scan": {"type": "secret_detection", "status": "success"}}


def test_gitlab_report(tmp_path: Path) -> None:
    claim = one(tmp_path, gl_report([vulnerability()]), "gitlab-secret-detection")
    assert (shown(claim.value), claim.rule, claim.scanner) == (TOKEN, "Github PAT", "gitlab")
    assert (claim.place.path, claim.place.line, claim.place.revision) == ("src/.env", 5, "e" * 40)
    assert claim.place.author == "Ann"
    assert parse(tmp_path, dumps(gl_report([]))) == ("gitlab-secret-detection", [])


@pytest.mark.parametrize(
    ("extract", "value"),
    [
        (None, Absent()),
        ("", Absent()),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", Absent()),
        (['token = "' + TOKEN + '"\n'], TOKEN),
        (['a = f("' + TOKEN + '", 1)\n'], Absent()),
        ("[MASKED]", Masked("[MASKED]")),
    ],
)
def test_gitlab_extracts(tmp_path: Path, extract: Any, value: object) -> None:
    item = vulnerability(raw_source_code_extract=extract)
    item["location"]["commit"] = {"sha": "0000000", "date": "1970-01-01T00:00:00Z"}
    claim = one(tmp_path, gl_report([item]), "gitlab-secret-detection")
    assert (shown(claim.value), claim.place.revision, claim.seen_at) == (value, None, None)


def test_gitlab_api_answers(tmp_path: Path) -> None:
    finding = {
        "report_type": "secret_detection",
        "name": "AWS access token",
        "identifiers": [{"external_type": "gitleaks_rule_id", "external_id": "AWS", "name": "n"}],
        "project": {"full_path": "acme/shop"},
        "location": {"file": "a.env", "start_line": 1},
    }
    old = {
        "report_type": "secret_detection",
        "title": "Token",
        "created_at": "2024-01-02T03:04:05Z",
        "project": {"full_path": "acme/shop"},
        "finding": {"raw_metadata": dumps(vulnerability())},
    }
    broken = {**old, "finding": {"raw_metadata": "{"}}
    name, items = parse(tmp_path, dumps([finding, {"report_type": "sast"}, old, broken]))
    assert name == "gitlab-api"
    first, second, third = items
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert isinstance(third, Skipped)
    assert (first.value, first.rule, first.place.repository) == (Absent(), "AWS", "acme/shop")
    assert (shown(second.value), second.place.repository, second.row) == (TOKEN, "acme/shop", 3)


def test_gitlab_names_the_rule_as_far_as_it_can(tmp_path: Path) -> None:
    item = vulnerability(identifiers=[{"type": "other", "value": "v"}], name=None)
    item["location"] = {"image": "registry.example.org/a/b:1", "file": "x"}
    claim = one(tmp_path, gl_report([item]), "gitlab-secret-detection")
    assert (claim.rule, claim.place.source) == ("v", SourceKind.DOCKER)


# ── Semgrep ──


def semgrep_report(*results: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1.90.0", "results": list(results), "errors": [], "paths": {"scanned": []}}


def semgrep_result(lines: str, start: int, end: int, **extra: Any) -> dict[str, Any]:
    return {
        "check_id": "generic.secrets.gitleaks.github-pat.github-pat",
        "path": "a.py",
        "start": {"line": 3, "col": start, "offset": 1},
        "end": {"line": 3, "col": end, "offset": 9},
        "extra": {"lines": lines, "message": "m", "metadata": {}, "severity": "ERROR", **extra},
    }


def test_semgrep(tmp_path: Path) -> None:
    line = 'x = call("' + TOKEN + '", 1)'
    result = semgrep_result(line, 11, 11 + len(TOKEN), validation_state="CONFIRMED_VALID")
    claim = one(tmp_path, semgrep_report(result), "semgrep-json")
    assert (shown(claim.value), claim.claimed) == (TOKEN, Claimed.LIVE)
    assert (claim.place.path, claim.place.line, claim.place.column) == ("a.py", 3, 11)
    assert parse(tmp_path, dumps(semgrep_report())) == ("semgrep-json", [])


@pytest.mark.parametrize(
    ("lines", "extra", "value"),
    [
        ("requires login", {}, Absent()),
        ("a b c d e", {}, Absent()),
        (f"token = '{TOKEN}'", {}, TOKEN),
        ("whatever it is", {"metavars": {"$SECRET": {"abstract_content": f'"{TOKEN}"'}}}, TOKEN),
    ],
)
def test_semgrep_values(tmp_path: Path, lines: str, extra: Any, value: object) -> None:
    claim = one(tmp_path, semgrep_report(semgrep_result(lines, 1, 200, **extra)), "semgrep-json")
    assert shown(claim.value) == value


def test_semgrep_passes_over_what_is_no_secret_and_knows_history(tmp_path: Path) -> None:
    flaw = semgrep_result("eval(x)", 1, 8, metadata={"cwe": ["CWE-95: x"], "technology": "python"})
    flaw["check_id"] = "python.lang.eval"
    coded = semgrep_result(
        f"k = '{TOKEN}'",
        1,
        2,
        metadata={"cwe": "CWE-798: Hard-coded"},
        validation_state="CONFIRMED_INVALID",
        historical_info={"git_commit": "f" * 40, "git_blob": "0" * 40, "git_commit_timestamp": "2024-01-02T03:04:05Z"},
    )
    coded["check_id"] = "python.hardcoded"
    claim = one(tmp_path, semgrep_report(flaw, coded), "semgrep-json")
    assert (claim.place.source, claim.place.revision, claim.claimed) == (SourceKind.GIT, "f" * 40, Claimed.DEAD)


# ── SARIF ──


def sarif_report(tool: str, *results: dict[str, Any], **driver: Any) -> dict[str, Any]:
    return {
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{"tool": {"driver": {"name": tool, **driver}}, "results": list(results)}],
    }


def sarif_result(snippet: str | None, **more: Any) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": 2, "startColumn": 5}
    if snippet is not None:
        region["snippet"] = {"text": snippet}
    where = {"physicalLocation": {"artifactLocation": {"uri": "file:///src/a%20b.env"}, "region": region}}
    return {"ruleId": "github-token", "message": {"text": "m"}, "locations": [where], **more}


@pytest.mark.parametrize(
    ("snippet", "value"),
    [
        (TOKEN, TOKEN),
        (f"token: '{TOKEN}'", TOKEN),
        (f'export TOKEN="{TOKEN}";', TOKEN),
        (f'"{TOKEN}"', TOKEN),
        (PEM, PEM),
        (f"send({TOKEN}, other)", Absent()),
        ("ghp_****", Masked("ghp_****")),
        ("REDACTED", Absent()),
        (None, Absent()),
    ],
)
def test_sarif_takes_only_what_it_can_isolate(tmp_path: Path, snippet: str | None, value: object) -> None:
    claim = one(tmp_path, sarif_report("My Tool", sarif_result(snippet)), "sarif")
    assert shown(claim.value) == value
    assert (claim.scanner, claim.rule) == ("my-tool", "github-token")
    assert (claim.place.path, claim.place.line, claim.place.column) == ("/src/a b.env", 2, 5)


def test_sarif_tools_rules_and_claims(tmp_path: Path) -> None:
    by_index = {**sarif_result(TOKEN, ruleIndex=1, properties={"validity": "Valid"}), "ruleId": None}
    nothing = {**sarif_result(TOKEN, rule={"id": "r2"}, properties={"status": "revoked"}), "ruleId": None}
    lost = {"message": {"text": "m"}, "partialFingerprints": {"commitSha": "a" * 40}}
    passed = sarif_result(TOKEN, kind="pass")
    report = sarif_report("ggshield", by_index, nothing, lost, passed, rules=[{"id": "r0"}, {"id": "r1"}])
    report["runs"].append({"tool": {"driver": {"name": "Semgrep OSS"}}, "results": [sarif_result(TOKEN)]})
    _, items = parse(tmp_path, dumps(report), "sarif")
    claims = [item for item in items if isinstance(item, Claim)]
    assert [(c.scanner, c.rule, c.claimed) for c in claims] == [
        ("ggshield", "r1", Claimed.LIVE),
        ("ggshield", "r2", Claimed.DEAD),
        ("ggshield", "unknown", Claimed.UNCHECKED),
        ("semgrep", "github-token", Claimed.UNCHECKED),
    ]
    assert (claims[2].place.source, claims[2].place.path) == (SourceKind.GIT, None)


# ── generic ──


def test_generic_line_of_the_design(tmp_path: Path) -> None:
    place = {"source": "git", "repository": "acme/api", "path": ".env", "line": 3}
    claim = one(tmp_path, {"provider": "openai", "parts": {"secret": TOKEN}, "place": place}, "generic-jsonl")
    assert (shown(claim.value), claim.provider, claim.scanner, claim.rule) == (TOKEN, "openai", "generic", "openai")
    assert (claim.place.source, claim.place.repository, claim.place.path) == (SourceKind.GIT, "acme/api", ".env")
    assert claim.place.line == 3


def test_generic_twins_say_the_same(tmp_path: Path) -> None:
    place = {"source": "docker", "image": "ghcr.io/acme/api", "tag": "1.2", "path": "/a", "line": 1, "layer": DIFF_ID}
    row = {"provider": "aws", "parts": {"secret": AWS_SECRET, "id": AWS_ID, "arn": "x"}, "place": place}
    text = f"provider,secret,id,part.arn,source,image,tag,path,line,layer,odd\naws,{AWS_SECRET},{AWS_ID},x,docker,"
    text += f"ghcr.io/acme/api,1.2,/a,1,{DIFF_ID},z\n"
    lines, table = one(tmp_path, row, "generic-jsonl"), one(tmp_path, text, "generic-csv")
    for claim in (lines, table):
        assert (shown(claim.value), parts(claim)) == (AWS_SECRET, {"id": AWS_ID, "arn": "x"})
    assert lines.place == table.place


def test_generic_bad_rows_are_named(tmp_path: Path) -> None:
    rows = [
        '{"provider":"x","parts":{"id":"a"}}',
        '{"provider":"x"}',
        "nonsense",
        '{"parts":{"secret":"AKIA****WXYZ"}}',
    ]
    _, items = parse(tmp_path, "\n".join(rows) + "\n", "generic-jsonl")
    assert [(type(i), i.row) for i in items] == [(Skipped, 1), (Skipped, 2), (Skipped, 3), (Claim, 4)]
    last = items[3]
    assert isinstance(last, Claim)
    assert last.value == Masked("AKIA****WXYZ")
    _, items = parse(tmp_path, f"provider,secret,line\nx,{TOKEN},first\ny,{TOKEN},\nz,,1\n")
    assert [(type(i), i.row) for i in items] == [(Skipped, 2), (Claim, 3), (Skipped, 4)]
    first = items[0]
    assert isinstance(first, Skipped)
    assert first.field == "line"


def test_generic_places(tmp_path: Path) -> None:
    known = {"visibility": "Public", "source": "moon", "seen_at": "x"}
    claim = one(tmp_path, {"provider": "x", "parts": {"password": "hunter2"}, "place": known}, "generic-jsonl")
    assert (claim.place.source, claim.place.visibility) == (SourceKind.OTHER, Visibility.PUBLIC)
    assert shown(claim.value) == "hunter2"


# ── all ──


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02T03:04:05+02:00", 1704157445),
        ("2024-01-02", 1704153600),
        ("1384157507 -0800", 1384157507),
        ("yesterday", None),
        ("1 +9900", None),
        ("999999999999 +0000", None),
        ("", None),
        (None, None),
    ],
)
def test_dates(text: str | None, stamp: int | None) -> None:
    moment = when(text)
    assert (moment and moment.timestamp()) == stamp
    assert moment is None or moment.tzinfo is not None


def test_values_are_only_isolated_without_doubt() -> None:
    for text, value in (
        (TOKEN + " ", TOKEN),
        (f'ENV KEY="{TOKEN}"', TOKEN),
        (f"key => '{TOKEN}',", TOKEN),
        (f"{TOKEN} {TOKEN}", Absent()),
        (f"a = b = {TOKEN}", Absent()),
        (f"a: '{TOKEN}' # '{TOKEN}'", Absent()),
        ("", Absent()),
    ):
        assert shown(isolate(text)) == value


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x00",
        b"[",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'{"results": []}',
        b"a,b\n1,2\n",
        b"\xff\xfe",
        b'[{"RuleID":1}]',
    ],
)
def test_sniffing_never_raises_nor_claims_what_is_not_there(head: bytes) -> None:
    for module in MODULES:
        for format_ in module.FORMATS:
            assert format_.sniff(head) is Likelihood.NO


def test_truncated_reports_keep_what_they_hold(tmp_path: Path) -> None:
    text = dumps([alert(), alert(number=8), alert(number=9)])
    name, items = parse(tmp_path, text[: text.rindex("number")])
    assert name == "github-alerts"
    assert [type(item) for item in items] == [Claim, Claim, Skipped]
