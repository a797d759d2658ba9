"""Writes a saved container image, in the layout that `docker save` had for ten years: one folder a layer.

Format: `manifest.json` names the config and, from the bottom up, the members `ID/layer.tar`; the config lists the
SHA-256 of each layer as `rootfs.diff_ids`. A later layer removes `dir/name` by an empty file `dir/.wh.name`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping  # msgspec reads annotations at run time
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Layer(Struct, frozen=True):
    """One layer: what a build step added (`path` to text) and what it removed."""

    step: str
    files: Mapping[str, str] = {}
    removed: tuple[str, ...] = ()


def save(path: Path, name: str, layers: Sequence[Layer]) -> None:
    """Write the image `name` (`acme/api:1.2`), its layers from the bottom up."""
    tars = [_tar({**layer.files, **{_whiteout(gone): "" for gone in layer.removed}}) for layer in layers]
    digests = [sha256(tar).hexdigest() for tar in tars]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
            "history": [{"created_by": layer.step} for layer in layers],
        }
    )
    members = [f"{d}/layer.tar" for d in digests]
    manifest = [{"Config": f"{sha256(config.encode()).hexdigest()}.json", "RepoTags": [name], "Layers": members}]
    with tarfile.open(path, "w") as archive:
        for member, tar in zip(members, tars, strict=True):
            _add(archive, member, tar)
        _add(archive, str(manifest[0]["Config"]), config.encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _whiteout(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.wh.{name}" if folder else f".wh.{name}"


def _tar(files: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in files.items():
            _add(tar, path, text.encode())
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
