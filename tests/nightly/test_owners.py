"""Whose key it is, by where it was found."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from lapse.codeowners import CodeOwners
from lapse.exits import Stop
from lapse.owners import Owners, labels_of, repository_names
from lapse.sections import OwnerRule
from verifier.model import Image, Place, SourceKind

if TYPE_CHECKING:
    from pathlib import Path

HUB = Place(SourceKind.DOCKER, image=Image("pay-api", namespace="acme", tag="1.2"), path="app/.env")
GIT = Place(
    SourceKind.GIT, repository="https://github.com/acme/app.git", path="services/pay/x.py", author="jane@pay.test"
)


@pytest.mark.parametrize(
    ("rule", "place", "fits"),
    [
        ({"images": ("acme/pay-*",)}, HUB, True),
        ({"images": ("docker.io/acme/*",)}, HUB, True),
        ({"images": ("acme/pay-api:1.*",)}, HUB, True),
        ({"images": ("acme/search",)}, HUB, False),
        ({"images": ("*",)}, GIT, False),
        ({"repositories": ("acme/app",)}, GIT, True),
        ({"repositories": ("github.com/acme/*",)}, GIT, True),
        ({"repositories": ("acme/other",)}, GIT, False),
        ({"repositories": ("acme/app",), "paths": ("services/pay/*",)}, GIT, True),
        ({"repositories": ("acme/app",), "paths": ("services/search/*",)}, GIT, False),
        ({"paths": ("services/pay/*",)}, GIT, True),
        ({"authors": ("*@PAY.test",)}, GIT, True),
        ({"authors": ("*@search.test",)}, GIT, False),
    ],
)
def test_a_rule_fits_by_what_it_names(rule: dict[str, Any], place: Place, *, fits: bool) -> None:
    found = Owners([OwnerRule(name="payments", **rule)]).owner([place])
    assert (found.name == "payments") is fits


def test_the_first_rule_wins_then_the_author_then_nobody() -> None:
    owners = Owners([OwnerRule(name="a", accounts=("1",)), OwnerRule(name="b", repositories=("acme/*",))])
    assert owners.owner([GIT], "1").name == "a"
    assert owners.owner([GIT]).name == "b"
    assert Owners([]).owner([GIT]).name == "jane@pay.test"
    assert Owners([]).owner([HUB]).name == "unowned"


def test_codeowners_of_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/CODEOWNERS").write_text("* @acme/all\n/services/pay/ @acme/payments @jane\n")
    owners = Owners([OwnerRule(codeowners=str(tmp_path), repositories=("acme/app",))])
    assert owners.owner([GIT]).name == "@acme/payments @jane"
    other = Place(SourceKind.GIT, repository="acme/app", path="README.md")
    assert owners.owner([other]).name == "@acme/all"
    assert owners.owner([Place(SourceKind.GIT, repository="acme/else", path="services/pay/x")]).name == "unowned"
    with pytest.raises(Stop, match="no CODEOWNERS"):
        Owners([OwnerRule(codeowners=str(tmp_path / "x"), repositories=("a",))])


def archive(path: Path, labels: dict[str, str]) -> Path:
    """Write a `docker save` archive of acme/pay-api:1.2 with these labels and no layers."""
    files = {
        "manifest.json": [{"Config": "c.json", "RepoTags": ["acme/pay-api:1.2"], "Layers": []}],
        "c.json": {"config": {"Labels": labels}},
    }
    with tarfile.open(path, "w") as box:
        for name, value in files.items():
            data = json.dumps(value).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            box.addfile(info, io.BytesIO(data))
    return path


def test_labels_of_an_image_name_its_owner(tmp_path: Path) -> None:
    labels = labels_of(archive(tmp_path / "a.tar", {"team": "payments"}))
    owners = Owners([OwnerRule(name="pay", labels=("team=pay*",))], labels)
    assert owners.owner([HUB]).name == "pay"
    assert Owners([OwnerRule(name="pay", labels=("team=x",))], labels).owner([HUB]).name == "unowned"
    assert labels_of(tmp_path / "none.tar") == {}


def test_namespaces_that_nobody_names_are_shadow_registries() -> None:
    stray = Place(SourceKind.DOCKER, image=Image("x", registry="quay.io", namespace="acme-dev"))
    owners = Owners([OwnerRule(name="pay", images=("acme/*",))])
    assert owners.shadow([HUB, stray, GIT]) == {"quay.io/acme-dev"}
    assert Owners([]).shadow([stray]) == frozenset(), "where no image is named, none is a stranger"


@pytest.mark.parametrize("text", ["acme/app", "https://github.com/acme/app.git", "git@github.com:acme/app.git"])
def test_a_repository_is_known_by_its_short_name(text: str) -> None:
    assert "acme/app" in repository_names(text)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*", "a/b.py", True),
        ("*.js", "x/y/z.js", True),
        ("*.js", "x/y/z.ts", False),
        ("/build/logs/", "build/logs/a/b", True),
        ("/build/logs/", "x/build/logs/a", False),
        ("build/logs", "build/logs/a", True),
        ("build/logs", "x/build/logs/a", False),
        ("docs/*", "docs/a.md", True),
        ("docs/*", "docs/a/b.md", False),
        ("apps/", "x/apps/y", True),
        ("/docs/**", "docs/a/b", True),
        ("**/logs", "a/b/logs/c", True),
        ("/scripts/?.sh", "scripts/a.sh", True),
        ("/scripts/?.sh", "scripts/ab.sh", False),
        ("a+b.txt", "a+b.txt", True),
        ("with\\ blank.txt", "with blank.txt", True),
    ],
)
def test_a_pattern_of_codeowners(pattern: str, path: str, *, fits: bool) -> None:
    assert bool(CodeOwners(f"{pattern} @x").of(path)) is fits


def test_the_last_line_wins_and_sections_have_owners() -> None:
    text = "# all\n* @all # the rest\n[Docs] @writers\n/docs/\n^[Optional][2]\n/docs/free/\n/docs/x @x"
    found = CodeOwners(text)
    assert found.of("a") == ("@all",)
    assert found.of("docs/a") == ("@writers",)
    assert found.of("docs/free/a") == ()
    assert found.of("./docs/x") == ("@x",)
