"""Pieces of claims that several formats share: moments, addresses without passwords, authors, places inside images."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from verifier.ingest.image import image
from verifier.model import Absent, Image, Masked
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verifier.model import Hidden

_GO_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) ([+-]\d{4})(?: \S+)?")
_CREDENTIALS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#@]*@")
_LAYER = re.compile(r"(?P<archive>.+?)[!/](?P<id>[0-9a-f]{64})/layer\.tar!(?P<path>.+)", re.DOTALL)
_BLOB = re.compile(
    r"(?P<archive>.+?)[!/]blobs/sha256/(?P<id>[0-9a-f]{64})[^!/]*!(?:[^!]*\.tar!)?(?P<path>.+)", re.DOTALL
)
_MEMBER = re.compile(r"(?P<archive>.+?)!(?P<path>(?:blobs/sha256/)?[0-9a-f]{64}(?:\.json)?)")
_ELLIPSIS = "..."


@lru_cache(maxsize=8192)
def moment(text: str) -> datetime | None:
    """Read a point in time as scanners write it (RFC 3339, Go's `String()`); UTC where no zone is told; else None."""
    if hit := _GO_MOMENT.match(text):
        text = f"{hit[1]}T{hit[2]}{hit[3]}"
    try:
        when = datetime.fromisoformat(text)
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=8192)
def address(url: str) -> str | None:
    """Return an address without the user name and password that some scanners leave in; None if empty."""
    return _CREDENTIALS.sub(r"\1//", url.strip()) or None


@lru_cache(maxsize=8192)
def repository(url: str) -> str | None:
    """Return a repository's address as `address` does, and without the `.git` and `/` at its end."""
    return (address(url) or "").rstrip("/").removesuffix(".git") or None


@lru_cache(maxsize=8192)
def repository_of(link: str) -> str | None:
    """Return the repository that a link to a file at a commit belongs to (GitHub, GitLab, Bitbucket, Gitea, Azure)."""
    for mark in ("/-/blob/", "/blob/", "/-/commit/", "/src/commit/", "/src/", "/commit/", "/raw/", "?"):
        head, found, _ = link.partition(mark)
        if found:
            return repository(head)
    return None


@lru_cache(maxsize=8192)
def author(name: str | None, email: str | None) -> str | None:
    """Return `Name <email>`, or whichever of the two there is."""
    if name and email:
        return f"{name} <{email}>"
    return name or email or None


@lru_cache(maxsize=8192)
def in_image(path: str) -> tuple[Image, str] | None:
    """Take apart a path that leads through a saved image's layer: the image (named by its file) and the path inside.

    `api.tar!<id>/layer.tar!app/.env` (the layer's folder name as its id, which is no digest),
    `api.tar!blobs/sha256/<digest>!app/.env`, and members of the archive itself, such as the image's configuration.
    """
    if hit := _LAYER.fullmatch(path):
        return Image(name=hit["archive"], layer=hit["id"]), hit["path"]
    if hit := _BLOB.fullmatch(path):
        return Image(name=hit["archive"], layer=f"sha256:{hit['id']}"), hit["path"]
    if hit := _MEMBER.fullmatch(path):
        return Image(name=hit["archive"]), hit["path"]
    return None


@lru_cache(maxsize=4096)
def image_or_file(name: str) -> Image:
    """Read what a scanner names as the image: a reference, or the file that an image was saved to."""
    name = name.removeprefix("file://")
    return Image(name=name) if name.endswith((".tar", ".tar.gz", ".tgz")) else image(name)


def shown(text: str) -> Secret | Hidden:
    """Read a secret as gitleaks and its kin print it: `REDACTED` and `start...` are their masks."""
    if not text:
        return Absent()
    if text == "REDACTED" or text.endswith(_ELLIPSIS):
        return Masked(text)
    return Secret(text)


def companions(pairs: Iterable[tuple[str, str]]) -> dict[str, Secret]:
    """Wrap other captures by the scanner's own names; empty, masked and repeated ones are left out."""
    out: dict[str, Secret] = {}
    for name, text in pairs:
        if name and name not in out and isinstance(value := shown(text), Secret):
            out[name] = value
    return out
