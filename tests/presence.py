"""Starts a real server for tests, or says why not: a skip, or a failure where everything is required."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server


def lacking(what: str) -> NoReturn:
    """Skip, or fail where everything is asked for."""
    if os.environ.get("LAPSE_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{what}, and LAPSE_REQUIRE_SERVERS=1 asks for it")
    pytest.skip(f"{what}; install it to run this test")


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
            lacking(str(e))
        yield server
