"""Fixtures of the fleet's tests: a database of one's own, a provider that counts, a folder with a config."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))
sys.path.insert(0, str(Path(__file__).parents[1] / "playbooks"))

from counting import Counting, counting  # beside this file
from fleet_folder import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: kill -9 and worse; LAPSE_CHAOS=1 runs all of it")


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    """Give the URL of a fresh database."""
    yield from fresh(postgresql)


def fresh(server: Server) -> Iterator[str]:
    name = f"fleet_{uuid.uuid4().hex[:8]}"
    root = f"postgresql://{server.admin['username']}:{server.admin['password']}@{server.host}:{server.port}"
    with psycopg.connect(f"{root}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{root}/{name}"
    with psycopg.connect(f"{root}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def provider() -> Iterator[Counting]:
    with counting() as provider:
        yield provider


@pytest.fixture
def fleet(tmp_path: Path, provider: Counting, database: str) -> Iterator[Fleet]:
    with Fleet(tmp_path, provider, database) as fleet:
        yield fleet
