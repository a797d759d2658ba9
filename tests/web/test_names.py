"""A part of a name is found wherever it stands, and in that line alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lapse.names import Haystack

WORDS = st.text("abAB İß/.\n-", max_size=6)


@given(st.lists(WORDS, max_size=12), WORDS, st.integers(1, 12))
def test_it_finds_what_a_loop_finds(lines: list[str], part: str, most: int) -> None:
    rows = [(n * 7, line) for n, line in enumerate(lines)]
    slow = [
        n for n, line in rows if part and "\n" not in part and part.casefold() in line.casefold().replace("\n", " ")
    ]
    assert Haystack(rows).find(part, most) == slow[:most]


def test_no_line_no_find() -> None:
    assert Haystack([]).find("a", 5) == []
    assert len(Haystack([(1, ""), (2, "")])) == 2
