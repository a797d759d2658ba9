"""The one way out, for a worker: while the ledger takes no answers, nobody is asked for more of them.

An answer that is not on record when its worker ends is asked for again by another one. PostgreSQL may be away for as
long as a worker lives on without it; so no call begins while a commit takes longer than `lapse.fleet.pen.HELD`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verifier.egress import Egress

if TYPE_CHECKING:
    from lapse.fleet.pen import Pen
    from verifier.exchange import Admitted, Call, Reply, Request, Trouble


class Steady(Egress):
    """`verifier.egress.Egress`, held back by a pen."""

    def __init__(self, pen: Pen, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # those of `Egress`
        """Take the pen, and what `Egress` takes."""
        super().__init__(*args, **kwargs)
        self._pen = pen

    async def send(self, request: Request) -> Reply | Trouble:
        """Send a request, as soon as answers are taken."""
        await self._pen.calm.wait()
        return await super().send(request)

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        """Vet and pin a host for a log-in, as soon as answers are taken."""
        await self._pen.calm.wait()
        return await super().admit(call, host, port)
