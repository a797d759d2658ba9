"""Mistakes in a spec are named with file and line."""

from __future__ import annotations

import re

import pytest
from test_rules import SPEC

from verifier.specfile import SpecError, line_of, parse

TEXT = SPEC.decode()


def broken(old: str, new: str) -> str:
    assert old in TEXT
    with pytest.raises(SpecError) as caught:
        parse(TEXT.replace(old, new, 1).encode(), "acme", "acme.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ('title = "Acme"', 'titel = "Acme"', 1, "titel"),
        ('id       = "acme"', 'id = "Ac me"', 6, "id"),
        ("status  = 200", "statsu  = 200", 18, "statsu"),
        ("status  = 200", 'status  = "200"', 20, "status"),
        ('verdict = "restricted"', 'verdict = "alive"', 25, "verdict"),
        ('json    = { active = true }\nhas     = ["user.login"]', "", 18, "bare status"),
        ('json    = { "error.code" = "key_revoked" }', "", 28, "own words"),
        ('json    = { "error.code" = "key_revoked" }', 'json = { "error.code" = "forbidden" }', 28, "any gateway"),
        ('json    = { "error.code" = "key_revoked" }', 'json = { "error.code" = "invalid_client" }', 28, "any gateway"),
        (
            'json    = { active = true }\nhas     = ["user.login"]',
            'json = { error = "invalid_grant" }',
            18,
            "any gateway",
        ),
        ('how     = "revoked"', 'why = "blocked"', 28, "why"),
        ('has     = ["user.login"]', 'has = ["user..login"]', 18, "no path"),
        ('bearer = "{secret}"', 'bearer = "{token}"', 13, "token"),
        ('bearer = "{secret}"', 'bearer = "x"', 13, "never be sent"),
        ('base   = ["https://api.acme.test"]', 'base = ["http://api.acme.test"]', 13, "https"),
        ('path   = "/me"', 'path = "me"', 13, "begin with /"),
        ('reads  = "tells who the key belongs to"', 'reads = "x"', 17, "12"),
        ("pattern = 'acme_\\w+'", "pattern = 'acme_('", 11, "regular expression"),
        ('arrival = "proven"', 'arrival = "proven"\nconfidence = "unconfirmed"', 28, "never dead"),
        ('type    = "html"', "", 38, "text needs"),
    ],
)
def test_mistakes_name_file_line_and_cause(old: str, new: str, line: int, word: str) -> None:
    said = broken(old, new)
    assert word in said, said
    m = re.match(r"acme\.toml:(\d+):", said)
    assert m is not None, said
    assert abs(int(m.group(1)) - line) <= 2, said


def test_not_toml_and_not_utf8() -> None:
    with pytest.raises(SpecError, match="not TOML"):
        parse(b"= 3", "a", "a.toml")
    with pytest.raises(SpecError, match="not UTF-8"):
        parse(b"\xff", "a", "a.toml")
    with pytest.raises(SpecError, match="no \\[\\[kind\\]\\]"):
        parse(b'title = "x"\ndocs = "https://x.test"', "a", "a.toml")


def test_two_kinds_of_one_name() -> None:
    doubled = TEXT + TEXT[TEXT.index("[[kind]]") :]
    with pytest.raises(SpecError, match="two kinds are called acme"):
        parse(doubled.encode(), "acme", "acme.toml")


def test_line_of_finds_the_nearest() -> None:
    assert TEXT.splitlines()[line_of(TEXT, ".kind[0].rule[1].status") - 1] == "status  = [401, 403]"
    assert TEXT.splitlines()[line_of(TEXT, ".kind[0].rule[2]") - 1] == "[[kind.rule]]"
    assert line_of(TEXT, ".nowhere") == 1
