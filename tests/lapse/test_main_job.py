"""The main job by the command line: ingest, verify, status, show, report."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import jsonschema
import makers
import pytest
from desk import Desk, row, sendgrid, simulator

from lapse.output.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.sandbox.saas import Saas


@pytest.fixture
def saas() -> Iterator[Saas]:
    with simulator() as saas:
        yield saas


@pytest.fixture
def desk(tmp_path: Path, saas: Saas) -> Iterator[Desk]:
    with Desk(tmp_path, saas, ["sendgrid"]) as desk:
        yield desk


def valid(document: object) -> None:
    jsonschema.validate(document, schema())


def test_from_report_to_verdict(desk: Desk, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    saas.add("sendgrid", sendgrid(2), "restricted")
    report = desk.report([row("sendgrid", sendgrid(n), f"{m}.env") for n in range(4) for m in range(3)])

    told = desk.json("ingest", report, "--format", "json")
    valid(told)
    assert (told["findings"], told["keys"], told["new"]) == (12, 4, 4)
    assert told["files"] == [
        {"file": report, "format": "generic-jsonl", "findings": 12, "skipped": 0, "complete": True}
    ]

    lines = desk.lines("verify", "--format", "jsonl", code=10)
    for line in lines:
        valid(line)
    assert sorted((x["verdict"], x["restricted"], x["confirmed"]) for x in lines) == [
        ("dead", False, True), ("dead", False, True), ("live", False, False), ("live", True, False),
    ]  # fmt: skip
    assert all(x["findings"] == 3 for x in lines)

    status = desk.json("status", "--format", "json", code=10)
    valid(status)
    assert status["status"]["live"] == 2
    assert status["status"]["dead"] == 2

    whole = desk.json("report", "--format", "json")
    valid(whole)
    assert [len(k["places"]) for k in whole["keys"]] == [3, 3, 3, 3]
    assert "whole" in desk.run("ledger", "check").stderr


def test_one_shot_with_no_sealing_key_asks_but_keeps_nothing(tmp_path: Path, saas: Saas) -> None:
    desk = Desk(tmp_path, saas, ["sendgrid"])
    desk.config[0] = ""
    desk.write()
    saas.add("sendgrid", sendgrid(1), "live")
    report = desk.report([row("sendgrid", sendgrid(1)), row("sendgrid", sendgrid(2))])
    assert "kept for this run only" in desk.run("ingest", report).stderr
    lines = desk.lines("verify", report, "--format", "jsonl", code=10)
    assert sorted(x["verdict"] for x in lines) == ["dead", "live"]
    said = desk.run("verify", code=10)
    assert "no secret is kept" in said.stderr
    assert sendgrid(1).encode() not in b"".join(p.read_bytes() for p in desk.ledger.parent.iterdir())


def test_one_call_a_distinct_key_plus_confirmations(desk: Desk, saas: Saas) -> None:
    for n in range(20):
        saas.add("sendgrid", sendgrid(n), "live" if n % 2 else "dead")
    report = desk.report(row("sendgrid", sendgrid(n), f"{m}.env", m) for m in range(50) for n in range(20))
    assert desk.json("ingest", report, "--format", "json")["findings"] == 1000
    desk.run("verify", code=10)
    assert len(saas.asked) == 20 + 10


def test_an_outage_confirms_no_death_and_raises_the_alarm(desk: Desk, saas: Saas) -> None:
    for n in range(30):
        saas.add("sendgrid", sendgrid(n), "live")
    report = desk.report(row("sendgrid", sendgrid(n)) for n in range(30))
    desk.run("verify", report, code=10)
    for n in range(30):
        saas.add("sendgrid", sendgrid(n), "dead")
    said = desk.run("verify", "--format", "jsonl", code=12)
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(lines) == 30
    assert not any(x["confirmed"] for x in lines)
    assert "ALARM: sendgrid now refuses 30 keys" in said.stderr
    assert desk.json("status", "--format", "json", code=12)["status"]["dead"] == 0


def test_a_key_asked_about_alone_does_not_slip_past_the_brake(desk: Desk, saas: Saas) -> None:
    for n in range(6):
        saas.add("sendgrid", sendgrid(n), "live")
    desk.run("verify", desk.report(row("sendgrid", sendgrid(n)) for n in range(6)), code=10)
    for n in range(6):
        saas.add("sendgrid", sendgrid(n), "dead")
    lines = desk.lines("verify", "--no-wait", "--format", "jsonl", code=12)
    time.sleep(1)
    desk.run("verify", lines[0]["key"], code=12)
    for line in lines:
        desk.run("verify", line["key"], "--wait", code=12)
    assert desk.json("status", "--format", "json", code=12)["status"]["dead"] == 0


def test_keys_asked_about_one_by_one_in_an_outage_meet_the_brake(desk: Desk, saas: Saas) -> None:
    """Two may be believed; what follows looks like an outage until somebody there is accepted again."""
    for n in range(6):
        saas.add("sendgrid", sendgrid(n), "live")
    lines = desk.lines(
        "verify", desk.report(row("sendgrid", sendgrid(n)) for n in range(6)), "--format", "jsonl", code=10
    )
    for n in range(6):
        saas.add("sendgrid", sendgrid(n), "dead")
    for line in lines:
        desk.run("verify", line["key"], code=None)
    assert desk.json("status", "--format", "json", code=None)["status"]["dead"] == 2
    saas.add("sendgrid", sendgrid(0), "live")
    desk.run("verify", "--all", code=10)


def test_removed_from_source_never_revoked_comes_first(desk: Desk, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    rows = [row("sendgrid", sendgrid(1), "old.env"), row("sendgrid", sendgrid(2), "new.env")]
    desk.run("verify", desk.report(rows), code=10)
    desk.run("ingest", desk.report(rows[1:], "later.jsonl"))
    status = desk.run("status", code=10)
    first = status.stdout.splitlines()[0]
    assert "1" in first
    assert "never revoked" in first
    (live,) = [k for k in desk.json("report", "--format", "json")["keys"] if k["verdict"] == "live"]
    assert live["removed_from_source"] is True
    assert live["places"][0]["removed_at"]


def test_show_tells_the_story_and_reveals_only_with_a_reason(desk: Desk, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    desk.run("verify", desk.report([row("sendgrid", sendgrid(1))]), code=10)
    (key,) = desk.json("report", "--format", "json")["keys"]
    told = desk.run("show", key["key"], code=10)
    assert "found-live" in told.stdout
    assert sendgrid(1) not in told.stdout
    assert "--reason" in desk.run("show", key["key"], "--reveal", code=2).stderr
    assert sendgrid(1) in desk.run("show", key["key"], "--reveal", "--reason", "hand over", code=10).stdout
    assert "revealed: hand over" in desk.run("show", key["key"], code=10).stdout


def test_purged_secrets_are_gone_from_the_file(desk: Desk, saas: Saas) -> None:
    desk.run("verify", desk.report([row("sendgrid", sendgrid(1))]), code=0)
    desk.run("purge", "--dead")
    assert "not kept" in desk.run("show", "sendgrid-", "--reveal", "--reason", "x", code=1).stderr
    assert "whole" in desk.run("ledger", "check").stderr


def test_a_newer_answer_withdraws_and_a_foreign_key_is_marked(desk: Desk, saas: Saas) -> None:
    desk.config.append('[scope]\naccounts = ["111122223333"]\nmode = "ours"')
    desk.write()
    theirs = row("aws_akia", makers.aws_secret())
    theirs["parts"]["id"] = makers.aws_id("999988887777")
    lines = desk.lines("verify", desk.report([theirs]), "--format", "jsonl", code=11)
    assert lines[0]["verdict"] == "undecided"
    assert lines[0]["why"] == "refused"
    assert lines[0]["owner"] == "foreign"
    assert saas.asked == []


def test_exit_zero_is_for_pipelines_but_not_for_errors(desk: Desk, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    report = desk.report([row("sendgrid", sendgrid(1))])
    desk.run("verify", report, "--exit-zero", code=0)
    desk.run("verify", "nobody-has-this", "--exit-zero", code=2)


def test_two_verifications_of_one_ledger_refuse_each_other(desk: Desk) -> None:
    import fcntl  # this test only

    report = desk.report([row("sendgrid", sendgrid(1))])
    desk.run("ingest", report)
    with open(f"{desk.ledger}.lock", "w") as lock:  # noqa: PTH123  # a path with a suffix of its own
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another verification is at work" in desk.run("verify", code=1).stderr
