"""What a playbook may say: a fixed skeleton of slots, filled with names, durations and fields from a fixed list.

There are no branches and no expressions. `playbooks.specfile` reads files and names file and line of a mistake;
`playbooks.plan` compiles a playbook to steps.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct, field

PARTS = ("secret", "id", "token", "username", "password", "host", "port", "database", "account", "tenant", "region")
"""Names of a credential's parts, as everywhere in Lapse."""

HIDDEN = frozenset({"secret", "token", "password"})
"""Parts that never stand in a setting: settings are printed in plans and kept in the record."""

FIELDS = frozenset(
    {f"new.{p}" for p in PARTS} | {f"old.{p}" for p in PARTS if p not in HIDDEN} | {"key", "run"},
)
"""Every field there is: `{new.PART}` of the key just made (in `store.write` only), `{old.PART}` of the leaked one's
public parts, `{key}` its short id, `{run}` the rotation's id."""

OPEN = "?"
"""A setting that the shipped playbook leaves to its user: `--set store.path=…`, or `[rotate.set]` in the config."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Slug: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*$")]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z_][A-Za-z0-9_.]*$")]
Maybe: TypeAlias = Annotated[str, Meta(pattern=r"^([a-z_][A-Za-z0-9_.-]*)?$")]
Duration: TypeAlias = Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(ms|s|m|h|d)$", description="90s, 10m, 6h or 30d")]
Times: TypeAlias = Annotated[int, Meta(ge=1, le=100)]


def span(text: str) -> timedelta:
    """Return the span of a `Duration`; anything else is a `ValueError`."""
    m = _DURATION.fullmatch(text)
    if m is None:
        raise ValueError(f"`{text}` is no duration; write 90s, 10m, 6h or 30d")
    return timedelta(seconds=float(m.group(1)) * _UNITS[m.group(2)])


def fields_of(template: str) -> tuple[str, ...]:
    """Return the names of the fields in a template, in order."""
    return tuple(_FIELD.findall(template))


def fill(template: str, values: dict[str, str]) -> str:
    """Return the template with its fields replaced; fields that `values` lacks stay as they are."""
    return _FIELD.sub(lambda m: values.get(m.group(1), m.group(0)), template)


class Need(StrEnum):
    """How many people must approve."""

    NONE = "none"
    ONE = "one"
    TWO = "two"

    @property
    def people(self) -> int:
        """Return the number."""
        return {Need.NONE: 0, Need.ONE: 1, Need.TWO: 2}[self]


class By(StrEnum):
    """Who makes the new key: the issuer's API, or a person in the provider's pages."""

    ISSUER = "issuer"
    PERSON = "person"


class Approvals(Struct, frozen=True, forbid_unknown_fields=True):
    """Who must agree, by effect. What destroys needs at least one named person, whatever is written here."""

    adds: Need = Need.NONE
    changes: Need = Need.NONE
    destroys: Need = Need.ONE
    expire: Duration = "24h"

    def __post_init__(self) -> None:
        """Refuse a playbook that would destroy without asking anybody."""
        if self.destroys is Need.NONE:
            raise ValueError("destroys must be `one` or `two`: nothing irreversible happens without a named approval")


class Evidence(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked before the first change: never longer than `within`, never a reason to stop."""

    within: Duration = "30s"
    since: Duration = "90d"


class Contain(Struct, frozen=True, forbid_unknown_fields=True):
    """Emergency only: what stops the leaked key at once and can be taken back."""

    disable: bool = True


class Create(Struct, frozen=True, forbid_unknown_fields=True):
    """Who makes the new key. `open` is the page, `ask` the words at the hidden prompt, both only for a person.

    `part` is the part that the person enters.
    """

    by: By = By.ISSUER
    open: str = ""
    ask: str = ""
    part: str = "secret"

    def __post_init__(self) -> None:
        """Refuse half a person."""
        if self.by is By.PERSON and self.open != OPEN and not self.open.startswith("https://"):
            raise ValueError('by = "person" needs open = "https://…", the page where the new key is made')
        if self.by is By.ISSUER and (self.open or self.ask):
            raise ValueError('open and ask go with by = "person" only')
        if self.part not in PARTS:
            raise ValueError(f"part `{self.part}` is none of {' '.join(PARTS)}")


class StoreSlot(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the new key is kept: a store's name, its settings, and which field gets which part.

    Each value of `write` is one field alone, `{new.PART}` or `{old.PART}`, so that the parts can be read back.
    `managed`: the issuer makes and keeps the value itself (Vault's static roles), and the store is only read.
    """

    use: str
    write: dict[str, str]
    settings: dict[str, str] = {}
    managed: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot be read back."""
        if not self.write:
            raise ValueError('write is empty: name at least one field, such as { secret = "{new.secret}" }')
        for name, template in self.write.items():
            found = fields_of(template)
            if len(found) != 1 or template != "{" + found[0] + "}" or found[0] in {"key", "run"}:
                raise ValueError(f'write.{name} must be one field alone, such as "{{new.secret}}"')
            if found[0] not in FIELDS:
                raise ValueError(f"write.{name}: there is no field `{found[0]}`; known: {' '.join(sorted(FIELDS))}")
        _settings(self.settings)


class Verify(Struct, frozen=True, forbid_unknown_fields=True):
    """The new key must be accepted `times` in a row, `within` at the latest; it may flap before."""

    times: Times = 3
    within: Duration = "2m"
    every: Duration = "3s"


class Hand(Struct, frozen=True, forbid_unknown_fields=True):
    """A consumer or a session killer: its name and settings."""

    use: Name
    settings: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Check the settings' fields."""
        _settings(self.settings)


class Retire(Struct, frozen=True, forbid_unknown_fields=True):
    """How the old key goes: `drain` without use, then disable, then `soak`, then delete.

    `delete = false` leaves it disabled for good. `open` is the page where a person deletes it, if no API can.
    """

    drain: Duration = "0s"
    disable: bool = True
    soak: Duration = "24h"
    delete: bool = True
    open: str = ""


class Prove(Struct, frozen=True, forbid_unknown_fields=True):
    """The old key must be refused `times` in a row over `window`. `give_up` is how long it may go on working."""

    times: Times = 5
    window: Duration = "2m"
    give_up: Duration = "24h"


class Replace(Struct, frozen=True, forbid_unknown_fields=True):
    """What would make this sort of key unnecessary: a sentence, and where it is described.

    `use` names a module of `rotators.successors`, which sets it up and sees it work before the old key goes, once
    somebody has approved; without it the playbook only suggests. `files` names a folder of `playbooks.proposals`, whose
    files `lapse playbooks successor` writes out, for what is set up by hand.
    """

    suggest: str
    docs: str = ""
    use: Maybe = ""
    settings: dict[str, str] = {}
    files: Maybe = ""

    def __post_init__(self) -> None:
        """Check the settings' fields; those of nobody are a mistake."""
        _settings(self.settings)
        if self.settings and not self.use:
            raise ValueError("settings go with use, the module that they are for")


class Playbook(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of `playbooks/library`. `for` lists the kinds of key; `issuer` is a module of `rotators.issuers`.

    `issuer` may be left out where people do everything (`create.by = "person"` and `retire.open`). `create` and `store`
    may be left out where the key gets no successor of its own sort: it ends itself, or `replace.use` takes its place.
    `named` playbooks are never chosen by the kind of key alone: they must be asked for by name.
    """

    id: Slug
    title: str
    kinds: tuple[str, ...] = field(name="for")
    named: bool = False
    issuer: Name | None = None
    issuer_settings: dict[str, str] = {}
    evidence: Evidence = Evidence()
    contain: Contain = Contain()
    create: Create | None = None
    store: StoreSlot | None = None
    verify: Verify = Verify()
    consumers: tuple[Hand, ...] = ()
    sessions: tuple[Hand, ...] = ()
    retire: Retire = Retire()
    prove: Prove = Prove()
    replace: Replace | None = None
    approvals: Approvals = Approvals()
    digest: str = ""

    def __post_init__(self) -> None:
        """Refuse slots that contradict each other."""
        if not self.kinds:
            raise ValueError("`for` is empty: name at least one kind of key")
        if (self.create is None) != (self.store is None):
            raise ValueError("create and store go together: making a key and keeping it is one step")
        if self.consumers and self.store is None:
            raise ValueError("consumers need a store to be given the new key from")
        by_hand = self.create is not None and self.create.by is By.PERSON
        replaced = self.create is None and self.replace is not None and self.replace.use
        if self.issuer is None and not ((by_hand or replaced) and self.retire.open):
            raise ValueError('without an issuer, create.by must be "person" and retire.open the page of the old key')
        _settings(self.issuer_settings)


def _settings(settings: dict[str, str]) -> None:
    for name, template in settings.items():
        for found in fields_of(template):
            if found.startswith("new.") or found.partition(".")[2] in HIDDEN:
                raise ValueError(f"setting {name} must not hold `{{{found}}}`: settings are printed and kept")
            if found not in FIELDS:
                known = " ".join(sorted(f for f in FIELDS if not f.startswith("new.")))
                raise ValueError(f"setting {name}: there is no field `{found}`; known: {known}")
