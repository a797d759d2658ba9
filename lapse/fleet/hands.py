"""The worker's hands: take a chunk, ask what of it is left to ask, put each answer on record.

A chunk may be begun anew at any moment by anybody: what its run has on record is not asked about again. All chunks of
a process share one event loop, one door (so its buckets and connections outlive a chunk) and one pen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec
import uvloop

from lapse.exits import Stop
from lapse.fleet.chunk import Told, unpacked
from lapse.fleet.pen import PATIENCE, Pen
from lapse.fleet.steady import Steady
from lapse.ledger import EventKind, LedgerError, Run
from lapse.output import jsonv1
from lapse.output.console import safe, say
from lapse.traces import traces
from verifier.model import Dead, Doubt
from verifier.ports import Judged
from verifier.verify import Alarm, verify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from lapse.commands.setup import Setup
    from lapse.fleet.chunk import Chunk
    from lapse.ledger import Ledger
    from lapse.traces import Traces
    from verifier.egress import Egress, Exchange
    from verifier.ports import Due
    from verifier.verify import Event, Terms

GRACE = 5.0
"""Seconds over one call's own time-out that what is under way has when a chunk must end."""

SKEW = 15.0
"""Seconds that a second look is waited for where this machine's clock is behind the one that saw the first."""


@dataclass
class Tally:
    """What one chunk has come to so far. `trace` is its span's `traceparent`."""

    said: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    alarms: list[tuple[str, int, str]] = field(default_factory=list)
    left: bool = False
    trace: str = ""

    def told(self) -> Told:
        """Return it as it is handed back."""
        return Told(dict(self.said), dict(self.calls), dict(self.throttled), tuple(self.alarms), self.left)


class Hands:
    """Asks about chunks; `start` before the first, `stop` to let go of all. Call it with a chunk's text, in any thread.

    `alive` is a monotonic clock that ends the process when others may have taken its work over.
    """

    def __init__(
        self,
        setup: Setup,
        ledger: Ledger,
        alive: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
        spans: Traces | None = None,
    ) -> None:
        """Take the set-up and the open ledger; `patience` in seconds with a ledger that is away."""
        self._spans = traces(setup.config) if spans is None else spans
        self._setup, self._ledger, self._alive = setup, ledger, alive
        self._loop = uvloop.new_event_loop()
        self._pen = Pen(ledger, alive, patience)
        self._tallies: dict[str, Tally] = {}
        self._alarmed: set[tuple[int, str]] = set()
        self._stopping = threading.Event()
        self._limits: set[asyncio.Timeout] = set()
        self._under_way = 0
        self._changed = threading.Condition()
        self._door: Egress | None = None

    def start(self) -> None:
        """Start the event loop in a thread of its own."""
        threading.Thread(target=self._loop.run_forever, daemon=True, name="hands").start()

    def __call__(self, order: str) -> dict[str, Any]:
        """Ask about a chunk; return its `Told` as plain values. After `stop` this never returns: the process ends."""
        with self._changed:
            self._under_way += 1
        try:
            told = asyncio.run_coroutine_threadsafe(self._take(unpacked(order)), self._loop).result()
        except Exception as e:
            said = str(e) if isinstance(e, LedgerError | Stop) else type(e).__name__  # others may quote a secret
            say(f"a chunk is given up, its keys stay due: {safe(said)}")
            raise
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()
        if self._stopping.is_set() and told.left:
            threading.Event().wait()  # not done, and not to be called done: another worker goes on with it
        found: dict[str, Any] = msgspec.to_builtins(told)
        return found

    def stop(self, grace: float) -> None:
        """Begin nothing more; return when what is under way is on record, after `grace` seconds at the latest."""
        self._stopping.set()
        for limit in list(self._limits):
            self._loop.call_soon_threadsafe(limit.reschedule, self._loop.time() + grace)
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, grace + GRACE)
        self._spans.close()

    # ── one chunk ──────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, chunk: Chunk) -> Told:
        about: dict[str, str | int] = {"lapse.run": chunk.run, "lapse.vendor": chunk.vendor, "lapse.look": chunk.look}
        with self._spans.span("chunk", about | {"lapse.keys": len(chunk.ids)}, chunk.trace) as trace:
            return await self._ask(chunk, trace)

    async def _ask(self, chunk: Chunk, trace: str) -> Told:
        run = Run(chunk.run, chunk.started, resumed=True)
        terms = self._setup.terms(wait=False)
        tally = Tally(trace=trace)
        if self._stopping.is_set():
            tally.left = True
            return tally.told()
        until = self._until(chunk)
        due = await self._pen.patiently(self._due, chunk, run)
        if chunk.look > 1:
            await asyncio.sleep(self._early(due, terms))
        fallen = await self._pen.patiently(self._ledger.fallen, datetime.now(UTC) - terms.patience.apart)
        lived = (
            await self._pen.patiently(self._ledger.lived, run) if any(f.vendor == chunk.vendor for f in fallen) else {}
        )
        by_kind: dict[str, list[Due]] = defaultdict(list)
        for item in due:
            by_kind[item.credential.provider].append(item)
        door = self._open()
        door.drain(by_kind)
        for kind in by_kind:
            self._tallies[kind] = tally
        feeds = {kind: self._feed(items, until, tally) for kind, items in by_kind.items()}
        answers = cast(
            "AsyncGenerator[list[Event]]",
            verify(feeds, self._setup.catalogue, door, terms, fallen=fallen, lived=lived),
        )
        await self._listen(answers, run, tally, until)
        return tally.told()

    async def _listen(self, answers: AsyncGenerator[list[Event]], run: Run, tally: Tally, until: float | None) -> None:
        grace = self._setup.config.verify.timeout.seconds + GRACE
        limit = asyncio.timeout_at(None if until is None else until + grace)
        try:
            async with limit, aclosing(answers) as batches:
                self._limits.add(limit)
                async for batch in batches:
                    judged = [e for e in batch if isinstance(e, Judged)]
                    await self._pen.write(run, judged)
                    tally.said.update(jsonv1.word(one.verdict) for one in judged)
                    for event in batch:
                        if isinstance(event, Alarm):
                            await self._alarm(event, run)
                            tally.alarms.append((event.provider, event.keys, event.text))
        except TimeoutError:
            if not limit.expired():
                raise
            tally.left = True
        finally:
            self._limits.discard(limit)

    async def _alarm(self, alarm: Alarm, run: Run) -> None:
        """Put an alarm on record; of one about a whole vendor, which every further chunk repeats, the first alone."""
        whole = (run.id, alarm.provider)
        if alarm.keys > 1 and whole in self._alarmed:
            return
        self._alarmed.add(whole)
        await self._pen.patiently(self._ledger.note, EventKind.ALARM, alarm.text)

    def _due(self, chunk: Chunk, run: Run) -> list[Due]:
        now = datetime.now(UTC)
        at = now + timedelta(seconds=SKEW) if chunk.look > 1 else now
        return list(self._ledger.due(at, ids=chunk.ids, since=run))

    def _early(self, due: list[Due], terms: Terms) -> float:
        """Return the seconds until the last of these second looks may be taken by this machine's clock."""
        now = datetime.now(UTC)
        seen = [d.dead_since for d in due if d.dead_since is not None and isinstance(d.last, Dead)]
        left = max(((at - now).total_seconds() + terms.patience.confirm_after for at in seen), default=0.0)
        return min(SKEW, max(0.0, left + 0.01)) if left > 0 else 0.0

    def _feed(self, items: Iterable[Due], until: float | None, tally: Tally) -> Iterator[Due]:
        for item in items:
            self._alive()
            if self._stopping.is_set() or (until is not None and self._loop.time() >= until):
                tally.left = True
                return
            yield item

    def _until(self, chunk: Chunk) -> float | None:
        """Return the chunk's end by the loop's own clock."""
        if chunk.until is None:
            return None
        return self._loop.time() + max(0.0, (chunk.until - datetime.now(UTC)).total_seconds())

    def _open(self) -> Egress:
        if self._door is None:
            setup = self._setup
            self._door = Steady(
                self._pen,
                setup.catalogue.manifest(),
                settings=setup.settings(),
                limits={k.id: k.limits for k in setup.catalogue},
                overrides=setup.base_urls,
                observer=self._hear,
                clock=self._alive,  # looked at before every single call: a thawed process makes none
            )
        return self._door

    def _hear(self, exchange: Exchange) -> None:
        kind = exchange.call.kind
        tally = self._tallies.get(kind)
        if tally is None:
            return
        tally.calls[kind] += 1
        self._spans.call(exchange, tally.trace)
        if exchange.status == 429 or exchange.trouble is Doubt.THROTTLED:
            tally.throttled[kind] += 1
