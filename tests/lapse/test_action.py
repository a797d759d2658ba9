"""The action for GitHub, run as GitHub runs it: a summary that is Markdown, SARIF, and a failure on a live key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from desk import Desk, row, sendgrid, simulator

ACTION = Path(__file__).parents[2] / "deploy" / "github" / "action.yml"
SCRIPT = yaml.safe_load(ACTION.read_text("utf-8"))["runs"]["steps"][1]["run"]
HOSTILE = "a|b`</table><h1>@everyone"


def test_the_action_sums_up_and_fails_on_a_live_key(tmp_path: Path) -> None:
    shim = tmp_path / "lapse" / "bin" / "lapse"
    shim.parent.mkdir(parents=True)
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lapse.cli "$@"\n')
    shim.chmod(0o755)
    with simulator() as saas, Desk(tmp_path, saas, ["sendgrid"]) as desk:
        saas.add("sendgrid", sendgrid(1), "live")
        env = desk.env | {
            "RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "CONFIG": "",
            "GITHUB_OUTPUT": str(tmp_path / "output"), "SARIF": "lapse.sarif", "FAIL": "true",
            "REPORTS": desk.report([row("sendgrid", sendgrid(1), HOSTILE)]),
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", SCRIPT],
            cwd=tmp_path,
            env=env,
            text=True,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 10, done.stderr
    summary = (tmp_path / "summary.md").read_text("utf-8")
    assert summary.startswith("## Leaked keys: 1 live\n\n| | keys |\n|---|---:|\n")
    assert HOSTILE not in summary, "what scanners wrote ends no cell"
    assert sendgrid(1) not in summary + done.stdout + done.stderr
    assert json.loads((tmp_path / "lapse.sarif").read_bytes())["version"] == "2.1.0"
    assert (tmp_path / "output").read_text() == "code=10\n"
