"""What the rotators' tests share: credentials made at run time, and a Vault admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hvac

from rotators.interface import KeyRef
from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from servers import Server


ANY_KEY = KeyRef("any", "anybody")
"""For what is not about one key."""


def credential(kind: str, **parts: str) -> Credential:
    """Return a credential of a kind; its id is not one that a ledger would give."""
    return Credential(CredentialID(f"{kind}-test"), KindID(kind), {k: Secret(v) for k, v in parts.items()})


def secrets(**fields: str) -> dict[str, Secret]:
    """Wrap fields to store or push."""
    return {k: Secret(v) for k, v in fields.items()}


def shown(fields: Any) -> dict[str, str]:
    """Return fields in clear, to compare them."""
    return {k: v.reveal() for k, v in fields.items()}


def admin(server: Server) -> Any:
    """Return the root's own client."""
    return hvac.Client(server.url, token=server.admin["token"])
