"""Makes an evidence file: canonical JSON, signed with the ledger's Ed25519 key."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lapse import __version__
from lapse.evidence.model import Body, EvidenceFile, Signature

if TYPE_CHECKING:
    from datetime import datetime

    from lapse.evidence.model import LedgerSlice, RunEvidence
    from lapse.ledger import Ledger

PURPOSE = "evidence"
"""What is signed begins with `lapse evidence 1`: no such signature can be taken for that of a head or a page."""

PAGE_PURPOSE = "evidence page"


def canonical(value: object) -> bytes:
    """Return the one form of a JSON value that is hashed and signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def message(purpose: str, data: bytes) -> bytes:
    """Return the bytes that a signature covers."""
    return f"lapse {purpose} 1\n".encode() + data


def digests(evidence: dict[str, Any], ledger: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 (hex) of each part of a body, by its path."""
    parts = {f"evidence.{name}": part for name, part in evidence.items()}
    parts |= {f"ledger.{name}": part for name, part in ledger.items()}
    return {name: sha256(canonical(part)).hexdigest() for name, part in parts.items()}


def fingerprint(public_key: bytes) -> str:
    """Return the SHA-256 (hex) of a raw public key's DER form, as `openssl pkey -pubin -outform DER` gives it."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def pem(public_key: bytes) -> str:
    """Return a raw public key as PEM."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signed(ledger: Ledger, evidence: RunEvidence, part: LedgerSlice, at: datetime) -> EvidenceFile:
    """Return the file's content, signed by the ledger; a sealed ledger without its key is a `KeyTrouble`."""
    told, proof = msgspec.to_builtins(evidence), msgspec.to_builtins(part)
    body = Body(evidence, part, digests(told, proof), at, f"Lapse {__version__}")
    key, value = ledger.attest(PURPOSE, canonical(msgspec.to_builtins(body)))
    return EvidenceFile(body, Signature("Ed25519", pem(key), fingerprint(key), b64encode(value).decode()))


def written(file: EvidenceFile) -> bytes:
    """Return the JSON file: one line."""
    return canonical(msgspec.to_builtins(file)) + b"\n"
