"""Every stray reply and every misbehaving socket at every kind whose probe is Python; odd keys at every kind.

The kinds that are TOML meet the same noise in `test_contract.py`; here are those whose code reads replies itself. What
stands in for a database is in the tests of each log-in.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_network
from random import Random
from typing import TYPE_CHECKING

import makers
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from noise import BEHAVIOURS, NOISE, NOWHERE, NoiseServer

from verifier.catalogue import load_catalogue
from verifier.egress import Egress, Limits, Settings
from verifier.exchange import Reply, Trouble
from verifier.model import Credential, CredentialID, Doubt, KindID, Undecided
from verifier.offline import check
from verifier.probe import probe
from verifier.secret import Secret

if TYPE_CHECKING:
    from noise import Stray

    from verifier.exchange import Admitted, Call, Request
    from verifier.spec import Kind

CATALOGUE = load_catalogue()
KINDS = [k for k in CATALOGUE if k.probe == "code" and k.calls and all(c.scheme == "https" for c in k.calls)]
SETTINGS = Settings(allow_private=(ip_network("127.0.0.0/8"),), deadline=0.15, retries=0)
GIVEN = {
    "account": "acmestore",
    "host": "acme.documents.azure.com",
    "tenant": "72f988bf-86f1-41af-91ab-2d7cd011db47",
    "token": makers.draw(makers.ALNUM, 200),
}


@cache
def pem() -> str:
    return makers.pem(rsa.generate_private_key(65537, 1024))  # noqa: S505  # parsed 140 times over, and never used for anything


@cache
def authress() -> str:
    form = serialization.PrivateFormat.PKCS8
    private = Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
    return ".".join(("sc_" + "c1" * 5, "k1d0", "acc-" + "a1" * 6, b64encode(private).decode()))


def google(**fields: str) -> str:
    return json.dumps(
        {"private_key": pem(), "private_key_id": "0" * 40, "client_email": "ci@shop-1234.iam.gserviceaccount.com"}
        | fields
    )


WHOLE = {
    "alibaba_sts": {"id": "STS." + "N" * 25, "secret": "s" * 30, "token": "t" * 90},
    "azure_app_config": {
        "id": "0-l9-s0:abc", "secret": b64encode(b"k" * 32).decode(), "host": "https://acme-conf.azconfig.io",
    },
    "azure_batch": {"secret": b64encode(b"k" * 64).decode(), "host": "https://acme.eastus.batch.azure.com"},
    "azure_sas": {
        "secret": "https://acme.blob.core.windows.net/box/b.txt?sv=2021-08-06&se=2999-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=Zm9v",
    },
    "azure_sb": {
        "id": "RootManageSharedAccessKey", "secret": "k" * 43 + "=", "host": "sb://acme-bus.servicebus.windows.net/",
    },
    "bitmex": {"id": "k" * 24, "secret": "s" * 48},
    "cexio": {"account": "up" + "1" * 9, "id": "k" * 26, "secret": "s" * 26},
    "coinbase": {
        "id": "-".join(("0" * 8, *("0" * 4,) * 3, "0" * 12)), "secret": b64encode(b"k" * 64).decode(),
    },
    "duo_security": {"id": "DI" + "A" * 18, "secret": "s" * 40, "host": "api-0a1b2c3d.duosecurity.com"},
    "exoscale": {"id": "EXO" + "a" * 24, "secret": "q" * 43},
    "gcp_adc": {
        "secret": json.dumps({
            "type": "authorized_user", "client_id": "c", "client_secret": "GOCSPX" + "-x" * 10,
            "refresh_token": "1//0" + "r" * 60,
        }),
    },
    "gemini_exchange": {"id": "account" + "-" + "A" * 20, "secret": "S" * 28},
    "gengo": {"id": "p" * 64, "secret": "s" * 64},
    "jwt": {"secret": makers.jwt({"iss": "https://login.acme.test"}, {"alg": "RS256", "kid": "k"})},
    "kraken": {"id": "k" * 56, "secret": b64encode(b"k" * 64).decode()},
    "kucoin": {
        "id": "0a" * 12, "secret": "-".join(("0" * 8, *("0" * 4,) * 3, "0" * 12)), "password": "p" * 12,
    },
    "ovh": {"id": "a" * 16, "secret": "b" * 32, "token": "c" * 32},
    "poloniex": {"id": "-".join(("A" * 8,) * 4), "secret": "0f" * 64},
    "robinhood_crypto": {
        "id": "-".join(("0" * 8, *("0" * 4,) * 3, "0" * 12)), "secret": b64encode(b"k" * 32).decode(),
    },
}  # fmt: skip
"""Keys whole enough to be sent, of kinds that refuse a merely drawn one; four more need a real key pair."""


def whole(kind: str) -> dict[str, str]:
    match kind:
        case "authress":
            return {"secret": authress()}
        case "gcp_sa":
            return {"secret": google(type="service_account", project_id="shop-1234", token_uri="https://x.test/token")}
        case "github_app_key":
            return {"secret": pem(), "id": "123456"}
        case "oci":
            owner = {"id": "ocid1.user.oc1.." + "u" * 20, "tenant": "ocid1.tenancy.oc1.." + "t" * 20}
            return owner | {"secret": pem(), "fingerprint": ":".join(["AB"] * 16), "region": "eu-frankfurt-1"}
        case _:
            return WHOLE.get(kind, {})


def credential(kind: Kind) -> Credential:
    given = GIVEN | whole(kind.id)

    def part(name: str) -> str:
        try:
            return given.get(name) or makers.make(kind.id, name)
        except KeyError:  # no shape of its own
            return makers.draw(makers.ALNUM, 40, name)

    parts = {name: Secret(part(name)) for name in kind.parts}
    return Credential(CredentialID(f"{kind.vendor}-{'0' * 32}"), KindID(kind.id), parts)


class Stuck:
    """A door behind which every question has the same answer."""

    def __init__(self, stray: Stray) -> None:
        self._stray, self.asked = stray, 0

    async def send(self, request: Request) -> Reply | Trouble:
        request.url.reveal().encode()
        self.asked += 1
        return self._stray.reply()

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        raise AssertionError("these kinds log in nowhere")


@pytest.mark.parametrize("kind", KINDS, ids=[k.id for k in KINDS])
async def test_no_stray_reply_is_a_verdict(kind: Kind) -> None:
    one = credential(kind)
    for stray in NOISE:
        door = Stuck(stray)
        said = await probe(CATALOGUE, one, door)
        assert isinstance(said, Undecided), (stray.name, said)
        assert door.asked, "the key was not sent, so nothing was shown"


@pytest.mark.parametrize("kind", KINDS, ids=[k.id for k in KINDS])
async def test_no_behaviour_of_a_socket_is_a_verdict(kind: Kind) -> None:
    one = credential(kind)
    said: dict[str, object] = {}
    some = asyncio.Semaphore(16)
    manifest = kind.manifest()

    async def hear(name: str, base: str) -> None:
        limits = {kind.id: Limits(1000.0, 1000, 16)}
        async with (
            some,
            Egress(manifest, settings=SETTINGS, overrides={kind.id: base}, limits=limits, environ={}) as door,
        ):
            said[name] = await probe(CATALOGUE, one, door, base)

    async with NoiseServer() as server:
        bases = {name: server.base(name) for name in BEHAVIOURS} | {where: where for where in NOWHERE}
        await asyncio.gather(*(hear(name, base) for name, base in bases.items()))
        asked = len(server.seen)
    wrong = {name: verdict for name, verdict in said.items() if not isinstance(verdict, Undecided)}
    assert wrong == {}
    assert asked >= len(BEHAVIOURS), "the key was not sent, so nothing was shown"


ODD = (
    "", "\0", "\ud800", " ", "é" * 10, "٣٣٣", "a" * 70_000, "%", "../..", "@", "[", "[::1", "http://[", "1e9", "-1",
    "{}", "null", "[]", '{"a":' * 20_000, "\n", "a\r\nb: c", "a:b:c", "\u202e", "\U0001f600", "https://",
    "a" * 63 + "." + "b" * 300,
)  # fmt: skip
ANSWERS = (b"{}", b"[]", b"null", b'"x"', b"7", b'{"error":null}', b'{"error":{"code":null,"message":[1]}}',
           b"[" * 60_000, b"[[]]", b'{"a":1e999}', b"\xff", b'{"error":{"type":7},"errors":{}}', b"<a/>")  # fmt: skip


class Shrug:
    """A door behind which nothing makes sense."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def send(self, request: Request) -> Reply | Trouble:
        request.url.reveal().encode()
        status = self._random.choice((200, 400, 401, 403))
        return Reply(status, {"content-type": "application/json"}, self._random.choice(ANSWERS), "h")

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        return Trouble(Doubt.REFUSED, f"{call.kind}: no {host!r}:{port}")


@pytest.mark.parametrize("kind", list(CATALOGUE), ids=[k.id for k in CATALOGUE])
async def test_no_odd_key_raises(kind: Kind) -> None:
    """Keys come from strangers: one that was cut out badly, or written to do harm, must not stop a run."""
    random = Random(kind.id)  # noqa: S311  # the same odd keys every time
    whole = credential(kind)
    for _ in range(12):
        parts = dict(whole.parts)
        for name in (*kind.parts, *kind.optional):
            held = parts[name].reveal() if name in parts else "x"
            odd = random.choice(ODD)
            parts[name] = Secret(random.choice((held, odd, held + odd, odd + held)))
        one = Credential(whole.id, whole.provider, parts)
        check(kind, one, datetime.now(UTC))
        for base in (None, "http://127.0.0.1:9/x"):
            said = await probe(CATALOGUE, one, Shrug(random), base)
            assert isinstance(said, Undecided), said
