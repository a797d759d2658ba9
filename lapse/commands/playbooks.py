"""`lapse playbooks`: lists them, explains one, or finds the mistakes in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.output.console import out, table
from playbooks.plan import Slot
from playbooks.specfile import PlaybookError, library, lint

if TYPE_CHECKING:
    from playbooks.schema import Playbook


def _books(config: Path | None) -> dict[str, Playbook]:
    folders = [Path(f).expanduser() for f in Setup.of(config).config.rotate.playbooks]
    try:
        return library(folders)
    except PlaybookError as e:
        raise Stop(str(e), Exit.USAGE) from None


def run(config: Path | None) -> Exit:
    """List all playbooks."""
    rows = [
        (b.id, ", ".join(b.kinds[:3]) + (" …" if len(b.kinds) > 3 else ""), b.issuer or "a person", b.title)
        for b in _books(config).values()
    ]
    table(("playbook", "for", "issuer", "title"), sorted(rows))
    return Exit.OK


def show(name: str, config: Path | None) -> Exit:
    """Print what a playbook does, slot by slot."""
    book = _books(config).get(name)
    if book is None:
        raise Stop(f"there is no playbook {name}; `lapse playbooks` lists them", Exit.USAGE)
    out(f"{book.id}: {book.title}")
    out(f"  for        {', '.join(book.kinds)}")
    out(f"  issuer     {book.issuer or 'none: a person does it'}")
    for slot in Slot:
        held = getattr(book, slot.value, None)
        if held:
            fields = getattr(held, "__struct_fields__", ())
            said = ", ".join(f"{f}={getattr(held, f)}" for f in fields if getattr(held, f) not in ("", {}))
            out(f"  {slot.value:<10} {said or held}")
    return Exit.OK


def check(files: list[Path], config: Path | None) -> Exit:
    """Print every mistake in these files as FILE:LINE: sentence."""
    kinds = {k.id for k in Setup.of(config).catalogue} | {"*"}
    found = 0
    for file in files:
        try:
            raw = file.read_bytes()
        except OSError as e:
            raise Stop(f"cannot read {file}: {e.strerror}", Exit.NO_INPUT) from None
        for mistake in lint(raw, str(file), kinds):
            found += 1
            out(mistake)
    out(f"{found} mistakes in {len(files)} files" if found else f"{len(files)} files, no mistake")
    return Exit.USAGE if found else Exit.OK
