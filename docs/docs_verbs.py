"""The command line as data: what the reference page and the manual pages are written from.

Read off the command tree itself, so that neither can say what `--help` does not.
"""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import typer.main
from msgspec import Struct

from lapse.cli import app
from lapse.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

EXITS = {
    Exit.OK: "Nothing is live and nothing waits; or --exit-zero, whatever was found.",
    Exit.BROKE: "It broke; one sentence on standard error says how.",
    Exit.USAGE: "The command or the configuration is wrong.",
    Exit.NO_INPUT: "No input could be read.",
    Exit.NO_RIGHTS: "Our own credentials lack rights.",
    Exit.OTHER_KEY: "The evidence file is whole, but signed by another key than the one named.",
    Exit.LIVE: "Live keys remain.",
    Exit.UNDECIDED: "Only undecided keys remain.",
    Exit.WAITING: "Something waits: a second look, an approval, or time.",
    Exit.PART_WAY: "Stopped part-way; what was done is on record.",
    Exit.INTERRUPTED: "Interrupted; the next run goes on from there.",
}
"""What each exit code means, for people. A test holds the list whole."""


class Word(Struct, frozen=True):
    """An option or an argument: `flags` as typed (`--quiet`, `-q`), `value` as shown (`FILE`), its help."""

    flags: tuple[str, ...]
    value: str
    help: str
    required: bool
    many: bool


class Verb(Struct, frozen=True):
    """A command, whole: `lapse ledger` has its subcommands under `verbs`. `examples` are commands as typed."""

    name: str
    title: str
    text: str
    options: tuple[Word, ...]
    arguments: tuple[Word, ...]
    verbs: tuple[Verb, ...]
    examples: tuple[str, ...]
    runs: bool

    @property
    def synopsis(self) -> str:
        """Return one line on how it is called."""
        parts = [f"lapse {self.name}".strip()]
        parts += ["[OPTIONS]"] if self.options else []
        for word in self.arguments:
            shown = word.value + (" …" if word.many else "")
            parts.append(shown if word.required else f"[{shown}]")
        return " ".join([*parts, *(["COMMAND"] if self.verbs and not self.runs else [])])


def root() -> Verb:
    """Return `lapse` itself, with every verb that is not hidden."""
    command: Any = typer.main.get_command(app)
    return _verb(command, "", _context(command, None, "lapse"))


def everything(verb: Verb) -> Iterator[Verb]:
    """Yield a verb and all below it that can be called, in the order of `--help`."""
    yield verb
    for inner in verb.verbs:
        yield from everything(inner)


def _context(command: Any, parent: Any, name: str) -> Any:  # noqa: ANN401  # typer's own click has no public name
    return command.context_class(command, parent=parent, info_name=name, **command.context_settings)


def _verb(command: Any, name: str, context: Any) -> Verb:  # noqa: ANN401  # as above
    title, _, text = inspect.cleandoc(command.help or "").partition("\n\n")
    words = [(p, _word(p, context)) for p in command.get_params(context) if not getattr(p, "hidden", False)]
    below = getattr(command, "commands", {})
    return Verb(
        name=name,
        title=" ".join(title.split()),
        text=" ".join(text.split()),
        options=tuple(w for p, w in words if p.param_type_name == "option"),
        arguments=tuple(w for p, w in words if p.param_type_name == "argument"),
        verbs=tuple(
            _verb(inner, f"{name} {part}".strip(), _context(inner, context, part))
            for part, inner in below.items()
            if not inner.hidden
        ),
        examples=tuple(re.findall(r"^\s*(lapse .+)$", command.epilog or "", re.MULTILINE)),
        runs=bool(getattr(command, "invoke_without_command", True)),
    )


def _word(param: Any, context: Any) -> Word:  # noqa: ANN401  # as above
    shown, said = param.get_help_record(context)
    value = re.sub(r" ?<(?:str|int|path|list\[\w+\])>$", "", shown)
    flags: tuple[str, ...] = ()
    if param.param_type_name == "option":
        flags = tuple(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shown.partition("<")[0]))
        value = shown.rpartition(" ")[2] if not param.is_flag else ""
    said = re.sub(r"\s*\[required\]$", "", " ".join(said.split()))
    return Word(flags, value.strip("{}[]<>").replace("...", ""), said, param.required, param.nargs == -1)
