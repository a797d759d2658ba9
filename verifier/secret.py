"""A value that refuses to be printed, compared, copied or pickled."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Wraps a secret string; `reveal` is the only way to the value.

    `repr`, `str` and `format` give a fixed mask, so a stray f-string or log line leaks nothing.
    `==`, `hash`, pickling and copying raise `TypeError`: comparing secrets is done on fingerprints.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a dict of secrets would need == as well

    def __init__(self, value: str) -> None:
        """Wrap `value`."""
        self._value = value

    def reveal(self) -> str:
        """Return the wrapped value. The test suite lists every call site."""
        return self._value

    def __len__(self) -> int:
        """Length in characters: not a secret worth hiding, and shape checks need it."""
        return len(self._value)

    def __repr__(self) -> str:
        """Return a fixed mask."""
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """Return the fixed mask whatever the format."""
        return repr(self)

    def __eq__(self, other: object) -> NoReturn:
        """Refuse: `==` on secrets invites timing leaks and accidental sets."""
        msg = "secrets do not compare; compare fingerprints"
        raise TypeError(msg)

    __ne__ = __eq__

    def __reduce__(self) -> NoReturn:
        """Refuse to pickle."""
        msg = "secrets do not pickle"
        raise TypeError(msg)

    def __copy__(self) -> NoReturn:
        """Refuse to copy."""
        msg = "secrets do not copy"
        raise TypeError(msg)

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Refuse to copy."""
        msg = "secrets do not copy"
        raise TypeError(msg)
