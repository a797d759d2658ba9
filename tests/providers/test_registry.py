"""Log-ins at container registries, at addresses with a password in them, and Coinbase's signed look."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64decode
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from noise import NOISE, NoiseServer
from registry_world import Registry, errors
from support import ToldDoor, credential, in_turn, real_door, reply, short

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Live, Privilege, Undecided, Verdict
from verifier.offline.jwt import payload
from verifier.providers import basic_auth, coinbase, ghcr

if TYPE_CHECKING:
    from collections.abc import Callable

REGISTRY = ghcr.KINDS[0]
GOOD = "sesame of ci"
WORLD = Registry({"ci": GOOD})
GITLAB = replace(WORLD, realm="https://acme.test/jwt/auth", service="container_registry", anonymous=True, lenient=True)
OWN = replace(WORLD, realm="")


async def log_in(world: Registry, user: str = "ci", password: str = GOOD, host: str = "") -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(replace(world, heard=world.heard))
    parts = {"username": user, "password": password, "host": host or world.host}
    return await ghcr.probe(REGISTRY, credential(REGISTRY.id, **parts), door), door


@pytest.mark.parametrize(
    ("world", "user", "password", "expected"),
    [
        (WORLD, "ci", GOOD, "live"),
        (WORLD, "ci", "wrong", "dead rejected"),
        (WORLD, "nobody", GOOD, "dead rejected"),
        (replace(WORLD, anonymous=True), "ci", GOOD, "live"),
        (replace(WORLD, anonymous=True), "ci", "wrong", "dead rejected"),
        (GITLAB, "ci", GOOD, "live"),
        (replace(GITLAB, named=False), "ci", GOOD, "ambiguous"),
        (replace(WORLD, named=False), "ci", GOOD, "live"),
        (OWN, "ci", GOOD, "live"),
        (OWN, "ci", "wrong", "dead rejected"),
        (replace(OWN, header=False), "ci", GOOD, "ambiguous"),
        (replace(WORLD, header=False), "ci", GOOD, "live"),
        (replace(WORLD, refusal=(403, errors("DENIED", "not from here"))), "ci", "wrong", "blocked"),
        (replace(WORLD, refusal=(429, errors("TOOMANYREQUESTS"))), "ci", "wrong", "ambiguous"),
        (replace(OWN, refusal=(429, errors("TOOMANYREQUESTS"))), "ci", "wrong", "throttled"),
        (replace(OWN, refusal=(401, "Not Authorized")), "ci", "wrong", "ambiguous"),
        (replace(OWN, refusal=(401, '{"errors":[]}')), "ci", "wrong", "ambiguous"),
        (
            replace(OWN, refusal=(403, errors("DENIED", "Your authorization token has expired. Reauthenticate."))),
            "AWS", "old", "dead expired",
        ),
        (replace(WORLD, scheme="Negotiate"), "ci", GOOD, "ambiguous"),
        (replace(WORLD, realm="https://evil.test/token"), "ci", GOOD, "unsupported"),
        (replace(WORLD, realm="http://registry.acme.test/token"), "ci", GOOD, "unsupported"),
        (replace(WORLD, realm="https://registry.acme.test/token?x=1"), "ci", GOOD, "ambiguous"),
        (replace(WORLD, realm="https://auth.acme.test", service="s"), "ci", GOOD, "live"),
    ],
)  # fmt: skip
async def test_what_a_registry_says(world: Registry, user: str, password: str, expected: str) -> None:
    verdict, door = await log_in(world, user, password)
    assert short(verdict) == expected, verdict
    assert password not in repr(verdict)
    assert all(password not in r.shown for r in door.requests)
    if isinstance(verdict, Live):
        assert verdict.identity is not None
        assert verdict.identity.principal == "ci"


async def test_the_first_question_carries_no_password_and_nobody_else_is_sent_one() -> None:
    world = replace(WORLD, realm="https://evil.test/token", heard=[])
    _, door = await log_in(world)
    assert [r.headers for r in door.requests] == [{}]
    assert world.heard == []
    world = replace(WORLD, realm="https://auth.acme.test/token", heard=[])
    await log_in(world)
    assert world.heard == [("auth.acme.test", "ci")]


@pytest.mark.parametrize(
    ("user", "host"),
    [(" ", ""), ("a:b", ""), ("ci", "registry acme"), ("ci", "https://"), ("ci", "-x")],
)
async def test_a_log_in_that_was_cut_out_badly_is_not_brought(user: str, host: str) -> None:
    verdict, door = await log_in(WORLD, user, host=host)
    assert short(verdict) == "incomplete"
    assert door.requests == []


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (reply(200, "{}"), "ambiguous"),
        (reply(401, errors("UNAUTHORIZED")), "ambiguous"),
        (reply(401, "<html>", "text/html", **{"www-authenticate": "Basic realm=x"}), "ambiguous"),
        (Trouble(Doubt.UNREACHABLE, "down"), "unreachable"),
    ],
)
async def test_what_is_no_registry_gets_no_password(first: Reply | Trouble, why: str) -> None:
    door = ToldDoor(lambda _request: first)
    parts = {"username": "ci", "password": GOOD, "host": "registry.acme.test"}
    assert short(await ghcr.probe(REGISTRY, credential(REGISTRY.id, **parts), door)) == why
    assert all(r.headers == {} for r in door.requests)


@pytest.mark.parametrize(
    ("host", "realm", "fine"),
    [
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("ghcr.io", "https://ghcr.io/token", True),
        ("registry-1.docker.io", "https://auth.docker.io/token", True),
        ("acme.azurecr.io:443", "https://acme.azurecr.io/oauth2/token", True),
        ("quay.io", "https://quay.io.evil.test/v2/auth", False),
        ("quay.io", "https://evil.io/v2/auth", False),
        ("localhost", "https://host/v2", False),
        ("a.test", "https://[::1/", False),
        ("a.test", "http://a.test/x", False),
    ],
)
def test_whose_token_service_it_is(host: str, realm: str, fine: bool) -> None:
    assert ghcr.related(host, realm) is fine


@given(st.text(max_size=120))
def test_any_challenge_is_read_or_is_none(text: str) -> None:
    found = ghcr.challenge(text)
    assert found is None or not found.realm or found.realm.startswith("http")


# ── addresses with a password ──

PERMITTED = basic_auth.permit(basic_auth.KINDS[0], ["Git.acme.test", "nexus.acme.test:8443"])


class Site:
    """A site that wants a log-in below `/private`."""

    def __init__(self, status: int = 200, challenge: str = 'Basic realm="x"') -> None:
        self.status, self.challenge = status, challenge

    def __call__(self, request: Request) -> Reply:
        assert request.call.method == "HEAD"
        header = request.headers.get("Authorization")
        right = header is not None and b64decode(header.reveal()[6:]).decode() == f"ci:{GOOD}"
        if right:
            return reply(self.status, "")
        return reply(401, "", **({"www-authenticate": self.challenge} if self.challenge else {}))


async def visit(site: Site, *, permitted: bool = True, **parts: str) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(site)
    given = {"username": "ci", "password": GOOD, "host": "git.acme.test", "path": "a/b c.git"} | parts
    kind = PERMITTED if permitted else basic_auth.KINDS[0]
    return await basic_auth.probe(kind, credential(kind.id, **given), door), door


async def test_an_address_is_tried_where_the_config_allows_it() -> None:
    verdict, door = await visit(Site())
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "ci"
    assert [r.url.reveal() for r in door.requests] == ["https://git.acme.test/a/b%20c.git"] * 2
    assert door.requests[0].headers == {}
    assert GOOD not in repr(verdict)


@pytest.mark.parametrize(
    ("site", "parts", "why", "asked"),
    [
        (Site(), {"password": "wrong"}, "ambiguous", 2),
        (Site(403), {}, "ambiguous", 2),
        (Site(challenge="Bearer"), {}, "ambiguous", 1),
        (Site(challenge=""), {}, "ambiguous", 1),
        (Site(), {"host": "other.test"}, "unsupported", 0),
        (Site(), {"host": "o" * 200 + ".test"}, "unsupported", 0),
        (Site(), {"port": "8443"}, "unsupported", 0),
        (Site(), {"path": "/".join("abcdefghi")}, "unsupported", 0),
        (Site(), {"scheme": "http"}, "refused", 0),
        (Site(), {"username": "a:b"}, "incomplete", 0),
    ],
)
async def test_an_address_is_never_dead(site: Site, parts: dict[str, str], why: str, asked: int) -> None:
    verdict, door = await visit(site, **parts)
    assert short(verdict) == why, verdict
    assert len(door.requests) == asked


async def test_a_port_and_no_path() -> None:
    verdict, door = await visit(Site(204), host="nexus.acme.test", port="8443", path="")
    assert short(verdict) == "live"
    assert door.requests[0].url.reveal() == "https://nexus.acme.test:8443/"


async def test_an_address_is_left_alone_where_the_config_names_nothing() -> None:
    verdict, door = await visit(Site(), permitted=False)
    assert isinstance(verdict, Undecided)
    assert "egress.basic_auth" in verdict.note
    assert door.requests == []


async def test_trouble_on_the_way_is_told() -> None:
    for n in (0, 1):
        asks = reply(401, "", **{"www-authenticate": "Basic"})
        door = ToldDoor(in_turn(*(asks,) * n, Trouble(Doubt.THROTTLED, "later")))
        given = {"username": "ci", "password": GOOD, "host": "git.acme.test"}
        assert short(await basic_auth.probe(PERMITTED, credential(PERMITTED.id, **given), door)) == "throttled"


async def test_no_noise_makes_an_address_live() -> None:
    async with NoiseServer() as server:
        for name in [s.name for s in NOISE][::5]:
            base = server.base(name)
            async with real_door(PERMITTED, base_url=base) as door:
                given = {"username": "ci", "password": GOOD, "host": "git.acme.test"}
                said = await basic_auth.probe(PERMITTED, credential(PERMITTED.id, **given), door, base_url=base)
            assert isinstance(said, Undecided), name


# ── Coinbase ──

COINBASE = coinbase.KINDS[0]
KEY = (
    "organizations/"
    + "-".join(("0" * 8, *["0" * 4] * 3, "0" * 12))
    + "/apiKeys/"
    + "-".join(("1" * 8, *["1" * 4] * 3, "1" * 12))
)
TOLD = {"can_view": True, "can_trade": False, "can_transfer": False, "portfolio_uuid": "p", "portfolio_type": "DEFAULT"}
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def edwards() -> str:
    raw = EDWARDS.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return b64encode(raw + EDWARDS.public_key().public_bytes_raw()).decode()


def exchange(request: Request) -> Reply:
    """Check the token as Coinbase does, by either sort of key."""
    token = request.headers["Authorization"].reveal().removeprefix("Bearer ")
    signed, _, seal = token.rpartition(".")
    head = json.loads(urlsafe_b64decode(signed.partition(".")[0] + "=="))
    claims = payload(token) or {}
    raw = urlsafe_b64decode(seal + "==")
    if head["alg"] == "ES256":
        der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        CURVE.public_key().verify(der, signed.encode(), ec.ECDSA(SHA256()))
    else:
        EDWARDS.public_key().verify(raw, signed.encode())
    assert claims["sub"] == head["kid"] == KEY
    assert claims["iss"] == "cdp"
    assert claims["exp"] - claims["nbf"] == 120
    assert claims["uri"] == "GET api.coinbase.com/api/v3/brokerage/key_permissions"
    return reply(200, json.dumps(TOLD))


async def look(answer: Callable[[Request], Reply | Trouble], secret: str, key: str = KEY) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    return await coinbase.probe(COINBASE, credential("coinbase", secret=secret, id=key), door), door


@pytest.mark.parametrize("secret", [pem(CURVE), pem(CURVE).replace("\n", "\\n"), edwards()], ids=["pem", "n", "ed"])
async def test_coinbase_is_asked_with_a_fresh_signature(secret: str) -> None:
    verdict, door = await look(exchange, secret)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.account == "p"
    assert door.requests[0].shown == "https://api.coinbase.com/api/v3/brokerage/key_permissions"
    assert secret[:40] not in repr(verdict)


async def test_coinbase_refuses_valid_keys_at_times() -> None:
    verdict, _ = await look(lambda _r: reply(401, "Unauthorized\n", "text/plain"), edwards())
    assert short(verdict) == "ambiguous"


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (edwards(), "organizations/x"),
        ("no key", KEY),
        (b64encode(b"x" * 32).decode(), KEY),
        (pem(CURVE)[:80], KEY),
        (pem(ec.generate_private_key(ec.SECP384R1())), KEY),
    ],
)
async def test_what_is_no_key_of_coinbases_is_not_sent(secret: str, key: str) -> None:
    verdict, door = await look(exchange, secret, key)
    assert short(verdict) == "incomplete"
    assert door.requests == []


@pytest.mark.parametrize(
    ("told", "privilege"),
    [({"can_transfer": True}, Privilege.ADMIN), ({"can_trade": True}, Privilege.WRITE), ({}, Privilege.READ)],
)
async def test_what_a_coinbase_key_may_do(told: dict[str, bool], privilege: Privilege) -> None:
    verdict, _ = await look(lambda _r: reply(200, json.dumps(TOLD | told)), edwards())
    assert isinstance(verdict, Live)
    assert verdict.identity is not None
    assert verdict.identity.privilege is privilege
