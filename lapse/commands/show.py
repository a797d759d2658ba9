"""`lapse show KEY`: the story of one key, from the leak to its death."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from lapse.commands.setup import Setup
from lapse.evidence.fold import exposure_of
from lapse.exits import Exit, Stop
from lapse.ledger import EventKind, LedgerError
from lapse.output import jsonv1
from lapse.output.console import out, raw, safe
from lapse.output.listing import verdict, who
from lapse.output.rotations import rotation
from lapse.output.storyline import KeyShown, storyline, way
from playbooks.journal import state_of
from verifier.model import Live
from verifier.words import plural

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.ledger import Found, Key, Ledger
    from verifier.model import Evidence

PLACES = 20
_BARE = frozenset({"seen", "gone", "verdict", "note"})
"""Lines whose text says by itself where it comes from."""


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
        else:
            shown = _shown(ledger, key, found)
            raw(jsonv1.encode(shown)) if json else _tell(key, found, shown)
    return Exit.LIVE if isinstance(key.known, Live) else Exit.OK


def _shown(ledger: Ledger, key: Key, found: tuple[Found, ...]) -> KeyShown:
    log = ledger.rotations
    states = [state_of(name, log.entries(name)) for name in log.runs(key.id)]
    story, exposure, now = ledger.story(key.id), exposure_of(key, found), datetime.now(UTC)
    return KeyShown(
        **msgspec.structs.asdict(jsonv1.full(key, found)),
        way=way(key, exposure, story, states),
        story=storyline(exposure, story, states),
        rotations=tuple(rotation(s, "", now) for s in states),
    )


def _reveal(ledger: Ledger, key: Key, reason: str) -> None:
    item = next(iter(ledger.due(datetime.now(UTC), ids=(key.id,))), None)
    if item is None:
        raise Stop(f"the secret of {key.short} is not kept")
    ledger.note(EventKind.REVEALED, reason, (key.id,))
    for part, value in item.credential.parts.items():
        out(f"{part}: {value.reveal()}")


def _tell(key: Key, found: tuple[Found, ...], shown: KeyShown) -> None:
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
    out(f"  {'seen in':<10} {plural(len(found), 'place')}{gone}")
    for f in found[:PLACES]:
        p = f.place
        name = p.image.reference if p.image else p.repository or str(p.source)
        layer = f" layer {p.image.layer[:19]} ({p.image.fate})" if p.image and p.image.layer else ""
        line = f":{p.line}" if p.line else ""
        removed = f" (gone since {f.removed_at:%Y-%m-%d})" if f.removed_at else ""
        out(f"    {safe(name)} {safe(p.path)}{line}{layer}  {safe(f.scanner)}/{safe(f.rule)}{removed}")
    if len(found) > PLACES:
        out(f"    and {len(found) - PLACES} more")
    _story(shown)


def _story(shown: KeyShown) -> None:
    out(f"  {'way':<10} {' → '.join(f'{s.stage} {s.at:%Y-%m-%d %H:%M}' for s in shown.way)}")
    for r in shown.rotations:
        if r.stands != "ended":
            out(f"  {'rotation':<10} {r.run} {r.stands} since {r.since:%Y-%m-%d %H:%M}: {safe(r.says)}")
    out("  story")
    for told in shown.story:
        kind = "" if told.kind in _BARE else f"{told.kind} "
        out(f"    {told.at:%Y-%m-%d %H:%M:%S}  {kind}{safe(told.text)}")


def _evidence(e: Evidence) -> None:
    status = f" → {e.status}" if e.status is not None else ""
    out(f"  {'evidence':<10} {safe(e.request)}{status}  ({safe(e.rule)})")
    if e.excerpt:
        out(f"  {'':<10} {safe(e.excerpt)[:160]}")
