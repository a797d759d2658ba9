"""Keys that only they themselves can end: one call, described in `self_revoke.toml` beside this file.

This is the one place where a leaked key authorises anything, because there is no other way; the plan says so, and says
what else dies and who is told (`consequence`). What is sent is checked against the entry's `only` first, so that the
wrong part of a finding never leaves. An answer of `accepted` proves nothing: the probe of the verifier does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from rotators.door import Answer, Door, Route, refusal
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential

_HOUR = timedelta(hours=1)
_FIELD = re.compile(r"\{([a-z_]+)\}")
Fields: TypeAlias = Mapping[str, str]


class Owner(StrEnum):
    """Whether whoever the key belongs to is told."""

    MAILED = "mailed"
    SILENT = "silent"
    UNKNOWN = "unknown"


class Says(Struct, frozen=True, forbid_unknown_fields=True):
    """A field of the reply and the value that means yes."""

    field: str
    value: str | bool


class Already(Struct, frozen=True, forbid_unknown_fields=True):
    """A field of the reply and the values that mean that the key was dead before."""

    field: str
    values: tuple[str, ...]


class Find(Struct, frozen=True, forbid_unknown_fields=True):
    """A list to look the key's id up in: `match` is the dotted field that equals the secret, `id` the one to use."""

    path: str
    match: str
    id: str


class Revoker(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the TOML file; see its head for what each field says."""

    kinds: tuple[str, ...]
    title: str
    only: str
    method: Literal["POST", "DELETE"]
    base: str
    path: str
    done: tuple[int, ...]
    proof: Literal["accepted", "done"]
    owner: Owner
    exact: str
    dies: str
    docs: str
    headers: dict[str, str] = {}
    form: dict[str, str] = {}
    json: dict[str, str | list[str]] = {}
    hosts: tuple[str, ...] = ()
    instance: bool = False
    find: Find | None = None
    batch: int = 1
    hourly: int = 0
    later: tuple[int, ...] = ()
    already: tuple[int, ...] = ()
    says: Says | None = None
    already_says: Already | None = None

    @property
    def route(self) -> Route:
        """Return the call that ends a key."""
        return Route(self.method, self.path)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    revoker: tuple[Revoker, ...]


@cache
def revokers() -> Mapping[str, Revoker]:
    """Read the shipped file: kind to entry."""
    text = files("rotators.issuers").joinpath("self_revoke.toml").read_bytes()
    found = msgspec.toml.decode(text, type=_File).revoker
    return {kind: entry for entry in found for kind in entry.kinds}


class SelfRevoke:
    """Settings: `kind` (for the plan), and those of `rotators.door`; `base_url` names an instance of one's own."""

    name = "self_revoke"
    style = Style.REVOKE
    reversible = False
    propagation = timedelta(minutes=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {"retire": ("the leaked key itself, and nothing else",)}

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; an unknown `kind` is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._located: dict[str, Credential] = {}
        named = settings.get("kind")
        self.kinds = (named,) if named else tuple(revokers())
        self.also_dies = _consequence(_entry(named)) if named else "It depends on the provider: see the plan."

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Say what will happen; nothing can be tried out beforehand."""
        named = self._settings.get("kind")
        if not named:
            return []
        entry = _entry(named)
        return [
            Fact("authorised by", "the leaked key itself: there is no admin way"),
            Fact("exactly this key", entry.exact),
            Fact("consequence", _consequence(entry)),
            Fact("documents", entry.docs),
        ]

    def consequence(self, old: Credential) -> str:
        """Say what else dies with this key and who is told."""
        return _consequence(_entry(old.provider))

    def locate(self, old: Credential) -> KeyRef:
        """Check that it is a key this way is for. The id is the credential's own: no provider tells another."""
        entry = _entry(old.provider)
        self._secret(entry, old)
        self._located[old.id] = old
        return KeyRef(old.id, entry.title)

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """Return the key itself: no list can be asked for."""
        return [ref]

    def mint(self, ref: KeyRef, marker: str) -> Minted:  # noqa: ARG002  # there is no way to
        """Refuse: a successor is made by hand (the playbook's assisted step)."""
        raise ProviderError(Trouble.REFUSED, f"{ref.owner} makes no successor by API: make one by hand")

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:  # noqa: ARG002  # the contract's arguments
        """Return nothing: nothing is minted."""
        return []

    def disable(self, ref: KeyRef) -> None:
        """Refuse: a self-revocation is for good."""
        raise ProviderError(Trouble.REFUSED, f"{ref.owner} cannot disable this key, only end it for good")

    enable = disable

    def retire(self, ref: KeyRef) -> None:
        """End the key that this very object was shown by `locate`; else it is `REFUSED`: use `revoke`."""
        if (old := self._located.get(ref.id)) is None:
            raise ProviderError(
                Trouble.REFUSED, "a key that ends itself must come along: locate it again, or revoke it"
            )
        self.revoke(old)

    def revoke(self, old: Credential) -> None:
        """End exactly this key. One that is dead already, as the provider sees it, is no error."""
        self.revoke_all([old])

    def revoke_all(self, old: Sequence[Credential]) -> None:
        """End many keys, as many in one call as the provider takes. Repeating is harmless."""
        groups: dict[tuple[str, str], list[Credential]] = {}
        for one in old:
            entry = _entry(one.provider)
            self._secret(entry, one)
            groups.setdefault((entry.title, self._base(entry, one)), []).append(one)
        for (_, base), members in groups.items():
            entry = _entry(members[0].provider)
            for start in range(0, len(members), entry.batch):
                self._end(entry, base, [self._secret(entry, c) for c in members[start : start + entry.batch]])

    def state(self, ref: KeyRef) -> State:  # noqa: ARG002  # no provider can be asked without the key
        """Return `ACTIVE`, always: only a probe tells that it is dead, and repeating `revoke` is harmless."""
        return State.ACTIVE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # nobody to ask
        """Say that there is nobody to ask: what the key is comes from the verifier's own probe."""
        return [Fact("evidence", f"{ref.owner} tells nothing about a key to others: see the verdict's identity")]

    def _end(self, entry: Revoker, base: str, secrets: Sequence[str]) -> None:
        match = re.fullmatch(entry.only, secrets[0])
        fields = {"secret": secrets[0], **(match.groupdict() if match else {})}
        routes = [entry.route, *([Route("GET", entry.find.path)] if entry.find else [])]
        door = Door(base, routes, {k: v for k, v in self._settings.items() if k != "base_url"})
        headers = {name: _fill(text, fields) for name, text in entry.headers.items()}
        if entry.find is not None:
            found = self._find(entry, entry.find, door, headers, secrets[0])
            if found is None:
                return
            fields["id"] = found
        body = None
        if entry.form:
            body = urlencode({k: _fill(v, fields) for k, v in entry.form.items()}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer = door.call(
            entry.route,
            fill=fields,
            headers=headers,
            json=_body(entry.json, fields, secrets) if entry.json else None,
            body=body,
        )
        _judge(entry, answer)

    @staticmethod
    def _find(entry: Revoker, find: Find, door: Door, headers: Fields, secret: str) -> str | None:
        """Return the id of the one listed key that equals the secret; None when the key is dead already."""
        answer = door.call(Route("GET", find.path), headers=headers)
        if answer.status in entry.already:
            return None
        if not answer.good:
            raise refusal(answer, f"list the keys at {entry.title}")
        listed = answer.json()
        ids = (
            [_dig(row, find.id) for row in listed if _dig(row, find.match) == secret]
            if isinstance(listed, list)
            else []
        )
        if len(ids) != 1 or not isinstance(ids[0], str):
            raise ProviderError(
                Trouble.REFUSED,
                f"{entry.title} lists {len(ids)} keys that equal this one: end it by hand at {entry.docs}",
            )
        return ids[0]

    def _base(self, entry: Revoker, old: Credential) -> str:
        """Return the fixed origin, the user's own (`base_url`), or the finding's host if it is one of the vendor's."""
        if own := self._settings.get("base_url"):
            return own
        host = old.parts["host"].reveal().strip().lower() if "host" in old.parts else ""
        host = re.sub(r"^https?://|/.*$", "", host)
        fixed = entry.base.removeprefix("https://")
        if entry.base:
            if entry.instance and host and host != fixed:
                raise ProviderError(
                    Trouble.REFUSED, f"this key is of an instance of its own ({host}): set base_url to it"
                )
            return entry.base
        if not any(host.endswith(suffix) for suffix in entry.hosts):
            ends = ", ".join(entry.hosts)
            raise ProviderError(Trouble.REFUSED, f"{entry.title} keys end at a host in {ends}: set base_url to yours")
        return f"https://{host}"

    @staticmethod
    def _secret(entry: Revoker, old: Credential) -> str:
        """Return the part to send, if it looks as this provider's keys do."""
        if "secret" in old.parts and re.fullmatch(entry.only, value := old.parts["secret"].reveal()):
            return value
        raise ProviderError(Trouble.REFUSED, f"this does not look like a key of {entry.title}: nothing was sent")


def _entry(kind: str) -> Revoker:
    if (entry := revokers().get(kind)) is None:
        raise ProviderError(Trouble.REFUSED, f"no key of kind {kind} can end itself, as far as we know")
    return entry


def _consequence(entry: Revoker) -> str:
    told = {
        Owner.MAILED: "Its owner is mailed.",
        Owner.SILENT: "Nobody is told.",
        Owner.UNKNOWN: "Whether its owner is told is not documented.",
    }[entry.owner]
    worth = " The answer proves nothing; the probe afterwards does." if entry.proof == "accepted" else ""
    return f"{entry.dies} It cannot be undone. {told}{worth}"


def _judge(entry: Revoker, answer: Answer) -> None:
    if answer.status in entry.later:
        raise ProviderError(
            Trouble.LATER, f"{entry.title} takes no more of these for now", answer.retry_after() or _HOUR
        )
    if answer.status in entry.already:
        return
    if answer.status not in entry.done:
        raise refusal(answer, f"end the key at {entry.title}", hint=f"see {entry.docs}")
    if entry.says is not None:
        said = answer.json()
        already = entry.already_says
        if already is not None and _dig(said, already.field) in already.values:
            return
        if _dig(said, entry.says.field) != entry.says.value:
            limited = _dig(said, "error") == "ratelimited"
            raise ProviderError(Trouble.LATER if limited else Trouble.REFUSED, f"{entry.title} did not end the key")


def _fill(text: str, fields: Fields) -> str:
    return _FIELD.sub(lambda m: fields[m.group(1)], text)


def _body(template: Mapping[str, str | list[str]], fields: Fields, secrets: Sequence[str]) -> dict[str, object]:
    return {k: list(secrets) if isinstance(v, list) else _fill(v, fields) for k, v in template.items()}


def _dig(value: Any, path: str) -> Any:  # noqa: ANN401  # whatever JSON holds
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def make(settings: Settings) -> SelfRevoke:
    """Return the issuer for a playbook's slot."""
    return SelfRevoke(settings)
