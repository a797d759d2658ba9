"""Google service-account keys against a token endpoint on loopback that checks signatures."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from support import ToldDoor, credential, in_turn, real_door, reply

from verifier.exchange import Trouble
from verifier.model import Dead, Doubt, How, Live, Undecided, Verdict
from verifier.providers import gcp as provider

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = provider.KINDS[0]
EMAIL = "leaky@shop-1234.iam.gserviceaccount.com"
KID = "0123456789abcdef0123456789abcdef01234567"
CERT = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
REFUSED = '{"error":"invalid_grant","error_description":"Invalid JWT Signature."}'


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def key_file(**more: str) -> str:
    pem = key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fields = {
        "type": "service_account",
        "project_id": "shop-1234",
        "private_key_id": KID,
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "token_uri": "https://evil.example/token",
    }
    return json.dumps(fields | more)


@dataclass
class Google:
    """Plays Google's token endpoint and its list of public certificates."""

    keys: dict[str, bytes] = field(default_factory=dict)
    trouble: str = ""
    asked: list[str] = field(default_factory=list)
    minted: str = "ya29." + "m" * 60

    def token(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        if self.trouble:
            return 400, {"error": "invalid_grant", "error_description": self.trouble}
        assertion = form["assertion"][0]
        try:
            public = self.keys[jwt.decode_header(assertion)["kid"]]
            claims = jwt.decode(assertion, certs=public, audience="https://oauth2.googleapis.com/token")
        except (KeyError, ValueError):
            return 400, json.loads(REFUSED)
        assert claims["iss"] == EMAIL
        return 200, {"access_token": self.minted, "expires_in": 3599, "token_type": "Bearer"}


@pytest.fixture
def google() -> Iterator[tuple[Google, str]]:
    world = Google()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's own name
            pass

        def answer(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            world.asked.append(self.path)
            self.answer(200, dict.fromkeys([*world.keys, "f" * 40], CERT))

        def do_POST(self) -> None:
            world.asked.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.answer(*world.token(parse_qs(body)))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield world, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def public() -> bytes:
    return key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


async def ask(base: str, secret: str | None = None) -> Verdict:
    async with real_door(KIND, base_url=base) as door:
        return await provider.probe(KIND, credential("gcp_sa", secret=secret or key_file()), door, base_url=base)


@pytest.mark.parametrize("quoted_twice", [False, True])
async def test_a_live_key_names_its_account_and_drops_the_token(google: tuple[Google, str], quoted_twice: bool) -> None:
    world, base = google
    world.keys[KID] = public()
    text = json.loads(key_file())["private_key"].replace("\n", "\\n")
    verdict = await ask(base, key_file(private_key=text) if quoted_twice else None)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert (verdict.identity.principal, verdict.identity.account) == (EMAIL, "shop-1234")
    assert world.minted not in repr(verdict)
    assert "[dropped]" in verdict.evidence.excerpt
    assert world.asked == ["/token"]


async def test_a_deleted_key_is_dead_when_the_public_list_agrees(google: tuple[Google, str]) -> None:
    world, base = google
    verdict = await ask(base)
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.REVOKED
    assert "public list" in verdict.evidence.rule
    assert world.asked == ["/token", f"/service_accounts/v1/metadata/x509/{EMAIL}"]


async def test_a_refused_signature_of_a_listed_key_is_not_dead(google: tuple[Google, str]) -> None:
    world, base = google
    other = rsa.generate_private_key(65537, 2048).public_key()
    world.keys[KID] = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    verdict = await ask(base)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize(
    "listed",
    [
        reply(200, "{}"),
        reply(404, '{"error":{"code":404}}'),
        reply(200, "<html>", "text/html"),
        reply(403, json.dumps({"f" * 40: CERT})),
        reply(200, json.dumps({"f" * 40: "not a certificate"})),
        Trouble(Doubt.UNREACHABLE, "down"),
    ],
)
async def test_without_the_list_nothing_is_dead(listed: Any) -> None:
    door = ToldDoor(in_turn(reply(400, REFUSED), listed))
    verdict = await provider.probe(KIND, credential("gcp_sa", secret=key_file()), door)
    assert isinstance(verdict, Undecided)
    assert all(r.call in KIND.manifest() for r in door.requests)
    assert [r.url.reveal().split("/")[2] for r in door.requests] == ["oauth2.googleapis.com", "www.googleapis.com"]


@pytest.mark.parametrize(
    ("trouble", "how"),
    [
        ("Invalid grant: account not found", How.DELETED),
        ("Robot is disabled.", How.DISABLED),
        ("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.", None),
        ("Invalid JWT: Failed audience check.", None),
    ],
)
async def test_googles_other_words(google: tuple[Google, str], trouble: str, how: How | None) -> None:
    world, base = google
    world.trouble = trouble
    verdict = await ask(base)
    if how is None:
        assert isinstance(verdict, Undecided)
    else:
        assert isinstance(verdict, Dead)
        assert verdict.how is how


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("{", Doubt.INCOMPLETE),
        ('{"client_email":"a@b.iam.gserviceaccount.com"}', Doubt.INCOMPLETE),
        (key_file(client_email="somebody@example.com"), Doubt.INCOMPLETE),
        (key_file(client_email="a@x.gserviceaccount.com/../b"), Doubt.INCOMPLETE),
        (key_file(private_key="-----BEGIN PRIVATE KEY-----\nMIIE"), Doubt.INCOMPLETE),
        (key_file(universe_domain="example.goog"), Doubt.UNSUPPORTED),
    ],
)
async def test_what_cannot_be_asked_makes_no_call(secret: str, why: Doubt) -> None:
    door = ToldDoor(in_turn())
    verdict = await provider.probe(KIND, credential("gcp_sa", secret=secret), door)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why
    assert not door.requests


async def test_trouble_is_passed_on() -> None:
    door = ToldDoor(in_turn(Trouble(Doubt.UNREACHABLE, "down")))
    verdict = await provider.probe(KIND, credential("gcp_sa", secret=key_file()), door)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE


def test_an_account_outside_a_project_keeps_the_files_project() -> None:
    found = provider.identity(provider.KeyFile("1-x@developer.gserviceaccount.com", "", project_id="shop"))
    assert found.account == "shop"
