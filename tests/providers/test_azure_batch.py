"""Azure Batch: what is signed and sent, and what each reply means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from support import ToldDoor, credential, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt
from verifier.providers import azure_batch as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

KEY = b"k" * 64
PARTS = {"host": "https://Acme.eastus.batch.azure.com", "secret": base64.b64encode(KEY).decode()}
LIVE = '{"value":[{"nodeAgentSKUId":"batch.node.ubuntu 18.04","imageReference":{"publisher":"canonical"}}]}'


async def ask(
    answer: Callable[[Request], Reply | Trouble], base_url: str | None = None, **parts: str
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = provider.KINDS[0]
    return await provider.probe(kind, credential(kind.id, **{**PARTS, **parts}), door, base_url=base_url), door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


async def test_one_supported_image_is_asked_for() -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE))
    assert short(verdict) == "live"
    (request,) = door.requests
    wanted = "https://acme.eastus.batch.azure.com/supportedimages?api-version=2020-09-01.12.0&maxresults=1"
    assert (request.call.method, request.url.reveal()) == ("GET", wanted)
    lines = [
        "GET",
        *[""] * 11,  # Content-Encoding, -Language, -Length, -MD5, -Type, Date, four conditions, Range
        f"ocp-date:{header(request, 'ocp-date')}",
        "/acme/supportedimages",
        "api-version:2020-09-01.12.0",
        "maxresults:1",
    ]
    signature = base64.b64encode(hmac.new(KEY, "\n".join(lines).encode(), hashlib.sha256).digest()).decode()
    assert header(request, "Authorization") == f"SharedKey acme:{signature}"
    assert header(request, "ocp-date").endswith(" GMT")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            403,
            '{"code":"AuthenticationFailed","message":{"lang":"en-US","value":"Server failed to authenticate."}}',
            "ambiguous",
        ),
        (403, '{"code":"AccountIsDisabled"}', "ambiguous"),
        (200, '{"value":[]}', "ambiguous"),
        (503, "", "unreachable"),
    ],
)
async def test_each_published_reply_gets_its_verdict(status: int, body: str, said: str) -> None:
    verdict, _ = await ask(lambda _: reply(status, body))
    assert short(verdict) == said


@pytest.mark.parametrize(
    "parts",
    [
        {"host": "acme.example.com"},
        {"host": "acme.eastus.batch.azure.com.evil.test"},
        {"secret": "no base64!"},
        {"secret": "c2hvcnQ="},
    ],
)
async def test_nothing_is_asked_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(lambda _: reply(200, LIVE), **parts)
    assert short(verdict) == "incomplete"
    assert door.requests == []


async def test_trouble_stays_trouble() -> None:
    verdict, door = await ask(lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), "http://127.0.0.1:9/")
    assert short(verdict) == "unreachable"
    assert {r.url.reveal().split("/")[2] for r in door.requests} == {"127.0.0.1:9"}
