"""Exit codes, and the one error that a user ever sees."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a pipeline learns from us. 0 means nothing is live and nothing waits."""

    OK = 0
    BROKE = 1
    USAGE = 2
    NO_INPUT = 3
    NO_RIGHTS = 4
    OTHER_KEY = 5
    LIVE = 10
    UNDECIDED = 11
    WAITING = 12
    PART_WAY = 13
    INTERRUPTED = 130


class Stop(Exception):  # noqa: N818  # it stops the command; not every stop is an error
    """Ends the command with one clear sentence for people and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.BROKE) -> None:
        """Take the sentence and the code."""
        super().__init__(message)
        self.code = code
