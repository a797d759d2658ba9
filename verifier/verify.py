"""Asks the providers about everything that is due, and yields verdicts as they come.

One probe a credential and run; at each provider only as fast as its spec allows, all providers at once. A first Dead is
looked at again in the same run once `confirm_after` has passed and all first looks at that provider are done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping  # msgspec reads annotations at run time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from verifier.confirm import Doubter, Patience, Standing
from verifier.egress.address import loopback
from verifier.model import Dead, Doubt, KindID, Live, Undecided
from verifier.offline import check
from verifier.offline.aws import account_id
from verifier.ports import Judged
from verifier.probe import probe
from verifier.scope import Mode, Ownership, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from verifier.catalogue import Catalogue
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict
    from verifier.ports import Due, Fallen

CONCURRENCY = 4
"""Probes under way for kinds that are no HTTP provider of ours (unknown, offline only)."""


class Alarm(Struct, frozen=True):
    """Something a person must hear: a provider in trouble, a key that came back to life."""

    provider: str
    keys: int
    text: str


class Terms(Struct, frozen=True):
    """What a run must respect.

    `base_urls` maps kind ids to the config's overrides; `canary_accounts` adds to the known ones.

    `wait`: stay for the second look at fresh Deads (`confirm_after` later); without it they are left due.
    """

    scope: Scope = Scope()
    patience: Patience = Patience()
    base_urls: Mapping[str, str] = {}
    canary_accounts: frozenset[str] = frozenset()
    wait: bool = True


_SPARE = 0.01
"""Seconds more than needed before a second look: a timer may end a moment early, and too soon confirms nothing."""

Event: TypeAlias = Judged | Alarm
_PUBLIC = frozenset({"account", "tenant", "host"})

BATCH = 500
"""Most events in one yield: what the caller commits in one transaction."""

GATHER = 0.02
"""Seconds that an answer may wait for others, so that a commit is worth its while."""


async def verify(
    due: Mapping[str, Iterable[Due]],
    catalogue: Catalogue,
    door: Door,
    terms: Terms = Terms(),  # noqa: B008  # frozen
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    fallen: Iterable[Fallen] = (),
    lived: Mapping[str, int] | None = None,
) -> AsyncIterator[list[Event]]:
    """Yield, in batches as they come, a `Judged` for every due credential and for every second look, and alarms.

    `due` maps kind ids to their credentials, each read lazily. Closing the iterator stops the run; what was yielded is
    all that was learnt. `fallen` are the keys that earlier runs saw turn dead of late: the brake remembers them.
    `lived` counts, by vendor, what the same run saw live before it was cut off, or in other parts of it.
    """
    run = _Run(catalogue, door, terms, clock, fallen, lived)
    work = asyncio.ensure_future(run.all(due))
    work.add_done_callback(lambda _: run.out.put_nowait(None))
    try:
        while (first := await run.out.get()) is not None:
            if run.out.qsize() < BATCH:
                await asyncio.sleep(GATHER)
            batch = [first]
            while len(batch) < BATCH and not run.out.empty() and (more := run.out.get_nowait()) is not None:
                batch.append(more)
            yield batch
            if work.done() and run.out.empty():
                break
        work.result()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await work


class _Fresh(NamedTuple):
    """A Dead that is not confirmed, of `at` in this run; `ticks` is the same moment by a clock that nobody sets.

    `told` is False while it is only the other first looks at its vendor that keep it from being confirmed.
    """

    item: Due
    dead: Dead
    at: datetime
    ticks: float
    told: bool


class _Run:
    def __init__(
        self,
        catalogue: Catalogue,
        door: Door,
        terms: Terms,
        clock: Callable[[], datetime],
        fallen: Iterable[Fallen],
        lived: Mapping[str, int] | None,
    ) -> None:
        self.catalogue, self.door, self.terms, self.clock = catalogue, door, terms, clock
        self.out: asyncio.Queue[Event | None] = asyncio.Queue()
        self.doubter = Doubter(terms.patience, fallen, lived)
        self._same_id: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._alarmed: set[str] = set()
        self._defects: dict[str, Exception] = {}

    async def all(self, due: Mapping[str, Iterable[Due]]) -> None:
        """Work on every vendor at once; the kinds of one vendor share its second look."""
        vendors: dict[str, dict[str, Iterable[Due]]] = defaultdict(dict)
        for kind, items in due.items():
            vendors[self.catalogue.vendor(kind)][kind] = items
        async with asyncio.TaskGroup() as group:
            for vendor, kinds in vendors.items():
                group.create_task(self._vendor(vendor, kinds))
        if self._defects:
            raise ExceptionGroup("providers with a mistake in them", list(self._defects.values()))

    async def _vendor(self, vendor: str, kinds: Mapping[str, Iterable[Due]]) -> None:
        fresh: list[_Fresh] = []
        async with asyncio.TaskGroup() as group:
            for kind, items in kinds.items():
                group.create_task(self._first_looks(vendor, kind, items, fresh))
        self._brake(vendor)
        await self._settle(vendor, fresh)

    async def _first_looks(self, vendor: str, kind: str, items: Iterable[Due], fresh: list[_Fresh]) -> None:
        spec = self.catalogue.get(kind)
        feed = iter(items)
        async with asyncio.TaskGroup() as group:
            for _ in range(spec.limits.concurrency if spec else CONCURRENCY):
                group.create_task(self._worker(vendor, feed, fresh))

    async def _worker(self, vendor: str, feed: Iterator[Due], fresh: list[_Fresh]) -> None:
        me = asyncio.current_task()
        for item in feed:
            verdict = await self._look(item)
            if me is not None and me.cancelling():
                raise asyncio.CancelledError  # some client of a provider ate it: nobody records what is asked from now
            now = self.clock()
            self.doubter.note(vendor, item, verdict, now)
            if isinstance(verdict, Dead):
                if isinstance(item.last, Dead) and item.last.confirmed:
                    verdict = replace(verdict, confirmed=True)
                else:
                    standing = self._standing(vendor, item, verdict, now)
                    if standing is Standing.CONFIRMED and self._long(item, verdict, now):
                        verdict = replace(verdict, confirmed=True)
                    else:
                        told = standing not in {Standing.CONFIRMED, Standing.BRAKED}
                        fresh.append(_Fresh(item, verdict, now, time.monotonic(), told))
                        if not told:
                            continue  # one look, one verdict: `_settle` tells it
            self._tell(item, verdict, now)

    def _standing(self, vendor: str, item: Due, dead: Dead, at: datetime) -> Standing:
        since = self.doubter.since(item, dead.evidence, at)
        return self.doubter.standing(vendor, dead.evidence, since, at, self._wait(item))

    def _long(self, item: Due, dead: Dead, at: datetime) -> bool:
        """Say whether a row of deaths is so old that no outage of now can be what it is about."""
        return at - self.doubter.since(item, dead.evidence, at) >= self.terms.patience.apart

    async def _settle(self, vendor: str, fresh: list[_Fresh]) -> None:
        """Confirm, now that every first look at this vendor is known, what an earlier run saw dead as well.

        Then look again at every other fresh Dead, in the order they died, not before its time has come.
        """
        again: list[_Fresh] = []
        for f in fresh:
            match self._standing(vendor, f.item, f.dead, f.at):
                case Standing.CONFIRMED:
                    self._tell(f.item, replace(f.dead, confirmed=True), f.at)
                case Standing.TOO_SOON if self._wait(f.item) <= self.terms.patience.confirm_after:
                    again.append(f)
                case _ if not f.told:
                    self._tell(f.item, f.dead, f.at)
                case _:
                    pass
        if not self.terms.wait or self.doubter.braked(vendor):
            return
        limit = asyncio.Semaphore(CONCURRENCY)
        async with asyncio.TaskGroup() as group:
            for f in again:
                if left := self._left(f):
                    await asyncio.sleep(left + _SPARE)
                group.create_task(self._second_look(vendor, f, limit))

    async def _second_look(self, vendor: str, f: _Fresh, limit: asyncio.Semaphore) -> None:
        async with limit:
            verdict = await self._look(f.item)
        now = self.clock()
        self.doubter.note(vendor, f.item, verdict, now)
        if isinstance(verdict, Dead):
            began = self.doubter.since(f.item, f.dead.evidence, f.at)
            # From another host it is a first Dead, not a second.
            since = began if verdict.evidence.host == f.dead.evidence.host else now
            standing = self.doubter.standing(vendor, verdict.evidence, since, now, self._wait(f.item))
            verdict = replace(verdict, confirmed=standing is Standing.CONFIRMED)
        self._tell(f.item, verdict, now)

    def _left(self, f: _Fresh) -> float:
        """Return the seconds until the second look: by the clock that nobody sets where this run saw the first Dead."""
        wait = self._wait(f.item)
        since = self.doubter.since(f.item, f.dead.evidence, f.at)
        by_ticks = f.ticks + wait - (f.at - since).total_seconds() - time.monotonic()
        by_clock = (since + timedelta(seconds=wait) - self.clock()).total_seconds()
        return max(0.0, by_ticks, min(by_clock, wait))

    def _wait(self, item: Due) -> float:
        kind = self.catalogue.get(item.credential.provider)
        return max(self.terms.patience.confirm_after, (kind and kind.confirm_after) or 0.0)

    async def _look(self, item: Due) -> Verdict:
        """Return a verdict; a mistake in a provider is raised when all others are done: one odd key stops nobody."""
        try:
            return await self._asked(item)
        except Exception as e:  # noqa: BLE001  # see `all`
            self._defects.setdefault(item.credential.provider, e)
            return Undecided(Doubt.UNSUPPORTED, note="a mistake in its provider's code kept it from being judged")

    async def _asked(self, item: Due) -> Verdict:
        """Return a verdict, without a call where none is needed or allowed."""
        credential = item.credential
        kind = self.catalogue.get(credential.provider)
        known = check(kind, credential, self.clock(), self.terms.canary_accounts)
        if known.verdict is not None:
            return known.verdict
        if self.terms.scope.mode is Mode.OURS and self._before(credential) is Ownership.FOREIGN:
            return Undecided(Doubt.REFUSED, note="out of scope: known to be somebody else's; mode is `ours`")
        base = self.terms.base_urls.get(credential.provider)
        public_half = credential.parts.get("id")
        if public_half is None:
            verdict = await probe(self.catalogue, credential, self.door, base)
        else:
            async with self._same_id[f"{credential.provider}:{public_half.reveal()}"]:
                verdict = await probe(self.catalogue, credential, self.door, base)
        if not isinstance(verdict, Dead) or kind is None:
            return verdict
        if kind.by_address and item.last_live is None:
            return Undecided(Doubt.AMBIGUOUS, verdict.evidence, note="refused, but perhaps only from our address")
        if base is not None and _elsewhere(credential, base):
            note = "refused by the base_url of the config, but it was found beside the name of another host"
            return Undecided(Doubt.INCOMPLETE, verdict.evidence, note=note)
        if instance := self.terms.base_urls.get(kind.instance_kind):
            # The vendor's own host does not know it; our own instance may (design rule 4).
            there = replace(credential, provider=KindID(kind.instance_kind))
            return await probe(self.catalogue, there, self.door, instance)
        return verdict

    def _brake(self, vendor: str) -> None:
        n = self.doubter.turned(vendor)
        if n and self.doubter.braked(vendor) and vendor not in self._alarmed:
            self._alarmed.add(vendor)
            hours = round(self.terms.patience.apart.total_seconds() / 3600)
            text = (
                f"{vendor} now refuses {n} keys that were live before: perhaps an outage. "
                f"No death there is confirmed until a run at least {hours} hours later says the same."
            )
            self.out.put_nowait(Alarm(vendor, n, text))

    def _tell(self, item: Due, verdict: Verdict, now: datetime) -> None:
        kind = item.credential.provider
        if isinstance(verdict, Live) and isinstance(item.last, Dead) and item.last.confirmed:
            text = f"{item.credential.id} was confirmed dead and works again"
            self.out.put_nowait(Alarm(self.catalogue.vendor(kind), 1, text))
        self.out.put_nowait(Judged(item.credential.id, kind, verdict, now, self._ownership(item, verdict)))

    def _ownership(self, item: Due, verdict: Verdict) -> Ownership:
        """Say whose key it is: by the provider's word where it gave one, else by what the key itself tells."""
        if isinstance(verdict, Live) and (told := self.terms.scope.after(verdict.identity)) is not Ownership.UNKNOWN:
            return told
        return self._before(item.credential)

    def _before(self, credential: Credential) -> Ownership:
        """Say whose key it is by its public parts and, for AWS, by the account that its id encodes."""
        public = {n: v.reveal() for n, v in credential.parts.items() if n in _PUBLIC}
        key = credential.parts.get("id")
        account = account_id(key.reveal()) if key is not None and credential.provider.startswith("aws_") else None
        return self.terms.scope.before(public, account)


def _elsewhere(credential: Credential, base: str) -> bool:
    """Whether the key names a host that is not the one of the override, which is no sandbox (design rule 4)."""
    host = credential.parts.get("host")
    if host is None or loopback(base):
        return False
    try:
        ours = urlsplit(base).hostname
        return all(urlsplit("//" + n.strip().rpartition("://")[2]).hostname != ours for n in host.reveal().split(","))
    except ValueError:
        return True
