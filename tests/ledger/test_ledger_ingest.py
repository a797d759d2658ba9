# parametrised
"""Reports read in: what is counted, what is one and the same, what is removed from source."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from ledger_making import START, docker_finding, finding, ingest, made, name_of, rows, scan, set_key
from msgspec.structs import replace

from lapse.ledger import AmbiguousKey, Gone, Kept, Seen, Select, UnknownKey, intake, open_ledger
from verifier.model import Absent, CredentialID, KindID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.ledger import Ledger
    from verifier.model import Finding


@pytest.fixture
def ledger(address: str) -> Iterator[Ledger]:
    with made(address) as opened:
        yield opened
        checked = opened.check()
        assert checked.ok, checked.problems


@pytest.fixture(params=[1, 3, 4096])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("lapse.ledger.store.BATCH", request.param)
    monkeypatch.setattr("lapse.ledger.intake.BATCH", request.param)
    return request.param


def test_findings_keys_and_new_are_counted_whatever_the_batches(ledger: Ledger, batch: int) -> None:
    count = ingest(ledger, [(1, 0), (1, 1), (2, 0), (1, 0), (3, 0)])
    assert (count.findings, count.keys, count.new, count.places) == (5, 3, 3, 4)
    count = ingest(ledger, [(1, 0), (4, 0), (1, 9)])
    assert (count.findings, count.keys, count.new, count.places) == (3, 2, 1, 2)
    status = ledger.status()
    assert (status.keys, status.findings, status.present, status.unchecked, status.secrets) == (4, 6, 6, 4, 4)


def test_the_cache_of_ids_may_be_dropped_at_any_time(
    ledger: Ledger, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_CACHE", 0)
    count = ingest(ledger, [(key % 3, key % 5) for key in range(40)])
    assert (count.findings, count.keys, count.new, count.places) == (40, 3, 3, 15)


def test_a_place_comes_back_as_it_was_given(ledger: Ledger) -> None:
    given = docker_finding(1)
    ledger.ingest(scan(scanner="kingfisher"), [(given, name_of(1), "hint")])
    [found] = ledger.places(name_of(1))
    assert found.place == given.place
    assert (found.scanner, found.rule, found.claimed, found.seen_at) == ("kingfisher", "kf.aws.1", "unchecked", START)
    assert found.removed_at is None
    assert found.first_seen == found.last_seen
    loose = finding(2)
    ledger.ingest(scan(), [(loose, name_of(2), "")])
    [found] = ledger.places(name_of(2))
    assert found.place == loose.place


def test_two_layers_and_two_scanners_are_places_of_their_own(ledger: Ledger) -> None:
    ledger.ingest(scan(), [(docker_finding(1, layer), name_of(1), "") for layer in (0, 1, 1)])
    ledger.ingest(scan(), [(replace(docker_finding(1), scanner="other"), name_of(1), "")])
    assert ledger.key(name_of(1)).findings == 3


def test_undecodable_names_and_absurd_numbers_are_kept_as_far_as_they_go(ledger: Ledger) -> None:
    odd = finding(1)
    odd = replace(odd, place=replace(odd.place, path="a\udcffb", line=2**70, author="\udc80"))
    odd = replace(odd, seen_at=datetime(2026, 1, 2))  # noqa: DTZ001  # some scanners name no zone
    ledger.ingest(scan(), [(odd, name_of(1), "h\udc80"), (odd, name_of(1), "")])
    [found] = ledger.places(name_of(1))
    assert (found.place.path, found.place.line, found.place.author) == ("a?b", None, "?")
    assert found.seen_at == datetime(2026, 1, 2, tzinfo=UTC)


def test_what_the_key_says_of_itself(ledger: Ledger) -> None:
    odd = replace(finding(1), candidates=(KindID("x"), KindID("y")), hidden=Absent())
    ledger.ingest(replace(scan(), at=START), [(odd, name_of(1), "AKIA…1")])
    ledger.ingest(replace(scan(), at=START + timedelta(days=1)), rows([(1, 5)]))
    key = ledger.key(name_of(1))
    assert (key.candidates, key.incomplete, key.hint) == (("x", "y"), True, "AKIA…1")
    assert (key.first_seen, key.last_seen) == (START, START + timedelta(days=1))
    assert ledger.providers() == ["aws_access_key"]
    assert (key.kept, key.last, key.known, key.attempts) == (Kept.SEALED, None, None, 0)


def test_a_source_that_fails_leaves_what_was_read(ledger: Ledger, batch: int) -> None:
    def broken() -> Iterator[tuple[Finding, CredentialID, str]]:
        yield from rows([(1, 0), (2, 0), (3, 0)])
        raise OSError

    ledger.ingest(scan(complete=True), rows([(9, 0)]))
    with pytest.raises(OSError):  # noqa: PT011  # whatever the source raises
        ledger.ingest(scan(complete=True), broken())
    assert not ledger.key(name_of(9)).removed_from_source
    assert ledger.status().keys == (4 if batch < 4096 else 1)
    assert gc.get_threshold()[0] < 100_000


# ── short ids ──────────────────────────────────────────────────────────────────────────────────────────


def alike(tail: str, vendor: str = "aws") -> CredentialID:
    return CredentialID(f"{vendor}-abcdef{tail:0<26}")


def test_short_ids_grow_on_collision_and_never_change(ledger: Ledger, batch: int) -> None:
    names = [alike("1"), alike("12"), alike("2"), alike("5", "gcp"), alike("123")]
    ledger.ingest(scan(), [(finding(0), name, "") for name in names])
    shorts = [key.short for key in ledger.keys(Select())]
    assert shorts == ["aws-abcdef", "aws-abcdef1", "aws-abcdef2", "gcp-abcdef", "aws-abcdef12"]
    ledger.ingest(scan(), [(finding(0), alike("124"), "")])
    assert [key.short for key in ledger.keys(Select())] == [*shorts, "aws-abcdef124"]
    for key in ledger.keys(Select()):
        assert ledger.resolve(key.short) == key.id
        assert ledger.resolve(key.id) == key.id


def test_a_beginning_names_a_key_only_if_no_other_begins_so(ledger: Ledger) -> None:
    names = [alike("1"), alike("2"), name_of(1)]
    ledger.ingest(scan(), [(finding(0), name, "") for name in names])
    assert ledger.resolve(name_of(1)[:7]) == name_of(1)
    assert ledger.resolve(name_of(1)[4:9].upper()) == name_of(1)
    assert ledger.resolve("aws-abcdef2") == alike("2")
    with pytest.raises(AmbiguousKey) as caught:
        ledger.resolve("aws-abc")
    assert caught.value.candidates == ("aws-abcdef", "aws-abcdef2")
    with pytest.raises(AmbiguousKey):
        ledger.resolve("aws-")
    for lost in ("", "aws-0000", "gcp-abcdef", "aws-xyz", "aws-" + "0" * 33):
        with pytest.raises(UnknownKey):
            ledger.resolve(lost)
    with pytest.raises(UnknownKey):
        ledger.key(name_of(77))


@pytest.mark.parametrize("name", ["aws-12", "f" * 32, "-" + "f" * 32, "aws-" + "g" * 32])
def test_an_id_of_another_form_is_a_mistake_of_the_caller(ledger: Ledger, name: str) -> None:
    with pytest.raises(ValueError, match=r"id|hex"):
        ledger.ingest(scan(), [(finding(0), CredentialID(name), "")])


# ── removed from source ────────────────────────────────────────────────────────────────────────────────

FULL, PART, CUT = "complete", "incomplete", "complete but cut off"


@pytest.mark.parametrize(
    ("first", "second", "removed"),
    [
        (FULL, FULL, True),
        (FULL, PART, False),
        (PART, FULL, False),
        (PART, PART, False),
        (FULL, CUT, False),
        (CUT, FULL, True),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["origin named", "origin of the places"])
def test_only_a_complete_scan_removes_and_only_what_one_had(
    ledger: Ledger, first: str, second: str, removed: bool, named: bool, batch: int
) -> None:
    origin = "git:acme/app" if named else None

    def take(sort: str, pairs: list[tuple[int, int]]) -> int:
        what = scan(complete=sort != PART, origin=origin)
        return ledger.ingest(what, rows(pairs), whole=lambda: sort != CUT).removed

    take(first, [(1, 0), (2, 0)])
    assert take(second, [(2, 0)]) == int(removed)
    assert ledger.key(name_of(1)).removed_from_source is removed
    assert not ledger.key(name_of(2)).removed_from_source
    [found] = ledger.places(name_of(1))
    assert (found.removed_at is not None) is removed
    assert [type(line) for line in ledger.story(name_of(1))] == ([Seen, Gone] if removed else [Seen])


def test_what_comes_back_is_no_longer_removed(ledger: Ledger) -> None:
    ingest(ledger, [(1, 0), (2, 0)], complete=True)
    ingest(ledger, [(2, 0)], complete=True)
    count = ingest(ledger, [(1, 0)])
    assert (count.returned, count.keys, count.places) == (1, 1, 0)
    assert not ledger.key(name_of(1)).removed_from_source


def test_a_key_is_removed_when_its_last_place_is(ledger: Ledger) -> None:
    ingest(ledger, [(1, 0), (1, 1), (2, 0)], complete=True)
    ingest(ledger, [(1, 1), (2, 0)], complete=True)
    key = ledger.key(name_of(1))
    assert (key.findings, key.present, key.removed_from_source) == (2, 1, False)
    ingest(ledger, [(2, 0)], complete=True)
    assert ledger.key(name_of(1)).removed_from_source


def test_another_origin_or_scanner_removes_nothing(ledger: Ledger) -> None:
    ingest(ledger, [(1, 0)], complete=True)
    ledger.ingest(scan(complete=True), rows([(2, 0)], origin="acme/other"))
    ledger.ingest(scan(complete=True, scanner="other"), rows([(2, 0)], scanner="other"))
    ledger.ingest(scan(complete=True, scanner="other", origin="git:acme/app"), [])
    assert not ledger.key(name_of(1)).removed_from_source


def test_a_clean_complete_scan_of_a_named_origin_removes_all(ledger: Ledger) -> None:
    ingest(ledger, [(1, 0), (2, 0)], complete=True)
    count = ledger.ingest(scan(complete=True, origin="git:acme/app"), [])
    assert (count.findings, count.removed) == (0, 2)
    assert ledger.ingest(scan(complete=True, origin="git:never/seen"), []).removed == 0


def test_loose_files_are_never_taken_for_a_complete_source(ledger: Ledger) -> None:
    loose = [
        (replace(f, place=replace(f.place, repository=None)), name, hint) for f, name, hint in rows([(1, 0), (2, 0)])
    ]
    ledger.ingest(scan(complete=True), loose)
    assert ledger.ingest(scan(complete=True), loose[:1]).removed == 0


# ── secrets, kept or not ───────────────────────────────────────────────────────────────────────────────


def test_without_a_key_nothing_is_kept_and_a_later_key_seals_what_comes_again(address: str) -> None:
    with made(address, key=False) as ledger:
        assert not ledger.keeps_secrets
        ingest(ledger, [(1, 0), (2, 0)])
        assert ledger.status().secrets == 0
        ids = ledger.id_key
    with open_ledger(address, set_key()) as ledger:
        assert ledger.keeps_secrets
        assert ledger.id_key == ids
        ingest(ledger, [(1, 0), (3, 0)])
        assert [key.kept for key in ledger.keys(Select())] == [Kept.SEALED, Kept.NEVER, Kept.SEALED]
        assert ledger.check().ok
