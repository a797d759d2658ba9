"""SCRAM (RFC 5802, RFC 7677), the client's half: proves a password without sending it, and checks the server's proof.

PostgreSQL and MongoDB both log in this way. `cryptography` and the standard library do the arithmetic.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Literal, TypeAlias

Algorithm: TypeAlias = Literal["sha1", "sha256"]
MOST_ROUNDS = 1_000_000
"""A server that asks for more rounds than this wants our CPU, not a log-in (PostgreSQL uses 4096, MongoDB 15000)."""


class ScramError(Exception):
    """The server's message is not SCRAM, or its proof is wrong."""


class Scram:
    """One exchange: `first`, then `final` on the server's first message, then `verify` on its last."""

    def __init__(self, algorithm: Algorithm, username: str, password: str, nonce: str | None = None) -> None:
        """Begin. `password` is already prepared (see `prepared`); `nonce` is for tests."""
        self._algorithm = algorithm
        self._password = password.encode()
        self._nonce = nonce or secrets.token_urlsafe(24)
        self._bare = f"n={username.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"
        self._server = b""

    def first(self) -> bytes:
        """Return the client's first message, without channel binding."""
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """Return the client's proof for the server's first message. Raises `ScramError`."""
        text, fields = _fields(challenge)
        nonce, rounds = fields.get("r", ""), fields.get("i", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server did not extend our nonce")
        if not rounds.isdigit() or not 0 < int(rounds[:9]) <= MOST_ROUNDS:
            raise ScramError("the server asks for an impossible number of rounds")
        salted = hashlib.pbkdf2_hmac(self._algorithm, self._password, _decoded(fields.get("s", "")), int(rounds))
        plain = f"c=biws,r={nonce}"
        signed = f"{self._bare},{text},{plain}".encode()
        key = self._mac(salted, b"Client Key")
        signature = self._mac(hashlib.new(self._algorithm, key).digest(), signed)
        self._server = self._mac(self._mac(salted, b"Server Key"), signed)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{plain},p={b64encode(proof).decode()}".encode()

    def verify(self, last: bytes) -> None:
        """Check that the server knows the password too. Raises `ScramError`."""
        said = _decoded(_fields(last)[1].get("v", ""))
        if not self._server or not hmac.compare_digest(said, self._server):
            raise ScramError("the server's proof is wrong")

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self._algorithm)


def prepared(password: str) -> str:
    """Return the password as SASLprep (RFC 4013) writes it; as it stands where SASLprep does not take it."""
    if password.isascii():
        return password
    from pymongo.saslprep import saslprep  # noqa: PLC0415  # only for passwords beyond ASCII

    try:
        return str(saslprep(password))
    except (ValueError, TypeError):
        return password


def _fields(message: bytes) -> tuple[str, dict[str, str]]:
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ScramError("the server's message is not text") from None
    return text, {item[:1]: item[2:] for item in text.split(",") if item[1:2] == "="}


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise ScramError("the server's message is not base64") from None
