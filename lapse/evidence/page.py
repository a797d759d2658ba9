"""The evidence as one page: no network, no script, light and dark, fit for print, with the signed data inside it."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime  # msgspec reads it
from typing import TYPE_CHECKING

from markupsafe import Markup
from msgspec import Struct

from lapse.evidence.signing import PAGE_PURPOSE, written
from lapse.output.html import environment, style
from verifier.words import plural

if TYPE_CHECKING:
    from lapse.evidence.model import EvidenceFile, Moments, RunEvidence, Spans
    from lapse.ledger import Ledger

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
"""What may not stand in a page as it is; all of it lies inside JSON strings, where this is the same text."""


class Point(Struct, frozen=True):
    """One moment on the line of time; `kind` is its colour."""

    name: str
    at: datetime | None
    kind: str = ""


def page(ledger: Ledger, file: EvidenceFile) -> bytes:
    """Return the page; its last line is the ledger's signature over all that stands before it."""
    evidence = file.body.evidence
    line = points(evidence.moments)
    text = (
        environment()
        .get_template("evidence.html")
        .render(
            file=file,
            e=evidence,
            headline=headline(evidence),
            sound=evidence.run.outcome == "finished" and evidence.moments.accepted_since is None,
            points=[p for p in line if p.at is not None],
            missing=[p.name for p in line if p.at is None],
            spans=spans(evidence.spans),
            said=said,
            style=Markup(style()),  # noqa: S704  # our own style sheet
            data=Markup(embedded(written(file).decode().rstrip("\n"))),  # noqa: S704  # every < > & is escaped
        )
    )
    body = text.rstrip("\n").encode() + b"\n"
    _, value = ledger.attest(PAGE_PURPOSE, body)
    return body + b"<!-- lapse evidence page 1 " + b64encode(value) + b" -->\n"


def embedded(text: str) -> str:
    """Return JSON as it may stand inside a script element: nothing in it can end or open one."""
    return text.translate(_ESCAPES)


def headline(e: RunEvidence) -> str:
    """Return the one sentence that matters."""
    key, run = e.key.key, e.run
    if e.moments.accepted_since is not None:
        return f"{key} was accepted again after it had been proven dead"
    match run.outcome:
        case "finished" if e.proof is not None and e.proof.by == "issuer":
            return f"{key} is dead by its issuer's word"
        case "finished":
            return f"{key} is proven dead"
        case "undone":
            return f"The rotation of {key} was taken back"
        case "failed":
            return f"The rotation of {key} ended before it changed anything"
        case _:
            return f"The rotation of {key} is not over: {run.status}"


def points(m: Moments) -> list[Point]:
    """Return the line of time, in order; what did not happen comes where it would have been."""
    line = [
        Point("Exposed", m.exposed, "live"),
        Point("First seen", m.first_seen),
        Point("First live", m.first_live, "live"),
        Point("Rotation began", m.started),
        Point("Contained", m.contained),
        Point("New key made", m.minted),
        Point("New key stored", m.stored),
        Point("New key accepted", m.verified),
        Point("Deployed", m.deployed),
        Point("New way works", m.new_way),
        Point("Deleted", m.deleted),
        Point("Last acceptance", m.last_acceptance, "live"),
        Point("First stable refusal", m.first_stable_refusal, "dead"),
        Point("Proof complete", m.proven, "dead"),
    ]
    there = sorted((p for p in line if p.at is not None), key=lambda p: p.at.timestamp() if p.at else 0.0)
    return there + [p for p in line if p.at is None]


def spans(s: Spans) -> list[tuple[str, str]]:
    """Return the spans in words."""
    return [
        ("From exposure to the first live verdict", said(s.exposed_to_live_ms)),
        ("From the first live verdict to containment", said(s.live_to_contained_ms)),
        ("From the start of the rotation to containment", said(s.started_to_contained_ms)),
        ("From the start of the rotation to proven dead", said(s.started_to_proven_ms)),
        ("From exposure to proven dead", said(s.exposed_to_proven_ms)),
    ]


def said(ms: int | None) -> str:
    """Return a span in its two largest units."""
    if ms is None:
        return "—"
    if ms < 0:
        return f"minus {said(-ms)}"
    seconds = ms // 1000
    if seconds < 10:
        return f"{ms / 1000:g} s"
    found = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            found.append(plural(number, unit))
    return " ".join(found[:2])
