"""The help is copy, too: every option says what it is for, every title fits its line, every example is right."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lapse.exits import Exit

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
try:
    from docs_verbs import EXITS, Verb, everything, root
finally:
    sys.path.pop(0)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = root()
VERBS = {v.name: v for v in everything(ROOT)}
LONGEST = 62
"""Characters of a title that `lapse --help` shows whole on 80 columns."""


def words() -> Iterator[Any]:
    for name, verb in VERBS.items():
        for word in (*verb.options, *verb.arguments):
            yield pytest.param(word, id=f"{name or 'lapse'} {word.flags[0] if word.flags else word.value}")


@pytest.mark.parametrize("word", list(words()))
def test_every_option_and_argument_says_what_it_is_for(word: Any) -> None:
    said = re.sub(r" +\[(?:default|x)[^\]]*\]$", "", word.help)
    assert said, "no help"
    assert said[0].isupper() or said.split()[0] in {"graceful:", "bash,", "viewer,"}, said
    assert said.endswith((".", ")", "…")), said
    assert len(said) <= 100, said


@pytest.mark.parametrize("verb", list(VERBS.values()), ids=lambda v: v.name or "lapse")
def test_titles_are_short_and_whole_sentences(verb: Verb) -> None:
    assert verb.title.endswith(".")
    assert verb.title[0].isupper()
    if verb is not ROOT:
        assert len(verb.title) <= LONGEST, verb.title


@pytest.mark.parametrize("command", [e for v in VERBS.values() for e in v.examples])
def test_every_example_is_right(command: str) -> None:
    typed = shlex.split(command.partition("|")[0].partition(">")[0])[1:]
    name = " ".join(typed[:2]) if " ".join(typed[:2]) in VERBS else typed[0]
    known = {flag for word in VERBS[name].options for flag in word.flags}
    assert {w.partition("=")[0] for w in typed if w.startswith("-") and w != "-"} <= known


def test_the_verbs_of_a_busy_night_have_examples() -> None:
    assert [
        v for v in ("ingest", "verify", "rotate", "approve", "resume", "undo", "report") if not VERBS[v].examples
    ] == []


def test_every_exit_code_has_its_words() -> None:
    assert set(EXITS) == set(Exit)
