"""Credential ids: a keyed hash, so that an id tells nothing about the secret."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from verifier.model import CredentialID, KindID

if TYPE_CHECKING:
    from verifier.model import Parts

KEY_BYTES = 32


class Fingerprinter:
    """Computes the ids of one ledger with that ledger's own key (`KEY_BYTES` random bytes)."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take the ledger's id key; a key of another length is a `ValueError`."""
        if len(key) != KEY_BYTES:
            msg = f"the id key has {len(key)} bytes, not {KEY_BYTES}"
            raise ValueError(msg)
        self._key = key

    def of(self, vendor: str, kind: KindID, parts: Parts) -> CredentialID:
        """Return `vendor-` + 32 hex digits over kind and all parts (host included), whatever their order.

        Every field is length-prefixed, so no two sets of parts share an encoding.
        """
        fields = [kind.encode()]
        for name in sorted(parts) if len(parts) > 1 else parts:
            fields += (name.encode(), parts[name].reveal().encode("utf-8", "surrogatepass"))
        told = b"".join([len(field).to_bytes(4, "big") + field for field in fields])
        h = blake2b(told, key=self._key, digest_size=16)
        return CredentialID(f"{vendor}-{h.hexdigest()}")
