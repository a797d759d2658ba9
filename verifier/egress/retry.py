"""Trying again: what is worth it, how long to wait, and when to stop."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from verifier.exchange import Reply, Trouble
from verifier.model import Doubt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from verifier.egress.limiter import Clock, Sleep

_AGAIN = frozenset({408, 429})
_SERVER_ERROR = 500
_LONGEST = 86_400.0


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Read `Retry-After`, a number or an HTTP date, as seconds from `now` (0 to a day); None when it says nothing."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), _LONGEST)
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        left = (when - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, OverflowError):  # anybody may answer anything here
        return None
    return min(max(0.0, left), _LONGEST)


def passing(reply: Reply) -> bool:
    """Tell whether a reply's status is of the passing kind: 408, 429 or 5xx."""
    return reply.status in _AGAIN or reply.status >= _SERVER_ERROR


async def again(
    first: Reply | Trouble,
    attempt: Callable[[float], Awaitable[Reply | Trouble]],
    *,
    worth: Callable[[Reply | Trouble], bool],
    retries: int,
    left: float,
    clock: Clock,
    sleep: Sleep,
) -> Reply | Trouble:
    """Retry after a `first` result that was worth it: full jitter, or as long as the provider asked.

    Stops after `retries` further calls (an open circuit is none), or when the next would begin more than `left`
    seconds from now; `attempt` is given what is left. Returns the last result, whatever it is.
    """
    end = clock() + left
    jitter = wait_random_exponential(multiplier=0.5, max=10)
    results = iter((first,))
    made = 0

    async def one() -> Reply | Trouble:
        """Return the first result, then further ones."""
        nonlocal made
        result = next(results, None) or await attempt(end - clock())
        # A trouble that says when to come back is an open circuit: nothing was sent.
        made += not (isinstance(result, Trouble) and result.retry_after is not None)
        return result

    def wait(state: RetryCallState) -> float:
        """Wait as long as the provider asked, else by full jitter."""
        asked = _asked(_result(state))
        return jitter(state) if asked is None else asked

    def stop(state: RetryCallState) -> bool:
        """Stop when the tries or the time are used up."""
        return made > retries or clock() + state.upcoming_sleep >= end

    retrying = AsyncRetrying(
        sleep=sleep, wait=wait, stop=stop, retry=retry_if_result(worth), retry_error_callback=_result
    )
    result: Reply | Trouble = await retrying(one)
    return result


def _result(state: RetryCallState) -> Reply | Trouble:
    outcome = state.outcome
    if outcome is None:  # pragma: no cover  # tenacity asks only after an attempt
        return Trouble(Doubt.UNREACHABLE, "nothing was tried")
    result: Reply | Trouble = outcome.result()
    return result


def _asked(result: Reply | Trouble) -> float | None:
    if isinstance(result, Reply):
        return retry_after(result.headers)
    return result.retry_after.total_seconds() if result.retry_after is not None else None
