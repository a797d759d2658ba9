"""Whole nights against the simulator: what is asked, what is told, what is left over."""

from __future__ import annotations

import fcntl
import json
import sys
from typing import TYPE_CHECKING

import pytest
from night import said
from prometheus_client.parser import text_string_to_metric_families
from rows import row, sendgrid

from lapse.commands import ingest
from lapse.exits import Exit, Stop
from lapse.metrics import exposition

if TYPE_CHECKING:
    from night import Folder

    from lapse.sandbox.saas import Saas


def test_a_night_reads_asks_and_tells_what_changed(folder: Folder, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report(row(n) for n in range(3))
    first = folder.night(Exit.LIVE)
    assert (first["keys"], first["new_keys"], first["asked"]) == (3, 3, 3)
    assert first["calls"] == {"sendgrid": 5}, "one a key, and one more for each that was refused"
    assert [d["key"][:9] for d in first["diff"]["new"]] == ["sendgrid-"]

    second = folder.night(Exit.LIVE)
    assert (second["unchanged_reports"], second["asked"]) == (1, 1), "only the live key is asked about again"
    assert (second["diff"]["total"]["new"], second["diff"]["total"]["live"]) == (0, 1)

    saas.add("sendgrid", sendgrid(1), "dead")
    third = folder.night(Exit.OK)
    assert [d["confirmed"] for d in third["diff"]["died"]] == [True]
    assert third["diff"]["total"]["revoke_mean_days"] is not None


def test_a_revived_key_is_an_alarm(folder: Folder, saas: Saas) -> None:
    folder.also('[nightly]\ndead_again = "0s"\ndead_later = "0s"')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    folder.night(Exit.LIVE)
    saas.add("sendgrid", sendgrid(1), "dead")
    folder.night(Exit.OK)
    saas.add("sendgrid", sendgrid(1), "live")
    night = folder.night(Exit.LIVE)
    assert "works again" in night["alarms"][0]
    assert night["diff"]["total"]["revived"] == 1
    assert night["diff"]["total"]["live"] == 1


def test_the_budget_of_a_night_is_kept_and_the_next_night_goes_on(folder: Folder, saas: Saas) -> None:
    folder.also("[nightly]\nbudget = 3")
    for n in range(8):
        saas.add("sendgrid", sendgrid(n), "live")
    folder.report(row(n) for n in range(8))
    nights = [folder.night(Exit.PART_WAY), folder.night(Exit.PART_WAY), folder.night(Exit.LIVE)]
    assert [n["asked"] for n in nights] == [3, 3, 2]
    assert [n["resumed"] for n in nights] == [False, True, True]
    assert len(saas.asked) == 8, "each key was asked about once"


def test_a_deadline_stops_cleanly_and_the_next_night_asks_only_the_rest(folder: Folder, saas: Saas) -> None:
    for n in range(30):
        saas.add("sendgrid", sendgrid(n), "live")
    folder.report(row(n) for n in range(30))
    fast = folder.config.read_text()
    folder.config.write_text(fast.replace("rate = 5000.0\nburst = 5000", "rate = 10.0\nburst = 1"))
    with said():
        ingest.run(["reports/a.jsonl"], None, None, None, folder.config, partial=False, json=True, quiet=True)
    first = folder.night(Exit.PART_WAY, deadline="300ms", sources=False)
    assert first["cut_off"]
    assert "goes on from here" in first["said"]
    folder.config.write_text(fast)
    second = folder.night(Exit.LIVE, sources=False)
    assert second["resumed"]
    assert not second["cut_off"]
    assert first["asked"] + second["asked"] == 30
    assert len(saas.asked) == 30


def test_two_at_once_refuse_each_other(folder: Folder) -> None:
    path = folder.ledger().path
    with open(f"{path}.lock", "w") as lock:  # noqa: PTH123  # a path with a suffix of its own
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Stop, match="another verification is at work"):
            folder.night()


def test_a_broken_source_stops_no_other(folder: Folder, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    folder.also('[[nightly.source]]\nname = "gone"\nfrom = "nowhere.json"')
    folder.report([row(1)])
    night = folder.night(Exit.BROKE)
    assert night["failed"] == ["gone: there is no such file"]
    assert night["diff"]["total"]["live"] == 1


def scanner(folder: Folder, rows: list[dict[str, object]], code: int) -> str:
    """Return a command that prints a report and ends with `code`."""
    text = "".join(json.dumps(r) + "\n" for r in rows)
    script = folder.path / "scanner.py"
    script.write_text(f"import sys\nsys.stdout.write({text!r})\nsys.exit({code})\n")
    return json.dumps([sys.executable, str(script)])


@pytest.mark.parametrize(("code", "gone"), [(0, True), (200, True), (3, False)])
def test_a_scanner_is_run_and_a_bad_end_makes_its_report_a_part(
    folder: Folder, saas: Saas, code: int, *, gone: bool
) -> None:
    for n in (1, 2):
        saas.add("sendgrid", sendgrid(n), "live")
    command = scanner(folder, [row(1), row(2)], 0)
    folder.also(f'[[nightly.source]]\nname = "ours"\ncommand = {command}')
    folder.night(Exit.LIVE)
    scanner(folder, [row(2)], code)
    night = folder.night(Exit.BROKE if code == 3 else Exit.LIVE)
    assert night["diff"]["total"]["removed_never_revoked"] == int(gone)


def test_without_a_sealing_key_tonights_reports_are_asked_about(folder: Folder, saas: Saas) -> None:
    folder.config.write_text(
        folder.config.read_text().replace('[ledger]\nkey = "file:ledger.key"', '[ledger]\nurl = "bare.db"')
    )
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    night = folder.night(Exit.LIVE)
    assert night["diff"]["total"]["live"] == 1
    assert "no sealing key" in night["said"]


def test_reports_and_metrics_are_written(folder: Folder, saas: Saas) -> None:
    folder.also('[nightly]\nreports = ["out.sarif", "out.csv"]\n[metrics]\ntextfile = "lapse.prom"')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1), row(2)])
    folder.night(Exit.LIVE)
    assert json.loads((folder.path / "out.sarif").read_text())["version"] == "2.1.0"
    families = {f.name: f for f in text_string_to_metric_families((folder.path / "lapse.prom").read_text())}
    keys = {s.labels["verdict"]: s.value for s in families["lapse_keys"].samples}
    assert (keys["live"], keys["dead"]) == (1, 1)
    assert [s.value for s in families["lapse_nightly_calls"].samples] == [3]
    assert families["lapse_nightly_throttled"].samples == []
    assert families["lapse_oldest_live_seconds"].samples[0].value > 0
    assert "lapse_sla_breaches" in families


def test_the_endpoint_tells_of_the_last_night_and_of_how_long_keys_lived(folder: Folder, saas: Saas) -> None:
    """From the ledger alone: another machine's console knows as much."""
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    folder.night(Exit.LIVE)
    saas.add("sendgrid", sendgrid(1), "dead")
    folder.night(Exit.OK)
    with folder.ledger() as ledger:
        families = {f.name: f for f in text_string_to_metric_families(exposition(ledger).decode())}
    verdicts = {s.labels["verdict"]: s.value for s in families["lapse_keys"].samples}
    assert (verdicts["live"], verdicts["dead"], verdicts["dead_unconfirmed"]) == (0, 1, 0)
    assert [(s.labels, s.value) for s in families["lapse_nightly_calls"].samples] == [({"kind": "sendgrid"}, 2)]
    assert families["lapse_oldest_live_seconds"].samples[0].value == 0
    assert {"lapse_nightly_throttled", "lapse_nightly_cut_off", "lapse_nightly_failed"} <= families.keys()
    lived = {(s.name, s.labels.get("le")): s.value for s in families["lapse_time_to_proven_dead_seconds"].samples}
    assert lived["lapse_time_to_proven_dead_seconds_count", None] == 1
    assert lived["lapse_time_to_proven_dead_seconds_bucket", "3600.0"] == 1
    assert 0 < lived["lapse_time_to_proven_dead_seconds_sum", None] < 3600


def test_what_could_not_be_written_is_refused_before_the_night(folder: Folder, saas: Saas) -> None:
    folder.also('[nightly]\nreports = ["nowhere/out.sarif"]')
    folder.report([row(1)])
    with pytest.raises(Stop, match="there is no folder"):
        folder.night()
    assert saas.asked == []
