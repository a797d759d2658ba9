"""Gemini (the exchange): what is signed and sent, and what each published reply means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live, Privilege
from verifier.providers import gemini_exchange as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "account-" + "Ab3" * 6 + "xy", "secret": "S" * 28}
LIVE = '{"isAuditor":false,"isFundManager":false,"isTrader":true}'
NONCE = '{"result":"error","reason":"InvalidNonce","message":"Nonce has not increased since your last call"}'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def nonce(request: Request) -> int:
    payload = header(request, "X-GEMINI-PAYLOAD")
    wanted = hmac.new(PARTS["secret"].encode(), payload.encode(), hashlib.sha384).hexdigest()
    assert header(request, "X-GEMINI-SIGNATURE") == wanted
    said = json.loads(base64.b64decode(payload))
    assert said["request"] == "/v1/roles"
    return int(said["nonce"])


async def test_the_roles_are_asked_by_the_clock_in_seconds() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.scopes == ("isTrader",)
    assert verdict.identity.privilege is Privilege.WRITE
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("POST", "https://api.gemini.com/v1/roles")
    assert header(request, "X-GEMINI-APIKEY") == PARTS["id"]
    assert abs(nonce(request) - time.time()) < 30
    assert request.body is not None
    assert request.body.reveal() == ""


async def test_a_key_that_counts_higher_is_asked_in_milliseconds() -> None:
    verdict, door = await ask(lambda r: reply(200, LIVE) if nonce(r) > 10**12 else reply(400, NONCE))
    assert short(verdict) == "live"
    assert len(door.requests) == 2


@pytest.mark.parametrize(
    ("body", "privilege"),
    [
        ('{"isAuditor":true,"isFundManager":false,"isTrader":false}', Privilege.READ),
        ('{"isAuditor":false,"isFundManager":true,"isTrader":true}', Privilege.ADMIN),
        ('{"isAuditor":false,"isFundManager":false,"isTrader":false}', Privilege.UNKNOWN),
    ],
)
def test_the_strongest_role_counts(body: str, privilege: Privilege) -> None:
    assert provider.identity(body.encode()).privilege is privilege


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, '{"result":"error","reason":"InvalidSignature","message":"InvalidSignature"}', "ambiguous"),
        (400, NONCE, "ambiguous"),
        (403, '{"result":"error","reason":"MissingRole","message":"x"}', "ambiguous"),
        (200, '{"isTrader":"yes"}', "ambiguous"),
        (200, '{"result":"ok"}', "ambiguous"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"id": "AKIA"}, {"secret": "s"}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
