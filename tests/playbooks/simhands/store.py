"""The small world's store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import SimStore, Small

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(settings: Mapping[str, str]) -> SimStore:
    del settings
    return SimStore(Small(os.environ["LAPSE_TEST_WORLD"]))
