"""What every command begins with: config, catalogue, ledger, door, terms."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from lapse.config import Config, cache_dir, load
from lapse.exits import Exit, Stop
from verifier.catalogue import Catalogue, load_catalogue
from verifier.confirm import Patience
from verifier.egress import RefusedError, Settings
from verifier.egress.address import authority, loopback
from verifier.scope import Mode, Scope
from verifier.spec import Limits
from verifier.specfile import SpecError
from verifier.verify import Terms

if TYPE_CHECKING:
    from lapse.ledger import Ledger, Schedule
    from verifier.spec import Kind

SANDBOX = Limits(rate=100.0, burst=100, concurrency=16)
"""How an override on this machine's own loopback is asked: no vendor's published limit is about it."""


@dataclass(frozen=True)
class Setup:
    """The configuration and what it describes, made when first asked for."""

    config: Config

    @classmethod
    def of(cls, path: Path | None) -> Setup:
        """Read the configuration; every mistake is a `Stop`."""
        return cls(load(path))

    @cached_property
    def catalogue(self) -> Catalogue:
        """All providers, with the config's own and its limits."""
        c = self.config.catalogue
        for module in c.modules:
            try:
                import_module(module)
            except ImportError as e:
                raise Stop(f"catalogue.modules: cannot import {module}: {e}", Exit.USAGE) from None
        folders = [Path(f).expanduser() for f in c.folders]
        for folder in folders:
            if not folder.is_dir():
                raise Stop(f"catalogue.folders: {folder} is no folder", Exit.USAGE)
        try:
            found = load_catalogue(folders, c.modules, cache_dir())
        except SpecError as e:
            raise Stop(str(e), Exit.USAGE) from None
        self._known(found)
        return Catalogue(self._permitted(replace(k, limits=self._limits(k.id, k.vendor, k.limits))) for k in found)

    def _permitted(self, kind: Kind) -> Kind:
        """Return a kind with the calls that the config adds: HEAD at the hosts of `egress.basic_auth`."""
        hosts = self.config.egress.basic_auth
        if kind.id != "basic_auth_url" or not hosts:
            return kind
        from verifier.providers.basic_auth import permit

        for host in hosts:
            try:
                authority(host, 443)
            except RefusedError as e:
                raise Stop(f"egress.basic_auth: {host!r}: {e}; write host or host:port", Exit.USAGE) from None
        return permit(kind, hosts)

    def _known(self, found: Catalogue) -> None:
        from difflib import get_close_matches  # only where something may be wrong

        names = {k.id for k in found} | {k.vendor for k in found}
        for name in self.config.providers:
            if name not in names:
                near = get_close_matches(name, names, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else "; `lapse providers` lists them"
                raise Stop(f"providers.{name}: no provider has this id{hint}", Exit.USAGE)

    def _limits(self, kind: str, vendor: str, limits: Limits) -> Limits:
        """Return the config's limits, else those of a sandbox on this machine, else the vendor's published ones."""
        if loopback(self._base_url(kind, vendor)):
            limits = SANDBOX
        for name in (vendor, kind):
            if o := self.config.providers.get(name):
                limits = replace(
                    limits,
                    rate=o.rate or limits.rate,
                    burst=o.burst or limits.burst,
                    concurrency=o.concurrency or limits.concurrency,
                )
        return limits

    @cached_property
    def base_urls(self) -> dict[str, str]:
        """The config's `base_url` by kind id; a vendor's counts for all its kinds."""
        found = {kind.id: self._base_url(kind.id, kind.vendor) for kind in self.catalogue}
        return {kind: url for kind, url in found.items() if url}

    def _base_url(self, kind: str, vendor: str) -> str:
        for name in (kind, vendor):
            o = self.config.providers.get(name)
            if o and o.base_url:
                return o.base_url.rstrip("/")
        return ""

    def settings(self) -> Settings:
        """Return the door's settings."""
        e, v = self.config.egress, self.config.verify
        return Settings(
            allow_private=tuple(ipaddress.ip_network(n) for n in e.allow_private),
            proxy=e.proxy or None,
            no_proxy=e.no_proxy or None,
            ca_bundle=str(Path(e.ca_bundle).expanduser()) if e.ca_bundle else None,
            deadline=v.timeout.seconds,
            retries=v.retries,
            budget=v.retry_budget.seconds,
            contact=e.contact,
            known_hosts=str(Path(e.known_hosts).expanduser()) if e.known_hosts else None,
        )

    def terms(self, *, wait: bool | None = None) -> Terms:
        """Return what a run must respect. `wait` overrides the config."""
        c = self.config
        scope = Scope(
            frozenset(c.scope.accounts),
            frozenset(c.scope.organisations),
            frozenset(c.scope.domains),
            frozenset(c.scope.hosts),
            Mode(c.scope.mode),
        )
        patience = Patience(
            c.verify.confirm_after.seconds, c.brake.many, c.brake.share, c.brake.few, c.brake.apart.delta
        )
        stay = c.verify.wait if wait is None else wait
        return Terms(scope, patience, self.base_urls, frozenset(c.canaries.aws_accounts), stay)

    def _schedule(self) -> Schedule:
        from lapse.ledger import Schedule  # SQLAlchemy is slow to import

        night = self.config.nightly
        return Schedule(
            confirm_after=self.config.verify.confirm_after.delta,
            confirmed_again=(night.dead_again.delta, night.dead_later.delta),
            retry_first=night.retry_first.delta,
            retry_most=night.retry_most.delta,
        )

    def ledger(self) -> Ledger:
        """Open (or make) the ledger."""
        from lapse.ledger import LedgerError, open_ledger  # SQLAlchemy is slow to import

        try:
            return open_ledger(self.config.ledger_url, self.config.ledger.key or None, self._schedule())
        except LedgerError as e:
            raise Stop(str(e)) from None
