# parametrised
"""Secrets at rest: sealed or not there at all; where the wrapping key comes from."""

from __future__ import annotations

import base64
import os
import sqlite3
import sys
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_making import KEY, finding, ingest, judged, live, made, name_of, scan, set_key

from lapse.ledger import KeyTrouble, LedgerError, Select, key_source, open_ledger
from lapse.ledger.seal import Bundle, Seal, fresh_bundle, pack, unpack
from verifier.fingerprint import Fingerprinter
from verifier.model import CredentialID
from verifier.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def raw_bytes(folder: Path) -> bytes:
    """Return everything that the ledger left on disk: file, write-ahead log, shared memory."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


@pytest.mark.parametrize("key", [True, False])
def test_no_planted_secret_is_ever_in_the_files(tmp_path: Path, key: bool) -> None:
    with made(tmp_path, key=key) as ledger:
        ingest(ledger, [(number, 0) for number in range(50)])
        ledger.record([judged(1, live())])
        assert b"src/app.env" in raw_bytes(tmp_path), "the search can find something"
        for _ in range(2):
            everything = raw_bytes(tmp_path)
            for number in range(50):
                for part in finding(number).parts.values():
                    for form in (part.reveal().encode(), base64.b64encode(part.reveal().encode())[:-3]):
                        assert len(form) < 8 or form not in everything
            ledger.purge([name_of(number) for number in range(50)])


def test_purged_bytes_leave_file_and_log(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(number, 0) for number in range(50)])
        raw = sqlite3.connect(ledger.path)
        boxes = [row[0] for row in raw.execute("SELECT blob FROM sealed ORDER BY credential")]
        raw.close()
        assert all(box in raw_bytes(tmp_path) for box in boxes)
        count = ledger.purge([name_of(number) for number in range(40)])
        assert (count.keys, count.flushed) == (40, True)
        left = raw_bytes(tmp_path)
        assert [box in left for box in boxes] == [False] * 40 + [True] * 10
        assert ledger.check().ok
        assert len(list(ledger.due(NOW))) == 10


def test_a_reader_that_holds_the_log_back_is_reported(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0)])
        raw = sqlite3.connect(ledger.path, isolation_level=None)
        raw.execute("BEGIN")
        raw.execute("SELECT count(*) FROM sealed").fetchone()
        raw2 = ledger._db._engine.raw_connection()
        raw2.execute("PRAGMA busy_timeout=10")  # pooled, used again by the flush
        raw2.close()
        assert ledger.purge([name_of(1)]) == type(ledger.purge([]))(1, flushed=False)
        raw.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with made(tmp_path / "new") as ledger:
            ingest(ledger, [(1, 0)])
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
            assert set(modes.values()) == {0o600}, modes
            ledger.path.chmod(0o644)
        with open_ledger(tmp_path / "new" / "ledger.db", KEY):
            assert ledger.path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


def test_sealed_parts_cannot_be_moved_to_another_key_or_edited(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0), (2, 0)])
        raw = sqlite3.connect(ledger.path)
        one, two = raw.execute("SELECT nonce, blob FROM sealed ORDER BY credential").fetchall()
        raw.execute("UPDATE sealed SET nonce=?, blob=? WHERE credential=2", one)
        raw.commit()
        with pytest.raises(LedgerError, match="changed in the file"):
            list(ledger.due(NOW))
        raw.execute("UPDATE sealed SET nonce=?, blob=? WHERE credential=2", (two[0], two[1][:-1] + b"\0"))
        raw.commit()
        raw.close()
        with pytest.raises(LedgerError, match="changed in the file"):
            list(ledger.due(NOW))


def test_a_sealed_ledger_without_its_key_shows_but_neither_writes_nor_unseals(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:
        ingest(ledger, [(1, 0)])
    with open_ledger(tmp_path / "ledger.db") as ledger:
        assert not ledger.keeps_secrets
        assert ledger.status().keys == 1
        assert ledger.check().ok
        assert [key.hint for key in ledger.keys(Select())] == ["AKIA…1"]
        for act in (lambda: ledger.id_key, lambda: ingest(ledger, []), lambda: list(ledger.due(NOW))):
            with pytest.raises(KeyTrouble, match="is sealed"):
                act()
    wrong = set_key("LAPSE_TEST_KEK_9")
    with open_ledger(tmp_path / "ledger.db", wrong) as ledger, pytest.raises(KeyTrouble, match="not the key"):
        _ = ledger.id_key


def test_a_new_wrapping_key_replaces_the_old_one(tmp_path: Path) -> None:
    old, new = set_key(), set_key("LAPSE_TEST_KEK_2")
    with open_ledger(tmp_path / "ledger.db", old) as ledger:
        ingest(ledger, [(1, 0)])
        before = Fingerprinter(ledger.id_key)
        ledger.rewrap(new)
        assert ledger.keeps_secrets
        assert len(list(ledger.due(NOW))) == 1
    with open_ledger(tmp_path / "ledger.db", old) as ledger, pytest.raises(KeyTrouble):
        list(ledger.due(NOW))
    with open_ledger(tmp_path / "ledger.db", new) as ledger:
        parts = finding(1).parts
        assert Fingerprinter(ledger.id_key).of("aws", finding(1).provider, parts) == before.of(
            "aws", "aws_access_key", parts
        )  # type: ignore[arg-type]  # a kind by its word
        [due] = ledger.due(NOW)
        assert due.credential.parts["secret"].reveal() == parts["secret"].reveal()
        assert ledger.check().ok


def test_the_bare_keys_leave_the_file_when_a_wrapping_key_comes(tmp_path: Path) -> None:
    with made(tmp_path, key=False) as ledger:
        bare = ledger.id_key
        assert bare in raw_bytes(tmp_path)
        ledger.rewrap(set_key())
        assert ledger.id_key == bare
        assert bare not in raw_bytes(tmp_path)


def test_whoever_still_has_the_old_signing_key_is_told_to_come_again(tmp_path: Path) -> None:
    with made(tmp_path, key=False) as early:
        ingest(early, [(1, 0)])
        with open_ledger(tmp_path / "ledger.db", set_key()) as late:
            with pytest.raises(LedgerError, match="new key"):
                early.record([judged(1, live())])
            assert late.check().ok


def test_two_that_bring_the_first_key_at_once_agree(tmp_path: Path) -> None:
    with made(tmp_path, key=False) as early:
        source = key_source(set_key())
        with open_ledger(tmp_path / "ledger.db", source) as late:
            early._wrapped, early._kek = False, source
            with pytest.raises(KeyTrouble):
                early.rewrap(source)
            early.adopt(source)
            assert early.keeps_secrets
            assert early.id_key == late.id_key


def test_a_rewrap_that_lost_a_race_changes_nothing(tmp_path: Path) -> None:
    with made(tmp_path) as ledger:

        class Racing:
            reference = "env:OTHER"

            def wrap(self, data: bytes) -> bytes:
                raw = sqlite3.connect(ledger.path)
                raw.execute("UPDATE meta SET keys=x'00'")
                raw.commit()
                raw.close()
                return data

            def unwrap(self, blob: bytes) -> bytes:
                return blob

        with pytest.raises(LedgerError, match="another process"):
            ledger.rewrap(Racing())


def test_bundles_cannot_be_swapped_and_do_not_print() -> None:
    bundle = fresh_bundle("one")
    assert repr(bundle) == "Bundle(…)"
    assert isinstance(unpack(pack(bundle, None), "one", None), Bundle)
    with pytest.raises(KeyTrouble, match="another ledger"):
        unpack(pack(bundle, None), "two", None)
    for odd in (b"\xc1", b"\xa2\xf1a", b""):  # no msgpack, a text that is no UTF-8, nothing
        with pytest.raises(KeyTrouble, match="damaged"):
            unpack(odd, "one", None)


# ── where the key comes from ───────────────────────────────────────────────────────────────────────────


def test_a_key_file_in_every_form(tmp_path: Path) -> None:
    key = os.urandom(31) + b"\xff"
    path = tmp_path / "key"
    path.touch(mode=0o600)
    source = key_source(f"file:{path}")
    path.write_bytes(key)
    blob = source.wrap(b"data")
    for form in (key, base64.b64encode(key) + b"\n", key.hex().encode() + b"\n", b" " + key.hex().upper().encode()):
        path.write_bytes(form)
        assert source.unwrap(blob) == b"data"
    assert source.wrap(b"data") != blob
    path.write_bytes(os.urandom(32))
    for broken in (blob, blob[:5], b""):
        with pytest.raises(KeyTrouble, match="not the key"):
            source.unwrap(broken)
    for wrong in (b"", b"short", b"z" * 64, base64.b64encode(b"x" * 31)):
        path.write_bytes(wrong)
        with pytest.raises(KeyTrouble, match="openssl rand"):
            source.wrap(b"data")
    path.write_bytes(key)
    path.chmod(0o640)
    with pytest.raises(KeyTrouble, match="chmod 600"):
        source.wrap(b"data")
    path.unlink()
    with pytest.raises(KeyTrouble, match="No such file"):
        source.wrap(b"data")


def test_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAPSE_NO_SUCH", raising=False)
    with pytest.raises(KeyTrouble, match="is not set"):
        key_source("env:LAPSE_NO_SUCH").wrap(b"x")
    monkeypatch.setenv("LAPSE_NO_SUCH", "hunter2")
    with pytest.raises(KeyTrouble) as caught:
        key_source("env:LAPSE_NO_SUCH").wrap(b"x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["", "file", "file:", "vault:key", "awskms:key", "hex:00", "0" * 64, "vault:transit/"]
)
def test_another_way_to_name_a_key_is_refused_without_repeating_it(wrong: str) -> None:
    with pytest.raises(KeyTrouble) as caught:
        key_source(wrong)
    assert "0000" not in str(caught.value)


def test_the_keyring_is_optional_and_asked_by_service_and_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one stand-in here: a desktop keyring cannot be had on a build machine."""

    class KeyringError(Exception):
        pass

    kept = {("lapse", "ledger"): os.urandom(32).hex()}

    def get(service: str, user: str) -> str | None:
        if service == "locked":
            raise KeyringError
        return kept.get((service, user))

    fake = ModuleType("keyring")
    fake.get_password = get  # type: ignore[attr-defined]  # a module made up for the test
    fake.errors = SimpleNamespace(KeyringError=KeyringError)  # type: ignore[attr-defined]  # a module made up for the test
    monkeypatch.setitem(sys.modules, "keyring", fake)
    source = key_source("keyring:lapse/ledger")
    assert source.unwrap(source.wrap(b"data")) == b"data"
    for wrong, said in {"lapse": "service and entry", "lapse/none": "no such entry", "locked/x": "unlock"}.items():
        with pytest.raises(KeyTrouble, match=said):
            key_source(f"keyring:{wrong}").wrap(b"x")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(KeyTrouble, match=r"lapse\[keyring\]"):
        source.wrap(b"x")


def test_a_ledger_is_not_made_where_its_key_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(KeyTrouble):
        open_ledger(tmp_path / "l.db", "env:LAPSE_NO_SUCH")
    with open_ledger(tmp_path / "l.db", set_key()) as ledger:
        ledger.ingest(scan(), [])
        assert ledger.check().ok


@given(st.dictionaries(st.sampled_from(["secret", "id", "host"]), st.text(st.characters(exclude_categories=[]))))
def test_sealed_parts_come_back_as_they_were(parts: dict[str, str]) -> None:
    """Half surrogate pairs, too: a scanner of binary files hands over bytes that are no text."""
    seal = Seal(fresh_bundle("a" * 32))
    name = CredentialID("acme-" + "0" * 32)
    nonce, blob = seal.close_parts(name, {n: Secret(v) for n, v in parts.items()})
    assert {n: v.reveal() for n, v in seal.open_parts(name, nonce, blob).items()} == parts
