"""Layers of a saved image: fate against a model, layouts, read-back of bytes, and hostile archives."""

from __future__ import annotations

import gzip
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_images import legacy, oci, parents_first, saved, sha, tar_of

from verifier.ingest import archive, boxes
from verifier.ingest.archive import LayerIndex
from verifier.ingest.boxes import UnreadableSource, clean
from verifier.ingest.image import image
from verifier.model import Absent, Claim, Image, LayerFate, Place, SourceKind

if TYPE_CHECKING:
    from pathlib import Path

PRESENT, REMOVED, UNKNOWN = LayerFate.PRESENT, LayerFate.REMOVED_LATER, LayerFate.UNKNOWN


def claim(path: str, layer: str | None = None, where: Image | None = None) -> Claim:
    if layer is not None:
        where = image("api", layer=layer)
    return Claim("trivy", "r", Absent(), Place(SourceKind.DOCKER, image=where, path=path, line=1), 1)


# ── fate ──

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENTRIES = st.lists(st.tuples(st.sampled_from(["file", "folder", "whiteout", "opaque"]), PATHS), max_size=5)


def layer_files(entries: list[tuple[str, str]], number: int) -> dict[str, bytes | None]:
    """Turn drawn entries into one consistent layer: no path is a file and a folder at once."""
    files: dict[str, bytes | None] = {}

    def clash(path: str, *, folder: bool) -> bool:
        parents = {path[:at] for at, char in enumerate(path) if char == "/"}
        below = any(other.startswith(path + "/") for other in files)
        return (
            any(files.get(parent, b"") is not None and parent in files for parent in parents)
            or (not folder and below)
            or (path in files and (files[path] is None) != folder)
        )

    for kind, path in entries:
        folder, _, base = path.rpartition("/")
        if kind == "whiteout":
            name = f"{folder}/.wh.{base}" if folder else f".wh.{base}"
            if not clash(name, folder=False):
                files[name] = b""
        elif kind == "opaque":
            if not clash(f"{path}/.wh..wh..opq", folder=False):
                files[f"{path}/.wh..wh..opq"] = b""
        elif not clash(path, folder=kind == "folder"):
            files[path] = None if kind == "folder" else b"layer %d" % number
    return files


def drop(seen: dict[str, int], path: str, *, itself: bool = True) -> None:
    for known in [k for k in seen if k.startswith(path + "/") or (itself and k == path)]:
        del seen[known]


def put(seen: dict[str, int], name: str, content: bytes | None, number: int) -> None:
    for at, char in enumerate(name):
        if char == "/":
            seen.pop(name[:at], None)
    if content is None:
        seen.pop(name, None)
    elif not name.rpartition("/")[2].startswith(".wh."):
        drop(seen, name)
        seen[name] = number


def model(stack: list[dict[str, bytes | None]]) -> dict[str, int]:
    """Lay the layers over one another as a container runtime does; return which layer each visible file is from."""
    seen: dict[str, int] = {}
    for number, files in enumerate(stack):
        for name in files:  # whiteouts speak of the layers below only
            folder, _, base = name.rpartition("/")
            if base == ".wh..wh..opq":
                drop(seen, folder, itself=False)
            elif base.startswith(".wh."):
                drop(seen, f"{folder}/{base[4:]}" if folder else base[4:])
        for name, content in files.items():
            put(seen, name, content, number)
    return seen


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(ENTRIES, min_size=1, max_size=5), modern=st.booleans())
def test_fate_agrees_with_laying_layers_over_one_another(
    tmp_path: Path, drawn: list[list[tuple[str, str]]], *, modern: bool
) -> None:
    stack = [layer_files(entries, number) for number, entries in enumerate(drawn)]
    stack = [{**files, f"mark{number}": b"x"} for number, files in enumerate(stack)]  # no two layers are equal
    layers = [tar_of(parents_first(files) if modern else files.items()) for files in stack]
    visible = model(stack)
    with LayerIndex(saved(tmp_path, oci(layers, pack=True) if modern else legacy(layers))) as index:
        for number, files in enumerate(stack):
            for name, content in files.items():
                if content is None or name.rpartition("/")[2].startswith(".wh."):
                    continue
                wanted = PRESENT if visible.get(name) == number else REMOVED
                assert index.fate(number, name) is wanted, (number, name, stack)
                assert index.read(number, name) == content


# ── layouts ──

BOTTOM = {"app/.env": b"KEY=one\n", "etc/conf": b"x"}
TOP = {"app/.wh..env": b"", "etc/conf": b"y", "new": b"z"}


@pytest.fixture(params=["legacy", "oci", "oci-gzip", "packed", "folder", "both"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    layers = [tar_of(parents_first(BOTTOM)), tar_of(parents_first(TOP))]
    files: list[tuple[str, Any]] = list(legacy(layers))
    if request.param.startswith("oci"):
        files = list(oci(layers, pack=request.param == "oci-gzip"))
    if request.param == "both":
        blobs = oci(layers)
        config = next(name for name, body in blobs if b"rootfs" in body)
        names = [f"blobs/sha256/{sha(layer)}" for layer in layers]
        manifest = [{"Config": config, "RepoTags": ["ghcr.io/acme/api:1.2"], "Layers": names}]
        files = [*blobs, ("manifest.json", json.dumps(manifest).encode())]
    path = saved(tmp_path, files)
    if request.param == "packed":
        packed = tmp_path / "image.tar.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    if request.param == "folder":
        path = tmp_path / "unpacked"
        for name, body in files:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(body)
    with LayerIndex(path) as opened:
        yield opened


def test_every_layout_reads_the_same(index: LayerIndex) -> None:
    assert len(index.images) == 1
    layer = index.images[0].layers[0]
    assert index.layers[layer].diff_id == "sha256:" + sha(tar_of(parents_first(BOTTOM)))
    assert index.read(layer, "app/.env") == b"KEY=one\n"
    assert index.read(layer, "app/none") is None
    assert index.fate(layer, "/app/.env") is REMOVED
    assert index.fate(layer, "etc/conf") is REMOVED
    top = index.images[0].layers[1]
    assert (index.fate(top, "etc/conf"), index.fate(top, "./new")) == (PRESENT, PRESENT)
    assert index.fate(top, "app/.env") is UNKNOWN
    assert index.fate(top, "../new") is UNKNOWN


def test_annotate_fills_in_what_the_archive_knows(index: LayerIndex) -> None:
    known = "sha256:" + sha(tar_of(parents_first(BOTTOM)))
    for given_ in (
        claim("/app/.env", known),
        claim("app/.env"),
        claim(f"tmp/x/{index.layers[0].member}!/app/.env"),
        claim(f"{known.partition(':')[2]}/app/.env"),
        claim("/app/.env", None, Image(name="api")),
        claim("/app/.env", None, Image(name="image.tar", layer=known)),
    ):
        place = index.annotate(given_).place
        assert place.source is SourceKind.DOCKER
        assert place.path == "app/.env"
        assert place.image is not None
        assert (place.image.namespace, place.image.name, place.image.tag) == ("acme", "api", "1.2")
        assert (place.image.layer, place.image.fate) == (known, REMOVED)
        has_digest = any("index.json" in str(index.name) or saved_.digest for saved_ in index.images)
        assert (place.image.digest is not None) is has_digest


def test_annotate_leaves_alone_what_it_does_not_know(index: LayerIndex) -> None:
    for given_ in (claim("no/such"), claim("etc/conf"), claim("app/.env", "sha256:" + "0" * 64)):
        assert index.annotate(given_) is given_
    nowhere = Claim("x", "r", Absent(), Place(SourceKind.GIT), 1)
    assert index.annotate(nowhere) is nowhere
    other = index.annotate(claim("app/.env", None, Image(name="web", tag="9"))).place.image
    assert other is not None
    assert (other.name, other.tag, other.namespace) == ("web", "9", None)


def test_layers_are_found_by_any_of_their_names(index: LayerIndex) -> None:
    known = sha(tar_of(parents_first(TOP)))
    number = index.images[0].layers[1]
    assert index.find(known) == index.find(f"sha256:{known}") == index.find(known[:12]) == number
    assert index.find(index.layers[number].member) == number
    assert index.find(known[:8]) is None
    assert index.find("0" * 64) is None


def test_several_images_share_layers(tmp_path: Path) -> None:
    base, top = tar_of(parents_first(BOTTOM)), tar_of(parents_first(TOP))
    files = legacy([base, top])
    config = next(name for name, _ in files if name.endswith(".json"))
    names = [name for name, _ in files if name.endswith("layer.tar")]
    manifest = [
        {"Config": config, "RepoTags": ["api:1"], "Layers": names},
        {"Config": config, "RepoTags": ["base:1"], "Layers": names[:1]},
    ]
    path = saved(tmp_path, [*files[:-1], ("manifest.json", json.dumps(manifest).encode())])
    with LayerIndex(path) as index:
        assert len(index.layers) == 2
        assert index.fate(0, "app/.env") is UNKNOWN  # removed in one, present in the other
        for name, fate in (("api", REMOVED), ("base", PRESENT)):
            found = index.annotate(claim("app/.env", None, Image(name=name, tag="1"))).place.image
            assert found is not None
            assert found.fate is fate
        found = index.annotate(claim("app/.env")).place.image
        assert found is not None
        assert (found.fate, found.name) == (UNKNOWN, "image.tar")


def test_links_inside_an_archive(tmp_path: Path) -> None:
    layer = tar_of([("a", b"body"), ("b", "=>a"), ("c", "->a"), ("d", "=>d"), ("./e//f", b"odd"), ("../up", b"no")])
    with LayerIndex(saved(tmp_path, legacy([layer, tar_of([("n", b"")]), layer]))) as index:
        assert len(index.images[0].layers) == 3
        assert index.read(0, "b") == b"body"
        assert index.read(0, "c") is None
        assert index.read(0, "d") is None
        assert index.read(0, "e/f") == b"odd"
        assert index.read(2, "a") == b"body"
        assert set(index.layers[0].files) == {"a", "b", "c", "d", "e/f"}
        for n in range(12):
            assert index.read(0, f"none{n}") is None  # the cache forgets
        assert index.read(0, "b") == b"body"


# ── hostile and broken ──


def refused(path: Path) -> str:
    with pytest.raises(UnreadableSource) as error:
        LayerIndex(path)
    text = str(error.value)
    assert path.name in text
    assert text.endswith(".")
    return text


def test_no_image(tmp_path: Path) -> None:
    assert "manifest.json" in refused(saved(tmp_path, [("a", b"")]))
    (tmp_path / "text").write_bytes(b"hello " * 200)
    refused(tmp_path / "text")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty")
    refused(saved(tmp_path, [("manifest.json", b"[{]")]))
    refused(saved(tmp_path, [("manifest.json", b"")]))
    refused(saved(tmp_path, [("manifest.json", b" " * (9 << 20))]))


def test_truncated_archives(tmp_path: Path) -> None:
    whole = saved(tmp_path, legacy([tar_of([("a", b"x" * 5000)])])).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 4])
    refused(tmp_path / "cut.tar")
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(whole)[:-200])
    refused(tmp_path / "cut.tar.gz")
    (tmp_path / "bad.tar.gz").write_bytes(gzip.compress(whole)[:60] + b"\xff" * 300)
    refused(tmp_path / "bad.tar.gz")


def test_an_unreadable_layer_makes_fates_unknown(tmp_path: Path) -> None:
    layers = [tar_of([("a", b"1")]), b"\x28\xb5\x2f\xfd" + b"zstd" * 200]
    with LayerIndex(saved(tmp_path, legacy(layers))) as index:
        assert index.fate(0, "a") is UNKNOWN
        assert "zstd" in (index.layers[1].flaw or "")
    files = legacy([layers[0], tar_of([("b", b"")])])
    missing = [pair for pair in files if pair[0] != files[1][0]]
    with LayerIndex(saved(tmp_path, missing)) as index:
        assert index.fate(0, "a") is UNKNOWN
        assert "lacks" in (index.layers[1].flaw or "")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "_FREE_BYTES", 1 << 20)
    monkeypatch.setattr(boxes, "_MAX_RATIO", 2)
    bomb = tar_of([("zeros", b"\0" * (6 << 20)), ("end", b"")])
    assert "bomb" in refused(saved(tmp_path, oci([bomb], pack=True)))
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    many = tar_of([(f"f{n}", b"") for n in range(5)])
    assert "files" in refused(saved(tmp_path, legacy([many])))
    monkeypatch.setattr(boxes, "MAX_OUTER", 30)
    assert "members" in refused(saved(tmp_path, [(f"f{n}", b"") for n in range(40)]))


def test_a_huge_pax_header_is_refused_unread(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    header.size = 1 << 32
    path = tmp_path / "pax.tar"
    path.write_bytes(header.tobuf() + b"\0" * 2048)
    assert "at once" in refused(path)


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE", 10)
    with LayerIndex(saved(tmp_path, legacy([tar_of([("a", b"x" * 11), ("b", b"x" * 10)])]))) as index:
        assert index.read(0, "a") is None
        assert index.read(0, "b") == b"x" * 10


def test_an_archive_that_changes_under_the_reader(tmp_path: Path) -> None:
    root = tmp_path / "unpacked"
    files = legacy([tar_of([("a", b"1"), ("b", b"2")])])
    for name, body in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body if isinstance(body, bytes) else b"")
    with LayerIndex(root) as index:
        (root / files[0][0]).write_bytes(b"\xff" * 4096)
        assert index.read(0, "b") is None
    refused(root)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/a/./b//c", "a/b/c"), ("a\\b", "a/b"), ("a/../b", None), ("..", None), ("", ""), ("/", "")],
)
def test_clean(path: str, wanted: str | None) -> None:
    assert clean(path) == wanted
