"""An evidence file is whole or it is not: every change is found, whoever signed it is named, no ledger is needed."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from evidence_made import PLANTED, Office, made
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lapse.evidence.audit import NotEvidence, Signer, audit, expected_key
from lapse.evidence.page import page
from lapse.evidence.signing import canonical, digests, fingerprint, pem, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
FAST = settings(max_examples=int(os.environ.get("LAPSE_CHAOS", "0")) * 4000 or 150, deadline=None)
HOSTILE = "</script><script>alert(1)</script><!-- \u2028\u202e&amp;<b>'\""


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with made(tmp_path_factory.mktemp("evidence")) as ledger:
        office = Office.at(ledger)
        office.rotate()
        yield office


@pytest.fixture(scope="module")
def told(office: Office) -> bytes:
    return office.json()


@pytest.fixture(scope="module")
def shown(office: Office) -> bytes:
    return office.page()


def found(data: bytes) -> str:
    """Return what is wrong with a file, or nothing."""
    try:
        return "\n".join(audit(data).problems)
    except NotEvidence as e:
        return f"no evidence: {e}"


# ── whole ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_given_out_is_whole_and_names_its_signer(office: Office, told: bytes, shown: bytes) -> None:
    ours = fingerprint(bytes.fromhex(office.ledger.head().public_key))
    for data in (told, shown):
        assert audit(data).problems == ()
        assert audit(data).signer is Signer.UNKNOWN
        assert audit(data, ours).signer is Signer.EXPECTED
        assert audit(data, "0" * 64).signer is Signer.OTHER
    assert audit(told).file.body.evidence == audit(shown).file.body.evidence


def test_no_secret_is_in_it(told: bytes, shown: bytes) -> None:
    for data in (told, shown):
        assert [p for p in PLANTED if p.encode() in data] == []


def test_the_file_keeps_to_the_published_schema(told: bytes) -> None:
    schema = json.loads((ROOT / "docs/schemas/run-evidence-v1.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(told))
    broken = json.loads(told)
    broken["body"]["evidence"]["moments"]["proven"] = 3
    assert not Draft202012Validator(schema).is_valid(broken)


def test_no_number_of_the_file_is_a_fraction(told: bytes) -> None:
    json.loads(told, parse_float=pytest.fail)


# ── any byte ───────────────────────────────────────────────────────────────────────────────────────────


def flipped(data: bytes, where: int, by: int) -> bytes:
    changed = bytearray(data)
    changed[where % len(data)] ^= by
    return bytes(changed)


@FAST
@given(where=st.integers(0, 10**6), by=st.integers(1, 255))
@example(where=0, by=1)
@example(where=-1, by=0x2A)  # the line feed at the end becomes a blank
def test_any_byte_that_is_changed_is_found(told: bytes, where: int, by: int) -> None:
    assert found(flipped(told, where, by))


@FAST
@given(where=st.integers(0, 10**6), by=st.integers(1, 255))
@example(where=0, by=1)
@example(where=-1, by=0x2A)
def test_any_byte_of_a_page_that_is_changed_is_found(shown: bytes, where: int, by: int) -> None:
    assert found(flipped(shown, where, by))


def test_every_byte_of_the_signatures_counts(told: bytes, shown: bytes) -> None:
    for data, start in ((told, told.rindex(b'"signature":')), (shown, shown.rindex(b"<!--"))):
        for where in range(start, len(data), 3):
            by = 0x20 if where % 2 else 1  # 0x20: another case
            assert found(flipped(data, where, by)), data[where - 9 : where + 9]


def test_unused_bits_of_base64_count(told: bytes, shown: bytes) -> None:
    """The last letter before the padding holds bits that decode to nothing: another letter there is another file."""
    ends = [
        (told, told.rindex(b'=="}}') - 1),
        (told, told.rindex(b"=\\n-----END") - 1),
        (shown, shown.rindex(b"== -->") - 1),
    ]
    for data, where in ends:
        for by in range(1, 256):
            assert found(flipped(data, where, by)), data[where - 9 : where + 9]


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -2, -200])
def test_what_is_cut_off_or_added_is_found(told: bytes, shown: bytes, cut: int) -> None:
    for data in (told, shown):
        assert found(data[:cut])
        assert found(data[:cut] + b" " + data[cut:])
        assert found(data + b"\n")
        assert found(b" " + data)


# ── where ──────────────────────────────────────────────────────────────────────────────────────────────


def _rotation(tree: dict[str, Any], n: int) -> dict[str, Any]:
    event: dict[str, Any] = [e for e in tree["body"]["ledger"]["events"] if e["kind"] == "rotation"][n]
    return event


def _swap(tree: dict[str, Any]) -> None:
    events = tree["body"]["ledger"]["events"]
    events[3], events[4] = events[4], events[3]


def _journal(tree: dict[str, Any]) -> None:
    del tree["body"]["evidence"]["journal"][5]


def _row(tree: dict[str, Any]) -> None:
    _rotation(tree, 2)["brought"]["rows"][0][6] = "nothing happened"


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "approver": (
        lambda t: t["body"]["evidence"]["approvals"][0].update(who="eve"),
        r"body\.evidence\.approvals was altered",
    ),
    "moment": (
        lambda t: t["body"]["evidence"]["moments"].update(contained="2026-01-01T00:00:00Z"),
        r"body\.evidence\.moments was altered",
    ),
    "made": (lambda t: t["body"].update(made="2026-01-01T00:00:00Z"), r"body\.made"),
    "event removed": (lambda t: t["body"]["ledger"]["events"].pop(4), r"body\.ledger\.events was altered"),
    "events swapped": (_swap, r"event \d+ is out of order"),
    "event edited": (lambda t: _rotation(t, 3).update(at=7), r"ledger event \d+ was altered: its hash"),
    "payload edited": (lambda t: _rotation(t, 3).update(payload="{}"), r"ledger event \d+ was altered: its hash"),
    "row edited": (_row, r"ledger event \d+: a row of rotations that it brought was altered"),
    "row taken away": (lambda t: _rotation(t, 3).update(brought=None), r"the row that it brought is missing"),
    "number too large": (lambda t: _rotation(t, 3).update(at=2**80), r"ledger event \d+ was altered"),
    "journal": (_journal, r"evidence\.journal\[5\] is not what the ledger's row \d+ says"),
    "journal's end": (lambda t: t["body"]["evidence"]["journal"].pop(), r"journal lacks what the ledger's row"),
    "head": (lambda t: t["body"]["ledger"]["head"].update(seq=99999), r"signed head was altered: its signature"),
    "head's key": (lambda t: t["body"]["ledger"]["head"].update(public_key="zz"), r"head was altered: it can no"),
    "added": (lambda t: t["body"]["evidence"].update(note="x"), r"body\.evidence\.note was altered"),
    "added beside": (lambda t: t.update(note="x"), r"something was added beside the body"),
    "fingerprint": (lambda t: t["signature"].update(fingerprint="0" * 64), r"signature\.fingerprint was altered"),
    "key": (lambda t: t["signature"].update(public_key="x"), r"signature\.public_key was altered"),
    "key, same but": (
        lambda t: t["signature"].update(public_key=t["signature"]["public_key"] + "\n"),
        r"signature\.public_key was altered",
    ),
    "value": (lambda t: t["signature"].update(value="x"), r"signature\.value was altered"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_named_by_its_place(told: bytes, name: str) -> None:
    edit, words = EDITS[name]
    tree = json.loads(told)
    edit(tree)
    assert re.search(words, found(canonical(tree) + b"\n")), found(canonical(tree) + b"\n")


def test_new_digests_hide_no_edit(told: bytes) -> None:
    tree = json.loads(told)
    tree["body"]["evidence"]["approvals"][0]["who"] = "eve"
    tree["body"]["digests"] = digests(tree["body"]["evidence"], tree["body"]["ledger"])
    assert "does not hold" in found(canonical(tree) + b"\n")


def test_the_same_written_otherwise_is_not_the_same_file(told: bytes) -> None:
    assert "not written as Lapse writes it" in found(json.dumps(json.loads(told), indent=1).encode())
    twice = told.replace(b'"v":1}', b'"v":1,"v":1}')
    assert twice != told
    assert "not written as Lapse writes it" in found(twice)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no JSON"),
        (b"[]", "no evidence file"),
        (b'{"keys":[],"v":1}', "damaged, or was never"),
        (b"<html></html>", "no evidence in it"),
        (b'{"body":{"kind":"lapse-run-evidence","v":2}}', "version 2"),
        (b'{"body":"\\ud800"}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
    ],
    ids=["empty", "list", "other-report", "other-page", "newer", "half-a-character", "deep", "bytes"],
)
def test_what_is_no_evidence_is_told_so(data: bytes, words: str) -> None:
    assert words in found(data)


# ── other hands ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    before = os.environ["LAPSE_TEST_KEK"]
    with made(tmp_path_factory.mktemp("other")) as ledger:
        office = Office.at(ledger)
        office.rotate(approve="eve")
        yield office
    os.environ["LAPSE_TEST_KEK"] = before


def test_the_same_data_signed_by_another_ledger_are_not_ours(office: Office, other: Office) -> None:
    ours = fingerprint(bytes.fromhex(office.ledger.head().public_key))
    file = office.file()
    forged = signed(other.ledger, file.body.evidence, file.body.ledger, datetime.now(UTC))
    data = canonical(msgspec.to_builtins(forged)) + b"\n"
    assert audit(data, ours).signer is Signer.OTHER
    assert "head was signed with another key than this file" in found(data)
    theirs = audit(other.json(), ours)
    assert theirs.problems == ()
    assert theirs.signer is Signer.OTHER, "whole, but a forger's"


def test_a_page_that_shows_other_than_its_data_is_found(office: Office, other: Office, shown: bytes) -> None:
    embed = re.compile(rb'(<script type="application/json" id="evidence">\n)[^<]*(\n</script>)')
    theirs = embed.search(other.page())
    assert theirs is not None
    swapped = embed.sub(lambda _: theirs[0], shown)
    assert "the page was altered" in found(swapped)
    lied = shown.replace(b"is proven dead</h1>", b"is live as ever</h1>")
    assert "the page was altered" in found(lied)
    assert audit(lied).file == audit(shown).file, "the data alone are still whole"
    both = shown.replace(b"</main>", embed.search(shown)[0] + b"</main>")
    assert "or more than one" in found(both)
    resigned = page(other.ledger, office.file())
    assert "the page was altered" in found(resigned)


def test_whom_to_expect_can_be_said_in_four_ways(office: Office) -> None:
    raw = bytes.fromhex(office.ledger.head().public_key)
    ours = fingerprint(raw)
    assert expected_key(f"sha256:{ours.upper()}".replace("SHA", "sha"), None) == ours
    for content in (pem(raw).encode(), msgspec.json.encode(office.ledger.head()), f"{ours}\n".encode()):
        assert expected_key("a file", content) == ours
    for content in (None, b"", b"\xff", b"{}", pem(raw).encode()[:-40]):
        with pytest.raises(ValueError, match=r"neither|no Ed25519"):
            expected_key("a file", content)


# ── the page ───────────────────────────────────────────────────────────────────────────────────────────


class Elements(HTMLParser):
    """Collects start tags with what lies in script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        office = Office.at(ledger, path=f"a/{HOSTILE}", who=HOSTILE)
        office.rotate(approve=f"ann {HOSTILE}")
        data = office.page()
        assert audit(data).problems == ()
        assert audit(office.json()).problems == ()
    read = Elements(data.decode())
    assert [attrs for tag, attrs in read.tags if tag == "script"] == [{"type": "application/json", "id": "evidence"}]
    assert not {"b", "img", "iframe", "link", "object", "base"} & {tag for tag, _ in read.tags}
    body = json.loads(read.scripts[0])["body"]
    assert HOSTILE in body["evidence"]["exposure"]["first_place"]
    assert HOSTILE in body["evidence"]["approvals"][0]["who"]
    assert b"\xe2\x80\xa8" not in data
    assert b"\xe2\x80\xae" not in data.partition(b"<script")[0]


def test_the_page_needs_nothing_from_elsewhere(shown: bytes) -> None:
    read = Elements(shown.decode())
    assert [a for _, attrs in read.tags for n, a in attrs.items() if n in {"src", "href", "action"}] == []
    policy = [a.get("content") for t, a in read.tags if t == "meta" and a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"]
    assert b"url(" not in shown
    assert b"@import" not in shown


def test_the_page_says_what_an_auditor_asks(office: Office, shown: bytes) -> None:
    text = shown.decode().partition("<script")[0]
    m = office.evidence().moments
    for moment in (m.exposed, m.first_live, m.contained, m.last_acceptance, m.first_stable_refusal, m.sessions_until):
        assert moment is not None
        assert f"{moment:%Y-%m-%d %H:%M:%S}" in text
    for words in ("is proven dead</h1>", ">ann<", "secret/other", "K-", "40 days"):
        assert words in text, words
