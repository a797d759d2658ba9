"""Log-in for teams, against a small OpenID provider on loopback that can be made to lie."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from joserfc.jwk import OctKey, RSAKey
from web_idp import SECRET, Provider, provider_at
from web_made import Browser

from lapse.web.access import COOKIE
from lapse.web.app import application
from lapse.web.oidc import BINDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.web.house import House


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Start a provider."""
    with provider_at("127.0.0.1") as made:
        yield made


@pytest.fixture
def team(house: House, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """Make a browser of a console that knows the provider."""
    monkeypatch.setenv(SECRET, "client-secret")
    house.serve = msgspec.structs.replace(house.serve, oidc=provider.config())
    with Browser(application(house), house) as made:
        yield made


def _through(team: Browser, provider: Provider) -> Any:
    reply = team.get("/login/oidc")
    assert reply.status_code == 303
    return team.get(f"/login/oidc/done?{provider.consent(reply.headers['location'])}")


def test_a_person_comes_in_with_the_highest_role_of_their_groups(team: Browser, provider: Provider) -> None:
    reply = _through(team, provider)
    assert reply.status_code == 200
    assert 'content="0; url=/"' in reply.text
    home = team.get("/").text
    assert re.search(r"ann@example\.com <span[^>]*>\(approver\)", home)
    (_, fields) = provider.asked[0]
    assert "client-secret" not in json.dumps(fields), "the secret goes in the header"


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"groups": ["sales"]}, "none of your groups"),
        ({"groups": None}, "none of your groups"),
        ({"nonce": "other"}, "not to be trusted"),
        ({"aud": "another"}, "not to be trusted"),
        ({"iss": "https://evil.example"}, "not to be trusted"),
        ({"exp": 1}, "not to be trusted"),
    ],
)
def test_a_token_that_lies_lets_nobody_in(team: Browser, provider: Provider, lie: dict[str, Any], said: str) -> None:
    provider.lie = lie
    reply = _through(team, provider)
    assert reply.status_code == 403
    assert said in reply.text.lower()
    assert COOKIE not in team.cookies


def test_only_the_providers_own_signature_counts(team: Browser, provider: Provider) -> None:
    for algorithm, key in (
        ("RS256", RSAKey.generate_key(2048, {"kid": "k1"})),
        ("HS256", OctKey.import_key("client-secret" * 4)),
    ):
        provider.sign = (algorithm, key)
        assert _through(team, provider).status_code == 403
        assert COOKIE not in team.cookies


def test_a_log_in_ends_once_in_the_browser_that_began_it(team: Browser, provider: Provider) -> None:
    began = team.get("/login/oidc")
    back = provider.consent(began.headers["location"])
    team.cookies.delete(BINDING)
    assert "another browser" in team.get(f"/login/oidc/done?{back}").text
    began = team.get("/login/oidc")
    back = provider.consent(began.headers["location"])
    assert team.get(f"/login/oidc/done?{back}").status_code == 200
    assert team.get(f"/login/oidc/done?{back}").status_code == 403
    assert team.get("/login/oidc/done?state=x&code=y").status_code == 403


def test_a_provider_that_is_another_one_is_not_believed(team: Browser, provider: Provider) -> None:
    real = provider.issuer
    provider.issuer = "http://127.0.0.1:1"
    assert "another one" in team.get("/login/oidc").text
    provider.issuer = real
