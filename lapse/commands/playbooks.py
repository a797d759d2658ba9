"""`lapse playbooks`: lists them, explains one, finds the mistakes in a file, writes out what would replace a key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError
from lapse.output.console import out, safe, say, table
from lapse.rotation import Desk, pairs
from playbooks.bench import PREFLIGHT
from playbooks.journal import Unknown
from playbooks.plan import Slot
from playbooks.propose import ProposalError, proposal, rendered, values, write
from playbooks.schema import HIDDEN
from playbooks.specfile import PlaybookError, library, lint
from playbooks.world import Unready
from verifier.model import Live
from verifier.words import plural

if TYPE_CHECKING:
    from lapse.ledger import Key, Ledger
    from playbooks.schema import Playbook, Replace


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
    read = plural(len(files), "file")
    out(f"{plural(found, 'mistake')} in {read}" if found else f"{read}, no mistake")
    return Exit.USAGE if found else Exit.OK


def successor(what: str, output: Path | None, sets: tuple[str, ...], config: Path | None) -> Exit:
    """Show, or write into a folder, the files that make a key unnecessary: for a playbook, a rotation or a key.

    What is publicly known of the key is filled in; the rest is said with `--set`. Nothing is overwritten.
    """
    setup = Setup.of(config)
    book = _books(config).get(what)
    if book is not None:
        found, known = book.replace, dict[str, str]()
    else:
        with setup.ledger() as ledger:
            found, known = _meant(Desk(setup, ledger), ledger, what)
    if found is None or not found.files:
        does = (
            f"{found.use} sets it up in the rotation itself" if found is not None and found.use else "it has no files"
        )
        said = f": {found.suggest}" if found is not None and not found.use else ""
        raise Stop(f"nothing to write for {what}: {does}{said}", Exit.USAGE)
    try:
        filled = values(found.files, known, pairs(sets))
        if output is None:
            _explain(found.files, filled)
            return Exit.OK
        written = write(output, rendered(found.files, filled))
    except ProposalError as e:
        raise Stop(str(e), Exit.USAGE) from None
    for path in written:
        out(str(path))
    say("read README.md first: nothing was sent to anybody")
    return Exit.OK


def _meant(desk: Desk, ledger: Ledger, what: str) -> tuple[Replace | None, dict[str, str]]:
    """Return what a rotation or a key would be replaced by, and what is publicly known of the key."""
    try:
        run = ledger.rotations.resolve(what)
    except Unknown:
        try:
            key = ledger.key(ledger.resolve(what))
        except LedgerError:
            raise Stop(
                f"{what} is no playbook, no rotation and no key: `lapse playbooks` lists those", Exit.USAGE
            ) from None
        return desk.book(key, None).replace, _known(desk, key, {})
    state = desk.engine.state(run)
    return state.plan.replace, _known(desk, ledger.key(state.plan.credential), dict(state.outputs().get(PREFLIGHT, {})))


def _known(desk: Desk, key: Key, found: dict[str, str]) -> dict[str, str]:
    """Return the public facts of a key that a proposal may ask for: parts, account, principal, owner, project."""
    known: dict[str, str] = {}
    try:
        parts = desk.credential(key.id).parts
        known |= {f"old.{name}": value.reveal() for name, value in parts.items() if name not in HIDDEN}
    except Unready:  # the secret is purged, and the parts with it
        pass
    identity = key.known.identity if isinstance(key.known, Live) else None
    if identity is not None:
        known |= {"account": identity.account or "", "principal": identity.principal or ""}
    principal = known.get("principal", "")
    known["owner"] = found.get("owner") or (principal.rpartition("/")[2] if ":user/" in principal else "")
    for email in (known["owner"], principal):
        if email.endswith(".iam.gserviceaccount.com"):
            known["project"] = email.partition("@")[2].partition(".")[0]
    return known


def _explain(name: str, filled: dict[str, str]) -> None:
    made = proposal(name)
    out(f"{name}: {made.title}")
    for field, wanted in made.fields.items():
        out(f"  {field:<16} {safe(filled[field]) or '(to be said)'}  — {wanted.about}")
    for page in made.docs:
        out(f"  {'docs':<16} {page}")
    say("-o FOLDER writes the files; --set NAME=VALUE says what is not known")
