"""Whose key is it? By the config's patterns, a checkout's CODEOWNERS, an image's labels, last the commit's author."""

from __future__ import annotations

import tarfile
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from lapse.codeowners import CodeOwners
from lapse.exits import Exit, Stop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lapse.config import Config
    from lapse.sections import OwnerRule
    from verifier.model import Image, Place

UNOWNED = "unowned"
HUB = "docker.io"
_CODEOWNERS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")
_LARGEST = 4 << 20


class Owned(Struct, frozen=True):
    """Who owns a key, and by what that is told. `UNOWNED` where nothing tells."""

    name: str = UNOWNED
    why: str = "no [[owner]] fits and no author is known"


class Owners:
    """The `[[owner]]` rules, ready to be asked."""

    def __init__(self, rules: Sequence[OwnerRule], labels: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Take the rules, and the labels of images by reference (see `labels_of`)."""
        self.rules = tuple(rules)
        self._labels = labels or {}
        self._files: dict[str, CodeOwners] = {r.codeowners: _read(r.codeowners) for r in rules if r.codeowners}
        self._images = tuple(p for r in rules for p in r.images)

    @classmethod
    def of(cls, config: Config) -> Owners:
        """Read the rules of a config, its CODEOWNERS files, and the labels in its sources' image archives."""
        labels: dict[str, Mapping[str, str]] = {}
        if any(r.labels for r in config.owner):
            for source in config.nightly.source:
                if source.source:
                    labels |= labels_of(Path(source.source).expanduser())
        return cls(config.owner, labels)

    def owner(self, places: Sequence[Place], account: str | None = None) -> Owned:
        """Return the owner of a key seen at `places`, whose account (by the provider's word) is `account`."""
        for rule in self.rules:
            if account and any(fnmatchcase(account, p) for p in rule.accounts):
                return Owned(rule.name, f"account {account}")
            for place in places:
                if found := self._fits(rule, place):
                    return found
        authors = Counter(p.author for p in places if p.author)
        if authors:
            name = authors.most_common(1)[0][0]
            return Owned(name, "author of the commit")
        return Owned()

    def _fits(self, rule: OwnerRule, place: Place) -> Owned | None:
        in_repository = any(fnmatchcase(n, p) for n in repository_names(place.repository) for p in rule.repositories)
        if rule.codeowners:
            return self._by_file(rule, place) if in_repository else None
        if in_repository and not rule.paths:
            return Owned(rule.name, f"repository {place.repository}")
        # Patterns of paths count inside the rule's repositories, where it names any.
        here = in_repository or not rule.repositories
        if here and place.path and any(fnmatchcase(place.path, p) for p in rule.paths):
            return Owned(rule.name, f"path {place.path}")
        if place.author and any(fnmatchcase(place.author.lower(), p.lower()) for p in rule.authors):
            return Owned(rule.name, f"author {place.author}")
        return self._by_image(rule, place.image) if place.image is not None else None

    def _by_file(self, rule: OwnerRule, place: Place) -> Owned | None:
        names = self._files[rule.codeowners].of(place.path) if place.path else ()
        if names:
            return Owned(" ".join(names), f"CODEOWNERS of {rule.codeowners}: {place.path}")
        return Owned(rule.name, f"CODEOWNERS of {rule.codeowners} is silent") if rule.name else None

    def _by_image(self, rule: OwnerRule, image: Image) -> Owned | None:
        if any(fnmatchcase(n, p) for n in image_names(image) for p in rule.images):
            return Owned(rule.name, f"image {image.reference}")
        for reference in image_names(image):
            for label, value in self._labels.get(reference, {}).items():
                if any(fnmatchcase(f"{label}={value}", p) for p in rule.labels):
                    return Owned(rule.name, f"label {label}={value} of {image.reference}")
        return None

    def shadow(self, places: Iterable[Place]) -> frozenset[str]:
        """Return the image namespaces among `places` that no `[[owner]]` names; none where no rule names images."""
        if not self._images:
            return frozenset()
        images = [p.image for p in places if p.image is not None]
        return frozenset(
            namespace(i) for i in images if not any(fnmatchcase(n, p) for n in image_names(i) for p in self._images)
        )


def namespace(image: Image) -> str:
    """Return `registry/namespace`; Docker Hub's own images are in `docker.io/library`."""
    return f"{image.registry or HUB}/{image.namespace or 'library'}"


def image_names(image: Image) -> tuple[str, ...]:
    """Return the names under which patterns know an image: with registry, without, as reported, and with its tag."""
    inner = f"{image.namespace or 'library'}/{image.name}"
    whole = f"{image.registry or HUB}/{inner}"
    tagged = (f"{whole}:{image.tag}", f"{inner}:{image.tag}") if image.tag else ()
    return tuple(dict.fromkeys((whole, inner, *tagged, image.reference)))


def repository_names(repository: str | None) -> tuple[str, ...]:
    """Return the names under which patterns know a repository: as reported, bare, and `OWNER/REPO`."""
    if not repository:
        return ()
    bare = repository.partition("://")[2] or repository
    bare = bare.removesuffix("/").removesuffix(".git")
    bare = bare.partition("@")[2].replace(":", "/", 1) if bare.startswith("git@") else bare
    first, _, rest = bare.partition("/")
    short = (rest,) if "." in first and rest else ()
    return tuple(dict.fromkeys((repository, bare, *short)))


def labels_of(archive: Path) -> dict[str, Mapping[str, str]]:
    """Return the labels of the images in a `docker save` archive, by reference; nothing where it is none."""
    try:
        with tarfile.open(archive) as box:
            return dict(_labels(box))
    except (OSError, tarfile.TarError, KeyError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _labels(box: tarfile.TarFile) -> Iterator[tuple[str, Mapping[str, str]]]:
    for image in _member(box, "manifest.json", list[dict[str, Any]]):
        config = _member(box, str(image["Config"]), dict[str, Any])
        found = (config.get("config") or {}).get("Labels") or {}
        labels = {str(k): str(v) for k, v in found.items()}
        for tag in image.get("RepoTags") or ():
            yield str(tag), labels
            yield str(tag).rpartition(":")[0], labels


def _member(box: tarfile.TarFile, name: str, kind: Any) -> Any:  # noqa: ANN401  # JSON of another tool
    file = box.extractfile(name)
    return msgspec.json.decode(file.read(_LARGEST) if file else b"", type=kind)


def _read(checkout: str) -> CodeOwners:
    folder = Path(checkout).expanduser()
    files = [folder] if folder.is_file() else [folder / name for name in _CODEOWNERS]
    found = next((f for f in files if f.is_file()), None)
    if found is None:
        raise Stop(f"owner.codeowners: {checkout} holds no CODEOWNERS file", Exit.USAGE)
    try:
        return CodeOwners(found.read_text("utf-8", "replace"))
    except OSError as e:
        raise Stop(f"owner.codeowners: cannot read {found}: {e.strerror}", Exit.USAGE) from None
