"""Plays the console blocks of a page: every command is run, in order, in one folder, and what the page shows must come.

A shown line need not be literal where no run is like another: `…` stands for anything, blanks for any blanks, numbers
of ports, times and digests for their like. Ids of keys and runs are bound when they are first shown, and stand for the
same key from there on, in commands too. `# exit code N` beside a command says what it ends with, otherwise 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FENCE = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]*)\")?[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
NOT_HERE = re.compile(r"Needs ")
"""How the title of a block begins whose commands cannot run here; the rest of it says what they need."""

_ID = re.compile(r"\b([a-z][a-z0-9_]*)-([0-9a-f]{6})\b")
_LIKE = (
    (re.compile(r"\d{4}\\-\d\d\\-\d\d"), r"\\d{4}-\\d\\d-\\d\\d"),
    (re.compile(r"\d\d:\d\d(?::\d\d)?"), r"\\d\\d:\\d\\d(?::\\d\\d)?"),
    (re.compile(r"127\\\.0\\\.0\\\.1:\d+"), r"127\\.0\\.0\\.1:\\d+"),
    (re.compile(r"sha256:[0-9a-f]+"), "sha256:[0-9a-f]+"),
    (re.compile(r"\d+(?:\\\.\d+)?\\ s\b"), r"\\d+(?:\\.\\d+)?\\ s"),
    (re.compile("…"), ".*"),
)


@dataclass(frozen=True)
class Command:
    """One `$ …` of a page: what is typed, what it ends with, and the lines shown below it."""

    line: int
    typed: str
    code: int
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title, text and where it stands."""

    language: str
    title: str
    text: str
    line: int

    def commands(self) -> list[Command]:
        """Return the commands of a console block."""
        found: list[Command] = []
        for offset, line in enumerate(self.text.splitlines()):
            if line.startswith("$ "):
                typed, _, note = line[2:].partition("  #")
                code = re.search(r"exit code (\d+)", note)
                found.append(Command(self.line + 1 + offset, typed.strip(), int(code.group(1)) if code else 0, ()))
            elif found and line.strip():
                last = found.pop()
                found.append(Command(last.line, last.typed, last.code, (*last.shown, _blanks(line))))
        return found


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [
        Block(m[2], m[3] or "", re.sub(rf"^{m[1]}", "", m[4], flags=re.MULTILINE), text[: m.start()].count("\n") + 1)
        for m in FENCE.finditer(text)
    ]


@dataclass
class Session:
    """One page being played. `bound` maps ids as the page shows them to those of this run."""

    page: str
    bound: dict[str, str] = field(default_factory=dict)

    def typed(self, command: Command) -> str:
        """Return what to type, with this run's ids."""

        def here(m: re.Match[str]) -> str:
            assert m[0] in self.bound, f"{self.page}:{command.line}: {m[0]} is used before any output shows it"
            return self.bound[m[0]]

        return _ID.sub(here, command.typed)

    def compare(self, command: Command, code: int, said: str) -> None:
        """Hold what came against what is shown: every shown line is one that came, each taken once."""
        where = f"{self.page}:{command.line}: `{command.typed}`"
        assert code == command.code, f"{where} ended with {code}, not {command.code}:\n{said}"
        for shown in self.lacking(command.shown, said):
            raise AssertionError(f"{where}: nothing said is like\n  {shown}\nin\n{said}")

    def lacking(self, shown: Iterable[str], said: str) -> list[str]:
        """Return the shown lines that did not come, each that came taken once; `$ …` stands in for a prompt."""
        lines = [_blanks(line).removeprefix("$ ") for line in said.splitlines()]
        missing = []
        for one in shown:
            if one == "…":
                continue
            for i, line in enumerate(lines):
                if self._fits(one, line):
                    del lines[i]
                    break
            else:
                missing.append(one)
        return missing

    def _fits(self, shown: str, said: str) -> bool:
        names: list[str] = []
        pattern = ""
        rest = 0
        for m in _ID.finditer(shown):
            pattern += _like(shown[rest : m.start()])
            rest = m.end()
            if m[0] in self.bound:
                pattern += re.escape(self.bound[m[0]])
            elif m[0] in names:
                pattern += rf"(?P=n{names.index(m[0])})"
            else:
                pattern += rf"(?P<n{len(names)}>{m[1]}-[0-9a-f]{{6}})"
                names.append(m[0])
        found = re.fullmatch(pattern + _like(shown[rest:]), said)
        if found is None or set(found.groupdict().values()) & set(self.bound.values()):
            return False
        self.bound |= {name: found[f"n{i}"] for i, name in enumerate(names)}
        return True


def _blanks(line: str) -> str:
    return " ".join(line.split())


def _like(text: str) -> str:
    pattern = re.escape(text)
    for sort, instead in _LIKE:
        pattern = sort.sub(instead, pattern)
    return pattern
