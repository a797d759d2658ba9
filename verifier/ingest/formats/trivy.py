"""Trivy JSON (`--format json`): the secrets of images, file systems and repositories, always masked.

`Match` is the line (or a piece of a long one) with each secret starred out; `Code.Lines` holds the same line whole,
with a star for each character, in old versions as well. With `--source` the line gives the secret back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from verifier.ingest.clues import has_keys, opens_with, string, when
from verifier.ingest.image import image, sha256
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.pieces import repository
from verifier.ingest.stream import bad, json_items
from verifier.model import Absent, Claim, Hidden, Image, Masked, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source
    from verifier.ingest.stream import Notes


class _Layer(Struct, rename="pascal"):
    digest: str | None = None
    diff_id: str | None = msgspec.field(default=None, name="DiffID")


class _Line(Struct, rename="pascal"):
    content: str | None = None
    is_cause: bool = False


class _Code(Struct, rename="pascal"):
    lines: list[_Line] | None = None


class _Secret(Struct, rename="pascal"):
    rule_id: str = msgspec.field(name="RuleID")
    match: str | None = None
    start_line: int | None = None
    layer: _Layer | None = None
    code: _Code | None = None


class _Result(Struct, rename="pascal"):
    target: str = ""
    class_: str = msgspec.field(default="", name="Class")
    secrets: list[Raw] | None = None


class _Metadata(Struct, rename="pascal"):
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None


_decode = msgspec.json.Decoder(_Secret).decode
_STARS = re.compile(r"\*{3,}")
_CUT = 100
"""Lines of this many bytes and more are cut off there."""
_KINDS = {
    "container_image": SourceKind.DOCKER,
    "repository": SourceKind.GIT,
    "vm": SourceKind.OTHER,
}


class _Head:
    """What stands above the results: which thing was scanned."""

    def __init__(self) -> None:
        self.name = ""
        self.kind = SourceKind.FILESYSTEM
        self.created: str | None = None
        self.metadata = _Metadata()
        self.notes: Notes = {
            ("ArtifactName",): self._take_name,
            ("ArtifactType",): self._take_type,
            ("CreatedAt",): self._take_created,
            ("Metadata",): self._take_metadata,
        }

    def _take_name(self, raw: bytes) -> None:
        self.name = string(raw)

    def _take_type(self, raw: bytes) -> None:
        self.kind = _KINDS.get(string(raw), SourceKind.FILESYSTEM)

    def _take_created(self, raw: bytes) -> None:
        self.created = string(raw)

    def _take_metadata(self, raw: bytes) -> None:
        try:
            self.metadata = msgspec.json.decode(raw, type=_Metadata)
        except (msgspec.MsgspecError, ValueError):
            self.metadata = _Metadata()

    def image(self, layer: _Layer | None) -> Image | None:
        """Return the image with the secret's layer, for a container scan."""
        if self.kind is not SourceKind.DOCKER:
            return None
        tags, digests = self.metadata.repo_tags or [], self.metadata.repo_digests or []
        archive = self.name.endswith((".tar", ".tar.gz", ".tgz"))
        reference = tags[0] if tags and (archive or not self.name) else self.name
        digest = digests[0].rpartition("@")[2] if digests else None
        named = layer and (sha256(layer.diff_id) or sha256(layer.digest))
        return image(reference or "image", digest=digest, layer=named)


def _sniff(head: bytes) -> Likelihood:
    if opens_with(head, b"{") and has_keys(head, "SchemaVersion"):
        if has_keys(head, "ArtifactName") or has_keys(head, "ArtifactType"):
            return Likelihood.CERTAIN
        return Likelihood.LIKELY if has_keys(head, "Results") else Likelihood.NO
    return Likelihood.NO


def _mask(secret: _Secret) -> Hidden:
    """Choose the most telling mask: the line in `Code` unless it was cut short, else the starred line of `Match`."""
    lines = [line.content or "" for line in (secret.code.lines or ()) if line.is_cause] if secret.code else []
    whole = [line for line in lines[:1] if len(line.encode()) < _CUT]
    for text in (*whole, *(secret.match or "").split("\n")):
        if _STARS.search(text):
            return Masked(text.strip())
    return Absent()


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    """Row numbers count the secrets over all results; vulnerabilities and the like are none of ours."""
    head, number = _Head(), 0
    for row in json_items(source, _Result, "Results", "*", notes=head.notes):
        if isinstance(row, Skipped):
            yield row
            continue
        for raw in row.item.secrets or ():
            number += 1
            try:
                secret = _decode(raw)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                yield bad(number, bytes(raw), error)
                continue
            where = head.image(secret.layer)
            yield Claim(
                scanner="trivy",
                rule=secret.rule_id,
                value=_mask(secret),
                place=Place(
                    head.kind,
                    repository=repository(head.name) if head.kind is SourceKind.GIT else None,
                    image=where,
                    path=row.item.target or None,
                    line=secret.start_line,
                ),
                row=number,
                seen_at=when(head.created),
            )


FORMATS = (
    Format(
        name="trivy-json",
        scanner="trivy",
        summary="Trivy JSON, secrets only: always masked, readable with --source",
        sniff=_sniff,
        parse=_parse,
    ),
)
