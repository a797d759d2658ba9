"""`json-v1`: the machine-readable output. Published as `docs/schemas/json-v1.schema.json`, kept by a test.

Fields are only ever added within a version; a renamed or removed one makes `v` 2.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, assert_never

import msgspec
from msgspec import Struct

from lapse.ledger.model import Found, Key, Status
from lapse.output.rotations import RotationOut
from verifier.model import Dead, Doubt, Evidence, How, Identity, Live, Place, Undecided, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

VerdictWord = Literal["live", "dead", "undecided"]


class KeyLine(Struct, frozen=True):
    """One key and its newest verdict: a line of `verify --format jsonl`.

    `verdict` is the newest answer; `known` the newest that was not undecided (a live key that was throttled tonight is
    `undecided`, known `live`). `why` belongs to undecided (null: never asked), `how` to dead. `owner` is `ours`,
    `foreign` or `unknown`.
    """

    key: str
    provider: str
    verdict: VerdictWord
    why: Doubt | None
    how: How | None
    confirmed: bool
    restricted: bool
    identity: Identity | None
    evidence: Evidence | None
    findings: int
    first_seen: datetime
    removed_from_source: bool
    id: str
    known: VerdictWord | None = None
    note: str = ""
    owner: str = "unknown"
    canary: bool = False
    candidates: tuple[str, ...] = ()
    asked_at: datetime | None = None
    first_live: datetime | None = None
    last_live: datetime | None = None
    dead_since: datetime | None = None
    v: Literal[1] = 1


class ImageOut(Struct, frozen=True):
    """A container image as reported."""

    registry: str | None
    namespace: str | None
    name: str
    digest: str | None
    layer: str | None
    fate: str


class PlaceOut(Struct, frozen=True):
    """Where a key was seen. `image` is the reference for docker places; `removed_at` when a complete scan lacked it."""

    source: str
    repository: str | None = None
    image: str | None = None
    tag: str | None = None
    image_parts: ImageOut | None = None
    path: str | None = None
    line: int | None = None
    revision: str | None = None
    author: str | None = None
    visibility: str = "unknown"
    url: str | None = None
    scanner: str = ""
    rule: str = ""
    first_seen: datetime | None = None
    removed_at: datetime | None = None


class KeyReport(KeyLine, frozen=True, kw_only=True):
    """A key with all its places: an entry of `report --format json`."""

    places: tuple[PlaceOut, ...] = ()


class FileOut(Struct, frozen=True):
    """What one report file brought."""

    file: str
    format: str
    findings: int
    skipped: int
    complete: bool


class IngestOut(Struct, frozen=True):
    """`ingest --format json`."""

    files: tuple[FileOut, ...]
    findings: int
    keys: int
    new: int
    incomplete: int = 0
    unknown_rules: dict[str, int] = {}
    v: Literal[1] = 1


class StatusOut(Struct, frozen=True):
    """`status --format json`. `rotations` are those that are not over, the ones that need a person first."""

    status: Status
    live: tuple[KeyLine, ...]
    rotations: tuple[RotationOut, ...] = ()
    v: Literal[1] = 1


class ReportOut(Struct, frozen=True):
    """`report --format json`."""

    keys: tuple[KeyReport, ...]
    v: Literal[1] = 1


def line(key: Key) -> KeyLine:
    """Return the output form of one key."""
    last = key.last
    return KeyLine(
        key=key.short,
        provider=key.provider,
        verdict=word(last),
        why=last.why if isinstance(last, Undecided) else None,
        how=last.how if isinstance(last, Dead) else None,
        confirmed=isinstance(last, Dead) and key.confirmed,
        restricted=isinstance(last, Live) and last.restricted,
        identity=last.identity if isinstance(last, Live) else None,
        evidence=last.evidence if last else None,
        findings=key.findings,
        first_seen=key.first_seen,
        removed_from_source=key.removed_from_source,
        id=key.id,
        known=word(key.known) if key.known else None,
        note=_note(last),
        owner=str(key.owner),
        canary=str(key.canary) == "yes",
        candidates=key.candidates,
        asked_at=key.last_at,
        first_live=key.first_live,
        last_live=key.last_live,
        dead_since=key.dead_since,
    )


def full(key: Key, found: Sequence[Found]) -> KeyReport:
    """Return the output form of one key with its places."""
    return KeyReport(**msgspec.structs.asdict(line(key)), places=tuple(map(place, found)))


def _note(last: Verdict | None) -> str:
    match last:
        case None:
            return "never asked"
        case Undecided(note=note):
            return note
        case Live(evidence=evidence) | Dead(evidence=evidence):
            return evidence.rule
        case _:
            assert_never(last)


def encode(value: Struct) -> bytes:
    """Return one line of JSON."""
    return msgspec.json.encode(value)


def word(verdict: Verdict | None) -> VerdictWord:
    """Return `live`, `dead` or `undecided`; a key never asked is undecided."""
    match verdict:
        case Live():
            return "live"
        case Dead():
            return "dead"
        case Undecided() | None:
            return "undecided"
        case _:
            assert_never(verdict)


def place(found: Found) -> PlaceOut:
    """Return the output form of one place."""
    p = found.place
    return PlaceOut(
        source=str(p.source),
        repository=p.repository,
        image=p.image.reference if p.image else None,
        tag=p.image.tag if p.image else None,
        image_parts=_image(p) if p.image else None,
        path=p.path,
        line=p.line,
        revision=p.revision,
        author=p.author,
        visibility=str(p.visibility),
        url=p.url,
        scanner=found.scanner,
        rule=found.rule,
        first_seen=found.first_seen,
        removed_at=found.removed_at,
    )


def _image(p: Place) -> ImageOut | None:
    i = p.image
    return ImageOut(i.registry, i.namespace, i.name, i.digest, i.layer, str(i.fate)) if i else None
