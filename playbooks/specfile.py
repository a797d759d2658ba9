"""Reads playbooks from TOML and says of every mistake in which file and line it stands, and what would be right."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from playbooks.schema import Playbook, span
from verifier.specfile import line_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_AT = re.compile(r" - at `\$(.*?)`$")
_LACKS = re.compile(r" lacks `(.+?)`$")
_UNKNOWN = re.compile(r"unknown field `(.+?)`")
_PATTERN = re.compile(r"Expected `str` matching regex '\^\\\\d.*'")


class PlaybookError(ValueError):
    """A playbook that cannot be used; the text names file, line, field and remedy."""


def load(path: Path) -> Playbook:
    """Read and check one playbook."""
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise PlaybookError(f"cannot read {path}: {e.strerror}") from None
    return parse(raw, str(path))


def parse(raw: bytes, name: str) -> Playbook:
    """Read and check a playbook given as bytes; `name` is what errors call the file."""
    mistakes = list(lint(raw, name))
    if mistakes:
        raise PlaybookError(mistakes[0])
    found = msgspec.convert(tomllib.loads(raw.decode()), Playbook, strict=True)
    return replace(found, digest=sha256(raw).hexdigest())


def lint(raw: bytes, name: str, kinds: Iterable[str] | None = None) -> Iterator[str]:
    """Yield every mistake as `FILE:LINE: sentence`. With `kinds`, kinds that no provider describes are mistakes too.

    Each is found by leaving out the table or key that holds the one before.
    """
    try:
        text = raw.decode()
        data = tomllib.loads(text)
    except UnicodeDecodeError as e:
        yield f"{name}: not UTF-8 at byte {e.start}; save the file as UTF-8"
        return
    except tomllib.TOMLDecodeError as e:
        yield f"{name}: not TOML: {e}"
        return
    left_out: set[str] = set()
    while (found := _mistake(data)) is not None:
        said, steps = found
        lacking = _LACKS.search(said)
        follows = steps == "" or steps in left_out or (lacking and f"{steps}.{lacking.group(1)}" in left_out)
        if left_out and follows:
            break  # this one is only there because of what was left out
        yield f"{name}:{line_of(text, steps + _named(said))}: {said}"
        if not _leave_out(data, steps):
            break
        left_out.add(steps)
    if kinds is not None:
        yield from _kinds(data, text, name, frozenset(kinds))


def _mistake(data: dict[str, Any]) -> tuple[str, str] | None:
    """Return the first mistake and where it stands, as `.retire.soak`."""
    try:
        book = msgspec.convert(data, Playbook, strict=True)
    except msgspec.ValidationError as e:
        said = str(e)
        at = _AT.search(said)
        steps = at.group(1) if at else ""
        said = _PATTERN.sub("no duration; write 90s, 10m, 6h or 30d", _AT.sub("", said))
        if unknown := _UNKNOWN.search(said):
            return _unknown(unknown.group(1), steps), f"{steps}.{unknown.group(1)}"
        missing = re.search(r"missing required field `(.+?)`", said)
        if missing:
            where = steps.lstrip(".") or "the file"
            return f"{where} lacks `{missing.group(1)}`", steps
        return f"{steps.lstrip('.') or 'the file'}: {said[0].lower()}{said[1:]}", steps
    if span(book.evidence.within).total_seconds() > 600:
        return "evidence.within is at most 10m: evidence must never hold up a rotation", ".evidence.within"
    return None


def _named(said: str) -> str:
    """Return the key within the slot that a sentence of `playbooks.schema` begins with, as a step; empty if none."""
    word = re.match(r"(?:\S+: )?(write|settings?|open|part|destroys)\b", said)
    if word is None:
        return ""
    return ".settings" if word.group(1).startswith("setting") else f".{word.group(1)}"


def _unknown(name: str, steps: str) -> str:
    kind: Any = Playbook
    for step in re.findall(r"[a-z_]+", steps):
        hints = {f.encode_name: f.type for f in msgspec.structs.fields(kind)}
        kind = next((t for t in _structs(hints.get(step))), kind)
    known = [f.encode_name for f in msgspec.structs.fields(kind) if f.encode_name != "digest"]
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
    return f"unknown key `{name}`; {hint}"


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:  # noqa: ANN401  # a type, whatever it is
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for inner in getattr(hint, "__args__", ()):
        yield from _structs(inner)


def _leave_out(data: dict[str, Any], steps: str) -> bool:
    """Drop what `steps` points at, so that the next mistake can be found; False when that is the whole file."""
    path = [name or int(index) for name, index in re.findall(r"([\w\-]+)|\[(\d+)\]", steps)]
    holder: Any = data
    for i, step in enumerate(path):
        if i == len(path) - 1 or isinstance(holder, list):
            try:
                del holder[step]
            except (KeyError, IndexError, TypeError):
                return False
            return True
        if not isinstance(holder, dict) or step not in holder:
            return False
        holder = holder[step]
    return False


def _kinds(data: dict[str, Any], text: str, name: str, known: frozenset[str]) -> Iterator[str]:
    kinds = data.get("for")
    for kind in kinds if isinstance(kinds, list) else []:
        if isinstance(kind, str) and kind not in known:
            near = get_close_matches(kind, known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else "; `lapse providers` lists them"
            yield f"{name}:{line_of(text, '.for')}: no kind of key is called `{kind}`{hint}"


def library(folders: Iterable[Path] = ()) -> dict[str, Playbook]:
    """Return all playbooks by id: those shipped, then those in `folders`, which replace shipped ones of the same id."""
    shipped = Path(str(files("playbooks") / "library"))
    found: dict[str, Playbook] = {}
    for folder in (shipped, *folders):
        here: dict[str, Path] = {}
        for path in sorted(folder.glob("*.toml")):
            book = load(path)
            if book.id in here:
                raise PlaybookError(f"{path}: {here[book.id]} is called {book.id} as well; rename one of them")
            here[book.id] = path
            found[book.id] = book
    return found
