"""A real ledger that knows the small world's key."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import KIND, old

from lapse.ledger import Ledger, Ownership, Scan, open_ledger
from lapse.ledger.rotations import Rotations
from verifier.model import CredentialID, Finding, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

KEK = "env:LAPSE_TEST_KEK"


def made(folder: Path) -> Ledger:
    os.environ["LAPSE_TEST_KEK"] = os.urandom(32).hex()
    return open_ledger(folder / "ledger.db", KEK)


def credential_in(ledger: Ledger, number: int = 0) -> CredentialID:
    """Put the old key (number 0) or another one into the ledger, marked as ours."""
    name = CredentialID(f"sim-{number:032x}")
    parts = old().parts if number == 0 else {"id": Secret(f"K-{number}"), "secret": Secret(f"planted-{number}")}
    row = (
        Finding(KIND, parts, Place(SourceKind.GIT, repository="acme/app", path="a.env"), "gitleaks", "x"),
        name,
        "K…",
    )
    ledger.ingest(Scan("gitleaks", "report.json", "gitleaks-json"), [row])
    ledger.mark([name], owner=Ownership.OURS)
    return name


def journal(ledger: Ledger, now: Callable[[], datetime]) -> Rotations:
    """Return the ledger's journal, told the time by another clock."""
    return Rotations(ledger._db, lambda: ledger._writer, now)
