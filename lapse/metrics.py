"""Figures for Prometheus: a text file for cron, and the same as bytes for whoever serves them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from lapse.exits import Stop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lapse.diff import DiffOut
    from lapse.ledger import Ledger
    from lapse.ledger.model import Status
    from lapse.nightly.night import Night

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def registry(ledger: Ledger, night: Night | None = None) -> CollectorRegistry:
    """Return the ledger's figures as they are now and, if given, those of a night."""
    made = CollectorRegistry(auto_describe=False)
    _ledger(made, ledger)
    if night is not None:
        _night(made, night)
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
    _one(made, "lapse_oldest_live_seconds", "Age of the live key first seen longest ago; 0 with none.", _oldest(ledger))


def _oldest(ledger: Ledger) -> float:
    """Return the age in seconds of the oldest live key: keys come as first seen, so that one look is enough."""
    from lapse.ledger.model import Select, State  # noqa: PLC0415  # with the ledger

    key = next(iter(ledger.keys(Select(states=frozenset({State.LIVE}), limit=1))), None)
    return (datetime.now(UTC) - key.first_seen).total_seconds() if key else 0.0


def _night(made: CollectorRegistry, night: Night) -> None:
    _one(made, "lapse_nightly_started_timestamp_seconds", "When the last night began.", night.began.timestamp())
    _one(made, "lapse_nightly_finished_timestamp_seconds", "When the last night ended.", night.ended.timestamp())
    _one(made, "lapse_nightly_cut_off", "1 if the night left due keys unasked.", int(night.cut_off))
    _one(made, "lapse_nightly_sources_failed", "Sources that could not be read whole.", len(night.failed))
    _labelled(made, "lapse_nightly_calls", "Calls of the last night.", "kind", night.calls)
    _labelled(made, "lapse_nightly_throttled", "Calls of the last night answered 429.", "kind", night.throttled)
    d: DiffOut = night.diff
    changes = {
        "new": d.total.new,
        "died": d.total.died,
        "unproven": d.total.unproven,
        "revived": d.total.revived,
    }
    _labelled(made, "lapse_nightly_keys", "Keys that changed since the night before.", "change", changes)
    _one(made, "lapse_sla_breaches", "Keys live for longer than their owners' limit.", d.total.breaches)
    _labelled(made, "lapse_owner_live", "Live keys.", "owner", {n: f.live for n, f in d.by_owner.items()})
    if d.total.revoke_mean_days is not None and d.total.revoke_p90_days is not None:
        took = {"mean": d.total.revoke_mean_days * 86400, "p90": d.total.revoke_p90_days * 86400}
        _labelled(made, "lapse_time_to_dead_seconds", "From first seen to first refused.", "of", took)


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
