"""Keys that everybody may print: published examples, known by hash, and placeholders, known by form."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256

from verifier.shapes import rows

_LEAST = 8

_TEMPLATE = re.compile(
    r"\$\{.*\}|\$\(.*\)|\{\{.*\}\}|<[^<>]{1,80}>|%[A-Z_]{3,40}%|\$[A-Z][A-Z0-9_]{2,60}|"
    r"%\([a-z_]+\)s|\[[A-Z_ -]{3,60}\]",
    re.DOTALL,
)
"""Text that a template engine, a shell or a reader was meant to replace."""
_OPENERS = frozenset("${<%[")

_RUNS = tuple(c * 8 for c in "*xX•.#")
_STEMS = ("change", "place", "redacted", "your", "here", "example")
"""Each of `_WORDS` holds one: a quick look before the slow one."""
_WORDS = re.compile(
    r"(?:^|[^a-z])(?:change[_-]?me|replace[_-](?:me|with|this)|place[_-]?holder|redacted|"
    r"your[_-](?:api|secret|access|token|key|password|own)|(?:api|secret|access)[_-]?key[_-]here|example[_-]key)|"
    r"[_-]here$",
    re.IGNORECASE,
)


@cache
def _hashes() -> dict[str, str]:
    return {row[0]: row[1] for row in rows("examples.tsv")}


def published(value: str) -> str | None:
    """Return where `value` was published as an example by its vendor, `None` if we know of no such place.

    The table holds SHA-256 hashes, so that no key, not even a worthless one, stands in this repository.
    """
    return _hashes().get(sha256(value.encode("utf-8", "surrogatepass")).hexdigest())


def placeholder(value: str, part: str = "secret") -> bool:
    """Say whether `value` plainly stands for a value that is elsewhere.

    Passwords and hosts are only judged by form: `changeme` has opened many a database.
    """
    text = value.strip()
    if text[:1] in _OPENERS and _TEMPLATE.fullmatch(text):
        return True
    if part == "host":
        return False
    if len(value) >= _LEAST and len(set(value)) == 1:
        return True
    if part == "password":
        return False
    if part == "id":
        return value.endswith("EXAMPLE")
    if len(value) > 512:  # a file or a PEM block holds anything
        return False
    if any(run in value for run in _RUNS) or value.endswith(("EXAMPLE", "EXAMPLEKEY")):
        return True
    lower = value.lower()
    return any(stem in lower for stem in _STEMS) and _WORDS.search(value) is not None
