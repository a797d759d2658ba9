"""What changed since a moment, and how long keys live: the figures of the morning, of `lapse diff` and the metrics."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from lapse.exits import Exit, Stop
from lapse.ledger.model import Select, State, Told, Turn
from lapse.policy import subjects
from lapse.sections import DURATION, Duration
from verifier.model import CredentialID, Dead, Live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lapse.config import Config
    from lapse.ledger import Ledger
    from lapse.ledger.model import Key, Turned
    from lapse.owners import Owners
    from lapse.policy import Subject
    from verifier.catalogue import Catalogue

DAY = timedelta(days=1)
NO_NAMESPACE = "no image"
_LISTS = ("new", "died", "unproven", "revived", "still_live", "removed", "breaches")
PAGE = 500
LOOK_BACK = timedelta(days=30)
"""How long before the time in question a key may have been refused first that was proven dead within it."""


class KeyDelta(Struct, frozen=True):
    """One key of a list. `days`: since it was first seen; for dead ones, from then until it was first refused.

    `at` is when it turned or, for `died`, when its death was proven; for keys that did neither, when it was last seen
    live. `limit_days`: the SLA, in `breaches`.
    """

    key: str
    provider: str
    owner: str
    namespace: str
    where: str
    exposure: str
    privilege: str
    principal: str
    at: datetime
    days: float
    confirmed: bool = False
    removed_from_source: bool = False
    limit_days: float | None = None
    id: CredentialID = CredentialID("")


class Figures(Struct, frozen=True):
    """The counts of a group. `died`: proven dead; `unproven`: refused, but not proven dead yet.

    `revoke_*`: days from first seen to first refused, of what was proven dead.
    """

    live: int = 0
    new: int = 0
    died: int = 0
    unproven: int = 0
    revived: int = 0
    removed_never_revoked: int = 0
    breaches: int = 0
    revoke_mean_days: float | None = None
    revoke_p90_days: float | None = None


class DiffOut(Struct, frozen=True):
    """`diff --format json`. `shadow_registries`: live or changed keys by image namespaces that no `[[owner]]` names."""

    since: datetime
    until: datetime
    total: Figures
    new: tuple[KeyDelta, ...]
    died: tuple[KeyDelta, ...]
    unproven: tuple[KeyDelta, ...]
    revived: tuple[KeyDelta, ...]
    still_live: tuple[KeyDelta, ...]
    removed_never_revoked: tuple[KeyDelta, ...]
    breaches: tuple[KeyDelta, ...]
    by_owner: dict[str, Figures]
    by_provider: dict[str, Figures]
    by_namespace: dict[str, Figures]
    shadow_registries: dict[str, int]
    v: Literal[1] = 1


def since(text: str, now: datetime) -> datetime:
    """Read `7d`, `2026-11-01` or `2026-11-01T06:00+00:00`; a date is its midnight, UTC. Else a `Stop`."""
    if DURATION.fullmatch(text):
        return now - Duration(text).delta
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", text):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    example = date(2026, 11, 1).isoformat()
    raise Stop(f"--since {text!r} is no time; write a date ({example}) or a span (12h, 7d)", Exit.USAGE)


def diff(
    ledger: Ledger,
    catalogue: Catalogue,
    owners: Owners,
    config: Config,
    span: tuple[datetime, datetime],
    see: Callable[[Subject], None] = lambda _: None,
) -> DiffOut:
    """Compare the end of `span` (now) with its beginning.

    Cost: one look at the places of every live key and of every key that turned, a page at a time; what stays in memory
    is a `KeyDelta` each. `see` is shown what was gathered of each of these keys, once.
    """
    return _Differ(ledger, catalogue, owners, config, span, see).result()


class _Differ:
    def __init__(
        self,
        ledger: Ledger,
        catalogue: Catalogue,
        owners: Owners,
        config: Config,
        span: tuple[datetime, datetime],
        see: Callable[[Subject], None],
    ) -> None:
        self._ledger, self._catalogue, self._owners = ledger, catalogue, owners
        self._begin, self._now = span
        self._sla = config.nightly.sla.delta
        self._slas = {r.name: r.sla.delta for r in config.owner if r.sla is not None and r.name}
        self._see = see
        self._lists: dict[str, list[KeyDelta]] = defaultdict(list)
        self._seen: set[CredentialID] = set()
        self._shadow = Counter[str]()

    def result(self) -> DiffOut:
        self._turned()
        self._living()
        for name in ("new", "died", "unproven", "revived"):
            self._lists[name].sort(key=lambda d: d.at)
        for name in ("still_live", "removed", "breaches"):
            self._lists[name].sort(key=lambda d: -d.days)
        found = {name: tuple(items) for name, items in self._lists.items()}
        lists = {n: found.get(n, ()) for n in _LISTS}
        return DiffOut(
            since=self._begin,
            until=self._now,
            total=_figures(lists),
            new=lists["new"],
            died=lists["died"],
            unproven=lists["unproven"],
            revived=lists["revived"],
            still_live=lists["still_live"],
            removed_never_revoked=lists["removed"],
            breaches=lists["breaches"],
            by_owner=self._by(lists, "owner"),
            by_provider=self._by(lists, "provider"),
            by_namespace=self._by(lists, "namespace"),
            shadow_registries=dict(sorted(self._shadow.items())),
        )

    def _turned(self) -> None:
        """List what turned, by where it ended: a key that died and came back within the time is revived, not dead."""
        turned = (
            t
            for t in self._ledger.turns(self._begin - LOOK_BACK)
            if t.at <= self._now and t.turn is not Turn.FOUND_DEAD
        )
        by_key = ((name, tuple(mine)) for name, mine in groupby(turned, key=lambda t: t.id))
        while page := dict(islice(by_key, PAGE)):
            self._seen.update(page)
            for key, delta in self._deltas(tuple(page)):
                mine = page[key.id]
                first = next((t for t in mine if t.turn is Turn.FOUND_LIVE and t.at >= self._begin), None)
                if first is not None:
                    self._add("new", delta, first.at)
                self._ended(key, delta, mine[-1])
                if isinstance(key.known, Live):
                    if first is None:
                        self._add("still_live", delta, key.last_live or key.first_seen)
                    self._lives(key, delta)

    def _ended(self, key: Key, delta: KeyDelta, last: Turned) -> None:
        if last.turn is Turn.DIED and isinstance(key.known, Dead):
            if key.confirmed_at is not None and key.confirmed_at >= self._begin:
                self._add("died", delta, key.confirmed_at)
            elif key.confirmed_at is None and last.at >= self._begin:
                self._add("unproven", delta, last.at)
        elif last.turn is Turn.REVIVED and last.at >= self._begin and self._was_proven(key, last.at):
            self._add("revived", delta, last.at)

    def _was_proven(self, key: Key, at: datetime) -> bool:
        """Say whether the death before `at` had been confirmed; a refusal that was never believed is no death."""
        verdicts = [e.verdict for e in self._ledger.story(key.id) if isinstance(e, Told) and e.at < at]
        for verdict in reversed(verdicts):
            if isinstance(verdict, Live):
                return False
            if isinstance(verdict, Dead) and verdict.confirmed:
                return True
        return False

    def _living(self) -> None:
        names = (name for name, _, _ in self._ledger.names(Select(states=frozenset({State.LIVE}))))
        rest = (name for name in names if name not in self._seen)
        while page := tuple(islice(rest, PAGE)):
            for key, delta in self._deltas(page):
                self._add("still_live", delta, key.last_live or key.first_seen)
                self._lives(key, delta)

    def _lives(self, key: Key, delta: KeyDelta) -> None:
        at = key.last_live or key.first_seen
        if key.removed_from_source:
            self._add("removed", delta, at)
        limit = self._slas.get(delta.owner, self._sla)
        if self._now - key.first_seen > limit:
            self._add("breaches", replace(delta, limit_days=limit / DAY), at)

    def _deltas(self, ids: tuple[CredentialID, ...]) -> Iterator[tuple[Key, KeyDelta]]:
        """Yield a page of keys with what the lists say of each; what policy looks at is gathered on the way."""
        page = list(self._ledger.keys(Select(ids=ids)))
        gathered = subjects(self._ledger, self._catalogue, self._owners, page, self._now)
        for key, about in zip(page, gathered, strict=True):
            self._see(about)
            self._shadow.update(about.shadow)
            yield key, self._delta(key, about)

    def _delta(self, key: Key, about: Subject) -> KeyDelta:
        until = key.dead_since or self._now
        return KeyDelta(
            key=key.short,
            provider=key.provider,
            owner=about.owner.name,
            namespace=about.namespace or NO_NAMESPACE,
            where=about.where,
            exposure=about.exposure,
            privilege=about.privilege,
            principal=about.principal,
            at=key.first_seen,
            days=round((until - key.first_seen) / DAY, 3),
            confirmed=key.confirmed,
            removed_from_source=key.removed_from_source,
            id=key.id,
        )

    def _add(self, name: str, delta: KeyDelta, at: datetime) -> None:
        self._lists[name].append(replace(delta, at=at))

    @staticmethod
    def _by(lists: Mapping[str, tuple[KeyDelta, ...]], field: str) -> dict[str, Figures]:
        names = sorted({str(getattr(d, field)) for items in lists.values() for d in items})
        grouped: dict[str, dict[str, list[KeyDelta]]] = {n: defaultdict(list) for n in names}
        for name, items in lists.items():
            for d in items:
                grouped[str(getattr(d, field))][name].append(d)
        return {n: _figures(grouped[n]) for n in names}


def _figures(lists: Mapping[str, Sequence[KeyDelta]]) -> Figures:
    def n(name: str) -> int:
        return len(lists.get(name, ()))

    took = sorted(d.days for d in lists.get("died", ()))
    gone = {d.id for name in ("died", "unproven") for d in lists.get(name, ())}
    return Figures(
        live=n("still_live") + sum(d.id not in gone for d in lists.get("new", ())),
        new=n("new"),
        died=n("died"),
        unproven=n("unproven"),
        revived=n("revived"),
        removed_never_revoked=n("removed"),
        breaches=n("breaches"),
        revoke_mean_days=round(sum(took) / len(took), 3) if took else None,
        revoke_p90_days=took[math.ceil(0.9 * len(took)) - 1] if took else None,
    )
