"""Certificates and private keys, with real signatures made on the spot."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import makers
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from verifier.model import Dead, Doubt, How, Undecided
from verifier.offline import offline
from verifier.offline import x509 as certs
from verifier.offline.x509 import Said, Status, Unreadable, read_crl, read_ocsp
from verifier.secret import Secret

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = NOW - timedelta(days=1), NOW + timedelta(days=5)
CA = makers.certificate(NOW + timedelta(days=9))
LEAF = makers.certificate(NEW, issuer=CA, serial=42)


def ask(**parts: str):  # noqa: ANN201  # the offline check's own answer
    return offline("private_key_tls", {n: Secret(v) for n, v in parts.items()}, NOW)


# ── keys ───────────────────────────────────────────────────────────────────────────────────────────────


def private(key: object, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> str:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, lock).decode()  # type: ignore[attr-defined]  # cryptography types keys and names by sort; any will do here


RSA = rsa.generate_private_key(65537, 2048)
LOCKED = "\n".join(
    (
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
        b64encode(b"openssh-key-v1\0" + b"\0\0\0\x0aaes256-ctr" + b"\0\0\0\x06bcrypt" + bytes(60)).decode(),
        "-----END " + "OPENSSH PRIVATE KEY-----",
    )
)


@pytest.mark.parametrize(
    "text",
    [
        private(RSA), private(RSA, PrivateFormat.TraditionalOpenSSL), private(RSA, PrivateFormat.OpenSSH),
        makers.private_key(), private(ed25519.Ed25519PrivateKey.generate()),
        "-----BEGIN " + "PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK-----", "no PEM at all",
    ],
)  # fmt: skip
def test_a_sound_key_is_not_settled_offline(text: str) -> None:
    assert ask(secret=text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (private(RSA, password=b"pw"), "passphrase"),
        (private(RSA, PrivateFormat.TraditionalOpenSSL, b"pw"), "passphrase"),
        (LOCKED, "passphrase"),
        (makers.private_key()[:80], "cut off"),
        (private(RSA).replace(private(RSA)[100:200], ""), "truncated"),
        (private(RSA, PrivateFormat.OpenSSH)[:400] + "\n-----END " + "OPENSSH PRIVATE KEY-----", "truncated"),
    ],
    ids=["pkcs8", "pkcs1", "openssh", "cut-off", "truncated", "openssh-truncated"],
)
def test_a_key_that_cannot_be_used_is_incomplete(text: str, says: str) -> None:
    verdict = ask(secret=text)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    assert says in verdict.note


def test_a_key_and_its_certificate_share_a_fingerprint() -> None:
    cert, key = LEAF
    found = certs.read({"secret": Secret(makers.pem(key)), "certificate": Secret(makers.pem(cert))})
    assert isinstance(found, certs.Material)
    assert found.spki == certs.spki(cert.public_key())
    assert found.ends == cert.not_valid_after_utc
    assert found.has_key


# ── end dates ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_certificate_past_its_end_is_dead_with_its_key() -> None:
    cert, key = makers.certificate(OLD)
    for parts in ({"secret": makers.pem(cert)}, {"secret": makers.pem(key) + makers.pem(cert)},
                  {"secret": makers.pem(key), "certificate": makers.pem(cert)}):  # fmt: skip
        verdict = ask(**parts)
        assert isinstance(verdict, Dead)
        assert verdict.how is How.EXPIRED
        assert "notAfter 2025-12-31" in verdict.evidence.excerpt


def test_a_certificate_that_still_runs_or_is_of_another_key_settles_nothing() -> None:
    cert, key = makers.certificate(OLD)
    assert ask(secret=makers.pem(LEAF[0])) is None
    assert ask(secret=makers.pem(LEAF[1]) + makers.pem(cert)) is None
    renewed, _ = makers.certificate(NEW, key=key)
    assert ask(secret=makers.pem(key) + makers.pem(cert) + makers.pem(renewed)) is None
    just, _ = makers.certificate(NOW - timedelta(minutes=2))
    assert ask(secret=makers.pem(just)) is None


def test_a_broken_certificate_is_passed_over() -> None:
    text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert ask(secret=text) is None
    assert certs.certificates(text + makers.pem(CA[0])) == [CA[0]]


# ── whom to ask ────────────────────────────────────────────────────────────────────────────────────────


def test_addresses_are_read_from_the_certificate() -> None:
    url = x509.UniformResourceIdentifier
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url("http://ocsp.example/")),
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, url("http://ca.example/ca.der")),
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url("ldap://no.example")),
        ]
    )
    points = x509.CRLDistributionPoints([x509.DistributionPoint([url("http://crl.example/c.crl")], None, None, None)])
    cert, _ = makers.certificate(NEW, issuer=CA, extensions=(access, points))
    assert certs.ocsp_urls(cert) == ["http://ocsp.example/"]
    assert certs.issuer_urls(cert) == ["http://ca.example/ca.der"]
    assert certs.crl_urls(cert) == ["http://crl.example/c.crl"]
    assert (certs.ocsp_urls(CA[0]), certs.crl_urls(CA[0])) == ([], [])


def test_the_request_names_the_certificate() -> None:
    request = ocsp.load_der_ocsp_request(certs.ocsp_request(LEAF[0], CA[0]))
    assert request.serial_number == 42


# ── what the answer means ──────────────────────────────────────────────────────────────────────────────


def response(
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    signer: tuple[object, object] = CA,
    about: tuple[object, object] = LEAF,
    this: datetime = NOW - timedelta(hours=1),
    until: datetime | None = NOW + timedelta(days=1),
    attach: bool = False,
    revoked: datetime | None = None,
    algorithm: hashes.HashAlgorithm | None = hashes.SHA256(),  # noqa: B008  # stateless
) -> bytes:
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(about[0], CA[0], hashes.SHA1(), status, this, until, revoked, None)  # type: ignore[arg-type]  # noqa: S303
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer[0])  # type: ignore[arg-type]  # cryptography types keys and names by sort; any will do here
    )
    if attach:
        builder = builder.certificates([signer[0]])  # type: ignore[list-item]  # cryptography types keys and names by sort; any will do here
    return builder.sign(signer[1], algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # cryptography types keys and names by sort; any will do here


def said(data: bytes, issuer: tuple[object, object] = CA) -> certs.Answer:
    return read_ocsp(data, LEAF[0], issuer[0], NOW)  # type: ignore[arg-type]  # cryptography types keys and names by sort; any will do here


def test_signed_answers_count() -> None:
    assert said(response()) == Said(Status.GOOD)
    gone = response(status=ocsp.OCSPCertStatus.REVOKED, revoked=OLD)
    assert said(gone) == Said(Status.REVOKED, OLD)
    assert said(response(status=ocsp.OCSPCertStatus.UNKNOWN)) == Said(Status.UNKNOWN)
    assert said(response(until=None)) == Said(Status.GOOD)


def responder(
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.OCSP_SIGNING, **more: object
) -> tuple[object, object]:
    extensions = (x509.ExtendedKeyUsage([usage]),) if usage else ()
    return makers.certificate(more.pop("ends", NEW), issuer=more.pop("issuer", CA), serial=7, extensions=extensions)  # type: ignore[arg-type]  # cryptography types keys and names by sort; any will do here


def test_an_appointed_responder_counts() -> None:
    assert said(response(signer=responder(), attach=True)) == Said(Status.GOOD)


@pytest.mark.parametrize(
    "data",
    [
        response(signer=makers.certificate(NEW)),
        response(signer=makers.certificate(NEW), attach=True),
        response(signer=responder(None), attach=True),
        response(signer=responder(ExtendedKeyUsageOID.SERVER_AUTH), attach=True),
        response(signer=responder(ends=OLD), attach=True),
        response(signer=responder(issuer=makers.certificate(NEW)), attach=True),
        response(about=makers.certificate(NEW, issuer=CA, serial=43)),
        response(this=NOW + timedelta(hours=1), until=None),
        response(this=NOW - timedelta(days=3), until=NOW - timedelta(days=2)),
        ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER),
        b"<html>sign in</html>",
        b"",
    ],
)  # fmt: skip
def test_unsigned_foreign_stale_and_stray_answers_do_not(data: bytes) -> None:
    assert isinstance(said(data), Unreadable)


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, hashes.SHA256()), (ed25519.Ed25519PrivateKey.generate(), None)])
def test_issuers_of_other_key_types_are_believed_too(key: object, algorithm: hashes.HashAlgorithm | None) -> None:
    ca = makers.certificate(NEW)
    other = (makers.certificate(NEW, key=ec.generate_private_key(ec.SECP256R1()))[0], key)
    builder = x509.CertificateBuilder().subject_name(ca[0].subject).issuer_name(ca[0].subject)
    cert = (
        builder.public_key(key.public_key())  # type: ignore[attr-defined]  # cryptography types keys and names by sort; any will do here
        .serial_number(1).not_valid_before(OLD).not_valid_after(NEW).sign(key, algorithm)  # type: ignore[arg-type]  # cryptography types keys and names by sort; any will do here
    )  # fmt: skip
    data = response(signer=(cert, key), algorithm=algorithm)
    assert said(data, (cert, key)) == Said(Status.GOOD)
    assert isinstance(said(data, other), Unreadable)


def test_a_signature_of_a_type_we_cannot_check_does_not_count() -> None:
    key = dsa.generate_private_key(2048)
    name = CA[0].subject
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(OLD).not_valid_after(NEW).sign(CA[1], hashes.SHA256())
    )  # fmt: skip
    assert isinstance(said(response(), (cert, key)), Unreadable)


def crl(*serials: int, signer: tuple[object, object] = CA, until: datetime = NEW) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(signer[0].subject)  # type: ignore[attr-defined]  # cryptography types keys and names by sort; any will do here
    builder = builder.last_update(NOW - timedelta(days=3)).next_update(until)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(OLD).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer[1], hashes.SHA256())  # type: ignore[arg-type]  # cryptography types keys and names by sort; any will do here


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_list_tells_whether_a_certificate_is_on_it(encoding: Encoding) -> None:
    def told(c: x509.CertificateRevocationList) -> certs.Answer:
        return read_crl(c.public_bytes(encoding), LEAF[0], CA[0], NOW)

    assert told(crl(1, 42)) == Said(Status.REVOKED, OLD)
    assert told(crl(1)) == Said(Status.GOOD)
    assert told(crl(42, until=NOW - timedelta(days=2))) == Unreadable("the list is out of date")
    assert isinstance(told(crl(42, signer=makers.certificate(NEW, serial=9))), Unreadable)
    assert isinstance(told(crl(42, signer=makers.certificate(NEW))), Unreadable)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    assert isinstance(said(data), Unreadable)
    assert isinstance(read_crl(data, LEAF[0], CA[0], NOW), Unreadable)


@given(
    st.text(max_size=60), st.sampled_from(["RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "EC PRIVATE KEY", "CERTIFICATE"])
)
def test_no_text_makes_it_raise(body: str, label: str) -> None:
    ask(secret=f"-----BEGIN {label}-----\n{body}\n-----END {label}-----")
