"""Manual pages in mdoc(7): `lapse.1`, and one a verb with its subcommands."""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import re
from textwrap import wrap
from typing import TYPE_CHECKING

from docs_verbs import EXITS

from lapse import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docs_verbs import Verb, Word

_DATED = "November 24, 2026"
"""When the hand-written sections below were last looked over; a clock would make the pages differ every day."""

_ENVIRONMENT = (
    ("LAPSE_CONFIG", "The configuration file, where --config names none."),
    ("LAPSE_SECTION_KEY", "Any key of the configuration, such as LAPSE_VERIFY_TIMEOUT=20s."),
    ("HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE", "How to get out; [egress] of the configuration wins."),
    ("NO_COLOR", "No colour on a terminal."),
)
_FILES = (
    ("./lapse.toml", "The configuration, else"),
    ("~/.config/lapse/config.toml", "the configuration of this user (under XDG_CONFIG_HOME)."),
    ("~/.local/share/lapse/", "The ledger and its keys, unless configured elsewhere (under XDG_DATA_HOME)."),
)


def manual(root: Verb) -> dict[str, str]:
    """Return the text of every page by its file name."""
    made = {"lapse.1": _whole(root)}
    for verb in root.verbs:
        made[f"lapse-{verb.name}.1"] = _page(root, verb)
    return made


def _lines(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _top(name: str, title: str) -> Iterator[str]:
    yield ".\\\" Made by docs/generate.py from the command line's own help. Do not edit: run make docs."
    yield f".Dd {_DATED}"
    yield f".Dt {name.upper()} 1"
    yield f".Os Lapse {__version__}"
    yield ".Sh NAME"
    yield f".Nm {name}"
    yield f".Nd {_text(title.rstrip('.'))}"


def _whole(root: Verb) -> str:
    return _lines(_whole_lines(root))


def _whole_lines(root: Verb) -> Iterator[str]:
    yield from _top("lapse", root.title)
    yield ".Sh SYNOPSIS"
    yield ".Nm"
    yield ".Ar verb"
    yield ".Op Ar options"
    yield ".Sh DESCRIPTION"
    yield from _paragraph(
        "Reads the report of any secret scanner, boils its findings down to distinct keys, asks each provider by a "
        "read-only call whether the key still works, replaces those that do, and proves the old ones dead."
    )
    yield ".Pp"
    yield from _paragraph(
        "A KEY is a short id such as aws-7f3a9c, or any unique beginning of one. A secret is never an argument. Data "
        "goes to standard output, everything said to people to standard error."
    )
    yield ".Pp"
    yield "The verbs, each with a page of its own:"
    yield ".Bl -tag -width completion"
    for verb in root.verbs:
        yield f".It Xr lapse-{verb.name} 1"
        yield _text(verb.title)
    yield ".El"
    yield from _options(root.options)
    yield from _tagged("ENVIRONMENT", _ENVIRONMENT, "Ev")
    yield from _tagged("FILES", _FILES, "Pa")
    yield from _exits()
    yield from _examples(("lapse ingest report.json", "lapse verify", "lapse status", "lapse rotate aws-7f3a9c"))


def _page(root: Verb, verb: Verb) -> str:
    return _lines(_page_lines(root, verb))


def _page_lines(root: Verb, verb: Verb) -> Iterator[str]:
    yield from _top(f"lapse-{verb.name}", verb.title)
    yield ".Sh SYNOPSIS"
    for one in (verb, *verb.verbs) if verb.runs else verb.verbs:
        yield f".Nm lapse {one.name}"
        yield from _usage(one)
    yield ".Sh DESCRIPTION"
    yield from _paragraph(f"{verb.title} {verb.text}")
    for one in verb.verbs:
        yield f".Ss lapse {one.name}"
        yield from _paragraph(f"{one.title} {one.text}")
        yield from _list((*one.arguments, *one.options))
    yield from _options((*verb.arguments, *verb.options))
    yield from _exits()
    yield from _examples(tuple(e for one in (verb, *verb.verbs) for e in one.examples))
    yield ".Sh SEE ALSO"
    names = sorted(
        f"lapse-{v.name}" for v in root.verbs if v is not verb and re.search(rf"lapse {v.name}\b", _all(verb))
    )
    yield " ,\n".join(f".Xr {n} 1" for n in ["lapse", *names])


def _all(verb: Verb) -> str:
    words = [w.help for w in (*verb.options, *verb.arguments)]
    return " ".join([verb.text, *words, *(_all(v) for v in verb.verbs)])


def _usage(verb: Verb) -> Iterator[str]:
    for word in verb.options:
        if "--help" not in word.flags:
            yield f".Op {_said(word.flags[0], word.value)}"
    for word in verb.arguments:
        more = " ..." if word.many else ""
        yield f".Ar {_text(word.value)}{more}" if word.required else f".Op Ar {_text(word.value)}{more}"


def _options(words: tuple[Word, ...]) -> Iterator[str]:
    if words:
        yield ".Sh OPTIONS"
        yield from _list(words)


def _list(words: tuple[Word, ...]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for word in words:
        shown = " , ".join(_said(flag, word.value) for flag in word.flags)
        yield f".It {shown}" if word.flags else f".It Ar {_text(word.value)}"
        yield from _paragraph(word.help)
    yield ".El"


def _said(flag: str, value: str) -> str:
    return f"Fl {_text(flag[1:])}" + (f" Ar {_text(value)}" if value else "")


def _exits() -> Iterator[str]:
    yield ".Sh EXIT STATUS"
    yield ".Bl -tag -width Ds"
    for code, said in EXITS.items():
        yield f".It {code:d}"
        yield from _paragraph(said)
    yield ".El"


def _examples(commands: tuple[str, ...]) -> Iterator[str]:
    if commands:
        yield ".Sh EXAMPLES"
        yield ".Bd -literal -offset indent"
        yield from (_text(c) for c in commands)
        yield ".Ed"


def _tagged(head: str, rows: tuple[tuple[str, str], ...], macro: str) -> Iterator[str]:
    yield f".Sh {head}"
    yield ".Bl -tag -width Ds"
    for name, said in rows:
        yield ".It " + " , ".join(f"{macro} {_text(n)}" for n in name.split(", "))
        yield from _paragraph(said)
    yield ".El"


def _paragraph(text: str) -> Iterator[str]:
    """Yield each sentence on a line of its own, as roff wants it, and long ones on several."""
    for sentence in re.split(r"(?<=[.;:]) (?=[A-Z])", " ".join(text.replace("`", "").split())):
        yield from (_text(line) for line in wrap(sentence, 72, break_on_hyphens=False, break_long_words=False))


def _text(text: str) -> str:
    """Return text that no line of roff takes for a command; other letters than ASCII by their numbers."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text
