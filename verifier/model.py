"""The nouns: what was found, what it opens, and whether it still does.

Everything here is frozen. A choice of one among several is a sealed union matched with
`assert_never`; where a third answer exists there is an enum, not a boolean.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType, TypeAlias

from msgspec import Struct

from verifier.secret import Secret

CredentialID = NewType("CredentialID", str)
"""`vendor-` + 32 hex digits: keyed hash of provider, host and all parts. Safe to print, store and share."""

KindID = NewType("KindID", str)
"""Id of one kind of key, e.g. `github_fg_pat`. `GENERIC` where none could be told."""

GENERIC = KindID("generic")

Parts: TypeAlias = Mapping[str, Secret]
"""Part name to value. Names: secret id token username password host port database account tenant region
(and, rarely, one that a provider's spec declares). Even public halves are wrapped: they arrive beside secrets."""


# ── where ──────────────────────────────────────────────────────────────────────────────────────────────


class SourceKind(StrEnum):
    """What sort of thing was scanned."""

    GIT = "git"
    DOCKER = "docker"
    FILESYSTEM = "filesystem"
    BUCKET = "bucket"
    CHAT = "chat"
    TICKET = "ticket"
    CI = "ci"
    PACKAGE = "package"
    OTHER = "other"


class Visibility(StrEnum):
    """Whether strangers can read the place."""

    PUBLIC = "public"
    PRIVATE = "private"
    UNKNOWN = "unknown"


class LayerFate(StrEnum):
    """Whether the file is still visible in the finished image or a later layer removed it (it still leaks)."""

    PRESENT = "present"
    REMOVED_LATER = "removed-later"
    UNKNOWN = "unknown"


class Image(Struct, frozen=True, gc=False):
    """A container image. `digest` and `layer` are `sha256:…`; `layer` is the diff id or layer digest given."""

    name: str
    registry: str | None = None
    namespace: str | None = None
    tag: str | None = None
    digest: str | None = None
    layer: str | None = None
    fate: LayerFate = LayerFate.UNKNOWN

    @property
    def reference(self) -> str:
        """`registry/namespace/name:tag`, as far as known."""
        path = "/".join(p for p in (self.registry, self.namespace, self.name) if p)
        return f"{path}:{self.tag}" if self.tag else f"{path}@{self.digest}" if self.digest else path


class Place(Struct, frozen=True, gc=False):
    """Where a credential was seen. `line` and `column` count from 1; `revision` is a commit or object version."""

    source: SourceKind
    repository: str | None = None
    image: Image | None = None
    path: str | None = None
    line: int | None = None
    column: int | None = None
    revision: str | None = None
    author: str | None = None
    visibility: Visibility = Visibility.UNKNOWN
    url: str | None = None

    @property
    def origin(self) -> str | None:
        """Name of the scanned thing (`docker:acme/api:1.2`, `git:https://…`), None for loose files."""
        if self.image is not None:
            return f"{self.source}:{self.image.reference}"
        return f"{self.source}:{self.repository}" if self.repository else None


# ── what a scanner says ────────────────────────────────────────────────────────────────────────────────


class Claimed(StrEnum):
    """What the scanner itself believed. Shown, never trusted."""

    LIVE = "live"
    DEAD = "dead"
    UNKNOWN = "unknown"
    UNCHECKED = "unchecked"


class Masked(Struct, frozen=True):
    """The report holds only a mask, such as `AKIA****WXYZ` or `REDACTED`.

    Runs of `*`, `•`, `…`, `...` stand for what is hidden.
    """

    text: str


class Hashed(Struct, frozen=True):
    """The report holds only a hash of the secret: `algorithm` is `sha1`, `sha256`, …; `hex` lower case."""

    algorithm: str
    hex: str


class Absent(Struct, frozen=True):
    """The report holds nothing of the secret."""


Hidden: TypeAlias = Masked | Hashed | Absent
"""What a redacting scanner left us. The finding is kept as incomplete; `--source` can read the secret back."""


class Claim(Struct, frozen=True):
    """One row of a scanner's report, already valid, not yet classified.

    `scanner` is the scanner's id as in `aliases.tsv` (gitleaks, trufflehog, kingfisher, …); `rule` its own rule or
    detector name exactly as reported; `value` the secret; `companions` other captures it reported, by our part
    name where known, else by the scanner's own name; `row` the line (or the ordinal, in an array) in the report.
    """

    scanner: str
    rule: str
    value: Secret | Hidden
    place: Place
    row: int
    companions: Parts = {}
    provider: str | None = None
    claimed: Claimed = Claimed.UNCHECKED
    seen_at: datetime | None = None


class Skipped(Struct, frozen=True):
    """One row that could not be read.

    What is wrong and what to do, in one sentence each. Never quotes the row's content.
    """

    row: int
    field: str | None
    reason: str
    remedy: str


# ── what we make of it ─────────────────────────────────────────────────────────────────────────────────


class Doubt(StrEnum):
    """Why a verdict could not be given."""

    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    BLOCKED = "blocked"
    AMBIGUOUS = "ambiguous"
    UNSUPPORTED = "unsupported"
    INCOMPLETE = "incomplete"
    REFUSED = "refused"


class How(StrEnum):
    """In which way a key is dead, as far as the provider says."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    DISABLED = "disabled"
    DELETED = "deleted"
    REJECTED = "rejected"


class Finding(Struct, frozen=True):
    """A claim made sense of: which kind of key, which parts, where.

    `provider` is a kind id or `GENERIC`; `candidates` lists the kinds it may be when that stays ambiguous;
    `hidden` is set when the report did not hold the secret (the finding is then incomplete).
    """

    provider: KindID
    parts: Parts
    place: Place
    scanner: str
    rule: str
    candidates: tuple[KindID, ...] = ()
    hidden: Hidden | None = None
    claimed: Claimed = Claimed.UNCHECKED
    seen_at: datetime | None = None


class Credential(Struct, frozen=True):
    """The distinct credential behind one or many findings."""

    id: CredentialID
    provider: KindID
    parts: Parts
    candidates: tuple[KindID, ...] = ()


class Privilege(StrEnum):
    """How much harm the key can do, for sorting the incident list."""

    ADMIN = "admin"
    WRITE = "write"
    READ = "read"
    UNKNOWN = "unknown"


class Identity(Struct, frozen=True):
    """Whom a live credential speaks for and what it may do: what a responder asks next."""

    principal: str | None = None
    account: str | None = None
    organisation: str | None = None
    scopes: tuple[str, ...] = ()
    expires: str | None = None
    plan: str | None = None
    privilege: Privilege = Privilege.UNKNOWN


class Arrival(StrEnum):
    """Whether the reply proves that the credential reached the provider (design rule 10)."""

    PROVEN = "proven"
    ASSUMED = "assumed"


class Evidence(Struct, frozen=True):
    """One exchange that supports a verdict, kept without the secret.

    `request` is `METHOD url` without secret; `excerpt` at most 300 characters, redacted; `digest` the SHA-256 hex of
    the raw body; `spec` is `kind@digest12`; `rule` the note of the rule that decided, or the built-in reason;
    `route` how it left (`direct`, `proxy`, `ca`, `base`); `carrier` where the secret travelled (header name,
    `url`, `body`, `wire`, `offline`).
    """

    request: str
    status: int | None
    excerpt: str
    digest: str
    spec: str
    at: datetime
    host: str
    rule: str = ""
    arrival: Arrival = Arrival.ASSUMED
    route: str = "direct"
    carrier: str = ""


class Live(Struct, frozen=True, tag="live"):
    """The provider accepted the credential. `restricted`: it authenticated, but may not do this, or not pay for it."""

    evidence: Evidence
    identity: Identity | None = None
    restricted: bool = False


class Dead(Struct, frozen=True, tag="dead"):
    """The provider said, in words we know for this kind of key, that the credential is finished."""

    evidence: Evidence
    how: How = How.REJECTED
    confirmed: bool = False


class Undecided(Struct, frozen=True, tag="undecided"):
    """Nothing was learnt. Never counts as dead, never cached. `retry_after` counts from the moment of the reply."""

    why: Doubt
    evidence: Evidence | None = None
    retry_after: timedelta | None = None
    note: str = ""


Verdict: TypeAlias = Live | Dead | Undecided
