"""Fixtures that any test may ask for: real servers, once per session.

A server that is not installed skips its tests and says so; with `LAPSE_REQUIRE_SERVERS=1` it fails them.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import servers
from hypothesis import settings
from servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


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


@pytest.fixture(scope="session")
def openbao() -> Iterator[Server]:
    """OpenBao with a root token in `admin["token"]`."""
    with started(servers.openbao) as server:
        yield server


@pytest.fixture(scope="session")
def ministack() -> Iterator[Server]:
    """MiniStack, an AWS simulator that checks signatures; root key in `admin`."""
    with started(servers.ministack) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """PostgreSQL; `admin` is its superuser."""
    with started(servers.postgresql) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """MariaDB; `admin` may do everything."""
    with started(servers.mariadb) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    """Redis with the password in `admin["password"]`."""
    with started(servers.redis) as server:
        yield server
