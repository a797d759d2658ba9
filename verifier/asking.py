"""What Python providers that speak HTTP share: asking several hosts, and dropping the tokens that a reply mints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

from msgspec.structs import replace

from verifier.exchange import Reply, Trouble
from verifier.model import Dead, Doubt, Live, Undecided
from verifier.probe import verdict
from verifier.rules import Judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from verifier.exchange import Door, Request
    from verifier.model import Verdict
    from verifier.spec import Kind

_MINTED = re.compile(rb'("(?:access_token|id_token|refresh_token)"\s*:\s*")[^"]*')


async def sweep(
    asks: Iterable[Callable[[], Awaitable[Verdict]]], passed_over: Callable[[Undecided], bool] = lambda _: False
) -> Verdict:
    """Ask one host after another until one says Live; Dead takes all of them (design rule 4).

    An answer that is `passed_over` counts only when there is no other.
    """
    dead: Dead | None = None
    doubt: Undecided | None = None
    nowhere: Undecided | None = None
    for ask_one in asks:
        said = await ask_one()
        match said:
            case Live():
                return said
            case Dead():
                dead = dead or said
            case Undecided() if passed_over(said):
                nowhere = nowhere or said
            case Undecided():
                doubt = doubt or said
            case _:
                assert_never(said)
    return doubt or dead or nowhere or Undecided(Doubt.INCOMPLETE, note="no host is known for this key")


async def exchange(kind: Kind, request: Request, door: Door, secrets: Iterable[str]) -> tuple[Verdict, Reply | None]:
    """Send a request that may mint a token; return the verdict and the reply, both without the token."""
    answer = await door.send(request)
    if isinstance(answer, Trouble):
        return Undecided(answer.why, retry_after=answer.retry_after, note=answer.note), None
    kept = without_tokens(answer)
    return verdict(kind, Judge(kind)(answer), kept, request, secrets), answer


def without_tokens(reply: Reply) -> Reply:
    """Return the reply with every token it mints blanked, wherever it was cut off."""
    return replace(reply, body=_MINTED.sub(rb"\1[dropped]", reply.body))
