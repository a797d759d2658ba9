"""Kraken: what is signed and sent, and what each published reply means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live, Privilege
from verifier.providers import kraken as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PRIVATE = b"k" * 64
PARTS = {"id": "Ab/+" * 14, "secret": base64.b64encode(PRIVATE).decode()}
LIVE = (
    '{"error":[],"result":{"apiKeyName":"my-api-key","apiKey":"x","nonce":"1","nonceWindow":0,'
    '"permissions":["query-funds","withdraw-funds"],"validUntil":"0","createdTime":"1772542900","lastUsed":null}}'
)


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def test_the_signature_is_that_of_krakens_own_example() -> None:
    # published in https://docs.kraken.com/api/docs/guides/spot-rest-auth/
    private = base64.b64decode(
        "kQH5HW/8p1uGOVjbgWA7" + "FunAmGO8lsSUXNsu3eow76sz84Q18f" + "WxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="
    )
    body = "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25"
    assert provider.sign(private, "/0/private/AddOrder", "1616492376594", body) == (
        "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOp" + "c6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=="
    )


async def test_the_key_is_asked_about_itself() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "my-api-key"
    assert verdict.identity.scopes == ("query-funds", "withdraw-funds")
    assert verdict.identity.privilege is Privilege.ADMIN
    (request,) = door.requests
    path = "/0/private/GetApiKeyInfo"
    assert (request.call.method, request.url.reveal()) == ("POST", f"https://api.kraken.com{path}")
    assert header(request, "API-Key") == PARTS["id"]
    assert request.body is not None
    body = request.body.reveal()
    nonce = body.removeprefix("nonce=")
    assert len(nonce) == 10
    text = path.encode() + hashlib.sha256((nonce + body).encode()).digest()
    wanted = base64.b64encode(hmac.new(PRIVATE, text, hashlib.sha512).digest()).decode()
    assert header(request, "API-Sign") == wanted


async def test_a_finer_nonce_is_sent_only_to_a_key_that_stands_above_ours() -> None:
    low = '{"error":["EAPI:Invalid nonce"]}'
    verdict, door = await ask(lambda r: reply(200, LIVE if r.body and len(r.body.reveal()) > 16 else low))
    assert short(verdict) == "live"
    assert [len(r.body.reveal().removeprefix("nonce=")) for r in door.requests if r.body] == [10, 13]


async def test_a_private_key_without_its_padding_will_do() -> None:
    verdict, _ = await ask(lambda _: reply(200, LIVE), secret=PARTS["secret"].rstrip("="))
    assert short(verdict) == "live"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, '{"error":["EAPI:Invalid key"]}', "ambiguous"),
        (200, '{"error":["EAPI:Invalid signature"]}', "ambiguous"),
        (200, '{"error":["EAPI:Invalid nonce"]}', "ambiguous"),
        (200, '{"error":["EGeneral:Permission denied"]}', "ambiguous"),
        (200, '{"error":["EGeneral:Temporary lockout"]}', "throttled"),
        (200, '{"error":["EService:Unavailable"]}', "unreachable"),
        (200, '{"error":[],"result":{}}', "ambiguous"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"id": "k"}, {"secret": "no base64!"}, {"secret": ""}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
