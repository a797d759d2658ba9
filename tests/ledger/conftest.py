"""Where a ledger of a test is kept: a file, or a schema of its own in a real PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ledger_making import fresh

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a ledger that is not there yet, on each database in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return str(request.getfixturevalue("pg"))


@pytest.fixture
def pg(postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a ledger in PostgreSQL that is not there yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return fresh(postgresql)
