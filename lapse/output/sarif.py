"""SARIF 2.1.0: live keys are errors, what nobody could tell or confirm is a warning, the proven dead are notes.

Written result by result, so that its size costs no memory; the rules, few and known only at the end, come last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from lapse import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lapse.output.jsonv1 import KeyReport, PlaceOut

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"live": "error", "undecided": "warning", "dead": "note"}


def sarif(keys: Iterable[KeyReport]) -> Iterator[str]:
    """Yield the pieces of one SARIF log with a result a key; a place is a location, the key's id its fingerprint."""
    rules: dict[str, int] = {}
    yield f'{{"$schema":"{SCHEMA}","version":"2.1.0","runs":[{{"columnKind":"unicodeCodePoints","results":['
    for n, key in enumerate(keys):
        index = rules.setdefault(key.provider, len(rules))
        yield (",\n" if n else "\n") + _json(_result(key, index))
    driver = {
        "name": "Lapse",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_rule(provider) for provider in rules],
    }
    yield f'\n],"tool":{{"driver":{_json(driver)}}}}}]}}\n'


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _rule(provider: str) -> dict[str, Any]:
    return {
        "id": provider,
        "name": provider,
        "shortDescription": {"text": f"Leaked credential: {provider}"},
        "help": {"text": "Replace the key, revoke the leaked one, and prove it dead: lapse verify KEY."},
    }


def _result(key: KeyReport, index: int) -> dict[str, Any]:
    gone = (
        " Every place is gone, but the key was never revoked."
        if key.removed_from_source and key.known == "live"
        else ""
    )
    why = key.why or key.how or ""
    result: dict[str, Any] = {
        "ruleId": key.provider,
        "ruleIndex": index,
        "level": _level(key),
        "kind": "fail",
        "message": {"text": f"{key.key} {_detail(key)}{f' ({why})' if why else ''}.{gone}"},
        "fingerprints": {"lapse/v1": key.id},
        "properties": {
            "verdict": key.verdict,
            "confirmed": key.confirmed,
            "restricted": key.restricted,
            "why": key.why,
        },
    }
    locations = list(_locations(key.places))
    if locations:
        result["locations"] = locations
    return result


def _level(key: KeyReport) -> str:
    if key.known == "live" and key.verdict == "undecided":
        return "error"
    # A consumer closes notes, and nothing may be closed on a death that is not confirmed.
    return "warning" if key.verdict == "dead" and not key.confirmed else LEVELS[key.verdict]


def _detail(key: KeyReport) -> str:
    if key.verdict == "dead":
        return "is dead" if key.confirmed else "was refused, but is not proven dead"
    return "still works" if key.verdict == "live" else "could not be judged"


def _locations(places: Iterable[PlaceOut]) -> Iterator[dict[str, Any]]:
    for p in places:
        uri = quote(p.path or "", safe="/._-~!$&'()*+,;=@", errors="replace")
        if not uri:
            continue
        physical: dict[str, Any] = {"artifactLocation": {"uri": uri}}
        if p.line and p.line > 0:
            physical["region"] = {"startLine": p.line}
        name = p.image or p.repository
        logical = [{"fullyQualifiedName": f"{p.source}:{name}", "kind": "namespace"}] if name else []
        yield {"physicalLocation": physical} | ({"logicalLocations": logical} if logical else {})
