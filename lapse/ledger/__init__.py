"""The ledger: what was found, what it opens, whether it still does, and proof that nobody rewrote it.

    with open_ledger(path, key="file:~/.config/lapse/ledger.key") as ledger:
        fingerprint = Fingerprinter(ledger.id_key)
        count = ledger.ingest(Scan("gitleaks", "report.json", "gitleaks-json"), rows)
        run = ledger.begin_run()
        for due in ledger.due(now, since=run): …
        ledger.record(judged, run)

Import it inside commands only: it brings SQLAlchemy.
"""

from lapse.ledger.chain import EventKind
from lapse.ledger.errors import AmbiguousKey, Busy, KeyTrouble, LedgerError, NewerSchema, UnknownKey
from lapse.ledger.keys import KeySource, key_source
from lapse.ledger.model import (
    Canary,
    Checked,
    Found,
    Gone,
    Head,
    IngestCount,
    Kept,
    Key,
    Noted,
    Order,
    Problem,
    Purged,
    Run,
    Scan,
    Schedule,
    Seen,
    Select,
    Sort,
    State,
    Status,
    Story,
    Told,
    Turn,
    Turned,
)
from lapse.ledger.store import Ledger, made, open_ledger
from verifier.scope import Ownership

__all__ = [
    "AmbiguousKey",
    "Busy",
    "Canary",
    "Checked",
    "EventKind",
    "Found",
    "Gone",
    "Head",
    "IngestCount",
    "Kept",
    "Key",
    "KeySource",
    "KeyTrouble",
    "Ledger",
    "LedgerError",
    "NewerSchema",
    "Noted",
    "Order",
    "Ownership",
    "Problem",
    "Purged",
    "Run",
    "Scan",
    "Schedule",
    "Seen",
    "Select",
    "Sort",
    "State",
    "Status",
    "Story",
    "Told",
    "Turn",
    "Turned",
    "UnknownKey",
    "key_source",
    "made",
    "open_ledger",
]
