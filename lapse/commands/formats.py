"""`lapse formats`."""

from __future__ import annotations

from lapse.exits import Exit
from lapse.output.console import out
from verifier.ingest.catalogue import formats


def run() -> Exit:
    """Print every report format with what it is."""
    width = max(len(name) for name in formats())
    for name, format_ in formats().items():
        out(f"{name:<{width}}  {format_.summary}")
    return Exit.OK
