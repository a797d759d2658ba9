"""`lapse show KEY`: the story of one key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import EventKind, Gone, LedgerError, Noted, Seen, Told
from lapse.output import jsonv1
from lapse.output.console import out, raw, safe
from lapse.output.listing import verdict, who
from verifier.model import Live

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.ledger import Found, Key, Ledger, Story
    from verifier.model import Evidence

PLACES = 20


def run(name: str, config: Path | None, *, reveal: bool, reason: str, json: bool) -> Exit:
    """Print what is known of a key. Revealing needs a reason and is recorded before anything is printed."""
    if reveal and not reason.strip():
        raise Stop("--reveal needs --reason TEXT: it is recorded in the ledger", Exit.USAGE)
    with Setup.of(config).ledger() as ledger:
        try:
            key = ledger.key(ledger.resolve(name))
        except LedgerError as e:
            raise Stop(str(e), Exit.USAGE) from None
        found = tuple(ledger.places(key.id))
        if reveal:
            _reveal(ledger, key, reason)
        elif json:
            raw(jsonv1.encode(jsonv1.full(key, found)))
        else:
            _tell(key, found, ledger.story(key.id))
    return Exit.LIVE if isinstance(key.known, Live) else Exit.OK


def _reveal(ledger: Ledger, key: Key, reason: str) -> None:
    item = next(iter(ledger.due(datetime.now(UTC), ids=(key.id,))), None)
    if item is None:
        raise Stop(f"the secret of {key.short} is not kept")
    ledger.note(EventKind.REVEALED, reason, (key.id,))
    for part, value in item.credential.parts.items():
        out(f"{part}: {value.reveal()}")


def _tell(key: Key, found: tuple[Found, ...], story: list[Story]) -> None:
    out(f"{key.short}  {verdict(key)}  {key.provider}  {safe(who(key))}".rstrip())
    if key.candidates:
        out(f"  may be     {', '.join(key.candidates)}")
    if key.hint:
        out(f"  opens      {safe(key.hint)}")
    if isinstance(key.last, Live) and (i := key.last.identity):
        for label, value in (("scopes", ", ".join(i.scopes)), ("expires", i.expires), ("plan", i.plan)):
            if value:
                out(f"  {label:<10} {safe(value)[:160]}")
        out(f"  {'privilege':<10} {i.privilege}")
    out(f"  {'owner':<10} {key.owner}")
    if key.last and key.last.evidence:
        _evidence(key.last.evidence)
    gone = " — all gone from the source" if key.removed_from_source else ""
    out(f"  {'seen in':<10} {_places(len(found))}{gone}")
    for f in found[:PLACES]:
        p = f.place
        name = p.image.reference if p.image else p.repository or str(p.source)
        layer = f" layer {p.image.layer[:19]} ({p.image.fate})" if p.image and p.image.layer else ""
        line = f":{p.line}" if p.line else ""
        removed = f" (gone since {f.removed_at:%Y-%m-%d})" if f.removed_at else ""
        out(f"    {safe(name)} {safe(p.path)}{line}{layer}  {safe(f.scanner)}/{safe(f.rule)}{removed}")
    if len(found) > PLACES:
        out(f"    and {len(found) - PLACES} more")
    out("  story")
    for event in story:
        out(f"    {event.at:%Y-%m-%d %H:%M:%S}  {_event(event)}")


def _evidence(e: Evidence) -> None:
    status = f" → {e.status}" if e.status is not None else ""
    out(f"  {'evidence':<10} {safe(e.request)}{status}  ({safe(e.rule)})")
    if e.excerpt:
        out(f"  {'':<10} {safe(e.excerpt)[:160]}")


def _places(n: int, which: str = "") -> str:
    return f"{n} {which}place{'' if n == 1 else 's'}"


def _event(event: Story) -> str:
    match event:
        case Seen():
            return f"{safe(event.scanner)} saw it in {_places(event.places, 'new ')} ({safe(event.file)})"
        case Gone():
            return f"gone from {_places(event.places)}: a complete scan no longer had them"
        case Told():
            said = jsonv1.word(event.verdict)
            return f"{said}{f' ({event.turn})' if event.turn else ''}"
        case Noted():
            return f"{event.kind}: {safe(event.text)}"
        case _:
            assert_never(event)
