"""Private keys of certificates: a small certification authority on loopback says whether they stand."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from support import credential, real_door

from verifier.egress.manifest import Manifest
from verifier.model import Dead, Doubt, How, Live, Undecided, Verdict
from verifier.providers import private_key as provider

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = provider.KINDS[0]
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
SHA1 = hashes.SHA1()  # noqa: S303  # as OCSP names the issuer
PATHS = {"ocsp": "/ocsp", "crl": "/lists/one.crl", "issuer": "/ca.der"}


def key_pair() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass
class Authority:
    """Issues one leaf and answers for it. `status` is what it says; `pages` overrides what lies at a path."""

    base: str = ""
    status: str = "good"
    paths: dict[str, str] = field(
        default_factory=lambda: {"ocsp": "/ocsp", "crl": "/lists/one.crl", "issuer": "/ca.der"}
    )
    pages: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    key: ec.EllipticCurvePrivateKey = field(default_factory=key_pair)
    leaf_key: ec.EllipticCurvePrivateKey = field(default_factory=key_pair)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def leaf(self, *services: str, names: tuple[str, ...] = ("shop.example",)) -> x509.Certificate:
        subject = [
            x509.NameAttribute(NameOID.COMMON_NAME, "shop"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shop Ltd"),
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(self.leaf_key.public_key())
            .serial_number(4711)
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
        )
        where = {s: x509.UniformResourceIdentifier(self.base + self.paths[s]) for s in services}
        oids = {"ocsp": AuthorityInformationAccessOID.OCSP, "issuer": AuthorityInformationAccessOID.CA_ISSUERS}
        access = [x509.AccessDescription(oid, where[s]) for s, oid in oids.items() if s in where]
        if access:
            builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
        if "crl" in where:
            point = x509.DistributionPoint([where["crl"]], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        if names:
            san = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
            builder = builder.add_extension(san, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def text(self, *services: str, chain: bool = True, **more: Any) -> str:
        certs = [self.leaf(*services, **more), *([self.certificate] if chain else [])]
        return pem(self.leaf_key) + "".join(c.public_bytes(Encoding.PEM).decode() for c in certs)

    def page(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append(f"{method} {path}")
        if path in self.pages:
            return self.pages[path]
        if path == self.paths["issuer"]:
            return 200, self.certificate.public_bytes(Encoding.DER)
        if path == self.paths["crl"]:
            return 200, self.crl()
        if path == self.paths["ocsp"] and method == "POST":
            return 200, self.ocsp(body)
        return 404, b"no such page"

    def crl(self) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(NOW - DAY)
            .next_update(NOW + DAY)
        )
        if self.status == "revoked":
            entry = x509.RevokedCertificateBuilder().serial_number(4711).revocation_date(NOW - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def ocsp(self, question: bytes) -> bytes:
        asked = ocsp.load_der_ocsp_request(question)
        assert asked.serial_number == 4711
        status = getattr(ocsp.OCSPCertStatus, self.status.upper())
        revoked = NOW - DAY if self.status == "revoked" else None
        builder = ocsp.OCSPResponseBuilder().add_response(
            self.leaf(),
            self.certificate,
            SHA1,
            status,
            NOW - DAY,
            NOW + DAY,
            revoked,
            None,
        )
        response = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        return response.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


@contextmanager
def serving(authority: Authority) -> Iterator[Authority]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's own name
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, page = authority.page(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    authority.base = f"http://127.0.0.1:{server.server_port}"
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def authority() -> Iterator[Authority]:
    with serving(Authority()) as running:
        yield running


async def ask(text: str, **more: str) -> Verdict:
    async with real_door(KIND) as door:
        return await provider.probe(KIND, credential("private_key_tls", secret=text, **more), door)


@pytest.mark.parametrize("service", ["ocsp", "crl"])
async def test_a_certificate_that_stands_makes_the_key_live(authority: Authority, service: str) -> None:
    verdict = await ask(authority.text(service))
    assert isinstance(verdict, Live), verdict
    who = verdict.identity
    assert who is not None
    assert (who.principal, who.organisation) == ("shop.example", "Shop Ltd")
    assert who.expires is not None
    assert verdict.evidence.request.startswith("POST http://" if service == "ocsp" else "GET http://")
    assert verdict.evidence.status == 200
    assert verdict.evidence.carrier == "offline"


@pytest.mark.parametrize("service", ["ocsp", "crl"])
async def test_a_revoked_certificate_makes_it_dead(authority: Authority, service: str) -> None:
    authority.status = "revoked"
    verdict = await ask(authority.text(service))
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.REVOKED
    assert "revoked_at" in verdict.evidence.excerpt


async def test_the_chain_may_lie_in_another_part_or_at_the_issuer(authority: Authority) -> None:
    text = authority.text("ocsp", "issuer", chain=False)
    assert isinstance(await ask(text), Live)
    assert authority.asked == ["GET /ca.der", "POST /ocsp"]
    key, _, rest = text.partition("-----BEGIN CERTIFICATE-----")
    assert isinstance(await ask(key, certificate=f"-----BEGIN CERTIFICATE-----{rest}"), Live)
    pem_page = authority.certificate.public_bytes(Encoding.PEM)
    authority.pages["/ca.der"] = (200, pem_page)
    assert isinstance(await ask(text), Live)


async def test_a_list_is_read_where_the_responder_fails(authority: Authority) -> None:
    authority.pages["/ocsp"] = (500, b"")
    authority.status = "revoked"
    assert isinstance(await ask(authority.text("ocsp", "crl")), Dead)


async def test_an_answer_that_another_signed_counts_for_nothing(authority: Authority) -> None:
    authority.key = key_pair()
    stranger = Authority(base=authority.base, key=authority.key)
    text = Authority(base=authority.base, leaf_key=authority.leaf_key).text("ocsp", "crl")
    authority.certificate, authority.status = stranger.certificate, "revoked"
    verdict = await ask(text)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize(
    ("services", "pages", "why", "note"),
    [
        (("ocsp",), {"/ocsp": (200, b"<html>portal</html>")}, Doubt.AMBIGUOUS, "no OCSP response"),
        (("ocsp",), {"/ocsp": (404, b"")}, Doubt.AMBIGUOUS, "status 404"),
        (("crl",), {"/lists/one.crl": (200, b"x" * 100_000)}, Doubt.AMBIGUOUS, "longer than we read"),
        ((), {}, Doubt.UNSUPPORTED, "names nobody"),
    ],
)
async def test_what_is_no_answer(
    authority: Authority, services: tuple[str, ...], pages: dict[str, tuple[int, bytes]], why: Doubt, note: str
) -> None:
    authority.pages |= pages
    verdict = await ask(authority.text(*services))
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict
    assert note in verdict.note


@pytest.mark.parametrize("page", [(200, b"no certificate"), (404, b""), (200, b"another")])
async def test_an_issuer_that_cannot_be_found(authority: Authority, page: tuple[int, bytes]) -> None:
    other = Authority().certificate.public_bytes(Encoding.DER)
    authority.pages["/ca.der"] = (page[0], other if page[1] == b"another" else page[1])
    verdict = await ask(authority.text("ocsp", "issuer", chain=False))
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS
    assert authority.asked == ["GET /ca.der"]


async def test_a_responder_that_does_not_know_it_decides_nothing(authority: Authority) -> None:
    authority.status = "unknown"
    verdict = await ask(authority.text("ocsp"))
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


async def test_a_responder_that_is_down_is_unreachable(authority: Authority) -> None:
    authority.base = "http://127.0.0.1:1"
    verdict = await ask(authority.text("ocsp"))
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.UNREACHABLE


@pytest.mark.parametrize("path", ["/a/b/c/d/e", "/%2e%2e/x"])
async def test_an_address_off_the_manifest_is_not_asked(authority: Authority, path: str) -> None:
    authority.paths["ocsp"] = path
    verdict = await ask(authority.text("ocsp"))
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why in {Doubt.UNSUPPORTED, Doubt.REFUSED}
    assert not authority.asked


async def test_a_key_without_its_certificate_makes_no_call(authority: Authority) -> None:
    stranger = authority.certificate.public_bytes(Encoding.PEM).decode()
    for text in (pem(key_pair()), pem(key_pair()) + stranger, "-----BEGIN PRIVATE KEY-----\ncut", "no key at all"):
        verdict = await ask(text)
        assert isinstance(verdict, Undecided)
        assert verdict.why is Doubt.INCOMPLETE
    assert not authority.asked


async def test_the_config_can_name_another_place(authority: Authority) -> None:
    text = authority.text("ocsp")
    elsewhere = Authority(leaf_key=authority.leaf_key, key=authority.key)
    elsewhere.certificate, elsewhere.status = authority.certificate, "revoked"
    with serving(elsewhere):
        async with real_door(KIND, base_url=elsewhere.base) as door:
            asked = credential("private_key_tls", secret=text)
            assert isinstance(await provider.probe(KIND, asked, door, base_url=elsewhere.base), Dead)
    assert not authority.asked


def test_a_certificate_without_host_names_is_known_by_its_subject(authority: Authority) -> None:
    found = provider.identity(authority.leaf(names=()))
    assert found.principal is not None
    assert "CN=shop" in found.principal


def test_http_is_not_refused_where_the_manifest_itself_says_http() -> None:
    manifest = Manifest(KIND.manifest(), {})
    call = next(c for c in KIND.manifest() if c.path == "/")
    assert not manifest.match(call, "http://ocsp.example.com/").plain
