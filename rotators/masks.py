"""Which key a provider's mask (`sk-ant-api03-R2D...igAA`) stands for: exactly one, or nobody knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from rotators.interface import ProviderError, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LEAST = 4
"""Characters that a mask must show beyond what every key of the provider begins with."""

T = TypeVar("T")
_HIDDEN = re.compile(r"[*•…]+|\.{2,}")


def fits(mask: str, key: str, common: tuple[str, ...]) -> bool:
    """Tell whether `mask` may stand for `key`; one that shows too little (`LEAST`, besides `common`) never does."""
    shown = _HIDDEN.split(mask)
    head, tail = shown[0], shown[-1] if len(shown) > 1 else ""
    if len(shown) == 1:
        return bool(mask) and mask == key
    usual = max((len(c) for c in common if head.startswith(c)), default=0)
    if len(head) - usual + len(tail) < LEAST:
        return False
    return len(head) + len(tail) <= len(key) and key.startswith(head) and key.endswith(tail)


def only(keys: Iterable[T], mask: Callable[[T], str], key: str, common: tuple[str, ...], whose: str) -> T:
    """Return the one of `keys` whose mask stands for `key`: none is `ProviderError(GONE)`, several `REFUSED`."""
    found = [k for k in keys if fits(mask(k), key, common)]
    if not found:
        raise ProviderError(Trouble.GONE, f"{whose} lists no key like this one: deleted already, or of somebody else")
    if len(found) > 1:
        raise ProviderError(Trouble.REFUSED, f"{whose} lists {len(found)} keys that look like this one: which is it?")
    return found[0]
