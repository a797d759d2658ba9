"""The command line on a PostgreSQL ledger, end to end; where the password comes from, and that nobody sees it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from ledger_making import KEY, made, set_key

from lapse.commands.setup import Setup
from lapse.config import Config, LedgerConfig, load
from lapse.exits import Stop
from lapse.ledger import open_ledger
from lapse.rotation import Desk as Rotations

sys.path.insert(0, str(Path(__file__).parents[1] / "lapse"))  # `desk`: the command line in its own process
from desk import Desk, row, sendgrid, simulator

if TYPE_CHECKING:
    from collections.abc import Iterator


class Away(Desk):
    """A desk whose ledger is in PostgreSQL; the password comes by reference, and what is printed never shows it."""

    def __init__(self, folder: Path, address: str, *args: object) -> None:
        super().__init__(folder, *args)  # type: ignore[arg-type]  # words for the command line
        url = urlsplit(address)
        self.password = str(url.password)
        bare = address.replace(f":{self.password}@", "@")
        self.config[0] = f'[ledger]\nurl = "{bare}"\npassword = "env:PG_SECRET"\nkey = "file:ledger.key"'
        self.env |= {"PG_SECRET": self.password}


@pytest.fixture
def desk(tmp_path: Path, pg: str) -> Iterator[Away]:
    with simulator() as saas:
        saas.add("sendgrid", sendgrid(1), "live")
        saas.add("sendgrid", sendgrid(2), "restricted")
        with Away(tmp_path, pg, saas, ["sendgrid"]) as desk:
            yield desk


def test_the_main_job_works_on_postgresql_and_shows_no_password(desk: Away) -> None:
    report = desk.report([row("sendgrid", sendgrid(n), f"{m}.env") for n in range(4) for m in range(3)])
    told = desk.json("ingest", report, "--format", "json")
    assert (told["findings"], told["keys"], told["new"]) == (12, 4, 4)
    lines = desk.lines("verify", "--format", "jsonl", code=10)
    assert sorted((x["verdict"], x["confirmed"]) for x in lines) == [
        ("dead", True), ("dead", True), ("live", False), ("live", False),
    ]  # fmt: skip
    status = desk.json("status", "--format", "json", code=10)["status"]
    assert (status["live"], status["dead"]) == (2, 2)
    live = next(x["key"] for x in lines if x["verdict"] == "live")
    texts = [desk.run("show", live, code=None), desk.run("report", "-o", "r.html")]
    assert (desk.folder / "r.html").stat().st_size > 10_000
    texts += [desk.run("nightly", "--no-sources", code=10), desk.run("doctor"), desk.run("ledger", "check")]
    assert "ok    ledger: postgresql://127.0.0.1:" in texts[3].stdout
    assert "whole" in texts[4].stderr
    for said in texts:
        assert desk.password not in said.stdout + said.stderr
    assert not desk.ledger.exists(), "nothing of it is in a file"


def test_a_database_out_of_reach_is_one_sentence(tmp_path: Path, pg: str) -> None:
    desk = Away(tmp_path, pg)
    desk.env["PG_SECRET"] = "wrong-one"
    desk.write()
    said = desk.run("doctor", code=1)
    assert "BROKEN PostgreSQL does not let us log in" in said.stdout
    assert "wrong-one" not in said.stdout + said.stderr


# ── where it is ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "password", "address"),
    [
        ("postgresql://ann@db:5432/l?sslmode=require", "env:T_PW", "postgresql://ann:p%40%2F%3Aw@db:5432/l?sslmode=require"),
        ("postgresql://ann@h1:1,h2:2/l", "env:T_PW", "postgresql://ann:p%40%2F%3Aw@h1:1,h2:2/l"),
        ("postgresql://ann@db/l", "", "postgresql://ann@db/l"),
        ("env:T_URL", "", "postgresql://ann:x@db/l"),
        ("sqlite:////var/l.db", "", "sqlite:////var/l.db"),
        ("/var/l.db", "", "/var/l.db"),
    ],
)  # fmt: skip
def test_the_address_is_put_together_from_references(
    monkeypatch: pytest.MonkeyPatch, url: str, password: str, address: str
) -> None:
    monkeypatch.setenv("T_PW", "p@/:w")
    monkeypatch.setenv("T_URL", "postgresql://ann:x@db/l")
    assert Config(ledger=LedgerConfig(url=url, password=password)).ledger_url == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('url = "postgresql://ann:hunter2@db/l"', r"lapse.toml:2: ledger.url holds a password"),
        ('url = "postgresql://ann@db/l?password=hunter2"', r"lapse.toml:2: ledger.url holds a password"),
        ('url = "postgresql://ann@db/l"\npassword = "hunter2"', r"lapse.toml:3: ledger.password must be a reference"),
    ],
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "lapse.toml"
    file.write_text(f"[ledger]\n{text}\n")
    with pytest.raises(Stop, match=said) as caught:
        load(file, {})
    assert "hunter2" not in str(caught.value)


def test_a_password_needs_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T_PW", "x")
    for url in ("postgresql://db/l", "env:T_URL"):
        monkeypatch.setenv("T_URL", "postgresql://ann:y@db/l")
        with pytest.raises(Stop, match=r"needs a ledger\.url with a user"):
            _ = Config(ledger=LedgerConfig(url=url, password="env:T_PW")).ledger_url


def test_what_belongs_to_the_ledger_on_this_machine_stands_in_the_state_folder(pg: str, tmp_path: Path) -> None:
    key = set_key()
    with made(pg) as ledger, open_ledger(pg, KEY) as again:
        assert ledger.path == again.path == tmp_path / "data" / "lapse" / f"ledger-{ledger.name}"
        assert ledger.path.parent.is_dir()
        place = Rotations(Setup(Config(ledger=LedgerConfig(url=pg, key=key))), ledger).place
        assert place.lock.parent == ledger.path.parent
    with open_ledger(tmp_path / "l.db", key) as ledger, open_ledger(pg, KEY, state=tmp_path / "s") as other:
        assert ledger.path == tmp_path / "l.db"
        assert ledger.where == str(ledger.path)
        assert other.path.parent == tmp_path / "s"
