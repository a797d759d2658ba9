"""TruffleHog 3, `--json`: one object a line, log lines mixed in.

Shapes read off its `json.go`, `source_metadata.proto` and published reports. Files of before mid-2022 hold `Raw` in
base64 and name no decoder. `Verified: false` means dead or not asked: it says nothing. What `Raw` holds is the
detector's choice (for AWS the key id); the other parts are in `SecretParts` (2026), or in `RawV2` next to `Raw`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

from verifier.ingest.image import image, sha256
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.pieces import address, author, companions, image_or_file, moment, repository
from verifier.ingest.stream import claims, json_items, jsonl
from verifier.ingest.walk import first
from verifier.model import Absent, Claim, Claimed, Image, Masked, Place, SourceKind, Visibility
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source
    from verifier.model import Hidden, Skipped

SCANNER = "trufflehog"
_JSON_STARTS = (b"{", b"}", b"[", b"]", b'"')
_MASK = re.compile(r"\*{3,}|\.{3}$|…")
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://\S+|[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?(?:/\S*)?", re.IGNORECASE)
_READABLE = re.compile(r"[\t\n\r -~]+")


class Where(Struct, frozen=True, gc=False, rename={"package_": "package"}):
    """What the sources tell of a place; each fills some of it. Free-form fields are `object`: their types vary."""

    file: str = ""
    filename: str = ""
    path: str = ""
    line: int = 0
    link: str = ""
    commit: str = ""
    repository: str = ""
    email: str = ""
    author: str = ""
    username: str = ""
    image: str = ""
    tag: str = ""
    layer: str = ""
    registry: str = ""
    bucket: str = ""
    container: str = ""
    package_: str = ""
    release: str = ""
    repo: str = ""
    project: str = ""
    project_name: str = ""
    space: str = ""
    issue: str = ""
    channel_name: str = ""
    channel_id: str = ""
    workspace_name: str = ""
    pipeline: str = ""
    timestamp: object = None
    visibility: object = None


class Metadata(Struct, frozen=True):
    """`Data` has one entry: the source's name and what it tells."""

    Data: dict[str, Where] | None = None


class Line(Struct, frozen=True):
    """One result."""

    DetectorName: str
    SourceMetadata: Metadata | None = None
    Raw: str = ""
    RawV2: str = ""
    Redacted: str = ""
    Verified: bool = False
    VerificationError: str | None = None
    DecoderName: str | UnsetType = UNSET
    SecretParts: dict[str, str] | None = None


_KINDS = {
    "git": SourceKind.GIT, "github": SourceKind.GIT, "gitlab": SourceKind.GIT, "bitbucket": SourceKind.GIT,
    "gerrit": SourceKind.GIT, "azurerepos": SourceKind.GIT, "huggingface": SourceKind.GIT,
    "docker": SourceKind.DOCKER, "ecr": SourceKind.DOCKER,
    "filesystem": SourceKind.FILESYSTEM, "stdin": SourceKind.FILESYSTEM, "test": SourceKind.FILESYSTEM,
    "s3": SourceKind.BUCKET, "gcs": SourceKind.BUCKET, "azure": SourceKind.BUCKET, "artifactory": SourceKind.BUCKET,
    "googledrive": SourceKind.BUCKET, "sharepoint": SourceKind.BUCKET,
    "slack": SourceKind.CHAT, "slackcontinuous": SourceKind.CHAT, "teams": SourceKind.CHAT,
    "jira": SourceKind.TICKET, "confluence": SourceKind.TICKET,
    "circleci": SourceKind.CI, "travisci": SourceKind.CI, "jenkins": SourceKind.CI, "buildkite": SourceKind.CI,
    "npm": SourceKind.PACKAGE, "pypi": SourceKind.PACKAGE,
}  # fmt: skip
"""Names of `SourceMetadata.Data`, lower case."""
_KIND_OF = {**_KINDS, **{name.title(): kind for name, kind in _KINDS.items()}}
_VISIBLE = {1: Visibility.PRIVATE, "private": Visibility.PRIVATE, "public": Visibility.PUBLIC}
"""0 (public) is never written, so its absence tells nothing."""


def _image(where: Where) -> Image:
    layer = where.layer or None
    if where.registry:
        return image(f"{where.registry}/{where.image}", layer=layer)
    if ":" in where.tag and (digest := sha256(where.tag)):
        return image(where.image, digest=digest, layer=layer)
    if where.image.startswith("file://"):
        named = image_or_file(where.image)
        return Image(name=named.name, layer=sha256(layer))
    return image(where.image, tag=where.tag or None, layer=layer)


def _place(metadata: Metadata | None) -> Place:
    for name, where in ((metadata and metadata.Data) or {}).items():
        kind = _KIND_OF.get(name) or _KINDS.get(name.lower(), SourceKind.OTHER)
        revision = where.commit or where.release or None
        path = where.file or where.filename or where.path or None
        line = where.line if where.line > 0 else None
        if kind is SourceKind.FILESYSTEM:
            return Place(kind, path=path, line=line)
        if kind is SourceKind.DOCKER and where.image:
            return Place(kind, image=_image(where), path=path, line=line, url=address(where.link))
        named = (
            where.repository or where.bucket or where.container or where.package_ or where.repo or where.project
            or where.project_name or where.space or where.issue or where.channel_name or where.channel_id
            or where.workspace_name or where.pipeline
        )  # fmt: skip
        return Place(
            kind,
            repository=repository(named) if named else None,
            path=path,
            line=line,
            revision=revision,
            author=where.author or where.email or author(where.username, None),
            visibility=_VISIBLE.get(where.visibility, Visibility.UNKNOWN)
            if isinstance(where.visibility, int | str)
            else Visibility.UNKNOWN,
            url=address(where.link) if where.link else None,
        )
    return Place(SourceKind.OTHER)


def _moment(metadata: Metadata | None) -> object:
    for where in ((metadata and metadata.Data) or {}).values():
        return where.timestamp
    return None


def _once_base64(text: str) -> str:
    """Undo the base64 of old files: only where all of it decodes to readable text."""
    try:
        plain = b64decode(text, validate=True).decode("ascii")
    except (NotBase64, ValueError):
        return text
    return plain if _READABLE.fullmatch(plain) else text


def _value(line: Line, raw: str) -> Secret | Hidden:
    if raw:
        return Secret(raw)
    return Masked(line.Redacted) if _MASK.search(line.Redacted) else Absent()


def _beside(raw: str, both: str) -> tuple[str, str]:
    """Name the piece of `RawV2` that is not `Raw`: what follows it is the secret of an id, what precedes it the id."""
    if both.startswith(raw):
        rest = both[len(raw) :].removeprefix(":")
        if _HOST.fullmatch(rest):
            return "host", rest
        return ("email" if "@" in rest else "secret"), rest
    if both.endswith(raw):
        return "id", both[: -len(raw)].removesuffix(":")
    return "RawV2", both


def _claim(row: int, line: Line) -> Claim:
    raw, both = line.Raw, line.RawV2
    if line.DecoderName is UNSET and raw:
        raw, both = _once_base64(raw), _once_base64(both)
    raw = raw or both
    if line.SecretParts:
        beside = companions((name, text) for name, text in line.SecretParts.items() if text != raw)
    else:
        beside = companions((_beside(raw, both),)) if both and both != raw else {}
    when = _moment(line.SourceMetadata)
    return Claim(
        SCANNER,
        line.DetectorName,
        _value(line, raw),
        _place(line.SourceMetadata),
        row,
        beside,
        claimed=Claimed.LIVE if line.Verified else Claimed.UNKNOWN if line.VerificationError else Claimed.UNCHECKED,
        seen_at=moment(when) if isinstance(when, str) else None,
    )


def _noise(line: bytes) -> bool:
    """Tell a log line: text that is no piece of JSON, or an object with a level and a message."""
    line = line.lstrip()
    if line[:1] not in _JSON_STARTS:
        return b"\0" not in line
    return line.startswith(b"{") and b'"level"' in line and b'"msg"' in line and b'"DetectorName"' not in line


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    def noise(line: bytes) -> bool:
        if not _noise(line):
            return False
        if b'"level":"error"' in line:  # a repository or a chunk that was not scanned
            source.cut()
        return True

    return claims(jsonl(source, Line, noise=noise), _claim)


def _parse_array(source: Source) -> Iterator[Claim | Skipped]:
    return claims(json_items(source, Line, "*"), _claim)


def _is_result(row: bytes) -> bool:
    return b'"SourceMetadata"' in row and b'"DetectorName"' in row


def _sniff(head: bytes) -> Likelihood:
    found = head.lstrip()[:1] != b"[" and any(map(_is_result, head.split(b"\n")))
    return Likelihood.CERTAIN if found else Likelihood.NO


def _sniff_array(head: bytes) -> Likelihood:
    found = head.lstrip()[:1] == b"[" and _is_result(first(head, "*"))
    return Likelihood.CERTAIN if found else Likelihood.NO


FORMATS = (
    Format("trufflehog-jsonl", SCANNER, "TruffleHog 3, --json", _sniff, _parse),
    Format("trufflehog-array", SCANNER, "TruffleHog 3, --json, gathered into an array", _sniff_array, _parse_array),
)
