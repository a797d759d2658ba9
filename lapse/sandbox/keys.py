"""Makes token-shaped strings, checksums and all, that nobody ever issued: made as they are needed, never written down.

No file of this project holds one, so that a secret scanner stays silent on it. The same `seed` gives the same string.
"""

from __future__ import annotations

import string
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from verifier.offline.checksums import BASE62, in_base

if TYPE_CHECKING:
    from collections.abc import Callable

_ALNUM = string.ascii_letters + string.digits
_LETTERS = string.ascii_letters
_HEX = "0123456789abcdef"
_URL = _ALNUM + "_-"
_BASE32 = string.ascii_uppercase + "234567"


def draw(alphabet: str, n: int, seed: str) -> str:
    """Return `n` characters of `alphabet`."""
    rng = Random(f"{seed}/{n}")  # noqa: S311  # a made-up key must be the same every time, not secret
    return "".join(rng.choice(alphabet) for _ in range(n))


def aws_id(account: str, seed: str) -> str:
    """Return an AWS access key id that belongs to the twelve-digit `account`, as its characters tell."""
    number = (1 << 47 | int(account) << 7) << 2
    ten = "".join(_BASE32[number >> shift & 31] for shift in range(45, -1, -5))
    return "AKIA" + ten + draw(_BASE32, 6, seed)


def aws_secret(seed: str) -> str:
    """Return something like an AWS secret access key."""
    return draw(_ALNUM + "+/", 40, seed)


def make(kind: str, seed: str) -> str:
    """Return a made-up key of `kind`. `KeyError` when this file does not know its form."""
    return _FORMS[kind](f"{kind}/{seed}")


def _form(prefix: str, n: int, alphabet: str = _ALNUM) -> Callable[[str], str]:
    return lambda seed: prefix + draw(alphabet, n, seed)


def _summed(prefix: str) -> Callable[[str], str]:
    """Thirty characters and their checksum, as GitHub and npm do."""

    def made(seed: str) -> str:
        body = draw(_ALNUM, 30, seed)
        return prefix + body + in_base(crc32(body.encode()), BASE62, 6)

    return made


def _openai(seed: str) -> str:
    return "sk-" + "proj-" + draw(_ALNUM, 74, seed) + "T3Blbk" + "FJ" + draw(_ALNUM, 74, f"{seed}b")


def _slack(seed: str) -> str:
    return "xo" + "xb-" + draw("123456789", 12, seed) + "-" + draw("123456789", 13, seed) + "-" + draw(_ALNUM, 24, seed)


def _newrelic(seed: str) -> str:
    return "NRAK-" + draw(string.ascii_uppercase + string.digits, 27, seed)


_FORMS: dict[str, Callable[[str], str]] = {
    "airtable": lambda s: "pat" + draw(_ALNUM, 14, s) + "." + draw(_HEX, 64, s),
    "anthropic": lambda s: "sk-" + "ant-api03-" + draw(_URL, 93, s) + "AA",
    "datadog_api": _form("", 32, _HEX),
    "digitalocean": _form("dop_" + "v1_", 64, _HEX),
    "elevenlabs": _form("sk_", 48, _HEX),
    "github_pat": _summed("gh" + "p_"),
    "gitlab_pat": _form("gl" + "pat-", 20),
    "groq": _form("gs" + "k_", 52),
    "huggingface": _form("h" + "f_", 34, _LETTERS),
    "linear": _form("lin_" + "api_", 40),
    "mistral": _form("", 32),
    "newrelic": _newrelic,
    "npm": _summed("np" + "m_"),
    "openai": _openai,
    "openrouter": _form("sk-" + "or-v1-", 64, _HEX),
    "replicate": _form("r8" + "_", 37),
    "sendgrid": lambda s: "S" + "G." + draw(_URL, 22, s) + "." + draw(_URL, 43, s),
    "slack_bot": _slack,
    "stripe": _form("sk_" + "live_", 99),
    "vercel": lambda s: "vc" + "p_" + (b := draw(_ALNUM, 50, s)) + in_base(crc32(b.encode()), BASE62, 6),
    "xai": _form("xa" + "i-", 80),
}
KINDS = tuple(_FORMS)
"""Kinds of key that can be made."""
