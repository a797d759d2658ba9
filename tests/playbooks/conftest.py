"""Names the marker of the tests that kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: kill -9 at random instants; LAPSE_CHAOS=1 goes on to 200 kills")
