"""How a command ends that did not end well: one sentence on stderr, an exit code, never a traceback.

A traceback quotes messages of libraries, and those quote what they were given: of an unforeseen error only its type and
the places in the code are told.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

from lapse.exits import Exit, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACES = 6


def end(error: BaseException) -> int:
    """Say what happened and return the exit code."""
    leaves = list(_leaves(error))
    leaf = next((e for e in leaves if not isinstance(e, BrokenPipeError)), leaves[0])
    if isinstance(leaf, BrokenPipeError):
        _drop_stdout()
        # The reader had enough; where the command was through already, its own code stands.
        done = leaf.__context__
        return done.code if isinstance(done, SystemExit) and isinstance(done.code, int) else int(Exit.OK)
    said, code = _sentence(leaf)
    if isinstance(leaf, OSError) or sys.stdout is None:
        _drop_stdout()
    with contextlib.suppress(OSError, AttributeError, ValueError):
        sys.stderr.write(f"lapse: {said}\n")
    return int(code)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _sentence(error: BaseException) -> tuple[str, Exit]:
    from lapse.ledger.errors import LedgerError  # noqa: PLC0415  # only when something went wrong
    from verifier.egress.address import RefusedError  # noqa: PLC0415  # same

    match error:
        case Stop():
            return str(error), error.code
        case LedgerError():
            return str(error), Exit.BROKE
        case RefusedError():
            return str(error), Exit.USAGE
        case KeyboardInterrupt():
            return "interrupted; what was done is kept", Exit.INTERRUPTED
        case MemoryError():
            return "there is not enough memory; give the machine more, or name fewer reports at once", Exit.BROKE
        case OSError() if error.strerror:
            name = f" {error.filename}" if isinstance(error.filename, str) else ""
            return f"cannot read or write{name or ' the output'}: {error.strerror}", Exit.BROKE
        case AttributeError() if sys.stdout is None:
            return "there is no output to write to: stdout is closed", Exit.BROKE
        case _:
            frames = traceback.extract_tb(error.__traceback__)[-_PLACES:]
            places = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(frames))  # noqa: PTH119  # the shortest way where everything may be broken
            return f"a mistake in Lapse itself: {type(error).__name__} at {places}; please report this line", Exit.BROKE


def _drop_stdout() -> None:
    """Point stdout at nothing, so that the interpreter does not complain about what is left in its buffer."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
