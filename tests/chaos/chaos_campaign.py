"""One playbook on one engine: rotation after rotation, each killed several times, until so many kills were suffered.

After every kill the world is asked whether what the store holds works; at every end, all that a rotation promises.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from chaos_attempt import ENDED, STOPPED, WAITS, Job
from chaos_world import Case, Shape, Shelf, World
from chaos_zygote import Fate

from lapse.ledger import Ledger, Ownership, Scan, open_ledger
from playbooks.engine import marker_of
from playbooks.journal import End, RunState, What, state_of
from playbooks.plan import Action, Slot
from playbooks.seat import LOST
from rotators.step import Effect
from verifier.fingerprint import Fingerprinter
from verifier.model import Finding, KindID, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
KEK = "LAPSE_CHAOS_KEK"
ENGINE = "LAPSE_CHAOS_ENGINE"
MOST = 40
"""Attempts that one rotation may take: it must get on in spite of its kills."""
ENOUGH = 5
"""Failures after which a campaign is broken off."""
SETTLING = 2.0
"""Seconds in which what was under way at a server when its client died may still come out."""
CONFIG = """
[ledger]
url = "{folder}/ledger.db"
key = "env:LAPSE_CHAOS_KEK"
[verify]
retries = 0
[egress]
allow_private = ["127.0.0.1/32"]
[rotate]
engine = "env:LAPSE_CHAOS_ENGINE"
{rotate}
"""
HIDDEN = {"{new.secret}", "{new.password}", "{new.token}"}
QUICK = {
    "evidence.within": "5s",
    "verify.times": "2",
    "verify.every": "30ms",
    "verify.within": "30s",
    "retire.drain": "50ms",
    "retire.soak": "50ms",
    "prove.times": "2",
    "prove.window": "100ms",
}
"""What a user would say with `--set` to have a playbook's waits over soon."""


@dataclass
class Figures:
    """What a campaign came to. `where` counts kills by the last line of the journal before each.

    Its `fenced` are processes that ended themselves, having been still for too long.
    """

    playbook: str
    engine: str
    kills: int = 0
    resumes: int = 0
    runs: int = 0
    undone: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    where: Counter[str] = field(default_factory=Counter)


class Zygote:
    """The process that forks and kills."""

    def __init__(self, config: Path, modules: tuple[str, ...], env: Mapping[str, str]) -> None:
        root = HERE.parent.parent
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        paths = os.pathsep.join(str(p) for p in (root, HERE, HERE.parent, HERE.parent / "playbooks"))
        cache = {"XDG_CACHE_HOME": f"/tmp/lapse-test-cache-{os.getuid()}"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "chaos_zygote.py"), str(config), *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=config.parent,
            env={**kept, "PYTHONPATH": paths, **cache, **env},
        )  # fmt: skip
        said = self._line()
        assert said == "ready", said

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def attempt(self, job: Job) -> Fate:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(job).decode() + "\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._line(), type=Fate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(30)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while: what the world's own hands log in with."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Campaign:
    """All of it. `engine` is the URL of the engine's tables, empty for a SQLite file beside the ledger."""

    def __init__(self, world: World, folder: Path, engine: str = "", *, seed: int = 1) -> None:
        self.world, self.folder = world, folder
        self.url = engine or f"sqlite:///{folder}/engine.db"
        self.rng = random.Random(f"{world.playbook}{engine[:6]}{seed}")  # noqa: S311  # instants that can be had again
        self.figures = Figures(world.playbook, "postgresql" if engine else "sqlite")
        self.planted: set[str] = set()
        self.length = 3.0
        self.start = 0.2

    def run(self, kills: int, a_run: int = 8, *, undo_every: int = 4, measure: bool = True) -> Figures:
        """Rotate until `kills` were suffered, `a_run` at most in one rotation.

        The first one is left alone, to `measure` how long it takes.
        """
        began = time.monotonic()
        with ExitStack() as stack:
            self._enter(stack)
            if measure:
                self._rotate(0, 0, undo=False)
            while self.figures.kills < kills and len(self.figures.failures) < ENOUGH:
                n = self.figures.runs
                undo = (
                    self.world.shape in {Shape.BESIDE, Shape.IN_PLACE, Shape.NEW_WAY}
                    and n % undo_every == undo_every - 1
                )
                self._rotate(n, a_run, undo=undo)
            self._leaks()
        self.figures.seconds = time.monotonic() - began
        return self.figures

    def _enter(self, stack: ExitStack) -> None:
        bao = self.world.servers.get("openbao")
        env = {KEK: os.urandom(32).hex(), ENGINE: self.url}
        if bao is not None:
            env |= {"VAULT_ADDR": bao.url, "VAULT_TOKEN": bao.admin["token"]}
        stack.enter_context(environment(env))
        self.world.enter(stack)
        self.env = env | self.world.env()
        config = self.folder / "lapse.toml"
        config.write_text(CONFIG.format(folder=self.folder, rotate=self.world.rotate()) + self.world.config())
        self.ledger: Ledger = stack.enter_context(open_ledger(self.folder / "ledger.db", f"env:{KEK}"))
        self.zygote = stack.enter_context(Zygote(config, self.world.imports, self.env))

    # ── one rotation ───────────────────────────────────────────────────────────────────────────────────

    def _rotate(self, n: int, kills: int, *, undo: bool) -> None:
        case = self.world.case(n)
        rotation = Rotation(self, case, n, undo=undo)
        self.figures.runs += 1
        try:
            rotation.suffer(kills)
        except Broken as e:
            self._failed(rotation, str(e))
        self.planted |= {*case.planted(), *rotation.secrets()}
        case.end()

    def _failed(self, rotation: Rotation, said: str) -> None:
        self.figures.failures.append(f"{rotation.run} ({rotation.mode}{', undo' if rotation.undo else ''}): {said}")
        entries = self.ledger.rotations.entries(rotation.run) if rotation.begun() else []
        lines = [
            f"{e.at:%H:%M:%S.%f} {e.step:<12} {e.what:<10} {e.text} {dict(e.data) if e.step else ''}" for e in entries
        ]
        (self.folder / f"{rotation.run}.txt").write_text("\n".join([said, *rotation.told, *lines]))

    def _leaks(self) -> None:
        """Look for every secret there was in every byte that was kept."""
        kept = {
            p.name: p.read_bytes() for p in self.folder.glob("*") if p.suffix in {".db", ".db-wal", ".log", ".toml"}
        }
        if self.url.startswith("postgresql"):
            kept["engine"] = _rows(self.url)
        for secret in map(_core, self.planted):
            for name, blob in kept.items():
                if secret.encode() in blob:
                    self.figures.failures.append(f"a secret is in {name}: {secret[:6]}…")


class Broken(AssertionError):  # noqa: N818  # reads as what it is
    """A promise was broken: one sentence."""


def must(true: object, said: str) -> None:
    if not true:
        raise Broken(said)


class Rotation:
    """One key's way from leaked to proven dead, or back."""

    def __init__(self, campaign: Campaign, case: Case, n: int, *, undo: bool) -> None:
        self.of, self.case, self.undo = campaign, case, undo
        world, rng = campaign.world, campaign.rng
        self.shape = world.shape
        self.run = f"r-{n}"
        self.mode = world.modes[n % len(world.modes)]
        self.shelf: Shelf | None = world.shelf(case, n)
        self.told: list[str] = []
        self.key = self._known()
        self.others = case.others()
        self.talk = rng.random() < 0.5
        self.value: str | None = None
        if case.value is not None:
            path = campaign.folder / f"value-{n}"
            path.write_text(case.value)
            self.value = str(path)

    def _known(self) -> str:
        """Put the leaked key into the ledger, as ours."""
        ledger, kind = self.of.ledger, self.of.world.kind
        parts = {name: Secret(value) for name, value in self.case.parts.items()}
        name = Fingerprinter(ledger.id_key).of(kind, KindID(kind), parts)
        row = (
            Finding(KindID(kind), parts, Place(SourceKind.GIT, repository="acme/app", path="a.env"), "gitleaks", "x"),
            name,
            "K…",
        )
        ledger.ingest(Scan("gitleaks", "report.json", "gitleaks-json"), [row])
        ledger.mark([name], owner=Ownership.OURS)
        return name

    def begun(self) -> bool:
        return self.run in self.of.ledger.rotations.runs()

    def state(self) -> RunState:
        return state_of(self.run, self.of.ledger.rotations.entries(self.run))

    def secrets(self) -> list[str]:
        """Return what the rotation has stored and nobody else may know."""
        if self.shelf is None or not self.begun():
            return []
        hidden = [name for name, template in self.state().plan.write.items() if template in HIDDEN]
        return [value for name, value in self.shelf.held()[1].items() if name in hidden]

    # ── its life ───────────────────────────────────────────────────────────────────────────────────────

    def suffer(self, kills: int) -> None:
        """Go on until the end, killed `kills` times at most, then check everything."""
        campaign, rng = self.of, self.of.rng
        span = campaign.length * (0.6 if self.undo else 1.1)
        points = sorted(rng.uniform(0, span) for _ in range(kills))
        gaps = [b - a for a, b in zip([0.0, *points], points, strict=False)]
        back = False
        for i in range(MOST):
            after, working = self._instant(gaps[i]) if i < kills else (None, True)
            if i == 1 and self.talk:
                self.case.colleague()
                self.others = self.case.others()
            fate = self._attempt(after, working=working, undo=back)
            if fate.killed:
                self._struck(after)
            self._sound()
            if self.undo and not back and fate.killed and self.begun():
                back = self.state().destroyed() is None
            if fate.status == LOST:  # a machine with too much to do: the process ended itself before its lease did
                campaign.figures.where["fenced"] += 1
                continue
            if not fate.killed and self._over(fate):
                if not kills and fate.started is not None:
                    campaign.start, campaign.length = fate.started, fate.seconds - fate.started
                return self._ended()
        raise Broken(f"no end after {MOST} attempts")

    def _instant(self, gap: float) -> tuple[float, bool]:
        """Return when to kill: mostly so that kills are even over the whole run, else while a process starts."""
        dice = self.of.rng.random()
        if dice < 0.05:
            return self.of.rng.uniform(0, 0.003), False
        if dice < 0.15:
            return self.of.rng.uniform(0, self.of.start), False
        return gap, True

    def _attempt(self, after: float | None, *, working: bool, undo: bool) -> Fate:
        campaign = self.of
        if self.begun():
            campaign.figures.resumes += 1
        known = QUICK | dict(campaign.world.sets) | (self.shelf.sets if self.shelf else {}) | self.case.sets
        return campaign.zygote.attempt(
            Job(
                self.run, self.key, campaign.world.playbook, self.mode, known,
                campaign.env | self.case.env,
                str(campaign.folder / "said.log"), after, working, self.value, undo,
            )
        )  # fmt: skip

    def _struck(self, after: float | None) -> None:
        figures = self.of.figures
        figures.kills += 1
        where = "nothing yet"
        if self.begun():
            last = self.state().last
            where = f"{last.step or 'run'} {last.what}"
        figures.where[where] += 1
        self.told.append(f"killed after {after:.3f} s: {where}")

    def _over(self, fate: Fate) -> bool:
        """Say whether it has ended; a person is fetched where one is waited for."""
        must(fate.status != -1, "an attempt did not come to an end within two minutes")
        must(fate.status in {ENDED, WAITS, STOPPED}, f"an attempt broke: exit status {fate.status}; see said.log")
        state = self.state()
        if fate.status == ENDED:
            must(state.end is not None, "an attempt said that all is over, but the journal does not")
            return True
        if (
            fate.status == WAITS
            and state.last.data.get("on") == "person"
            and state.plan.step(state.last.step).action is Action.HAND_DELETE
        ):
            self.case.person()
            return False
        last = state.last
        raise Broken(f"it stands still: {state.status} at {last.step or 'the run'}: {last.text} {dict(last.data)}")

    # ── what must hold ─────────────────────────────────────────────────────────────────────────────────

    def _sound(self) -> None:
        """At this very moment: what the store holds works, whoever reads it."""
        end = time.monotonic() + SETTLING
        while True:
            said = self._unsound()
            if said is None:
                return
            if time.monotonic() > end:
                raise Broken(said)
            time.sleep(0.02)

    def _unsound(self) -> str | None:
        state = self.state() if self.begun() else None
        if self.shape is Shape.NO_SUCCESSOR:
            return None
        if self.shape is Shape.MANAGED:
            held = self.case.world.creds(self.case.parts["username"])
            return None if self.case.works(held) else "what the store holds does not work"
        if self.shape is Shape.NEW_WAY:
            contained = state is not None and any(
                state.intent(s.name) for s in state.plan.steps if s.slot is Slot.CONTAIN
            )
            works = self.case.old_works() or contained or self.case.new_way()
            return None if works else "neither the old key works, nor the new way"
        assert self.shelf is not None
        held, fields = self.shelf.held()
        if held is None:
            return "the store is empty"
        if held.run != marker_of(self.run):
            if fields != self.case.stored:
                return "the store holds neither the former value nor ours"
            contained = self.mode == "emergency" and not (state and state.end)
            return None if contained or self.case.old_works() else "the store holds the old key, and that does not work"
        if self.case.works(fields):
            return None
        if self.shape is Shape.IN_PLACE and state is not None and state.done("apply") is None:
            return None if self.case.old_works() else "neither what the store holds works, nor what it held before"
        return "what the store holds does not work"

    def _ended(self) -> None:
        state = self.state()
        ledger = self.of.ledger
        checked = ledger.check()
        must(checked.ok, f"the ledger's chain is broken: {checked.problems[:1]}")
        must(self.case.others() == self.others, "a colleague's key was touched")
        held, fields = self.shelf.held() if self.shelf else (None, {})
        alive = set(self.case.live())
        if state.undoing:
            self.of.figures.undone += 1
            must(state.end is End.UNDONE, f"taken back, but it ended as {state.end}")
            must(fields == self.case.stored, "taken back, but the store does not hold what it held")
            must(self.case.old_works(), "taken back, but the old key does not work")
            must(self.case.untouched(), "taken back, but the new way is still there")
            must(
                alive == {self.case.old_name(), *filter(None, [self.case.made])}, f"taken back, but these live: {alive}"
            )
            return
        must(state.end is End.FINISHED, f"it ended as {state.end}")
        done = [e.step for e in state.entries if e.what is What.DONE]
        must(done == [s.name for s in state.plan.steps], f"steps were done so: {done}")
        for step in state.plan.steps:
            begun = state.intent(step.name)
            if step.effect is Effect.DESTROYS:
                named = any(
                    e.what is What.APPROVED and e.step == step.name and begun and e.seq < begun.seq
                    for e in state.entries
                )
                must(named, f"{step.name} destroyed without a name")
        must(not self.case.old_works(), "the old key still works")
        if self.of.world.probed:
            must(ledger.key(state.plan.credential).confirmed, "the ledger does not say that the old key is proven dead")
        self._one(alive, fields)
        if self.shelf is not None and held is not None:
            must(held.run == marker_of(self.run), "the store does not hold what the rotation wrote")
            written = {n: v for n, v in fields.items() if n in state.plan.write}
            must(self.case.consumed(written), "a consumer does not have what the store holds")

    def _one(self, alive: set[str], fields: dict[str, str]) -> None:
        """Exactly one new key lives, nothing was orphaned."""
        old = self.case.old_name()
        match self.shape:
            case Shape.NO_SUCCESSOR:
                must(alive == set(), f"these still live: {alive}")
            case Shape.NEW_WAY:
                must(self.case.new_way(), "the new way does not work")
                must(not alive - {old}, f"these still live: {alive}")
            case Shape.BESIDE if self.case.made is not None:
                gone = alive - {old} if self.case.old_works() else alive
                must(gone == {self.case.made}, f"not the one new key lives, but {len(gone)}")
            case Shape.BESIDE:
                must(len(alive) == 1 and old not in alive, f"{len(alive)} keys live, not one new one")
            case Shape.IN_PLACE | Shape.MANAGED:
                must(alive == {old}, "there is not one account")
        if self.shelf is not None:
            must(self.case.works(fields), "what the store holds does not work at the end")


def _core(secret: str) -> str:
    """Return the part of a secret that no encoding changes."""
    if secret.startswith("{"):
        return str(json.loads(secret)["private_key"]).splitlines()[3]
    return secret


def _rows(url: str) -> bytes:
    """Return every row of the engine's tables on PostgreSQL, as text."""
    import psycopg

    with psycopg.connect(url) as db:
        tables = db.execute(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'dbos'"
        )
        found = [db.execute(f'SELECT t::text FROM "{s}"."{t}" t').fetchall() for s, t in tables.fetchall()]
    return "\n".join(row[0] for rows in found for row in rows).encode()
