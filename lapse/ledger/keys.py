"""Where the wrapping key (KEK) comes from.

`file:PATH`, `env:NAME` and `keyring:SERVICE/NAME` hold 32 random bytes (base64, hex or raw) that wrap here, with
AES-256-GCM; `vault:MOUNT/KEY` (Transit) and `awskms:ARN` never show their key and wrap at their end. Vault's address
and token come from `VAULT_ADDR` and `VAULT_TOKEN`, AWS's credentials from its own chain.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lapse.ledger.errors import KeyTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES = 32
_NONCE = 12
_MAKE = "make one with `openssl rand -base64 32`"
_HEX = re.compile(rb"[0-9a-fA-F]{64}")


class KeySource(Protocol):
    """Something that can wrap a short secret and unwrap it again."""

    @property
    def reference(self) -> str:
        """How the config names it. Safe to print and to store."""
        ...

    def wrap(self, data: bytes) -> bytes:
        """Encrypt at most 4 KB; any failure is a `KeyTrouble`."""
        ...

    def unwrap(self, blob: bytes) -> bytes:
        """Decrypt what `wrap` gave; another key, or an edited blob, is a `KeyTrouble`."""
        ...


def key_source(reference: str) -> KeySource:
    """Return the source that `reference` names; nothing is read or asked yet. An unknown form is a `KeyTrouble`."""
    scheme, _, rest = reference.partition(":")
    local = _LOCAL.get(scheme)
    if rest and local is not None:
        return LocalKey(reference, lambda: local(rest))
    mount, _, name = rest.rpartition("/")
    if scheme == "vault" and mount and name:
        return VaultTransit(reference, mount, name)
    if scheme == "awskms" and rest.startswith("arn:"):
        return AwsKms(reference, rest)
    forms = "file:PATH, env:NAME, keyring:SERVICE/NAME, vault:MOUNT/KEY or awskms:ARN"
    raise KeyTrouble(f"the ledger's key must be named as {forms}; a key itself is never written into the config")


class LocalKey:
    """32 bytes that this process can read; wraps with AES-256-GCM under a random nonce, which leads the blob."""

    def __init__(self, reference: str, fetch: Callable[[], bytes]) -> None:
        """Remember how to fetch the key; it is fetched at each use and not kept."""
        self.reference = reference
        self._fetch = fetch

    def _cipher(self) -> AESGCM:
        return AESGCM(_decode(self._fetch(), self.reference))

    def wrap(self, data: bytes) -> bytes:
        """Encrypt here."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher().encrypt(nonce, data, None)

    def unwrap(self, blob: bytes) -> bytes:
        """Decrypt here."""
        try:
            return self._cipher().decrypt(blob[:_NONCE], blob[_NONCE:], None)
        except (InvalidTag, ValueError):
            raise _wrong(self.reference) from None


class VaultTransit:
    """A key of Vault's or OpenBao's Transit engine, by its HTTP API."""

    def __init__(self, reference: str, mount: str, name: str) -> None:
        """Name the engine's mount and the key."""
        self.reference = reference
        self._mount = mount
        self._name = name

    def _ask(self, verb: str, field: str, body: dict[str, str]) -> str:
        import hvac  # noqa: PLC0415  # 0.2 s, and only here
        from requests.exceptions import RequestException  # noqa: PLC0415  # slow to import

        if not os.environ.get("VAULT_ADDR"):
            raise KeyTrouble(f"{self.reference} needs VAULT_ADDR (and VAULT_TOKEN) in the environment")
        try:
            client = hvac.Client()
            try:
                answer = client.write_data(f"{self._mount}/{verb}/{self._name}", data=body)
            finally:
                client.adapter.close()
            return str(answer["data"][field])
        except hvac.exceptions.InvalidRequest:
            raise _wrong(self.reference) from None
        except hvac.exceptions.VaultError as error:
            kind = type(error).__name__
            raise KeyTrouble(f"{self.reference} refused to {verb} ({kind}); check the token's policy") from None
        except (RequestException, KeyError, TypeError, ValueError) as error:
            kind = type(error).__name__
            raise KeyTrouble(f"{self.reference} cannot be reached ({kind}); check VAULT_ADDR") from None

    def wrap(self, data: bytes) -> bytes:
        """Encrypt at Vault; the blob is its own text, `vault:v1:…`."""
        return self._ask("encrypt", "ciphertext", {"plaintext": base64.b64encode(data).decode()}).encode()

    def unwrap(self, blob: bytes) -> bytes:
        """Decrypt at Vault."""
        return base64.b64decode(self._ask("decrypt", "plaintext", {"ciphertext": blob.decode("ascii", "replace")}))


class AwsKms:
    """A symmetric key of AWS KMS, by its ARN; credentials from the SDK's own chain, `AWS_ENDPOINT_URL` honoured."""

    def __init__(self, reference: str, arn: str) -> None:
        """Name the key."""
        self.reference = reference
        self._arn = arn

    def _ask(self, verb: str, body: dict[str, bytes]) -> bytes:
        import boto3  # noqa: PLC0415  # 0.3 s, and only here
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # slow to import

        try:
            client = boto3.client("kms", region_name=self._arn.split(":")[3])
            try:
                answer = getattr(client, verb)(KeyId=self._arn, **body)
            finally:
                client.close()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
                raise _wrong(self.reference) from None
            raise KeyTrouble(f"{self.reference} refused to {verb} ({code}); check the key's policy") from None
        except (BotoCoreError, IndexError) as error:
            kind = type(error).__name__
            raise KeyTrouble(f"{self.reference} cannot be reached ({kind}); check the region and credentials") from None
        return bytes(answer["CiphertextBlob" if verb == "encrypt" else "Plaintext"])

    def wrap(self, data: bytes) -> bytes:
        """Encrypt at AWS."""
        return self._ask("encrypt", {"Plaintext": data})

    def unwrap(self, blob: bytes) -> bytes:
        """Decrypt at AWS."""
        return self._ask("decrypt", {"CiphertextBlob": blob})


def _wrong(reference: str) -> KeyTrouble:
    return KeyTrouble(f"{reference} is not the key that this ledger was sealed with; configure the one that was")


def _decode(material: bytes, reference: str) -> bytes:
    text = material.strip()
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.decode())
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) == KEY_BYTES:
        return key
    if len(material) == KEY_BYTES:
        return material
    raise KeyTrouble(f"{reference} does not hold {KEY_BYTES} random bytes in base64 or hex; {_MAKE}")


def _from_file(name: str) -> bytes:
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise KeyTrouble(f"file:{name} can be read by others; run `chmod 600` on it")
            return file.read(1024)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise KeyTrouble(f"file:{name} cannot be read: {reason}; {_MAKE} into it, mode 600") from None


def _from_env(name: str) -> bytes:
    value = os.environ.get(name)
    if not value:
        raise KeyTrouble(f"env:{name} is not set; {_MAKE}")
    return value.encode("utf-8", "surrogateescape")


def _from_keyring(name: str) -> bytes:
    service, _, user = name.rpartition("/")
    if not service:
        raise KeyTrouble(f"keyring:{name} must name service and entry, as in keyring:lapse/ledger")
    try:
        import keyring  # noqa: PLC0415  # optional
    except ImportError:
        raise KeyTrouble("keyring: needs the keyring package; install lapse[keyring]") from None
    try:
        value = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise KeyTrouble(f"keyring:{name} cannot be read ({type(error).__name__}); unlock the keyring") from None
    if value is None:
        raise KeyTrouble(f"keyring:{name} has no such entry; {_MAKE} and store it there")
    return str(value).encode()


_LOCAL: dict[str, Callable[[str], bytes]] = {"file": _from_file, "env": _from_env, "keyring": _from_keyring}
