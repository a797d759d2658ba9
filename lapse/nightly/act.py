"""Acting by policy on what a night found: issues and rotations are opened; nothing is changed without its approval."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from lapse.ledger.model import Select, State
from lapse.nightly.web import Trouble
from lapse.notify import note, told, tracker
from lapse.output.console import safe
from lapse.policy import OnPaper, decide, proposal, subjects
from lapse.sections import Act

if TYPE_CHECKING:
    from datetime import datetime

    from lapse.config import Config
    from lapse.ledger import Ledger
    from lapse.owners import Owners
    from lapse.policy import Decision, Rotation, Subject
    from verifier.catalogue import Catalogue
    from verifier.model import CredentialID


PAGE = 500


class Acted(Struct, frozen=True):
    """What was done about one key, by which rule; `again`: it was done in a night before, and not repeated."""

    key: str
    action: Act
    rule: str
    said: str
    again: bool = False
    id: str = ""


class Actor:
    """Carries out `[[policy]]`. `failed` says which issue or rotation came to nothing, and why."""

    def __init__(self, config: Config, ledger: Ledger, rotation: Rotation | None = None) -> None:
        """Take the rules; `rotation` is who is handed proposals (`OnPaper` without one)."""
        self._rules, self._ledger = config.policy, ledger
        self._tracker = tracker(config.notify.ticket)
        self._rotation: Rotation = rotation or OnPaper()
        self.failed: list[str] = []
        self.quiet: set[CredentialID] = set()
        self._todo: dict[CredentialID, tuple[Subject, Decision]] = {}

    def consider(self, about: Subject) -> None:
        """Decide about a key, and keep it for `act` if anything is to be done about it."""
        decision = decide(self._rules, about)
        match decision.action:
            case "nothing":
                if about.verdict == "live":
                    self.quiet.add(about.id)
            case "notify" if not decision.held:
                pass  # the news tell of it
            case _:
                self._todo[about.id] = about, decision

    def undecided(self, catalogue: Catalogue, owners: Owners, now: datetime) -> None:
        """Consider undecided keys too, where a rule names them; those that turned were considered before."""
        if not any("undecided" in r.verdict for r in self._rules):
            return
        keys = self._ledger.keys(Select(states=frozenset({State.UNDECIDED})))
        while page := list(islice(keys, PAGE)):
            for about in subjects(self._ledger, catalogue, owners, page, now):
                self.consider(about)

    def act(self) -> list[Acted]:
        """Act on every key; an action that was taken before (and the key has not turned since) is not repeated."""
        done = [acted for about, decision in self._todo.values() if (acted := self._one(about, decision))]
        self.failed += self._rotation.settle()
        return done

    def _one(self, about: Subject, decision: Decision) -> Acted | None:
        rule = (decision.rule and decision.rule.name) or (f"rule {decision.number}" if decision.number else "default")
        match decision.action:
            case "ticket":
                return self._ticket(about, rule)
            case "rotate":
                return self._propose(about, decision, rule)
            case _:
                held = f"no rotation: {decision.held}" if decision.held else ""
                return Acted(about.short, "notify", rule, held, id=about.id) if held else None

    def _ticket(self, about: Subject, rule: str) -> Acted | None:
        if "ticket" in told(self._ledger, [about.id])[about.id]:
            return Acted(about.short, "ticket", rule, "has its issue", again=True, id=about.id)
        if self._tracker is None:
            self._fail('policy wants a ticket, and [notify.ticket] names no tracker; set kind = "jira" or "github"')
            return None
        state = {"live": "still works", "dead": "is dead", "undecided": "could not be judged"}[about.verdict]
        try:
            url = self._tracker.open(f"Leaked key {about.short} ({about.provider}) {state}", body(about, rule))
        except Trouble as e:
            self._fail(str(e))
            return None
        note(self._ledger, "ticket", [about.id], f"ticket opened: {url}", url=url)
        return Acted(about.short, "ticket", rule, f"ticket opened: {url}", id=about.id)

    def _propose(self, about: Subject, decision: Decision, rule: str) -> Acted | None:
        wanted = proposal(decision, about)
        if wanted is None:
            return None
        if "proposed" in told(self._ledger, [about.id])[about.id]:
            return Acted(about.short, "rotate", rule, f"proposed before: {wanted.command}", again=True, id=about.id)
        said = self._rotation.propose(wanted)
        note(self._ledger, "proposed", [about.id], said, rule=rule, command=wanted.command)
        return Acted(about.short, "rotate", rule, said, id=about.id)

    def _fail(self, said: str) -> None:
        if said not in self.failed:
            self.failed.append(said)


def body(about: Subject, rule: str) -> str:
    """Return the text of an issue: what a responder asks first, nothing secret."""
    facts = {
        "Key": about.short,
        "Kind": about.provider,
        "Speaks for": about.principal or "unknown",
        "Privilege": about.privilege,
        "Seen in": about.where or "unknown",
        "Exposure": about.exposure,
        "Owner": f"{about.owner.name} ({about.owner.why})",
        "First seen": f"{about.first_seen:%Y-%m-%d}",
        "Gone from source": "yes, but never revoked" if about.removed else "no",
        "Rule": rule,
    }
    told = "\n".join(f"{name}: {safe(value)}" for name, value in facts.items())
    return f"{told}\n\nIts story: lapse show {about.short}\nIts replacement: lapse rotate {about.short}\n"
