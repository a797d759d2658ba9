"""KeyHog JSON and JSONL: the credential is always masked, but its SHA-256 stands beside it.

The hash proves more than the mask, so the claim carries the hash; a report without one carries the mask.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct, field

from verifier.ingest.clues import has_keys, opens_with, plain, when
from verifier.ingest.interface import Format, Likelihood, Row
from verifier.ingest.stream import json_items, jsonl
from verifier.model import Claim, Claimed, Hashed, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verifier.ingest.interface import Source

_CLAIMED = {
    "live": Claimed.LIVE,
    "dead": Claimed.DEAD,
    "revoked": Claimed.DEAD,
    "rate_limited": Claimed.UNKNOWN,
    "unverifiable": Claimed.UNKNOWN,
}
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class _Location(Struct):
    file_path: str | None = None
    line: int | None = None
    commit: str | None = None
    author: str | None = None
    date: str | None = None


class _Finding(Struct):
    detector_id: str
    credential_redacted: str | None = None
    credential_hash: str | None = None
    location: _Location = field(default_factory=_Location)
    additional_locations: list[_Location] = []
    verification: str | dict[str, str] = "skipped"


def _claims(rows: Iterable[Row[_Finding] | Skipped]) -> Iterator[Claim | Skipped]:
    for row in rows:
        if isinstance(row, Skipped):
            yield row
            continue
        finding, state = row.item, row.item.verification
        digest = finding.credential_hash or ""
        hashed = _SHA256.fullmatch(digest) is not None
        for location in (finding.location, *finding.additional_locations):
            yield Claim(
                scanner="keyhog",
                rule=finding.detector_id,
                value=Hashed("sha256", digest.lower()) if hashed else plain(finding.credential_redacted),
                place=Place(
                    SourceKind.GIT if location.commit else SourceKind.FILESYSTEM,
                    path=location.file_path,
                    line=location.line or None,
                    revision=location.commit,
                    author=location.author,
                ),
                row=row.number,
                claimed=_CLAIMED.get(state, Claimed.UNCHECKED) if isinstance(state, str) else Claimed.UNKNOWN,
                seen_at=when(location.date),
            )


def _sniff_json(head: bytes) -> Likelihood:
    ours = opens_with(head, b"[") and has_keys(head, "detector_id", "credential_redacted")
    return Likelihood.CERTAIN if ours else Likelihood.NO


def _sniff_jsonl(head: bytes) -> Likelihood:
    ours = opens_with(head, b"{") and has_keys(head, "detector_id", "credential_redacted")
    return Likelihood.CERTAIN if ours else Likelihood.NO


def _parse_json(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(json_items(source, _Finding, "*"))


def _parse_jsonl(source: Source) -> Iterator[Claim | Skipped]:
    return _claims(jsonl(source, _Finding))


FORMATS = (
    Format(
        name="keyhog-json",
        scanner="keyhog",
        summary="KeyHog JSON: SHA-256 of each secret, readable with --source",
        sniff=_sniff_json,
        parse=_parse_json,
    ),
    Format(
        name="keyhog-jsonl",
        scanner="keyhog",
        summary="KeyHog JSONL, the same one a line",
        sniff=_sniff_jsonl,
        parse=_parse_jsonl,
    ),
)
