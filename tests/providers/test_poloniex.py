"""Poloniex: what is signed and sent, and what each published reply means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live
from verifier.providers import poloniex as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "-".join(["A1B2C3D4"] * 4), "secret": "0f" * 64}
LIVE = '[{"accountId":"123","accountType":"SPOT","accountState":"NORMAL"}]'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def test_the_signature_covers_the_values_in_order() -> None:
    # by the vendor's own program: https://github.com/poloniex/polo-spot-sdk/blob/main/signature_demo/signature_python_demo.md
    text = "GET\n/orders\nlimit=10&signTimestamp=1&symbol=BTC%2FUSDT"
    wanted = base64.b64encode(hmac.new(b"s", text.encode(), hashlib.sha256).digest()).decode()
    values = {"symbol": "BTC/USDT", "signTimestamp": "1", "limit": "10"}
    assert provider.sign("s", "GET", "/orders", values) == wanted


async def test_the_accounts_are_listed() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.account == "123"
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("GET", "https://api.poloniex.com/accounts")
    assert header(request, "key") == PARTS["id"]
    now = header(request, "signTimestamp")
    assert len(now) == 13
    text = f"GET\n/accounts\nsignTimestamp={now}"
    wanted = base64.b64encode(hmac.new(PARTS["secret"].encode(), text.encode(), hashlib.sha256).digest()).decode()
    assert header(request, "signature") == wanted


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "", "ambiguous"),
        (400, '{"code":"FORBIDDEN","message":"Invalid API key/secret pair."}', "ambiguous"),
        (200, "[]", "ambiguous"),
        (200, '[{"accountId":"123"}]', "ambiguous"),
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
