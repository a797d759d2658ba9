"""A token found beside a host of one's own belongs to that instance, not to the vendor's cloud."""

from __future__ import annotations

import makers
import pytest

from verifier.catalogue import load_catalogue
from verifier.classify import Classifier
from verifier.model import Claim, Place, SourceKind
from verifier.secret import Secret

CLASSIFIER = Classifier.of(load_catalogue())


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        (None, "github_pat"),
        ("github.com", "github_pat"),
        ("api.github.com", "github_pat"),
        ("acme.ghe.com", "github_pat"),
        ("git.acme.test", "github_enterprise"),
        ("https://GIT.acme.test/api/v3", "github_enterprise"),
        ("evilgithub.com", "github_enterprise"),
    ],
)
def test_the_host_decides_whose_token_it_is(host: str | None, kind: str) -> None:
    companions = {} if host is None else {"host": Secret(host)}
    claim = Claim("gitleaks", "github-pat", Secret(makers.github()), Place(SourceKind.GIT), 1, companions)
    assert CLASSIFIER.classify(claim).provider == kind
