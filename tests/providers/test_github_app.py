"""GitHub Apps: what is signed with the key, and what each reply means."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from makers import private_key
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live
from verifier.providers import github_app as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

LIVE = (
    '{"id":1,"slug":"octoapp","owner":{"login":"github","id":1},"name":"Octocat App",'
    '"html_url":"https://github.com/apps/octoapp","permissions":{"metadata":"read"},"events":[]}'
)


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem() -> str:
    style = serialization.PrivateFormat.TraditionalOpenSSL
    return key().private_bytes(serialization.Encoding.PEM, style, serialization.NoEncryption()).decode()


def public() -> bytes:
    return key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    parts = {"secret": pem(), "id": "123456"} | parts
    return await provider.probe(kind, credential(kind.id, **parts), door, base_url=base_url), door


async def test_the_key_signs_for_its_app_and_names_it() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert (verdict.identity.principal, verdict.identity.account) == ("octoapp", "1")
    assert verdict.identity.organisation == "github"
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("GET", "https://api.github.com/app")
    token = request.headers["Authorization"].reveal().removeprefix("Bearer ")
    assert jwt.decode_header(token)["alg"] == "RS256"
    claims = jwt.decode(token, certs=public())
    assert claims["iss"] == "123456"
    assert 0 < claims["exp"] - claims["iat"] <= 600


async def test_a_key_that_was_quoted_and_a_client_id_do_as_well() -> None:
    verdict, _ = await ask(lambda _: reply(200, LIVE), secret=pem().replace("\n", "\\n"), id="Iv1.0123456789abcdef")
    assert short(verdict) == "live"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"message":"A JSON web token could not be decoded"}', "ambiguous"),
        (404, '{"message":"Integration not found"}', "ambiguous"),
        (401, '{"message":"Bad credentials"}', "ambiguous"),
        (200, '{"id":1}', "ambiguous"),
        (200, "<html>Sign in</html>", "ambiguous"),
    ],
)
async def test_each_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"id": "not an id"}, {"secret": "-----BEGIN"}, {"secret": private_key()}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert [r.url.reveal() for r in door.requests] == ["http://127.0.0.1:9/app"]
