"""A local command and a webhook."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hands import secrets
from sim_http import Sim

from rotators.consumers import command, webhook
from rotators.interface import Consumer, ProviderError, Trouble
from rotators.step import Done, Failed, Unsure

KEY = "a-webhook-key-of-the-test"


def _python(code: str) -> str:
    return f"{sys.executable} -c {shlex.quote(code)}"


def test_the_secret_comes_on_standard_input_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPSE_AGE_IDENTITY", "ours")
    out = tmp_path / "out"
    code = (
        "import sys,os,json; json.dump({'in': sys.stdin.read(), 'argv': sys.argv, 'env': dict(os.environ)},"
        f" open({str(out)!r}, 'w'))"
    )
    consumer = command.make({"command": _python(code)})
    assert isinstance(consumer, Consumer)
    assert isinstance(consumer.push(secrets(id="a", secret="s3cret"), "run-1"), Done)
    seen = json.loads(out.read_text())
    assert json.loads(seen["in"]) == {"id": "a", "secret": "s3cret"}
    assert "s3cret" not in json.dumps([seen["argv"], seen["env"]])
    assert seen["env"]["LAPSE_RUN"] == "run-1"
    assert "LAPSE_AGE_IDENTITY" not in seen["env"]
    command.make({"command": _python(code), "field": "secret"}).push(secrets(id="a", secret="s3cret"), "run-1")
    assert json.loads(out.read_text())["in"] == "s3cret"
    assert consumer.pushed("run-1") is None


def test_how_it_ended_is_told_and_what_it_printed_is_not(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = command.make({"command": _python("import sys; print(sys.stdin.read()); sys.exit(3)")}).push(
        secrets(secret="s3cret"), "r"
    )
    assert isinstance(said, Failed)
    assert "status 3" in said.reason
    assert "s3cret" not in repr(said) + "".join(capfd.readouterr())
    assert isinstance(command.make({"command": "true"}).push(secrets(secret="x" * 1_000_000), "r"), Done)
    check = _python("import os,sys; sys.exit({'run-1': 0, 'run-2': 1}.get(os.environ['LAPSE_RUN'], 7))")
    consumer = command.make({"command": "true", "check": check, "folder": str(tmp_path)})
    assert [consumer.pushed(run) for run in ("run-1", "run-2", "run-3")] == [True, False, None]


_DIES = """
import os, signal, subprocess
from rotators.consumers import command
from verifier.secret import Secret

class Deadly(subprocess.Popen):
    def __init__(self, *words, **how):
        super().__init__(*words, **how)
        os.kill(os.getpid(), signal.SIGKILL)

subprocess.Popen = Deadly
command.make({settings}).push({{"secret": Secret("s3cret"), "id": Secret("a")}}, "run-1")
"""


def test_a_command_has_all_of_its_input_though_we_die_as_it_starts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"cat > {out}.new && mv {out}.new {out}"
    settings = {"command": f"/bin/sh -c {shlex.quote(script)}"}
    done = subprocess.run([sys.executable, "-c", _DIES.format(settings=settings)], check=False)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 10
    while not out.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert json.loads(out.read_text()) == {"secret": "s3cret", "id": "a"}


def test_more_than_a_pipe_holds_is_refused_before_the_command_starts(tmp_path: Path) -> None:
    huge = "x" * (2 << 20)
    touched = tmp_path / "touched"
    with pytest.raises(ProviderError, match="more than can be handed over"):
        command.make({"command": f"touch {touched}", "field": "secret"}).push(secrets(secret=huge), "r")
    assert not touched.exists()


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        f"import subprocess; p = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    said = command.make({"command": _python(code), "timeout": "1"}).push(secrets(secret="x"), "r")
    assert isinstance(said, Unsure)
    child = int(pid.read_text())
    for _ in range(100):  # the signal takes a moment; it may be a zombie of init's for longer
        try:
            if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    raise AssertionError(f"{child} lives on")


@pytest.mark.parametrize("settings", [{}, {"command": "'"}, {"command": "true", "timeout": "soon"}])
def test_commands_that_are_none(settings: dict[str, str]) -> None:
    with pytest.raises(ProviderError):
        command.make(settings)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(ProviderError, match="cannot run"):
        command.make({"command": "/no/such/program"}).push(secrets(secret="x"), "r")


def test_a_webhook_says_that_and_not_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPSE_WEBHOOK_KEY", KEY)
    with Sim(lambda _: (202, {})) as sim:
        settings = {"url": f"{sim.url}/hook", "allow_private": "127.0.0.1/32"}
        consumer = webhook.make(settings)
        assert isinstance(consumer, Consumer)
        for _ in range(2):
            assert isinstance(consumer.push(secrets(id="a", secret="s3cret"), "run-1"), Done)
        webhook.make({**settings, "values": "yes"}).push(secrets(secret="s3cret"), "run-2")
        first, again, other = sim.asked
        assert first.json == {"v": 1, "event": "rotated", "run": "run-1", "fields": ["id", "secret"]}
        moment, signature = (part[part.index("=") + 1 :] for part in first.headers["x-lapse-signature"].split(","))
        assert signature == webhook.sign(KEY, moment, first.body)
        assert signature != webhook.sign(KEY + "x", moment, first.body)
        assert (
            first.headers["x-lapse-delivery"] == again.headers["x-lapse-delivery"] != other.headers["x-lapse-delivery"]
        )
        assert other.json["values"] == {"secret": "s3cret"}
        assert consumer.pushed("run-1") is None
        sim.fail = [(503, {})]
        with pytest.raises(ProviderError) as e:
            consumer.push(secrets(secret="x"), "r")
        assert e.value.trouble is Trouble.LATER
        monkeypatch.setenv("LAPSE_WEBHOOK_KEY", "short")
        with pytest.raises(ProviderError, match="shorter than"):
            consumer.push(secrets(secret="x"), "r")
    for url in ("", "/path", "https://host/?q=1", "https://host/{x}", "gopher://host/"):
        with pytest.raises(ProviderError):
            webhook.make({"url": url})
