"""`lapse report --run`, `--verify`, `lapse status` and `lapse show`, as people and pipelines use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from evidence_made import BOOK, KEK, LEAKED, PLANTED, Office, made
from stage import drive, planned

from lapse.commands import evidence, report, show, status
from lapse.commands.report import Evidence
from lapse.evidence.audit import audit
from lapse.evidence.signing import fingerprint, pem
from lapse.exits import Exit, Stop
from lapse.output.jsonv1 import KeyReport, StatusOut
from lapse.output.rotations import age, rotation
from lapse.output.storyline import KeyShown
from rotators.interface import Trouble
from verifier.model import Dead, How
from verifier.model import Evidence as Proof
from verifier.ports import Judged

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TWO = BOOK.replace("[retire]", "[approvals]\ndestroys = 'two'\n[retire]")


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.chdir(tmp_path)
    with made(tmp_path) as ledger:
        (tmp_path / "lapse.toml").write_text(f'[ledger]\nurl = "{tmp_path}/ledger.db"\nkey = "{KEK}"\n')
        yield Office.at(ledger)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """Give what was printed, and look for secrets in all of it."""
    yield capfd
    out, err = capfd.readouterr()
    assert [p for p in PLANTED if p in out + err] == []


def ours(office: Office) -> str:
    return fingerprint(bytes.fromhex(office.ledger.head().public_key))


def verify(name: str, key: str | None = None) -> Exit:
    return report.run("-", None, None, Evidence(None, Path(name), key))


# ── report ─────────────────────────────────────────────────────────────────────────────────────────────


def test_evidence_is_written_by_the_files_ending_and_checked(
    office: Office, said: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    office.rotate()
    for name in ("e.json", "e.html"):
        assert report.run(name, None, None, Evidence("r-1")) is Exit.OK
        told = said.readouterr()
        assert told.out == ""
        assert f"wrote {name}" in told.err
        assert f"sha256:{ours(office)}" in told.err
        assert verify(name, ours(office)) is Exit.OK
        assert "whole: evidence of r-1 (sim-000000, finished)" in said.readouterr().out
    assert report.run("-", None, None, Evidence("r-")) is Exit.OK, "a unique beginning will do"
    assert audit(said.readouterr().out.encode()).problems == ()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".part")) == []
    with office.ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == office.ledger.head().seq


def test_whose_signature_it_is_has_an_exit_code(
    office: Office, said: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    office.rotate()
    report.run("e.json", None, None, Evidence("r-1"))
    (tmp_path / "head.json").write_bytes(msgspec.json.encode(office.ledger.head()))
    (tmp_path / "key.pem").write_text(pem(bytes.fromhex(office.ledger.head().public_key)))
    said.readouterr()
    for key in ("head.json", "key.pem", ours(office), f"sha256:{ours(office)}"):
        assert verify("e.json", key) is Exit.OK
        assert "the key that you named" in said.readouterr().out
    assert verify("e.json") is Exit.OK
    assert "compare it with the one you were told" in said.readouterr().out
    assert verify("e.json", "1" * 64) is Exit.OTHER_KEY
    told = said.readouterr()
    assert "NOT signed by the key that you named" in told.err
    assert ours(office) in told.out


def test_what_was_altered_is_said_line_by_line(
    office: Office, said: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    office.rotate()
    report.run("e.json", None, None, Evidence("r-1"))
    data = (tmp_path / "e.json").read_bytes()
    (tmp_path / "e.json").write_bytes(data.replace(b'"who":"ann"', b'"who":"eve"'))
    said.readouterr()
    assert verify("e.json", ours(office)) is Exit.BROKE
    told = said.readouterr()
    assert "body.evidence.approvals was altered" in told.out
    assert "NOT as it was signed" in told.err


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (lambda: report.run("-", None, None, Evidence("r-none")), Exit.USAGE, "is no rotation"),
        (lambda: report.run("e.csv", None, None, Evidence("r-1")), Exit.USAGE, "json or html"),
        (lambda: report.run("e.json", "sarif", None, Evidence("r-1")), Exit.USAGE, "json or html"),
        (lambda: report.run("-", None, None, Evidence("r-1", Path("e"))), Exit.USAGE, "nothing else"),
        (lambda: report.run("-", None, None, Evidence(None, None, "0" * 64)), Exit.USAGE, "nothing else"),
        (lambda: report.run("o", None, None, Evidence(None, Path("e"))), Exit.USAGE, "nothing else"),
        (lambda: report.run("no/e.json", None, None, Evidence("r-1")), Exit.BROKE, "cannot write no/e.json"),
        (lambda: verify("none"), Exit.NO_INPUT, "cannot read none"),
        (lambda: verify("lapse.toml"), Exit.NO_INPUT, "lapse.toml: it is damaged, or was never"),
        (lambda: verify("lapse.toml", "abc"), Exit.USAGE, "--public-key abc: neither"),
        (lambda: verify("lapse.toml", "lapse.toml"), Exit.USAGE, "no Ed25519 public key"),
    ],
    ids=[
        "no such run", "other ending", "other format", "both", "key alone", "verify and write", "no folder", "no file",
        "other file", "no key", "file without key",
    ],
)  # fmt: skip
def test_mistakes_end_in_one_sentence(office: Office, ask: Any, code: Exit, words: str) -> None:
    office.engine.start("r-1", planned(office.small), "bob")
    with pytest.raises(Stop, match=words) as told:
        ask()
    assert told.value.code is code


def test_a_ledger_that_does_not_add_up_gives_out_nothing(office: Office, tmp_path: Path) -> None:
    import sqlite3

    office.rotate()
    raw = sqlite3.connect(tmp_path / "ledger.db")
    raw.execute("UPDATE rotations SET text='ann was never asked' WHERE what='approved'")
    raw.commit()
    raw.close()
    with pytest.raises(Stop, match="does not add up"):
        evidence.give("r-1", "e.json", None, None)
    assert not (tmp_path / "e.json").exists()


def test_the_check_needs_no_ledger_and_no_configuration(office: Office, tmp_path: Path) -> None:
    office.rotate()
    report.run("e.html", None, None, Evidence("r-1"))
    away = tmp_path / "away"
    away.mkdir()
    (tmp_path / "e.html").rename(away / "e.html")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(away), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "lapse.cli", "report", "--verify", "e.html", "--public-key", ours(office)]
    done = subprocess.run(command, cwd=away, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "whole: evidence of r-1" in done.stdout
    assert [p.name for p in away.rglob("*")] == ["e.html"]


# ── status ─────────────────────────────────────────────────────────────────────────────────────────────


def turn(office: Office, me: str = "cid", **later: float) -> tuple[str, int, tuple[str, ...], str]:
    now = office.small.now() + timedelta(**later)
    r = rotation(office.engine.state("r-1"), me, now)
    return r.stands, r.lacking, r.not_by, r.next


def test_whose_turn_it_is(office: Office) -> None:
    office.engine.start("r-1", planned(office.small, TWO), "bob")
    assert turn(office) == ("part-way", 0, (), "lapse resume r-1")
    office.engine.advance("r-1")
    assert turn(office)[0] == "waits for time"
    drive(office.engine, office.small, "r-1", approve=None)
    assert turn(office) == ("needs you", 2, ("bob",), "lapse approve r-1")
    assert turn(office, " BOB ")[0] == "needs somebody", "who started it is not one of the two"
    office.engine.approve("r-1", "cid")
    assert turn(office) == ("needs somebody", 1, ("cid", "bob"), "lapse approve r-1")
    assert turn(office, "dan")[0] == "needs you"
    office.engine.approve("r-1", "dan")
    assert turn(office) == ("part-way", 0, (), "lapse resume r-1"), "agreed, and nobody went on yet"
    assert turn(office, days=3)[0] == "needs you", "approvals have ended meanwhile"
    office.small.trouble("retire", Trouble.DENIED, 9)
    office.engine.resume("r-1", "bob")
    drive(office.engine, office.small, "r-1")
    assert turn(office)[0] == "stopped"
    office.small.db.execute("DELETE FROM trouble")
    office.engine.resume("r-1", "bob")
    drive(office.engine, office.small, "r-1")
    assert turn(office) == ("ended", 0, (), "")


def test_a_wait_that_is_renewed_is_as_old_as_its_beginning(office: Office) -> None:
    office.engine.start("r-1", planned(office.small), "bob")
    drive(office.engine, office.small, "r-1", approve=None)
    began = rotation(office.engine.state("r-1"), "ann", office.small.now()).since
    office.small.pass_time(7200)
    office.engine.resume("r-1", "bob")
    office.engine.advance("r-1")
    again = rotation(office.engine.state("r-1"), "ann", office.small.now())
    assert again.since == began
    assert again.age_seconds >= 7200


def test_status_tells_people_and_programs(office: Office, said: pytest.CaptureFixture[str]) -> None:
    office.engine.start("r-1", planned(office.small), "bob")
    drive(office.engine, office.small, "r-1", approve=None)
    assert status.run(None, 5, "ann", json=False) is Exit.LIVE
    line = next(line for line in said.readouterr().out.splitlines() if line.startswith("r-1"))
    assert "needs you" in line
    assert "one person must agree to: destroys — Delete the old key for good" in line
    assert line.endswith("lapse approve r-1")
    status.run(None, 5, None, json=True)
    told = said.readouterr().out
    assert [r["run"] for r in json.loads(told)["rotations"]] == ["r-1"]
    assert msgspec.json.decode(told, type=StatusOut).rotations[0].step == "delete"


def test_an_open_rotation_keeps_status_from_saying_all_is_well(office: Office) -> None:
    now = datetime.now(UTC)
    dead = Dead(Proof("GET https://sim/", 401, "{}", "0" * 64, "sim@0", now, "sim"), How.REVOKED, confirmed=True)
    office.engine.start("r-1", planned(office.small), "bob")
    drive(office.engine, office.small, "r-1", approve=None)
    kind = office.ledger.key(office.key).provider
    office.ledger.record([Judged(office.key, kind, dead, now)])
    assert status.run(None, 5, "ann", json=True) is Exit.WAITING
    office.small.trouble("retire", Trouble.DENIED, 9)
    drive(office.engine, office.small, "r-1")
    assert status.run(None, 5, "ann", json=True) is Exit.PART_WAY
    office.small.db.execute("DELETE FROM trouble")
    office.engine.resume("r-1", "bob")
    drive(office.engine, office.small, "r-1")
    assert status.run(None, 5, "ann", json=True) is Exit.OK


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")], ids=str
)
def test_ages(seconds: int, words: str) -> None:
    assert age(seconds) == words
    assert age(timedelta(seconds=seconds)) == words


# ── show ───────────────────────────────────────────────────────────────────────────────────────────────


def test_show_tells_one_line_of_time(office: Office, said: pytest.CaptureFixture[str]) -> None:
    office.rotate()
    now = office.small.now()
    dead = Dead(Proof("GET https://sim/", 401, "{}", "0" * 64, "sim@0", now, "sim"), How.REVOKED, confirmed=True)
    office.ledger.record([Judged(office.key, office.ledger.key(office.key).provider, dead, now)])
    assert show.run("sim-", None, reveal=False, reason="", json=False) is Exit.OK
    text = said.readouterr().out
    way = next(line for line in text.splitlines() if line.lstrip().startswith("way "))
    stages = [part.split()[0] for part in way.split("way", 1)[1].split("→")]
    assert stages == ["leaked", "seen", "live", "minted", "deployed", "disabled", "deleted", "dead"]
    story = text.partition("  story\n")[2].splitlines()
    assert [line[4:23] for line in story] == sorted(line[4:23] for line in story)
    heads = ("leaked in acme/app", "gitleaks saw it", "live (found-live)", "rotation r-1 started", "create done")
    heads += ("disable done", "delete approved: ann agrees", "prove done: refused", "ended: the old key is proven")
    places = [next(i for i, line in enumerate(story) if head in line) for head in heads]
    assert places == sorted(places)
    assert not any(" note:" in line or "intent" in line for line in story)
    assert f"{LEAKED:%Y-%m-%d %H:%M:%S}" in story[0]


def test_show_in_json_only_grew(office: Office, said: pytest.CaptureFixture[str]) -> None:
    office.engine.start("r-1", planned(office.small), "bob")
    drive(office.engine, office.small, "r-1", approve=None)
    assert show.run("sim-", None, reveal=False, reason="", json=True) is Exit.LIVE
    told = said.readouterr().out
    before = msgspec.json.decode(told, type=KeyReport)
    assert before.places[0].path == "a.env"
    grown = msgspec.json.decode(told, type=KeyShown)
    assert [s.stage for s in grown.way] == ["leaked", "seen", "live", "minted", "deployed", "disabled"]
    assert [r.run for r in grown.rotations] == ["r-1"]
    assert {line.kind for line in grown.story} >= {"leaked", "seen", "verdict", "rotation", "note"}
    assert set(json.loads(told)) - set(json.loads(msgspec.json.encode(before))) == {"way", "story", "rotations"}


def test_show_says_what_an_open_rotation_waits_for(office: Office, said: pytest.CaptureFixture[str]) -> None:
    office.engine.start("r-1", planned(office.small), "bob")
    drive(office.engine, office.small, "r-1", approve=None)
    show.run("sim-", None, reveal=False, reason="", json=False)
    text = said.readouterr().out
    assert "rotation   r-1 needs somebody since" in text
    office.engine.undo("r-1", "bob")
    drive(office.engine, office.small, "r-1")
    show.run("sim-", None, reveal=False, reason="", json=False)
    text = said.readouterr().out
    way = next(line for line in text.splitlines() if line.lstrip().startswith("way "))
    assert "minted" not in way, "taken back"
    assert "rotation r-1 undo: to be taken back, says bob" in text


def test_a_later_run_that_came_to_nothing_hides_none(office: Office, said: pytest.CaptureFixture[str]) -> None:
    office.rotate()
    office.small.db.execute("UPDATE keys SET state='active' WHERE id='K-old'")
    office.small.trouble("preflight", Trouble.DENIED, 9)
    office.rotate("r-2")
    assert office.evidence("r-2").run.outcome == "failed"
    show.run("sim-", None, reveal=False, reason="", json=True)
    assert "minted" in [s["stage"] for s in json.loads(said.readouterr().out)["way"]]


def test_a_step_that_was_cut_off_is_under_way(office: Office, said: pytest.CaptureFixture[str]) -> None:
    from playbooks.journal import What

    office.engine.start("r-1", planned(office.small), "bob")
    office.engine.journal.append("r-1", "evidence", What.INTENT, "ask")
    show.run("sim-", None, reveal=False, reason="", json=False)
    assert "rotation r-1 evidence under way: ask" in said.readouterr().out


def test_an_emergency_is_told_as_contained(office: Office, said: pytest.CaptureFixture[str]) -> None:
    from playbooks.plan import Mode

    office.rotate(mode=Mode.EMERGENCY)
    show.run("sim-", None, reveal=False, reason="", json=True)
    stages = [s["stage"] for s in json.loads(said.readouterr().out)["way"]]
    assert stages[3:5] == ["contained", "minted"]
    assert "disabled" not in stages
