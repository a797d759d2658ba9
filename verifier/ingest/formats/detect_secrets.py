"""detect-secrets baselines (Yelp, 0.x and 1.x; the IBM fork): only the SHA-1 of each secret is in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from verifier.ingest.clues import has_keys, opens_with
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.stream import bad, json_entries
from verifier.model import Claim, Claimed, Hashed, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source


class _Secret(Struct):
    type: str
    hashed_secret: str
    line_number: int | None = None
    is_verified: bool | None = None


_decode = msgspec.json.Decoder(_Secret).decode


def _sniff(head: bytes) -> Likelihood:
    if opens_with(head, b"{") and (has_keys(head, "plugins_used") or has_keys(head, "results", "hashed_secret")):
        return Likelihood.CERTAIN
    return Likelihood.NO


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    """Row numbers count the secrets over all files. An audit label (`is_secret`) is a person's word, not a verdict."""
    number = 0
    for row in json_entries(source, list[Raw], "results", "*"):
        if isinstance(row, Skipped):
            yield row
            continue
        path, secrets = row.item
        for raw in secrets:
            number += 1
            try:
                secret = _decode(raw)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                yield bad(number, bytes(raw), error)
                continue
            yield Claim(
                scanner="detect-secrets",
                rule=secret.type,
                value=Hashed("sha1", secret.hashed_secret.lower()),
                place=Place(SourceKind.FILESYSTEM, path=path, line=secret.line_number),
                row=number,
                claimed=Claimed.LIVE if secret.is_verified else Claimed.UNCHECKED,
            )


FORMATS = (
    Format(
        name="detect-secrets",
        scanner="detect-secrets",
        summary="detect-secrets baseline: SHA-1 of each secret, readable with --source",
        sniff=_sniff,
        parse=_parse,
    ),
)
