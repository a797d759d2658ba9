"""Fixtures that any test may ask for: real servers, once per session.

A server that is not installed skips its tests and says so; with `LAPSE_REQUIRE_SERVERS=1` it fails them.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import servers
from hypothesis import settings
from presence import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and what we start would inherit it: then nobody could interrupt anything.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker of the tests that go on for long with `LAPSE_CHAOS=1`."""
    config.addinivalue_line("markers", "chaos: kill -9 and mishaps; LAPSE_CHAOS=1 (make chaos) goes on for long")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name long values by their argument: made at run time, they differ between processes, and test ids must not."""
    return argname if isinstance(val, str | bytes) and len(val) > 40 else None


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
