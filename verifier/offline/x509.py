"""Certificates and private keys: end dates, fingerprints, and the revocation requests that a probe may send.

Nothing here opens a socket: `ocsp_urls` and `crl_urls` say whom to ask, `ocsp_request` what, and `read_ocsp` and
`read_crl` what the answer means. Answers travel over plain http, so they count only with the issuer's signature.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from datetime import datetime, timedelta  # msgspec reads annotations at run time
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from msgspec import Struct

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from verifier.model import Parts

SKEW = timedelta(minutes=5)
_SSH_MAGIC = b"openssh-key-v1\0"
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_OPEN = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")
_NOT_OURS = frozenset({"PGP PRIVATE KEY BLOCK", "PGP PUBLIC KEY BLOCK", "SSH2 ENCRYPTED PRIVATE KEY"})
_FAULTS = (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error)


class Unreadable(Struct, frozen=True):
    """Key material that cannot be used as it stands: encrypted or truncated."""

    note: str


class Material(Struct, frozen=True):
    """What a credential's PEM blocks hold.

    `ends` is the certificate's notAfter (UTC); `spki` the SHA-256 (hex) of the public key.
    """

    spki: str | None = None
    ends: datetime | None = None
    has_key: bool = False


class Status(StrEnum):
    """What an issuer says about a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Said(Struct, frozen=True):
    """A signed answer of the issuer: the status, and since when for a revoked certificate (UTC)."""

    status: Status
    revoked_at: datetime | None = None


Answer: TypeAlias = Said | Unreadable


def read(parts: Parts) -> Material | Unreadable:
    """Read the PEM blocks of a credential. A certificate that belongs to another key than the one found is ignored."""
    text = "\n".join(p.reveal() for p in parts.values() if "-----BEGIN" in p.reveal())
    key = private_key(text)
    if isinstance(key, Unreadable):
        return key
    certs = certificates(text)
    if key is not None:
        mine = spki(key)
        ends = [c.not_valid_after_utc for c in certs if spki(c.public_key()) == mine]
        return Material(mine, max(ends, default=None), has_key=True)
    leaf = certs[0] if certs else None
    return Material(spki(leaf.public_key()), leaf.not_valid_after_utc) if leaf is not None else Material()


def private_key(text: str) -> PublicKeyTypes | Unreadable | None:
    """Return the public half of the first private key in `text`, why it cannot be read, or `None` where there is none.

    Forms that this library does not know (PGP) are `None`, too.
    """
    whole = {m.start(): m for m in _BLOCK.finditer(text)}
    for m in _OPEN.finditer(text):
        label = m.group(1)
        if "PRIVATE KEY" not in label or label in _NOT_OURS:
            continue
        block = whole.get(m.start())
        if block is None:
            return Unreadable("the private key is cut off: its END line is missing")
        return _load(block.group(), label)
    return None


def _load(block: str, label: str) -> PublicKeyTypes | Unreadable:
    if "ENCRYPTED" in label or "Proc-Type: 4,ENCRYPTED" in block or _ssh_cipher(block) not in {None, b"none"}:
        return Unreadable("the private key is encrypted with a passphrase, which the report does not hold")
    data = (block.strip() + "\n").encode()
    try:
        if label == "OPENSSH PRIVATE KEY":
            return load_ssh_private_key(data, password=None).public_key()
        return load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True).public_key()
    except _FAULTS:
        return Unreadable("the private key cannot be read: it is truncated or altered")


def _ssh_cipher(block: str) -> bytes | None:
    """Return the name of the cipher that locks an OpenSSH key (`none`: it is open), `None` for other forms."""
    body = "".join(block.splitlines()[1:-1])
    try:
        data = b64decode(body)
    except ValueError:
        return None
    if not data.startswith(_SSH_MAGIC):
        return None
    start = len(_SSH_MAGIC) + 4
    return data[start : start + int.from_bytes(data[start - 4 : start], "big")]


def certificates(text: str) -> list[x509.Certificate]:
    """Return the certificates in `text`, in order; blocks that do not parse are left out."""
    found = []
    for m in _BLOCK.finditer(text):
        if m.group(1) in {"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"}:
            try:
                found.append(x509.load_pem_x509_certificate(m.group().encode()))
            except _FAULTS:
                continue
    return found


def spki(key: PublicKeyTypes) -> str:
    """Return the SHA-256 (hex) of a public key's SubjectPublicKeyInfo: the same for a key and for its certificates."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


# ── whom to ask ────────────────────────────────────────────────────────────────────────────────────────


def ocsp_urls(cert: x509.Certificate) -> list[str]:
    """Return the http(s) addresses of the issuer's OCSP responders, as the certificate names them."""
    return _access(cert, AuthorityInformationAccessOID.OCSP)


def issuer_urls(cert: x509.Certificate) -> list[str]:
    """Return the http(s) addresses where the issuer's own certificate lies."""
    return _access(cert, AuthorityInformationAccessOID.CA_ISSUERS)


def crl_urls(cert: x509.Certificate) -> list[str]:
    """Return the http(s) addresses of the issuer's revocation lists."""
    try:
        points = cert.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *_FAULTS):
        return []
    return _http(name for point in points for name in point.full_name or ())


def _access(cert: x509.Certificate, method: x509.ObjectIdentifier) -> list[str]:
    try:
        access = cert.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, *_FAULTS):
        return []
    return _http(a.access_location for a in access if a.access_method == method)


def _http(names: object) -> list[str]:
    urls = [n.value for n in names if isinstance(n, x509.UniformResourceIdentifier)]  # type: ignore[attr-defined]  # cryptography types the list by its members only
    return [u for u in urls if u.startswith(("http://", "https://"))]


def ocsp_request(cert: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Return the DER request that asks the responder about `cert`. It holds serial and issuer hashes, nothing else."""
    # SHA-1 names the issuer here, as every responder expects; nothing rests on its strength
    built = ocsp.OCSPRequestBuilder().add_certificate(cert, issuer, SHA1()).build()  # noqa: S303  # see above: it names, it does not prove
    return built.public_bytes(Encoding.DER)


# ── what the answer means ──────────────────────────────────────────────────────────────────────────────


def read_ocsp(data: bytes, cert: x509.Certificate, issuer: x509.Certificate, now: datetime) -> Answer:
    """Read a responder's answer about `cert`: only a fresh one, signed by the issuer or whom it appointed, counts."""
    try:
        response = ocsp.load_der_ocsp_response(data)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return Unreadable(f"the responder answered {response.response_status.name.lower()}")
        if response.serial_number != cert.serial_number:
            return Unreadable("the responder answered about another certificate")
        if not _signed(response, issuer, now):
            return Unreadable("the answer is not signed by the certificate's issuer")
        if not _fresh(response.this_update_utc, response.next_update_utc, now):
            return Unreadable("the answer is out of date")
        match response.certificate_status:
            case ocsp.OCSPCertStatus.GOOD:
                return Said(Status.GOOD)
            case ocsp.OCSPCertStatus.REVOKED:
                return Said(Status.REVOKED, response.revocation_time_utc)
            case _:
                return Said(Status.UNKNOWN)
    except _FAULTS:
        return Unreadable("the answer is no OCSP response")


def read_crl(data: bytes, cert: x509.Certificate, issuer: x509.Certificate, now: datetime) -> Answer:
    """Look `cert` up in a revocation list (DER or PEM): only a fresh one, signed by the issuer, counts."""
    try:
        crl = x509.load_pem_x509_crl(data) if data.startswith(b"-----") else x509.load_der_x509_crl(data)
        if crl.issuer != cert.issuer or not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # a key that cannot sign fails the check itself
            return Unreadable("the list is not signed by the certificate's issuer")
        if not _fresh(crl.last_update_utc, crl.next_update_utc, now):
            return Unreadable("the list is out of date")
        entry = crl.get_revoked_certificate_by_serial_number(cert.serial_number)
    except _FAULTS:
        return Unreadable("the answer is no revocation list")
    return Said(Status.GOOD) if entry is None else Said(Status.REVOKED, entry.revocation_date_utc)


def _fresh(since: datetime, until: datetime | None, now: datetime) -> bool:
    return since - SKEW <= now and (until is None or now <= until + SKEW)


def _signed(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> bool:
    """Accept the issuer's own signature, or that of a certificate which the issuer signed for this very purpose."""
    signers = [issuer]
    for cert in response.certificates:
        try:
            cert.verify_directly_issued_by(issuer)
            usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (InvalidSignature, x509.ExtensionNotFound, *_FAULTS):
            continue
        valid = cert.not_valid_before_utc - SKEW <= now <= cert.not_valid_after_utc + SKEW
        if valid and ExtendedKeyUsageOID.OCSP_SIGNING in usage:
            signers.append(cert)
    algorithm = response.signature_hash_algorithm
    return any(_verifies(s.public_key(), response, algorithm) for s in signers)


def _verifies(key: PublicKeyTypes, response: ocsp.OCSPResponse, algorithm: HashAlgorithm | None) -> bool:
    signature, signed = response.signature, response.tbs_response_bytes
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except InvalidSignature:
        return False
    return True
