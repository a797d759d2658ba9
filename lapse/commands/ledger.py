"""`lapse ledger init|check|head|rewrap`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from lapse.commands.setup import Setup
from lapse.config import data_dir
from lapse.exits import Exit, Stop
from lapse.ledger import Head, LedgerError, open_ledger
from lapse.output.console import out, raw, say
from verifier.words import plural


def init(reference: str | None, config: Path | None) -> Exit:
    """Make the ledger, sealed by `reference` (else the config's key, else a new file beside it)."""
    setup = Setup.of(config)
    reference = reference or setup.config.ledger.key or f"file:{data_dir() / 'ledger.key'}"
    if reference.startswith("file:"):
        _make(Path(reference.removeprefix("file:")).expanduser())
    try:
        with open_ledger(setup.config.ledger_url, reference) as ledger:
            out(f"ledger: {ledger.where}")
    except LedgerError as e:
        raise Stop(str(e)) from None
    out(f"sealing key: {reference}")
    if reference != setup.config.ledger.key:
        out("add this to your configuration, and keep a copy of the key elsewhere:")
        out(f'\n[ledger]\nkey = "{reference}"')
    return Exit.OK


def _make(path: Path) -> None:
    """Write a new random key, readable by nobody else; an existing one is left alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as e:
        raise Stop(f"cannot write {path}: {e.strerror}") from None
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(32) + "\n")


def check(head: Path | None, config: Path | None) -> Exit:
    """Recompute the whole chain; exit 1 and say where when something does not add up."""
    older = None
    if head is not None:
        try:
            older = msgspec.json.decode(head.read_bytes(), type=Head)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Stop(
                f"{head} is no exported head: {type(e).__name__}; `lapse ledger head` makes one", Exit.USAGE
            ) from None
    with Setup.of(config).ledger() as ledger:
        result = ledger.check(older)
    for p in result.problems:
        where = f"{p.table}{f' row {p.row}' if p.row is not None else ''}{f', event {p.event}' if p.event else ''}"
        out(f"{where}: {p.what}")
    said = "whole" if result.ok else plural(len(result.problems), "problem")
    say(f"{plural(result.events, 'event')}, {plural(result.rows, 'row')}: {said}")
    return Exit.OK if result.ok else Exit.BROKE


def head(config: Path | None) -> Exit:
    """Print the signed head as one line of JSON."""
    with Setup.of(config).ledger() as ledger:
        raw(msgspec.json.encode(ledger.head()))
    return Exit.OK


def rewrap(reference: str, config: Path | None) -> Exit:
    """Wrap the ledger's keys with another sealing key."""
    if reference.startswith("file:"):
        _make(Path(reference.removeprefix("file:")).expanduser())
    with Setup.of(config).ledger() as ledger:
        try:
            ledger.rewrap(reference)
        except LedgerError as e:
            raise Stop(str(e)) from None
    out(f'sealed by {reference}; now write in your configuration:\n\n[ledger]\nkey = "{reference}"')
    return Exit.OK
