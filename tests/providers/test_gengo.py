"""Gengo: what is signed and sent, and what each reply means."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live
from verifier.providers import gengo as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "a{|1@" * 12 + "$=~x", "secret": "b[^2)" * 12 + "_-(y"}
LIVE = (
    '{"opstat":"ok","response":{"email":"owner@example.com","full_name":"Owner","display_name":"own",'
    '"language_code":"en"}}'
)


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


async def test_the_pair_is_asked_whose_it_is() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "owner@example.com"
    (request,) = door.requests
    url = urlsplit(request.url.reveal())
    assert (request.call.method, url.hostname, url.path) == ("GET", "api.gengo.com", "/v2/account/me")
    sent = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert sent["api_key"] == PARTS["id"]
    assert len(sent["ts"]) == 10
    wanted = hmac.new(PARTS["secret"].encode(), sent["ts"].encode(), hashlib.sha1).hexdigest()
    assert sent["api_sig"] == wanted
    assert set(sent) == {"api_key", "api_sig", "ts"}
    assert PARTS["secret"] not in request.url.reveal()
    assert not urlsplit(request.shown).query


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"opstat":"err","err":{"code":1100,"msg":"unauthorized"}}', "ambiguous"),
        (200, '{"opstat":"err","err":{"code":1000,"msg":"api_sig"}}', "ambiguous"),
        (200, '{"opstat":"ok","response":{}}', "ambiguous"),
        (429, '{"message":"Too Many Requests"}', "throttled"),
        (502, "<html>bad gateway</html>", "unreachable"),
    ],
)
async def test_nothing_else_is_a_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


async def test_white_space_around_a_key_is_left_out() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), id=f" {PARTS['id']}\n", secret=f" {PARTS['secret']}\n")
    assert short(verdict) == "live"
    assert parse_qs(urlsplit(door.requests[0].url.reveal()).query)["api_key"] == [PARTS["id"]]


async def test_a_key_cut_out_badly_is_not_sent() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), secret="short")
    assert short(verdict) == Doubt.INCOMPLETE
    assert not door.requests


async def test_a_trouble_on_the_way_is_told() -> None:
    verdict, _ = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no route"))
    assert short(verdict) == "unreachable"
