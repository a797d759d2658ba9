"""ggshield (GitGuardian) `--json`: masked by default, whole with `--show-secrets`.

A scan of paths or of a saved image lists its files at the top; a scan of commits lists one inner scan a commit.
An incident may have several matches (`client_id`, `client_secret`): together they are one credential. Where they are
masked each becomes a claim of its own, so that every one of them can be read back.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.ingest.clues import Peeked, has_keys, opens_with, string, when
from verifier.ingest.image import image
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.stream import json_items
from verifier.model import Claim, Claimed, Masked, Place, Skipped, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.ingest.interface import Source
    from verifier.ingest.stream import Notes

_CLAIMED = {
    "valid": Claimed.LIVE,
    "invalid": Claimed.DEAD,
    "failed_to_check": Claimed.UNKNOWN,
    "unknown": Claimed.UNKNOWN,
}

_PART = {
    "client_id": "id",
    "access_key_id": "id",
    "key_id": "id",
    "user": "username",
    "login": "username",
    "endpoint": "host",
    "domain": "host",
}
_ADDRESS = frozenset(
    {
        "id",
        "username",
        "host",
        "port",
        "database",
        "scheme",
        "email",
        "subdomain",
        "tenant",
        "account",
        "region",
        "cloud",
    }
)
"""Parts that never open anything alone."""

_LAYERED = re.compile(r"(sha256:[0-9a-f]{64}):(/.*)", re.DOTALL)
_LONGEST_SHOWN = 60


class _Match(Struct):
    match: str
    type: str = ""
    line_start: int | None = None
    index_start: int | None = None


class _Incident(Struct):
    occurrences: list[_Match]
    type: str = ""
    break_type: str = ""
    validity: str | None = None
    total_occurrences: int = 0


class _File(Struct):
    filename: str = ""
    incidents: list[_Incident] = []


class _Scan(Struct):
    id: str = ""
    type: str = ""
    entities_with_incidents: list[_File] = []
    results: list[_File] = []
    scans: list[_Scan] = []
    extra_info: dict[str, str | None] | None = None


def _sniff(head: bytes) -> Likelihood:
    if opens_with(head, b"{") and (
        has_keys(head, "entities_with_incidents") or has_keys(head, "total_incidents", "total_occurrences")
    ):
        return Likelihood.CERTAIN
    return Likelihood.NO


def _is_masked(text: str) -> bool:
    """Whether ggshield masked this: it stars all but `+`, `-` and white space between the first and last sixth."""
    if len(text) <= 3:  # these it masks almost whole
        return "*" in text
    shown = min(math.ceil(len(text) / 6), _LONGEST_SHOWN)
    middle = text[shown : len(text) - shown]
    return "*" in middle and not middle.strip("*+- \t\r\n")


def _place(filename: str, scan: _Scan, match: _Match) -> Place:
    line = match.line_start or None
    column = None if match.index_start is None else match.index_start + 1
    if layered := _LAYERED.fullmatch(filename):
        name = scan.id.replace("\\", "/").rpartition("/")[2] or "image"
        return Place(SourceKind.DOCKER, image=image(name, layer=layered[1]), path=layered[2], line=line, column=column)
    if scan.type == "commit":
        author = (scan.extra_info or {}).get("author")
        known = re.fullmatch(r"[0-9a-f]{7,64}", scan.id) is not None
        return Place(
            SourceKind.GIT,
            path=filename,
            line=line,
            column=column,
            author=author,
            revision=scan.id if known else None,
        )
    return Place(SourceKind.FILESYSTEM, path=filename, line=line, column=column)


def _groups(incident: _Incident) -> Iterator[Sequence[_Match]]:
    """Yield the matches of each occurrence: the list holds them one occurrence after the other."""
    count = len(incident.occurrences)
    each = count // incident.total_occurrences if incident.total_occurrences else count
    if not each or count % each:
        each = 1
    for at in range(0, count, each):
        yield incident.occurrences[at : at + each]


def _claims(row: int, file: _File, scan: _Scan) -> Iterator[Claim]:
    seen = when((scan.extra_info or {}).get("date"))
    for incident in file.incidents:
        for matches in _groups(incident):
            parts = [(_PART.get(match.type, match.type), match) for match in matches]
            masked = any(_is_masked(match.match) for match in matches)
            opening = [part for part in parts if part[0] not in _ADDRESS] or parts
            for name, main in parts if masked else opening[:1]:
                hidden = _is_masked(main.match)
                yield Claim(
                    scanner="ggshield",
                    rule=incident.type or incident.break_type,
                    value=Masked(main.match) if hidden else Secret(main.match),
                    place=_place(file.filename, scan, main),
                    row=row,
                    companions={}
                    if masked
                    else {n or m.type: Secret(m.match) for n, m in parts if m is not main and n != name},
                    claimed=_CLAIMED.get(incident.validity or "", Claimed.UNCHECKED),
                    seen_at=seen,
                )


def _walk(row: int, scan: _Scan) -> Iterator[Claim]:
    for file in (*scan.entities_with_incidents, *scan.results):
        yield from _claims(row, file, scan)
    for inner in scan.scans:
        yield from _walk(row, inner)


class _Top:
    """The top scan's own fields, which stand above its rows."""

    def __init__(self) -> None:
        self.scan = _Scan()
        self.notes: Notes = {("id",): self._take_id, ("type",): self._take_type}

    def _take_id(self, raw: bytes) -> None:
        self.scan = msgspec.structs.replace(self.scan, id=string(raw))

    def _take_type(self, raw: bytes) -> None:
        self.scan = msgspec.structs.replace(self.scan, type=string(raw))


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    peeked, top = Peeked(source), _Top()
    keys = ("entities_with_incidents", "results", "scans")
    at = {key: peeked.first.find(b'"%s"' % key.encode()) for key in keys}
    key = min((key for key in keys if at[key] >= 0), key=at.__getitem__, default=keys[0])
    if key == "scans":
        for scan in json_items(peeked, _Scan, "scans", "*"):
            yield from (scan,) if isinstance(scan, Skipped) else _walk(scan.number, scan.item)
        return
    for file in json_items(peeked, _File, key, "*", notes=top.notes):
        yield from (file,) if isinstance(file, Skipped) else _claims(file.number, file.item, top.scan)


FORMATS = (
    Format(
        name="ggshield-json",
        scanner="ggshield",
        summary="GitGuardian ggshield --json: masked, readable with --source; whole with --show-secrets",
        sniff=_sniff,
        parse=_parse,
    ),
)
