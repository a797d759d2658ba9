"""What issuers, stores, consumers and session killers are: one file each in the folder of its family.

Every one is built from a `Settings` table of the playbook and an `Access` (references to admin credentials, resolved
by the caller). None keeps state: everything it must remember goes through outputs. Trouble with a provider is a
`ProviderError` with a sentence for people; a broken promise of ours is any other exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from verifier.model import Credential, Parts

if TYPE_CHECKING:
    from rotators.step import Outcome
    from verifier.secret import Secret

Settings: TypeAlias = Mapping[str, str]
"""A slot's own settings from the playbook, already filled in (no `{…}` left)."""


class Trouble(StrEnum):
    """What a caller can do about a provider's trouble."""

    DENIED = "denied"
    """Our admin credential lacks a right or has expired: a person must act."""
    FULL = "full"
    """No room for another key."""
    GONE = "gone"
    """What should be there is not: somebody else was here."""
    CONFLICT = "conflict"
    """Somebody changed it between our read and our write (compare-and-set lost)."""
    LATER = "later"
    """Throttled, unreachable, not consistent yet: ask again."""
    REFUSED = "refused"
    """The request is wrong for this key; asking again will not help."""


class ProviderError(Exception):
    """A provider said no. The text is one sentence without secrets; `trouble` says what can be done about it."""

    def __init__(self, trouble: Trouble, message: str, retry_after: timedelta | None = None) -> None:
        """Take the kind of trouble and the sentence."""
        super().__init__(message)
        self.trouble = trouble
        self.retry_after = retry_after


class State(StrEnum):
    """What the issuer says of one key."""

    ACTIVE = "active"
    DISABLED = "disabled"
    GONE = "gone"


class Style(StrEnum):
    """`displace`: two keys can live at once. `replace`: setting the new one kills the old. `revoke`: no successor."""

    DISPLACE = "displace"
    REPLACE = "replace"
    REVOKE = "revoke"


class KeyRef(Struct, frozen=True):
    """One key at its issuer: `id` is the issuer's own (access key id, keyId, accessor, user name), `owner` whose it is.

    `created` and `last_used` as far as the issuer tells; `used` is `None` when it cannot tell.
    """

    id: str
    owner: str
    state: State = State.ACTIVE
    created: datetime | None = None
    last_used: datetime | None = None
    never_used: bool | None = None
    label: str = ""


class Minted(Struct, frozen=True):
    """A new key: its reference and its parts (with the secret). Lives in memory only, until it is stored."""

    ref: KeyRef
    parts: Parts


class Fact(Struct, frozen=True):
    """One line of evidence: who owns it, what it may do, what it did. `about` is a short label. No secrets."""

    about: str
    text: str


@runtime_checkable
class Issuer(Protocol):
    """Whoever makes and kills keys of some kinds.

    `permissions` maps action names (`locate mint disable enable retire evidence`) to the rights they need, for the
    plan.
    `reversible` tells whether `disable`/`enable` exist; `propagation` how long the provider may take to be consistent.
    """

    name: str
    kinds: tuple[str, ...]
    style: Style
    reversible: bool
    propagation: timedelta
    permissions: Mapping[str, tuple[str, ...]]
    also_dies: str
    """What else dies with the key, and whether its owner is told: one sentence for the plan, may be empty."""

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:
        """Check the rights on this key before anything changes; a missing one is `ProviderError(DENIED)`."""
        ...

    def locate(self, old: Credential) -> KeyRef:
        """Find exactly this credential at the issuer; `ProviderError(GONE)` when it is not there, never a guess."""
        ...

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List every key of the same owner, this one included: the snapshot before a mint."""
        ...

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Make a new key for the same owner, marked where the provider has room for a mark."""
        ...

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List keys that an interrupted mint of ours left: ours by marker, or not in `before`, made since, never used.

        A key that may be a colleague's is never listed.
        """
        ...

    def disable(self, ref: KeyRef) -> None:
        """Make the key refuse, reversibly. Repeating is harmless."""
        ...

    def enable(self, ref: KeyRef) -> None:
        """Take `disable` back. Repeating is harmless."""
        ...

    def retire(self, ref: KeyRef) -> None:
        """Delete exactly this key for good. One that is gone already is no error."""
        ...

    def state(self, ref: KeyRef) -> State:
        """Return what the issuer says of it now."""
        ...

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:
        """Say whose it is, what it may do, when it was last used, what it did since the leak, what it could read."""
        ...


@runtime_checkable
class Replacer(Issuer, Protocol):
    """An issuer whose style is `replace`: setting the new value kills the old one in the same moment.

    The crash-safe order is *generate → store → apply → verify*: `mint` only makes a value on this machine and changes
    nothing at the issuer (`Minted.ref` is the same key, `orphans` is always empty); the caller stores it, and then
    hands exactly what the store gives back to `apply`. After a crash the value is read from the store again, so no
    moment exists in which the only working value is in memory. A store that already works still holds the old value
    until then, as its former version.
    """

    def apply(self, ref: KeyRef, parts: Parts) -> None:
        """Set exactly this value at the issuer: `parts` as `mint` gave them. Repeating with the same is harmless."""
        ...


@runtime_checkable
class Roomy(Issuer, Protocol):
    """An issuer with few places a user, which may be told to give one of them up.

    `makes_room` says whether it was told so: then the plan has a step of its own for it, which somebody approves.
    """

    makes_room: bool

    def room(self, ref: KeyRef) -> KeyRef | None:
        """Return None while there is room for one more key, else the one key that may be deleted for it.

        Never the key of `ref`. Where there is neither room nor such a key it is `ProviderError(FULL)`.
        """
        ...


@runtime_checkable
class SelfRevoker(Issuer, Protocol):
    """An issuer of style `revoke` where only the leaked credential itself can end itself: there is no admin way.

    A `KeyRef` holds no secret, so the credential comes along. Its answer proves nothing (`202 Accepted` is said to any
    text): only a probe proves the death. `state` therefore never says `GONE`, and repeating `revoke` is harmless.
    """

    def consequence(self, old: Credential) -> str:
        """Say in one sentence what else dies with this very credential and who is told: for the plan."""
        ...

    def revoke(self, old: Credential) -> None:
        """End exactly this credential for good. One that is dead already is no error."""
        ...


class Stored(Struct, frozen=True):
    """Where a value lies now: `version` is the store's own; `run` the marker stored with it, empty when none."""

    version: str
    run: str = ""


@runtime_checkable
class Store(Protocol):
    """Where the new secret is kept. `put` compares and sets: it writes only over `expected`."""

    name: str
    permissions: Mapping[str, tuple[str, ...]]

    def preflight(self) -> Sequence[Fact]:
        """As `Forewarned.preflight`: log-in, place, and rights where the store tells. Nothing is written."""
        ...

    def current(self) -> Stored | None:
        """Return the version that lies there now and which run wrote it, `None` when there is none."""
        ...

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Write the fields with the run's marker if what lies there is still `expected`.

        Else `ProviderError(CONFLICT)`.
        """
        ...

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read the fields back, the newest version by default."""
        ...

    def restore(self, version: str | None, run: str) -> Stored:
        """Bring back a former version (None: nothing was there) as the newest, if `run` wrote the newest one."""
        ...


@runtime_checkable
class Forewarned(Protocol):
    """A hand that can tell beforehand whether it will be able to act. Every consumer and store is one."""

    def preflight(self) -> Sequence[Fact]:
        """Check log-in, place and rights, and change nothing.

        What is surely missing is a `ProviderError`; what nobody tells beforehand is said in a fact.
        """
        ...


@runtime_checkable
class Consumer(Protocol):
    """Whoever uses the secret and must be given the new one."""

    name: str
    permissions: Mapping[str, tuple[str, ...]]

    def preflight(self) -> Sequence[Fact]:
        """As `Forewarned.preflight`: token, place, and rights where the API tells. Nothing is written or sent."""
        ...

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        """Hand over the new value; repeating is harmless."""
        ...

    def pushed(self, run: str) -> bool | None:
        """Tell whether this run's value is in place; `None` when the consumer cannot tell."""
        ...


@runtime_checkable
class SessionKiller(Protocol):
    """Ends what the leaked key opened and what outlives it."""

    name: str
    permissions: Mapping[str, tuple[str, ...]]
    reversible: bool

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:
        """As `Forewarned.preflight`: whether sessions of this key can be ended. Nothing is changed."""
        ...

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        """End sessions made before `moment`; `Done.output["possible_until"]` when some may live on."""
        ...

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:
        """Take it back where that is possible (a deny policy); `Failed` otherwise."""
        ...


@runtime_checkable
class Quarantine(SessionKiller, Protocol):
    """A session killer that may stop every key of the owner, the new one too: containment for an emergency.

    `stops_new` says whether it does as it is set. Then it is lifted before the new key is looked at, in a step of its
    own.
    """

    stops_new: bool

    def shut(self, old: Credential, ref: KeyRef) -> bool:
        """Say whether the owner is stopped already: asked before `kill`, so that nobody else's stop is ever lifted."""
        ...

    def lift(self, old: Credential, ref: KeyRef, killed: datetime, moment: datetime) -> Outcome:
        """Let the new key through; what the old one opened before `moment` stays shut as far as that can be.

        `killed` is when `kill` was first intended. `Waiting` where opening now would bring back sessions that are not
        over yet. Repeating is harmless.
        """
        ...


class Presence(StrEnum):
    """Whose the thing is that bears a successor's name."""

    ABSENT = "absent"
    OURS = "ours"
    """Made by this run, exactly as it is wanted."""
    EARLIER = "earlier"
    """Made by an earlier run of Lapse: it may be changed, and is restored by `undo`."""
    OTHERS = "others"
    """Somebody else's, or changed by somebody else since: it is never touched."""


@runtime_checkable
class Successor(Protocol):
    """The way that makes a static key unnecessary: a role that gives short-lived ones.

    `reversible` is false where the set-up itself ends something for good. `run` is the marker of the rotation, which
    the thing carries.
    """

    name: str
    permissions: Mapping[str, tuple[str, ...]]
    reversible: bool

    def about(self) -> str:
        """Say in one clause what would be there: for the plan."""
        ...

    def displaces(self, old: Credential) -> bool:
        """Say whether setting it up ends the leaked key in the same moment."""
        ...

    def preflight(self, old: Credential) -> Sequence[Fact]:
        """Check rights, and that what it builds on is there, before anything changes; as `Issuer.preflight`."""
        ...

    def present(self, old: Credential, run: str) -> Presence:
        """Say whether it is there, and whose."""
        ...

    def snapshot(self) -> str:
        """Return what bears the name now, for `undo`; empty when nothing does. It holds no secret."""
        ...

    def setup(self, old: Credential, run: str) -> Outcome:
        """Make it. Somebody else's of the same name is `Failed`. Repeating is harmless."""
        ...

    def check(self, old: Credential, run: str, since: datetime) -> Outcome:
        """See that the new way works: log in by it, and end that log-in again. `since` is when it was set up.

        `Waiting` on a person where only they can log in.
        """
        ...

    def undo(self, old: Credential, run: str, former: str) -> Outcome:
        """Remove what this run made, or bring `former` (a `snapshot`) back. Nobody else's is touched."""
        ...
