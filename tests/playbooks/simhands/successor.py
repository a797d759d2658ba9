"""The small world's successor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import SimSuccessor, Small

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(settings: Mapping[str, str]) -> SimSuccessor:
    del settings
    return SimSuccessor(Small(os.environ["LAPSE_TEST_WORLD"]))
