"""Leading a night: cut what is due into chunks, queue them, collect what came of them, then order the second looks.

The leader may die at any moment: the workers go on with what is queued, and the next night first waits for that, then
asks the ledger what is left. It holds one advisory lock, so that one night at a time is led.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol, Self

import msgspec
from dbos import DBOSClient
from sqlalchemy.exc import DBAPIError

from lapse.exits import Stop
from lapse.fleet.chunk import WORKFLOW, Chunk, Told, cut, packed, size
from lapse.fleet.place import at_work, nights
from lapse.nightly.second import owed
from lapse.output.console import say
from lapse.rotation import Desk
from playbooks.place import IDLE_SECONDS, VERSION, Json
from playbooks.seat import NoSeatError, seated
from verifier.verify import Alarm
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from dbos import EnqueueOptions, WorkflowStatus

    from lapse.commands.setup import Setup
    from lapse.ledger import Ledger, Run
    from lapse.output.console import Progress
    from playbooks.place import Place
    from verifier.model import CredentialID
    from verifier.ports import Due

POLL = 0.3
"""Seconds between two looks at the queue."""

LONELY = 15.0
"""Seconds after which the leader says that nobody takes what it queued, and again each so many seconds."""

_NOT_OVER = ["ENQUEUED", "DELAYED", "PENDING"]
_OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Ends(Protocol):
    """Who may end the night early."""

    @property
    def closed(self) -> bool:
        """Say whether nothing more is to be begun."""
        ...

    @property
    def left(self) -> float | None:
        """Return the seconds until the night ends; None: it has no end."""
        ...


class Lead:
    """Leads the nights of one ledger's fleet: a context manager that holds the connection to the queue."""

    def __init__(self, setup: Setup, ledger: Ledger, place: Place, progress: Progress, *, quiet: bool) -> None:
        """Take the set-up, the open ledger and where the fleet meets."""
        self._setup, self._ledger, self._place = setup, ledger, place
        self._progress, self._quiet = progress, quiet
        self._mark = secrets.token_hex(4)
        self.calls: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.failed = 0
        self.left = False
        self._alarms: dict[tuple[str, str], Alarm] = {}
        self._handed_out: dict[str, Chunk] = {}
        self._firsts: Counter[str] = Counter()
        self._number = 0
        self._heard = time.monotonic()
        self._trace = ""

    def __enter__(self) -> Self:
        """Connect; a `Stop` when there is no database, or no worker ever was there."""
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        at_work(self._place)
        self._client = _client(self._place)
        try:
            self._under_way()
        except DBAPIError:
            self._client.destroy()
            raise Stop("no worker has been at work at fleet.url yet; start `lapse worker` first") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._client.destroy()

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms of the night, one a vendor where it is about all of it."""
        return list(self._alarms.values())

    def catch_up(self, ends: Ends) -> int:
        """Wait for chunks that an earlier leader queued; return how many there were."""
        found = self._under_way()
        for w in found:
            self._expect(w.workflow_id, Chunk(0, datetime.now(UTC), w.queue_partition_key or "", ()))
        if found:
            say(f"{plural(len(found), 'chunk')} of a night before still under way; waiting", quiet=self._quiet)
            self._collect(ends, lambda _vendor: None)
        return len(found)

    def ask(self, run: Run, due: Mapping[str, Iterable[Due]], ends: Ends, *, wait: bool, trace: str = "") -> None:
        """Have everything in `due` asked about, once each; `wait` for the second looks at what just died.

        `trace` is the `traceparent` of the night's span.
        """
        self._trace = trace
        by_vendor: dict[str, dict[str, list[CredentialID]]] = defaultdict(dict)
        for kind, items in due.items():
            if ids := [item.credential.id for item in items]:
                by_vendor[self._setup.catalogue.vendor(kind)][kind] = ids
        rows = []
        for vendor, kinds in by_vendor.items():
            chunks = cut(kinds, self._most(kinds))
            rows.append([Chunk(run.id, run.started, vendor, ids, until=_until(ends), trace=trace) for ids in chunks])
        for column in zip_longest(*rows):  # every vendor's first, then every vendor's second, …
            for chunk in column:
                if chunk is not None:
                    self._queue(chunk, 0.0)

        def finished(vendor: str) -> None:
            if wait and not ends.closed:
                self._look_again(run, vendor, ends)

        self._collect(ends, finished)

    # ── the queue ──────────────────────────────────────────────────────────────────────────────────────

    def _under_way(self) -> list[WorkflowStatus]:
        return _left_over(self._client, self._place)

    def _most(self, kinds: Iterable[str]) -> int:
        specs = [spec for kind in kinds if (spec := self._setup.catalogue.get(kind))]
        rate = sum(spec.limits.rate for spec in specs) or 1.0
        return size(rate, self._setup.config.fleet.keys)

    def _queue(self, chunk: Chunk, delay: float) -> None:
        self._number += 1
        name = f"{self._place.ledger}:night:{chunk.run}:{self._mark}:{chunk.vendor}:{self._number}"
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": nights(self._place),
            "workflow_id": name,
            "app_version": VERSION,
            "queue_partition_key": chunk.vendor,
            "application_name": "lapse",
        }
        if delay > 0:
            options["delay_seconds"] = delay
        self._client.enqueue(options, packed(chunk))
        self._expect(name, chunk)

    def _expect(self, name: str, chunk: Chunk) -> None:
        self._handed_out[name] = chunk
        self._firsts[chunk.vendor] += chunk.look == 1

    def _collect(self, ends: Ends, finished: Callable[[str], None]) -> None:
        """Stay until nothing is open; call `finished` with each vendor whose first looks are all over."""
        ended = False
        while self._handed_out:
            if ends.closed and not ended:
                ended = True
                self._call_off()
            over = self._client.list_workflows(
                workflow_ids=list(self._handed_out), status=_OVER, load_input=False, load_output=True
            )
            for w in over:
                chunk = self._handed_out.pop(w.workflow_id)
                self._take(w)
                self._firsts[chunk.vendor] -= chunk.look == 1
                if chunk.look == 1 and not self._firsts[chunk.vendor]:
                    finished(chunk.vendor)
            if over:
                self._client.delete_workflows([w.workflow_id for w in over if w.status == "SUCCESS"])
                self._heard = time.monotonic()
            elif self._handed_out:
                self._lonely()
                time.sleep(POLL)

    def _take(self, w: WorkflowStatus) -> None:
        if w.status != "SUCCESS":
            self.left = True
            self.failed += w.status != "CANCELLED"
            return
        told = msgspec.convert(w.output, Told)
        self.left |= told.left
        self.calls.update(told.calls)
        self.throttled.update(told.throttled)
        for vendor, keys, text in told.alarms:
            self._alarms[vendor, "" if keys > 1 else text] = Alarm(vendor, keys, text)
        for word, n in told.said.items():
            for _ in range(n):
                self._progress.step(word)

    def _call_off(self) -> None:
        """Take back what nobody has begun; what is under way ends by itself."""
        waiting = [w.workflow_id for w in self._under_way() if w.status != "PENDING"]
        if waiting:
            self._client.cancel_workflows(waiting)

    def _lonely(self) -> None:
        if time.monotonic() - self._heard < LONELY:
            return
        self._heard = time.monotonic()
        if not at_work(self._place):
            say("nobody takes the chunks: no worker is alive; start `lapse worker`")

    # ── second looks ───────────────────────────────────────────────────────────────────────────────────

    def _look_again(self, run: Run, vendor: str, ends: Ends) -> None:
        """Order second looks at what this run saw dead at a vendor, unless it looks like an outage there."""
        kinds = [k for k in self._ledger.providers() if self._setup.catalogue.vendor(k) == vendor]
        found = owed(self._setup, self._ledger, run, kinds).get(vendor, [])
        most = self._most({o.item.credential.provider for o in found})
        now = datetime.now(UTC)
        for start in range(0, len(found), most):
            part = found[start : start + most]
            ids = tuple(o.item.credential.id for o in part)
            wait = (part[-1].ready - now).total_seconds()
            self._queue(Chunk(run.id, run.started, vendor, ids, 2, _until(ends), self._trace), max(0.0, wait))


def nobody_asks(setup: Setup, ledger: Ledger) -> None:
    """Make sure that no worker asks for a night whose leader has gone; a `Stop` if one does, or will.

    Whoever asks beside it would take the same limits a second time. The caller holds the ledger's lock, so that no
    other night begins. Where the database cannot be reached, no worker asks either.
    """
    try:
        place = Desk(setup, ledger).place
    except Stop:  # the reference means nothing on this machine: it is not one of the fleet
        return
    if place.file is not None or not ledger.keeps_secrets:
        return
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
    try:
        seated(place.url, nights(place))
    except NoSeatError:
        return
    client = _client(place)
    try:
        found = len(_left_over(client, place))
    except DBAPIError:  # no worker ever was there
        found = 0
    finally:
        client.destroy()
    if found:
        said = (
            f"{plural(found, 'chunk')} of a night whose leader has gone still lie with the workers, whose limits these "
            "are; wait for them, or `lapse nightly` goes on with them (`--deadline 1s` takes back what nobody began)"
        )
        raise Stop(said)


def _client(place: Place) -> DBOSClient:
    return DBOSClient(
        system_database_url=place.url, serializer=Json(), sys_db_idle_transaction_timeout_sec=IDLE_SECONDS
    )


def _left_over(client: DBOSClient, place: Place) -> list[WorkflowStatus]:
    return client.list_workflows(queue_name=nights(place), status=_NOT_OVER, load_input=False, load_output=False)


def _until(ends: Ends) -> datetime | None:
    return None if ends.left is None else datetime.now(UTC) + timedelta(seconds=max(0.0, ends.left))
