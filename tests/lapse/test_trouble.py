"""When the machine or the code fails: one sentence, an exit code by design, no traceback and no secret."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from desk import Desk, row, sendgrid, simulator

from lapse.ending import end
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError
from verifier.egress import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.sandbox.saas import Saas

BROKEN_PROVIDER = """
from verifier.spec import Kind
TITLE = "Broken"
KINDS = (Kind(id="broken", title="Broken", category="other", docs="https://acme.test", probe="code"),)

async def probe(kind, credential, door, *, base_url=None):
    raise ValueError("cannot parse " + credential.parts["secret"].reveal())
"""


@pytest.fixture
def saas() -> Iterator[Saas]:
    with simulator() as saas:
        yield saas


@pytest.fixture
def desk(tmp_path: Path, saas: Saas) -> Iterator[Desk]:
    with Desk(tmp_path, saas, ["sendgrid"]) as desk:
        saas.add("sendgrid", sendgrid(1), "live")
        desk.run("ingest", desk.report([row("sendgrid", sendgrid(1))]))
        yield desk


def shell(desk: Desk, script: str) -> subprocess.CompletedProcess[str]:
    script = script.replace("lapse", f"{sys.executable} -m lapse.cli")
    done = subprocess.run(
        ["bash", "-c", script], cwd=desk.folder, env=desk.env, text=True, capture_output=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("verb", ["report --format json", "report --format sarif", "status", "verify --format jsonl"])
def test_an_output_that_is_full_is_told(desk: Desk, verb: str) -> None:
    done = shell(desk, f"lapse {verb} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("lapse: cannot read or write the output: No space left")
    assert "whole" in desk.run("ledger", "check").stderr


@pytest.mark.parametrize("verb", ["report", "status", "verify --format jsonl", "providers --calls"])
def test_a_closed_output_is_told(desk: Desk, verb: str) -> None:
    done = shell(desk, f"lapse {verb} >&-")
    assert done.returncode == 1
    assert "stdout is closed" in done.stderr


@pytest.mark.parametrize("verb", ["providers --calls", "report --format json", "verify -q --format json"])
def test_a_reader_that_had_enough_hears_nothing(desk: Desk, verb: str) -> None:
    assert "lapse:" not in shell(desk, f"lapse {verb} | head -c 1").stderr


def test_a_full_disk_loses_nothing_that_was_there(desk: Desk) -> None:
    report = desk.report((row("sendgrid", sendgrid(n), line=n) for n in range(2, 8000)), "big.jsonl")
    room = desk.ledger.stat().st_size // 1024 + 100
    done = shell(desk, f"ulimit -f {room}; lapse ingest {report}")
    assert done.returncode == 1
    assert "check the disk" in done.stderr
    assert "whole" in desk.run("ledger", "check").stderr
    assert desk.run("verify", code=None).returncode == 10


@pytest.mark.parametrize("key", [None, "not a key"])
def test_a_sealing_key_that_is_lost_or_spoilt_is_named(desk: Desk, key: str | None) -> None:
    held = desk.folder / "ledger.key"
    held.unlink()
    if key is not None:
        held.write_text(key)
    for verb in (["verify"], ["ingest", "report.jsonl"]):
        done = desk.run(*verb, code=1)
        assert "ledger.key" in done.stderr.splitlines()[-1]


def test_a_damaged_ledger_is_named(desk: Desk) -> None:
    for beside in desk.ledger.parent.glob("ledger.db-*"):
        beside.unlink()
    held = desk.ledger.read_bytes()
    desk.ledger.write_bytes(held[:8192] + b"\xa5" * 12288 + held[20480:])
    for verb in ("status", "verify", "report"):
        assert "damaged" in desk.run(verb, code=1).stderr
    desk.ledger.write_bytes(b"no database" * 1000)
    assert "is not a ledger" in desk.run("status", code=1).stderr


def test_a_defect_tells_its_place_and_no_secret(desk: Desk) -> None:
    (desk.folder / "broken_provider.py").write_text(BROKEN_PROVIDER)
    desk.env["PYTHONPATH"] = str(desk.folder)
    desk.config.append('[catalogue]\nmodules = ["broken_provider"]')
    desk.write()
    secret = "x7" + "Kq9" * 9
    report = desk.report([row("broken", secret), row("sendgrid", sendgrid(1))], "broken.jsonl")
    done = desk.run("verify", report, "-v", code=1)
    assert secret not in done.stdout + done.stderr
    assert "ValueError at broken_provider.py:7" in done.stderr.splitlines()[-1]
    assert "whole" in desk.run("ledger", "check").stderr


def test_numbers_that_no_database_holds_are_left_out(desk: Desk) -> None:
    lines = [2**63 - 1, 2**63, 2**64, 10**30, -5, 0]
    rows = [row("sendgrid", sendgrid(10 + n), line=line) for n, line in enumerate(lines)]
    rows += [row("sendgrid", sendgrid(20 + n), column=line) for n, line in enumerate(lines)]
    desk.run("ingest", desk.report(rows, "numbers.jsonl"))
    assert "whole" in desk.run("ledger", "check").stderr
    json.loads(desk.run("report", "--format", "sarif").stdout)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Stop("no", Exit.NO_RIGHTS), 4, "lapse: no"),
        (LedgerError("it is gone"), 1, "lapse: it is gone"),
        (RefusedError("HTTPS_PROXY is odd"), 2, "lapse: HTTPS_PROXY is odd"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BaseExceptionGroup("g", [BrokenPipeError(), ExceptionGroup("h", [LedgerError("deep")])]), 1, "deep"),
        (MemoryError(), 1, "not enough memory"),
        (ValueError("hunter2"), 1, "a mistake in Lapse itself: ValueError"),
    ],
)
def test_endings(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(error) == code
    said = capsys.readouterr().err
    assert words in said
    assert "hunter2" not in said
