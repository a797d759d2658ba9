"""The small world's consumer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import SimConsumer, Small

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(settings: Mapping[str, str]) -> SimConsumer:
    del settings
    return SimConsumer(Small(os.environ["LAPSE_TEST_WORLD"]))
