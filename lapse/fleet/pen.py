"""One pen for all chunks of a process: verdicts that come while a commit is under way go into the next one together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from lapse.asking import mark
from lapse.ledger import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lapse.ledger import Ledger, Run
    from verifier.ports import Judged

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 90.0
"""Seconds for which a ledger that cannot be reached or written (a restart, a full disk) is tried again."""

HELD = 1.0
"""Seconds that a commit may take before nothing more is asked (`lapse.fleet.steady`)."""

_LONGEST = 5.0


class _Page(NamedTuple):
    run: Run
    judged: Sequence[Judged]
    done: asyncio.Future[None]


class Pen:
    """Writes verdicts into the ledger for coroutines of one event loop. `alive` ends a process that lost touch.

    `calm` is not set while a commit takes longer than `HELD`.
    """

    def __init__(self, ledger: Ledger, alive: Callable[[], float], patience: float = PATIENCE) -> None:
        """Take the ledger; `patience` in seconds."""
        self._ledger, self._alive, self._patience = ledger, alive, patience
        self._pages: list[_Page] = []
        self._busy: asyncio.Task[None] | None = None
        self.calm = asyncio.Event()
        self.calm.set()

    async def write(self, run: Run, judged: Sequence[Judged]) -> None:
        """Write; return once it is committed. What this run has on record already is not written again."""
        if not judged:
            return
        page = _Page(run, judged, asyncio.get_running_loop().create_future())
        self._pages.append(page)
        if self._busy is None or self._busy.done():
            self._busy = asyncio.ensure_future(self._write_all())
        await page.done

    async def _write_all(self) -> None:
        while self._pages:
            pages, self._pages = self._pages, []
            by_run: dict[int, list[_Page]] = {}
            for page in pages:
                by_run.setdefault(page.run.id, []).append(page)
            for group in by_run.values():
                await self._write_group(group)

    async def _write_group(self, group: list[_Page]) -> None:
        judged = [one for page in group for one in page.judged]
        held = asyncio.get_running_loop().call_later(HELD, self.calm.clear)
        try:
            await self.patiently(self._record, group[0].run, judged)
        except Exception as e:  # noqa: BLE001  # whoever waits for it hears of it
            for page in group:
                if not page.done.done():
                    page.done.set_exception(e)
        else:
            for page in group:
                if not page.done.done():
                    page.done.set_result(None)
        finally:
            held.cancel()
            self.calm.set()

    def _record(self, run: Run, judged: list[Judged]) -> None:
        mark(self._ledger, judged)  # first: what is on record is not asked about, and so not marked, again
        self._alive()
        self._ledger.record(judged, run, once=True)

    async def patiently(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call into the ledger, in a thread; while it cannot be had (a restart, a full disk), try again for a while."""
        loop, pause = asyncio.get_running_loop(), 0.1
        end = loop.time() + self._patience
        while True:
            try:
                return await asyncio.to_thread(call, *args, **kwargs)
            except LedgerError:
                if loop.time() + pause > end:
                    raise
                await asyncio.sleep(pause)
                pause = min(_LONGEST, pause * 2)
