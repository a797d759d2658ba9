"""A mistake is blamed on where it was made; the doctor tries the sealing key on the ledger that it is for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lapse.commands import doctor
from lapse.config import load
from lapse.exits import Exit, Stop
from lapse.ledger import open_ledger

if TYPE_CHECKING:
    from pathlib import Path

FILE = '[scope]\nmode = "ours"\n[verify]\nretries = 1\n'


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LAPSE_VERIFY_RETRIES", "many", "verify.retries: Expected `int`"),
        ("LAPSE_VERIFY_CONFIRM_AFTER", "soon", "verify.confirm_after is no duration"),
        ("LAPSE_SCOPE_MODE", "theirs", "scope.mode: Invalid enum value 'theirs'"),
        ("LAPSE_EGRESS_ALLOW_PRIVATE", "10.0.0.0/8,home", "`home` is no network"),
        ("LAPSE_NOTIFY_URLS", "https://chat.acme.test", "notify.urls must be a reference"),
        ("LAPSE_LEDGER_URL", "postgresql://ann:pw@db/l", "ledger.url holds a password"),
        ("LAPSE_SERVE_OIDC", "yes", "serve.oidc: Expected `object`"),
    ],
)
@pytest.mark.parametrize("beside", ["a file", "no file"])
def test_a_bad_value_of_the_environment_is_blamed_on_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str, beside: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if beside == "a file":
        (tmp_path / "lapse.toml").write_text(FILE)
    with pytest.raises(Stop) as told:
        load(environ={name: value})
    assert str(told.value).startswith(f"{name}: {words}")
    assert "lapse.toml" not in str(told.value)


def test_a_bad_value_of_the_file_is_blamed_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "lapse.toml"
    file.write_text(FILE.replace("retries = 1", 'retries = "x"'))
    with pytest.raises(Stop, match=r"lapse\.toml:4: verify\.retries"):
        load(file, {"LAPSE_VERIFY_TIMEOUT": "5s"})
    assert load(file, {"LAPSE_VERIFY_RETRIES": "7"}).verify.retries == 7
    file.write_text("scope = 3\n")
    with pytest.raises(Stop, match=r"lapse\.toml:1: scope: Expected `object`"):
        load(file, {"LAPSE_SCOPE_MODE": "ours"})


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [
        ("env:T_RIGHT", Exit.OK, "ok    sealing key: env:T_RIGHT, which opens this ledger"),
        ("env:T_WRONG", Exit.BROKE, "BROKEN env:T_WRONG is not the key that this ledger was sealed with"),
        ("", Exit.BROKE, "is sealed; configure the key that it was made with (ledger.key)"),
    ],
    ids=["right", "wrong", "none"],
)
def test_the_doctor_tries_the_sealing_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, code: Exit, said: str
) -> None:
    for name in ("T_RIGHT", "T_WRONG"):
        monkeypatch.setenv(name, os.urandom(32).hex())
    open_ledger(tmp_path / "ledger.db", "env:T_RIGHT").close()
    file = tmp_path / "lapse.toml"
    file.write_text(f'[ledger]\nurl = "{tmp_path}/ledger.db"\nkey = "{key}"\n')
    assert doctor.run(file) is code
    assert said in capsys.readouterr().out


def test_the_doctor_makes_no_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lapse.toml"
    file.write_text(f'[ledger]\nurl = "{tmp_path}/ledger.db"\n')
    assert doctor.run(file) is Exit.OK
    assert "will be made at first use" in capsys.readouterr().out
    assert not (tmp_path / "ledger.db").exists()


def test_the_doctor_names_variables_that_set_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lapse.toml"
    file.write_text(f'[ledger]\nurl = "{tmp_path}/ledger.db"\n[rotate]\nengine = "env:LAPSE_ROTATE_TABLES"\n')
    for name in ("LAPSE_SCOPE_MOOD", "LAPSE_SCOPE_MODE", "LAPSE_ROTATE_TABLES", "LAPSE_DATABASE"):
        monkeypatch.setenv(name, "ours")
    assert doctor.run(file) is Exit.OK
    assert "note  environment: LAPSE_SCOPE_MOOD: no such setting, so it changes nothing\n" in capsys.readouterr().out
