"""CEX.IO: what is signed and sent, and what each reply means."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt
from verifier.providers import cexio as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"account": "up" + "1" * 9, "id": "K" * 26, "secret": "s" * 26}
LIVE = '{"e":"get_myfee","ok":"ok","data":{"BTC:USD":{"buy":"0.25","sell":"0.25"}}}'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


async def test_the_fees_are_asked_for() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert short(verdict) == "live"
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("POST", "https://cex.io/api/get_myfee/")
    assert request.body is not None
    said = dict(parse_qsl(request.body.reveal()))
    assert set(said) == {"key", "signature", "nonce"}
    assert said["key"] == PARTS["id"]
    assert len(said["nonce"]) == 10
    text = said["nonce"] + PARTS["account"] + PARTS["id"]
    assert said["signature"] == hmac.new(b"s" * 26, text.encode(), hashlib.sha256).hexdigest().upper()
    assert header(request, "Content-Type") == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, '{"error":"Invalid API key"}', "ambiguous"),
        (200, '{"error":"Nonce must be incremented"}', "ambiguous"),
        (200, '{"error":"Permission denied"}', "ambiguous"),
        (200, '{"e":"get_myfee","ok":"ok","data":{}}', "ambiguous"),
        (404, "", "ambiguous"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"account": "x"}, {"id": "k"}, {"secret": "s s"}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
