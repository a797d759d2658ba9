"""What a provider is, as data: kinds of key, their shapes, one read-only probe, rules in order, examples.

A spec is `verifier/providers/VENDOR.toml`; this module is its schema and every check that needs no network.
`verifier.specfile` reads the files and names file and line of a mistake; `verifier.rules` applies the rules.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, field

from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How

FIELD = re.compile(r"\{([a-z_]+)\}")
"""A template field: `{secret}`, `{id}`, `{host}`, or a named group of the shape that matched."""

GENERIC_WORDS = frozenset(
    {
        "unauthorized", "unauthenticated", "forbidden", "access denied", "not authorized", "denied", "invalid", "error",
        "bad request", "authentication failed", "authentication required", "not found", "permission denied",
        "authorization required", "not authenticated", "login required", "unauthorised", "401", "403", "expired",
        # the error codes of RFC 6749 and RFC 6750: every OAuth server and many a gateway says them
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "access_denied", "invalid_token", "insufficient_scope",
    }
)  # fmt: skip
"""Words that any gateway says: neither death nor life rests on one alone; it takes a field, a header, more words."""

Scalar: TypeAlias = str | int | bool
Url: TypeAlias = Annotated[str, Meta(pattern=r"^https://")]
Slug: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$")]


class Confidence(StrEnum):
    """How well a rule is known. `unconfirmed` rules never say dead (design rule 15)."""

    DOCUMENTED = "documented"
    OBSERVED = "observed"
    UNCONFIRMED = "unconfirmed"


class ShapeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One shape of one part. `pattern` must match the whole part; its named groups become template fields.

    `context = "alone"` when the shape by itself names this kind; `"rule"` when the scanner's rule or a companion must.
    `prefix` lists literal beginnings for fast look-up (may be empty); `checksum` names one in `verifier.offline`.
    """

    pattern: str
    part: str = "secret"
    prefix: tuple[str, ...] = ()
    context: Literal["alone", "rule"] = "alone"
    checksum: str | None = None


class Probe(Struct, frozen=True, forbid_unknown_fields=True):
    """The one read-only call.

    `base` lists every host the key could belong to (`https://host`, fields allowed in the host): Dead needs all of
    them. With `instance` (a part name, usually `host`) a known part replaces the list; `self_hosted` says that without
    it nobody knows every host, so Dead becomes Undecided(incomplete). `path` may hold a query; values are
    percent-encoded. `bearer`, `basic` and `headers` are templates; `basic` is encoded to base64. `echo` lists JSON
    paths where the provider repeats a masked form of the key it judged. `reads` says why the call changes nothing.
    """

    base: tuple[str, ...]
    path: str
    reads: Annotated[str, Meta(min_length=12)]
    docs: Url
    method: Literal["GET", "HEAD", "POST"] = "GET"
    instance: str | None = None
    self_hosted: bool = False
    bearer: str | None = None
    basic: str | None = None
    headers: dict[str, str] = {}
    body: str | None = None
    content_type: str = "application/json"
    echo: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a probe that no key travels in, or whose parts contradict each other."""
        if not self.base:
            raise ValueError("base is empty: name at least one https host")
        for base in self.base:
            if not re.fullmatch(r"https://[a-z0-9{][a-z0-9{}_.:-]*", base):
                raise ValueError(f"base `{base}` is not https://host")
        if not self.path.startswith("/"):
            raise ValueError("path must begin with /")
        if self.body is not None and self.method != "POST":
            raise ValueError('body needs method = "POST"')
        if not any("{" in t for t in self.templates()):
            raise ValueError("no template holds a field such as {secret}: the key would never be sent")
        if any(h.lower() in {"host", "content-length"} for h in self.headers):
            raise ValueError("headers must not set Host or Content-Length")

    def templates(self) -> tuple[str, ...]:
        """Return every template, for finding fields."""
        return tuple(
            t for t in (self.path, self.bearer, self.basic, self.body, *self.headers.values(), *self.base) if t
        )

    def fields(self) -> frozenset[str]:
        """Return the names of all fields used."""
        return frozenset(n for t in self.templates() for n in FIELD.findall(t))

    @property
    def carrier(self) -> str:
        """Where the secret travels: a lower-case header name, `body` or `url`."""
        if self.bearer or self.basic:
            return "authorization"
        for name, value in self.headers.items():
            if FIELD.search(value):
                return name.lower()
        return "body" if self.body and FIELD.search(self.body) else "url"


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of judgement: all conditions given must hold; the first rule that matches decides.

    `status` any of; `type` the kind of body (by Content-Type; `mime` lists further content types accepted for it).
    `json` value at path equals (any of); `words` string at path contains (any of, ignoring case); `has` path is there
    and neither null, false nor empty; `lacks` it is not; `only` the object's keys are exactly these; `text` the body
    contains (any of, ignoring case; for text, html, xml); `exact` the stripped body is (any of); `header` a header
    contains
    (any of, ignoring case). Paths: `error.code`, `errors[0].message`, `errors[*].code` (any), `$` the root, `[0].id`.
    `arrival = "proven"` only when this reply differs from the provider's reply to *no* key (or to a lost header).
    """

    verdict: Literal["live", "restricted", "dead", "undecided"]
    status: int | tuple[int, ...]
    type: Literal["json", "text", "html", "xml", "empty", "any"] = "json"
    mime: tuple[str, ...] = ()
    json: dict[str, Scalar | tuple[Scalar, ...]] = {}
    words: dict[str, str | tuple[str, ...]] = {}
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    text: str | tuple[str, ...] = ()
    exact: str | tuple[str, ...] = ()
    header: dict[str, str | tuple[str, ...]] = {}
    how: How | None = None
    why: Doubt | None = None
    note: str = ""
    arrival: Arrival | None = None
    confidence: Confidence = Confidence.DOCUMENTED
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse rules that could let a stray reply speak for the provider (design rules 1, 2, 15)."""
        if (self.why is not None) != (self.verdict == "undecided"):
            raise ValueError("`why` belongs to undecided rules, and each of them needs one")
        if self.how is not None and self.verdict != "dead":
            raise ValueError("`how` belongs to dead rules")
        if self.verdict == "dead" and self.confidence is Confidence.UNCONFIRMED:
            raise ValueError("an unconfirmed rule may say live or undecided, never dead")
        if self.type != "json" and (self.json or self.words or self.has or self.lacks or self.only):
            raise ValueError('json, words, has, lacks and only need type = "json"')
        if self.text and self.type not in {"text", "html", "xml"}:
            raise ValueError('text needs type = "text", "html" or "xml"')
        if self.verdict == "dead" and not self._speaks():
            raise ValueError("dead needs the provider's own words: a status, or a word any gateway says, is not enough")
        if self.verdict in {"live", "restricted"} and not (
            self.json or self.words or self.has or self.text or self.exact or self.header
        ):
            raise ValueError("live needs the expected field of the provider's own reply, not a bare status")
        if self.verdict in {"live", "restricted"} and not (self.has or self._speaks()):
            raise ValueError(
                "live needs more than a word that any gateway says: a field of the provider's own, or its words"
            )

    def statuses(self) -> tuple[int, ...]:
        """Return the statuses as a tuple."""
        return (self.status,) if isinstance(self.status, int) else self.status

    def _speaks(self) -> bool:
        said = [*many(self.text), *many(self.exact)]
        for value in (*self.json.values(), *self.words.values(), *self.header.values()):
            said += [str(v) for v in many(value)]
        telling = [w for w in said if w.strip(" .!").lower() not in GENERIC_WORDS]
        conditions = (
            len(self.json) + len(self.words) + len(self.header) + bool(self.only) + bool(self.text) + bool(self.exact)
        )
        return bool(telling) or (bool(said) and conditions >= 2)  # generic words and one thing more


class PrivilegeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Which scopes or roles (shell patterns) mean admin, write or read.

    `path` adds a JSON path to look at besides scopes.
    """

    path: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


class IdentitySpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a live reply tells whom the key speaks for.

    Each is a JSON path, `header:NAME`, or several to try in order.
    """

    principal: str | tuple[str, ...] = ()
    account: str | tuple[str, ...] = ()
    organisation: str | tuple[str, ...] = ()
    scopes: str | tuple[str, ...] = ()
    expires: str | tuple[str, ...] = ()
    plan: str | tuple[str, ...] = ()
    privilege: PrivilegeSpec | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How gently to ask: requests a second, how many may come at once, how many may be under way."""

    rate: Annotated[float, Meta(gt=0)] = 5.0
    burst: Annotated[int, Meta(ge=1)] = 5
    concurrency: Annotated[int, Meta(ge=1)] = 8


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """A published reply (with its `source`) or a `constructed` one, and what it means.

    `{secret}` in the body is filled in.
    """

    status: int
    verdict: Literal["live", "restricted", "dead", "undecided"]
    body: str = ""
    headers: dict[str, str] = {}
    how: How | None = None
    why: Doubt | None = None
    source: str = ""
    constructed: bool = False

    def __post_init__(self) -> None:
        """Refuse an example that does not say where it comes from."""
        if bool(self.source) == self.constructed:
            raise ValueError("an example has a source link, or constructed = true, and not both")


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of key of one vendor.

    `parts` are required for a probe, `optional` may help. `probe = "none"` with a `reason` for what cannot be verified
    safely. `confirm_after` (seconds) and `propagation` (seconds) override the defaults where the provider is known to
    waver. `jwt` says that the token is a JWT whose `exp` ends it. `by_address`: a refusal may be about our address and
    not about the key, so Dead only for a key that was accepted from here before. `vendor`, `digest` and `module` are
    set by the loader. Where the same token may belong to an instance of one's own that is asked in another way,
    `instance_kind` names that kind, and `own_hosts` (shell patterns) the hosts that are the vendor's.
    """

    id: Slug
    title: str
    category: str
    docs: Url
    parts: tuple[str, ...] = ("secret",)
    optional: tuple[str, ...] = ()
    shape: tuple[ShapeSpec, ...] = ()
    probe: Probe | Literal["none", "code"] = "none"
    reason: str = ""
    rule: tuple[Rule, ...] = ()
    identity: IdentitySpec = IdentitySpec()
    limits: Limits = Limits()
    confirm_after: float | None = None
    propagation: float = 60.0
    jwt: bool = False
    by_address: bool = False
    instance_kind: str = ""
    own_hosts: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}
    console: str = ""
    example: tuple[Example, ...] = ()
    calls: tuple[Call, ...] = ()
    vendor: str = ""
    digest: str = ""
    module: str = ""

    def __post_init__(self) -> None:
        """Refuse a kind that has nothing to judge by."""
        if self.probe == "none":
            if not self.reason:
                raise ValueError('probe = "none" needs a reason')
            return
        if self.probe == "code":
            return
        if not any(r.verdict in {"live", "restricted"} for r in self.rule):
            raise ValueError('no rule can say live: such a kind should have probe = "none"')

    def manifest(self) -> tuple[Call, ...]:
        """Return every call a probe of this kind may make."""
        if isinstance(self.probe, str):
            return self.calls
        p = self.probe
        hosts = [b.removeprefix("https://") for b in p.base]
        if p.instance and "{" + p.instance + "}" not in hosts:
            hosts.append("{" + p.instance + "}")
        path = p.path.partition("?")[0]
        return tuple(Call(self.id, p.method, "https", h, path, p.reads, p.docs) for h in hosts)


class Vendor(Struct, frozen=True, forbid_unknown_fields=True):
    """One file: a vendor with the kinds of key it issues."""

    title: str
    docs: Url
    kind: tuple[Kind, ...] = field(default=())


def many(value: Any) -> tuple[Any, ...]:  # noqa: ANN401  # a scalar or a tuple of scalars, as TOML wrote it
    """Return `value` as a tuple, a scalar as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)
