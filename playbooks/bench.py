"""What every step works with: the plan, the world, and what the run has noted so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import replace

from playbooks.schema import HIDDEN, fields_of
from rotators.interface import Issuer, KeyRef, Store, Stored, Successor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from playbooks.journal import Entry
    from playbooks.plan import Plan, Planned
    from playbooks.world import World
    from rotators.step import Context
    from verifier.model import Credential, Parts
    from verifier.secret import Secret

PREFLIGHT, SNAPSHOT, CREATE, SUCCESSOR = "preflight", "snapshot", "create", "successor"


@dataclass(frozen=True)
class Bench:
    """One step's place of work. `notes` and `note` reach the journal: what is noted is on disk at once."""

    plan: Plan
    planned: Planned
    world: World
    notes: Callable[[], Sequence[Entry]]
    note: Callable[[str, Mapping[str, str]], None]
    done_at: Callable[[str], datetime | None]
    resumed_at: datetime | None = None

    def resumed(self, began: datetime) -> datetime:
        """Return when patience began: `began`, or when somebody last resumed the run, if that was later."""
        return began if self.resumed_at is None else max(began, self.resumed_at)

    @property
    def issuer(self) -> Issuer:
        """Return the issuer, which this step cannot do without."""
        if self.world.issuer is None:
            raise TypeError(f"step {self.planned.name} needs an issuer")
        return self.world.issuer

    @property
    def store(self) -> Store:
        """Return the store, which this step cannot do without."""
        if self.world.store is None:
            raise TypeError(f"step {self.planned.name} needs a store")
        return self.world.store

    @property
    def successor(self) -> Successor:
        """Return what takes the key's place, which this step cannot do without."""
        if self.world.successor is None:
            raise TypeError(f"step {self.planned.name} needs a successor")
        return self.world.successor

    def after(self, seconds: float) -> datetime:
        """Return the time in `seconds`."""
        return self.world.now() + timedelta(seconds=seconds)

    def old_ref(self, ctx: Context) -> KeyRef:
        """Return the old key as the issuer knew it when the run began."""
        return msgspec.json.decode(ctx.output(PREFLIGHT, "ref"), type=KeyRef)

    def new_ref(self, ctx: Context) -> KeyRef:
        """Return the new key at its issuer."""
        return msgspec.json.decode(ctx.output(CREATE, "ref"), type=KeyRef)

    def base(self, ctx: Context) -> Stored | None:
        """Return what the store held before the run."""
        return cast("Stored | None", msgspec.json.decode(ctx.output(SNAPSHOT, "base"), type=Stored | None))

    def written(self, parts: Parts) -> dict[str, Secret]:
        """Return the fields to store: the template's parts of the new key, and public ones of the old."""
        fields: dict[str, Secret] = {}
        for name, template in self.plan.write.items():
            owner, _, part = fields_of(template)[0].partition(".")
            source = parts if owner == "new" else self.world.old.parts
            if part not in source:
                raise LookupError(f"store.write.{name}: the key has no part `{part}`")
            fields[name] = source[part]
        return fields

    def lacking(self) -> list[str]:
        """Return the old key's parts that the template asks for and the old key does not have."""
        wanted = [fields_of(t)[0].partition(".") for t in self.plan.write.values()]
        return [part for owner, _, part in wanted if owner == "old" and part not in self.world.old.parts]

    def read_back(self, fields: Mapping[str, Secret]) -> Credential:
        """Return the new key as the store holds it; parts that were not stored are the old key's public ones."""
        parts = {n: v for n, v in self.world.old.parts.items() if n not in HIDDEN}
        for name, template in self.plan.write.items():
            owner, _, part = fields_of(template)[0].partition(".")
            if owner == "new" and name in fields:
                parts[part] = fields[name]
        return replace(self.world.old, parts=parts)

    def new(self, ctx: Context) -> Credential:
        """Return the new key, read from the store at the version that the run wrote."""
        return self.read_back(self.store.fetch(None if self.plan.managed else ctx.output(CREATE, "version")))

    def print_of(self, fields: Mapping[str, Secret]) -> str:
        """Return the keyed hash of the fields that the plan writes."""
        return self.world.print_of({n: v for n, v in fields.items() if n in self.plan.write})

    def moved(self, ctx: Context) -> str | None:
        """Say, if so, that the store no longer holds what this run wrote."""
        if self.plan.managed:
            return None
        held = self.store.current()
        if held is None or held.run != ctx.marker:
            return f"somebody else wrote to the store {self.store.name} after this rotation did"
        version = ctx.output(CREATE, "version")
        if held.version == version:
            return None
        now, ours = (self.print_of(self.store.fetch(v)) for v in (held.version, version))
        return None if now == ours else f"the store {self.store.name} holds another value than this rotation's last"


def encoded(thing: KeyRef | Stored | None) -> str:
    """Return a reference as it is kept in an output."""
    return msgspec.json.encode(thing).decode()
