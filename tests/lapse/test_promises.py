"""What must hold whatever happens: nothing leaks, nothing is changed, nothing printed is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import makers
import pytest
from desk import CATALOGUE, Beside, Desk, digitalocean, row, sendgrid, simulator
from noise import RecordingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.sandbox.saas import Saas

KINDS = ("sendgrid", "digitalocean", "openai", "anthropic", "gitlab_pat", "slack_bot")


@pytest.fixture
def saas() -> Iterator[Saas]:
    with simulator() as saas:
        yield saas


@pytest.fixture
def desk(tmp_path: Path, saas: Saas) -> Iterator[Desk]:
    with Desk(tmp_path, saas, KINDS) as desk:
        yield desk


def marked(desk: Desk, saas: Saas) -> tuple[str, list[str]]:
    """Make a report of live and dead keys of several vendors; return it and every secret in it."""
    rows, secrets = [], []
    for n, kind in enumerate(KINDS):
        for m in range(3):
            secret = makers.make(kind, seed=(kind, m))
            saas.add(kind, secret, "live" if (n + m) % 2 else "dead")
            rows.append(row(kind, secret, f"{kind}.env", m + 1))
            secrets.append(secret)
    return desk.report(rows), secrets


def test_no_secret_leaves(desk: Desk, saas: Saas) -> None:
    report, secrets = marked(desk, saas)
    said = [
        desk.run("ingest", report, code=None),
        desk.run("verify", "-v", "--format", "jsonl", code=None),
        desk.run("verify", "-v", "--all", code=None),
        *(desk.run("report", "--format", f, code=None) for f in ("json", "jsonl", "csv", "sarif")),
        desk.run("status", code=None),
        desk.run("doctor", code=None),
    ]
    keys = desk.json("report", "--format", "json")["keys"]
    said += [desk.run("show", key["key"], code=None) for key in keys[:4]]
    desk.run("report", "-o", "out.sarif")
    files = [p for p in desk.folder.rglob("*") if p.is_file() and p.name != report]
    haystacks = [(s.stdout + s.stderr).encode() for s in said] + [p.read_bytes() for p in files]
    for secret in secrets:
        for piece in (secret.encode(), secret[8:24].encode()):
            assert not any(piece in h for h in haystacks), f"{secret[:6]}… leaked"


def test_the_calls_made_are_on_the_manifest_and_only_read(desk: Desk, saas: Saas) -> None:
    report, _ = marked(desk, saas)
    desk.run("verify", report, code=None)
    printed = desk.json("providers", "--calls", "--format", "json")
    allowed = {(c["kind"], c["method"], c["path"]) for c in printed}
    assert {c["method"] for c in printed} <= {"GET", "HEAD", "POST", "LOGIN"}
    assert saas.asked
    for asked in saas.asked:
        paths = {p for k, m, p in allowed if (k, m) == (asked.kind, asked.method)}
        assert asked.path in paths, asked


def test_canaries_and_published_examples_make_no_packet(desk: Desk, saas: Saas) -> None:
    desk.config.append('[canaries]\naws_accounts = ["123456789012"]')
    desk.config.append(f'[providers.aws_akia]\nbase_url = "{saas.base_url("aws_akia")}"')
    desk.write()
    bait = row("aws_akia", makers.aws_secret())
    bait["parts"]["id"] = makers.aws_id("123456789012")
    (line,) = desk.lines("verify", desk.report([bait]), "--format", "jsonl", code=11)
    assert (line["why"], line["canary"]) == ("refused", True)
    assert "canary" in line["note"]
    assert saas.asked == []


def test_a_stripped_header_kills_nobody(tmp_path: Path, saas: Saas) -> None:
    """Behind a proxy that drops Authorization, vendors whose texts do not differ answer as to a dead key."""
    kinds = ("sendgrid", "digitalocean")
    with Beside(RecordingProxy(strip={"authorization"})) as proxy, Desk(tmp_path, saas, kinds) as desk:
        desk.config[2] += f'\nproxy = "{proxy.url}"'
        desk.write()
        for n in range(8):
            saas.add("digitalocean", digitalocean(n), "live")
            saas.add("sendgrid", sendgrid(n), "live")
        rows = [row("digitalocean", digitalocean(n)) for n in range(8)]
        rows += [row("sendgrid", sendgrid(n)) for n in range(8)]
        lines = desk.lines("verify", desk.report(rows), "--format", "jsonl", code=None)
    assert len(lines) == 16
    assert not any(x["confirmed"] for x in lines)
    assert not any(a.known for a in saas.asked)


def test_kill_in_mid_run_loses_no_printed_verdict_and_the_rest_is_asked_next(desk: Desk, saas: Saas) -> None:
    desk.config[3] = desk.config[3].replace("rate = 1000.0\nburst = 1000", "rate = 40.0\nburst = 1")
    desk.write()
    for n in range(60):
        saas.add("sendgrid", sendgrid(n), "live")
    desk.run("ingest", desk.report(row("sendgrid", sendgrid(n)) for n in range(60)))
    with desk.start("verify", "--format", "jsonl") as run:
        assert run.stdout is not None
        printed = [json.loads(run.stdout.readline()) for _ in range(10)]
        run.send_signal(signal.SIGKILL)
        printed += [json.loads(line) for line in run.stdout.read().splitlines() if line.endswith("}")]
    known = {k["key"]: k["verdict"] for k in desk.json("report", "--format", "json")["keys"]}
    assert all(known[p["key"]] == "live" for p in printed)
    assert "whole" in desk.run("ledger", "check").stderr
    before = len(saas.asked)
    rest = desk.lines("verify", "--format", "jsonl", code=10)
    assert {p["key"] for p in printed}.isdisjoint(x["key"] for x in rest)
    assert len(known) == 60
    assert len(saas.asked) - before == len(rest) < 60


def test_a_killed_one_shot_goes_on_too_and_a_later_whole_run_ends_the_matter(desk: Desk, saas: Saas) -> None:
    fast = desk.config[3]
    desk.config[3] = fast.replace("rate = 1000.0\nburst = 1000", "rate = 40.0\nburst = 1")
    desk.write()
    for n in range(60):
        saas.add("sendgrid", sendgrid(n), "live")
    report = desk.report(row("sendgrid", sendgrid(n)) for n in range(60))
    with desk.start("verify", report, "--format", "jsonl") as run:
        assert run.stdout is not None
        printed = [json.loads(run.stdout.readline()) for _ in range(10)]
        run.send_signal(signal.SIGKILL)
        printed += [json.loads(line) for line in run.stdout.read().splitlines() if line.endswith("}")]
    before = len(saas.asked)
    desk.config[3] = fast
    desk.write()
    rest = desk.lines("verify", report, "--format", "jsonl", code=10)
    assert {p["key"] for p in printed}.isdisjoint(x["key"] for x in rest)
    assert len(saas.asked) - before == len(rest) < 60
    assert len(desk.lines("verify", report, "--format", "jsonl", code=10)) == 60
    with desk.start("verify", rest[0]["key"]) as alone:
        alone.send_signal(signal.SIGKILL)
    assert len(desk.lines("verify", "--format", "jsonl", code=10)) == 60


def test_interrupt_ends_with_a_sentence(desk: Desk, saas: Saas) -> None:
    desk.config[3] = desk.config[3].replace("rate = 1000.0\nburst = 1000", "rate = 5.0\nburst = 1")
    desk.write()
    saas.add("sendgrid", sendgrid(1), "live")
    report = desk.report(row("sendgrid", sendgrid(n)) for n in range(60))
    with desk.start("verify", report, "--format", "jsonl", "-q") as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda _: None, 3, ["missing.json"]),
        (lambda p: (p / "missing.json").write_bytes(b""), 3, ["missing.json", "empty"]),
        (lambda p: (p / "missing.json").mkdir(), 3, ["missing.json", "directory"]),
        (lambda p: (p / "missing.json").write_text("hello"), 3, ["missing.json", "lapse formats"]),
        (lambda p: (p / "missing.json").write_text('[{"RuleID": "x", "Secr'), None, ["missing.json"]),
    ],
)
def test_bad_input_is_one_clear_sentence(tmp_path: Path, make: object, code: int | None, words: list[str]) -> None:
    with Desk(tmp_path) as desk:
        make(tmp_path)
        said = desk.run("ingest", "missing.json", code=code)
    for word in words:
        assert word in said.stderr


def test_good_rows_of_a_bad_file_are_kept_and_counted(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        good = json.dumps(row("sendgrid", sendgrid(1)))
        (tmp_path / "mixed.jsonl").write_text(f"{good}\n{{broken\n{good.replace('0001', '0002')}\n")
        said = desk.run("ingest", "mixed.jsonl", "--format", "json")
        told = json.loads(said.stdout)
    assert told["files"][0]["findings"] == 2
    assert told["files"][0]["skipped"] == 1
    assert "mixed.jsonl:2" in said.stderr


def test_stdin_and_gzip(tmp_path: Path) -> None:
    import gzip  # this test only

    text = json.dumps(row("sendgrid", sendgrid(1))) + "\n"
    with Desk(tmp_path) as desk:
        assert json.loads(desk.run("ingest", "-", "--format", "json", stdin=text).stdout)["findings"] == 1
        (tmp_path / "r.gz").write_bytes(gzip.compress(text.encode()))
        assert desk.json("ingest", "r.gz", "--format", "json")["findings"] == 1


def test_help_imports_nothing_heavy() -> None:
    """`lapse --help` answers at once because it imports next to nothing."""
    code = (
        "import sys, lapse.cli\n"
        "heavy = {'sqlalchemy','botocore','azure','google','openai','hvac','msgspec','rich','pyreqwest','asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_colour_in_a_pipe(desk: Desk, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    said = desk.run("verify", desk.report([row("sendgrid", sendgrid(1))]), code=10)
    assert "\x1b" not in said.stdout + said.stderr


def test_hostile_text_of_a_scanner_is_blunted(desk: Desk, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    path = "\x1b]0;owned\x07\u202eevil\n=cmd|calc"
    desk.run("verify", desk.report([row("sendgrid", sendgrid(1), path)]), code=10)
    for said in (desk.run("status", code=10), desk.run("show", "sendgrid-", code=10)):
        assert "\x1b" not in said.stdout
        assert "\u202e" not in said.stdout
    assert "\n=cmd" not in desk.run("report", "--format", "csv").stdout


def test_every_kind_that_is_asked_over_http_can_be_overridden(tmp_path: Path) -> None:
    assert len(CATALOGUE) > 60
    with Desk(tmp_path) as desk:
        desk.config += [f'[providers.{k.id}]\nbase_url = "https://sandbox.acme.test/{k.id}"' for k in CATALOGUE]
        desk.write()
        assert "BROKEN" not in desk.run("doctor").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[scope]\nmod = 'ours'\n", ["lapse.toml:2", "mod", "mode"]),
        ("[scop]\n", ["scop", "scope"]),
        ("[verify]\nconfirm_after = 'soon'\n", ["lapse.toml:2", "duration"]),
        ("[egress]\nallow_private = ['localhost']\n", ["lapse.toml:2", "network"]),
        ("[providers.sendgird]\nbase_url='https://x.test'\n", ["sendgird", "sendgrid"]),
        ("[providers.sendgrid]\nbase_url='ftp://x.test'\n", ["lapse.toml:2", "https"]),
        ("[scope]\nmode = 'theirs'\n", ["lapse.toml:2", "theirs"]),
        ("= 1\n", ["TOML"]),
    ],
)
def test_mistakes_in_the_config_name_file_line_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "lapse.toml").write_text(text)
    said = desk.run("providers", code=2)
    for word in words:
        assert word in said.stderr, said.stderr


def test_a_literal_key_in_the_config_is_refused_and_not_repeated(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    literal = "k9" + "Zr7Qm2Xw8" * 3
    (tmp_path / "lapse.toml").write_text(f"[ledger]\nkey = '{literal}'\n")
    said = desk.run("doctor", code=2)
    assert "looks like a key" in said.stderr
    assert literal not in said.stderr


def test_environment_beats_file_and_flag_beats_environment(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "lapse.toml").write_text("[egress]\nallow_private = ['10.0.0.0/8']\n")
    desk.env["LAPSE_EGRESS_ALLOW_PRIVATE"] = "192.168.7.0/24"
    assert "192.168.7.0/24" in desk.run("doctor").stdout
    (tmp_path / "other.toml").write_text("[egress]\nproxy = 'http://proxy.acme.test:3128'\n")
    said = desk.run("doctor", "--config", "other.toml").stdout
    assert "by a proxy" in said
