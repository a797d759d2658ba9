"""A whole run: one call a key, second looks, outages, stripped headers, kills."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from weather import CATALOGUE, NOW, Weather, World, confirmed, due, key, lives, run

from verifier.catalogue import Catalogue
from verifier.confirm import Patience
from verifier.model import Arrival, Credential, CredentialID, Dead, Doubt, Evidence, KindID, Live, Undecided
from verifier.ports import Due, Fallen, Judged
from verifier.scope import Mode, Ownership, Scope
from verifier.secret import Secret
from verifier.verify import Terms, verify

if TYPE_CHECKING:
    from verifier.exchange import Reply, Request, Trouble

QUICK = Terms(patience=Patience(confirm_after=0.05))
EVIDENCE = Evidence("GET /", 200, "", "", "acme@0", NOW, "api.acme.test", arrival=Arrival.PROVEN)
YESTERDAY = NOW - timedelta(days=1)


def was_live(n: int) -> Due:
    return due(n, Live(EVIDENCE), last_live=YESTERDAY)


async def test_live_keys_are_asked_once_and_dead_ones_twice() -> None:
    world = World(live={key(1), key(2)})
    said, alarms = await run(world, [due(n) for n in range(5)], QUICK)
    assert set(lives(said)) == {due(1).credential.id, due(2).credential.id}
    assert len(confirmed(said)) == 3
    assert world.calls == {key(0): 2, key(1): 1, key(2): 1, key(3): 2, key(4): 2}
    assert alarms == []
    first, second = said[due(0).credential.id]
    assert isinstance(first, Dead)
    assert not first.confirmed
    assert isinstance(second, Dead)
    assert second.confirmed


async def test_without_waiting_nothing_new_is_confirmed() -> None:
    world = World()
    said, _ = await run(world, [due(n) for n in range(5)], replace(QUICK, wait=False))
    assert confirmed(said) == []
    assert all(n == 1 for n in world.calls.values())


async def test_a_dead_of_an_earlier_run_is_confirmed_by_one_call() -> None:
    world = World()
    earlier = due(1, Dead(EVIDENCE), dead_since=NOW - timedelta(hours=1))
    said, _ = await run(world, [earlier], replace(QUICK, wait=False))
    assert len(confirmed(said)) == 1
    assert world.calls[key(1)] == 1


async def test_an_outage_confirms_none_of_thirty_and_raises_the_alarm() -> None:
    world = World(live={key(n) for n in range(30)})
    world.weather = Weather.OUTAGE
    said, alarms = await run(world, [was_live(n) for n in range(30)], QUICK)
    assert len(said) == 30
    assert confirmed(said) == []
    assert [a.keys for a in alarms] == [30]
    assert "outage" in alarms[0].text


async def test_the_same_answer_hours_later_is_believed() -> None:
    world = World()
    long_dead = [due(n, Dead(EVIDENCE), last_live=YESTERDAY, dead_since=NOW - timedelta(hours=7)) for n in range(30)]
    said, alarms = await run(world, long_dead, QUICK)
    assert len(confirmed(said)) == 30
    assert alarms == []


async def test_an_outage_that_lasts_into_the_next_run_still_confirms_none() -> None:
    world = World()
    world.weather = Weather.OUTAGE
    again = [due(n, Dead(EVIDENCE), last_live=YESTERDAY, dead_since=NOW - timedelta(hours=2)) for n in range(30)]
    said, alarms = await run(world, again, QUICK)
    assert confirmed(said) == []
    assert len(alarms) == 1


async def test_an_outage_kills_no_key_that_is_asked_about_alone_later() -> None:
    """A run of one key, or the rest of a killed run, must not forget the brake of the run before."""
    world = World()
    world.weather = Weather.OUTAGE
    alone = due(0, Dead(EVIDENCE), last_live=YESTERDAY, dead_since=NOW - timedelta(hours=1))
    fallen = [Fallen("acme", due(n).credential.id) for n in range(30)]
    said, alarms = await run(world, [alone], QUICK, fallen=fallen)
    assert confirmed(said) == []
    assert len(alarms) == 1
    said, _ = await run(world, [was_live(40)], QUICK, fallen=fallen)
    assert confirmed(said) == []
    said, alarms = await run(world, [due(41)], QUICK, fallen=[Fallen("other", f.id) for f in fallen])
    assert len(confirmed(said)) == 1
    assert alarms == []


async def test_keys_that_came_back_no_longer_brake() -> None:
    world = World(live={key(n) for n in range(30)})
    fallen = [Fallen("acme", due(n).credential.id) for n in range(30)]
    gone = due(50, Dead(EVIDENCE), last_live=YESTERDAY, dead_since=NOW - timedelta(hours=1))
    said, _ = await run(world, [*(was_live(n) for n in range(30)), gone], QUICK, fallen=fallen)
    assert confirmed(said) == [gone.credential.id]


@pytest.mark.parametrize(
    "last",
    [
        replace(EVIDENCE, host="127.0.0.1", route="base"),
        replace(EVIDENCE, route="proxy", arrival=Arrival.ASSUMED, carrier="authorization"),
    ],
)
async def test_a_first_dead_from_elsewhere_is_none(last: Evidence) -> None:
    """An earlier Dead of a sandbox, or by a proxy that may strip headers, is not half of a confirmation."""
    world = World()
    earlier = due(1, Dead(last), dead_since=NOW - timedelta(hours=1))
    said, _ = await run(world, [earlier], replace(QUICK, wait=False))
    assert confirmed(said) == []
    said, _ = await run(world, [earlier], QUICK)
    assert [v.confirmed for v in said[earlier.credential.id] if isinstance(v, Dead)] == [False, True]


@pytest.mark.parametrize("jump", [timedelta(hours=5), timedelta(hours=-5)])
async def test_a_clock_that_jumps_confirms_nothing_early_and_waits_no_hours(jump: timedelta) -> None:
    world = World()
    looks: list[float] = []
    off = timedelta(0)
    terms = Terms(patience=Patience(confirm_after=0.2))
    verdicts = []
    batches = verify({"acme": [due(1)]}, CATALOGUE, world, terms, clock=lambda: NOW + off)
    async with asyncio.timeout(5):
        async for batch in batches:
            for event in batch:
                assert isinstance(event, Judged)
                verdicts.append(event.verdict)
                looks.append(time.monotonic())
                off = jump
    assert len(looks) == 2
    assert looks[1] - looks[0] >= 0.15
    assert isinstance(verdicts[1], Dead)
    assert verdicts[1].confirmed == (jump > timedelta(0))


async def test_a_first_dead_of_the_future_is_none() -> None:
    world = World()
    earlier = due(1, Dead(EVIDENCE), dead_since=NOW + timedelta(days=300))
    async with asyncio.timeout(5):
        said, _ = await run(world, [earlier], QUICK)
    assert world.calls[key(1)] == 2
    assert [v.confirmed for v in said[earlier.credential.id] if isinstance(v, Dead)] == [False, True]


@pytest.mark.parametrize(
    ("weather", "why"),
    [(Weather.STRIPPED, Doubt.INCOMPLETE), (Weather.PORTAL, Doubt.BLOCKED), (Weather.DOWN, Doubt.UNREACHABLE)],
)
async def test_bad_weather_kills_nobody(weather: Weather, why: Doubt) -> None:
    world = World(live={key(n) for n in range(10)})
    world.weather = weather
    said, _ = await run(world, [was_live(n) for n in range(10)], QUICK)
    for verdicts in said.values():
        assert [v.why for v in verdicts if isinstance(v, Undecided)] == [why]


async def test_a_second_look_that_finds_the_key_alive_withdraws_the_death() -> None:
    world = World()
    terms = Terms(patience=Patience(confirm_after=0.1))
    found: list[object] = []
    async for batch in verify({"acme": [due(1)]}, CATALOGUE, world, terms):
        for event in batch:
            assert isinstance(event, Judged)
            found.append(type(event.verdict))
            world.live.add(key(1))
    assert found == [Dead, Live]


async def test_a_revived_key_is_an_alarm() -> None:
    world = World(live={key(1)})
    last = Dead(EVIDENCE, confirmed=True)
    said, alarms = await run(world, [due(1, last, dead_since=YESTERDAY)], QUICK)
    assert list(lives(said))
    assert "works again" in alarms[0].text


async def test_what_was_confirmed_stays_confirmed() -> None:
    world = World()
    said, _ = await run(world, [due(1, Dead(EVIDENCE, confirmed=True), dead_since=YESTERDAY)], QUICK)
    assert len(confirmed(said)) == 1
    assert world.calls[key(1)] == 1


async def test_a_known_foreign_key_makes_no_call_in_mode_ours() -> None:
    scope = Scope(hosts=frozenset({"ours.test"}), mode=Mode.OURS)
    held = due(1)
    parts = {**held.credential.parts, "host": Secret("theirs.test")}
    foreign = replace(held, credential=replace(held.credential, parts=parts))
    world = World(live={key(1)})
    said, _ = await run(world, [foreign], replace(QUICK, scope=scope))
    (verdict,) = said[held.credential.id]
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.REFUSED
    assert not world.calls


async def test_an_unknown_kind_is_unsupported_and_makes_no_call() -> None:
    world = World()
    credential = Credential(CredentialID("x-1"), KindID("nobody"), {"secret": Secret("hello-there-key")})
    events = [e async for batch in verify({"nobody": [Due(credential)]}, CATALOGUE, world, QUICK) for e in batch]
    (judged,) = events
    assert isinstance(judged, Judged)
    assert isinstance(judged.verdict, Undecided)
    assert judged.verdict.why is Doubt.UNSUPPORTED
    assert not world.calls


async def test_ownership_follows_the_providers_word() -> None:
    world = World(live={key(1)})
    terms = replace(QUICK, scope=Scope(organisations=frozenset({"ours"}), domains=frozenset({"acme.test"})))
    events = [e async for batch in verify({"acme": [due(1)]}, CATALOGUE, world, terms) for e in batch]
    (judged,) = events
    assert isinstance(judged, Judged)
    assert judged.ownership is Ownership.UNKNOWN


async def test_two_candidates_of_one_id_are_never_asked_at_once() -> None:
    class Slow(World):
        async def send(self, request: Request) -> Reply | Trouble:
            self.under_way["all"] += 1
            self.most_at_once = max(self.most_at_once, self.under_way["all"])
            await asyncio.sleep(0.01)
            self.under_way["all"] -= 1
            return await super().send(request)

    items = []
    for n in range(4):
        one = due(n)
        parts = {**one.credential.parts, "id": Secret("AKID")}
        items.append(replace(one, credential=replace(one.credential, parts=parts)))
    world = Slow(live={key(n) for n in range(4)})
    await run(world, items, QUICK)
    assert world.most_at_once == 1
    free = Slow(live={key(n) for n in range(4)})
    await run(free, [due(n) for n in range(4)], QUICK)
    assert free.most_at_once > 1


async def test_a_refusal_that_may_be_about_our_address_kills_only_what_worked_from_here() -> None:
    by_address = Catalogue(replace(k, by_address=True) for k in CATALOGUE)
    never = [e async for batch in verify({"acme": [due(1)]}, by_address, World(), QUICK) for e in batch]
    assert [type(e.verdict) for e in never if isinstance(e, Judged)] == [Undecided]
    once = [e async for batch in verify({"acme": [was_live(1)]}, by_address, World(), QUICK) for e in batch]
    assert [type(e.verdict) for e in once if isinstance(e, Judged)] == [Dead, Dead]


@pytest.mark.parametrize("theirs", [True, False])
async def test_a_key_the_vendor_refuses_is_asked_at_our_own_instance(theirs: bool) -> None:
    (vendor,) = CATALOGUE
    both = Catalogue([replace(vendor, instance_kind="acme_own"), replace(vendor, id="acme_own")])

    class TwoHosts(World):
        async def send(self, request: Request) -> Reply | Trouble:
            self.live = {key(1)} if theirs and request.call.kind == "acme_own" else set()
            return await super().send(request)

    terms = replace(QUICK, base_urls={"acme_own": "https://acme.ours.test"}, wait=False)
    events = [e async for batch in verify({"acme": [due(1)]}, both, TwoHosts(), terms) for e in batch]
    assert [type(e.verdict) for e in events if isinstance(e, Judged)] == [Live if theirs else Dead]


async def test_closing_the_iterator_stops_the_run() -> None:
    world = World(live={key(n) for n in range(1000)})
    stream = verify({"acme": (due(n) for n in range(1000))}, CATALOGUE, world, QUICK)
    async for _ in stream:
        break
    await stream.aclose()
    asked = sum(world.calls.values())
    await asyncio.sleep(0.02)
    assert sum(world.calls.values()) == asked


async def test_a_client_that_swallows_the_end_asks_no_further_key() -> None:
    class Deaf(World):
        async def send(self, request: Request) -> Reply | Trouble:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)
            return await super().send(request)

    world = Deaf(live={key(n) for n in range(300)})
    stream = verify({"acme": (due(n) for n in range(300))}, CATALOGUE, world, QUICK)
    async for _ in stream:
        break
    asked = sum(world.calls.values())
    await stream.aclose()
    (kind,) = CATALOGUE
    # The word to stop passes through three groups of tasks, while those below go on.
    assert sum(world.calls.values()) <= asked + 4 * kind.limits.concurrency < 100


async def test_a_defect_in_a_provider_is_not_swallowed() -> None:
    class Broken(World):
        async def send(self, request: Request) -> Reply | Trouble:
            raise ZeroDivisionError(request.shown)

    with pytest.raises(ExceptionGroup):
        await run(Broken(), [due(1)], QUICK)


async def test_a_key_that_breaks_its_provider_stops_nobody_else() -> None:
    class Brittle(World):
        async def send(self, request: Request) -> Reply | Trouble:
            if key(3) in request.headers["Authorization"].reveal():
                raise ZeroDivisionError(request.shown)
            return await super().send(request)

    seen: dict[str, list[object]] = {}

    async def all_of_them() -> None:
        async for batch in verify({"acme": [due(n) for n in range(20)]}, CATALOGUE, Brittle(live={key(1)}), QUICK):
            for event in batch:
                assert isinstance(event, Judged)
                seen.setdefault(event.id, []).append(event.verdict)

    with pytest.raises(ExceptionGroup) as raised:
        await all_of_them()
    assert len(raised.value.exceptions) == 1
    assert len(seen) == 20
    (odd,) = seen[due(3).credential.id]
    assert isinstance(odd, Undecided)
    assert sum(isinstance(v[-1], Dead) and v[-1].confirmed for v in seen.values()) == 18


@pytest.mark.parametrize(
    ("host", "base", "dead"),
    [
        ("vault.other.test", "https://vault.ours.test", False),
        ("https://vault.other.test:8200/x", "https://vault.ours.test:8200", False),
        ("[", "https://vault.ours.test", False),
        ("Vault.Ours.test:8200", "https://vault.ours.test", True),
        ("db1.ours.test,db2.ours.test", "https://db2.ours.test", True),
        ("vault.other.test", "http://127.0.0.1:8200", True),
        ("vault.other.test", "http://[::1]:8200/x", True),
        ("vault.other.test", "http://localhost", True),
        (None, "https://vault.ours.test", True),
    ],
)
async def test_an_override_does_not_kill_what_names_another_host(host: str | None, base: str, dead: bool) -> None:
    """The config's `base_url` knows its own keys; of a key of another instance its refusal says nothing."""
    one = due(1)
    if host is not None:
        parts = {**one.credential.parts, "host": Secret(host)}
        one = replace(one, credential=replace(one.credential, parts=parts))
    said, _ = await run(World(), [one], replace(QUICK, base_urls={"acme": base}))
    verdicts = said[one.credential.id]
    assert isinstance(verdicts[-1], Dead if dead else Undecided)
    alive, _ = await run(World(live={key(1)}), [one], replace(QUICK, base_urls={"acme": base}))
    assert list(lives(alive))


async def test_a_timer_that_ends_early_does_not_spoil_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep
    monkeypatch.setattr("verifier.verify.asyncio.sleep", lambda seconds: sleep(max(0.0, seconds - 0.005)))
    said, _ = await run(World(), [due(n) for n in range(5)], QUICK)
    assert len(confirmed(said)) == 5
