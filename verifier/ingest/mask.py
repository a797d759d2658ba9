"""Masks: what a redacting scanner leaves of a secret, and whether a string can be what was masked.

Pure string rules, no files. `*` and `•` stand for hidden characters, `…` and `...` for a hidden stretch of any length.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

MIN_VISIBLE: Final = 4
"""A mask of unknown length that shows fewer characters than this could be almost anything: it proves nothing."""

_RUN: Final = re.compile(r"[*•]+|…+|\.{3,}")
_WORDS: Final = re.compile(
    r"""\s*(?: [\[<({]? \s* (?:redacted|masked|hidden|removed|secret\ hidden) \b [^\]>)}]{0,64} [\]>)}]?
            | requires\ login | [xX]{8,} )\s*""",
    re.IGNORECASE | re.VERBOSE,
)


class Style(StrEnum):
    """How a scanner masks."""

    EXACT = "exact"
    """One mask character for one hidden character, the secret and nothing else (ggshield)."""
    LOOSE = "loose"
    """A run hides at least one character, the secret and nothing else (gitleaks, KeyHog, most others)."""
    CONTEXT = "context"
    """A piece of the source line in which the secret was blotted out: runs of six or more keep its length, and one
    of exactly five (the constant of older Trivy) may stand for any (Trivy)."""


def is_word(text: str) -> bool:
    """Whether `text` is a word put in the secret's place (`REDACTED`, `[REDACTED:…]`, `requires login`) or empty."""
    return not text.strip() or _WORDS.fullmatch(text) is not None


def is_masked(text: str) -> bool:
    """Whether `text` looks masked: a placeholder word, or a run of three or more mask characters or an ellipsis."""
    return is_word(text) or any(m[0][0] in ".…" or len(m[0]) >= 3 for m in _RUN.finditer(text))


def visible(text: str) -> str:
    """Return the characters that a mask shows."""
    return "" if is_word(text) else _RUN.sub("", text)


def says_something(text: str, style: Style) -> bool:
    """Whether the mask narrows the choice at all; a mask that does not is as good as no value."""
    if is_word(text):
        return False
    if style is Style.LOOSE:
        return len(visible(text)) >= MIN_VISIBLE
    return _RUN.search(text) is not None


@lru_cache(maxsize=1024)
def _token(text: str, style: Style) -> re.Pattern[str]:
    """Compile a mask to the pattern of the strings it may stand for."""
    out, at = [], 0
    for run in _RUN.finditer(text):
        out.append(re.escape(text[at : run.start()]))
        exact = style is Style.EXACT and run[0][0] in "*•"
        out.append(rf"[^\n]{{{len(run[0])}}}" if exact else r"\S+")
        at = run.end()
    out.append(re.escape(text[at:]))
    return re.compile("".join(out))


def could_be(text: str, style: Style, candidate: str) -> bool:
    """Whether `candidate` as a whole can be what the mask `text` hides (`EXACT` or `LOOSE`)."""
    return says_something(text, style) and _token(text, style).fullmatch(candidate) is not None


def occurrences(text: str, window: str) -> list[tuple[int, str]]:
    """Return every place, overlapping ones too, where an `EXACT` mask fits in `window`: offset and text there."""
    if not says_something(text, Style.EXACT):
        return []
    pattern, found, at = _token(text, Style.EXACT), [], 0
    while hit := pattern.search(window, at):
        found.append((hit.start(), hit[0]))
        at = hit.start() + 1
    return found


_OLD_CONSTANT: Final = 5


@lru_cache(maxsize=1024)
def _context(text: str) -> re.Pattern[str]:
    """Compile a `CONTEXT` mask: each run of `*` is a group."""
    out, at = [], 0
    for run in re.finditer(r"\*+", text):
        out.append(re.escape(text[at : run.start()]))
        width = len(run[0])
        out.append(r"([^\n]+?)" if width == _OLD_CONSTANT else rf"([^\n]{{{width}}})")
        at = run.end()
    out.append(re.escape(text[at:]))
    return re.compile("".join(out))


def blotted(text: str, line: str) -> list[tuple[int, str]]:
    """Return what a `CONTEXT` mask blotted out of `line`: offset and text of each run, for every way it fits.

    The mask must be the whole line (white space at the ends aside), or, cut out of a long line, show some context.
    """
    pattern = _context(text)
    loose = [run.span() for run in re.finditer(r"\*+", text) if len(run[0]) == _OLD_CONSTANT]
    if not pattern.groups or len(loose) > 1:
        return []
    stripped = line.strip()
    if hit := pattern.fullmatch(stripped):
        shift = len(line) - len(line.lstrip())
        return [(hit.start(n) + shift, hit[n]) for n in range(1, pattern.groups + 1)]
    if not visible(text).strip() or any(start == 0 or end == len(text) for start, end in loose):
        return []
    found, at = [], 0
    while hit := pattern.search(line, at):
        if not (_goes_on(text[0], line[hit.start() - 1 : hit.start()]) or _goes_on(text[-1], line[hit.end() :][:1])):
            found += [(hit.start(n), hit[n]) for n in range(1, pattern.groups + 1)]
        at = hit.start() + 1
    return found


def _goes_on(edge: str, beyond: str) -> bool:
    """Whether a mask that begins or ends in a star was cut in the middle of the secret."""
    return edge == "*" and (beyond.isalnum() or beyond in ("_", "-"))
