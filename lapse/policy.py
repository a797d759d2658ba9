"""What to do about a key: `[[policy]]` rules in order, the first that fits fires. Pure; it acts on nothing.

A rotation is only ever proposed here, and only for keys that `[scope]` names as ours: whoever opens it (`raised`) asks
for the approvals that its playbook and the rule want.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from lapse.ledger.model import Canary
from lapse.owners import Owned, namespace
from lapse.sections import Act, Exposure, PolicyRule, Privileges, Verdicts
from rotators.step import Effect
from verifier.model import CredentialID, Live, Visibility
from verifier.scope import Ownership

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lapse.ledger import Ledger
    from lapse.ledger.model import Key
    from lapse.owners import Owners
    from playbooks.plan import Plan
    from verifier.catalogue import Catalogue
    from verifier.model import Place

PLACES = 500
"""Most places of one key that are looked at."""


class Subject(Struct, frozen=True):
    """What policy and figures look at in a key. `verdict` is what is known, not only what was said last night."""

    id: CredentialID
    short: str
    provider: str
    vendor: str
    verdict: Verdicts
    exposure: Exposure
    owner: Owned
    age: timedelta
    privilege: Privileges
    removed: bool
    ours: bool
    foreign: bool
    canary: bool
    first_seen: datetime
    principal: str = ""
    where: str = ""
    namespace: str = ""
    shadow: frozenset[str] = frozenset()


class Missed(Struct, frozen=True):
    """A rule that did not fire, and the first reason why not. `number` counts from 1."""

    number: int
    name: str
    why: str


class Decision(Struct, frozen=True):
    """What is to be done. `rule` None: none fired, and the default holds. `held`: why a rotation is not proposed."""

    action: Act
    rule: PolicyRule | None
    number: int
    missed: tuple[Missed, ...]
    held: str = ""


class Proposal(Struct, frozen=True):
    """A rotation that a rule wants. `approvals`: at least so many people, whatever the playbook asks."""

    key: str
    playbook: str
    mode: Literal["graceful", "emergency"]
    approvals: int
    rule: str

    @property
    def command(self) -> str:
        """The command that shows the plan. It changes nothing: `--apply` and the approvals come after it."""
        book = f" --playbook {self.playbook}" if self.playbook else ""
        return f"lapse rotate {self.key}{book} --mode {self.mode}"


class Rotation(Protocol):
    """Who is handed a proposal. It may make a plan and a waiting run; it never does a step without its approval."""

    def propose(self, proposal: Proposal) -> str:
        """Take the proposal; return one sentence on what became of it."""
        ...

    def settle(self) -> list[str]:
        """Go on with what was taken as far as nobody has to agree to; return a sentence for each that failed."""
        ...


class OnPaper:
    """Hands nothing over: the command is printed and recorded, and a person runs it."""

    def propose(self, proposal: Proposal) -> str:
        """Return the command that shows the plan."""
        people = f"; {proposal.approvals} people must approve" if proposal.approvals > 1 else ""
        return f"rotation proposed: {proposal.command}{people}"

    def settle(self) -> list[str]:
        """Nothing was begun."""
        return []


def raised(plan: Plan, people: int) -> Plan:
    """Return the plan of a rotation that a rule opens: `people` at least agree before it changes anything at all.

    That is its first step that does more than read. Each further step that its playbook asks somebody about, whatever
    destroys among them, asks so many too. What the playbook asks is never lowered.
    """
    first = next((s.name for s in plan.steps if s.effect is not Effect.READS), None)
    steps = (
        replace(s, approvals=max(s.approvals, people)) if s.approvals or s.name == first else s for s in plan.steps
    )
    return replace(plan, steps=tuple(steps))


def subject(ledger: Ledger, catalogue: Catalogue, owners: Owners, key: Key, now: datetime) -> Subject:
    """Gather what is known of a key."""
    return next(subjects(ledger, catalogue, owners, [key], now))


def subjects(
    ledger: Ledger, catalogue: Catalogue, owners: Owners, keys: Sequence[Key], now: datetime
) -> Iterator[Subject]:
    """Gather what is known of many keys, in their order; the places of all are read together."""
    found: dict[str, list[Place]] = {key.id: [] for key in keys}
    for name, seen in ledger.places_of([key.id for key in keys], PLACES):
        found[name].append(seen.place)
    for key in keys:
        yield _subject(catalogue, owners, key, found[key.id], now)


def _subject(catalogue: Catalogue, owners: Owners, key: Key, found: Sequence[Place], now: datetime) -> Subject:
    identity = key.known.identity if isinstance(key.known, Live) else None
    names = (identity.principal, identity.account, identity.organisation) if identity else ()
    image = next((p.image for p in found if p.image is not None), None)
    return Subject(
        id=key.id,
        short=key.short,
        provider=key.provider,
        vendor=catalogue.vendor(key.provider),
        verdict="live" if isinstance(key.known, Live) else "dead" if key.known and key.confirmed else "undecided",
        exposure=exposure(found),
        owner=owners.owner(found, identity.account if identity else None),
        age=now - key.first_seen,
        privilege=identity.privilege.value if identity else "unknown",
        removed=key.removed_from_source,
        ours=key.owner is Ownership.OURS,
        foreign=key.owner is Ownership.FOREIGN,
        canary=key.canary is Canary.YES,
        first_seen=key.first_seen,
        principal=" / ".join(dict.fromkeys(n for n in names if n)),
        where=_where(found[0]) if found else "",
        namespace=namespace(image) if image else "",
        shadow=owners.shadow(found),
    )


def exposure(places: Sequence[Place]) -> Exposure:
    """Return `public` if any place is, `private` only if all are known to be."""
    seen = {p.visibility for p in places}
    if Visibility.PUBLIC in seen:
        return "public"
    return "private" if seen == {Visibility.PRIVATE} else "unknown"


def _where(place: Place) -> str:
    name = place.image.reference if place.image else place.repository or ""
    return f"{name} {place.path or ''}{f':{place.line}' if place.line else ''}".strip()


def decide(rules: Sequence[PolicyRule], about: Subject) -> Decision:
    """Return what the first fitting rule wants; without one, live keys are notified and others left alone."""
    missed: list[Missed] = []
    for number, rule in enumerate(rules, 1):
        why = _misses(rule, about)
        if why:
            missed.append(Missed(number, rule.name or f"rule {number}", why))
            continue
        held = _held(about) if rule.action == "rotate" else ""
        return Decision("notify" if held else rule.action, rule, number, tuple(missed), held)
    return Decision("notify" if about.verdict == "live" else "nothing", None, 0, tuple(missed))


def proposal(decision: Decision, about: Subject) -> Proposal | None:
    """Return the rotation that a decision wants, if it wants one."""
    rule = decision.rule
    if decision.action != "rotate" or rule is None:
        return None
    name = rule.name or f"rule {decision.number}"
    return Proposal(about.short, rule.playbook, rule.mode, rule.approvals, name)


def _held(about: Subject) -> str:
    """Return why a key may not be rotated, whatever a rule says (design §3, rules 7 and 8)."""
    if about.canary:
        return "it is a canary"
    if about.foreign:
        return "it is somebody else's"
    return "" if about.ours else "nothing shows that it is ours ([scope] names what is)"


def _misses(rule: PolicyRule, about: Subject) -> str:
    """Return the first condition that does not hold; empty when all do."""
    chosen: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
        ("provider", rule.provider, (about.provider, about.vendor)),
        ("verdict", rule.verdict, (about.verdict,)),
        ("exposure", rule.exposure, (about.exposure,)),
        ("owner", rule.owner, (about.owner.name,)),
        ("privilege", rule.privilege, (about.privilege,)),
    )
    for name, wanted, has in chosen:
        if wanted and not set(wanted) & set(has):
            return f"{name} is {has[0]}, not {' or '.join(wanted)}"
    days = about.age / timedelta(days=1)
    if rule.older is not None and about.age <= rule.older.delta:
        return f"first seen {days:.1f} days ago, not longer than {rule.older.text}"
    if rule.younger is not None and about.age >= rule.younger.delta:
        return f"first seen {days:.1f} days ago, not less than {rule.younger.text}"
    if rule.removed is not None and rule.removed is not about.removed:
        return "it is still in the source" if rule.removed else "it is gone from the source"
    return ""
