"""KuCoin: what is signed and sent to which site, and what each published reply means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live, Privilege
from verifier.providers import kucoin as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "0a" * 12, "secret": "00000000-0000-4000-8000-" + "0" * 12, "password": "correct-horse"}
LIVE = (
    '{"code":"200000","data":{"remark":"r","apiKey":"x","apiVersion":3,"permission":"General,Spot","uid":165111215,'
    '"isMaster":true}}'
)
UNKNOWN = '{"code":"400003","msg":"KC-API-KEY not exists"}'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def mac(text: str) -> str:
    return base64.b64encode(hmac.new(PARTS["secret"].encode(), text.encode(), hashlib.sha256).digest()).decode()


async def test_the_key_is_asked_about_itself() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.account == "165111215"
    assert verdict.identity.privilege is Privilege.WRITE
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("GET", "https://api.kucoin.com/api/v1/user/api-key")
    now = header(request, "KC-API-TIMESTAMP")
    assert len(now) == 13
    assert header(request, "KC-API-KEY") == PARTS["id"]
    assert header(request, "KC-API-SIGN") == mac(f"{now}GET/api/v1/user/api-key")
    assert header(request, "KC-API-PASSPHRASE") == mac(PARTS["password"])
    assert header(request, "KC-API-KEY-VERSION") == "3"


async def test_a_key_of_the_european_site_is_found_there() -> None:
    verdict, door = await ask(lambda r: reply(200, LIVE) if ".eu/" in r.url.reveal() else reply(401, UNKNOWN))
    assert short(verdict) == "live"
    assert [r.url.reveal().split("/")[2] for r in door.requests] == ["api.kucoin.com", "api.kucoin.eu"]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, UNKNOWN, "ambiguous"),
        (200, UNKNOWN, "ambiguous"),
        (400, '{"code":"400002","msg":"Invalid KC-API-TIMESTAMP"}', "ambiguous"),
        (401, '{"code":"400004","msg":"Invalid KC-API-PASSPHRASE"}', "ambiguous"),
        (401, '{"code":"400005","msg":"Invalid KC-API-SIGN"}', "ambiguous"),
        (400, '{"code":"400006","msg":"Invalid request ip"}', "ambiguous"),
        (200, '{"code":"200000","data":{}}', "ambiguous"),
        (429, '{"code":"429000","msg":"Too many requests"}', "throttled"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"id": "k"}, {"secret": "s"}, {"password": "two words"}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
