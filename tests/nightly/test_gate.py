"""When a night ends: by the clock, by a signal, by a budget."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from lapse.nightly.gate import Gate
from verifier.model import Credential, CredentialID, KindID
from verifier.ports import Due


def due(n: int) -> list[Due]:
    return [Due(Credential(CredentialID(f"x-{i:032x}"), KindID("x"), {})) for i in range(n)]


def test_the_clock_ends_the_feed_and_what_is_left_is_noted() -> None:
    now = [0.0]
    gate = Gate(until=10.0, clock=lambda: now[0])
    feed = gate.feed("x", "x", due(3))
    assert next(feed)
    now[0] = 10.0
    assert list(feed) == []
    assert gate.cut_off
    assert gate.passed == 1


def test_a_feed_that_is_empty_at_the_end_is_not_cut_off() -> None:
    now = [0.0]
    gate = Gate(until=10.0, clock=lambda: now[0])
    feed = gate.feed("x", "x", due(1))
    assert next(feed)
    now[0] = 11.0
    assert list(feed) == []
    assert not gate.cut_off


@pytest.mark.parametrize(
    ("budget", "budgets", "asked"),
    [
        (0, {}, (5, 5)),
        (6, {}, (5, 1)),
        (0, {"vendor": 3}, (3, 0)),
        (0, {"a": 2}, (2, 5)),
        (4, {"vendor": 0}, (5, 5)),
        (4, {"b": 1, "vendor": 9}, (5, 1)),
    ],
)
def test_a_budget_is_the_vendors_and_one_of_a_kind_its_own(
    budget: int, budgets: dict[str, int], asked: tuple[int, int]
) -> None:
    gate = Gate(budget=budget, budgets=budgets)
    assert tuple(len(list(gate.feed(kind, "vendor", due(5)))) for kind in "ab") == asked
    assert gate.cut_off is (sum(asked) < 10)


async def hang(gate: Gate) -> None:
    async with asyncio.timeout(None) as limit:
        gate.arm(limit)
        assert not gate.closed
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()


async def test_a_signal_ends_the_feed_and_cuts_what_hangs() -> None:
    gate = Gate(grace=0.05)
    with pytest.raises(TimeoutError):
        await hang(gate)
    assert gate.closed
    assert list(gate.feed("x", "x", due(2))) == []
    assert gate.cut_off
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
