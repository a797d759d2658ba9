"""When a Dead is believed: time, arrival, brake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from verifier.confirm import Doubter, Patience, Standing
from verifier.model import Arrival, Credential, CredentialID, Dead, Doubt, Evidence, KindID, Live, Undecided, Verdict
from verifier.ports import Due

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def evidence(
    arrival: Arrival = Arrival.ASSUMED, route: str = "direct", carrier: str = "authorization", host: str = "h"
) -> Evidence:
    return Evidence("GET /", 401, "", "", "acme@0", NOW, host, arrival=arrival, route=route, carrier=carrier)


def due(n: int, *, last_live: datetime | None = None, dead_since: datetime | None = None) -> Due:
    credential = Credential(CredentialID(f"acme-{n}"), KindID("acme"), {})
    return Due(credential, None, last_live, dead_since)


def standing(doubter: Doubter, said: Evidence, held: timedelta) -> Standing:
    return doubter.standing("acme", said, NOW - held, NOW, 60.0)


def test_a_first_dead_is_too_soon_and_a_second_confirms() -> None:
    doubter = Doubter(Patience())
    assert standing(doubter, evidence(), timedelta(0)) is Standing.TOO_SOON
    assert standing(doubter, evidence(), timedelta(seconds=59)) is Standing.TOO_SOON
    assert standing(doubter, evidence(), timedelta(seconds=60)) is Standing.CONFIRMED


def test_behind_a_proxy_an_assumed_arrival_needs_proof_by_the_same_way() -> None:
    doubter = Doubter(Patience())
    dead = evidence(route="proxy")
    assert standing(doubter, dead, HOUR) is Standing.UNPROVEN
    other_header = Live(evidence(Arrival.PROVEN, "proxy", "x-api-key"))
    doubter.note("other", due(1), other_header, NOW)
    assert standing(doubter, dead, HOUR) is Standing.UNPROVEN
    doubter.note("other", due(2), Live(evidence(Arrival.PROVEN, "proxy", host="elsewhere")), NOW)
    assert standing(doubter, dead, HOUR) is Standing.CONFIRMED


def test_an_override_vouches_only_for_its_own_host() -> None:
    doubter = Doubter(Patience())
    dead = evidence(route="base", host="a")
    doubter.note("other", due(1), Live(evidence(Arrival.PROVEN, "base", host="b")), NOW)
    assert standing(doubter, dead, HOUR) is Standing.UNPROVEN
    doubter.note("other", due(2), Dead(evidence(Arrival.PROVEN, "base", host="a")), NOW)
    assert standing(doubter, dead, HOUR) is Standing.CONFIRMED


def test_what_no_proxy_can_strip_needs_no_proof() -> None:
    doubter = Doubter(Patience())
    for carrier in ("url", "body", "wire", "offline"):
        assert standing(doubter, evidence(route="proxy", carrier=carrier), HOUR) is Standing.CONFIRMED


def test_thirty_live_keys_that_turn_dead_confirm_nothing_until_hours_later() -> None:
    doubter = Doubter(Patience())
    for n in range(30):
        doubter.note("acme", due(n, last_live=NOW - HOUR), Dead(evidence()), NOW)
    assert doubter.braked("acme")
    assert standing(doubter, evidence(), timedelta(hours=5)) is Standing.BRAKED
    assert standing(doubter, evidence(), timedelta(hours=6)) is Standing.CONFIRMED


def test_a_few_dead_among_many_live_do_not_brake() -> None:
    doubter = Doubter(Patience())
    for n in range(4):
        doubter.note("acme", due(n, last_live=NOW - HOUR), Dead(evidence()), NOW)
    for n in range(10, 20):
        doubter.note("acme", due(n), Live(evidence(Arrival.PROVEN)), NOW)
    assert not doubter.braked("acme")


def test_three_that_are_all_there_is_brake() -> None:
    doubter = Doubter(Patience())
    for n in range(3):
        doubter.note("acme", due(n, last_live=NOW - HOUR), Dead(evidence()), NOW)
    assert doubter.braked("acme")
    doubter.note("acme", due(9), Live(evidence(Arrival.PROVEN)), NOW)
    assert not doubter.braked("acme")


def test_keys_never_seen_live_do_not_brake() -> None:
    doubter = Doubter(Patience())
    for n in range(100):
        doubter.note("acme", due(n), Dead(evidence()), NOW)
    assert not doubter.braked("acme")


def test_a_row_of_deads_that_outlasted_the_brake_does_not_brake_again() -> None:
    doubter = Doubter(Patience())
    for n in range(30):
        doubter.note("acme", due(n, last_live=NOW - 9 * HOUR, dead_since=NOW - 7 * HOUR), Dead(evidence()), NOW)
    assert not doubter.braked("acme")


verdicts = st.sampled_from(["live", "dead", "undecided"])


@given(st.lists(st.tuples(st.integers(0, 9), verdicts), max_size=60))
def test_a_brake_never_holds_while_most_known_keys_still_work(said: list[tuple[int, str]]) -> None:
    doubter = Doubter(Patience())
    last: dict[int, str] = {}
    made: dict[str, Verdict] = {
        "live": Live(evidence(Arrival.PROVEN)),
        "dead": Dead(evidence()),
        "undecided": Undecided(Doubt.BLOCKED),
    }
    for n, verdict in said:
        doubter.note("acme", due(n, last_live=NOW - HOUR), made[verdict], NOW)
        if verdict != "undecided":
            last[n] = verdict
    dead = sum(v == "dead" for v in last.values())
    if dead < 3:
        assert not doubter.braked("acme")
