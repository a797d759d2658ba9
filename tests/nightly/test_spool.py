"""What hooks delivered: in the ledger once, whoever dies on the way."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rows import row, sendgrid

from lapse.exits import Exit, Stop
from lapse.nightly.spool import place, waiting
from lapse.web.hooks import keep

if TYPE_CHECKING:
    from night import Folder

    from lapse.sandbox.saas import Saas

ROOT = Path(__file__).parents[2]


def spooled(folder: Folder) -> Path:
    with folder.ledger() as ledger:
        return place(ledger.name)


def delivery(n: int) -> bytes:
    return json.dumps(row(n)).encode()


def findings(folder: Folder) -> int:
    with folder.ledger() as ledger:
        return ledger.status().findings


def test_a_night_reads_what_hooks_brought_and_asks_about_it(folder: Folder, saas: Saas) -> None:
    for n in range(3):
        saas.add("sendgrid", sendgrid(n), "live")
        keep(spooled(folder), "generic", delivery(n), str(n))
    night = folder.night(Exit.LIVE)
    assert (night["keys"], night["asked"], night["diff"]["total"]["live"]) == (3, 3, 3)
    assert waiting(spooled(folder)) == []


def test_a_delivery_is_no_whole_scan(folder: Folder, saas: Saas) -> None:
    for n in range(2):
        saas.add("sendgrid", sendgrid(n), "live")
    folder.report([row(0)])
    folder.night(Exit.LIVE)
    keep(spooled(folder), "generic", delivery(1), "1")
    assert folder.night(Exit.LIVE)["diff"]["total"]["removed_never_revoked"] == 0


def test_dying_between_the_ledger_and_the_removal_brings_nothing_twice(
    folder: Folder, saas: Saas, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        keep(spooled(folder), "generic", delivery(n), str(n))

    def die(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Stop, match="interrupted"):
            folder.night()
    assert (len(waiting(spooled(folder))), findings(folder)) == (2, 1)
    folder.night()
    assert (len(waiting(spooled(folder))), findings(folder)) == (0, 2)


def test_what_nobody_can_read_is_kept_and_told(folder: Folder, saas: Saas) -> None:
    keep(spooled(folder), "github", b'{"zen": "Keep it logically awesome."}', "1")
    keep(spooled(folder), "generic", delivery(0), "2")
    night = folder.night(Exit.BROKE)
    assert "a delivery of github could not be read" in night["failed"][0]
    (kept,) = spooled(folder).iterdir()
    assert kept.name.endswith(".bad")
    assert night["keys"] == 1
    assert folder.night()["failed"] == [], "told once"


def test_killed_at_any_moment_the_console_loses_no_delivery_that_it_took(folder: Folder, saas: Saas) -> None:
    """The console is killed as soon as it has answered: before, while or after it reads the spool."""
    secret = "hook" * 8
    folder.also('[serve]\nexecute = false\n[serve.hooks]\ngeneric = "env:LAPSE_TEST_HOOK"')
    env = {**os.environ, "LAPSE_TEST_HOOK": secret, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "lapse.cli", "serve", "--port", "0", "--config", str(folder.config)]
    with subprocess.Popen(words, env=env, cwd=folder.path, stderr=subprocess.PIPE, text=True) as console:
        assert console.stderr is not None
        said = ""
        while not (found := re.search(r"port (\d+)", said)):
            line = console.stderr.readline()
            assert line, said
            said += line
        taken = 0
        for n in range(8):
            body = delivery(n)
            sign = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            connection = http.client.HTTPConnection("127.0.0.1", int(found.group(1)), timeout=10)
            connection.request("POST", "/hooks/generic", body, {"X-Lapse-Signature": sign})
            taken += connection.getresponse().status == 202
            connection.close()
        console.send_signal(signal.SIGKILL)
    assert taken == 8
    folder.night()
    assert findings(folder) == 8
    assert waiting(spooled(folder)) == []
