"""The small world's issuer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from world import SimIssuer, Small

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(settings: Mapping[str, str]) -> SimIssuer:
    del settings
    return SimIssuer(Small(os.environ["LAPSE_TEST_WORLD"]))
