"""What the verifier asks of whoever keeps the ledger. It knows no database."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from verifier.model import Credential, CredentialID, Verdict
from verifier.scope import Ownership


class Due(Struct, frozen=True):
    """A credential whose verdict is wanted, with what earlier runs learnt of it.

    `last_live` is when it was last accepted; `dead_since` when the present unbroken row of Dead verdicts began,
    `None` when the last verdict is not Dead.
    """

    credential: Credential
    last: Verdict | None = None
    last_live: datetime | None = None
    dead_since: datetime | None = None


class Fallen(Struct, frozen=True):
    """A key that worked once and was refused by an earlier run, lately: what an outage looks like from afar."""

    vendor: str
    id: CredentialID


class Judged(Struct, frozen=True):
    """One verdict of one run, and whose key it is as far as known."""

    id: CredentialID
    provider: str
    verdict: Verdict
    at: datetime
    ownership: Ownership = Ownership.UNKNOWN
