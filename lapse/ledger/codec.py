"""Verdicts as rows of the `verdicts` table and back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec

from verifier.model import Dead, Doubt, Evidence, How, Identity, Live, Undecided, Verdict

if TYPE_CHECKING:
    from lapse.ledger.rowlog import Value

_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.json.Encoder().encode
_identity = msgspec.json.Decoder(Identity).decode
_evidence = msgspec.json.Decoder(Evidence).decode

VerdictRow: TypeAlias = tuple[str, str | None, str | None, int, int, int | None, str | None, str | None, str | None]
"""verdict, why, how, confirmed, restricted, retry_after, note, identity, evidence."""

COLUMNS = ("verdict", "why", "how", "confirmed", "restricted", "retry_after", "note", "identity", "evidence")


def verdict_row(verdict: Verdict) -> VerdictRow:
    """Return the verdict's own columns, as plain text and numbers."""
    match verdict:
        case Live(evidence=evidence, identity=identity, restricted=restricted):
            who = None if identity is None else _encode(identity).decode()
            return ("live", None, None, 0, int(restricted), None, None, who, _encode(evidence).decode())
        case Dead(evidence=evidence, how=how, confirmed=confirmed):
            return ("dead", None, how.value, int(confirmed), 0, None, None, None, _encode(evidence).decode())
        case Undecided(why=why, evidence=doubted, retry_after=retry_after, note=note):
            later = None if retry_after is None else retry_after // _MICROSECOND
            shown = None if doubted is None else _encode(doubted).decode()
            said = note.replace("\0", "?") or None  # PostgreSQL stores no null character
            return ("undecided", why.value, None, 0, 0, later, said, None, shown)
        case _:
            assert_never(verdict)


def read_verdict(row: tuple[Value, ...]) -> Verdict | None:
    """Return the verdict of a `VerdictRow`; None where an outer join found no row."""
    word, why, how, confirmed, restricted, retry_after, note, identity, evidence = row
    proof = None if evidence is None else _evidence(str(evidence))
    match word:
        case None:
            return None
        case "live" if proof is not None:
            who = None if identity is None else _identity(str(identity))
            return Live(evidence=proof, identity=who, restricted=bool(restricted))
        case "dead" if proof is not None:
            return Dead(evidence=proof, how=How(str(how)), confirmed=bool(confirmed))
        case _:
            later = None if retry_after is None else timedelta(microseconds=int(retry_after))
            return Undecided(why=Doubt(str(why)), evidence=proof, retry_after=later, note=str(note or ""))
