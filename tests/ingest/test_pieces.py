"""Pieces shared by formats: image references, moments, addresses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.ingest.image import image, sha256
from verifier.ingest.pieces import address, author, in_image, moment, repository, repository_of
from verifier.model import Image

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("nginx", Image(name="nginx")),
        ("nginx:1.27", Image(name="nginx", tag="1.27")),
        ("acme/api:1", Image(name="api", namespace="acme", tag="1")),
        ("acme/team/api", Image(name="api", namespace="acme/team")),
        ("ghcr.io/acme/api:1", Image(name="api", registry="ghcr.io", namespace="acme", tag="1")),
        ("localhost/api", Image(name="api", registry="localhost")),
        ("localhost:5000/api:1", Image(name="api", registry="localhost:5000", tag="1")),
        ("r.example.com/a/b/c:t@" + DIGEST,
         Image(name="c", registry="r.example.com", namespace="a/b", tag="t", digest=DIGEST)),
        ("docker://acme/api@" + DIGEST, Image(name="api", namespace="acme", digest=DIGEST)),
        ("acme/api@md5:short", Image(name="api", namespace="acme")),
    ],
)  # fmt: skip
def test_references(reference: str, parts: Image) -> None:
    assert image(reference) == parts


def test_what_the_reference_lacks_is_filled_in() -> None:
    assert image("a:1", tag="2", digest=DIGEST, layer="0a" * 32) == Image(
        name="a", tag="1", digest=DIGEST, layer=DIGEST
    )
    assert image("a", tag="2").tag == "2"


@given(st.text())
def test_no_reference_raises_or_loses_its_name(text: str) -> None:
    assert image(text).name or not text


@pytest.mark.parametrize(
    ("text", "out"), [("", None), (None, None), ("0a" * 32, DIGEST), (DIGEST, DIGEST), ("x", None)]
)
def test_digests(text: str | None, out: str | None) -> None:
    assert sha256(text) == out


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("2022-06-16 17:17:40 +0000 UTC", datetime(2022, 6, 16, 17, 17, 40, tzinfo=UTC)),
        ("2022-06-16T17:17:40Z", datetime(2022, 6, 16, 17, 17, 40, tzinfo=UTC)),
        ("2022-06-16", datetime(2022, 6, 16, tzinfo=UTC)),
        ("2022-06-16 17:17:40.5 +0000", datetime(2022, 6, 16, 17, 17, 40, 500_000, tzinfo=UTC)),
        ("10-19-2003", None),
        ("", None),
    ],
)
def test_moments(text: str, out: datetime | None) -> None:
    assert moment(text) == out


@given(st.text())
def test_no_moment_raises_or_is_without_a_zone(text: str) -> None:
    when = moment(text)
    assert when is None or when.tzinfo


@pytest.mark.parametrize(
    ("url", "out"),
    [
        ("https://user:pw@github.com/a/b.git", "https://github.com/a/b"),
        ("https://github.com/a/b/", "https://github.com/a/b"),
        ("ssh://git@example.com/a/b.git", "ssh://example.com/a/b"),
        ("git@github.com:a/b.git", "git@github.com:a/b"),
        ("https://example.com/@scope/b", "https://example.com/@scope/b"),
        ("//u:p@h/a", "//h/a"),
        ("  ", None),
    ],
)
def test_repositories_hold_no_password(url: str, out: str | None) -> None:
    assert repository(url) == out


@pytest.mark.parametrize(
    ("link", "out"),
    [
        ("https://github.com/a/b/blob/1/f#L1", "https://github.com/a/b"),
        ("https://gitlab.com/a/b/-/blob/1/f", "https://gitlab.com/a/b"),
        ("https://bitbucket.org/a/b/src/1/f", "https://bitbucket.org/a/b"),
        ("https://gitea.example.com/a/b/src/commit/1/f", "https://gitea.example.com/a/b"),
        ("https://dev.azure.com/o/p/_git/r?version=GC1", "https://dev.azure.com/o/p/_git/r"),
        ("https://u:p@github.com/a/b/commit/1", "https://github.com/a/b"),
        ("https://example.com/f", None),
        ("", None),
    ],
)
def test_the_repository_of_a_link(link: str, out: str | None) -> None:
    assert repository_of(link) == out


def test_addresses_and_authors() -> None:
    assert address("https://u@h/x") == "https://h/x"
    assert [author("n", "e"), author("n", ""), author(None, "e"), author("", None)] == ["n <e>", "n", "e", None]


@given(st.text("ab!/.0123456789abcdef|"))
def test_no_path_raises(path: str) -> None:
    in_image(path)
