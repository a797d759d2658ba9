"""Reads provider specs from TOML and names file and line of every mistake."""

from __future__ import annotations

import re
import tomllib
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from verifier.rules import parse_path
from verifier.spec import IdentitySpec, Kind, Vendor, many

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADER = re.compile(r"^\s*(\[\[?)\s*([\w.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([\w\-\"'.]+)\s*=")
_AT = re.compile(r" - at `\$(.*?)`$")
_STEP = re.compile(r"\.([\w\-]+)|\[(\d+|\.\.\.)\]")


class SpecError(ValueError):
    """A spec that cannot be used; the text is one sentence with file and line."""


def load(path: Path) -> Vendor:
    """Read and check one spec file; `SpecError` says what is wrong, where, and what is expected."""
    raw = path.read_bytes()
    return parse(raw, path.stem, str(path))


def parse(raw: bytes, vendor: str, name: str) -> Vendor:
    """Read and check a spec given as bytes. `vendor` is the file's stem, `name` what errors call it."""
    try:
        text = raw.decode()
        data = tomllib.loads(text)
    except UnicodeDecodeError as e:
        raise SpecError(f"{name}: not UTF-8 at byte {e.start}; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        raise SpecError(f"{name}: not TOML: {e}") from None
    try:
        spec = msgspec.convert(data, Vendor, strict=True)
    except msgspec.ValidationError as e:
        said = str(e)
        at = _AT.search(said)
        steps = at.group(1) if at else ""
        raise SpecError(
            f"{name}:{line_of(text, steps)}: {_AT.sub('', said)} (in {steps.lstrip('.') or 'the file'})"
        ) from None
    digest = sha256(raw).hexdigest()
    kinds = []
    seen: set[str] = set()
    for i, kind in enumerate(spec.kind):
        for problem, where in _mistakes(kind):
            raise SpecError(f"{name}:{line_of(text, f'.kind[{i}]{where}')}: {problem}")
        if kind.id in seen:
            raise SpecError(f"{name}:{line_of(text, f'.kind[{i}].id')}: two kinds are called {kind.id}")
        seen.add(kind.id)
        kinds.append(replace(kind, vendor=vendor, digest=digest))
    if not kinds:
        raise SpecError(f"{name}:1: no [[kind]]; a spec describes at least one kind of key")
    return replace(spec, kind=tuple(kinds))


def _mistakes(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a kind and where: patterns, fields and JSON paths.

    It is asked of a file only, and not of the compiled cache: patterns would be most of what a start costs.
    """
    yield from _fields(kind)
    yield from _paths(kind)


def _fields(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield a pattern that does not compile, or the field of a template that nothing fills."""
    groups: set[str] = set()
    for i, shape in enumerate(kind.shape):
        try:
            groups |= set(re.compile(shape.pattern).groupindex)
        except re.error as e:
            yield f"pattern is no regular expression: {e}", f".shape[{i}].pattern"
            return
    if not isinstance(kind.probe, str):
        stray = kind.probe.fields() - set(kind.parts) - set(kind.optional) - groups
        if stray:
            yield f"the probe uses {{{min(stray)}}}, which is no part and no named group of a shape", ".probe"


def _paths(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield the JSON paths that do not parse, with where they stand."""
    places: list[tuple[str, str]] = []
    for i, rule in enumerate(kind.rule):
        places += [(p, f".rule[{i}]") for p in (*rule.json, *rule.words, *rule.has, *rule.lacks)]
    for name in IdentitySpec.__struct_fields__:
        if name != "privilege":
            places += [(p, f".identity.{name}") for p in many(getattr(kind.identity, name))]
    if not isinstance(kind.probe, str):
        places += [(p, ".probe.echo") for p in kind.probe.echo]
    for path, where in places:
        if path.startswith("header:"):
            continue
        try:
            parse_path(path)
        except ValueError as e:
            yield str(e), where


def line_of(text: str, steps: str) -> int:
    """Return the line (from 1) in the TOML `text` that `steps` (`.kind[1].rule[0].status`) points at.

    TOML readers give no positions; headers and keys are found by their written form, which is enough for specs.
    """
    wanted = [name or int(index) for name, index in _STEP.findall(steps) if index != "..."]
    counts: dict[str, int] = {}
    here: list[str | int] = []
    best, best_depth = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            here = _enter(header.group(1), header.group(2), counts)
            depth = _agree(here, wanted)
            if depth == len(here) and depth > best_depth:
                best, best_depth = number, depth
            continue
        key = _KEY.match(line)
        if key and _agree(here, wanted) == len(here):
            path = [*here, *key.group(1).replace('"', "").split(".")]
            depth = _agree(path, wanted)
            if depth > best_depth and depth > len(here):
                best, best_depth = number, depth
    return best


def _enter(bracket: str, title: str, counts: dict[str, int]) -> list[str | int]:
    names = [n.strip().strip("\"'") for n in title.split(".")]
    path: list[str | int] = []
    dotted = ""
    for i, name in enumerate(names):
        dotted = f"{dotted}.{name}"
        path.append(name)
        last = i == len(names) - 1
        if last and bracket == "[[":
            counts[dotted] = counts.get(dotted, -1) + 1
            for inner in [k for k in counts if k.startswith(dotted + ".")]:
                del counts[inner]
        if dotted in counts:
            path.append(counts[dotted])
    return path


def _agree(path: list[str | int], wanted: list[str | int]) -> int:
    depth = 0
    for a, b in zip(path, wanted, strict=False):
        if a != b:
            break
        depth += 1
    return depth
