"""The page of the configuration: every section with its keys, types and defaults, and the example file."""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from lapse.config import Config
from lapse.sections import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_MADE = "<!-- Made by docs/generate.py from lapse/config.py and config.example.toml. Do not edit: run `make docs`. -->"

_PLAIN: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Duration: "span",
    type(None): "nothing",
}
_HEAD = (
    "A flag beats the environment (`LAPSE_SECTION_KEY`), which beats the file that `--config` or `LAPSE_CONFIG` names, "
    "else `./lapse.toml`, else `lapse/config.toml` under the XDG configuration folder, else the defaults. Unknown "
    "keys are errors. Where a secret is needed, a reference stands: `env:NAME`, `file:PATH`, `keyring:SERVICE/NAME`, "
    "`vault:MOUNT/PATH#FIELD`. `lapse doctor` says whether the set-up is sound."
)


def configuration(example: str) -> str:
    """Return the page; `example` is the text of `config.example.toml`."""
    parts = [
        _MADE,
        "# Configuration",
        _HEAD,
        "## Sections",
    ]
    seen: set[type[Struct]] = set()
    for section in _sections(Config):
        if section not in seen:
            seen.add(section)
            parts += _section(section)
    parts += ["## The example file", f"```toml\n{example.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _sections(kind: type[Struct]) -> Iterator[type[Struct]]:
    """Yield every struct below `kind`, in the order of the file."""
    for hint in get_type_hints(kind).values():
        for inner in _structs(hint):
            yield inner
            yield from _sections(inner)


def _structs(hint: Any) -> Iterator[type[Struct]]:  # noqa: ANN401  # a type, a generic alias or a union
    if isinstance(hint, type) and issubclass(hint, Struct):
        if hint is not Duration:
            yield hint
        return
    for inner in get_args(hint):
        yield from _structs(inner)


def _section(kind: type[Struct]) -> Iterator[str]:
    title, _, text = inspect.cleandoc(kind.__doc__ or "").partition(": ")
    name = re.match(r"(`\[.+?\]`)", title)
    yield f"### {title if name else kind.__name__}"
    yield (text[:1].upper() + text[1:]) if name else inspect.cleandoc(kind.__doc__ or "")
    hints = get_type_hints(kind)
    rows = []
    for field in msgspec.structs.fields(kind):
        if any(_structs(hints[field.name])):
            continue
        rows.append(f"| `{field.encode_name}` | {_type(hints[field.name])} | {_default(field)} |")
    if rows:
        yield "\n".join(["| key | type | default |", "| --- | --- | --- |", *rows])


def _type(hint: Any) -> str:  # noqa: ANN401  # as above
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(f"`{v}`" for v in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"table of {_type(inner[1])}"
    if inner:
        return " or ".join(_type(i) for i in inner)
    return _PLAIN.get(hint, f"`{getattr(hint, '__name__', hint)}`")


def _default(field: msgspec.structs.FieldInfo) -> str:
    value: Any = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None
        if value is None:
            return "needed"
    if isinstance(value, Duration):
        return f"`{value.text}`"
    if value is None or value in ("", (), {}, [], frozenset()):
        return "empty" if value is not None else "none"
    return f"`{msgspec.json.encode(value).decode()}`".replace("|", "\\|")
