"""Figures for Prometheus: a text file for cron, and as bytes for the console's /metrics.

Both tell of the keys, of the last night's calls and refusals of our pace (which the ledger keeps, so that a console on
another machine knows them), and of how long leaked keys lived. Only the text file, written at a night's end, tells what
that night changed.
"""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily

from lapse.exits import Stop
from lapse.ledger.chain import EventKind, read_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lapse.diff import DiffOut
    from lapse.ledger import Ledger
    from lapse.ledger.db import Database
    from lapse.ledger.model import Status
    from lapse.nightly.night import Night

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


SPANS = tuple(h * 3600.0 for h in (1, 6, 24, 72, 7 * 24, 14 * 24, 30 * 24, 90 * 24, 180 * 24, 365 * 24))
"""Upper ends of the times from first seen to proven dead that are counted, in seconds."""

_LOOK_BACK = 20_000
"""Events among which the last night's figures are looked for."""

_DEAD_SQL = (
    "SELECT CASE WHEN s.dead_since > a.at THEN s.dead_since - a.at ELSE 0 END / 1000000.0 FROM states s"
    " JOIN credentials c ON c.id = s.credential"
    " JOIN scans a ON a.id = c.scan WHERE s.known = 'dead' AND s.confirmed = 1 AND s.first_live IS NOT NULL"
)
_NIGHT_SQL = (
    "SELECT payload FROM events WHERE seq > (SELECT seq FROM head) - ? AND kind = ? ORDER BY seq DESC"  # newest first
)


class NightFigures(Struct, frozen=True):
    """What the ledger keeps of a night: `calls` and `throttled` by kind of key, `failed` counts sentences."""

    began: datetime
    ended: datetime
    asked: int
    calls: dict[str, int]
    throttled: dict[str, int]
    cut_off: bool
    failed: int


def keep(ledger: Ledger, night: Night) -> None:
    """Put a night's figures on record."""
    calls = sum(night.calls.values())
    kept = NightFigures(
        night.began, night.ended, night.asked, night.calls, night.throttled, night.cut_off, len(night.failed)
    )
    told = msgspec.json.encode(kept).decode()
    ledger.note(EventKind.NOTE, f"a night ended; keys asked about: {night.asked}, calls: {calls}", (), {"night": told})


def last_night(db: Database) -> NightFigures | None:
    """Return the figures of the night that ended last."""
    with db.read() as connection:
        for payload in connection.exec_driver_sql(_NIGHT_SQL, (_LOOK_BACK, EventKind.NOTE.value)).scalars():
            if (told := read_payload(payload).detail.get("night")) is not None:
                return msgspec.json.decode(told, type=NightFigures)
    return None


class _Lived:
    """The times from first seen to the first of the refusals that proved it, of keys that once worked."""

    def __init__(self, spans: Iterable[float]) -> None:
        self._spans = list(spans)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        ends = [*SPANS, float("inf")]
        counts = [(_le(end), float(sum(s <= end for s in self._spans))) for end in ends]
        says = "From first seen to refused, of keys proven dead that once worked."
        yield HistogramMetricFamily("lapse_time_to_proven_dead_seconds", says, counts, sum(self._spans))


def _le(end: float) -> str:
    return "+Inf" if end == float("inf") else f"{end:.1f}"


def registry(ledger: Ledger, night: Night | None = None) -> CollectorRegistry:
    """Return the ledger's figures as they are now and, if given, those of a night."""
    made = CollectorRegistry(auto_describe=False)
    _ledger(made, ledger)
    if night is not None:
        _changes(made, night.diff)
    return made


def exposition(ledger: Ledger) -> bytes:
    """Return the ledger's figures in Prometheus' text format (`CONTENT_TYPE`), for the console's /metrics."""
    return generate_latest(registry(ledger))


def write_textfile(path: str, found: CollectorRegistry) -> None:
    """Write the figures for the node exporter's textfile collector: whole or not at all."""
    target = Path(path).expanduser()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(generate_latest(found))
        part.chmod(0o644)  # the exporter is another user, and nothing in here is secret
        part.replace(target)
    except OSError as e:
        raise Stop(f"metrics.textfile: cannot write {target}: {e.strerror}") from None


def _ledger(made: CollectorRegistry, ledger: Ledger) -> None:
    s: Status = ledger.status()
    verdicts = {
        "live": s.live,
        "dead": s.dead,
        "dead_unconfirmed": s.dead_unconfirmed,
        "undecided": s.undecided,
        "unchecked": s.unchecked,
    }
    _labelled(made, "lapse_keys", "Distinct keys by what is known of them.", "verdict", verdicts)
    _one(made, "lapse_findings", "Places where keys were found.", s.findings)
    _one(made, "lapse_removed_never_revoked", "Live keys whose every place is gone.", s.removed_never_revoked)
    _one(made, "lapse_live_unsure", "Live keys that gave no answer when last asked.", s.live_unsure)
    with closing(ledger.reader()) as db:
        with db.read() as connection:
            made.register(_Lived(float(s) for s in connection.exec_driver_sql(_DEAD_SQL).scalars()))
        if (night := last_night(db)) is not None:
            _night(made, night)
    _one(made, "lapse_oldest_live_seconds", "Age of the live key first seen longest ago; 0 with none.", _oldest(ledger))


def _oldest(ledger: Ledger) -> float:
    """Return the age in seconds of the oldest live key: keys come as first seen, so that one look is enough."""
    from lapse.ledger.model import Select, State  # noqa: PLC0415  # with the ledger

    key = next(iter(ledger.keys(Select(states=frozenset({State.LIVE}), limit=1))), None)
    return (datetime.now(UTC) - key.first_seen).total_seconds() if key else 0.0


def _night(made: CollectorRegistry, night: NightFigures) -> None:
    _one(made, "lapse_nightly_started_timestamp_seconds", "When the last night began.", night.began.timestamp())
    _one(made, "lapse_nightly_finished_timestamp_seconds", "When the last night ended.", night.ended.timestamp())
    _one(made, "lapse_nightly_cut_off", "1 if the night left due keys unasked.", int(night.cut_off))
    _one(made, "lapse_nightly_failed", "Sources, messages, issues and rotations that came to nothing.", night.failed)
    _one(made, "lapse_nightly_asked", "Keys asked about in the last night.", night.asked)
    _labelled(made, "lapse_nightly_calls", "Calls of the last night.", "kind", night.calls)
    _labelled(made, "lapse_nightly_throttled", "Calls of the last night answered 429.", "kind", night.throttled)


def _changes(made: CollectorRegistry, d: DiffOut) -> None:
    changes = {
        "new": d.total.new,
        "died": d.total.died,
        "unproven": d.total.unproven,
        "revived": d.total.revived,
    }
    _labelled(made, "lapse_nightly_keys", "Keys that changed since the night before.", "change", changes)
    _one(made, "lapse_sla_breaches", "Keys live for longer than their owners' limit.", d.total.breaches)
    _labelled(made, "lapse_owner_live", "Live keys.", "owner", {n: f.live for n, f in d.by_owner.items()})


def _one(made: CollectorRegistry, name: str, says: str, value: float) -> None:
    Gauge(name, says, registry=made).set(value)


def _labelled(
    made: CollectorRegistry, name: str, says: str, label: str, values: Mapping[str, float], *, most: int = 500
) -> None:
    """Set one gauge by label, the `most` largest alone: a file of a million lines helps nobody."""
    gauge = Gauge(name, says, [label], registry=made)
    largest: Iterable[tuple[str, float]] = sorted(values.items(), key=lambda x: -x[1])[:most]
    for key, value in largest:
        gauge.labels(key).set(value)
