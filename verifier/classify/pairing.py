"""Joins halves: scanners report an access-key id and its secret as two findings of one file.

A second look at what stands close together, over a window of claims, so that memory stays bounded whatever the
report's size. Every claim still makes at least one finding, at its own place; a secret near several ids makes one for
each that is plausible, and asking decides (the verifier never probes two that share an id at once).
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice, product
from typing import TYPE_CHECKING

from msgspec.structs import replace

from verifier.model import GENERIC, KindID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from verifier.classify.classifier import Classifier
    from verifier.model import Claim, Finding
    from verifier.secret import Secret

WINDOW = 1000
"""Most halves held back at a time, over all files."""

NEAR = 20
"""Halves farther apart than this many lines are not joined."""

SLACK = 3
"""Of several candidates those up to this many lines farther than the nearest are plausible, too."""

MOST = 4
"""Most credentials made of one secret."""

_HELD = frozenset({"secret", "password"})
_FAMILY = {"aws_asia": "aws_akia"}
_LENDS = {"datadog_api": (KindID("datadog_app"), "api_key")}
"""Kinds whose secret, a key in its own right, is also a part that another kind needs."""

_NOWHERE = 1 << 30


def classify_all(claims: Iterable[Claim], classifier: Classifier) -> Iterator[Finding]:
    """Classify claims and join the halves of one file; findings of other claims come at once, in order."""
    pairer = _Pairer(classifier)
    for claim in claims:
        finding = classifier.classify(claim)
        if pairer.whole(finding):
            yield finding
        else:
            evicted = pairer.hold(finding)
            if evicted:
                yield from evicted
    yield from pairer.rest()


class _Pairer:
    def __init__(self, classifier: Classifier) -> None:
        self._needs = classifier.needs
        self._parts = {kind: need.parts for kind, need in self._needs.items()}
        self._held: OrderedDict[object, list[Finding]] = OrderedDict()
        self._count = 0
        # kinds whose public half is unmistakable: only those can speak for an ambiguous secret beside them
        self._sponsors = frozenset(
            k
            for k in self._needs
            if any(s.context == "alone" and s.part not in _HELD for s in classifier.index.shapes(k))
        )

    def whole(self, finding: Finding) -> bool:
        """Say whether nothing nearby could complete the finding."""
        if finding.hidden is not None:
            return True
        if finding.provider == GENERIC:
            return "secret" not in finding.parts or self._sponsors.isdisjoint(finding.candidates)
        if finding.provider in _LENDS:
            return False
        parts = finding.parts
        for name in self._parts.get(finding.provider, ()):  # noqa: SIM110  # `all` costs a generator a claim
            if name not in parts:
                return False
        return True

    def hold(self, finding: Finding) -> Iterator[Finding] | None:
        """Hold a half back; return the oldest file's findings when too many are held."""
        place = finding.place
        key = (place.image, place.repository, place.path, place.revision)
        group = self._held.get(key)
        if group is None:
            self._held[key] = [finding]
        else:
            group.append(finding)
        self._count += 1
        if self._count <= WINDOW:
            return None
        _, oldest = self._held.popitem(last=False)
        self._count -= len(oldest)
        return self._join(oldest)

    def rest(self) -> Iterator[Finding]:
        """Yield all that is still held."""
        for group in self._held.values():
            yield from self._join(group)
        self._held.clear()
        self._count = 0

    def _join(self, group: Sequence[Finding]) -> Iterator[Finding]:
        publics = [f for f in group if f.provider != GENERIC and _HELD.isdisjoint(f.parts)]
        lent = [_lend(f) for f in group if f.provider in _LENDS and "secret" in f.parts]
        if not (publics or lent) or len(group) == 1:
            yield from group
            return
        joined: dict[int, tuple[int, Finding]] = {}
        for finding in group:
            if _HELD.isdisjoint(finding.parts):
                continue
            made = list(islice(self._completed(finding, [*publics, *lent]), MOST))
            if not made:
                yield finding
                continue
            for whole, helpers in made:
                yield whole
                for helper in helpers:
                    far = _distance(finding, helper)
                    if far < joined.get(id(helper), (_NOWHERE + 1, whole))[0]:
                        joined[id(helper)] = (far, whole)
        for public in publics:
            near = joined.get(id(public))
            if near is None:
                yield public
            else:
                yield replace(public, provider=near[1].provider, parts=near[1].parts)

    def _completed(self, finding: Finding, publics: Sequence[Finding]) -> Iterator[tuple[Finding, tuple[Finding, ...]]]:
        """Yield the finding completed by each plausible set of public halves, the nearest first."""
        for kind, mine in self._kinds(finding, publics):
            missing = [p for p in self._needs[kind].parts if p not in finding.parts]
            options = [chosen for p in missing if (chosen := _nearest(finding, p, mine))]
            if not options:
                continue
            for helpers in product(*options):
                told = next((h.provider for h in helpers if "id" in h.parts), kind)
                wanted = {*self._needs[told].parts, *self._needs[told].optional}
                parts: dict[str, Secret] = dict(finding.parts)
                for helper in helpers:
                    parts |= {n: v for n, v in helper.parts.items() if n in wanted and n not in parts}
                yield replace(finding, provider=told, parts=parts, candidates=()), helpers

    def _kinds(self, finding: Finding, publics: Sequence[Finding]) -> Iterator[tuple[KindID, list[Finding]]]:
        """Yield the kinds the finding may be of, each with the public halves of its family; AWS keys share one."""
        families: dict[str, list[Finding]] = {}
        for public in publics:
            families.setdefault(_FAMILY.get(public.provider, public.provider), []).append(public)
        for family, mine in families.items():
            if finding.provider == GENERIC:
                if family in finding.candidates and family in self._sponsors:
                    yield KindID(_temporary(family, mine)), mine
            elif _FAMILY.get(finding.provider, finding.provider) == family:
                yield KindID(_temporary(finding.provider, mine)), mine


def _lend(finding: Finding) -> Finding:
    """Return the finding as the public half of the kind that needs its secret."""
    kind, part = _LENDS[finding.provider]
    return replace(finding, provider=kind, parts={part: finding.parts["secret"]})


def _temporary(kind: str, publics: Iterable[Finding]) -> str:
    """Return the kind whose needs tell what to look for: with a session token about, that of a temporary key."""
    return "aws_asia" if kind == "aws_akia" and any(p.provider == "aws_asia" for p in publics) else kind


def _distance(a: Finding, b: Finding) -> int:
    if a.place.line is None or b.place.line is None:
        return _NOWHERE
    return abs(a.place.line - b.place.line)


def _nearest(finding: Finding, part: str, publics: Iterable[Finding]) -> list[Finding]:
    """Return the distinct plausible public halves with `part`, the nearest first; without lines, the only one."""
    having: dict[str, tuple[int, Finding]] = {}
    for public in publics:
        if part in public.parts:
            far = _distance(finding, public)
            text = public.parts[part].reveal()
            if text not in having or far < having[text][0]:
                having[text] = (far, public)
    ranked = sorted(having.values(), key=lambda x: x[0])
    if not ranked:
        return []
    least = ranked[0][0]
    if least == _NOWHERE:
        return [ranked[0][1]] if len(ranked) == 1 else []
    if least > NEAR:
        return []
    return [f for far, f in ranked if far <= min(least + SLACK, NEAR)]
