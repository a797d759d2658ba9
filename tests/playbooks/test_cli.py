"""The commands in processes of their own: plan, apply, wait, approve, resume, undo, lint; exit codes and sentences."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zygote
from ledger_made import KEK, credential_in, made
from makers import ALNUM, draw
from rotor import QUICK
from world import OLD, Small

from lapse.ledger import Ownership, open_ledger
from verifier.model import CredentialID

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BOOK = (
    QUICK.replace('issuer = "sim"', 'issuer = "simhands.issuer"')
    .replace('"simstore"', '"simhands.store"')
    .replace('"simconsumer"', '"simhands.consumer"')
    .replace('"simsessions"', '"simhands.sessions"')
)
HAND = """
id = "by-hand"
title = "Made by a person"
for = ["*"]
[create]
by = "person"
open = "https://provider.example/keys"
[store]
use = "simhands.store"
write = { key_id = "{old.id}", key_secret = "{new.secret}" }
[verify]
times = 1
every = "50ms"
[retire]
open = "https://provider.example/old"
[prove]
times = 2
window = "100ms"
"""
CONFIG = """
[ledger]
url = "ledger.db"
key = "env:LAPSE_TEST_KEK"
[catalogue]
modules = ["simhands.provider"]
[rotate]
playbooks = ["books"]
modules = ["simhands.issuer", "simhands.store", "simhands.consumer", "simhands.sessions"]
wait = "5s"
"""


class Office:
    """A folder with config, ledger, playbooks and the small world; `lapse` runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.small = Small(folder / "world.db")
        self.small.set(lag_new=0.1, lag_dead=0.1, propagation=0)
        self.small.begin()
        with made(folder) as ledger:
            self.id = credential_in(ledger)
        (folder / "books").mkdir()
        (folder / "books" / "sim.toml").write_text(BOOK)
        (folder / "books" / "hand.toml").write_text(HAND)
        (folder / "lapse.toml").write_text(CONFIG)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": f"{HERE.parent.parent}:{HERE}",
            "LAPSE_TEST_WORLD": str(self.folder / "world.db"),
            "XDG_CACHE_HOME": f"/tmp/lapse-test-cache-{os.getuid()}",
        }

    def lapse(self, *args: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = zygote.lapse(*args, cwd=self.folder, env=self.env, stdin=stdin)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        for secret in ("planted-new", "old-planted-secret"):
            assert secret not in done.stdout + done.stderr
        return done

    def run_name(self) -> str:
        with open_ledger(self.folder / "ledger.db", KEK) as ledger:
            return ledger.rotations.runs()[-1]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made_office = Office(tmp_path)
    yield made_office
    with open_ledger(tmp_path / "ledger.db", KEK) as ledger:
        assert ledger.check().ok


def test_the_plan_is_printed_and_nothing_done(office: Office) -> None:
    said = office.lapse("rotate", "sim-0000", "--playbook", "sim")
    assert "nothing was done" in said.stderr
    for words in ("destroys  Delete the old key for good", "sim:retire", "enable it again", "one person", "cannot be"):
        assert words in said.stdout
    assert office.small.keys("us") == []


def test_apply_waits_for_a_name_and_ends_proven_dead(office: Office) -> None:
    said = office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", "--as", "bob", code=12)
    assert "one person must agree to: destroys" in said.stderr
    run = office.run_name()
    assert office.small.accepted(OLD, "old-planted-secret") is False, "disabled meanwhile"
    office.lapse("resume", code=12)
    assert "agreed by ann" in office.lapse("approve", run, "--as", "ann").stdout
    said = office.lapse("resume", run)
    assert "proven dead" in said.stderr
    assert office.small.keys("us") == [office.small.stored()["key_id"]]
    assert office.small.keys() == office.small.keys("us")
    story = office.lapse("show", "sim-0000").stdout
    assert "ann agrees: destroys" in story
    office.lapse("resume")
    office.lapse("undo", run, code=2)
    with open_ledger(office.folder / "ledger.db", KEK) as ledger:
        assert ledger.key(office.id).confirmed
    assert not {p.name for p in office.folder.iterdir() if p.suffix == ".db" and p.stat().st_mode & 0o077} - {
        "world.db"
    }


def test_yes_in_an_emergency_goes_through_at_once(office: Office) -> None:
    office.lapse("rotate", "sim-0000", "--playbook", "sim", "--mode", "emergency", "--apply", "--yes", "-q")
    assert office.small.store_works()


def test_undo_brings_everything_back(office: Office) -> None:
    before = office.small.stored()
    office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", "--as", "bob", code=12)
    said = office.lapse("undo", office.run_name())
    assert "everything is as before" in said.stderr
    assert office.small.stored() == before
    assert office.small.accepted(OLD, "old-planted-secret")
    assert office.small.keys() == [OLD]
    assert office.small.at_consumer() == before


def test_a_person_makes_the_key(office: Office) -> None:
    office.small.db.execute("UPDATE keys SET secret='typed-by-ann' WHERE id=?", (OLD,))
    said = office.lapse("rotate", "sim-0000", "--playbook", "by-hand", "--apply", "--as", "bob", code=12)
    assert "make a new key at https://provider.example/keys" in said.stderr
    run = office.run_name()
    (office.folder / "new").write_text("typed-by-ann\n")
    office.lapse("resume", run, "--secret-file", "new", code=12)
    office.lapse("approve", run, "--as", "ann")
    said = office.lapse("resume", run)
    assert "proven dead" in said.stderr
    assert office.small.stored()["key_secret"] == "typed-by-ann"


@pytest.mark.parametrize(("owner", "words"), [(Ownership.FOREIGN, "somebody else"), (Ownership.UNKNOWN, "[scope]")])
def test_what_is_not_ours_is_refused(office: Office, owner: Ownership, words: str) -> None:
    with open_ledger(office.folder / "ledger.db", KEK) as ledger:
        ledger.mark([CredentialID(office.id)], owner=owner)
    assert words in office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", code=2).stderr
    assert office.small.keys("us") == []


def test_one_key_is_rotated_once_at_a_time(office: Office) -> None:
    office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", "--as", "bob", code=12)
    said = office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", code=2)
    assert f"the rotation {office.run_name()} holds this key" in said.stderr
    assert len(office.small.keys("us")) == 1


def test_beside_another_executor_turns_are_handed_over(office: Office) -> None:
    office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", "--as", "bob", code=12)
    run = office.run_name()
    with (office.folder / "ledger.db.engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = office.lapse("approve", run, "--as", "ann")
        assert "the worker goes on" in said.stderr
    office.lapse("resume", run)


def test_an_executor_that_leaves_is_taken_over_from(office: Office) -> None:
    office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", "--as", "bob", code=12)
    run = office.run_name()
    with (office.folder / "ledger.db.engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        office.lapse("approve", run, "--as", "ann")
        command = [sys.executable, "-m", "lapse.cli", "resume", run]
        with subprocess.Popen(command, cwd=office.folder, env=office.env, text=True, stderr=subprocess.PIPE) as watcher:
            assert watcher.stderr is not None
            assert "watching it" in watcher.stderr.readline()
            fcntl.flock(lock, fcntl.LOCK_UN)
            said = watcher.stderr.read()
    assert "this process goes on" in said
    assert watcher.returncode == 0


def test_missing_rights_have_an_exit_code_of_their_own(office: Office) -> None:
    office.small.trouble("preflight", "denied", 9)
    said = office.lapse("rotate", "sim-0000", "--playbook", "sim", "--apply", code=4)
    assert "give our admin credential the right" in said.stderr
    office.lapse("resume")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("rotate", "sim-0000", "--playbook", "no"), "there is no playbook no"),
        (("rotate", "sim-0000", "--playbook", "aws-access-key"), "is for aws_akia"),
        (("rotate", "sim-0000", "--playbook", "sim", "--set", "store"), "write NAME=VALUE"),
        (("rotate", "sim-0000", "--playbook", "sim", "--set", "no.such=1"), "has no such setting"),
        (("rotate", "sim-0000", "--set", f"store.path={draw(ALNUM, 40)}"), "looks like a key"),
        (("rotate", "sim-0000", "--playbook", "sim", "--set", "store.use=my.store"), "rotate.modules"),
        (("rotate", "sim-0000", "--playbook", "assisted", "--apply"), "store.path"),
        (("approve", "r-none", "--as", "ann"), "is no rotation"),
        (("undo", "r-none"), "is no rotation"),
        (("resume", "r-none"), "is no rotation"),
    ],
)
def test_mistakes_end_in_one_sentence(office: Office, args: tuple[str, ...], words: str) -> None:
    assert words in office.lapse(*args, code=2).stderr


def test_playbooks_are_listed_shown_and_linted(office: Office) -> None:
    assert "aws-access-key" in office.lapse("playbooks").stdout
    assert "vault_kv" in office.lapse("playbooks", "show", "aws-access-key").stdout
    assert "no mistake" in office.lapse("playbooks", "lint", "books/hand.toml").stdout
    bad = BOOK.replace('soak = "50ms"', 'soak = "soon"').replace("[prove]", "[prove]\nwindows = 3")
    (office.folder / "bad.toml").write_text(bad.replace("sim_key", "sim_kee"))
    said = office.lapse("playbooks", "lint", "bad.toml", code=2).stdout
    lines = bad.splitlines()
    soak, windows = lines.index('soak = "soon"') + 1, lines.index("windows = 3") + 1
    assert f"bad.toml:{soak}: retire.soak: no duration; write 90s" in said
    assert f"bad.toml:{windows}: unknown key `windows`; did you mean `window`?" in said
    assert "no kind of key is called `sim_kee`; did you mean `sim_key`?" in said
    assert "3 mistakes" in said
