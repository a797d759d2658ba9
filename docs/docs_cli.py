"""The reference of the command line: one page, a heading a verb."""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

from typing import TYPE_CHECKING

from docs_verbs import EXITS, everything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docs_verbs import Verb, Word

_MADE = "<!-- Made by docs/generate.py from the command line's own help. Do not edit: run `make docs`. -->"
_HEAD = (
    "A KEY is a short id such as `aws-7f3a9c`, or any unique beginning of one; a RUN is a rotation's name, such as "
    "`r-4f2a1c`. A secret is never an argument. Data goes to standard output, everything said to people to standard "
    "error. `man lapse` and `man lapse-VERB` say the same as this page."
)


def reference(root: Verb) -> str:
    """Return the page."""
    parts = [_MADE, "# Command line", _HEAD, "| verb | does |\n| --- | --- |\n" + "\n".join(_rows(root))]
    for verb in everything(root):
        if verb is not root:
            parts += _section(verb)
    codes = "\n".join(f"| {code:d} | {said} |" for code, said in EXITS.items())
    parts += ["## Exit codes", f"| code | means |\n| --- | --- |\n{codes}"]
    return "\n\n".join(parts) + "\n"


def anchor(verb: Verb) -> str:
    """Return where a verb stands on the page."""
    return "lapse-" + verb.name.replace(" ", "-")


def _rows(root: Verb) -> Iterator[str]:
    for verb in root.verbs:
        yield f"| [`{verb.name}`](#{anchor(verb)}) | {_cell(verb.title)} |"


def _section(verb: Verb) -> Iterator[str]:
    yield f"{'#' * (2 + verb.name.count(' '))} lapse {verb.name}"
    yield verb.title + (f" {verb.text}" if verb.text else "")
    yield f"```text\n{verb.synopsis}\n```"
    rows = [(f"`{w.value}`", w.help) for w in verb.arguments] + [(_flags(w), w.help) for w in verb.options]
    rows = [r for r in rows if "--help" not in r[0]]
    if rows:
        yield "| word | means |\n| --- | --- |\n" + "\n".join(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)
    if verb.examples:
        yield "Examples:"
        yield "```text\n" + "\n".join(verb.examples) + "\n```"


def _flags(word: Word) -> str:
    shown = ", ".join(f"`{f}`" for f in word.flags)
    return f"{shown} `{word.value}`" if word.value else shown


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
