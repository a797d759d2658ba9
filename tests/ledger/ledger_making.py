"""Made-up findings, verdicts and ledgers for the ledger's tests."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING

from lapse.ledger import Ledger, Scan, open_ledger
from verifier.model import (
    CredentialID,
    Dead,
    Doubt,
    Evidence,
    Finding,
    How,
    Identity,
    Image,
    KindID,
    Live,
    Place,
    Privilege,
    SourceKind,
    Undecided,
)
from verifier.ports import Judged
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from servers import Server

    from lapse.ledger import IngestCount
    from verifier.model import Verdict

START = datetime(2026, 3, 1, tzinfo=UTC)
KEY = "env:LAPSE_TEST_KEK"


def set_key(name: str = "LAPSE_TEST_KEK") -> str:
    """Put a random wrapping key into the environment and return its reference."""
    os.environ[name] = os.urandom(32).hex()
    return f"env:{name}"


def name_of(number: int, vendor: str = "aws") -> CredentialID:
    return CredentialID(f"{vendor}-{blake2b(number.to_bytes(4, 'big'), digest_size=16).hexdigest()}")


def finding(number: int, place: int = 0, origin: str = "acme/app", scanner: str = "gitleaks") -> Finding:
    """Return key `number` at line `place` of a file in `origin`."""
    parts = {"id": Secret(f"id-{number}"), "secret": Secret(f"planted-{number}-" + "s3cr3t" * 3)}
    spot = Place(SourceKind.GIT, repository=origin, path="src/app.env", line=place + 1)
    return Finding(KindID("aws_access_key"), parts, spot, scanner, "aws-key")


def docker_finding(number: int, layer: int = 0) -> Finding:
    image = Image("api", "registry.example", "acme", "1.0", "sha256:" + "a" * 64, f"sha256:{layer:064x}")
    parts = {"secret": Secret(f"planted-{number}-" + "s3cr3t" * 3)}
    place = Place(
        SourceKind.DOCKER, image=image, path="app/.env", line=1, author="Ann <a@b.example>", url="https://x/y"
    )
    return Finding(KindID("aws_access_key"), parts, place, "kingfisher", "kf.aws.1", seen_at=START)


def rows(pairs: Iterable[tuple[int, int]], **more: str) -> list[tuple[Finding, CredentialID, str]]:
    """Return ingest rows for (key, place) pairs."""
    return [(finding(key, place, **more), name_of(key), f"AKIA…{key}") for key, place in pairs]


def scan(*, complete: bool = False, origin: str | None = None, scanner: str = "gitleaks") -> Scan:
    return Scan(scanner, "report.json", "gitleaks-json", origin=origin, complete=complete)


def ingest(ledger: Ledger, pairs: Iterable[tuple[int, int]], *, complete: bool = False) -> IngestCount:
    return ledger.ingest(scan(complete=complete), rows(pairs))


def evidence(at: datetime = START) -> Evidence:
    return Evidence("GET https://sts.example/", 200, "{}", "0" * 64, "aws_access_key@0", at, "sts.example")


def live(principal: str = "ann", *, restricted: bool = False) -> Live:
    return Live(evidence(), Identity(principal=principal, privilege=Privilege.ADMIN), restricted)


def dead(*, confirmed: bool = False) -> Dead:
    return Dead(evidence(), How.REVOKED, confirmed)


def unsure(why: Doubt = Doubt.THROTTLED, after: int | None = None) -> Undecided:
    return Undecided(why, None, None if after is None else timedelta(seconds=after), "try later")


def judged(number: int, verdict: Verdict, minutes: float = 0) -> Judged:
    return Judged(name_of(number), "aws_access_key", verdict, START + timedelta(minutes=minutes))


_schemas = count(1)


def fresh(server: Server) -> str:
    """Return the address of a schema that is not there yet."""
    who = f"{server.admin['username']}:{server.admin['password']}"
    return f"postgresql://{who}@{server.host}:{server.port}/postgres?sslmode=disable&schema=t{os.getpid()}_{next(_schemas)}"


def made(place: Path | str, *, key: bool = True) -> Ledger:
    """Open the ledger in a folder or at an address."""
    address = place if isinstance(place, str) else place / "ledger.db"
    return open_ledger(address, set_key() if key else None)
