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

_RUN = re.compile(r"([*xX•.#])\1{7,}")
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
    if _TEMPLATE.fullmatch(value.strip()):
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
    return bool(_RUN.search(value) or _WORDS.search(value)) or value.endswith(("EXAMPLE", "EXAMPLEKEY"))
