"""Who acts in a run: issuer, store, consumers, session killers, and the verifier's word on a key.

Made anew in every process from the plan's snapshot; keeps no state. What must be remembered goes into the journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeGuard, TypeVar

from rotators.interface import Consumer, Issuer, ProviderError, SessionKiller, Store, Successor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from playbooks.plan import Plan, Used
    from verifier.model import Credential, Parts, Verdict
    from verifier.secret import Secret

T = TypeVar("T")


class Unready(Exception):  # noqa: N818  # reads as what it is
    """A world cannot be made: one sentence naming what is missing."""


def present() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def nobody(_prompt: str) -> Secret | None:
    """Answer for a process without a person at a terminal."""
    return None


def silent(_verdict: Verdict, *, proven: bool) -> None:
    """Keep no record."""


@dataclass(frozen=True)
class World:
    """Everybody a run deals with.

    `probe` asks the verifier about a credential, and never raises for the network's sake; `record` keeps a verdict on
    the old key (`proven`: it is the last of the refusals that prove it dead); `print_of` is a keyed hash of parts;
    `ask` returns what a person enters at a hidden prompt, None where no person is.
    """

    old: Credential
    issuer: Issuer | None
    store: Store | None
    consumers: tuple[Consumer, ...]
    sessions: tuple[SessionKiller, ...]
    probe: Callable[[Credential], Verdict]
    print_of: Callable[[Parts], str]
    ask: Callable[[str], Secret | None] = nobody
    record: Callable[..., None] = silent
    now: Callable[[], datetime] = present
    successor: Successor | None = None


@dataclass(frozen=True)
class Family(Generic[T]):
    """One family of hands: the package of its shipped modules, what people call a member, and its contract."""

    package: str
    word: str
    keeps: Callable[[object], TypeGuard[T]]

    def make(self, used: Used, modules: frozenset[str], resolve: Callable[[str], str]) -> T:
        """Build one hand from its module's `make(settings)`.

        A name with a dot is a module of the user's own and must be among `modules`, which the config names. `resolve`
        turns references in settings into values. Whatever is missing is `Unready`.
        """
        if "." in used.name and used.name not in modules:
            raise Unready(f"the {self.word} {used.name} is not among rotate.modules of the config; add it there")
        where = used.name if "." in used.name else f"{self.package}.{used.name}"
        try:
            module = import_module(where)
        except ModuleNotFoundError as e:
            if e.name == where:
                raise Unready(f"there is no {self.word} called {used.name}") from None
            raise Unready(f"the {self.word} {used.name} needs the package {e.name}; install it") from None
        settings: Mapping[str, str] = {name: resolve(value) for name, value in used.settings.items()}
        try:
            hand: object = module.make(settings)
        except KeyError as e:
            raise Unready(f"the {self.word} {used.name} needs the setting {e.args[0]}") from None
        except (ValueError, ProviderError) as e:
            raise Unready(f"the {self.word} {used.name}: {e}") from None
        if not self.keeps(hand):
            raise Unready(f"{where} makes no {self.word}: it lacks a method of rotators.interface")
        return hand


def _is_issuer(hand: object) -> TypeGuard[Issuer]:
    return isinstance(hand, Issuer)


def _is_store(hand: object) -> TypeGuard[Store]:
    return isinstance(hand, Store)


def _is_consumer(hand: object) -> TypeGuard[Consumer]:
    return isinstance(hand, Consumer)


def _is_killer(hand: object) -> TypeGuard[SessionKiller]:
    return isinstance(hand, SessionKiller)


def _is_successor(hand: object) -> TypeGuard[Successor]:
    return isinstance(hand, Successor)


ISSUERS = Family("rotators.issuers", "issuer", _is_issuer)
STORES = Family("rotators.stores", "store", _is_store)
CONSUMERS = Family("rotators.consumers", "consumer", _is_consumer)
SESSIONS = Family("rotators.sessions", "session killer", _is_killer)
SUCCESSORS = Family("rotators.successors", "successor", _is_successor)


def hands(
    plan: Plan, modules: frozenset[str], resolve: Callable[[str], str]
) -> tuple[Issuer | None, Store | None, tuple[Consumer, ...], tuple[SessionKiller, ...], Successor | None]:
    """Build everybody whom a plan names."""
    return (
        ISSUERS.make(plan.issuer, modules, resolve) if plan.issuer else None,
        STORES.make(plan.store, modules, resolve) if plan.store else None,
        tuple(CONSUMERS.make(c, modules, resolve) for c in plan.consumers),
        tuple(SESSIONS.make(s, modules, resolve) for s in plan.sessions),
        SUCCESSORS.make(plan.successor, modules, resolve) if plan.successor else None,
    )
