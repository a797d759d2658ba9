"""What an evidence file holds. Published as `docs/schemas/run-evidence-v1.schema.json`, kept by a test.

Times are UTC; spans are whole milliseconds, so that no number of the file is a fraction. Fields are only ever added
within a version; a renamed or removed one makes `v` 2. Nothing here is secret: names, references and times.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct

from lapse.ledger.model import Head

VERSION: Literal[1] = 1
KIND: Literal["lapse-run-evidence"] = "lapse-run-evidence"

Cell: TypeAlias = int | str | None
"""One column of a row of the ledger, as it was hashed."""


class RunFacts(Struct, frozen=True):
    """Which rotation this is. `outcome` is null while it is under way.

    `playbook_digest` is that of the playbook's file, `plan_digest` the SHA-256 of the plan as the journal keeps it.
    """

    run: str
    playbook: str
    playbook_digest: str
    plan_digest: str
    title: str
    mode: str
    started_by: str
    started: datetime
    status: str
    outcome: str | None
    ended: datetime | None
    also_dies: str


class Subject(Struct, frozen=True):
    """The leaked key, and whom it spoke for by its provider's word. `id` is a keyed hash: it tells no secret.

    `state` is the newest answer that was not undecided when the file was made, null if there was none; `proven`: that
    answer is a confirmed death.
    """

    key: str
    id: str
    provider: str
    owner: str
    principal: str | None
    account: str | None
    organisation: str | None
    scopes: tuple[str, ...]
    privilege: str | None
    state: Literal["live", "dead"] | None
    proven: bool
    asked: datetime | None


class Exposure(Struct, frozen=True):
    """Since when it lay open. `earliest` is the oldest date that any report gives for any place (a commit, a layer)."""

    earliest: datetime | None
    earliest_place: str | None
    first_seen: datetime
    first_scanner: str | None
    first_place: str | None
    places: int
    places_left: int
    public_places: int


class Moments(Struct, frozen=True):
    """When what happened; null: it did not, or was taken back.

    `exposed` is the earliest known date. `contained` is when the old key was first stopped at its issuer for good, by
    whatever step (a stop that was lifted again for the new key's sake is none). `new_way` is when what makes the key
    unnecessary was seen to work. `last_acceptance` is the last time that anybody here saw the old key accepted before
    `first_stable_refusal`, from which on it was only ever refused. `proven` is when the proof was complete.
    `accepted_since`: the old key was accepted again after its stable refusal began, which no proof survives.
    `sessions_until`: what the old key opened may have lived on until then.
    """

    exposed: datetime
    first_seen: datetime
    first_live: datetime | None
    started: datetime
    contained: datetime | None
    minted: datetime | None
    stored: datetime | None
    verified: datetime | None
    deployed: datetime | None
    new_way: datetime | None
    disabled: datetime | None
    deleted: datetime | None
    last_acceptance: datetime | None
    first_stable_refusal: datetime | None
    proven: datetime | None
    accepted_since: datetime | None
    sessions_until: datetime | None
    ended: datetime | None


class Spans(Struct, frozen=True):
    """How long it took, in milliseconds; null where one end is missing."""

    exposed_to_live_ms: int | None
    live_to_contained_ms: int | None
    started_to_contained_ms: int | None
    started_to_proven_ms: int | None
    exposed_to_proven_ms: int | None


class Proof(Struct, frozen=True):
    """How the old key's death was proven: `wanted` refusals in a row over `window_ms` were asked for.

    `in_a_row` refusals were seen over `held_ms`, of `looks` looks altogether. `how` is the provider's word
    (revoked, deleted, …); `word` the step's own sentence, null while there is no proof. `by` says whose word the proof
    is: refusals that were seen, or, where nobody can ask as the key, its issuer's alone; null while there is none.
    """

    wanted: int
    window_ms: int
    looks: int
    accepted: int
    refused: int
    in_a_row: int
    held_ms: int
    how: str | None
    word: str | None
    by: Literal["refusals", "issuer"] | None


class Approval(Struct, frozen=True):
    """Who agreed to what, when, until when; and when it was taken back."""

    step: str
    effect: str
    title: str
    who: str
    at: datetime
    until: datetime
    withdrawn: datetime | None


class StepEvidence(Struct, frozen=True):
    """One step of the plan and what came of it. `output` are references; `unsure` counts tries without an answer."""

    name: str
    slot: str
    action: str
    title: str
    effect: str
    undo: str
    approvals_needed: int
    state: Literal["to come", "under way", "waiting", "done", "failed", "unsure", "taken back"]
    says: str
    intended: datetime | None
    done: datetime | None
    undone: datetime | None
    unsure: int
    output: Mapping[str, str]


class FactFound(Struct, frozen=True):
    """One line of what was found out before the first change."""

    about: str
    text: str


class Noted(Struct, frozen=True):
    """One entry of the run's journal: `seq` is its row in the ledger, `step` is empty for the run itself."""

    seq: int
    at: datetime
    step: str
    what: str
    text: str


class RunEvidence(Struct, frozen=True):
    """All that is known of one rotation. `next_keys`: what the leaked key could read, to be rotated next."""

    run: RunFacts
    key: Subject
    exposure: Exposure
    moments: Moments
    spans: Spans
    proof: Proof | None
    approvals: tuple[Approval, ...]
    steps: tuple[StepEvidence, ...]
    found: tuple[FactFound, ...]
    next_keys: tuple[FactFound, ...]
    journal: tuple[Noted, ...]


class Rows(Struct, frozen=True):
    """Rows that an event brought: their encodings (MessagePack of the array), one after another, have its digest."""

    table: str
    rows: tuple[tuple[Cell, ...], ...]


class LedgerEvent(Struct, frozen=True):
    """One event of the ledger's chain, as it is hashed (`lapse.ledger.chain`).

    `at` is in microseconds since 1970; `payload` is its text, `refs` base64, `prev` and `hash` hex. `brought` is null
    where it brought no rows, or not this key's alone.
    """

    seq: int
    at: int
    kind: str
    payload: str
    refs: str
    prev: str
    hash: str
    brought: Rows | None = None


class LedgerSlice(Struct, frozen=True):
    """The events that speak of this run and key alone, in order, and the signed head at the moment of reading.

    Events about other keys are left out: `lapse ledger check --head` on the ledger itself proves the way from the last
    event here to the head.
    """

    ledger: str
    events: tuple[LedgerEvent, ...]
    head: Head


class Body(Struct, frozen=True):
    """What is signed. `digests` has the SHA-256 of each part, so that a check can say which one was altered."""

    evidence: RunEvidence
    ledger: LedgerSlice
    digests: Mapping[str, str]
    made: datetime
    made_by: str
    kind: Literal["lapse-run-evidence"] = KIND
    v: Literal[1] = VERSION


class Signature(Struct, frozen=True):
    """Ed25519 over `lapse evidence 1`, a line feed, and the body in canonical form.

    Canonical: keys sorted, no blanks, UTF-8, as Python's `json.dumps(…, sort_keys=True, separators=(",", ":"),
    ensure_ascii=False)` writes it. `fingerprint` is the SHA-256 (hex) of the public key in DER; `value` is base64.
    """

    algorithm: Literal["Ed25519"]
    public_key: str
    fingerprint: str
    value: str


class EvidenceFile(Struct, frozen=True):
    """A whole file: one line in canonical form."""

    body: Body
    signature: Signature
