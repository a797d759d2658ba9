"""`lapse doctor`: is the set-up sound? Calls no provider."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.config import found, idle_variables
from lapse.exits import Exit, Stop
from lapse.output.console import out
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(config: Path | None) -> Exit:
    """Go through the set-up; every finding is one line, and one that stops the work makes the exit code 1."""
    setup = Setup.of(config)
    out(f"ok    config: {config or found(os.environ) or 'defaults and environment'}")
    if idle := _idle(config):
        out(idle)
    checks: tuple[Callable[[Setup], str], ...] = (_catalogue, _egress, _ledger, _key)
    broken = False
    for check in checks:
        try:
            out(check(setup))
        except Stop as e:
            broken = True
            out(f"BROKEN {e}")
    return Exit.BROKE if broken else Exit.OK


def _idle(config: Path | None) -> str:
    """Name variables that set nothing, unless the config itself refers to them."""
    file = config or found(os.environ)
    text = file.read_text("utf-8") if file is not None else ""
    idle = [v for v in idle_variables(os.environ) if f"env:{v}" not in text]
    return f"note  environment: {', '.join(idle)}: no such setting, so it changes nothing" if idle else ""


def _catalogue(setup: Setup) -> str:
    kinds = setup.catalogue
    calls = len(kinds.manifest())
    bases = f", {len(setup.base_urls)} with an address of the config's" if setup.base_urls else ""
    return f"ok    providers: {plural(len(kinds), 'kind')} of key, {plural(calls, 'call')} on the manifest{bases}"


def _egress(setup: Setup) -> str:
    from verifier.egress import Egress, RefusedError  # only for this check

    try:
        Egress(setup.catalogue.manifest(), settings=setup.settings(), overrides=setup.base_urls)
    except RefusedError as e:
        raise Stop(str(e)) from None
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    proxy = setup.config.egress.proxy or next((os.environ[n] for n in names if os.environ.get(n)), "")
    ca = setup.config.egress.ca_bundle or os.environ.get("SSL_CERT_FILE", "")
    allowed = ", ".join(setup.config.egress.allow_private) or "none"
    way = "by a proxy" if proxy else "direct"
    return f"ok    egress: {way}, certificates: {ca or 'built in'}, private ranges allowed: {allowed}"


def _ledger(setup: Setup) -> str:
    from lapse.ledger.db import is_postgres, path_of, shown  # SQLAlchemy is slow to import
    from lapse.ledger.errors import LedgerError

    address = setup.config.ledger_url
    try:
        where, there = shown(address), _there(address)
        path = None if is_postgres(address) else path_of(address)
    except LedgerError as e:
        raise Stop(str(e)) from None
    if not there:
        if path is None:
            return f"ok    ledger: {where} (its tables will be made at first use)"
        parent = next((p for p in path.parents if p.exists()), path.parent)
        if not os.access(parent, os.W_OK):
            raise Stop(f"ledger: {parent} cannot be written; set ledger.url")
        return f"ok    ledger: {path} (will be made at first use)"
    with setup.ledger() as ledger:
        status = ledger.status()
    said = ", ".join((plural(status.keys, "key"), plural(status.findings, "finding"), plural(status.events, "event")))
    return f"ok    ledger: {where}, {said}"


def _there(address: str) -> bool:
    """Say whether there is a ledger yet. None is made by asking."""
    from lapse.ledger import made  # SQLAlchemy is slow to import
    from lapse.ledger.db import is_postgres, path_of

    return made(address) if is_postgres(address) else path_of(address).exists()


def _key(setup: Setup) -> str:
    from lapse.ledger.errors import LedgerError  # SQLAlchemy is slow to import
    from lapse.ledger.keys import key_source

    reference = setup.config.ledger.key
    try:
        if reference:
            source = key_source(reference)
            if source.unwrap(source.wrap(b"doctor")) != b"doctor":
                raise Stop(f"ledger.key: {reference} does not unwrap what it wraps")
        opens = _opens(setup)
    except LedgerError as e:
        if reference.startswith("file:") and "cannot be read" in str(e) and "ledger init" not in str(e):
            raise Stop(f"{e}; `lapse ledger init` makes it") from None
        raise Stop(str(e)) from None
    if not reference:
        return "note  sealing key: none, so secrets are kept for the run only; `lapse ledger init` makes one"
    return f"ok    sealing key: {reference}{', which opens this ledger' if opens else ''}"


def _opens(setup: Setup) -> bool:
    """Say whether the configured key was tried on a ledger; one that it does not open is a `LedgerError`."""
    from lapse.ledger.errors import LedgerError  # SQLAlchemy is slow to import

    try:
        if not _there(setup.config.ledger_url):
            return False
        ledger = setup.ledger()
    except (Stop, LedgerError):  # what is wrong with the ledger was said in the line before
        return False
    with ledger:
        return bool(ledger.id_key)
