"""OCSF 1.5.0 Detection Finding (class 2004), one event a line: for a SIEM or a security lake.

A live key is a new finding, one proven dead a closed one, everything else under way. The key's own id is the finding's
`uid`, so a later report updates the earlier one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lapse import __version__
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lapse.output.jsonv1 import KeyReport, PlaceOut

VERSION = "1.5.0"
CLASS = 2004
PLACES = 100
"""Most resources of one event."""

_SEVERITY = {1: "Informational", 3: "Medium", 4: "High", 5: "Critical"}
_ACTIVITY = {1: "Create", 2: "Update", 3: "Close"}
_STATUS = {1: "New", 2: "In Progress", 4: "Resolved"}


def ocsf(keys: Iterable[KeyReport]) -> Iterator[str]:
    """Yield one line of JSON a key."""
    now = _millis(datetime.now(UTC))
    for key in keys:
        yield msgspec.json.encode(event(key, now)).decode() + "\n"


def event(key: KeyReport, now: int) -> dict[str, Any]:
    """Return the event of one key; `now` in milliseconds since 1970."""
    activity, status, severity = _standing(key)
    word = "proven dead" if key.confirmed else "live" if key.known == "live" else "not proven dead"
    info: dict[str, Any] = {
        "uid": key.id,
        "title": f"Leaked credential {key.key} ({key.provider}) is {word}",
        "types": ["Leaked credential"],
        "desc": _said(key),
        "first_seen_time": _millis(key.first_seen),
        "created_time": _millis(key.first_seen),
    }
    if key.asked_at:
        info["last_seen_time"] = info["modified_time"] = _millis(key.asked_at)
    made: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": _ACTIVITY[activity],
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Detection Finding",
        "type_uid": CLASS * 100 + activity,
        "type_name": f"Detection Finding: {_ACTIVITY[activity]}",
        "severity_id": severity,
        "severity": _SEVERITY[severity],
        "status_id": status,
        "status": _STATUS[status],
        "confidence_id": 3 if key.verdict != "undecided" else 2,
        "confidence": "High" if key.verdict != "undecided" else "Medium",
        "time": _millis(key.asked_at) if key.asked_at else now,
        "count": max(key.findings, 1),
        "message": info["title"],
        "metadata": {
            "version": VERSION,
            "product": {"name": "Lapse", "vendor_name": "Lapse", "version": __version__},
            "uid": f"{key.id}:{now}",
        },
        "finding_info": info,
        "resources": [_resource(p) for p in key.places[:PLACES]],
        "unmapped": {"verdict": key.verdict, "known": key.known, "why": key.why, "how": key.how, "owner": key.owner},
    }
    if key.known == "live":
        made["remediation"] = {"desc": "Replace the key, revoke the leaked one, and prove it dead."}
    return made


def _standing(key: KeyReport) -> tuple[int, int, int]:
    """Return activity, status and severity."""
    if key.known == "live":
        privileged = key.identity is not None and key.identity.privilege in {"admin", "write"}
        public = any(p.visibility == "public" for p in key.places)
        return 1, 1, 5 if privileged or public or key.removed_from_source else 4
    if key.confirmed or (key.known == "dead" and key.verdict == "undecided" and key.dead_since is not None):
        return (3, 4, 1) if key.confirmed else (2, 2, 3)
    return 2, 2, 3


def _said(key: KeyReport) -> str:
    parts = [f"Seen in {plural(key.findings, 'place')}."]
    if key.removed_from_source and key.known == "live":
        parts.append("Every place is gone, but the key was never revoked.")
    if key.identity and key.identity.principal:
        parts.append(f"It speaks for {key.identity.principal}.")
    if key.why:
        parts.append(f"The newest answer decided nothing: {key.why}.")
    if key.how:
        parts.append(f"The provider says: {key.how}.")
    return " ".join(parts)


def _resource(place: PlaceOut) -> dict[str, Any]:
    holder = place.image or place.repository or place.source
    line = f":{place.line}" if place.line else ""
    made: dict[str, Any] = {"name": f"{holder} {place.path or ''}{line}".strip(), "type": place.source}
    if place.image_parts and place.image_parts.digest:
        made["uid"] = place.image_parts.digest
    if place.revision:
        made["version"] = place.revision
    return made


def _millis(at: datetime) -> int:
    return int(at.timestamp() * 1000)
