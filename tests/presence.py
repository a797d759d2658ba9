"""Starts a real server for tests, or says why not: a skip, or a failure where servers are required."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server


@contextmanager
def started(start: Callable[[Path], AbstractContextManager[Server]]) -> Iterator[Server]:
    """Start a server in a folder of its own, which a system user can reach (pytest's own folders are root's)."""
    with tempfile.TemporaryDirectory(prefix="lapse-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "server"
        folder.mkdir()
        with _present(start, folder) as server:
            yield server


@contextmanager
def _present(start: Callable[[Path], AbstractContextManager[Server]], folder: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(start(folder))
        except servers.MissingError as e:
            if os.environ.get("LAPSE_REQUIRE_SERVERS") == "1":
                pytest.fail(f"{e}, and LAPSE_REQUIRE_SERVERS=1 asks for it")
            pytest.skip(f"{e}; install it to run this test")
        yield server
