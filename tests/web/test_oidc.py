"""Log-in for teams, against a small OpenID provider on loopback that can be made to lie."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from web_made import Browser

from lapse.web.access import COOKIE
from lapse.web.app import application
from lapse.web.oidc import BINDING
from lapse.web.settings import OidcConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.web.house import House


class Provider:
    """An OpenID provider. `lie` changes the claims of the next ID token; `sign` who signs it."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k1"})
        self.lie: dict[str, Any] = {}
        self.sign: tuple[str, Any] = ("RS256", self.key)
        self.issuer = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def metadata(self) -> dict[str, str]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def consent(self, address: str) -> str:
        """Play the person who logs in: return the query that the browser comes back with."""
        query = {k: v[0] for k, v in parse_qs(urlsplit(address).query).items()}
        self.codes["c0de"] = query
        return f"code=c0de&state={query['state']}"

    def token(self, fields: dict[str, str]) -> dict[str, Any] | None:
        query = self.codes.pop(fields.get("code", ""), None)
        if query is None:
            return None
        challenge = urlsafe_b64encode(hashlib.sha256(fields["code_verifier"].encode()).digest()).decode().rstrip("=")
        if challenge != query["code_challenge"] or fields["redirect_uri"] != query["redirect_uri"]:
            return None
        claims = {
            "iss": self.issuer, "aud": "lapse", "sub": "u-1", "exp": int(time.time()) + 60, "nonce": query["nonce"],
            "email": "ann@example.com", "groups": ["engineering", "security"],
        }  # fmt: skip
        algorithm, key = self.sign
        claims |= self.lie
        signed = jwt.encode({"alg": algorithm, "kid": "k1"}, claims, key, algorithms=[algorithm])
        return {"access_token": "t", "token_type": "Bearer", "id_token": signed}


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Start a provider."""
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self, value: object, code: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.endswith("openid-configuration"):
                self._reply(made.metadata())
            else:
                self._reply({"keys": [made.key.as_dict(private=False)]})

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = {k: v[0] for k, v in parse_qs(text).items()}
            made.asked.append((self.headers.get("Authorization", ""), fields))
            said = made.token(fields)
            self._reply(said or {"error": "invalid_grant"}, 200 if said else 400)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def team(house: House, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """Make a browser of a console that knows the provider."""
    monkeypatch.setenv("LAPSE_TEST_OIDC", "client-secret")
    config = OidcConfig(
        provider.issuer, "lapse", "env:LAPSE_TEST_OIDC", roles={"security": "approver", "engineering": "viewer"}
    )
    house.serve = msgspec.structs.replace(house.serve, oidc=config)
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
