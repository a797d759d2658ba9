"""What a world is: real servers or a simulator, with keys of ours, of colleagues, and the one that leaked.

A world lives in the process that drives the chaos, never in the one that is killed. What it answers (`works`, `strays`)
comes from logging in or from the server's own books, not from what the rotation says of itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from rotators.stores.encrypted_file import EncryptedFile
from rotators.stores.vault_kv import VaultKv
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Self

    from servers import Server

    from rotators.interface import Store, Stored

BEFORE = "as-it-was"
"""The mark of what lies in the store before a rotation."""


class Shape(StrEnum):
    """How old and new stand to each other."""

    BESIDE = "beside"
    """Both can live at once: from `store` on the stored value works, before it the old one does."""
    IN_PLACE = "in place"
    """The new one kills the old: from `apply` on the stored value works, before it the former one."""
    MANAGED = "managed"
    """The issuer keeps the value itself: what is stored always works."""
    NEW_WAY = "new way"
    """Nothing is stored: a role that gives short-lived keys takes the old one's place."""
    NO_SUCCESSOR = "no successor"
    """Nothing is stored: there is only a death."""


@dataclass
class Case(ABC):
    """One leaked key. `parts` go into the ledger, `stored` is what the store holds of it, `sets` lead a rotation here.

    `env` are variables that only this key's rotation has.

    `value` is what a person made, `made` the name in `live` of a key that was there before the rotation and becomes the
    new one. `planted` are secrets that must be in no table, ledger or log.
    """

    parts: dict[str, str]
    stored: dict[str, str]
    sets: dict[str, str] = field(default_factory=dict)
    value: str | None = None
    made: str | None = None
    env: dict[str, str] = field(default_factory=dict)

    @abstractmethod
    def works(self, fields: Mapping[str, str]) -> bool:
        """Log in with what the store holds."""

    @abstractmethod
    def old_works(self) -> bool:
        """Log in with the leaked key."""

    @abstractmethod
    def live(self) -> list[str]:
        """Name the owner's keys that live now, the leaked one and colleagues' included."""

    @abstractmethod
    def others(self) -> object:
        """Return what must be the same before and after: colleagues' keys and all their state."""

    def old_name(self) -> str:
        """Return the name of the leaked key in `live`."""
        return self.parts["id"]

    def consumed(self, fields: Mapping[str, str]) -> bool:
        """Whether every consumer has these fields; true where there are none."""
        return True

    def new_way(self) -> bool:
        """Log in by the role that took the old key's place."""
        return False

    def untouched(self) -> bool:
        """Whether nothing is left of such a role."""
        return True

    def colleague(self) -> None:  # noqa: B027  # not everywhere
        """Have a colleague make a key in the middle."""

    def person(self) -> None:  # noqa: B027  # same
        """Have a person delete the old key, where no API can."""

    def planted(self) -> list[str]:
        """Return every secret of this case."""
        hidden = [v for n, v in self.parts.items() if n in {"secret", "password", "token"}]
        return hidden + ([self.value] if self.value else [])

    def end(self) -> None:  # noqa: B027  # same
        """Clear away what would slow down the next case."""


class World(ABC):
    """One playbook's world. `needs` names fixtures; `imports` is what a rotation here loads."""

    playbook: ClassVar[str]
    kind: ClassVar[str]
    shape: ClassVar[Shape] = Shape.BESIDE
    needs: ClassVar[tuple[str, ...]] = ("openbao",)
    imports: ClassVar[tuple[str, ...]] = ("hvac", "requests", "pyrage")
    modes: ClassVar[tuple[str, ...]] = ("graceful", "emergency")
    probed: ClassVar[bool] = True
    """Whether the verifier itself can say that the old key is dead."""
    sets: ClassVar[dict[str, str]] = {}

    def __init__(self, servers: Mapping[str, Server], folder: Path) -> None:
        self.servers, self.folder = servers, folder

    def enter(self, stack: ExitStack) -> Self:
        """Start simulators."""
        return self

    def env(self) -> dict[str, str]:
        """Return the admin log-ins, as the SDKs' own variables."""
        return {}

    def config(self) -> str:
        """Return what `lapse.toml` must say besides the ledger."""
        return ""

    def rotate(self) -> str:
        """Return what the config's `[rotate]` must say besides the engine."""
        return ""

    def shelf(self, case: Case, n: int) -> Shelf | None:
        """Return where the value of a case lies: two times of three in OpenBao, else in an encrypted file."""
        if self.shape in {Shape.NO_SUCCESSOR, Shape.NEW_WAY, Shape.MANAGED}:
            return None
        if n % 3 == 2:
            found = file(self.folder, f"kept-{n}")
        else:
            found = vault(self.servers["openbao"], f"{self.folder.parent.name}/{self.folder.name}/{n}")
        found.fill(case.stored)
        return found

    @abstractmethod
    def case(self, n: int) -> Case:
        """Make the `n`-th leaked key."""


@dataclass
class Shelf:
    """The place in a store where one rotation's value lies, seen by its rightful readers."""

    store: Store
    sets: dict[str, str]

    def held(self) -> tuple[Stored | None, dict[str, str]]:
        """Return what lies there now, of one and the same version, in clear."""
        while True:
            now = self.store.current()
            if now is None:
                return None, {}
            fields = {n: v.reveal() for n, v in self.store.fetch(now.version).items()}
            if self.store.current() == now:
                return now, fields

    def fill(self, fields: Mapping[str, str]) -> None:
        """Lay the leaked key there."""
        self.store.put({n: Secret(v) for n, v in fields.items()}, None, BEFORE)


def vault(bao: Server, path: str) -> Shelf:
    """Return a path of the real OpenBao."""
    return Shelf(VaultKv({"path": path, "address": bao.url}), {"store.path": path})


def file(folder: Path, name: str) -> Shelf:
    """Return an encrypted file."""
    from pyrage import x25519

    key = folder / "age.key"
    if not key.exists():
        key.write_text(str(x25519.Identity.generate()))
        key.chmod(0o600)
    path = folder / f"{name}.age"
    settings = {"path": str(path), "identity_file": str(key)}
    return Shelf(
        EncryptedFile(settings), {"store.use": "encrypted_file", **{f"store.{n}": v for n, v in settings.items()}}
    )
