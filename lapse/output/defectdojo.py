"""DefectDojo's "Generic Findings Import" in JSON: one finding a key, under the key's own id.

Fields are those that DefectDojo's parser admits; it refuses a file with any other. Import it with
`unique_id_from_tool` as the deduplication, so that a key proven dead closes its finding at the next import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lapse import __version__
from lapse.output.console import safe
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lapse.output.jsonv1 import KeyReport

HARD_CODED = 798
"""CWE-798: use of hard-coded credentials."""

PLACES = 20
"""Most places of a description."""

_TITLE = 500
_MITIGATION = "Replace the key, revoke the leaked one, and prove it dead: `lapse rotate {0}`, `lapse verify {0}`."


def defectdojo(keys: Iterable[KeyReport]) -> Iterator[str]:
    """Yield the pieces of one document."""
    head = {"name": "Lapse", "type": "Lapse", "version": __version__, "static_tool": True, "dynamic_tool": True}
    yield msgspec.json.encode(head).decode()[:-1] + ',"findings":['
    for n, key in enumerate(keys):
        yield (",\n" if n else "\n") + msgspec.json.encode(finding(key)).decode()
    yield "\n]}\n"


def finding(key: KeyReport) -> dict[str, Any]:
    """Return the finding of one key."""
    live = key.known == "live"
    made: dict[str, Any] = {
        "title": f"{'Live' if live else 'Leaked'} credential: {key.provider} {key.key}"[:_TITLE],
        "severity": _severity(key),
        "description": _description(key),
        "mitigation": _MITIGATION.format(key.key),
        "impact": "Whoever reads one of these places can use the key." if live else "None that is known.",
        "date": f"{key.first_seen:%Y-%m-%d}",
        "cwe": HARD_CODED,
        "active": not key.confirmed,
        "verified": live,
        "is_mitigated": key.confirmed,
        "unique_id_from_tool": key.id,
        "vuln_id_from_tool": key.provider,
        "nb_occurences": max(key.findings, 1),
        "static_finding": True,
        "dynamic_finding": False,
        "tags": ["leaked-credential", key.provider, *(["removed-never-revoked"] if _gone(key) else [])],
    }
    if key.confirmed and key.dead_since:
        made["mitigated"] = key.dead_since.isoformat()
    if key.places:
        first = key.places[0]
        if first.path:
            made["file_path"] = first.path[:4000]
        if first.line and first.line > 0:
            made["line"] = first.line
        holder = first.image or first.repository
        if holder:
            made["component_name"] = holder[:500]
    return made


def _severity(key: KeyReport) -> str:
    if key.confirmed:
        return "Info"
    if key.known != "live":
        return "Medium"
    privileged = key.identity is not None and key.identity.privilege in {"admin", "write"}
    public = any(p.visibility == "public" for p in key.places)
    return "Critical" if privileged or public or _gone(key) else "High"


def _gone(key: KeyReport) -> bool:
    return key.removed_from_source and key.known == "live"


def _description(key: KeyReport) -> str:
    said = [f"Verdict: {key.verdict}{' (confirmed)' if key.confirmed else ''}{f', {key.why}' if key.why else ''}"]
    if _gone(key):
        said.append("Removed from the source, never revoked: every place is gone and the key still works.")
    if key.identity and key.identity.principal:
        said.append(f"Speaks for: {_code(key.identity.principal)}")
    for p in key.places[:PLACES]:
        line = f":{p.line}" if p.line else ""
        where = f"{p.image or p.repository or p.source} {p.path or ''}{line}".strip()
        said.append(f"- {_code(where)}{' (gone)' if p.removed_at else ''}")
    if len(key.places) > PLACES:
        said.append(f"- and {plural(len(key.places) - PLACES, 'more place')}")
    return "\n".join(said)


def _code(text: str) -> str:
    """Return hostile text as Markdown code: it is shown, and neither links nor formats."""
    shown = safe(text).replace("`", "'")
    return f"`{shown}`"
