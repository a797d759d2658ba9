"""`lapse serve`, `watch`, `tokens` and `completion` as commands of their own."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from desk import Desk
from web_made import RUN

from lapse.commands import watch
from lapse.exits import Exit, Stop
from lapse.rotation import Desk as Rotations
from playbooks.journal import What

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.web.house import House


def test_serve_prints_a_link_lets_in_once_and_stops_when_told(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        process = desk.start("serve", "--port", "0")
        assert process.stderr is not None
        said = ""
        while "/login?t=" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        link = re.search(r"http://127\.0\.0\.1:\d+/login\?t=\S+", said)
        assert link
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(link.group()) as reply:
            assert b"<h1>Now</h1>" in reply.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(link.group())  # noqa: S310  # our own loopback
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out == ""
        assert "Traceback" not in err


def test_serve_refuses_to_be_seen_by_others_without_their_names(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        said = desk.run("serve", "--host", "0.0.0.0", "--port", "0", code=2).stderr  # noqa: S104  # what is refused
        assert "serve.oidc" in said


def test_tokens_are_made_listed_and_revoked(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        token = desk.run("tokens", "add", "ci", "--expires", "90d").stdout.strip()
        assert token.startswith("lapse_")
        listed = desk.run("tokens", "list").stdout
        assert listed.startswith("ci  viewer")
        assert token not in listed
        desk.run("tokens", "revoke", "ci")
        assert "no token ci" in desk.run("tokens", "revoke", "ci", code=2).stderr
        assert "--role boss" in desk.run("tokens", "add", "x", "--role", "boss", code=2).stderr


def test_watch_tells_the_journal_to_its_end(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    log = house.ledger.rotations
    log.append(RUN, "", What.ENDED, "all is done", {"how": "finished"})
    assert isinstance(house.desk, Rotations)
    config = house.ledger.path.with_name("lapse.toml")
    assert watch.run(RUN[:5], config) is Exit.OK
    told = capsys.readouterr()
    assert [line.split()[2] for line in told.out.splitlines()][:3] == ["run", "snapshot", "snapshot"]
    assert "proven dead" in told.err
    assert "\x1b" not in told.out


@pytest.mark.parametrize("shell", watch.SHELLS)
def test_there_is_a_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    watch.completion(shell)
    assert "_LAPSE_COMPLETE" in capsys.readouterr().out


def test_an_unknown_shell_is_told() -> None:
    with pytest.raises(Stop, match="bash"):
        watch.completion("tcsh")
