"""`lapse providers`: what can be verified, and every call that may be made for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.output.console import out, raw, say, table
from verifier.classify.aliases import Says
from verifier.shapes import rows
from verifier.spec import Probe
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized
    from pathlib import Path

    from verifier.catalogue import Catalogue
    from verifier.spec import Kind


_BY_THEIR_FORM = frozenset({Says.JWT, Says.PRIVATE_KEY, Says.CONNECTION_STRING})
"""What a rule of these finds tells itself which of our kinds it is, and all of those are verified."""


def run(config: Path | None, coverage: str | None, *, calls: bool, json: bool) -> Exit:
    """Print the catalogue, the manifest of calls, or a scanner's coverage."""
    catalogue = Setup.of(config).catalogue
    if calls:
        _calls(catalogue, json=json)
    elif coverage is not None:
        _coverage(catalogue, coverage)
    elif json:
        raw(msgspec.json.encode([_plain(k) for k in catalogue]))
    else:
        rows = ((k.id, k.vendor, k.category, _probe(k), k.title) for k in catalogue)
        table(("KIND", "VENDOR", "CATEGORY", "PROBE", "WHAT"), rows)
        able = sum(k.probe != "none" for k in catalogue)
        vendors = plural(len({k.vendor for k in catalogue}), "vendor")
        say(f"{plural(len(catalogue), 'kind')} of key of {vendors}, {able} verified")
    return Exit.OK


def _probe(kind: Kind) -> str:
    if isinstance(kind.probe, Probe):
        return f"{kind.probe.method} {kind.probe.path.partition('?')[0]}"
    return "none" if kind.probe == "none" else "code"


def _plain(kind: Kind) -> dict[str, object]:
    return {
        "id": kind.id,
        "vendor": kind.vendor,
        "title": kind.title,
        "category": kind.category,
        "docs": kind.docs,
        "parts": kind.parts,
        "probe": _probe(kind),
        "reason": kind.reason,
        "rules": [{"verdict": r.verdict, "confidence": r.confidence, "note": r.note} for r in kind.rule],
    }


def _calls(catalogue: Catalogue, *, json: bool) -> None:
    from verifier.ingest import pull  # only for this list

    calls = sorted({*catalogue.manifest(), *pull.CALLS}, key=lambda c: (c.kind, c.host, c.path))
    if json:
        raw(msgspec.json.encode(calls))
        return
    rows = ((c.kind, c.method, f"{c.scheme}://{c.host}{c.path}", c.reads) for c in calls)
    table(("KIND", "METHOD", "CALL", "WHY IT ONLY READS"), rows)


def _coverage(catalogue: Catalogue, scanner: str) -> None:
    from verifier.classify import Aliases  # a large table

    aliases = Aliases((s, r, k.id) for k in catalogue for s, rules in k.aliases.items() for r in rules)
    rules = {rule: alias for rule in aliases.tables.get(scanner, ()) if (alias := aliases.get(scanner, rule))}
    if not rules:
        known = ", ".join(sorted(aliases.tables))
        raise Stop(f"no rules of a scanner called {scanner} are known; known: {known}", Exit.USAGE)
    able = {k.id for k in catalogue if k.probe != "none"}
    ours = {rule for rule, alias in rules.items() if able.intersection(alias.kinds) or alias.says in _BY_THEIR_FORM}
    out(f"{scanner}: {len(ours)} of {len(rules)} rules name a kind of key that is verified ({_share(ours, rules)})")
    for says, number in sorted(aliases.coverage(scanner).items()):
        out(f"{number:>6}  {says}")
    checked = validated(scanner, rules)
    if checked:
        done = ours & checked
        left = sorted(checked - done, key=lambda r: (not rules[r].kinds, r))
        out(f"of {len(checked)} rules that {scanner} checks itself, {len(done)} are verified ({_share(done, checked)})")
        for rule in left:
            kind = catalogue.get(rules[rule].kinds[0]) if rules[rule].kinds else None
            out(f"        {rule}: {kind.reason if kind is not None else 'no provider file'}")


def _share(part: Sized, whole: Sized) -> str:
    return f"{100 * len(part) / len(whole):.1f} %"


def validated(scanner: str, rules: Iterable[str]) -> frozenset[str]:
    """Return those of `rules` that the scanner checks against their providers, as far as its list is known.

    The lists are TruffleHog's and Betterleaks' (`data/validated.tsv`); Kingfisher 2 and gitleaks use the same names as
    Betterleaks, Kingfisher with a prefix. gitleaks checks nothing itself: for it these are the rules that its successor
    checks.
    """
    whose = "betterleaks" if scanner in {"gitleaks", "kingfisher"} else scanner
    names = {rule for of, rule in rows("validated.tsv") if of == whose}
    return frozenset(r for r in rules if r.removeprefix("betterleaks.") in names)
