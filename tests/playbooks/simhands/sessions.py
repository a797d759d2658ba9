"""The small world's sessions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import SimSessions, Small

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(settings: Mapping[str, str]) -> SimSessions:
    del settings
    return SimSessions(Small(os.environ["LAPSE_TEST_WORLD"]))
