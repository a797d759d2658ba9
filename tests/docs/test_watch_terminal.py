"""`lapse watch` on a terminal: a line an entry, its word in colour; elsewhere whole and plain."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lapse.commands.watch import _line
from playbooks.journal import Entry, What

LONG = "admin: a name\x1b[2J that is long, " * 9


def entry(what: What, text: str) -> Entry:
    return Entry(1, datetime(2026, 11, 24, 9, 34, 39, tzinfo=UTC), "preflight", what, text)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_gets_one_line_an_entry(width: int) -> None:
    plain = _line(entry(What.DONE, LONG), width)
    assert len(plain) <= width
    assert plain.endswith("…")
    coloured = _line(entry(What.DONE, LONG), width, coloured=True)
    assert coloured.replace("\x1b[32m", "").replace("\x1b[0m", "") == plain


def test_a_pipe_gets_all_of_it_and_no_control_characters() -> None:
    said = _line(entry(What.FAILED, LONG))
    assert "\x1b" not in said
    assert said.count("that is long") == 9
    assert said.startswith("2026-11-24 09:34:39  preflight    failed       admin:")
