"""SARIF 2.1.0: live keys are errors, what nobody could tell is a warning, the dead are notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lapse import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lapse.output.jsonv1 import KeyReport, PlaceOut

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"live": "error", "undecided": "warning", "dead": "note"}


def sarif(keys: Iterable[KeyReport]) -> dict[str, Any]:
    """Return one SARIF log with a result a key; a place is a location, the key's id its fingerprint."""
    results: list[dict[str, Any]] = []
    rules: dict[str, dict[str, Any]] = {}
    for key in keys:
        rules.setdefault(key.provider, _rule(key.provider))
        results.append(_result(key, list(rules).index(key.provider)))
    driver = {
        "name": "Lapse",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": list(rules.values()),
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


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
    detail = {"live": "still works", "dead": "is dead", "undecided": "could not be judged"}[key.verdict]
    why = key.why or key.how or ""
    level = "error" if key.known == "live" and key.verdict == "undecided" else LEVELS[key.verdict]
    result: dict[str, Any] = {
        "ruleId": key.provider,
        "ruleIndex": index,
        "level": level,
        "kind": "fail",
        "message": {"text": f"{key.key} {detail}{f' ({why})' if why else ''}.{gone}"},
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


def _locations(places: Iterable[PlaceOut]) -> Iterator[dict[str, Any]]:
    for p in places:
        uri = _uri(p)
        if not uri:
            continue
        physical: dict[str, Any] = {"artifactLocation": {"uri": uri}}
        if p.line:
            physical["region"] = {"startLine": p.line}
        name = p.image or p.repository
        logical = [{"fullyQualifiedName": f"{p.source}:{name}", "kind": "namespace"}] if name else []
        yield {"physicalLocation": physical} | ({"logicalLocations": logical} if logical else {})


def _uri(p: PlaceOut) -> str:
    from urllib.parse import quote  # noqa: PLC0415  # only for this format

    return quote(p.path or "", safe="/._-~!$&'()*+,;=@")
