"""Robinhood: what is signed and sent, and what each reply means."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt
from verifier.providers import robinhood as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

UUID = "00000000-0000-4000-8000-" + "0" * 12
PARTS = {"id": f"rh-api-{UUID}", "secret": base64.b64encode(b"k" * 32).decode()}
LIVE = '{"next":null,"results":[{"asset_code":"BTC","quote_code":"USD","status":"tradable","symbol":"BTC-USD"}]}'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def test_the_signature_is_that_of_robinhoods_own_example() -> None:
    # published in https://docs.robinhood.com/crypto/trading/; its body was signed as Python prints a dict
    private = base64.b64decode("xQnTJVeQLmw1/Mg2YimE" + "ViSpw/SdJcgNXZ5kQkAXNPU=")
    body = (
        "{'client_order_id': '131de903-5a9c-4260-abc1-28d562a5dcf0', 'side': 'buy', 'symbol': 'BTC-USD', "
        "'type': 'market', 'market_order_config': {'asset_quantity': '0.1'}}"
    )
    key = "rh-api-" + "6148effc-c0b1-486c-8940-a1d099456be6"
    assert provider.sign(private, f"{key}1698708981/api/v1/crypto/trading/orders/POST{body}") == (
        "q/nEtxp/P2Or3hph3KejBqnw5o9qeuQ+hYRn" + "B56FaHbjDsNUY9KhB1asMxohDnzdVFSD7StaTqjSd9U9HvaRAw=="
    )


@pytest.mark.parametrize(
    "parts",
    [{}, {"id": UUID}, {"secret": base64.b64encode(b"k" * 64).decode()}],
    ids=["as issued now", "an older key", "seed and public key"],
)
async def test_one_trading_pair_is_asked_for(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "live"
    (request,) = door.requests
    path = "/api/v1/crypto/trading/trading_pairs/?symbol=BTC-USD"
    assert (request.call.method, request.url.reveal()) == ("GET", f"https://trading.robinhood.com{path}")
    text = f"{header(request, 'x-api-key')}{header(request, 'x-timestamp')}{path}GET"
    public = Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key()
    public.verify(base64.b64decode(header(request, "x-signature")), text.encode())


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"type":"client_error","errors":[{"detail":"Unauthorized","attr":null}]}', "ambiguous"),
        (403, '{"detail":"Forbidden"}', "ambiguous"),
        (200, '{"next":null,"results":[]}', "ambiguous"),
        (429, '{"detail":"throttled"}', "throttled"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"id": "k"}, {"secret": "no base64!"}, {"secret": "c2hvcnQ="}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
