"""Makes a finding of a claim: which kind of key it is and which part is which.

The key's own shape speaks first, then the scanner's rule, then companions. Where the shape fits several kinds, the
rule chooses among them; where the rule says nothing, it stays ambiguous: a key shown to the wrong vendor has leaked
once more.

A finding that stays `GENERIC` with `candidates` is ambiguous between them; without candidates it belongs to no
product we can ask.
"""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, assert_never

from msgspec.structs import replace

from verifier.classify import credfiles, dialects, split
from verifier.classify.aliases import UNKNOWN, Alias, Aliases, Says
from verifier.classify.index import ShapeIndex
from verifier.classify.names import PARTS, part_of
from verifier.classify.parts import AWS, Namer
from verifier.model import GENERIC, Absent, Finding, Hashed, KindID, Masked
from verifier.offline.checksums import fits as checksum_fits
from verifier.offline.jwt import payload
from verifier.secret import Secret
from verifier.shapes import Needs, Shape, merge, shipped_needs, shipped_shapes, spec_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from verifier.model import Claim
    from verifier.spec import Kind

MAX_RULES = 10_000
"""Most distinct unknown rules that are counted by name; a report could make up any number of them."""

_TOKEN = re.compile(r"[^\s\"'`=,;<>()\[\]{}|]{12,}")
_MASK = re.compile(r"[*•…]|\.\.\.|\[?REDACTED|X{4}")
_MAX_TOKENS = 32
_SHORTEST_NAME = 3
_RECENT = 1024
_JWT = "jwt"
_TLS_KEY, _SSH_KEY = "private_key_tls", "ssh_key"
_PRIVATE_KEYS = frozenset({_TLS_KEY, _SSH_KEY})
_LOOSE = frozenset({"basic_auth_url", "npm", "ghcr_generic_registry"})
"""Kinds that any token may be given to as a password: where its own shape speaks, that goes first."""
_SPECIFIC = frozenset({Says.KIND, Says.CHOICE})


_Choice: TypeAlias = tuple[KindID, str, str, tuple[KindID, ...]]
"""What a value was taken for: kind, part, value (another than the claim's if it stood inside that), candidates."""


class _Told(NamedTuple):
    """What scanner, rule and provider say together, worked out once, and what to count each time."""

    alias: Alias
    forced: bool
    counts: tuple[tuple[Counter[tuple[str, str]], str], ...] = ()


class Classifier:
    """Classifies claims one by one. Counts on the way: `unknown_rules` and `unsupported_rules` by (scanner, rule)."""

    def __init__(
        self,
        shapes: Iterable[Shape] | None = None,
        needs: Mapping[str, Needs] | None = None,
        aliases: Aliases | None = None,
        vendors: Mapping[str, str] | None = None,
    ) -> None:
        """Take shapes, needed parts, rule names and vendors of kinds; the shipped ones where none are given."""
        self.index = ShapeIndex(shipped_shapes() if shapes is None else shapes)
        self.needs = shipped_needs() if needs is None else needs
        self.aliases = Aliases() if aliases is None else aliases
        self.unknown_rules: Counter[tuple[str, str]] = Counter()
        self.unsupported_rules: Counter[tuple[str, str]] = Counter()
        self._namer = Namer(self.index, self.needs, self.aliases)
        self._allowed = self._namer.allowed
        self._vendors: dict[str, list[str]] = {}
        for kind in self.needs:
            vendor = (vendors or {}).get(kind) or kind.partition("_")[0]
            self._vendors.setdefault(vendor, []).append(kind)
        self._told: dict[tuple[str, str, str | None], _Told] = {}
        self._recent: dict[
            tuple[str, str, str | None, str], tuple[KindID, Mapping[str, Secret], tuple[KindID, ...]]
        ] = {}
        self._homes: dict[str, tuple[KindID, tuple[str, ...]]] = {}

    @classmethod
    def of(cls, kinds: Iterable[Kind]) -> Classifier:
        """Return a classifier for the kinds of a catalogue; the shipped tables serve the kinds it lacks."""
        kinds = tuple(kinds)
        extra = [(s, r, k.id) for k in kinds for s, rules in k.aliases.items() for r in rules]
        needs = {**shipped_needs(), **{k.id: Needs(k.parts, k.optional) for k in kinds}}
        shapes = merge(shipped_shapes(), spec_shapes(kinds))
        made = cls(shapes, needs, Aliases(extra), {k.id: k.vendor for k in kinds if k.vendor})
        made._homes = {k.id: (KindID(k.instance_kind), k.own_hosts) for k in kinds if k.instance_kind}
        return made

    def classify(self, claim: Claim) -> Finding:
        """Return what `claim` is. Never raises, whatever the report holds."""
        value = claim.value
        if not isinstance(value, Secret) or claim.companions:
            return self._at_home(self._classify(claim))
        # One secret is found many times over, mostly in a row.
        key = (claim.scanner, claim.rule, claim.provider, value.reveal())
        known = self._recent.get(key)
        if known is not None:
            self._alias(claim)  # counts the rule
            return _finding(claim, *known)
        found = self._at_home(self._classify(claim))
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[key] = (found.provider, found.parts, found.candidates)
        return found

    def _at_home(self, found: Finding) -> Finding:
        """Return the finding as of the kind that is asked at its own host, where that is not the vendor's."""
        home = self._homes.get(found.provider)
        host = found.parts.get("host")
        if home is None or host is None:
            return found
        name = host.reveal().lower().removeprefix("https://").partition("/")[0].partition(":")[0]
        ours = any(fnmatchcase(name, pattern) for pattern in home[1])
        return found if ours else replace(found, provider=home[0])

    def _classify(self, claim: Claim) -> Finding:
        alias, forced = self._alias(claim)
        value = claim.value
        if isinstance(value, Secret):
            return self._secret(claim, alias, value, forced=forced)
        if isinstance(value, Masked):
            seen = _MASK.split(value.text, maxsplit=1)[0]
            kind, candidates = self._of_mask(seen, alias, forced=forced)
        elif isinstance(value, Hashed | Absent):
            kind, candidates = self._of_mask("", alias, forced=forced)
        else:
            assert_never(value)
        parts: dict[str, Secret] = {}
        self._namer.add(claim.scanner, claim.companions, kind, parts)
        if "host" in parts and kind != GENERIC:
            self._namer.tidy(kind, parts)
        return _finding(claim, kind, parts, candidates)

    def fits(self, scanner: str, rule: str) -> Callable[[str], bool] | None:
        """Return a test whether a string has the shape of what `rule` finds, `None` where no shape is known for it."""
        alias = self.aliases.get(scanner, rule)
        kinds = alias.kinds if alias is not None else ()
        if not any(self.index.shapes(k) for k in kinds):
            return None
        part = self.index.part
        return lambda text: any(part(k, text) is not None for k in kinds)

    # ── what the report says ───────────────────────────────────────────────────────────────────────────

    def _alias(self, claim: Claim) -> tuple[Alias, bool]:
        """Return what provider or rule say, and whether it is the report's own word that beats the shape."""
        key = (claim.scanner, claim.rule, claim.provider)
        told = self._told.get(key)
        if told is None:
            told = self._tell(*key)
            if len(self._told) < MAX_RULES:
                self._told[key] = told
        for counter, rule in told.counts:
            self._count(counter, claim.scanner, rule)
        return told.alias, told.forced

    def _tell(self, scanner: str, rule: str, provider: str | None) -> _Told:
        counts: list[tuple[Counter[tuple[str, str]], str]] = []
        if provider:
            named = self._provider(provider)
            if named is not None:
                return _Told(named, named.says is Says.KIND)
            counts.append((self.unknown_rules, provider))
        alias = self.aliases.get(scanner, rule) or self._provider(rule)
        if alias is None:
            if not provider or rule not in {"", provider}:
                counts.append((self.unknown_rules, rule))
            alias = UNKNOWN
        elif alias.says is Says.UNSUPPORTED:
            counts.append((self.unsupported_rules, rule))
        return _Told(alias, forced=False, counts=tuple(counts))

    def _provider(self, name: str) -> Alias | None:
        """Read a kind id or a vendor's name; `None` if it is neither."""
        low = name.strip().lower()
        if len(low) < _SHORTEST_NAME:  # a rule called `x` does not speak of the vendor X
            return None
        if low in self.needs:
            return Alias(Says.KIND, (low,), "several")
        if low in self._vendors:
            kinds = tuple(self._vendors[low])
            return Alias(Says.KIND if len(kinds) == 1 else Says.CHOICE, kinds, "several")
        return Alias(Says.GENERIC) if low == GENERIC else None

    @staticmethod
    def _count(counter: Counter[tuple[str, str]], scanner: str, rule: str) -> None:
        key = (scanner, rule)
        counter[key if key in counter or len(counter) < MAX_RULES else (scanner, "(more)")] += 1

    # ── a secret in full ───────────────────────────────────────────────────────────────────────────────

    def _secret(self, claim: Claim, alias: Alias, secret: Secret, *, forced: bool) -> Finding:
        text = secret.reveal()
        if text[:1].isspace() or text[-1:].isspace():
            text = text.strip()
        compound = self._compound(text, alias, forced=forced)
        if compound is not None:
            kind = compound.kind
            parts = {n: Secret(v) for n, v in self._rename(kind, compound.parts).items()}
            self._namer.add(claim.scanner, claim.companions, kind, parts)
            return _finding(claim, kind, parts, ())
        kind, part, value, candidates = self._choose(text, alias, forced=forced)
        parts = {part: secret if value is text and len(secret) == len(text) else Secret(value)}
        if part == "password" and value is text:
            # A blank may well be the end of a password; of a token it never is.
            parts = {part: Secret(secret.reveal().strip("\r\n"))}
        if claim.companions:
            if kind == GENERIC and candidates:
                kind = self._by_companion(claim, candidates, alias) or kind
                if kind != GENERIC:
                    parts = {self._namer.called(part, kind, {}): parts[part]}
                    candidates = ()
            self._namer.add(claim.scanner, claim.companions, kind, parts)
        if kind in AWS:
            kind = _aws(kind, parts)
        if "host" in parts and kind != GENERIC:
            self._namer.tidy(kind, parts)
        return _finding(claim, kind, parts, candidates)

    def _choose(self, text: str, alias: Alias, *, forced: bool) -> _Choice:
        hits = self.index.alone(text)
        if hits and text[:3] == "eyJ":
            # a web token is only a form: a kind with a narrower shape of it goes first
            hits = [h for h in hits if h.kind != _JWT]
            if not hits:
                return self._token(text, alias)
        if not hits and not forced and _wraps(text) and not self._own_shape(alias.kinds, text):
            inner = self._inside(text)
            if inner is not None:
                text, hits = inner
        if alias.kinds:
            named = self._named(text, hits, alias, forced=forced)
            if named is not None:
                return named
        if hits:
            return self._by_shape(text, hits, alias)
        return self._by_rule(text, alias)

    def _by_rule(self, text: str, alias: Alias) -> _Choice:
        """Make the best of a value that has no telling shape and no rule that names its kind."""
        part = _direct(alias.captures)
        if alias.says is Says.CHOICE:
            begun = self.index.begins(text, alias.kinds)
            if len(begun) == 1:
                return (KindID(begun.pop()), part, text, ())
            return (GENERIC, part, text, _ids(alias.kinds) if len(alias.kinds) > 1 else ())
        if alias.says in {Says.GENERIC, Says.UNKNOWN}:
            bare, begun = self.index.bare(text), self.index.begins(text)
            return (GENERIC, part, text, (*_ids(sorted(begun)), *bare) if begun else bare)
        if alias.says is Says.PRIVATE_KEY:
            return (KindID(_TLS_KEY), "secret", text, ())
        return (GENERIC, "password" if alias.says is Says.CONNECTION_STRING else part, text, ())

    def _named(self, text: str, hits: list[Shape], alias: Alias, *, forced: bool) -> _Choice | None:
        """Choose a kind that the rule names, if the shape does not speak against it."""
        for hit in hits:
            if hit.kind in alias.kinds:
                return (KindID(hit.kind), hit.part, text, ())
        fitting = [(k, p) for k in alias.kinds if (p := self.index.part(k, text)) is not None]
        if len(fitting) == 1 or (fitting and alias.says is Says.KIND):
            kind, part = fitting[0]
            # of two shapes alike (a UUID as id or as secret) only the rule knows which it caught
            said = alias.captures
            if said != part and said in PARTS and self.index.could_be(kind, said, text):
                part = said
            return (KindID(kind), part, text, ())
        if fitting:
            return (GENERIC, _direct(alias.captures), text, _ids(k for k, _ in fitting))
        if alias.says is Says.KIND and (forced or len({h.kind for h in hits}) != 1):
            return self._taken(KindID(alias.kinds[0]), alias, text)
        return None

    def _taken(self, kind: KindID, alias: Alias, text: str) -> _Choice:
        """Take the rule's word for the kind; the part is what the rule captures, under the name the kind uses."""
        part = _direct(alias.captures)
        allowed = self._allowed.get(kind, PARTS)
        if part not in allowed and part == "secret" and "password" in allowed:
            part = "password"
        elif part not in allowed and part == "password" and "secret" in allowed:
            part = "secret"
        return (kind, part, text, ())

    @staticmethod
    def _by_shape(text: str, hits: list[Shape], alias: Alias) -> _Choice:
        kinds = {h.kind for h in hits}
        if len(kinds) > 1:
            summed = [h for h in hits if h.checksum and checksum_fits(h.checksum, text)]
            kinds = {h.kind for h in summed} or kinds
            hits = summed or hits
        if len(kinds) == 1:
            return (KindID(hits[0].kind), hits[0].part, text, ())
        return (GENERIC, _direct(alias.captures), text, _ids(sorted(kinds)))

    def _own_shape(self, kinds: tuple[str, ...], text: str) -> bool:
        return any(self.index.part(k, text) is not None for k in kinds)

    def _inside(self, text: str) -> tuple[str, list[Shape]] | None:
        """Find the one key that stands inside a wider text (`Authorization: Bearer …`); `None` for none or several."""
        found: dict[str, list[Shape]] = {}
        for n, m in enumerate(_TOKEN.finditer(text)):
            if n == _MAX_TOKENS:
                return None
            hits = self.index.alone(m.group())
            if hits:
                found[m.group()] = hits
        return next(iter(found.items())) if len(found) == 1 else None

    def _token(self, text: str, alias: Alias) -> _Choice:
        """Classify a JSON Web Token: a form that many kinds share, so the rule goes first, then what the token says."""
        if alias.says is Says.KIND and alias.kinds[0] != _JWT:
            return self._taken(KindID(alias.kinds[0]), alias, text)
        if alias.says is Says.UNSUPPORTED:
            return (GENERIC, "secret", text, ())
        said = payload(text) or {}
        issuer = str(said.get("iss", ""))
        if said.get("role") == "service_role" and (issuer.startswith("supabase") or "ref" in said):
            return (KindID("supabase_secret"), "secret", text, ())
        if issuer == "kubernetes/serviceaccount" or "kubernetes.io" in said:
            return (KindID("kubernetes_sa"), "secret", text, ())
        return (KindID(_JWT), "secret", text, ())

    # ── compounds ──────────────────────────────────────────────────────────────────────────────────────

    def _compound(self, text: str, alias: Alias, *, forced: bool) -> split.Split | None:
        """Take a connection string, a credential file or a private key apart; `None` for a bare token."""
        if text[:1] == "{" or text[:11] == "eyJhdXRocyI":
            found = split.json_file(text) or split.docker_base64(text) or credfiles.take(text)
            return found if found is None or not forced or found.kind in alias.kinds else None
        if "-----BEGIN" in text and (pem := self._pem(text, alias)) is not None:
            return pem
        file = credfiles.take(text) if not forced else None
        if file is not None:
            return self._narrowed(file)
        own = dialects.take(text)
        if own is not None or "://" in text:
            found = None if own is None and self.index.alone(text) else self._uri(text, own, alias, forced=forced)
            if found is not None:
                return found
        return self._fields(text, alias)

    def _fields(self, text: str, alias: Alias) -> split.Split | None:
        """Take fields (`a=b;c=d`) or a log-in (`user:password`) apart."""
        if ";" in text and "=" in text:
            found = split.fields(text)
            if found is not None and found.kind == GENERIC and alias.says is Says.KIND:
                return split.Split(KindID(alias.kinds[0]), found.parts)
            return found
        if alias.captures == "login":
            parts = split.login(text)
            if parts is not None:
                kind = KindID(alias.kinds[0]) if alias.says is Says.KIND else GENERIC
                return split.Split(kind, self._rename(kind, parts))
        return None

    def _pem(self, text: str, alias: Alias) -> split.Split | None:
        found = split.pem(text)
        if found is None:
            return None
        if alias.says is Says.KIND and alias.kinds[0] not in _PRIVATE_KEYS:
            return split.Split(KindID(alias.kinds[0]), {"secret": found})
        # only SSH has keys of this form; which of the others a key of a common form is for, the rule may know
        ssh = "-----BEGIN OPENSSH PRIVATE KEY-----" in found or alias.kinds[:1] == (_SSH_KEY,)
        return split.Split(KindID(_SSH_KEY if ssh else _TLS_KEY), {"secret": found})

    def _uri(self, text: str, own: split.Split | None, alias: Alias, *, forced: bool) -> split.Split | None:
        found = own or split.uri(text)
        if found is None or (forced and found.kind not in alias.kinds and "password" not in found.parts):
            return None
        parts = found.parts
        if found.kind == "basic_auth_url":
            narrow = self._narrowed(found)
            if narrow is not found:
                return narrow
            if "password" not in parts:
                return None
        if alias.says is Says.KIND and (forced or found.kind in {GENERIC, "basic_auth_url"}):
            kind = KindID(alias.kinds[0])
            return split.Split(kind, self._rename(kind, parts))
        return found if "password" in parts or "secret" in parts or alias.says in _SPECIFIC else None

    def _narrowed(self, found: split.Split) -> split.Split:
        """Return a log-in whose password (or name) is some vendor's token as that token."""
        for name in ("password", "username", "secret"):
            hits = self.index.alone(found.parts.get(name, "")) if found.kind in _LOOSE else []
            if len({h.kind for h in hits}) == 1:
                return split.Split(KindID(hits[0].kind), {hits[0].part: found.parts[name]})
        return found

    def _rename(self, kind: KindID, parts: dict[str, str]) -> dict[str, str]:
        """Call the password `secret` where the kind does, and drop what the kind has no use for."""
        allowed = self._allowed.get(kind)
        if allowed is None:
            return parts
        if "secret" in allowed and "password" not in allowed and "password" in parts:
            parts["secret"] = parts.pop("password")
        return {n: v for n, v in parts.items() if n in allowed}

    # ── companions ─────────────────────────────────────────────────────────────────────────────────────

    def _by_companion(self, claim: Claim, candidates: tuple[KindID, ...], alias: Alias) -> KindID | None:
        """Return the kind whose id, unmistakable by its shape, was reported beside an ambiguous secret.

        Of kinds that rule or report name, the only one whose parts are all there will do, too.
        """
        for companion in claim.companions.values():
            for hit in self.index.alone(companion.reveal()):
                if hit.part != "secret" and hit.kind in candidates:
                    return KindID(hit.kind)
        if alias.says is not Says.CHOICE:
            return None
        there = {part_of(n) or n for n in claim.companions} | {"secret", "password"}
        whole = [k for k in candidates if len(self.needs[k].parts) > 1 and there.issuperset(self.needs[k].parts)]
        return whole[0] if len(whole) == 1 else None

    # ── hidden ─────────────────────────────────────────────────────────────────────────────────────────

    def _of_mask(self, seen: str, alias: Alias, *, forced: bool) -> tuple[KindID, tuple[KindID, ...]]:
        """Choose by what a mask leaves to see, then by the rule."""
        if forced:
            return KindID(alias.kinds[0]), ()
        begun = self.index.begins(seen, alias.kinds or None) or self.index.begins(seen)
        if len(begun) == 1:
            return KindID(begun.pop()), ()
        if alias.says is Says.KIND:
            return KindID(alias.kinds[0]), ()
        if alias.says is Says.CHOICE:
            return GENERIC, _ids(alias.kinds) if len(alias.kinds) > 1 else ()
        if alias.says is Says.PRIVATE_KEY:
            return KindID(_TLS_KEY), ()
        return (KindID(_JWT) if alias.says is Says.JWT else GENERIC), _ids(sorted(begun))


def _direct(captures: str) -> str:
    """Return the part a bare value goes to, for what a rule captures."""
    return captures if captures in PARTS else "secret"


def _wraps(text: str) -> bool:
    return " " in text or '"' in text or "'" in text or "\n" in text or "=" in text[:-2]


def _aws(kind: KindID, parts: Mapping[str, Secret]) -> KindID:
    """Return the AWS kind that the id or, without one, a session token tells."""
    key = parts.get("id")
    if key is not None:
        return KindID("aws_asia" if key.reveal().startswith("ASIA") else "aws_akia")
    return KindID("aws_asia") if "token" in parts else kind


def _ids(kinds: Iterable[str]) -> tuple[KindID, ...]:
    return tuple(KindID(k) for k in kinds)


def _finding(claim: Claim, kind: KindID, parts: Mapping[str, Secret], candidates: tuple[KindID, ...]) -> Finding:
    value = claim.value
    return Finding(
        kind,
        parts,
        claim.place,
        claim.scanner,
        claim.rule,
        candidates,
        None if isinstance(value, Secret) else value,
        claim.claimed,
        claim.seen_at,
    )
