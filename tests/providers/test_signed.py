"""Providers that sign: Alibaba, Tencent, OVH, Exoscale, Oracle, Atlas, Azure's shared keys, Google's refresh tokens.

Each simulator checks the signature by the vendor's own rule, written here a second time, and answers as the vendor
does. What it was asked passes the manifest on the way (`ToldDoor`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from support import ToldDoor, credential, in_turn, reply

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Dead, Doubt, How, Live, Privilege, Undecided
from verifier.providers import (
    alibaba,
    azure_keys,
    azure_sas,
    exoscale,
    google_adc,
    mongodb_atlas,
    oci,
    ovh,
    tencent,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from verifier.model import Verdict


def j(**value: object) -> str:
    return msgspec.json.encode(value).decode()


async def ask(
    module: ModuleType,
    answer: Callable[[Request], Reply | Trouble],
    number: int = 0,
    base_url: str | None = None,
    **parts: str,
) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(answer)
    kind = module.KINDS[number]
    verdict: Verdict = await module.probe(kind, credential(kind.id, **parts), door, base_url=base_url)
    return verdict, door


def header(request: Request, name: str) -> str:
    return request.headers[name].reveal()


def shut(door: ToldDoor) -> None:
    """Nothing was asked, and no secret stands where it is shown."""
    assert door.requests == []


# ── Alibaba ──

ALI = {"id": "LTAI" + "5t" * 10, "secret": "s" * 30}
ALI_LIVE = j(IdentityType="RAMUser", AccountId="1", RequestId="r", Arn="acs:ram::1:user/ci", UserId="2")


def alibaba_sts(request: Request) -> Reply:
    values = dict(parse_qsl(urlsplit(request.url.reveal()).query))
    signature = values.pop("Signature")
    canonical = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(values.items()))
    text = "GET&" + quote("/", safe="") + "&" + quote(canonical, safe="-_.~")
    wanted = base64.b64encode(hmac.new(("s" * 30 + "&").encode(), text.encode(), hashlib.sha1).digest()).decode()
    if not values["AccessKeyId"].startswith(("LTAI5t", "STS.")):
        return reply(404, j(Code="InvalidAccessKeyId.NotFound", Message="Specified access key is not found."))
    return reply(200, ALI_LIVE) if signature == wanted else reply(400, j(Code="SignatureDoesNotMatch", Message="x"))


async def test_alibaba_signs_who_it_is() -> None:
    verdict, door = await ask(alibaba, alibaba_sts, **ALI)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "acs:ram::1:user/ci"
    assert ALI["secret"] not in door.requests[0].url.reveal()
    assert "Signature" not in verdict.evidence.request
    dead, _ = await ask(alibaba, alibaba_sts, **{**ALI, "id": "LTAI" + "9" * 20})
    assert isinstance(dead, Dead)
    assert dead.how is How.DELETED
    other, _ = await ask(alibaba, alibaba_sts, **{**ALI, "secret": "t" * 30})
    assert isinstance(other, Undecided)


async def test_alibaba_session_keys_bring_their_token() -> None:
    parts = {"id": "STS." + "N" * 25, "secret": "s" * 30, "token": "t/+=" * 30}
    verdict, door = await ask(alibaba, alibaba_sts, 1, "http://127.0.0.1:1", **parts)
    assert isinstance(verdict, Live), verdict
    assert dict(parse_qsl(urlsplit(door.requests[0].url.reveal()).query))["SecurityToken"] == parts["token"]


@pytest.mark.parametrize("parts", [{"id": "AKIA" + "A" * 16}, {"secret": "a b"}, {"id": "(" + ALI["id"] + ")"}])
async def test_alibaba_asks_nothing_of_what_was_cut_out_badly(parts: dict[str, str]) -> None:
    verdict, door = await ask(alibaba, alibaba_sts, **{**ALI, **parts})
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    shut(door)


# ── Tencent ──

TENCENT = {"id": "AKID" + "z8" * 16, "secret": "S" * 32}
TENCENT_GONE = j(Response={"Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "x"}, "RequestId": "r"})
TENCENT_LIVE = j(Response={"Arn": "qcs::cam::uin/1:uin/2", "AccountId": "1", "RequestId": "r", "Type": "CAMUser"})


def tencent_sts(request: Request, known: str = "sts.tencentcloudapi.com") -> Reply:
    host = request.url.reveal().split("/")[2]
    stamp = header(request, "X-TC-Timestamp")
    day = f"{datetime.fromtimestamp(int(stamp), UTC):%Y-%m-%d}"
    said = re.fullmatch(
        rf"TC3-HMAC-SHA256 Credential=(\w+)/{day}/sts/tc3_request, SignedHeaders=content-type;host, Signature=(\w+)",
        header(request, "Authorization"),
    )
    assert said is not None
    assert request.body is not None
    body = hashlib.sha256(request.body.reveal().encode()).hexdigest()
    lines = [
        "POST",
        "/",
        "",
        f"content-type:{header(request, 'Content-Type')}",
        f"host:{host}",
        "",
        "content-type;host",
        body,
    ]
    hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = "\n".join(["TC3-HMAC-SHA256", stamp, f"{day}/sts/tc3_request", hashed])
    key = b"TC3" + TENCENT["secret"].encode()
    for word in (day, "sts", "tc3_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    assert said.group(2) == hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return reply(200, TENCENT_LIVE if host == known else TENCENT_GONE)


async def test_tencent_signs_for_each_cloud() -> None:
    verdict, door = await ask(tencent, tencent_sts, **TENCENT)
    assert isinstance(verdict, Live), verdict
    assert len(door.requests) == 1
    verdict, door = await ask(tencent, lambda r: tencent_sts(r, "sts.intl.tencentcloudapi.com"), **TENCENT)
    assert isinstance(verdict, Live), verdict
    assert len(door.requests) == 2
    verdict, door = await ask(tencent, lambda r: tencent_sts(r, "nowhere"), **TENCENT)
    assert isinstance(verdict, Dead), verdict
    assert {header(r, "X-TC-Region") for r in door.requests} == {"ap-guangzhou", "ap-singapore"}


async def test_tencent_asks_one_place_by_an_override_and_nothing_of_half_a_key() -> None:
    _, door = await ask(tencent, lambda _: reply(200, TENCENT_GONE), 0, "http://127.0.0.1:9", **TENCENT)
    assert [r.url.reveal() for r in door.requests] == ["http://127.0.0.1:9/"]
    verdict, door = await ask(tencent, tencent_sts, **{**TENCENT, "secret": "short"})
    assert isinstance(verdict, Undecided)
    shut(door)


# ── OVH and Exoscale ──

OVH = {"id": "a" * 16, "secret": "b" * 32, "token": "c" * 32}


def ovh_api(request: Request) -> Reply:
    url = request.url.reveal()
    text = "+".join([OVH["secret"], OVH["token"], "GET", url, "", header(request, "X-Ovh-Timestamp")])
    wanted = "$1$" + hashlib.sha1(text.encode()).hexdigest()  # noqa: S324  # as OVHcloud defines it
    if header(request, "X-Ovh-Signature") != wanted:
        return reply(400, j(errorCode="INVALID_SIGNATURE", message="Invalid signature"))
    if "ca.api" not in url:
        return reply(403, j(errorCode="INVALID_KEY", message="This application key is invalid"))
    return reply(200, j(credentialId=1, applicationId=2, status="validated", rules=[{"method": "GET", "path": "/*"}]))


async def test_ovh_asks_the_regions_and_buries_nobody() -> None:
    verdict, door = await ask(ovh, ovh_api, **OVH)
    assert isinstance(verdict, Live), verdict
    assert len(door.requests) == 2
    verdict, door = await ask(ovh, ovh_api, **OVH, region="ovh-eu")
    assert isinstance(verdict, Undecided), verdict
    assert len(door.requests) == 1
    verdict, _ = await ask(ovh, ovh_api, 0, "http://127.0.0.1:9", **{**OVH, "secret": "d" * 32})
    assert isinstance(verdict, Undecided), verdict
    verdict, door = await ask(ovh, ovh_api, **{**OVH, "token": "x"})
    assert isinstance(verdict, Undecided)
    shut(door)


async def test_exoscale_signs_the_line_and_its_end() -> None:
    def api(request: Request) -> Reply:
        said = re.fullmatch(
            r"EXO2-HMAC-SHA256 credential=(\w+),expires=(\d+),signature=(.+)", header(request, "Authorization")
        )
        assert said is not None
        wanted = hmac.new(b"q" * 43, f"GET /v2/api-key\n\n\n\n{said.group(2)}".encode(), hashlib.sha256).digest()
        assert said.group(3) == base64.b64encode(wanted).decode()
        return reply(200, '{"api-keys":[{"name":"ci","key":"EXOx","role-id":"r"}]}')

    verdict, _ = await ask(exoscale, api, id="EXO" + "a" * 24, secret="q" * 43)
    assert isinstance(verdict, Live), verdict
    verdict, door = await ask(exoscale, api, id="EXO", secret="q" * 43)
    assert isinstance(verdict, Undecided)
    shut(door)


# ── Oracle ──


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def oracle(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, **more: str) -> dict[str, str]:
    return {
        "secret": pem(key),
        "id": "ocid1.user.oc1.." + "u" * 20,
        "tenant": "ocid1.tenancy.oc1.." + "t" * 20,
        "fingerprint": ":".join(["AB"] * 16),
        "region": "eu-frankfurt-1",
        **more,
    }


async def test_oracle_signs_date_target_and_host(key: rsa.RSAPrivateKey) -> None:
    def api(request: Request) -> Reply:
        said = re.search(r'signature="([^"]+)"', header(request, "Authorization"))
        assert said is not None
        url = urlsplit(request.url.reveal())
        text = f"date: {header(request, 'Date')}\n(request-target): get {url.path}\nhost: {url.netloc}"
        key.public_key().verify(base64.b64decode(said.group(1)), text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return reply(
            200, j(id="ocid1.user.oc1..u", name="ci", compartmentId="ocid1.tenancy.oc1..t", lifecycleState="ACTIVE")
        )

    verdict, _ = await ask(oci, api, **oracle(key))
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "ci"


async def test_oracle_buries_nobody(key: rsa.RSAPrivateKey) -> None:
    refused = reply(401, j(code="NotAuthenticated", message="x"))
    verdict, _ = await ask(oci, lambda _: refused, **oracle(key))
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize(
    "more", [{"region": "FRA"}, {"fingerprint": "AB:CD"}, {"secret": "-----BEGIN PRIVATE KEY-----"}, {"tenant": "x"}]
)
async def test_oracle_asks_nothing_of_what_was_cut_out_badly(key: rsa.RSAPrivateKey, more: dict[str, str]) -> None:
    verdict, door = await ask(oci, lambda _: reply(200, "{}"), **oracle(key, **more))
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    shut(door)


async def test_oracle_takes_no_key_of_another_sort() -> None:
    verdict, door = await ask(oci, lambda _: reply(200, "{}"), **oracle(ec.generate_private_key(ec.SECP256R1())))
    assert isinstance(verdict, Undecided)
    shut(door)


# ── MongoDB Atlas ──

ATLAS = {"id": "abcdefgh", "secret": "00000000-0000-4000-8000-" + "0" * 12}
ATLAS_LIVE = j(links=[{"href": "https://cloud.mongodb.com/api/atlas/v2/orgs"}], results=[{"id": "o", "name": "acme"}])
ATLAS_NO = j(detail="You are not authorized for this resource.", error=401, reason="Unauthorized")
QUESTION = 'Digest realm="MMS Public API", domain="", nonce="n0nce", algorithm=MD5, qop="auth", stale=false'


def atlas(request: Request, known: str = "cloud.mongodb.com", question: str = QUESTION) -> Reply:
    host = request.url.reveal().split("/")[2]
    if "Authorization" not in request.headers:
        return reply(401, "", "", **{"www-authenticate": question})
    said = dict(re.findall(r'(\w+)="?([^",]+)"?', header(request, "Authorization")))
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731, S324  # RFC 7616
    one = md5(f"{ATLAS['id']}:{said['realm']}:{ATLAS['secret']}")
    two = md5(f"GET:{said['uri']}")
    wanted = md5(f"{one}:n0nce:{said['nc']}:{said['cnonce']}:auth:{two}")
    return reply(200, ATLAS_LIVE) if said["response"] == wanted and host == known else reply(401, ATLAS_NO)


async def test_atlas_judges_the_second_answer_only() -> None:
    verdict, door = await ask(mongodb_atlas, atlas, **ATLAS)
    assert isinstance(verdict, Live), verdict
    assert len(door.requests) == 2
    dead, door = await ask(mongodb_atlas, atlas, **{**ATLAS, "secret": "1" * 36})
    assert isinstance(dead, Dead), dead
    assert len(door.requests) == 4
    gov, _ = await ask(mongodb_atlas, lambda r: atlas(r, "cloud.mongodbgov.com"), **ATLAS)
    assert isinstance(gov, Live)


@pytest.mark.parametrize(
    "question",
    [
        "",
        'Basic realm="x"',
        'Digest realm="x"',
        'Digest nonce="n", algorithm=SHA-256',
        'Digest nonce="n", qop="auth-int"',
    ],
)
async def test_atlas_without_its_question_judges_nothing(question: str) -> None:
    verdict, _ = await ask(mongodb_atlas, lambda r: atlas(r, question=question), 0, "http://127.0.0.1:9", **ATLAS)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


async def test_atlas_keeps_trouble_trouble() -> None:
    verdict, _ = await ask(mongodb_atlas, lambda _: Trouble(Doubt.UNREACHABLE, "no answer"), **ATLAS)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE
    verdict, door = await ask(mongodb_atlas, atlas, **{**ATLAS, "id": 'a"b'})
    assert isinstance(verdict, Undecided)
    shut(door)


def test_the_digest_carries_opaque_back() -> None:
    said = mongodb_atlas.digest(("u", "p"), "/x", {"realm": "r", "nonce": "n", "opaque": "o"}, "c")
    assert said.endswith('opaque="o"')


# ── Azure ──

BUS = {"secret": "k" * 43 + "=", "host": "sb://acme-bus.servicebus.windows.net/", "id": "RootManageSharedAccessKey"}
BUS_LIVE = "<feed><title>Queues</title><id>https://acme-bus.servicebus.windows.net/$Resources/Queues</id></feed>"


def detail(text: str) -> str:
    return f"<Error><Code>401</Code><Detail>{text} TrackingId:t</Detail></Error>"


def bus(request: Request) -> Reply:
    said = dict(
        p.partition("=")[::2]
        for p in header(request, "Authorization").removeprefix("SharedAccessSignature ").split("&")
    )
    text = f"{said['sr']}\n{said['se']}"
    wanted = base64.b64encode(hmac.new(BUS["secret"].encode(), text.encode(), hashlib.sha256).digest()).decode()
    assert unquote(said["sr"]) == "https://acme-bus.servicebus.windows.net/"
    if unquote(said["sig"]) == wanted:
        return reply(200, BUS_LIVE, "application/atom+xml")
    return reply(401, detail("InvalidSignature: The token has an invalid signature."), "application/xml")


async def test_a_bus_is_dead_by_its_root_policy_only() -> None:
    verdict, _ = await ask(azure_keys, bus, **BUS)
    assert isinstance(verdict, Live), verdict
    dead, _ = await ask(azure_keys, bus, **{**BUS, "secret": "x" * 43 + "="})
    assert isinstance(dead, Dead), dead
    perhaps, _ = await ask(azure_keys, bus, **{**BUS, "secret": "x" * 43 + "=", "id": "send-only"})
    assert isinstance(perhaps, Undecided), perhaps
    assert perhaps.why is Doubt.AMBIGUOUS
    verdict, door = await ask(azure_keys, bus, **{**BUS, "host": "bus.example.com"})
    assert isinstance(verdict, Undecided)
    shut(door)


STORE = {"secret": base64.b64encode(b"k" * 32).decode(), "host": "https://acme-conf.azconfig.io", "id": "0-l9-s0:abc"}


async def test_a_store_is_asked_with_head_and_signed() -> None:
    def store(request: Request) -> Reply:
        url = urlsplit(request.url.reveal())
        names = ("x-ms-date", "host", "x-ms-content-sha256")
        values = ";".join(url.netloc if n == "host" else header(request, n) for n in names)
        text = f"{request.call.method}\n{url.path}?{url.query}\n{values}"
        wanted = base64.b64encode(hmac.new(b"k" * 32, text.encode(), hashlib.sha256).digest()).decode()
        if header(request, "Authorization").rpartition("Signature=")[2] == wanted:
            return Reply(
                200,
                {"sync-token": "a=b;sn=1", "content-type": "application/vnd.microsoft.appconfig.keyset+json"},
                b"",
                "h",
            )
        said = 'HMAC-SHA256 error="invalid_token" error_description="Invalid Signature", Bearer'
        return Reply(401, {"www-authenticate": said}, b"", "h")

    verdict, door = await ask(azure_keys, store, 1, **STORE)
    assert isinstance(verdict, Live), verdict
    assert door.requests[0].call.method == "HEAD"
    other = base64.b64encode(b"x" * 32).decode()
    dead, _ = await ask(azure_keys, store, 1, **{**STORE, "secret": other})
    assert isinstance(dead, Dead), dead
    assert dead.how is How.REVOKED
    broken, door = await ask(azure_keys, store, 1, **{**STORE, "secret": "###"})
    assert isinstance(broken, Undecided)
    shut(door)


def sas(path: str = "/box/a/b.txt", host: str = "acme.blob.core.windows.net", **more: str) -> str:
    ends = datetime.now(UTC) + timedelta(days=3)
    said = {"sv": "2021-08-06", "se": f"{ends:%Y-%m-%dT%H:%M:%SZ}", "sr": "b", "sp": "rw", "sig": "Zm9v+/=", **more}
    return f"https://{host}{path}?" + "&".join(f"{k}={quote(v)}" for k, v in said.items() if v)


def head(status: int, **headers: str) -> Reply:
    return Reply(status, {k.replace("_", "-"): v for k, v in headers.items()}, b"", "acme.blob.core.windows.net")


async def test_a_sas_address_is_looked_at_with_head() -> None:
    live = head(200, x_ms_version="2021-08-06", x_ms_request_id="a-b", etag='"0x8D"')
    verdict, door = await ask(azure_sas, lambda _: live, secret=sas())
    assert isinstance(verdict, Live), verdict
    assert door.requests[0].call.method == "HEAD"
    assert verdict.identity is not None
    assert verdict.identity.account == "acme"
    assert verdict.identity.privilege is Privilege.WRITE
    assert "sig" not in verdict.evidence.request
    dead, _ = await ask(azure_sas, lambda _: head(403, x_ms_error_code="AuthenticationFailed"), secret=sas())
    assert isinstance(dead, Dead)
    gone, _ = await ask(azure_sas, lambda _: head(404, x_ms_error_code="BlobNotFound"), secret=sas())
    assert isinstance(gone, Live)
    assert gone.restricted


async def test_a_sas_address_whose_time_is_over_is_dead_without_a_call() -> None:
    past = datetime.now(UTC) - timedelta(days=2)
    verdict, door = await ask(azure_sas, lambda _: head(200), secret=sas(se=f"{past:%Y-%m-%d}"))
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.EXPIRED
    assert verdict.evidence.carrier == "offline"
    shut(door)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (sas(host="acme.queue.core.windows.net"), Doubt.UNSUPPORTED),
        (sas(host="acme.example.com"), Doubt.UNSUPPORTED),
        (sas(path="/" + "/".join("abcdefghij")), Doubt.UNSUPPORTED),
        (sas(path="/"), Doubt.INCOMPLETE),
        (sas(sig=""), Doubt.INCOMPLETE),
        (sas(se=""), Doubt.INCOMPLETE),
        (sas(st=f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"), Doubt.AMBIGUOUS),
    ],
)
async def test_a_sas_address_that_cannot_be_judged_is_not_asked(address: str, why: Doubt) -> None:
    verdict, door = await ask(azure_sas, lambda _: head(200), secret=address)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why
    shut(door)


# ── Google ──

FILE = j(type="authorized_user", client_id="c", client_secret="GOCSPX" + "-x" * 10, refresh_token="1//0" + "r" * 60)


async def test_a_refresh_token_is_offered_and_the_minted_one_dropped() -> None:
    minted = reply(200, j(access_token="ya29." + "m" * 40, expires_in=3599, token_type="Bearer"))
    gone = reply(400, j(error="invalid_grant", error_description="Token has been expired or revoked."))
    answer = in_turn(minted, gone)
    verdict, door = await ask(google_adc, answer, secret=FILE)
    assert isinstance(verdict, Live), verdict
    assert "m" * 12 not in verdict.evidence.excerpt
    assert door.requests[0].body is not None
    assert "grant_type=refresh_token" in door.requests[0].body.reveal()
    dead, _ = await ask(google_adc, answer, 0, "http://127.0.0.1:9", secret=FILE)
    assert isinstance(dead, Dead)
    broken, door = await ask(google_adc, answer, secret='{"client_id":"c"}')
    assert isinstance(broken, Undecided)
    shut(door)
