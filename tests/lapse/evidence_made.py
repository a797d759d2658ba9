"""Rotations of the small world in a real ledger, told the present time, for what is given out about them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "playbooks"))

from ledger_made import KEK, journal, made
from stage import BOOK, drive, planned
from world import KIND, START, Small, old

from lapse.evidence.extract import extract
from lapse.evidence.fold import evidence_of
from lapse.evidence.page import page
from lapse.evidence.signing import signed, written
from lapse.ledger import Ownership, Scan
from playbooks.engine import Engine
from playbooks.plan import Mode
from verifier.model import Evidence, Finding, Identity, Live, Place, SourceKind
from verifier.ports import Judged

if TYPE_CHECKING:
    from lapse.evidence.model import EvidenceFile, RunEvidence
    from lapse.ledger import Ledger
    from verifier.model import CredentialID

LEAKED = datetime.now(UTC).replace(microsecond=0) - timedelta(days=40)
PLANTED = ("planted-new", "old-planted-secret")
"""Every secret of the small world holds one of these."""

__all__ = ["BOOK", "KEK", "LEAKED", "PLANTED", "START", "Office", "made"]


@dataclass
class Office:
    """One ledger that knows the small world's key: leaked long ago, seen and found live now."""

    ledger: Ledger
    small: Small
    engine: Engine
    key: CredentialID

    @classmethod
    def at(cls, ledger: Ledger, *, path: str = "a.env", scanner: str = "gitleaks", who: str = "bot") -> Office:
        small = Small()
        small.set(clock=(datetime.now(UTC) - START).total_seconds() + 5)
        small.begin()
        place = Place(SourceKind.GIT, repository="acme/app", path=path, line=3, revision="c0ffee" * 6)
        finding = Finding(KIND, old().parts, place, scanner, "x", seen_at=LEAKED)
        ledger.ingest(Scan(scanner, "report.json", "gitleaks-json"), [(finding, old().id, "K…")])
        ledger.mark([old().id], owner=Ownership.OURS)
        office = cls(ledger, small, Engine(journal(ledger, small.now), small.world(), small.now), old().id)
        office.live(datetime.now(UTC), who)
        return office

    def live(self, at: datetime, who: str = "bot") -> None:
        proof = Evidence("GET https://sim/", 200, "{}", "0" * 64, "sim@0", at, "sim")
        self.ledger.record([Judged(self.key, KIND, Live(proof, Identity(principal=who)), at)])

    def rotate(
        self, run: str = "r-1", text: str = BOOK, mode: Mode = Mode.GRACEFUL, approve: str | None = "ann"
    ) -> None:
        self.engine.start(run, planned(self.small, text, mode), "bob")
        drive(self.engine, self.small, run, approve=approve)

    def evidence(self, run: str = "r-1") -> RunEvidence:
        state, _ = extract(self.ledger, run)
        key = self.ledger.key(self.key)
        return evidence_of(state, key, self.ledger.places(self.key), self.ledger.story(self.key))

    def file(self, run: str = "r-1") -> EvidenceFile:
        return signed(self.ledger, self.evidence(run), extract(self.ledger, run)[1], datetime.now(UTC))

    def json(self, run: str = "r-1") -> bytes:
        return written(self.file(run))

    def page(self, run: str = "r-1") -> bytes:
        return page(self.ledger, self.file(run))
