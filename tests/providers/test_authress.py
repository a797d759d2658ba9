"""Authress: what is signed with the key, whom it is shown to, and what each reply means."""

from __future__ import annotations

import base64
import json
import time
from functools import cache
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live
from verifier.providers import authress as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

CLIENT, KID, ACCOUNT = "sc_" + "c1" * 5, "k1d0", "acc-" + "a1" * 6
PATH = f"/v1/clients/{CLIENT}"


@cache
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def packed(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return base64.b64encode(
        private.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
    ).decode()


def whole(account: str = ACCOUNT, client: str = CLIENT, private: str | None = None) -> str:
    return ".".join((client, KID, account, packed(key()) if private is None else private))


def live(client: str = CLIENT) -> str:
    return json.dumps({"clientId": client, "createdTime": "2026-01-01T00:00:00Z", "name": "ci", "verificationKeys": []})


async def ask(
    answer: Callable[[Request], Reply | Trouble], secret: str | None = None, base_url: str | None = None
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, secret=secret or whole()), door, base_url=base_url), door


def opened(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_the_key_signs_for_its_client_and_names_it() -> None:
    verdict, door = await ask(lambda _: reply(200, live(), "application/links+json"))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == CLIENT
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("GET", f"https://{ACCOUNT}.api.authress.io{PATH}")
    head, claims, signature = request.headers["Authorization"].reveal().removeprefix("Bearer ").split(".")
    key().public_key().verify(opened(signature), f"{head}.{claims}".encode())  # raises where it is another's
    assert json.loads(opened(head)) == {"alg": "EdDSA", "kid": KID, "typ": "JWT"}
    said = json.loads(opened(claims))
    start, end = said.pop("iat"), said.pop("exp")
    assert abs(start - time.time()) < 30
    assert end - start == 60
    assert said == {
        "iss": f"https://{ACCOUNT}.api.authress.io/v1/clients/{CLIENT}",
        "aud": f"{ACCOUNT}.accounts.authress.io",
        "sub": CLIENT,
        "client_id": CLIENT,
        "scopes": "openId",
    }


async def test_the_private_key_itself_is_never_sent_nor_kept() -> None:
    private = packed(key())

    def echo(request: Request) -> Reply:
        said = {"note": "well", "a": private, "b": request.headers["Authorization"].reveal().removeprefix("Bearer ")}
        return reply(200, json.dumps(json.loads(live()) | said))

    verdict, door = await ask(echo)
    assert isinstance(verdict, Live), verdict
    (request,) = door.requests
    token = request.headers["Authorization"].reveal().removeprefix("Bearer ")
    sent = [request.url.reveal(), request.shown, *(h.reveal() for h in request.headers.values())]
    assert not any(private in text for text in sent)
    assert "well" in verdict.evidence.excerpt
    assert private not in verdict.evidence.excerpt
    assert token not in verdict.evidence.excerpt
    assert token not in verdict.evidence.request


async def test_an_account_with_capitals_and_an_underscore_is_a_host_in_small_letters() -> None:
    account = "Acc_" + "A1" * 6
    verdict, door = await ask(lambda _: reply(200, live()), whole(account))
    assert short(verdict) == "live"
    assert [r.url.reveal() for r in door.requests] == [f"https://{account.lower()}.api.authress.io{PATH}"]


async def test_a_reply_of_another_client_says_nothing() -> None:
    verdict, _ = await ask(lambda _: reply(200, live("sc_another")))
    assert short(verdict) == "ambiguous"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"title":"Unauthorized"}', "ambiguous"),
        (401, "", "ambiguous"),
        (403, '{"title":"Forbidden"}', "ambiguous"),
        (404, '{"title":"Not found"}', "ambiguous"),
        (200, '{"clientId":"x"}', "ambiguous"),
        (200, '{"createdTime":"2026-01-01T00:00:00Z"}', "ambiguous"),
        (200, "<html>Sign in</html>", "ambiguous"),
        (429, "{}", "throttled"),
        (503, "", "unreachable"),
    ],
)
async def test_each_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize(
    "secret",
    [
        "x",
        f"{CLIENT}.{KID}.{ACCOUNT}",
        whole(private="A" * 64),
        whole(private=packed(key())[:-4]),
        whole(private=packed(ec.generate_private_key(ec.SECP256R1()))),
        whole(account="evil/acc"),
        whole(account="acc-"),
        whole(account="a" * 64),
        whole(client="sc/.."),
        whole(client="sc%2f"),
        whole() + ".more",
    ],
    ids=["short", "no key", "no DER", "cut", "P-256", "slash", "hyphen", "long", "path", "percent", "more"],
)
async def test_nothing_is_asked_of_what_was_cut_out_badly(secret: str) -> None:
    verdict, door = await ask(lambda _: reply(200, live()), secret)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), base_url="http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert [r.url.reveal() for r in door.requests] == [f"http://127.0.0.1:9{PATH}"]
