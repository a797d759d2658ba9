"""Bitfinex: what is signed and sent, and what each published reply means."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live, Privilege
from verifier.providers import bitfinex as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "k" * 43, "secret": "s" * 43}
LIVE = '[["account",0,0],["orders",1,1],["wallets",1,0],["withdraw",0,0]]'
SMALL = '["error",10114,"nonce: small"]'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def signed(request: Request) -> bool:
    text = f"/api/v2/auth/r/permissions{header(request, 'bfx-nonce')}{{}}"
    wanted = hmac.new(PARTS["secret"].encode(), text.encode(), hashlib.sha384).hexdigest()
    return header(request, "bfx-signature") == wanted


async def test_the_permissions_are_asked_with_the_coarsest_nonce() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.scopes == ("orders:read", "orders:write", "wallets:read")
    assert verdict.identity.privilege is Privilege.WRITE
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("POST", "https://api.bitfinex.com/v2/auth/r/permissions")
    assert header(request, "bfx-apikey") == PARTS["id"]
    assert request.body is not None
    assert request.body.reveal() == "{}"
    assert len(header(request, "bfx-nonce")) == 10
    assert signed(request)


async def test_a_finer_nonce_is_sent_only_to_a_key_that_stands_above_ours() -> None:
    verdict, door = await ask(lambda r: reply(200, LIVE) if len(header(r, "bfx-nonce")) > 13 else reply(500, SMALL))
    assert short(verdict) == "live"
    assert [len(header(r, "bfx-nonce")) for r in door.requests] == [10, 13, 16]
    assert all(signed(r) for r in door.requests)


@pytest.mark.parametrize(
    ("body", "privilege"),
    [
        ('[["account",1,0],["withdraw",1,1]]', Privilege.ADMIN),
        ('[["account",1,0]]', Privilege.READ),
        ('[["account",0,0],1,["x"],[1,1,1]]', Privilege.UNKNOWN),
    ],
)
def test_the_strongest_permission_counts(body: str, privilege: Privilege) -> None:
    assert provider.identity(body.encode()).privilege is privilege


async def test_a_refusal_is_final_though_it_is_a_500() -> None:
    _, door = await ask(lambda _: reply(500, SMALL))
    decisive = door.requests[0].decisive
    assert decisive is not None
    assert decisive(reply(500, SMALL))
    assert not decisive(reply(500, "<html></html>", "text/html"))


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, '["error",10100,"apikey: invalid"]', "ambiguous"),
        (500, '["error",10100,"apikey: digest invalid"]', "ambiguous"),
        (500, SMALL, "ambiguous"),
        (500, '["error",20060,"maintenance"]', "unreachable"),
        (200, '[["account",1,0]]', "ambiguous"),
        (200, "[]", "ambiguous"),
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
