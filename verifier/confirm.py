"""When a Dead may be believed: two looks apart in time, proof that the key arrived, and no outage in sight.

Design rules 5, 10 and 11. Pure: the caller brings the clock.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, assert_never

from msgspec import Struct

from verifier.model import Arrival, Dead, Live, Undecided

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verifier.model import Evidence, Verdict
    from verifier.ports import Due, Fallen

ProofKey: TypeAlias = tuple[str, str, str]
"""Route, carrier and, for a config override, the host: what one proof of arrival vouches for."""

UNSTRIPPABLE = frozenset({"url", "body", "wire", "offline"})
"""Carriers that no proxy drops without breaking the whole request."""


class Patience(Struct, frozen=True):
    """How long to doubt. Seconds but for `apart`, which is a timedelta.

    `confirm_after`: least time between the first and the confirming Dead. The brake is on when at least `many` keys
    seen live before turned dead and are `share` or more of those asked, or at least `few` did and none is live;
    then only answers `apart` from the first one confirm.
    """

    confirm_after: float = 60.0
    many: int = 5
    share: float = 0.5
    few: int = 3
    apart: timedelta = timedelta(hours=6)


class Standing(StrEnum):
    """What stands between a Dead and its confirmation."""

    CONFIRMED = "confirmed"
    TOO_SOON = "too-soon"
    UNPROVEN = "unproven"
    BRAKED = "braked"


class Doubter:
    """The memory of one run: who turned dead, who is live, which ways out are known to carry keys."""

    def __init__(
        self, patience: Patience, fallen: Iterable[Fallen] = (), lived: Mapping[str, int] | None = None
    ) -> None:
        """Start a run, or go on with one.

        `fallen` are the keys that turned dead lately: an outage outlasts the run that met it first. `lived` counts, by
        vendor, the keys that the same run saw live before this part of it.
        """
        self._patience = patience
        self._lived = dict(lived or {})
        self._fallen: dict[str, set[str]] = defaultdict(set)
        for before in fallen:
            self._fallen[before.vendor].add(before.id)
        self._turned: dict[str, set[str]] = defaultdict(set)
        self._live: dict[str, set[str]] = defaultdict(set)
        self._proofs: set[ProofKey] = set()

    def note(self, vendor: str, due: Due, verdict: Verdict, now: datetime) -> None:
        """Take in one verdict of this run."""
        key = due.credential.id
        if not isinstance(verdict, Undecided):
            self._fallen[vendor].discard(key)
        match verdict:
            case Live(evidence=evidence):
                self._live[vendor].add(key)
                self._turned[vendor].discard(key)
                self._prove(evidence)
            case Dead(evidence=evidence):
                if self._turns(due, now):
                    self._turned[vendor].add(key)
                self._prove(evidence)
            case Undecided():
                pass
            case _:
                assert_never(verdict)

    def _turns(self, due: Due, now: datetime) -> bool:
        """Whether the key was seen live before and its row of Deads is too young to outlast an outage."""
        if due.last_live is None:
            return False
        return due.dead_since is None or now - due.dead_since < self._patience.apart

    def _prove(self, evidence: Evidence) -> None:
        if evidence.arrival is Arrival.PROVEN and evidence.carrier not in UNSTRIPPABLE:
            self._proofs.add(proof_key(evidence))

    def braked(self, vendor: str) -> bool:
        """Whether so many known keys turned dead at `vendor` that an outage explains it better."""
        turned = len(self._turned[vendor]) + len(self._fallen[vendor])
        live = len(self._live[vendor]) + self._lived.get(vendor, 0)
        p = self._patience
        in_numbers = turned >= p.many and turned >= p.share * (turned + live)
        return in_numbers or (turned >= p.few and live == 0)

    def turned(self, vendor: str) -> int:
        """Return how many keys seen live before turned dead in this run."""
        return len(self._turned[vendor])

    def since(self, due: Due, said: Evidence, now: datetime) -> datetime:
        """Return when the row of deaths began that one of `now` may go on with: `now` itself when there is none.

        An earlier Dead counts only if it came from the same host, by a way that is known to carry keys, and not from
        the future: a clock may have been set back.
        """
        last, began = due.last, due.dead_since
        if not isinstance(last, Dead) or began is None or began > now:
            return now
        return began if last.evidence.host == said.host and self.arrived(last.evidence) else now

    def standing(self, vendor: str, evidence: Evidence, dead_since: datetime, now: datetime, wait: float) -> Standing:
        """Return what a Dead that has held since `dead_since` is worth now. `wait` is in seconds."""
        held = now - dead_since
        if held < timedelta(seconds=wait):
            return Standing.TOO_SOON
        if not self.arrived(evidence):
            return Standing.UNPROVEN
        if self.braked(vendor) and held < self._patience.apart:
            return Standing.BRAKED
        return Standing.CONFIRMED

    def arrived(self, evidence: Evidence) -> bool:
        """Whether this reply, or another of this run by the same way, proves that the key got through."""
        return (
            evidence.arrival is Arrival.PROVEN
            or evidence.route == "direct"
            or evidence.carrier in UNSTRIPPABLE
            or proof_key(evidence) in self._proofs
        )


def proof_key(evidence: Evidence) -> ProofKey:
    """Return what a proof of arrival vouches for: a proxy for every host, an override only for its own."""
    return (evidence.route, evidence.carrier, evidence.host if evidence.route == "base" else "")
