"""Nonces that must grow: a look at a key must never shut out its owner's own program.

Where every call has to carry a greater number than all earlier ones of the key, ours counts as one of them: were it
higher than what the owner's program sends next, that program would be refused from then on. So the first number is the
time in seconds, which stands below every count in use. Only to a key that says that this is too low is a finer count
sent: its owner's count stands above seconds, so it is that fine, or finer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from verifier.exchange import Reply
    from verifier.model import Verdict

_A_SECOND = (1, 1_000, 1_000_000)


async def climb(
    ask: Callable[[int], Awaitable[tuple[Verdict, Reply | None]]], low: bytes
) -> tuple[Verdict, Reply | None]:
    """Call `ask` with seconds, then milli- and microseconds, as long as the reply has the word `low` in it."""
    now = time.time()
    said, reply = await ask(int(now))
    for finer in _A_SECOND[1:]:
        if reply is None or low not in reply.body:
            break
        said, reply = await ask(int(now * finer))
    return said, reply
