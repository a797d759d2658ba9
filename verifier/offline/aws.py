"""AWS access keys: the key id names its account, and some accounts are tripwires."""

from __future__ import annotations

import re
from functools import cache

from verifier.shapes import rows

_KEY_ID = re.compile(r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}")
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TOP = 1 << 4
_BITS = 5
_DIGITS = 12


def account_id(key_id: str) -> str | None:
    """Return the 12-digit account of an access key id, `None` where it cannot be told.

    The sixteen characters after the prefix are base 32; of the first 48 bits, the 40 after the top one are the
    account. Key ids of before 2019 lack the top bit and hold no account.
    """
    if not _KEY_ID.fullmatch(key_id) or _BASE32.index(key_id[4]) < _TOP:
        return None
    number = 0
    for char in key_id[4:14]:
        number = number << _BITS | _BASE32.index(char)
    # 10 characters are 50 bits; drop the two below the 48, then mask as above
    account = (number >> 2 & 0x7FFFFFFFFF80) >> 7
    text = f"{account:0{_DIGITS}d}"
    return text if len(text) == _DIGITS else None


@cache
def canaries() -> frozenset[str]:
    """Return the account ids of canary services that we know, from `data/canaries.tsv`."""
    return frozenset(fields[0] for fields in rows("canaries.tsv"))


def is_canary(account: str, more: frozenset[str] = frozenset()) -> bool:
    """Say whether keys of `account` are tripwires; `more` are ids that the config adds."""
    return account in canaries() or account in more
