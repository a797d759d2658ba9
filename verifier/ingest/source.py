"""Reads redacted secrets back from where they were found: a checkout, an unpacked image, a saved image archive.

A string is taken only when it must be the one: it matches the hash, or it alone on its line matches the mask, or
(nothing but the place being known) it alone on its line has the shape of that kind of key. Nothing is guessed.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import msgspec
from msgspec import Struct

from verifier.ingest.archive import MAX_FILE, LayerIndex
from verifier.ingest.boxes import UnreadableSource, clean, inside
from verifier.ingest.mask import Style, blotted, could_be, occurrences, says_something
from verifier.model import Absent, Claim, Hashed, Masked, Place
from verifier.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

Fits: TypeAlias = Callable[[str], bool]
"""Whether a string has the shape of the kind of key that the scanner's rule names."""

MAX_LINE: Final = 16 << 10
"""Longest line that is searched, in characters; of a longer one, this much around the column."""
_EVERY_SUBSTRING: Final = 160
_SHORTEST: Final = 4
_MAX_PEM: Final = 64 << 10
_MAX_VALUE: Final = 4 << 10
_MAX_WITHOUT_LINE: Final = 1 << 20

STYLES: Final = {"ggshield": Style.EXACT, "trivy": Style.CONTEXT}
"""How each scanner masks; the others mask loosely."""

_STARTS: Final = {
    hashlib.sha1(start.encode(), usedforsecurity=False).hexdigest(): start
    for start in ("ghp", "gho", "ghu", "ghs", "ghr", "")
}
"""detect-secrets 1.5 hashes the first group of some patterns: these letters of a GitHub token, of others nothing."""

_ALGORITHMS: Final = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512"})


class Recovered(Struct, frozen=True):
    """The secret, read from the source and proven to be the reported one. `note` says by what."""

    secret: Secret
    note: str


class NotRecovered(Struct, frozen=True):
    """The secret stays unknown. `reason` is one clause for people; it holds nothing of the file's content."""

    reason: str


ReadBack: TypeAlias = Recovered | NotRecovered


# ── sources ────────────────────────────────────────────────────────────────────────────────────────────


class Folder:
    """A checkout or an unpacked image. Never reads outside its root, whatever path or symlink a report names."""

    def __init__(self, root: Path) -> None:
        """Take the root folder."""
        self._root = root.resolve()
        self._last: tuple[str, bytes] | None = None

    def annotate(self, claim: Claim) -> Claim:
        """Return the claim as it is: a folder knows no layers."""
        return claim

    def read(self, place: Place) -> list[bytes] | NotRecovered:
        """Return the file's bytes, as the only element."""
        if not place.path or clean(place.path) is None:
            return NotRecovered("the report names no path inside the source")
        for relative in self._spellings(place.path):
            if self._last is not None and self._last[0] == relative:
                return [self._last[1]]
            if (file := inside(self._root, relative)) is None:
                continue
            if file.stat().st_size > MAX_FILE:
                return NotRecovered(f"the file is over {MAX_FILE >> 20} MiB")
            try:
                data = file.read_bytes()
            except OSError as error:
                return NotRecovered(f"the file cannot be read ({error.strerror})")
            self._last = relative, data
            return [data]
        return NotRecovered("the source has no such file")

    def _spellings(self, path: str) -> Iterator[str]:
        """Yield the path as given, below the root; then, an absolute one, without its leading folders one by one.

        A scanner in a pipeline reports `/builds/acme/api/app/.env`; hash or mask must match all the same.
        """
        yield path
        name = clean(path) or ""
        while os.path.isabs(path) and "/" in name:  # noqa: PTH117  # a path of another machine
            _, _, name = name.partition("/")
            yield name

    def close(self) -> None:
        """Nothing is held open."""


class SavedArchive:
    """A saved image archive, through its `LayerIndex`."""

    def __init__(self, index: LayerIndex) -> None:
        """Take the index, and close it at the end."""
        self.index = index

    def annotate(self, claim: Claim) -> Claim:
        """Return the claim with image, layer and fate filled in."""
        return self.index.annotate(claim)

    def read(self, place: Place) -> list[bytes] | NotRecovered:
        """Return every version of the file that the place may mean (one, when it names the layer)."""
        places = self.index.locate(place)
        found = [data for layer, path in places if (data := self.index.read(layer, path)) is not None]
        if found:
            return found
        flaws = sorted({layer.flaw for layer in self.index.layers if layer.flaw})
        return NotRecovered(flaws[0] if flaws else "the archive has no such file, or it is over 32 MiB")

    def close(self) -> None:
        """Close the archive."""
        self.index.close()


Tree: TypeAlias = Folder | SavedArchive


def open_source(path: Path) -> Tree:
    """Open what `--source` names: a folder, a saved image archive, or such an archive unpacked into a folder.

    Raises `UnreadableSource` with one sentence for people.
    """
    if not path.exists():
        raise UnreadableSource(str(path), "there is no such file or folder", "check the path given as --source")
    if path.is_dir() and not ((path / "manifest.json").is_file() or (path / "oci-layout").is_file()):
        return Folder(path)
    try:
        return SavedArchive(LayerIndex(path))
    except UnreadableSource:
        if path.is_dir():  # a web project has a manifest.json too
            return Folder(path)
        raise


# ── candidates ─────────────────────────────────────────────────────────────────────────────────────────

_RUNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\S+",
        r"[A-Za-z0-9_-]+",
        r"[A-Za-z0-9_.~-]+",
        r"[A-Za-z0-9+/=_.~-]+",
        r"[^\s\"'`,;(){}\[\]<>]+",
        r"[^\s\"'`,;(){}\[\]<>=:]+",
        r"(?<=://)[^\s\"'`:/@]*:([^\s\"'`/]+)(?=@)",
        r"(?<=>)[^<>]+(?=<)",
    )
)
_ASSIGNED: Final = re.compile(r"[=:]>?\s*")
_TRIM: Final = "\"'`,;()[]{}<> \t"
_PEM_HEAD: Final = re.compile(r"-----(BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----")


def candidates(line: str) -> Iterator[tuple[int, str]]:
    """Yield what could be a secret on the line, with its offset; the same text may come more than once.

    Quoted strings, what follows `=` or `:` (to white space and to the end), words, runs of token characters.
    """
    for quote in "\"'`":
        parts, at = line.split(quote), 0
        for part in parts[:-1]:
            if at:
                yield at, part
            at += len(part) + 1
    for pattern in _RUNS:
        for hit in pattern.finditer(line):
            group = 1 if pattern.groups else 0
            yield hit.start(group), hit[group]
            trimmed = hit[group].strip(_TRIM)
            if trimmed != hit[group]:
                yield hit.start(group) + hit[group].find(trimmed), trimmed
    for hit in _ASSIGNED.finditer(line):
        rest = line[hit.end() : hit.end() + _MAX_VALUE]
        yield hit.end(), rest.split(None, 1)[0] if rest.strip() else ""
        stripped = rest.strip(_TRIM)
        yield hit.end() + rest.find(stripped), stripped


@lru_cache(maxsize=2)
def _lines(data: bytes) -> list[str]:
    """Return a file's lines, kept for the next finding in it."""
    return _text(data).split("\n")


def _text(data: bytes) -> str:
    """Decode a source file: by byte order mark, else UTF-8, else byte by byte."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _Spot(Struct, frozen=True):
    """One line of one version of the file, and where it stands in it."""

    line: str
    column: int | None
    lines: list[str]
    number: int

    def onward(self) -> str:
        """Return the text from the line's start on, for what spans lines: at most some 64 KiB."""
        taken, size = [], 0
        for below in self.lines[self.number :]:
            taken.append(below.rstrip("\r"))
            size += len(below) + 1
            if size > _MAX_PEM:
                break
        return "\n".join(taken)


def _spots(lines: list[str], place: Place) -> Iterator[_Spot]:
    numbers = range(len(lines)) if place.line is None else (place.line - 1,)
    for number in numbers:
        if not 0 <= number < len(lines):
            continue
        line, column = lines[number].rstrip("\r"), place.column
        if len(line) > MAX_LINE:
            if column is None:
                continue
            start = max(0, column - 1 - MAX_LINE // 2)
            line, column = line[start : start + MAX_LINE], column - start
        yield _Spot(line, column, lines, number)


def _pem(spot: _Spot) -> str | None:
    """Return the private key block that begins on the line, if one does and ends."""
    head = _PEM_HEAD.search(spot.line)
    if head is None:
        return None
    block = spot.onward()[head.start() :]
    tail = f"-----{head[1].replace('BEGIN', 'END', 1)}-----"
    end = block.find(tail)
    return None if end < 0 else block[: end + len(tail)]


# ── recovery ───────────────────────────────────────────────────────────────────────────────────────────


def recover(claim: Claim, source: Tree, fits: Fits | None = None) -> ReadBack:
    """Read the hidden secret of `claim` back from `source`.

    `fits` is asked only where several strings match a mask, or where the report holds nothing of the secret.
    Never raises for what the source holds; `UnreadableSource` if the archive itself turns out to be a bomb.
    """
    if isinstance(claim.value, Secret):
        return NotRecovered("the report holds the secret already")
    versions = source.read(claim.place)
    if isinstance(versions, NotRecovered):
        return versions
    results = [_from_lines(claim, _lines(version), fits) for version in versions]
    found = [result for result in results if isinstance(result, Recovered)]
    if len({result.secret.reveal() for result in found}) > 1:
        return NotRecovered("layers hold different matches, and the report does not name the layer")
    return found[0] if found else results[0]


def restore(claim: Claim, result: ReadBack) -> Claim:
    """Return the claim with the secret put back, or unchanged."""
    return msgspec.structs.replace(claim, value=result.secret) if isinstance(result, Recovered) else claim


def _from_lines(claim: Claim, lines: list[str], fits: Fits | None) -> ReadBack:
    if claim.place.line is None and sum(map(len, lines)) > _MAX_WITHOUT_LINE:
        return NotRecovered("the report names no line, and the file is over 1 MiB")
    spots = _spots(lines, claim.place)
    match claim.value:
        case Hashed() as value if (start := _STARTS.get(value.hex)) is not None and fits is not None:
            return _by_shape(claim, spots, lambda text: text.startswith(start) and fits(text))
        case Hashed() as value:
            return _by_hash(value, spots)
        case Masked() as value if says_something(value.text, style := STYLES.get(claim.scanner, Style.LOOSE)):
            return _by_mask(value.text, style, spots, fits, claim)
        case Masked() | Absent():
            return _by_shape(claim, spots, fits)
        case Secret():
            return NotRecovered("the report holds the secret already")
        case _ as other:
            assert_never(other)


def _by_hash(value: Hashed, spots: Iterable[_Spot]) -> ReadBack:
    if value.algorithm not in _ALGORITHMS:
        return NotRecovered("the report's hash algorithm is not one we compute")
    seen: set[str] = set()

    def hit(text: str) -> bool:
        if text in seen:
            return False
        seen.add(text)
        digest = hashlib.new(value.algorithm, text.encode("utf-8", "surrogatepass"), usedforsecurity=False)
        return digest.hexdigest() == value.hex

    kept = list(spots)
    for spot in kept:
        head = _PEM_HEAD.search(spot.line)
        if head is not None and hit(head[1]):  # detect-secrets hashes the words of the header, not the key
            block = _pem(spot)
            return NotRecovered("the key block has no end") if block is None else Recovered(Secret(block), "key block")
    strings = chain.from_iterable((text for _, text in candidates(spot.line)) for spot in kept)
    if len(kept) == 1:
        strings = chain(strings, _every_substring(kept[0].line))
    found = next(filter(hit, strings), None)
    if found is None:
        return NotRecovered("nothing there has the reported hash: the file has changed since, or the path differs")
    return Recovered(Secret(found), f"{value.algorithm} hash")


def _every_substring(line: str) -> Iterator[str]:
    """Yield all substrings of a short line: a hash can't be fooled, and scanners cut in odd places."""
    if len(line) <= _EVERY_SUBSTRING:
        for start in range(len(line)):
            for end in range(start + _SHORTEST, len(line) + 1):
                yield line[start:end]


def _by_mask(mask: str, style: Style, spots: Iterable[_Spot], fits: Fits | None, claim: Claim) -> ReadBack:
    found: dict[str, set[bool]] = {}
    for spot in spots:
        if (block := _pem(spot)) is not None and (_is_private_key(claim) or could_be(mask, style, block)):
            return Recovered(Secret(block), "key block")
        for at, text in _matches(mask, style, spot):
            found.setdefault(text, set()).add(spot.column is not None and at + 1 == spot.column)
    chosen = list(found)
    if len(chosen) > 1:
        chosen = (
            [text for text in chosen if True in found[text]]
            if sum(True in at for at in found.values()) == 1
            else chosen
        )
    if len(chosen) > 1 and fits is not None:
        chosen = [text for text in chosen if fits(text)]
    if len(chosen) == 1:
        return Recovered(Secret(chosen[0]), "mask")
    if not found:
        return NotRecovered("nothing there fits the mask: the file has changed since, or the path differs")
    return NotRecovered("several strings at that place fit the mask")


def _matches(mask: str, style: Style, spot: _Spot) -> list[tuple[int, str]]:
    match style:
        case Style.CONTEXT:
            return blotted(mask, spot.line)
        case Style.EXACT:
            lines = mask.count("\n") + 1
            window = spot.line if lines == 1 else "\n".join(spot.onward().split("\n", lines)[:lines])
            whole = [(at, text) for at, text in candidates(window) if could_be(mask, style, text)]
            return whole or occurrences(mask, window)
        case Style.LOOSE:
            return [(at, text) for at, text in candidates(spot.line) if could_be(mask, style, text)]
        case _ as other:
            assert_never(other)


def _is_private_key(claim: Claim) -> bool:
    rule = claim.rule.lower()
    return "private" in rule and "key" in rule


def _by_shape(claim: Claim, spots: Iterable[_Spot], fits: Fits | None) -> ReadBack:
    if claim.place.line is None:
        return NotRecovered("the report tells neither the secret nor its line")
    found: set[str] = set()
    for spot in spots:
        block = _pem(spot)
        if block is not None and (_is_private_key(claim) or (fits is not None and fits(block))):
            return Recovered(Secret(block), "key block")
        if fits is not None:
            found |= {text for _, text in candidates(spot.line) if len(text) >= _SHORTEST and fits(text)}
    if len(found) == 1:
        return Recovered(Secret(found.pop()), "shape of the key")
    if fits is None:
        return NotRecovered("the report hides the whole secret, and its rule tells no shape to look for")
    return NotRecovered(
        "several strings at that place have the shape of the key"
        if found
        else "nothing at that place has the shape of the key"
    )
