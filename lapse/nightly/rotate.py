"""Rotations that a `[[policy]]` rule wants: opened, taken as far as they only read, and left to wait for people.

A rotation that a rule opens changes nothing before as many people as the rule says agreed (`lapse.policy.raised`). What
cannot be opened (a setting is missing, the secret is not kept) is proposed on paper, with the reason.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from lapse.exits import Exit, Stop
from lapse.narrator import verdict_of
from lapse.output.console import safe, say
from lapse.policy import OnPaper, raised
from lapse.rotation import Desk, said_plainly
from playbooks.journal import Status
from playbooks.plan import Mode

if TYPE_CHECKING:
    from lapse.commands.setup import Setup
    from lapse.ledger import Ledger
    from lapse.nightly.gate import Gate
    from lapse.policy import Proposal

PATIENCE = timedelta(seconds=5)
"""A wait of up to so long is sat out by the night; a longer one is left to `lapse resume`, the console or a worker."""


class Opener:
    """Opens proposals of one ledger's night. After the gate closed nothing is gone on with, only opened."""

    def __init__(self, setup: Setup, ledger: Ledger, gate: Gate, *, quiet: bool) -> None:
        """Take the set-up and the open ledger; asks nobody anything yet."""
        self._desk, self._gate, self._quiet = Desk(setup, ledger), gate, quiet
        self._opened: list[str] = []

    def propose(self, proposal: Proposal) -> str:
        """Open the rotation; return a sentence that names it and who must agree, or the proposal and why not."""
        try:
            with said_plainly():
                return self._open(proposal)
        except Stop as e:
            return f"{OnPaper().propose(proposal)}; not opened: {e}"

    def _open(self, proposal: Proposal) -> str:
        desk = self._desk
        made = desk.plan(desk.key(proposal.key), Mode(proposal.mode), proposal.playbook or None, {})
        made = raised(made, proposal.approvals)
        desk.world(made)  # whoever is missing is missed before anything is on record
        name = f"r-{secrets.token_hex(3)}"
        desk.engine.start(name, made, f"policy: {proposal.rule}")
        self._opened.append(name)
        people = "one person" if proposal.approvals == 1 else f"{proposal.approvals} people"
        return f"rotation {name} opened; it changes nothing before {people} agreed: lapse approve {name}"

    def settle(self) -> list[str]:
        """Take the steps that only read, up to the first approval; return what stopped before it."""
        if not self._opened or self._gate.closed:
            return []
        opened, self._opened = self._opened, []
        try:
            states = self._desk.drive(opened, PATIENCE, quiet=True)
        except Stop as e:
            if e.code is Exit.INTERRUPTED:
                raise
            return [f"rotations {', '.join(opened)}: {e}"]
        for state in states:
            say(safe(verdict_of(state)[0]), quiet=self._quiet)
        stuck = [s for s in states if s.status in {Status.STOPPED, Status.ENDED}]
        return [f"rotation {safe(verdict_of(state)[0])}" for state in stuck]
