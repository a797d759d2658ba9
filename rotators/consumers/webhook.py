"""A webhook: says that there is a new value; the value itself goes along only where `values = "yes"` says so.

Signed with HMAC-SHA-256 over `TIME.BODY` by the key in the variable that `key_env` names (`LAPSE_WEBHOOK_KEY`):
`X-Lapse-Signature: t=TIME,v1=HEX`. `X-Lapse-Delivery` is the same at every try of one run, so that a receiver can tell
a repetition. Settings: `url` (https), `key_env`, `values`, and `allow_private` and `ca_bundle` of `rotators.door`.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from rotators.door import Door, Route, admin_token, refusal
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Settings
    from rotators.step import Outcome
    from verifier.secret import Secret

_SHORTEST = 16


class Webhook:
    """One URL."""

    name = "webhook"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {"push": ("POST to the webhook",)}

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a `url` that is none is `ProviderError(REFUSED)`."""
        self._settings = settings
        parts = urlsplit(settings.get("url", ""))
        if not parts.netloc or parts.query or "{" in parts.path:
            raise ProviderError(Trouble.REFUSED, "webhook needs a `url` of the form https://host/path")
        self._route = Route("POST", parts.path or "/")
        base = f"{parts.scheme}://{parts.netloc}"
        self._door = Door(base, (self._route,), {k: v for k, v in settings.items() if k != "base_url"})
        self._values = settings.get("values") == "yes"

    def preflight(self) -> Sequence[Fact]:
        """See that there is a key to sign with; nothing is sent, so what the receiver thinks of it is not known."""
        self._key()
        return [Fact("consumer", f"there is a key to sign for {self._door.host}; nothing was sent beforehand")]

    def _key(self) -> str:
        key = admin_token((self._settings.get("key_env") or "LAPSE_WEBHOOK_KEY",))
        if len(key) < _SHORTEST:
            raise ProviderError(Trouble.DENIED, f"the webhook's key is shorter than {_SHORTEST} characters")
        return key

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        """Send it; anything but a 2xx is a `ProviderError`. Repeating is harmless to a receiver that minds the id."""
        key = self._key()
        message: dict[str, object] = {"v": 1, "event": "rotated", "run": run, "fields": sorted(fields)}
        if self._values:
            message["values"] = {name: value.reveal() for name, value in fields.items()}
        body, moment = msgspec.json.encode(message), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-Lapse-Signature": f"t={moment},v1={sign(key, moment, body)}",
            "X-Lapse-Delivery": hashlib.sha256(f"{run} {self._settings['url']}".encode()).hexdigest()[:32],
        }
        answer = self._door.call(self._route, headers=headers, body=body)
        if not answer.good:
            raise refusal(answer, f"tell the webhook at {self._door.host}")
        return Done(f"{self._door.host} took the message")

    def pushed(self, run: str) -> bool | None:  # noqa: ARG002  # nobody to ask
        """Return `None`: a webhook cannot be asked."""
        return None


def sign(key: str, moment: str, body: bytes) -> str:
    """Return the signature in hex, for receivers to compare."""
    return hmac.digest(key.encode(), moment.encode() + b"." + body, "sha256").hex()


def make(settings: Settings) -> Webhook:
    """Return the consumer for a playbook's slot."""
    return Webhook(settings)
