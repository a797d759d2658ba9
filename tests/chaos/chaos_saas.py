"""Providers of which we have simulators by their documents, asked by the verifier as their specs' own examples say."""

from __future__ import annotations

import string
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from functools import cache
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar

import makers
import sim_anthropic
import sim_kubernetes
import sim_openai
from chaos_world import Case, Shape, World
from sim_http import Sim
from sim_revoke import Providers

from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from typing import Self

    from sim_http import Asked, Reply

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
LATER = 0.1
"""Seconds after which a revocation that was only accepted happens."""


@cache
def example(kind: str, *, live: bool) -> tuple[int, bytes, dict[str, str]]:
    """Return how a provider answers to a key that lives, or to one that it does not know: its spec's own example."""
    found = load_catalogue().get(kind)
    assert found is not None
    fitting = [e for e in found.example if e.verdict == ("live" if live else "dead")]
    known = [e for e in fitting if e.status == 401 and not live]
    chosen = (known or fitting)[-1 if known else 0]
    return chosen.status, chosen.body.encode(), dict(chosen.headers)


class Judge:
    """Answers a provider's probe; everything else goes to the simulator."""

    def __init__(self, kind: str, inner: Callable[[Asked], Reply], lives: Callable[[str], bool]) -> None:
        found = load_catalogue().get(kind)
        assert found is not None
        self.kind, self.inner, self.lives = kind, inner, lives
        self.path = found.probe.path.partition("?")[0]
        self.lock = threading.RLock()

    def __call__(self, asked: Asked) -> Reply:
        with self.lock:
            if (asked.method, asked.path) == ("GET", self.path):
                carried = "\n".join(asked.headers.values())
                return example(self.kind, live=self.lives(carried))
            return self.inner(asked)


# ── keys that end themselves ───────────────────────────────────────────────────────────────────────────


@dataclass
class Ending(Providers):
    """Revocations that are only accepted happen a moment later."""

    hourly: int = 1_000_000

    def carried(self, text: str) -> bool:
        return any(key in text for key in self.live)

    def __call__(self, asked: Asked) -> Reply:
        before = len(self.pending)
        said = super().__call__(asked)
        if len(self.pending) > before:
            threading.Timer(LATER, self.settle).start()
        return said

    def settle(self) -> None:
        self.live -= set(self.pending)


KEYS: dict[str, Callable[[str], str]] = {
    "github_pat": lambda seed: makers.github("ghp_", seed),
    "gitlab_pat": lambda seed: "glpat" + "-" + makers.draw(ALNUM, 20, seed),
    "slack_bot": lambda seed: "xoxb" + "-1-2-" + makers.draw(ALNUM, 24, seed),
    "huggingface": lambda seed: "hf" + "_" + makers.draw(string.ascii_letters, 34, seed),
    "doppler": lambda seed: "dp" + ".pt." + makers.draw(ALNUM, 43, seed),
    "digitalocean": lambda seed: "dop" + "_v1_" + makers.draw(HEX, 64, seed),
}


@dataclass
class OwnEnd(Case):
    """A token, its successor that a person has made already, and a colleague's."""

    world: Any = None
    theirs: str = ""
    part: str = ""

    def works(self, fields: Mapping[str, str]) -> bool:
        return fields[self.part] in self.world.ending.live

    def old_works(self) -> bool:
        return self.parts["secret"] in self.world.ending.live

    def live(self) -> list[str]:
        return [k for k in self.world.ending.live if k in {self.parts["secret"], self.value}]

    def old_name(self) -> str:
        return self.parts["secret"]

    def others(self) -> object:
        return self.theirs in self.world.ending.live

    def person(self) -> None:
        with self.world.judge.lock:
            self.world.ending.live.discard(self.parts["secret"])

    def end(self) -> None:
        with self.world.judge.lock:
            self.world.ending.live -= {self.parts["secret"], self.theirs, self.value}


class Own(World):
    """A key of `kind` in its playbook."""

    imports = ("hvac", "requests", "pyrage", "pyreqwest.client")
    field: ClassVar[str] = "token"
    revokes: ClassVar[bool] = True

    def enter(self, stack: ExitStack) -> Self:
        self.ending = Ending()
        self.judge = Judge(self.kind, self.ending, self.ending.carried)
        self.sim = stack.enter_context(Sim(self.judge))
        return self

    def config(self) -> str:
        return f'[providers.{self.kind}]\nbase_url = "{self.sim.url}"\n'

    def case(self, n: int) -> OwnEnd:
        old, new, theirs = (KEYS[self.kind](f"{n}{who}{token_hex(4)}") for who in "ont")
        successor = self.shape is not Shape.NO_SUCCESSOR
        with self.judge.lock:
            self.ending.live |= {old, theirs} | ({new} if successor else set())
        sets = {f"issuer.{k}": v for k, v in self.sim.settings.items()} if self.revokes else {}
        stored = {self.field: old} if successor else {}
        return OwnEnd(
            {"secret": old}, stored, sets, value=new if successor else None, made=new if successor else None,
            world=self, theirs=theirs, part=self.field,
        )  # fmt: skip


class GitHub(Own):
    playbook, kind = "github-token", "github_pat"


class GitLab(Own):
    playbook, kind = "gitlab-token", "gitlab_pat"


class Slack(Own):
    playbook, kind = "slack-token", "slack_bot"


class HuggingFace(Own):
    playbook, kind = "huggingface-token", "huggingface"


class SelfRevoke(Own):
    playbook, kind = "self-revoke", "doppler"
    shape = Shape.NO_SUCCESSOR
    modes = ("graceful",)


PAGES = {"create.open": "https://provider.example/keys", "retire.open": "https://provider.example/keys"}
"""What two playbooks leave open: where a person makes the new key and deletes the old one."""


class Assisted(Own):
    playbook, kind = "assisted", "digitalocean"
    field, revokes = "secret", False
    sets: ClassVar[dict[str, str]] = PAGES


class KvCopy(Own):
    playbook, kind = "vault-kv-copy", "doppler"
    field, revokes = "value", False
    sets: ClassVar[dict[str, str]] = PAGES


# ── OpenAI, with a Kubernetes cluster that uses the key ────────────────────────────────────────────────


class Rolling(sim_kubernetes.Cluster):
    """Rollouts finish between two calls."""

    def __call__(self, asked: Asked) -> Reply:
        for path, found in self.objects.items():
            if path.startswith("/apis/apps/"):
                self.roll(found)
        return super().__call__(asked)


@dataclass
class ProjectKey(Case):
    """A key of a service account of its own, with a colleague's beside it."""

    world: Any = None
    project: str = ""
    secret: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    colleagues: tuple[str, ...] = ()

    def works(self, fields: Mapping[str, str]) -> bool:
        return bool(self.world.openai.works(fields["api_key"]))

    def old_works(self) -> bool:
        return bool(self.world.openai.works(self.parts["secret"]))

    def live(self) -> list[str]:
        return [k.id for k in self.world.openai.projects[self.project] if k.id not in self.colleagues]

    def old_name(self) -> str:
        return self.id

    def others(self) -> object:
        return set(self.colleagues) <= {k.id for k in self.world.openai.projects[self.project]}

    def consumed(self, fields: Mapping[str, str]) -> bool:
        data = self.secret["data"]
        return b64decode(data["KEY"]).decode() == fields["api_key"] and data["OTHER"] == "a2VwdA=="

    def colleague(self) -> None:
        with self.world.judge.lock:
            self.colleagues += (self.world.openai.add(self.project, "svc_1", "colleague").id,)


class OpenAi(World):
    playbook, kind = "openai-project-key", "openai"
    imports = ("hvac", "requests", "pyrage", "openai", "openai.types.admin", "pyreqwest.client")

    def enter(self, stack: ExitStack) -> Self:
        self.openai = sim_openai.OpenAi(page=50)
        self.judge = Judge(self.kind, self.openai, self._carried)
        self.sim = stack.enter_context(Sim(self.judge))
        self.kube = Rolling()
        self.cluster = stack.enter_context(Sim(self.kube))
        return self

    def _carried(self, text: str) -> bool:
        return any(k.value in text for keys in self.openai.projects.values() for k in keys)

    def env(self) -> dict[str, str]:
        return {
            "OPENAI_BASE_URL": f"{self.sim.url}/v1",
            "OPENAI_ADMIN_KEY": sim_openai.ADMIN,
            "KUBE_TOKEN": sim_kubernetes.TOKEN,
        }

    def config(self) -> str:
        return f'[providers.openai]\nbase_url = "{self.sim.url}"\n'

    def case(self, n: int) -> ProjectKey:
        project = f"proj_{n}{token_hex(3)}"
        with self.judge.lock:
            old = self.openai.add(project, "svc_1")
        secret = self.kube.secret(f"app{n}", KEY="b2xk", OTHER="a2VwdA==")
        self.kube.workload("deployments", f"api{n}")
        kube = {
            "use": "kubernetes", "server": self.cluster.url, "namespace": "apps", "secret": f"app{n}",
            "map": "KEY=api_key", "restart": f"deployment/api{n}",
        }  # fmt: skip
        sets = {f"consumers.0.{name}": value for name, value in kube.items()} | {"issuer.project": project}
        found = ProjectKey(
            {"secret": old.value}, {"api_key": old.value}, sets, world=self, project=project, secret=secret, id=old.id
        )
        found.colleague()
        return found


# ── Anthropic ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class ConsoleKey(Case):
    """A key that a person replaces in the Console; the API only sets the old one inactive."""

    world: Any = None
    id: str = ""
    new: str = ""
    theirs: str = ""

    def _active(self, ident: str) -> bool:
        return bool(self.world.anthropic.keys[ident]["status"] == "active")

    def works(self, fields: Mapping[str, str]) -> bool:
        return self._active(self.world.ids[fields["api_key"]])

    def old_works(self) -> bool:
        return self._active(self.id)

    def live(self) -> list[str]:
        return [i for i in (self.id, self.new) if self._active(i)]

    def old_name(self) -> str:
        return self.id

    def others(self) -> object:
        return self._active(self.theirs)


class Anthropic(World):
    playbook, kind = "anthropic-key", "anthropic"
    imports = ("hvac", "requests", "pyrage", "pyreqwest.client")

    def enter(self, stack: ExitStack) -> Self:
        self.anthropic = sim_anthropic.Anthropic(page=100)
        self.ids: dict[str, str] = {}
        self.judge = Judge(self.kind, self.anthropic, self._carried)
        self.sim = stack.enter_context(Sim(self.judge))
        return self

    def _carried(self, text: str) -> bool:
        return any(v in text and self.anthropic.keys[i]["status"] == "active" for v, i in self.ids.items())

    def env(self) -> dict[str, str]:
        return {"ANTHROPIC_ADMIN_KEY": sim_anthropic.ADMIN}

    def config(self) -> str:
        return f'[providers.anthropic]\nbase_url = "{self.sim.url}"\n'

    def _key(self) -> str:
        value = "sk-ant-" + "api03-" + token_hex(3) + "k" * 80 + token_hex(2)
        with self.judge.lock:
            self.ids[value] = self.anthropic.add(value)
        return value

    def case(self, n: int) -> ConsoleKey:
        old, new, theirs = self._key(), self._key(), self._key()
        sets = {f"issuer.{k}": v for k, v in self.sim.settings.items()}
        return ConsoleKey(
            {"secret": old}, {"api_key": old}, sets, value=new, made=self.ids[new], world=self, id=self.ids[old],
            new=self.ids[new], theirs=self.ids[theirs],
        )  # fmt: skip
