"""The second half of the demonstration: keys are replaced on real servers, and the old ones proven dead."""

from __future__ import annotations

from collections.abc import Callable  # msgspec reads annotations at run time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from lapse.exits import Exit, Stop
from lapse.ledger import open_ledger
from lapse.sandbox import targets
from lapse.sandbox.stage import LEDGER, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lapse.sandbox.servers import Server
    from lapse.sandbox.stage import Stage
    from lapse.sandbox.world import World

STARTER, APPROVER = "dana", "erin"
"""Who starts the rotations, and who agrees to what cannot be undone."""

_MINTED = "AWS has made the new key, and the old one still works."
_ENDING = "the provider has accepted the end of the key, which proves nothing yet."
_TURNS = 3
_SHORT = ("--set", "retire.drain=1s", "--set", "retire.soak=1s")


class Rotation(Struct, frozen=True):
    """One key to rotate: its id, what follows `lapse rotate KEY`, and who says afterwards what became of it.

    `approved`: somebody else than who starts it is to agree.
    """

    key: str
    words: tuple[str, ...]
    look: Callable[[], str]
    approved: bool = False


class Rotations:
    """Plays the rotations that the servers at hand allow."""

    def __init__(self, stage: Stage, world: World) -> None:
        """Take the stage and the world."""
        self._stage, self._world = stage, world
        self._keys = stage.live()

    def play(self) -> str:
        """Rotate up to three keys, one process being killed on the way; return the first run."""
        stage = self._stage
        aws, database, ending = self._aws(), self._database(), self._ending()
        rotations = [r for r in (aws, database, ending) if r is not None]
        stage.head("Replace them: a plan first, and only for what is ours ([scope] of lapse.toml)")
        if foreign := self._find("slack_bot"):
            stage.lapse("rotate", foreign, leave={Exit.USAGE})
        stage.lapse("rotate", ending.key, *ending.words)
        run = "" if aws is None else self._killed(aws)
        stage.head("Whoever starts it may agree by --yes, where the playbook asks for one person")
        if database is not None:
            self._begin(database, "OpenBao makes, sets and keeps the new one")
        if aws is None:
            self._cut(ending, lambda: self._world.saas.ending(self._planted("huggingface")["secret"]), _ENDING)
        else:
            self._begin(ending, "nothing in the new image uses it: no successor")
            stage.head("Somebody else may agree, too; then one process finishes all")
            stage.lapse("approve", run, "--as", APPROVER)
        self._finish()
        stage.head("Asked past Lapse: with what leaked, and with what OpenBao holds now")
        for rotation in rotations:
            say(f"{rotation.key:<20} {rotation.look()}")
        stage.head("The story of one, again")
        stage.lapse("show", rotations[0].key)
        return self._runs()[0]

    def _killed(self, rotation: Rotation) -> str:
        """Apply, kill the process the moment AWS has made the new key, and go on; return the run."""
        self._stage.head("The process is killed in the middle, and another goes on")
        with self._minted() as minted:
            self._cut(rotation, minted, _MINTED)
        say("(Drain and soak take a second here; the playbook by itself waits a day for each.)")
        self._stage.lapse("resume", why="the record says what was intended, AWS and OpenBao what came of it")
        return self._runs()[-1]

    def _cut(self, rotation: Rotation, when: Callable[[], bool], then: str) -> None:
        words = ("rotate", rotation.key, *rotation.words, "--apply", "--as", STARTER)
        words += () if rotation.approved else ("--yes",)
        if self._stage.killed(*words, when=when, why="kill -9 in the middle of it"):
            say(f"\nKilled with -9: {then}")

    @contextmanager
    def _minted(self) -> Iterator[Callable[[], bool]]:
        if self._world.aws is None:
            yield lambda: False
            return
        with targets.iam(self._world.aws) as client:
            yield lambda: targets.minted(client)

    def _begin(self, rotation: Rotation, why: str) -> None:
        words = (*rotation.words, "--apply", "--yes", "--as", STARTER, "--wait", "0s")
        self._stage.lapse("rotate", rotation.key, *words, why=why)

    def _finish(self) -> None:
        """Resume until nothing is open: a run that waits for a moment that has not come is left out by `resume`."""
        for _ in range(_TURNS):
            self._stage.lapse("resume")
            with open_ledger(self._stage.folder / LEDGER) as ledger:
                if not ledger.rotations.open_runs():
                    return
        raise Stop("the sandbox's rotations do not end: please report this")

    def _runs(self) -> Sequence[str]:
        with open_ledger(self._stage.folder / LEDGER) as ledger:
            return ledger.rotations.runs()

    # ── which keys, and what became of them ────────────────────────────────────────────────────────────

    def _aws(self) -> Rotation | None:
        aws, bao = self._world.aws, self._world.bao
        if aws is None or bao is None:
            say("\n(left out: the rotation of an AWS key, which takes OpenBao and MiniStack)")
            return None
        key = self._find("aws_akia", targets.BOT)
        return None if key is None else Rotation(key, _SHORT, lambda: self._look_aws(aws, bao), approved=True)

    def _database(self) -> Rotation | None:
        sql, bao = self._world.sql, self._world.bao
        if sql is None or bao is None:
            say("\n(left out: the rotation of a database password, which takes OpenBao and PostgreSQL)")
            return None
        key = self._find("postgres")
        words = ("--playbook", "vault-database-static-role")
        return None if key is None else Rotation(key, words, lambda: self._look_database(sql, bao))

    def _ending(self) -> Rotation:
        key = self._find("huggingface")
        if key is None:
            raise Stop("the sandbox's Hugging Face token is not live: please report this")
        return Rotation(key, ("--playbook", "self-revoke"), self._look_ending)

    def _find(self, provider: str, path: str = "") -> str | None:
        """Return the short id of a live key of this provider that was seen at such a path."""
        for key in self._keys:
            if key.provider == provider and any(path in seen for seen in key.paths):
                return key.key
        return None

    def _planted(self, kind: str, path: str = "") -> Mapping[str, str]:
        return next(p.parts for p in self._world.planted if p.kind == kind and p.path.endswith(path))

    def _look_aws(self, aws: Server, bao: Server) -> str:
        old, new = self._planted("aws_akia", f"/{targets.BOT}"), targets.stored(bao)
        return _told(
            "AWS", targets.ask_aws(aws, old["id"], old["secret"]),
            targets.ask_aws(aws, new["access_key_id"], new["secret_access_key"]),
        )  # fmt: skip

    def _look_database(self, sql: Server, bao: Server) -> str:
        old = self._planted("postgres")["password"]
        return _told("PostgreSQL", targets.ask_sql(sql, old), targets.ask_sql(sql, targets.static_password(bao)))

    def _look_ending(self) -> str:
        url = self._world.saas.base_url("huggingface")
        return _told("Hugging Face", targets.ask_huggingface(url, self._planted("huggingface")["secret"]), None)


def _told(who: str, old: targets.Answer, new: targets.Answer | None) -> str:
    """Say what was answered to both; that an old key works or a new one does not is a `Stop`."""
    if old.accepted or (new is not None and not new.accepted):
        raise Stop(f"{who} did not answer as it should after a rotation: please report this")
    return f"{who}, old: {old.words}" + (f"\n{'':<20} {who}, new: {new.words}" if new else "")
