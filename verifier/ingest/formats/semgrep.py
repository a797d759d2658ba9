"""Semgrep JSON (`--json`): what its secrets rules found, with the validator's word where there was one.

The matched text is cut out of `extra.lines` by the columns; without a login that field is the words `requires login`.
Findings of rules that have nothing to do with secrets are none of ours and passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from verifier.ingest.clues import has_keys, isolate, opens_with, unword, when
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.mask import is_word
from verifier.ingest.stream import claims, json_items
from verifier.model import Absent, Claim, Claimed, Hidden, Place, Skipped, SourceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Source
    from verifier.secret import Secret

_CLAIMED = {
    "CONFIRMED_VALID": Claimed.LIVE,
    "CONFIRMED_INVALID": Claimed.DEAD,
    "VALIDATION_ERROR": Claimed.UNKNOWN,
}
_WEAKNESSES = ("CWE-798", "CWE-321", "CWE-259", "CWE-522")
_SECRET_VARIABLES = ("$SECRET", "$TOKEN", "$KEY", "$PASSWORD", "$VALUE")


class _Point(Struct):
    line: int | None = None
    col: int | None = None


class _Variable(Struct):
    abstract_content: str = ""


class _Metadata(Struct):
    category: str | None = None
    cwe: list[str] | str | None = None
    technology: list[str] | str | None = None
    vulnerability_class: list[str] | str | None = None


class _History(Struct):
    git_commit: str | None = None
    git_commit_timestamp: str | None = None


class _Extra(Struct):
    lines: str | None = None
    metavars: dict[str, _Variable] = {}
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    validation_state: str | None = None
    historical_info: _History | None = None


class _Result(Struct):
    check_id: str
    path: str
    start: _Point
    end: _Point
    extra: _Extra


def _sniff(head: bytes) -> Likelihood:
    if not opens_with(head, b"{"):
        return Likelihood.NO
    if has_keys(head, "results", "check_id") and has_keys(head, "extra"):
        return Likelihood.CERTAIN
    return Likelihood.LIKELY if has_keys(head, "results", "errors", "paths", "version") else Likelihood.NO


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _is_about_secrets(result: _Result) -> bool:
    metadata, state = result.extra.metadata, result.extra.validation_state
    return (
        "secret" in result.check_id.lower()
        or state in _CLAIMED
        or metadata.category == "secrets"
        or any(word.startswith(_WEAKNESSES) for word in _words(metadata.cwe))
        or any("secret" in word.lower() for word in _words(metadata.technology))
        or any("secret" in word.lower() for word in _words(metadata.vulnerability_class))
    )


def _value(result: _Result) -> Secret | Hidden:
    """Return the secret: a metavariable named for it, else the matched text if there is no doubt about it."""
    extra, start, end = result.extra, result.start, result.end
    for name in _SECRET_VARIABLES:
        variable = extra.metavars.get(name)
        if variable is not None and not isinstance(value := isolate(variable.abstract_content), Absent):
            return unword(value)
    text = extra.lines or ""
    if is_word(text):
        return Absent()
    if start.line == end.line and start.col and end.col and "\n" not in text:
        inner = isolate(text[start.col - 1 : end.col - 1])
        if not isinstance(inner, Absent):
            return unword(inner)
    return unword(isolate(text))


def _claim(row: int, result: _Result) -> Claim | None:
    if not _is_about_secrets(result):
        return None
    history = result.extra.historical_info or _History()
    return Claim(
        scanner="semgrep",
        rule=result.check_id,
        value=_value(result),
        place=Place(
            SourceKind.GIT if history.git_commit else SourceKind.FILESYSTEM,
            path=result.path,
            line=result.start.line or None,
            column=result.start.col or None,
            revision=history.git_commit,
        ),
        row=row,
        claimed=_CLAIMED.get(result.extra.validation_state or "", Claimed.UNCHECKED),
        seen_at=when(history.git_commit_timestamp),
    )


def _parse(source: Source) -> Iterator[Claim | Skipped]:
    return claims(json_items(source, _Result, "results", "*"), _claim)


FORMATS = (
    Format(
        name="semgrep-json",
        scanner="semgrep",
        summary="Semgrep --json, secrets rules only",
        sniff=_sniff,
        parse=_parse,
    ),
)
