"""BitMEX: what is signed and sent, and what each published reply means."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live
from verifier.providers import bitmex as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "k" * 24, "secret": "s" * 48}
LIVE = '{"id":7,"username":"grace","email":"grace@example.com"}'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def test_the_signature_is_that_of_bitmexs_own_example() -> None:
    secret = "chNOOS4KvNXR_Xq4k4c9qsfo" + "KWvnDecLATCRlcBwyKDYnWgO"  # https://www.bitmex.com/app/apiKeysUsage
    assert provider.sign(secret, "GET", "/api/v1/instrument", "1518064236") == (
        "c7682d435d0cfe87c16098df34ef2eb5" + "a549d4c5a3c2b1f0f77b8af73423bf00"
    )
    with_query = "/api/v1/instrument?filter=%7B%22symbol%22%3A+%22XBTM15%22%7D"
    assert provider.sign(secret, "GET", with_query, "1518064237") == (
        "e2f422547eecb5b3cb29ade2127e21b8" + "58b235b386bfa45e1c1756eb3383919f"
    )


async def test_the_user_is_asked_for() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert (verdict.identity.principal, verdict.identity.account) == ("grace@example.com", "7")
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("GET", "https://www.bitmex.com/api/v1/user")
    assert header(request, "api-key") == PARTS["id"]
    expires = header(request, "api-expires")
    assert 0 < int(expires) - time.time() <= 61
    text = f"GET/api/v1/user{expires}"
    assert header(request, "api-signature") == hmac.new(b"s" * 48, text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, '{"error":{"message":"This key is disabled.","name":"HTTPError"}}', "dead disabled"),
        (401, '{"error":{"message":"Invalid API Key.","name":"HTTPError"}}', "ambiguous"),
        (401, '{"error":{"message":"Signature not valid.","name":"HTTPError"}}', "ambiguous"),
        (401, '{"error":{"message":"This request has expired.","name":"HTTPError"}}', "ambiguous"),
        (403, '{"error":{"message":"Access Denied","name":"HTTPError"}}', "ambiguous"),
        (403, '{"error":{"message":"This key is disabled."}}', "ambiguous"),
        (503, '{"error":{"message":"The system is currently overloaded.","name":"HTTPError"}}', "unreachable"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"id": "k"}, {"secret": "s s"}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
