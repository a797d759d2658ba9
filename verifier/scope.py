"""Whose key is it? What the config names as ours, against what a key or its owner tells (design rule 8)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verifier.model import Identity


class Ownership(StrEnum):
    """Ours, somebody else's, or nobody can tell. Only what is ours can ever be rotated."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"


class Mode(StrEnum):
    """`all` asks about every key and marks what is not ours; `ours` makes no call for what is known to be foreign."""

    ALL = "all"
    OURS = "ours"


class Scope(Struct, frozen=True):
    """The accounts, organisations, domains and hosts that are ours; empty lists say nothing."""

    accounts: frozenset[str] = frozenset()
    organisations: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    mode: Mode = Mode.ALL

    def before(self, parts: Mapping[str, str], account: str | None = None) -> Ownership:
        """Judge by what is known without a call: public parts, and an `account` that an offline check read."""
        if not self._any():
            return Ownership.UNKNOWN
        accounts = [v for n, v in parts.items() if n in {"account", "tenant"}] + ([account] if account else [])
        hosts = [parts["host"]] if "host" in parts else []
        return self._judge(accounts=accounts, hosts=hosts, domains=_domains([*accounts, *hosts]))

    def after(self, identity: Identity | None) -> Ownership:
        """Judge by whom the provider says a live key belongs to."""
        if identity is None or not self._any():
            return Ownership.UNKNOWN
        accounts = [identity.account] if identity.account else []
        organisations = [identity.organisation] if identity.organisation else []
        names = [x for x in (identity.principal, *accounts, *organisations) if x]
        return self._judge(accounts=accounts, organisations=organisations, domains=_domains(names))

    def _any(self) -> bool:
        """Tell whether anything is listed: else everything is unknown."""
        return bool(self.accounts or self.organisations or self.domains or self.hosts)

    def _judge(
        self,
        accounts: Iterable[str] = (),
        organisations: Iterable[str] = (),
        domains: Iterable[str] = (),
        hosts: Iterable[str] = (),
    ) -> Ownership:
        """Ours when anything matches; foreign when something is told, is listed for, and nothing matches."""
        foreign = False
        for told, ours in (
            (accounts, self.accounts | self.organisations),
            (organisations, self.organisations | self.accounts),
            (hosts, self.hosts),
        ):
            for value in told:
                if value.lower() in _lower(ours):
                    return Ownership.OURS
                foreign = foreign or bool(ours)
        for domain in domains:
            if any(domain == d or domain.endswith("." + d) for d in _lower(self.domains)):
                return Ownership.OURS
            foreign = foreign or bool(self.domains)
        return Ownership.FOREIGN if foreign else Ownership.UNKNOWN


def _domains(names: Iterable[str]) -> list[str]:
    """Return the domain of a mail address or the name itself where it looks like a host."""
    found = [n.rpartition("@")[2].lower() for n in names]
    return [d for d in found if "." in d and not d.replace(".", "").isdigit() and "/" not in d and " " not in d]


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(n.lower() for n in names)
