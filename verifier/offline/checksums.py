"""Checksums that vendors build into their tokens: whether a token can be genuine is settled without a call.

Sources: GitHub and npm, the last six characters are the CRC-32 of the thirty (GitHub refresh: seventy) before them in
base 62; Vercel likewise, of fifty; GitLab's routable tokens, Grafana's service-account tokens: their servers' own
generators. A fine-grained GitHub token has a checksum that nobody documents alike, so it is never judged here.
"""

from __future__ import annotations

import re
import string
from base64 import b64encode
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
BASE36 = string.digits + string.ascii_lowercase

_ROUTABLE = re.compile(r"(glpat-[\w-]{27,300}\.01\.[0-9a-z]{2})([0-9a-z]{7})", re.ASCII)
_CLASSIC = re.compile(r"gh[pousr]_([A-Za-z0-9]{30}|[A-Za-z0-9]{70})([A-Za-z0-9]{6})", re.ASCII)
_NPM = re.compile(r"npm_([A-Za-z0-9]{30})([A-Za-z0-9]{6})", re.ASCII)
_VERCEL = re.compile(r"vc[piark]_([A-Za-z0-9]{50})([A-Za-z0-9]{6})", re.ASCII)
_GRAFANA = re.compile(r"(glsa_[A-Za-z0-9]{32})_([0-9a-f]{8})", re.ASCII)
_CONFLUENT = re.compile(r"(cflt[A-Za-z0-9+/]{54})([A-Za-z0-9+/]{6})", re.ASCII)


def in_base(number: int, digits: str, width: int) -> str:
    """Write `number` in the base of `digits`, padded to `width`."""
    out = ""
    while number:
        number, rest = divmod(number, len(digits))
        out = digits[rest] + out
    return out.rjust(width, digits[0])


def little_hex(text: str) -> str:
    """Return the CRC-32 of `text`, least byte first, in hex (Grafana)."""
    return crc32(text.encode()).to_bytes(4, "little").hex()


def little_base64(text: str) -> str:
    """Return the CRC-32 of `text`, least byte first, in base64 without padding (Confluent)."""
    return b64encode(crc32(text.encode()).to_bytes(4, "little")).decode()[:6]


def _base62(form: re.Pattern[str]) -> Callable[[str], bool | None]:
    def check(token: str) -> bool | None:
        m = form.fullmatch(token)
        return None if m is None else in_base(crc32(m[1].encode()), BASE62, 6) == m[2]

    return check


def _gitlab(token: str) -> bool | None:
    m = _ROUTABLE.fullmatch(token)
    return None if m is None else in_base(crc32(m[1].encode()), BASE36, 7) == m[2]


def _grafana(token: str) -> bool | None:
    m = _GRAFANA.fullmatch(token)
    return None if m is None else little_hex(m[1]) == m[2]


def _confluent(token: str) -> bool | None:
    m = _CONFLUENT.fullmatch(token)
    # sources differ on whether the checksum covers the prefix: either will do
    return None if m is None else m[2] in {little_base64(m[1]), little_base64(m[1][4:])}


CHECKS: dict[str, Callable[[str], bool | None]] = {
    "github": _base62(_CLASSIC),
    "npm": _base62(_NPM),
    "vercel": _base62(_VERCEL),
    "gitlab": _gitlab,
    "grafana": _grafana,
    "confluent": _confluent,
}
"""Name (as in a spec's `checksum`) to check: True fits, False does not, None is a token without this checksum."""

BY_KIND = {
    "github_pat": "github", "github_oauth": "github", "github_app_user": "github", "github_installation": "github",
    "github_refresh": "github", "npm": "npm", "vercel": "vercel", "gitlab_pat": "gitlab", "grafana_sa": "grafana",
    "confluent": "confluent",
}  # fmt: skip
"""The checksum of each kind that has one."""


def fits(name: str, token: str) -> bool | None:
    """Return whether `token` carries the right checksum of that name; `None` when it has none of it."""
    check = CHECKS.get(name)
    return None if check is None else check(token)
