"""Makes saved image archives, in the old and the new layout, for the tests of read-back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(files: Iterable[tuple[str, bytes | str | None]]) -> bytes:
    """Make a tar; bytes are a file, None a folder, `->x` a symlink to x, `=>x` a hard link to x."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(content, str):
                info.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                info.linkname = content[2:]
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def legacy(
    layers: list[bytes], tags: tuple[str, ...] = ("ghcr.io/acme/api:1.2",)
) -> list[tuple[str, bytes | str | None]]:
    """Lay an archive out as old `docker save` did; a layer equal to an earlier one is a link to it."""
    config = json.dumps(
        {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(layer)}" for layer in layers]}}
    ).encode()
    files: list[tuple[str, bytes | str | None]] = []
    names: list[str] = []
    for n, layer in enumerate(layers):
        folder = sha(b"folder %d" % n)
        first = layers.index(layer)
        files.append((f"{folder}/layer.tar", layer if first == n else f"->../{names[first]}"))
        names.append(f"{folder}/layer.tar")
    files.append((f"{sha(config)}.json", config))
    manifest = [{"Config": f"{sha(config)}.json", "RepoTags": list(tags), "Layers": names}]
    return [*files, ("manifest.json", json.dumps(manifest).encode())]


def oci(layers: list[bytes], *, pack: bool = False, name: str = "docker.io/acme/api:1.2") -> list[tuple[str, bytes]]:
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha(layer)}" for layer in layers]}}).encode()
    blobs = [gzip.compress(layer, mtime=0) if pack else layer for layer in layers]
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if pack else "")
    manifest = json.dumps(
        {
            "config": {"digest": f"sha256:{sha(config)}"},
            "layers": [{"mediaType": kind, "digest": f"sha256:{sha(blob)}"} for blob in blobs],
        }
    ).encode()
    note = json.dumps(
        {
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": "sha256:00"}],
            "config": {"digest": "sha256:11"},
        }
    ).encode()
    inner = json.dumps(
        {"manifests": [{"digest": f"sha256:{sha(manifest)}"}, {"digest": f"sha256:{sha(note)}"}]}
    ).encode()
    index = json.dumps(
        {
            "manifests": [
                {"digest": f"sha256:{sha(inner)}", "annotations": {"io.containerd.image.name": name}},
                {"digest": "sha256:22"},
            ]
        }
    ).encode()
    bodies = [config, manifest, note, inner, *blobs]
    return [("oci-layout", b"{}"), ("index.json", index), *{(f"blobs/sha256/{sha(body)}", body) for body in bodies}]


def saved(tmp_path: Path, files: Iterable[tuple[str, bytes | str | None]], name: str = "image.tar") -> Path:
    path = tmp_path / name
    path.write_bytes(tar_of(files))
    return path


def parents_first(files: Mapping[str, bytes | None]) -> list[tuple[str, bytes | None]]:
    """Give a layer the folder entries that every real one has."""
    folders = {name[:at] for name in files for at, char in enumerate(name) if char == "/"}
    return [*((folder, None) for folder in sorted(folders)), *((n, c) for n, c in files.items() if n not in folders)]


def image_tar(layers: list[dict[str, bytes]]) -> bytes:
    """Make a whole archive in the old layout from the files of each layer."""
    return tar_of(legacy([tar_of(parents_first(layer)) for layer in layers]))
