"""Cisco Duo: what is signed and sent, and what each published reply means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt
from verifier.providers import duo_security as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

PARTS = {"id": "DI" + "A1" * 9, "secret": "s" * 40, "host": "https://api-0a1b2c3d.duosecurity.com/"}
LIVE = '{"stat":"OK","response":{"time":1357020061}}'
SUMMARY = '{"stat":"OK","response":{"admin_count":3,"integration_count":9,"user_count":0}}'
OTHER_SORT = (
    '{"code":40301,"message":"Access forbidden","message_detail":"Wrong integration type for this API.","stat":"FAIL"}'
)


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def test_the_signature_is_that_of_duos_own_example() -> None:
    secret = "Zh5eGmUq9zpfQnyUIu5O" + "L9iWoMMv5ZNmk3zLJ4Ep"  # published in https://duo.com/docs/authapi
    date = "Tue, 21 Aug 2012 17:29:18 -0000"
    asked = ("POST", "api-XXXXXXXX.duosecurity.com", "/accounts/v1/account/list", "realname=First%20Last&username=root")
    said = provider.sign("DIWJ8X6AEYOR5OMC6TQ1", secret, date, asked)
    assert base64.b64decode(said.removeprefix("Basic ")).decode() == (
        "DIWJ8X6AEYOR5OMC6TQ1:" + "2d97d6166319781b5a3a" + "07af39d366f491234edc"
    )


def signed(request: Request) -> bool:
    path = "/" + request.url.reveal().split("/", 3)[3]
    text = "\n".join([header(request, "Date"), "GET", "api-0a1b2c3d.duosecurity.com", path, ""])
    wanted = hmac.new(PARTS["secret"].encode(), text.encode(), hashlib.sha1).hexdigest()
    said = base64.b64decode(header(request, "Authorization").removeprefix("Basic ")).decode()
    return said == f"{PARTS['id']}:{wanted}"


async def test_the_check_is_asked_and_nothing_more() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert short(verdict) == "live"
    (request,) = door.requests
    assert (request.call.method, request.url.reveal()) == ("GET", "https://api-0a1b2c3d.duosecurity.com/auth/v2/check")
    assert signed(request)
    assert request.body is None
    assert PARTS["secret"] not in repr(request)


async def test_a_key_of_the_admin_api_is_asked_there() -> None:
    verdict, door = await ask(
        lambda r: reply(403, OTHER_SORT) if r.url.reveal().endswith("/auth/v2/check") else reply(200, SUMMARY)
    )
    assert short(verdict) == "live"
    assert [r.url.reveal().rpartition(".com")[2] for r in door.requests] == ["/auth/v2/check", "/admin/v1/info/summary"]
    assert all(signed(r) for r in door.requests)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"code":40102,"message":"Invalid identity in request credentials","stat":"FAIL"}', "ambiguous"),
        (401, '{"code":40103,"message":"Invalid signature in request credentials","stat":"FAIL"}', "ambiguous"),
        (401, '{"code":40104,"message":"Missing or bad timestamp","stat":"FAIL"}', "ambiguous"),
        (403, OTHER_SORT, "ambiguous"),
        (200, '{"stat":"OK"}', "ambiguous"),
        (429, '{"code":42901,"message":"Too Many Requests","stat":"FAIL"}', "throttled"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize("parts", [{"host": "example.com"}, {"host": "api-1.evil.test"}, {"id": "XX"}, {"secret": "s"}])
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
