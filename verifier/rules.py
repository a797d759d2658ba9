"""Reads a provider's reply by the rules of its spec. Pure: no clock, no network, no state.

What no rule matches is undecided, with the reason that the reply itself gives away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

import msgspec
from msgspec import Struct

from verifier.model import Arrival, Doubt, How, Identity, Privilege
from verifier.spec import IdentitySpec, Kind, PrivilegeSpec, Rule, many

if TYPE_CHECKING:
    from verifier.exchange import Reply

Path: TypeAlias = tuple[str | int, ...]
ANY = "*"
_MASKED = re.compile(r"([A-Za-z0-9_\-]{0,24})(?:\*{2,}|[•…]{1,}|\.{3,}|x{6,}|X{6,})([A-Za-z0-9_\-]{2,24})?")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\*)\]")
_MISSING = object()


class Ruling(Struct, frozen=True):
    """What a reply means, before evidence is attached. `note` is the rule's note or the built-in reason."""

    verdict: str
    note: str
    how: How | None = None
    why: Doubt | None = None
    arrival: Arrival = Arrival.ASSUMED
    identity: Identity | None = None


class Judge:
    """The rules of one kind, compiled once."""

    __slots__ = ("_kind", "_rules")

    def __init__(self, kind: Kind) -> None:
        """Compile the rules of `kind`."""
        self._kind = kind
        self._rules = tuple((_compile(rule), rule) for rule in kind.rule)

    def __call__(self, reply: Reply, secret: str = "") -> Ruling:
        """Return what `reply` says of a key: the first rule that matches, else a built-in Undecided.

        `secret` is compared with any masked echo that the spec names: a reply about another key decides nothing.
        """
        view = _View(reply)
        for test, rule in self._rules:
            if test(view):
                if rule.verdict != "undecided" and _other_key(self._kind, view, secret):
                    return Ruling("undecided", "the reply names another key than the one sent", why=Doubt.AMBIGUOUS)
                return _ruling(self._kind, rule, view)
        return _unlisted(view)

    def which(self, reply: Reply) -> int | None:
        """Return the index of the rule that decides `reply`, `None` when none does (for the contract tests)."""
        view = _View(reply)
        return next((i for i, (test, _) in enumerate(self._rules) if test(view)), None)


def _ruling(kind: Kind, rule: Rule, view: _View) -> Ruling:
    note = rule.note or rule.verdict
    match rule.verdict:
        case "live" | "restricted":
            arrival = rule.arrival or Arrival.PROVEN
            return Ruling(rule.verdict, note, arrival=arrival, identity=identity(kind.identity, view))
        case "dead":
            return Ruling("dead", note, how=rule.how or How.REJECTED, arrival=rule.arrival or Arrival.ASSUMED)
        case "undecided":
            return Ruling("undecided", note, why=rule.why, arrival=rule.arrival or Arrival.ASSUMED)
        case _:
            assert_never(rule.verdict)


def _unlisted(view: _View) -> Ruling:
    """Name the reason that a reply nobody listed gives away by itself (design rules 1, 2 and 6)."""
    status = view.reply.status
    if status == 429:  # the HTTP statuses are their own names
        return Ruling("undecided", "too many requests", why=Doubt.THROTTLED)
    if status in {408, 425} or status >= 500:
        return Ruling("undecided", f"the provider answered {status}", why=Doubt.UNREACHABLE)
    if 300 <= status < 400:
        return Ruling("undecided", "a redirect, which is never followed", why=Doubt.BLOCKED)
    if status in {203, 407, 511}:
        return Ruling("undecided", f"a proxy answered ({status})", why=Doubt.BLOCKED)
    if view.type in {"html", "text", "xml", "other"} and not view.is_json():
        return Ruling("undecided", f"a page of type {view.type}, not the provider's reply", why=Doubt.BLOCKED)
    return Ruling("undecided", f"a reply ({status}) that no rule lists", why=Doubt.AMBIGUOUS)


class _View:
    """A reply read lazily: type once, JSON once."""

    __slots__ = ("_json", "_text", "mime", "reply", "type")

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.mime = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.type = _type(self.mime, reply.body)
        self._json: Any = _MISSING
        self._text: str | None = None

    def json(self) -> Any:  # noqa: ANN401  # any JSON value
        """Return the parsed body, `_MISSING`-like sentinel when it is no complete JSON."""
        if self._json is _MISSING:
            self._json = _NOT_JSON
            if not self.reply.truncated and self.reply.body:
                try:
                    self._json = msgspec.json.decode(self.reply.body)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._json = _NOT_JSON
        return self._json

    def is_json(self) -> bool:
        """Whether the body is complete JSON, whatever its content type."""
        return self.json() is not _NOT_JSON

    def text(self) -> str:
        """Return the body as lower-case text."""
        if self._text is None:
            self._text = self.reply.body.decode("utf-8", "replace").lower()
        return self._text


_NOT_JSON = object()


def _type(mime: str, body: bytes) -> str:
    if not body.strip():
        return "empty"
    if "json" in mime:
        return "json"
    if "html" in mime:
        return "html"
    if "xml" in mime:
        return "xml"
    return "text" if mime.startswith("text/") or not mime else "other"


Test: TypeAlias = Callable[[_View], bool]


def _compile(rule: Rule) -> Test:
    """Turn a rule's conditions into one predicate, cheapest first."""
    statuses = frozenset(rule.statuses())
    tests = (*_outer_tests(rule), *_json_tests(rule))
    kind, mimes = rule.type, frozenset(m.lower() for m in rule.mime)

    def matches(view: _View) -> bool:
        if view.reply.status not in statuses:
            return False
        if kind not in {"any", view.type} and view.mime not in mimes:
            return False
        if kind == "json" and not view.is_json():
            return False
        return all(test(view) for test in tests)

    return matches


def _outer_tests(rule: Rule) -> Iterator[Test]:
    if rule.header:
        wanted = [(k.lower(), tuple(w.lower() for w in many(v))) for k, v in rule.header.items()]
        yield lambda v: all(any(w in v.reply.headers.get(k, "").lower() for w in ws) for k, ws in wanted)
    if rule.exact:
        whole = frozenset(w.strip().lower() for w in many(rule.exact))
        yield lambda v: v.text().strip() in whole
    if rule.text:
        words = tuple(w.lower() for w in many(rule.text))
        yield lambda v: any(w in v.text() for w in words)


def _json_tests(rule: Rule) -> Iterator[Test]:
    for path, value in rule.json.items():
        yield _equals(parse_path(path), many(value))
    for path, said in rule.words.items():
        yield _says(parse_path(path), tuple(w.lower() for w in many(said)))
    for path in rule.has:
        yield _has(parse_path(path))
    for path in rule.lacks:
        yield _lacks(_has(parse_path(path)))
    if rule.only:
        keys = frozenset(rule.only)
        yield lambda v: isinstance(v.json(), dict) and frozenset(v.json()) == keys


def _lacks(there: Test) -> Test:
    return lambda v: not there(v)


def _equals(path: Path, wanted: tuple[Any, ...]) -> Test:
    # JSON true is not 1: compare types as well.
    return lambda v: any(any(x == w and type(x) is type(w) for w in wanted) for x in find(v.json(), path))


def _says(path: Path, words: tuple[str, ...]) -> Test:
    return lambda v: any(isinstance(x, str) and any(w in x.lower() for w in words) for x in find(v.json(), path))


def _has(path: Path) -> Test:
    return lambda v: any(x is not None and x is not False and x not in ("", [], {}) for x in find(v.json(), path))


@lru_cache(maxsize=4096)
def parse_path(path: str) -> Path:
    """Read `error.code`, `errors[*].message`, `[0].id` or `$`; anything else is a `ValueError`."""
    if path == "$":
        return ()
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        m = _STEP.match(path, at)
        if m is None:
            raise ValueError(f"`{path}` is no path: write a.b, a[0].b, a[*].b or $")
        name, index = m.groups()
        steps.append(name if name is not None else ANY if index == ANY else int(index))
        at = m.end()
    return tuple(steps)


def find(value: Any, path: Path) -> Iterator[Any]:  # noqa: ANN401  # any JSON value
    """Yield every value at `path` inside a JSON value."""
    if not path:
        if value is not _NOT_JSON:
            yield value
        return
    step, rest = path[0], path[1:]
    if step == ANY:
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        for item in inner:
            yield from find(item, rest)
    elif isinstance(step, int):
        if isinstance(value, list) and step < len(value):
            yield from find(value[step], rest)
    elif isinstance(value, dict) and step in value:
        yield from find(value[step], rest)


def _other_key(kind: Kind, view: _View, secret: str) -> bool:
    """Whether the provider repeats, masked, a key that cannot be `secret` (design rule 12)."""
    if isinstance(kind.probe, str) or not kind.probe.echo or not secret or not view.is_json():
        return False
    for path in kind.probe.echo:
        for said in find(view.json(), parse_path(path)):
            for m in _MASKED.finditer(said if isinstance(said, str) else ""):
                head, tail = m.group(1) or "", m.group(2) or ""
                if (tail and not secret.endswith(tail)) or (head and not secret.startswith(head)):
                    return True
    return False


# ── identity ───────────────────────────────────────────────────────────────────────────────────────────


def identity(spec: IdentitySpec, view: _View) -> Identity | None:
    """Read whom the key speaks for from a live reply; `None` when the spec names nothing or nothing is there."""
    headers, body = view.reply.headers, view.json()
    scopes = tuple(_values(spec.scopes, headers, body))
    roles = [*scopes, *_values(spec.privilege.path, headers, body)] if spec.privilege else []
    found = Identity(
        principal=_first(spec.principal, headers, body),
        account=_first(spec.account, headers, body),
        organisation=_first(spec.organisation, headers, body),
        scopes=scopes,
        expires=_first(spec.expires, headers, body),
        plan=_first(spec.plan, headers, body),
        privilege=privilege(spec.privilege, roles) if spec.privilege else Privilege.UNKNOWN,
    )
    return None if found == Identity() else found


def privilege(spec: PrivilegeSpec, roles: list[str]) -> Privilege:
    """Return the strongest reading of `roles`; UNKNOWN when none is listed."""
    for level, patterns in ((Privilege.ADMIN, spec.admin), (Privilege.WRITE, spec.write), (Privilege.READ, spec.read)):
        if any(fnmatchcase(role, pattern) for role in roles for pattern in patterns):
            return level
    return Privilege.UNKNOWN


def _first(places: str | tuple[str, ...], headers: Mapping[str, str], body: Any) -> str | None:  # noqa: ANN401  # a JSON document of anything
    return next(iter(_values(places, headers, body)), None)


def _values(places: str | tuple[str, ...], headers: Mapping[str, str], body: Any) -> Iterator[str]:  # noqa: ANN401  # a JSON document of anything
    for place in many(places):
        if place.startswith("header:"):
            value = headers.get(place.removeprefix("header:").lower(), "")
            yield from (v.strip() for v in value.split(",") if v.strip())
            continue
        for x in find(body, parse_path(place)):
            for item in x if isinstance(x, list) else (x,):
                if isinstance(item, str | int | float) and not isinstance(item, bool) and item != "":
                    yield str(item)[:200]
                elif isinstance(item, bool):
                    yield "true" if item else "false"
