"""The turnstile and the circuit, under a clock of their own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virtual import now, run

from verifier.egress.breaker import Breaker
from verifier.egress.limiter import Limiter, Limits
from verifier.egress.retry import retry_after

EPSILON = 1e-6


def limiter(rate: float = 10.0, burst: int = 1, concurrency: int = 100, patience: float = 20.0) -> Limiter:
    return Limiter(Limits(rate, burst, concurrency), patience=patience, clock=now)


async def passes(door: Limiter, count: int, took: float = 0.0) -> list[float]:
    """Let `count` requests through at once; when each began."""
    began: list[float] = []

    async def one() -> None:
        assert await door.enter() == 0.0
        began.append(now())
        await asyncio.sleep(took)
        door.leave()

    await asyncio.gather(*(one() for _ in range(count)))
    return began


@settings(deadline=None)
@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 10),
    concurrency=st.integers(1, 12),
    arrivals=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2)), min_size=1, max_size=60),
)
def test_never_faster_never_more_and_never_slower_than_told(
    rate: float, burst: int, concurrency: int, arrivals: list[tuple[float, float]]
) -> None:
    async def main() -> None:
        door = limiter(rate, burst, concurrency)
        began: list[float] = []
        inside = most = 0

        async def one(at: float, took: float) -> None:
            nonlocal inside, most
            await asyncio.sleep(at)
            assert await door.enter() == 0.0
            began.append(now())
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(took)
            inside -= 1
            door.leave()

        await asyncio.gather(*(one(*a) for a in arrivals))
        assert most <= concurrency
        began.sort()
        for i, start in enumerate(began):
            assert sum(1 for t in began[i:] if t < start + 1 - EPSILON) <= rate + burst + EPSILON
        if concurrency >= len(arrivals):
            assert began[-1] <= max(at for at, _ in arrivals) + len(arrivals) / rate + EPSILON

    run(main())


def test_burst_then_steady() -> None:
    async def main() -> None:
        assert await passes(limiter(10, 3), 6) == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])

    run(main())


def test_429_halves_the_rate_waits_and_recovers() -> None:
    async def main() -> None:
        door = limiter(10, 3)
        await passes(door, 1)
        door.throttled(now(), 5.0)
        assert door.rate == 5.0
        began = await passes(door, 3)
        assert began[0] == pytest.approx(5.0)
        assert began[1] - began[0] == pytest.approx(0.2)
        await asyncio.sleep(3)
        await passes(door, 1)
        assert 7.5 < door.rate < 10
        await asyncio.sleep(10)
        await passes(door, 1)
        assert door.rate == 10
        await asyncio.sleep(5)
        start = now()
        assert await passes(door, 3) == pytest.approx([start] * 3)

    run(main())


def test_429_without_word_waits_longer_each_time() -> None:
    async def main() -> None:
        door = limiter(10, 1)
        gaps = []
        for _ in range(4):
            before = now()
            await passes(door, 1)
            gaps.append(now() - before)
            await asyncio.sleep(0.001)
            door.throttled(now(), None)
        assert gaps == pytest.approx([0, 1, 2, 4], abs=0.2)
        await asyncio.sleep(10)
        door.welcome(now())
        door.throttled(now() + 1, None)
        assert await passes(door, 1) == pytest.approx([now()])

    run(main())


def test_replies_to_older_requests_count_once() -> None:
    async def main() -> None:
        door = limiter(16)
        started = now()
        await asyncio.sleep(0.5)
        for _ in range(8):
            door.throttled(started, 1.0)
        assert door.rate == 8
        door.welcome(started)
        assert door._strikes == 1

    run(main())


def test_rate_has_a_floor() -> None:
    async def main() -> None:
        door = limiter(64)
        for _ in range(40):
            await asyncio.sleep(0.001)
            door.throttled(now(), 0.0)
        assert door.rate == 1

    run(main())


def test_whoever_would_wait_too_long_is_told() -> None:
    """An hour's Retry-After may be about one key: the first pause is short, the second tells everybody."""

    async def main() -> None:
        door = limiter(10, patience=20)
        door.throttled(now(), 3600)
        assert await passes(door, 1) == pytest.approx([20])
        door.throttled(now(), 3600)
        assert await door.enter() == pytest.approx(40)
        assert await door.turn() == pytest.approx(40)
        await asyncio.sleep(25)
        start = now()
        assert await passes(door, 1) == pytest.approx([start + 15])
        door.throttled(now(), 3600)
        assert await door.enter() == pytest.approx(80)

    run(main())


def test_a_cancelled_wait_gives_its_place_back() -> None:
    async def main() -> None:
        door = limiter(1, 1, 1)
        await passes(door, 1)
        waiting = asyncio.ensure_future(door.enter())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await passes(door, 1) == pytest.approx([1.0])

    run(main())


class Hand:
    """A clock moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_circuit_opens_on_the_fifth_failure_in_a_row() -> None:
    hand = Hand()
    circuit = Breaker(hand)
    for _ in range(5):
        assert circuit.blocked() == 0
        circuit.failed()
    assert circuit.blocked() == 5
    hand.now = 4
    assert circuit.blocked() == 1


def test_one_trial_at_a_time_and_the_cool_down_doubles_to_five_minutes() -> None:
    hand = Hand()
    circuit = Breaker(hand)
    for _ in range(5):
        circuit.failed()
    waits = []
    for _ in range(8):
        hand.now += circuit.blocked()
        assert circuit.blocked() == 0
        assert circuit.blocked() > 0, "a second trial"
        circuit.failed()
        circuit.failed()
        waits.append(circuit.blocked())
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_trial_that_told_nothing_is_tried_again() -> None:
    hand = Hand()
    circuit = Breaker(hand)
    for _ in range(5):
        circuit.failed()
    hand.now = 5
    assert circuit.blocked() == 0
    circuit.abandon()
    assert circuit.blocked() == 0


@given(
    st.lists(
        st.sampled_from(
            ["Mon,", "Mon", "01", "99999", "Jan", "Dec", "00:00:00", "25:61:61", "GMT", "+9999", "-0000", "1e9", "inf",
             "nan", "-1", "9" * 400, ",", "\xff", "31", "2026", "1", "."]
        ),
        max_size=6,
    ).map(" ".join)
    | st.text()
)  # fmt: skip
@example(" ".join(["Dec", "-0000", "00:00:00", "9" * 400, "2026"]))
def test_no_retry_after_raises_or_waits_longer_than_a_day(text: str) -> None:
    wait = retry_after({"retry-after": text})
    assert wait is None or 0 <= wait <= 86_400
