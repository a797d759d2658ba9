"""Files for going over to short-lived sessions where Lapse does not do it itself: templates, filled with public values.

A proposal is a folder of `playbooks/proposals`: `proposal.toml` says what it is and which values it needs, every other
file is a template. A field stands as `[[ name ]]`, since the files' own braces are GitHub's, Terraform's and JSON's.
What fits no field's pattern is refused, so that a value cannot break out of a string, a script or a policy.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

_ABOUT = "proposal.toml"
_NAME = re.compile(r"[a-z][a-z0-9-]*")


class ProposalError(ValueError):
    """A proposal cannot be written: one sentence that names the field or file, and the remedy."""


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """One value: what it is, the pattern it must match whole, and where it comes from if nobody says it.

    `known` names public facts of the key, the first that is there counts: `old.PART`, `account`, `principal`, `owner`.
    `default` is taken where none is; without one the value must be said.
    """

    about: str
    pattern: str
    known: tuple[str, ...] = ()
    default: str = ""


class Proposal(Struct, frozen=True, forbid_unknown_fields=True):
    """One folder. `docs` are the vendors' pages that its files were written by."""

    title: str
    docs: tuple[str, ...]
    fields: dict[str, Wanted]


def names() -> list[str]:
    """Return all proposals."""
    return sorted(p.name for p in _home().iterdir() if (p / _ABOUT).is_file())


def proposal(name: str) -> Proposal:
    """Read one proposal; an unknown name is a `ProposalError`."""
    if not _NAME.fullmatch(name) or name not in names():
        raise ProposalError(f"there is no proposal {name}; there are {', '.join(names())}")
    return msgspec.convert(tomllib.loads((_home() / name / _ABOUT).read_text("utf-8")), Proposal, strict=True)


def values(name: str, known: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every field, what was `said` before what is `known` before defaults; missing ones are empty.

    A value that its field's pattern does not take, or one for a field that is not there, is a `ProposalError`.
    """
    wanted = proposal(name).fields
    for unknown in said.keys() - wanted.keys():
        raise ProposalError(f"--set {unknown}: {name} has no such field, only {', '.join(wanted)}")
    found: dict[str, str] = {}
    for field, one in wanted.items():
        value = said.get(field) or next((known[k] for k in one.known if known.get(k)), "") or one.default
        if value and not re.fullmatch(one.pattern, value, re.ASCII):
            raise ProposalError(f"--set {field}={value}: that is no {one.about}")
        found[field] = value
    return found


def rendered(name: str, filled: Mapping[str, str]) -> dict[str, str]:
    """Return the text of every file by its name; a field without a value is a `ProposalError` that names all such."""
    from jinja2 import Environment, StrictUndefined, UndefinedError  # noqa: PLC0415  # 60 ms that no rotation needs

    wanted = proposal(name).fields
    if missing := [f"{field} ({wanted[field].about})" for field in wanted if not filled.get(field)]:
        raise ProposalError(f"still to be said: {', '.join(missing)}; give each with --set NAME=VALUE")
    env = Environment(
        variable_start_string="[[", variable_end_string="]]", block_start_string="[%", block_end_string="%]",
        comment_start_string="[#", comment_end_string="#]", undefined=StrictUndefined, keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # no HTML; patterns keep values from meaning anything in these files
    )  # fmt: skip
    made: dict[str, str] = {}
    for path in sorted(_home().joinpath(name).iterdir()):
        if path.name == _ABOUT:
            continue
        try:
            made[path.name] = env.from_string(path.read_text("utf-8")).render(**filled)
        except UndefinedError as e:
            raise ProposalError(f"{name}/{path.name}: {e.message}") from None
    return made


def write(folder: Path, made: Mapping[str, str]) -> list[Path]:
    """Write the files into a folder, which is made if it is not there. If one is there already, none is written."""
    for name in made:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise ProposalError(f"{folder / name} is there already and is not overwritten: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as e:
        raise ProposalError(f"cannot write to {folder}: {e.strerror}") from None
    return [folder / name for name in made]


def _home() -> Path:
    return Path(str(files("playbooks") / "proposals"))
