"""The fixtures' promise: a server that is not installed is told, never passed over in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import servers
from presence import started

if TYPE_CHECKING:
    from pathlib import Path


def missing(_folder: Path) -> servers.Running:
    raise servers.MissingError("redis-server is not installed")


def test_a_missing_server_skips_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAPSE_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="redis-server is not installed"), started(missing):
        pytest.fail("it started")


def test_a_missing_server_fails_where_servers_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPSE_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="LAPSE_REQUIRE_SERVERS"), started(missing):
        pytest.fail("it started")


def test_a_server_that_dies_shows_its_own_words(tmp_path: Path) -> None:
    command = [servers._need("sh"), "-c", "echo no room on this ship; exit 1"]
    folder = tmp_path / "server"
    folder.mkdir()
    with pytest.raises(RuntimeError, match="no room on this ship"), servers._running(command, 1, folder, bool):
        pytest.fail("it started")
