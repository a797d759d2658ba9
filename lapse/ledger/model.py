"""What the ledger gives and takes: the types that command line, report, console and nightly stand on."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from verifier.model import Claimed, CredentialID, Dead, KindID, Live, Place, Verdict
from verifier.scope import Ownership


class Canary(StrEnum):
    """Whether the credential is somebody's trip-wire."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Kept(StrEnum):
    """Whether the ledger holds the sealed parts."""

    NEVER = "never"
    SEALED = "sealed"
    PURGED = "purged"


class Turn(StrEnum):
    """What a verdict changed, against the latest earlier one that was not undecided."""

    FOUND_LIVE = "found-live"
    FOUND_DEAD = "found-dead"
    DIED = "died"
    REVIVED = "revived"


class Scan(Struct, frozen=True):
    """One report about to be read in.

    `complete`: the scanner looked at everything, in `origin` if given, else in each place's own origin that the report
    names. What an earlier complete scan had there and this one lacks is then removed from source. `origin` has the form
    of `Place.origin` and, where given, names the source of all rows of this report; `fallback` names that of the rows
    whose place has no origin of its own (loose files).
    """

    scanner: str
    file: str
    format: str
    origin: str | None = None
    complete: bool = False
    at: datetime | None = None
    fallback: str | None = None


class IngestCount(Struct, frozen=True):
    """What a report brought: rows read, distinct keys among them, keys never seen before.

    `places` of the findings were new; `removed` older findings were found gone, `returned` had been gone and are back.
    """

    findings: int
    keys: int
    new: int
    places: int = 0
    removed: int = 0
    returned: int = 0
    scan: int = 0


class Run(Struct, frozen=True):
    """One verification run. Pass `since=run` to `due` so that it goes on where it stood."""

    id: int
    started: datetime
    resumed: bool = False


class Key(Struct, frozen=True):
    """One credential and what is known of it now. Nothing here is secret.

    `last` is the newest verdict; `known` the newest that was not undecided (the same one, mostly). `findings` counts
    all places, `present` those not removed. `dead_since` is the first Dead of the row that `known` belongs to,
    `confirmed_at` when it was first confirmed. `attempts` counts verdicts of the same sort in a row. `due` is when the
    next one is wanted.
    """

    id: CredentialID
    short: str
    provider: KindID
    candidates: tuple[KindID, ...]
    hint: str
    incomplete: bool
    first_seen: datetime
    last_seen: datetime
    findings: int
    present: int
    kept: Kept
    owner: Ownership
    canary: Canary
    last: Verdict | None
    last_at: datetime | None
    known: Live | Dead | None
    confirmed: bool
    first_live: datetime | None
    last_live: datetime | None
    dead_since: datetime | None
    confirmed_at: datetime | None
    due: datetime
    attempts: int

    @property
    def removed_from_source(self) -> bool:
        """Say whether every place where it was found is gone (it may still be live: removed, never revoked)."""
        return self.findings > 0 and self.present == 0


class Order(StrEnum):
    """In which order `keys` come: as first seen, newest first, or the most harmful first."""

    SEEN = "seen"
    NEWEST = "newest"
    RISK = "risk"


class State(StrEnum):
    """What a list can be narrowed to. Live and dead go by the newest verdict that was not undecided."""

    LIVE = "live"
    DEAD = "dead"
    UNDECIDED = "undecided"
    UNCHECKED = "unchecked"


class Select(Struct, frozen=True):
    """Which keys are wanted; what is left out does not narrow.

    `scan` keeps the keys that this or a later scan saw. With `ids`, `limit` and `offset` are not used.
    """

    states: frozenset[State] = frozenset()
    provider: str | None = None
    ids: tuple[CredentialID, ...] | None = None
    removed: bool | None = None
    confirmed: bool | None = None
    owner: Ownership | None = None
    incomplete: bool | None = None
    scan: int | None = None
    order: Order = Order.SEEN
    limit: int | None = None
    offset: int = 0


class Sort(Struct, frozen=True):
    """How many keys are alike. `known` is the newest answer that was not undecided, `last` the newest of all."""

    known: str | None
    last: str | None
    confirmed: bool
    removed: bool
    keys: int


class Found(Struct, frozen=True):
    """One place of one credential, as one scanner saw it. `removed_at`: a later complete scan no longer had it."""

    id: int
    place: Place
    scanner: str
    rule: str
    claimed: Claimed
    seen_at: datetime | None
    first_seen: datetime
    last_seen: datetime
    removed_at: datetime | None


class Status(Struct, frozen=True):
    """The totals, over keys unless they say findings.

    `removed_never_revoked`: live, and every place gone. `live_unsure`: live when last answered, undecided since.
    `dead` counts confirmed deaths, `dead_unconfirmed` the others. `undecided`: asked, never answered.
    """

    keys: int
    findings: int
    present: int
    removed_never_revoked: int
    live: int
    live_restricted: int
    live_unsure: int
    dead: int
    dead_unconfirmed: int
    undecided: int
    unchecked: int
    foreign: int
    canaries: int
    secrets: int
    events: int


class Seen(Struct, frozen=True, tag="seen"):
    """A scan found the key in `places` places that were new."""

    at: datetime
    scanner: str
    file: str
    places: int


class Gone(Struct, frozen=True, tag="gone"):
    """A complete scan no longer had `places` of its places."""

    at: datetime
    places: int


class Told(Struct, frozen=True, tag="told"):
    """A verdict."""

    at: datetime
    verdict: Verdict
    run: int
    turn: Turn | None


class Noted(Struct, frozen=True, tag="noted"):
    """Anything else: marked, purged, revealed, alarm, note."""

    at: datetime
    kind: str
    text: str
    detail: dict[str, str]


Story: TypeAlias = Seen | Gone | Told | Noted


class Turned(Struct, frozen=True):
    """A key that died, revived or was first found live or dead."""

    id: CredentialID
    short: str
    at: datetime
    turn: Turn


class Head(Struct, frozen=True):
    """The newest event, signed: a copy kept elsewhere proves everything up to it. Bytes are hex."""

    ledger: str
    seq: int
    at: int
    hash: str
    signature: str
    public_key: str


class Problem(Struct, frozen=True):
    """One thing that does not add up: where (`table`, `row`), which `event` says otherwise, `what` in one sentence."""

    table: str
    row: int | None
    event: int | None
    what: str


class Checked(Struct, frozen=True):
    """What a check went through. `problems` stops at a hundred; `ok` means none."""

    events: int
    rows: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Say whether everything added up."""
        return not self.problems


class Purged(Struct, frozen=True):
    """How many sealed secrets were deleted; `flushed`: their bytes have left the write-ahead log too."""

    keys: int
    flushed: bool


class Schedule(Struct, frozen=True):
    """When the next verdict is wanted. The one place for these figures."""

    confirm_after: timedelta = timedelta(seconds=60)
    unconfirmed_again: tuple[timedelta, ...] = (timedelta(hours=1), timedelta(hours=6))
    confirmed_again: tuple[timedelta, ...] = (timedelta(days=7), timedelta(days=30))
    retry_first: timedelta = timedelta(minutes=5)
    retry_most: timedelta = timedelta(days=1)
    refused: timedelta = timedelta(days=1)
    hopeless: timedelta = timedelta(days=7)
