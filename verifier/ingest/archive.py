"""The layers of a saved container image: which file stands in which layer, and what became of it.

Reads a `docker save` archive (legacy layout with `manifest.json`, OCI layout with `index.json`), plain or gzip, or
the same unpacked into a folder. Members are listed from their headers; file bodies are passed over, and read one at
a time when asked for. Fate rules: OCI image specification, "Layer Filesystem Changeset" (whiteouts `.wh.NAME`, opaque
folders `.wh..wh..opq`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Self

import msgspec
from msgspec import Struct

from verifier.ingest.boxes import (
    BROKEN,
    GZIP,
    MAX_HOPS,
    Box,
    FolderBox,
    Guard,
    TarBox,
    UnreadableSource,
    clean,
    damaged,
    members,
)
from verifier.ingest.image import image as parse_image
from verifier.ingest.image import sha256
from verifier.model import Claim, Image, LayerFate, Place, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE: Final = 32 << 20
"""Largest file that is read back, in bytes."""
MAX_MEMBERS: Final = 1_000_000
"""Most members over all layers; some 200 bytes of memory each."""
_MAX_DOCUMENT: Final = 8 << 20
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_SHORTEST_ID: Final = 12


# ── layers ─────────────────────────────────────────────────────────────────────────────────────────────


class Layer(Struct):
    """One layer: `files` maps the clean path of everything but folders to the offset of its tar header.

    `folders` holds what is a folder here, by an entry of its own or by what lies in it.
    `flaw` says why the layer could not be read (then all of these are empty).
    """

    member: str
    names: frozenset[str]
    diff_id: str | None = None
    files: dict[str, int] = {}
    folders: set[str] = set()
    gone: set[str] = set()
    opaque: set[str] = set()
    flaw: str | None = None

    def hides(self, path: str) -> bool:
        """Whether this layer, laid over another, takes that one's file at `path` out of sight."""
        if path in self.gone or path in self.files or path in self.folders or "" in self.opaque:
            return True
        at = path.rfind("/")
        while at > 0:
            folder = path[:at]
            if folder in self.gone or folder in self.opaque or folder in self.files:
                return True
            at = path.rfind("/", 0, at)
        return False


class SavedImage(Struct, frozen=True):
    """One image of the archive: its names (`acme/api:1.2`), manifest digest if known, and layers from the bottom."""

    names: tuple[str, ...]
    digest: str | None
    layers: tuple[int, ...]


class _Manifest(Struct, rename="pascal"):
    config: str = ""
    repo_tags: list[str] | None = None
    layers: list[str] = []


class _Rootfs(Struct):
    diff_ids: list[str] = []


class _Config(Struct):
    rootfs: _Rootfs = msgspec.field(default_factory=_Rootfs)


class _Descriptor(Struct, rename="camel"):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] | None = None


class _OCI(Struct):
    manifests: list[_Descriptor] = []
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


class LayerIndex:
    """All images and layers of one saved image archive. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """List every layer of the archive or folder; raises `UnreadableSource` when it is no saved image."""
        self.name = path.name
        self.images: tuple[SavedImage, ...] = ()
        self.layers: list[Layer] = []
        self._by_member: dict[str, int] = {}
        self._members = 0
        self._cache: dict[tuple[int, str], bytes | None] = {}
        self._held: tuple[int, Guard] | None = None
        self._box: Box = FolderBox(path) if path.is_dir() else TarBox(path)
        try:
            self.images = tuple(self._legacy() or self._oci())
        except BROKEN as error:
            self.close()
            raise damaged(self.name, error) from None
        except UnreadableSource:
            self.close()
            raise
        if not self.images:
            self.close()
            raise UnreadableSource(
                self.name, "it holds neither manifest.json nor index.json", "give an archive made by `docker save`"
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the archive."""
        self.close()

    def close(self) -> None:
        """Let go of the archive."""
        if self._held is not None:
            self._held[1].close()
            self._held = None
        self._box.close()

    # ── reading the archive ──

    def _document(self, member: str) -> bytes | None:
        opened = self._box.open(member)
        if opened is None:
            return None
        stream, size = opened
        with stream:
            if size > _MAX_DOCUMENT:
                raise UnreadableSource(self.name, f"its {member[:80]} is over 8 MiB", "save the image again")
            return stream.read(size)

    def _diff_ids(self, config: str) -> list[str]:
        raw = self._document(config)
        return [] if raw is None else msgspec.json.decode(raw, type=_Config).rootfs.diff_ids

    def _legacy(self) -> list[SavedImage]:
        raw = self._document("manifest.json")
        if raw is None:
            return []
        digests = self._manifest_digests()
        images = []
        for manifest in msgspec.json.decode(raw, type=list[_Manifest]):
            diff_ids = self._diff_ids(manifest.config)
            layers = [
                self._layer(member, diff_ids[n] if n < len(diff_ids) else None)
                for n, member in enumerate(manifest.layers)
            ]
            names = tuple(manifest.repo_tags or ())
            images.append(SavedImage(names, digests.get(manifest.config), tuple(layers)))
        return images

    def _manifest_digests(self) -> dict[str, str]:
        """Map each config member to the digest of its OCI manifest, where the archive has both layouts."""
        found = {}
        for digest, manifest, _ in self._oci_manifests():
            if manifest.config is not None:
                found[_blob(manifest.config.digest)] = digest
        return found

    def _oci_manifests(self) -> Iterator[tuple[str, _OCI, tuple[str, ...]]]:
        raw = self._document("index.json")
        queue = [] if raw is None else [(d, 0) for d in msgspec.json.decode(raw, type=_OCI).manifests]
        seen: set[str] = set()
        while queue:
            descriptor, depth = queue.pop(0)
            if descriptor.digest in seen or depth > MAX_HOPS:
                continue
            seen.add(descriptor.digest)
            body = self._document(_blob(descriptor.digest))
            if body is None:
                continue
            document = msgspec.json.decode(body, type=_OCI)
            notes = descriptor.annotations or {}
            if document.config is not None:
                full = notes.get("io.containerd.image.name")
                short = notes.get("org.opencontainers.image.ref.name")
                yield descriptor.digest, document, tuple(name for name in (full or short,) if name)
            for child in document.manifests:
                if notes and child.annotations is None:
                    child.annotations = notes
                queue.append((child, depth + 1))

    def _oci(self) -> list[SavedImage]:
        images = []
        for digest, manifest, names in self._oci_manifests():
            diff_ids = self._diff_ids(_blob(manifest.config.digest)) if manifest.config else []
            layers = [
                self._layer(_blob(layer.digest), diff_ids[n] if n < len(diff_ids) else None)
                for n, layer in enumerate(manifest.layers)
                if "tar" in layer.media_type or not layer.media_type  # attestations are layers of JSON
            ]
            if layers:
                images.append(SavedImage(names, digest, tuple(layers)))
        return images

    def _layer(self, member: str, diff_id: str | None) -> int:
        member = clean(member) or ""
        if member in self._by_member:
            return self._by_member[member]
        stem = member.removesuffix("/layer.tar").removesuffix(".tar.gz").removesuffix(".tar")
        names = {member, stem, stem.rsplit("/", 1)[-1]}
        if diff_id:
            names |= {diff_id, diff_id.split(":", 1)[-1]}
        layer = Layer(member, frozenset(names - {""}), sha256(diff_id), {}, set(), set(), set())
        self._list(layer)
        self.layers.append(layer)
        self._by_member[member] = len(self.layers) - 1
        return len(self.layers) - 1

    def _open_layer(self, layer: Layer) -> Guard | None:
        opened = self._box.open(layer.member)
        if opened is None:
            layer.flaw = "the archive lacks this layer"
            return None
        stream, size = opened
        magic = stream.read(4)
        stream.seek(0)
        if magic == _ZSTD:
            stream.close()
            layer.flaw = "this layer is packed with zstd; save the image with `docker save` to have it plain"
            return None
        return Guard(stream, self.name, size if magic.startswith(GZIP) else None)

    def _list(self, layer: Layer) -> None:
        stream = self._open_layer(layer)
        if stream is None:
            return
        with stream:
            for member in members(stream):
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise UnreadableSource(self.name, f"it has over {MAX_MEMBERS:,} files", "look at it by hand")
                if (path := clean(member.name)) is None:
                    continue
                folder, _, base = path.rpartition("/")
                at = len(folder)
                while at > 0 and (above := path[:at]) not in layer.folders:
                    layer.folders.add(above)
                    at = path.rfind("/", 0, at)
                if base == _OPAQUE:
                    layer.opaque.add(folder)
                elif base.startswith(_WHITEOUT):
                    if not base.startswith(_WHITEOUT * 2):  # other `.wh..wh.` names are AUFS' own business
                        layer.gone.add(f"{folder}/{base[4:]}" if folder else base[4:])
                elif member.isdir():
                    layer.folders.add(path)
                else:
                    layer.files[path] = member.offset

    # ── asking ──

    def find(self, name: str) -> int | None:
        """Return the layer of that diff id, blob digest, member or folder name (or a unique start of 12 or more)."""
        exact = [n for n, layer in enumerate(self.layers) if name in layer.names]
        if len(exact) == 1:
            return exact[0]
        bare = name.split(":", 1)[-1]
        if len(bare) < _SHORTEST_ID:
            return None
        starts = {n for n, layer in enumerate(self.layers) if any(known.startswith(bare) for known in layer.names)}
        return starts.pop() if len(starts) == 1 else None

    def image_of(self, layer: int, wanted: Image | None = None) -> SavedImage | None:
        """Return the image that holds the layer: the one that `wanted` names, or the only one."""
        holders = [saved for saved in self.images if layer in saved.layers]
        if len(holders) > 1 and wanted is not None:
            holders = [saved for saved in holders if _is_named(saved, wanted)] or holders
        return holders[0] if len(holders) == 1 else None

    def fate(self, layer: int, path: str, saved: SavedImage | None = None) -> LayerFate:
        """Return whether that layer's version of the file is still seen in the finished image.

        A later whiteout, an opaque folder above it, or anything put in its place counts as removed: the old bytes are
        out of sight and still in the image. Unknown when the layer has no such file, when a later layer is unreadable,
        or when several images hold the layer and they disagree.
        """
        name = clean(path)
        if name is None or name not in self.layers[layer].files:
            return LayerFate.UNKNOWN
        holders = (saved,) if saved is not None else tuple(s for s in self.images if layer in s.layers)
        fates = {self._fate_in(holder, layer, name) for holder in holders}
        return fates.pop() if len(fates) == 1 else LayerFate.UNKNOWN

    def _fate_in(self, saved: SavedImage, layer: int, path: str) -> LayerFate:
        at = max(n for n, index in enumerate(saved.layers) if index == layer)
        above = [self.layers[index] for index in saved.layers[at + 1 :]]
        if any(other.hides(path) for other in above):
            return LayerFate.REMOVED_LATER
        return LayerFate.UNKNOWN if any(other.flaw for other in above) else LayerFate.PRESENT

    def locate(self, place: Place) -> list[tuple[int, str]]:
        """Return each layer and clean path that the place may mean; empty when the archive holds no such file.

        The layer comes from `place.image.layer`, or from a path that goes through the layer's name
        (`<id>/layer.tar/app/.env`); failing both, every layer with that path.
        """
        if place.path is None:
            return []
        path = clean(place.path)
        named = place.image.layer if place.image is not None else None
        if named is not None:
            layer = self.find(named)
            return [(layer, path)] if path and layer is not None and path in self.layers[layer].files else []
        if path and (found := [(n, path) for n, layer in enumerate(self.layers) if path in layer.files]):
            return found
        return self._through(place.path)

    def _through(self, path: str) -> list[tuple[int, str]]:
        for hit in re.finditer(r"[0-9a-f]{64}|[^\s/!|:]+", path):
            layer = self.find(hit[0]) if len(hit[0]) >= _SHORTEST_ID else None
            if layer is None:
                continue
            rest = re.sub(r"^(?:/layer)?(?:\.decomp)?(?:\.tar)?(?:\.gz)?[\s/!|:]+", "", path[hit.end() :])
            name = clean(rest)
            return [(layer, name)] if name and name in self.layers[layer].files else []
        return []

    def annotate(self, claim: Claim) -> Claim:
        """Return the claim with image name, tag, digest, layer and fate filled in as far as the archive knows them.

        What the claim says already stays, but for a file's name in the image's place. A claim about a file that the
        archive lacks comes back unchanged.
        """
        places = self.locate(claim.place)
        if len(places) != 1:
            return claim
        layer, path = places[0]
        given = claim.place.image
        saved = self.image_of(layer, given)
        known = parse_image(saved.names[0]) if saved is not None and saved.names else None
        if given is None or (known is not None and _is_file(given.name)):
            given = known or Image(name=self.name)
        elif known is not None and known.name == given.name:
            given = msgspec.structs.replace(
                given, **{f: getattr(given, f) or getattr(known, f) for f in ("registry", "namespace", "tag")}
            )
        image = msgspec.structs.replace(
            given,
            digest=given.digest or (saved.digest if saved else None),
            layer=self.layers[layer].diff_id or given.layer,
            fate=self.fate(layer, path, saved),
        )
        place = msgspec.structs.replace(claim.place, source=SourceKind.DOCKER, image=image, path=path)
        return msgspec.structs.replace(claim, place=place)

    def read(self, layer: int, path: str) -> bytes | None:
        """Return the file's bytes; None when missing, damaged, no regular file, or over `MAX_FILE`. Cached."""
        key = (layer, path)
        if key not in self._cache:
            if len(self._cache) >= 8:  # findings come file by file
                self._cache.pop(next(iter(self._cache)))
            try:
                self._cache[key] = self._read(layer, path, MAX_HOPS)
            except BROKEN:  # changed since it was listed
                self._cache[key] = None
        return self._cache[key]

    def _read(self, layer: int, path: str, hops: int) -> bytes | None:
        offset = self.layers[layer].files.get(path)
        stream = None if offset is None or not hops else self._stream(layer)
        if stream is None or offset is None:
            return None
        stream.seek(offset)
        member = next(members(stream), None)
        if member is None or member.size > MAX_FILE:
            return None
        if member.islnk():
            return self._read(layer, clean(member.linkname) or "", hops - 1)
        if not member.isreg():
            return None
        stream.seek(member.offset_data)
        return stream.read(member.size)

    def _stream(self, layer: int) -> Guard | None:
        """Return the layer's bytes, held open: going on in a packed layer unpacks only what lies between."""
        if self._held is not None and self._held[0] == layer:
            return self._held[1]
        if self._held is not None:
            self._held[1].close()
        stream = self._open_layer(self.layers[layer])
        self._held = None if stream is None else (layer, stream)
        return stream


def _is_file(name: str) -> bool:
    """Whether a scanner that was given an archive took its file name for the image's."""
    return name.endswith((".tar", ".tar.gz", ".tgz"))


def _is_named(saved: SavedImage, wanted: Image) -> bool:
    return any(
        known.name == wanted.name and (wanted.tag is None or known.tag == wanted.tag)
        for known in map(parse_image, saved.names)
    )
