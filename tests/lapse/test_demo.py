"""`lapse demo`: the whole story with what is installed, without the optional pieces, and interrupted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import makers
import pytest
from desk import CATALOGUE, Desk, simulator
from presence import lacking

from lapse.commands.demo import environment
from lapse.ledger import open_ledger
from lapse.sandbox import keys, leak
from lapse.sandbox.image import Layer, save
from playbooks.journal import End, What, state_of
from verifier.classify import Classifier
from verifier.ingest.archive import LayerIndex
from verifier.model import Claim, Image, LayerFate, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playbooks.journal import RunState


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Make a temporary folder that a system user can pass through, as the real one can."""
    name = Path(tempfile.mkdtemp(prefix="lapse-test-"))
    name.chmod(0o711)
    yield name
    shutil.rmtree(name)


def command(scratch: Path, *more: str, python: str = sys.executable, **env: str) -> subprocess.Popen[str]:
    kept = {"PATH": os.environ["PATH"], "HOME": str(scratch / "home"), "TMPDIR": str(scratch), **env}
    return subprocess.Popen(
        [python, "-m", "lapse.cli", "demo", *more],
        cwd=scratch, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1,
    )  # fmt: skip


def processes(scratch: Path) -> list[str]:
    """Every process that was started with this folder in its words or as its working folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((place / "cwd").readlink())
        except OSError:
            continue
        if str(scratch) in words or where.startswith(str(scratch)):
            found.append(words)
    return found


@pytest.fixture(scope="module")
def played(scratch: Path) -> tuple[str, Path]:
    folder = scratch / "kept"
    with command(scratch, "--keep", str(folder)) as run:
        said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    return said, folder


def test_the_story_ends_well_and_leaves_its_files(played: tuple[str, Path]) -> None:
    said, folder = played
    assert "Traceback" not in said
    sarif = json.loads((folder / "lapse.sarif").read_text())
    assert sarif["version"] == "2.1.0"
    assert any(r["level"] == "error" for r in sarif["runs"][0]["results"])
    report = json.loads((folder / "lapse.json").read_text())
    assert len({k["provider"] for k in report["keys"]}) >= 20


def test_every_planted_key_gets_the_verdict_that_it_was_made_for(played: tuple[str, Path]) -> None:
    keys_ = json.loads((played[1] / "lapse.json").read_text())["keys"]
    told: dict[str, list[str]] = {}
    for key in keys_:
        told.setdefault(key["provider"], []).append("restricted" if key["restricted"] else key["verdict"])
    wanted: dict[str, set[str]] = {}
    for planted, state in leak.saas():
        revoked = state == "live" and planted.path == leak.GONE
        wanted.setdefault(planted.kind, set()).add("dead" if revoked else state)
    undying = {k.id for k in CATALOGUE if not any(e.verdict == "dead" for e in k.example)}
    for kind, states in wanted.items():
        expected = {"undecided" if s == "dead" and kind in undying else s for s in states}
        assert set(told[kind]) == expected, kind
    canaries = [k for k in keys_ if k["canary"]]
    assert [k["why"] for k in canaries] == ["refused"]
    assert told["jwt"] == ["undecided"]


def test_real_servers_judge_real_credentials(played: tuple[str, Path]) -> None:
    said, folder = played
    keys_ = json.loads((folder / "lapse.json").read_text())["keys"]
    verdicts = [(k["provider"], k["verdict"]) for k in keys_]
    for name, wanted in (
        ("OpenBao", [("vault_token", "live")]),
        ("MiniStack", [("aws_akia", "live"), ("aws_akia", "dead")]),
        ("PostgreSQL", [("postgres", "dead")]),
    ):
        if f"runs     {name}" in said:
            assert [v for v in wanted if v not in verdicts] == [], name


def test_removed_never_revoked_is_what_status_says_first(played: tuple[str, Path]) -> None:
    said = played[0]
    status = said.index("$ lapse status")
    first = next(line for line in said[status:].splitlines()[1:] if line)
    assert re.fullmatch(r" +1  removed from source, never revoked: still live", first), first
    table = said[status:].partition("KEY  ")[2].splitlines()
    assert table[1].endswith("(removed)"), table[:3]
    (gone,) = [
        k
        for k in json.loads((played[1] / "lapse.json").read_text())["keys"]
        if k["removed_from_source"] and k["provider"] == "huggingface"
    ]
    assert {p["path"] for p in gone["places"]} == {leak.GONE}


def states(folder: Path) -> list[RunState]:
    with open_ledger(folder / "ledger.db") as ledger:
        assert ledger.check().ok
        return [state_of(run, ledger.rotations.entries(run)) for run in ledger.rotations.runs()]


def test_three_keys_are_rotated_and_proven_dead(played: tuple[str, Path]) -> None:
    said, folder = played
    if "left out: the rotation" in said:
        lacking("OpenBao, MiniStack or PostgreSQL is not installed")
    runs = states(folder)
    assert [r.plan.playbook for r in runs] == ["aws-access-key", "vault-database-static-role", "self-revoke"]
    assert [r.end for r in runs] == [End.FINISHED] * 3
    keys_ = {k["key"]: k for k in json.loads((folder / "lapse.json").read_text())["keys"]}
    for run in runs:
        proof = run.outputs()["prove"]
        assert proof["last_acceptance"] < proof["first_stable_refusal"]
        assert run.by == "dana"
        who = "erin" if run.plan.kind == "aws_akia" else "dana"
        assert {e.data["who"] for e in run.entries if e.what is What.APPROVED} == {who}
        assert (keys_[run.plan.short]["verdict"], keys_[run.plan.short]["confirmed"]) == ("dead", True)
    for words in (
        "AWS, old: InvalidClientTokenId",
        "AWS, new: arn:aws:iam::000000000000:user/release-bot",
        "PostgreSQL, old: password authentication failed",
        "PostgreSQL, new: logged in as orders",
        "Hugging Face, old: HTTP 401",
    ):
        assert words in said


def test_the_aws_rotation_was_killed_in_the_middle_and_resumed(played: tuple[str, Path]) -> None:
    said, folder = played
    if "left out: the rotation of an AWS key" in said:
        lacking("OpenBao or MiniStack is not installed")
    assert "Killed with -9: AWS has made the new key" in said
    entries = states(folder)[0].entries
    resumed = next(e.seq for e in entries if e.what is What.RESUMED)
    assert next(e.seq for e in entries if e.step == "create") < resumed
    assert next(e.seq for e in entries if e.step == "disable") > resumed


def test_the_evidence_can_be_checked_without_the_ledger(played: tuple[str, Path], tmp_path: Path) -> None:
    said, folder = played
    run = states(folder)[0].run
    assert f"whole: evidence of {run}" in said
    shutil.copy(folder / "evidence.html", tmp_path)
    with Desk(tmp_path) as desk:
        assert (
            f"whole: evidence of {run}"
            in (done := desk.run("report", "--verify", "evidence.html")).stdout + done.stderr
        )


def test_what_is_not_ours_is_refused(played: tuple[str, Path]) -> None:
    assert "belongs to somebody else and can never be rotated" in played[0]


def test_layers_and_fates_are_told(played: tuple[str, Path]) -> None:
    fates = {
        (p["path"], p["image_parts"]["fate"])
        for k in json.loads((played[1] / "lapse.json").read_text())["keys"]
        for p in k["places"]
        if p["source"] == "docker"
    }
    assert ("app/ci/deploy.env", "removed-later") in fates
    assert ("app/.env", "present") in fates


def test_no_made_up_key_is_printed(played: tuple[str, Path]) -> None:
    said, folder = played
    shown = said + (folder / "lapse.sarif").read_text() + (folder / "lapse.json").read_text()
    assert [p.kind for p, _ in leak.saas() if p.parts["secret"] in shown] == []


def test_nothing_stays_behind(played: tuple[str, Path], scratch: Path) -> None:
    assert processes(scratch) == []
    assert [p.name for p in scratch.iterdir() if p.name.startswith("lapse-sandbox-")] == []
    assert not (scratch / "home").exists()


def test_without_the_optional_pieces_it_says_so_and_goes_on(scratch: Path) -> None:
    """A Python beside which nothing else lies, and a path on which nothing is."""
    alone = scratch / "alone"
    alone.mkdir()
    (alone / "python").symlink_to(Path(sys.executable).resolve())
    with command(scratch, python=str(alone / "python"), PATH="/nowhere", PYTHONPATH=os.pathsep.join(sys.path)) as run:
        said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    for name in ("bao", "ministack"):
        assert f"missing  `{name}` is not installed" in said
    assert "kingfisher is not installed" in said
    assert "1  removed from source, never revoked" in said
    assert said.count("left out: the rotation") == 2
    assert "Killed with -9: the provider has accepted the end of the key" in said
    assert "Hugging Face, old: HTTP 401" in said
    left = Path(re.findall(r"Left for you in (\S+):", said)[-1])
    assert sorted(p.name for p in left.iterdir()) == ["evidence.html", "lapse.json", "lapse.sarif"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_everything(scratch: Path, number: signal.Signals) -> None:
    with command(scratch, "--keep", str(scratch / f"cut-{number.name}")) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("$"):
                break
        assert len(processes(scratch)) > 1
        run.send_signal(number)
        rest, _ = run.communicate(timeout=60)
    assert run.returncode == 130, rest
    assert "everything that was started is stopped" in rest
    assert "Traceback" not in rest
    end = time.monotonic() + 30
    while processes(scratch) and time.monotonic() < end:  # the kernel takes a moment to take the killed away
        time.sleep(0.05)
    assert processes(scratch) == []
    assert [p.name for p in scratch.iterdir() if p.name.startswith("lapse-sandbox-")] == []


def test_a_folder_with_something_in_it_is_refused(scratch: Path) -> None:
    full = scratch / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    with command(scratch, "--keep", str(full)) as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "not an empty folder" in said
    assert [p.name for p in full.iterdir()] == ["thesis.txt"]


def test_commands_inherit_no_account_no_proxy_and_no_place_of_the_users(tmp_path: Path) -> None:
    mine = {"AWS_PROFILE": "work", "VAULT_ADDR": "x", "HTTPS_PROXY": "p", "LAPSE_CONFIG": "c", "LANG": "C"}
    env = environment(tmp_path, {**mine, "XDG_CONFIG_HOME": "/home/me/.config", "HOME": "/home/me"})
    assert set(mine) & set(env) == {"LANG"}
    assert all(env[n].startswith(str(tmp_path)) for n in env if n.startswith("XDG_") or n == "HOME")


@pytest.mark.parametrize("kind", keys.KINDS)
def test_made_up_keys_are_taken_for_what_they_are(kind: str) -> None:
    made = keys.make(kind, "x")
    assert made == keys.make(kind, "x")
    assert made != keys.make(kind, "y")
    claim = Claim("generic", kind, Secret(made), Place(SourceKind.FILESYSTEM), 1, provider=kind)
    assert Classifier.of(CATALOGUE).classify(claim).provider == kind


def test_a_saved_image_tells_which_layer_and_what_became_of_the_file(tmp_path: Path) -> None:
    save(
        tmp_path / "x.tar",
        "acme/x:1",
        [Layer("COPY", {"a/b.env": "1", "c.env": "2"}), Layer("RUN", removed=("a", "c.env"))],
    )
    with LayerIndex(tmp_path / "x.tar") as index:
        assert index.images[0].names == ("acme/x:1",)
        for path in ("a/b.env", "c.env"):
            place = Place(SourceKind.DOCKER, image=Image("x", "docker.io", "acme", tag="1"), path=path)
            found = index.annotate(Claim("generic", "r", Secret("s"), place, 1)).place.image
            assert found is not None
            assert found.fate is LayerFate.REMOVED_LATER


def test_a_configured_address_stands_in_for_the_host_that_a_report_lacks(tmp_path: Path) -> None:
    token = makers.make("vault_token")
    with simulator() as saas, Desk(tmp_path, saas, ["vault_token"]) as desk:
        saas.add("vault_token", token, "live")
        bare = {"provider": "vault_token", "parts": {"secret": token}}
        (line,) = desk.lines("verify", desk.report([bare]), "--format", "jsonl", code=10)
    assert line["verdict"] == "live"


def test_kingfishers_connection_strings_are_read_whole(tmp_path: Path) -> None:
    password = makers.hexes(20)
    uri = f"postgresql://orders:{password}@db.acme.internal:5432/orders"
    rule = "betterleaks.generic-credential-uri"
    finding = {"snippet": password, "path": ".env", "line": 1, "fingerprint": "1", "confidence": "medium",
               "validate_command": f"kingfisher validate --rule '{rule}' '{uri}'"}  # fmt: skip
    report = {"findings": [{"rule": {"name": "generic-credential-uri", "id": rule}, "finding": finding}]}
    with Desk(tmp_path) as desk:
        (tmp_path / "k.json").write_text(json.dumps(report))
        assert desk.json("ingest", "k.json", "--format", "json")["findings"] == 1
        (key,) = desk.json("report", "--format", "json")["keys"]
    assert key["provider"] == "postgres"
