"""The worlds of chaos stand on the rotators' simulators and on the small world."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

for folder in ("rotators", "playbooks"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: kill -9 at random instants; LAPSE_CHAOS=1 goes on to 200 kills")


@pytest.fixture
def engine_database(postgresql: Server) -> Iterator[str]:
    """Give the URL of a fresh database for the engine's tables."""
    a, name = postgresql.admin, f"chaos_{uuid4().hex[:8]}"
    root = f"postgresql://{a['username']}:{a['password']}@{postgresql.host}:{postgresql.port}"
    with psycopg.connect(f"{root}/postgres", autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    yield f"{root}/{name}"
    with psycopg.connect(f"{root}/postgres", autocommit=True) as db:
        db.execute(f"DROP DATABASE {name} WITH (FORCE)")
