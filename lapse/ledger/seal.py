"""The ledger's own keys, and what is sealed with them.

One bundle: the data key (AES-256-GCM over each credential's parts, credential id as associated data), the id key
(`verifier.fingerprint.Fingerprinter`) and the Ed25519 seed that signs the head. With a wrapping key the bundle is
stored only wrapped. Without one nothing is sealed (secrets are not kept), and **the id and signing keys lie bare in the
file**: whoever holds such a file can test guesses of a secret against an id, and can sign a forged head; only an
exported head then proves anything.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from lapse.ledger.errors import KeyTrouble, LedgerError
from verifier.secret import Secret

if TYPE_CHECKING:
    from lapse.ledger.keys import KeySource
    from verifier.model import CredentialID, Parts

NONCE_BYTES = 12
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, str]).decode
_decode_bytes = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class Bundle(Struct, frozen=True, array_like=True):
    """The three keys of one ledger, and which ledger that is, so that bundles cannot be swapped."""

    ledger: str
    data: bytes
    ids: bytes
    signing: bytes

    def __repr__(self) -> str:
        """Return a fixed mask."""
        return "Bundle(…)"


def fresh_bundle(ledger: str, ids: bytes | None = None) -> Bundle:
    """Return new random keys; `ids` keeps the old id key, which can never change."""
    return Bundle(ledger, os.urandom(32), os.urandom(32) if ids is None else ids, os.urandom(32))


def pack(bundle: Bundle, kek: KeySource | None) -> bytes:
    """Return the bundle as `meta.keys` stores it."""
    plain = _encode(bundle)
    return plain if kek is None else kek.wrap(plain)


def unpack(blob: bytes, ledger: str, kek: KeySource | None) -> Bundle:
    """Return the bundle of `ledger`; a blob of another ledger, or a wrong key, is a `KeyTrouble`."""
    plain = blob if kek is None else kek.unwrap(blob)
    try:
        bundle = msgspec.msgpack.decode(plain, type=Bundle)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise KeyTrouble("the ledger's key bundle is damaged; restore the ledger from a copy") from None
    if bundle.ledger != ledger:
        raise KeyTrouble("the ledger's key bundle belongs to another ledger; restore the ledger from a copy")
    return bundle


class Seal:
    """Seals and opens credentials' parts, and signs heads, with one bundle."""

    __slots__ = ("_cipher", "_signer", "ids", "public_key")

    def __init__(self, bundle: Bundle) -> None:
        """Set up the ciphers once: 2 µs a seal after that."""
        self._cipher = AESGCM(bundle.data)
        self._signer = Ed25519PrivateKey.from_private_bytes(bundle.signing)
        self.ids = bundle.ids
        self.public_key = self._signer.public_key().public_bytes_raw()

    def close_parts(self, credential: CredentialID, parts: Parts) -> tuple[bytes, bytes]:
        """Return nonce (96 random bits) and ciphertext of all parts."""
        nonce = os.urandom(NONCE_BYTES)
        values = {name: secret.reveal() for name, secret in parts.items()}
        try:
            plain = _encode(values)
        except UnicodeEncodeError:  # bytes that are no text, which a scanner found in a binary file
            plain = _encode({name: value.encode("utf-8", "surrogatepass") for name, value in values.items()})
        return nonce, self._cipher.encrypt(nonce, plain, credential.encode())

    def open_parts(self, credential: CredentialID, nonce: bytes, blob: bytes) -> Parts:
        """Return the parts; a blob that was edited or moved from another credential is a `LedgerError`."""
        try:
            plain = self._cipher.decrypt(nonce, blob, credential.encode())
            return {name: Secret(value) for name, value in _opened(plain).items()}
        except (InvalidTag, ValueError):
            raise LedgerError(f"the sealed parts of {credential} were changed in the file; ingest it again") from None

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature, 64 bytes."""
        return self._signer.sign(message)


def verified(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether `signature` over `message` was made with the key of `public_key`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _opened(plain: bytes) -> dict[str, str]:
    try:
        return _decode(plain)
    except msgspec.ValidationError:
        return {name: value.decode("utf-8", "surrogatepass") for name, value in _decode_bytes(plain).items()}
