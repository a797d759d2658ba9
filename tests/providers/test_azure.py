"""Azure: Entra's words for client secrets, and account keys whose signatures an independent reading must accept."""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from support import ToldDoor, credential, in_turn, reply

from verifier.exchange import Trouble
from verifier.model import Dead, Doubt, How, Live, Privilege, Undecided
from verifier.providers import azure as provider

if TYPE_CHECKING:
    from verifier.exchange import Reply, Request
    from verifier.model import Verdict

SP, STORAGE, COSMOS = provider.KINDS
TENANT = "11111111-1111-1111-1111-111111111111"
KEY = b64encode(bytes(range(64))).decode()
PLANTED = "planted~secret~of~the~test~0123456789"


def said(code: int) -> Reply:
    return reply(401, provider._said(code, "invalid_client", "Words."))


async def principal(door: ToldDoor, base_url: str | None = None, **more: str) -> Verdict:
    parts = {"secret": PLANTED, "id": "22222222-2222-2222-2222-222222222222", "tenant": TENANT} | more
    return await provider.probe(SP, credential("azure_sp", **parts), door, base_url=base_url)


def token(**claims: object) -> str:
    def part(value: object) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.signature"


async def test_a_token_tells_whom_it_speaks_for_and_is_dropped() -> None:
    minted = token(appid="app-1", app_displayname="Shop", tid=TENANT, roles=["Mail.Send", "User.Read.All"])
    body = json.dumps({"token_type": "Bearer", "expires_in": 3599, "access_token": minted})
    door = ToldDoor(in_turn(reply(200, body)))
    verdict = await principal(door)
    assert isinstance(verdict, Live), verdict
    who = verdict.identity
    assert who is not None
    assert (who.principal, who.account, who.organisation) == ("Shop", "app-1", TENANT)
    assert who.scopes == ("Mail.Send", "User.Read.All")
    assert who.privilege is Privilege.WRITE
    assert minted not in repr(verdict)
    assert minted[:40] not in verdict.evidence.excerpt
    (request,) = door.requests
    assert request.call in SP.manifest()
    assert request.body is not None
    assert parse_qs(request.body.reveal())["client_secret"] == [PLANTED]
    assert request.shown == f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"


@pytest.mark.parametrize(
    ("roles", "privilege"),
    [
        (["Application.ReadWrite.All"], Privilege.ADMIN),
        (["User.Read.All"], Privilege.READ),
        ([], Privilege.UNKNOWN),
        (None, Privilege.UNKNOWN),
    ],
)
def test_roles_tell_the_privilege(roles: object, privilege: Privilege) -> None:
    who = provider.claims(reply(200, json.dumps({"access_token": token(roles=roles)})))
    assert who is not None
    assert who.privilege is privilege


@pytest.mark.parametrize("minted", ["opaque", "a.!!!.c", "a.bm90anNvbg.c", "a.ü.c"])
async def test_a_token_that_is_no_jwt_is_live_all_the_same(minted: str) -> None:
    body = json.dumps({"token_type": "Bearer", "expires_in": 3599, "access_token": minted})
    assert isinstance(await principal(ToldDoor(in_turn(reply(200, body)))), Live)


@pytest.mark.parametrize(
    ("code", "how"),
    [(7000215, How.REJECTED), (7000222, How.EXPIRED), (7000112, How.DISABLED)],
)
async def test_entra_says_dead(code: int, how: How) -> None:
    door = ToldDoor(in_turn(said(code)))
    verdict = await principal(door)
    assert isinstance(verdict, Dead)
    assert verdict.how is how
    assert len(door.requests) == 1


async def test_a_tenant_of_another_cloud_is_looked_for_there() -> None:
    door = ToldDoor(in_turn(said(90002), said(7000215)))
    assert isinstance(await principal(door), Dead)
    assert [urlsplit(r.url.reveal()).hostname for r in door.requests] == [h for h, _ in provider.CLOUDS[:2]]
    door = ToldDoor(in_turn(said(90002), said(90002), said(90002)))
    verdict = await principal(door)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE


@pytest.mark.parametrize("answer", [said(700016), said(1), reply(500, ""), Trouble(Doubt.UNREACHABLE, "down")])
async def test_anything_else_is_no_death(answer: Reply | Trouble) -> None:
    door = ToldDoor(in_turn(answer))
    assert isinstance(await principal(door), Undecided)
    assert len(door.requests) == 1


async def test_conditional_access_is_restricted() -> None:
    verdict = await principal(ToldDoor(in_turn(said(53003))))
    assert isinstance(verdict, Live)
    assert verdict.restricted


@pytest.mark.parametrize("tenant", ["", "a/b", "..", "x?y"])
async def test_a_tenant_that_is_none_makes_no_call(tenant: str) -> None:
    door = ToldDoor(in_turn())
    assert isinstance(await principal(door, tenant=tenant), Undecided)
    assert not door.requests


async def test_the_config_can_name_another_entra() -> None:
    door = ToldDoor(in_turn(said(90002)))
    await principal(door, base_url="http://127.0.0.1:9/")
    assert [r.url.reveal() for r in door.requests] == [f"http://127.0.0.1:9/{TENANT}/oauth2/v2.0/token"]


# ── storage ────────────────────────────────────────────────────────────────────────────────────────────

PROPERTIES = reply(200, "<StorageServiceProperties><Logging/></StorageServiceProperties>", "application/xml")
REFUSED = reply(
    403,
    provider._storage_error("AuthenticationFailed", provider._FAILED, "The MAC signature found in the HTTP request"),
    "application/xml",
)
NOWHERE = Trouble(Doubt.UNREACHABLE, "shop.blob has no address (DNS)")


def timely(date: str) -> bool:
    """Whether a date is of now, in the one form that Azure takes."""
    return date.endswith(" GMT") and abs((parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()) < 60


def azurite(request: Request) -> Reply:
    """Check a Shared Key signature as the service documents it, from the request as it was sent."""
    headers = {k.lower(): v.reveal() for k, v in request.headers.items()}
    assert timely(headers["x-ms-date"])
    url = urlsplit(request.url.reveal())
    account, signature = headers["authorization"].removeprefix("SharedKey ").split(":")
    canonical = "".join(f"{k}:{headers[k]}\n" for k in sorted(headers) if k.startswith("x-ms-"))
    resource = f"/{account}{url.path}" + "".join(f"\n{k}:{v[0]}" for k, v in sorted(parse_qs(url.query).items()))
    text = request.call.method + "\n" * 12 + canonical + resource
    expected = b64encode(hmac.digest(b64decode(KEY), text.encode(), "sha256")).decode()
    return PROPERTIES if signature == expected else REFUSED


async def storage(door: ToldDoor, base_url: str | None = None, **more: str) -> Verdict:
    parts = {"secret": KEY, "account": "shop"} | more
    return await provider.probe(STORAGE, credential("azure_storage", **parts), door, base_url=base_url)


async def test_the_storage_signature_is_the_documented_one() -> None:
    door = ToldDoor(azurite)
    verdict = await storage(door)
    assert isinstance(verdict, Live), verdict
    (request,) = door.requests
    assert request.url.reveal() == "https://shop.blob.core.windows.net/?restype=service&comp=properties"
    assert request.call in STORAGE.manifest()
    wrong = b64encode(bytes(64)).decode()
    assert isinstance(await storage(ToldDoor(azurite), secret=wrong, host="core.windows.net"), Dead)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((REFUSED, NOWHERE, NOWHERE), Dead),
        ((REFUSED, NOWHERE, Trouble(Doubt.UNREACHABLE, "down")), Undecided),
        ((REFUSED, PROPERTIES), Live),
        ((NOWHERE, NOWHERE, NOWHERE), Undecided),
        ((NOWHERE, REFUSED, NOWHERE), Dead),
    ],
)
async def test_without_an_endpoint_every_cloud_is_asked(
    answers: tuple[Reply | Trouble, ...], expected: type[Verdict]
) -> None:
    door = ToldDoor(in_turn(*answers))
    assert isinstance(await storage(door), expected)
    assert len(door.requests) == len(answers)


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("core.chinacloudapi.cn", ["shop.blob.core.chinacloudapi.cn"]),
        ("shop.blob.core.usgovcloudapi.net", ["shop.blob.core.usgovcloudapi.net"]),
        ("storage.example.com", []),
    ],
)
async def test_an_endpoint_tells_the_cloud(host: str, asked: list[str]) -> None:
    door = ToldDoor(lambda _: REFUSED)
    assert isinstance(await storage(door, host=host), Dead if asked else Undecided)
    assert [urlsplit(r.url.reveal()).hostname for r in door.requests] == asked


@pytest.mark.parametrize(
    "parts", [{"secret": "not base64!"}, {"secret": "ü" * 8}, {"secret": ""}, {"account": "UPPER.case"}]
)
async def test_an_account_key_that_is_none_makes_no_call(parts: dict[str, str]) -> None:
    door = ToldDoor(in_turn())
    verdict = await storage(door, **parts)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    assert not door.requests


async def test_the_config_can_name_another_storage() -> None:
    door = ToldDoor(azurite)
    assert isinstance(await storage(door, base_url="http://127.0.0.1:9/shop/"), Live), (
        "an emulator's path is signed too"
    )
    assert [r.url.reveal() for r in door.requests] == ["http://127.0.0.1:9/shop/?restype=service&comp=properties"]


# ── Cosmos DB ──────────────────────────────────────────────────────────────────────────────────────────

ACCOUNT = reply(
    200,
    '{"id":"shop","writableLocations":[{"name":"x"}],"userConsistencyPolicy":{"defaultConsistencyLevel":"Session"}}',
)
UNAUTHORIZED = reply(
    401, '{"code":"Unauthorized","message":"The input authorization token can\'t serve the request. The wrong key"}'
)


def cosmos_server(request: Request) -> Reply:
    """Check a master-key signature as the service documents it."""
    headers = {k.lower(): v.reveal() for k, v in request.headers.items()}
    assert timely(headers["x-ms-date"])
    fields = dict(item.split("=", 1) for item in unquote(headers["authorization"]).split("&"))
    text = f"{request.call.method.lower()}\n\n\n{headers['x-ms-date'].lower()}\n\n"
    expected = b64encode(hmac.digest(b64decode(KEY), text.encode(), "sha256")).decode()
    return ACCOUNT if fields == {"type": "master", "ver": "1.0", "sig": expected} else UNAUTHORIZED


async def cosmos(door: ToldDoor, base_url: str | None = None, **more: str) -> Verdict:
    parts = {"secret": KEY, "host": "shop.documents.azure.com"} | more
    return await provider.probe(COSMOS, credential("azure_cosmos", **parts), door, base_url=base_url)


@pytest.mark.parametrize("host", ["shop.documents.azure.com", "https://Shop.documents.azure.com:443/"])
async def test_the_cosmos_signature_is_the_documented_one(host: str) -> None:
    door = ToldDoor(cosmos_server)
    verdict = await cosmos(door, host=host)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.account == "shop"
    assert door.requests[0].url.reveal() == "https://shop.documents.azure.com/"
    assert isinstance(await cosmos(ToldDoor(cosmos_server), secret=b64encode(bytes(64)).decode()), Dead)


async def test_a_host_that_is_no_cosmos_db_makes_no_call() -> None:
    door = ToldDoor(in_turn())
    assert isinstance(await cosmos(door, host="shop.example.com"), Undecided)
    assert not door.requests
    door = ToldDoor(lambda _: ACCOUNT)
    assert isinstance(await cosmos(door, base_url="http://127.0.0.1:9", host="shop.example.com"), Live)
