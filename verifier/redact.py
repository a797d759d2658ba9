"""Takes secrets out of text that others wrote, in whatever form they echo them. Linear in the text.

A secret is looked for by its fragments of twelve characters, letter case aside: in the text as it stands and with its
percent, JSON, HTML and C escapes undone (three layers deep), as it is and in base64 (either alphabet, at any offset
inside a longer value such as `user:secret`) and in hex. What stays readable: masks like `sk-…abcd`.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64encode
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = "[redacted]"
FRAGMENT = 12
"""A run of this many characters of a secret never survives. A shorter secret is removed whole."""

_BLOCK = FRAGMENT // 2
_LAYERS = 3
_SCANNED = 2048
_SHORTEST_ENCODED = 4
# Letter case aside, both base64 alphabets as one, and the blank of forms as `+`.
_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_ ", b"abcdefghijklmnopqrstuvwxyz+/+")
_ESCAPE = re.compile(
    rb"%([0-9A-Fa-f]{2})"
    rb"|\\u([dD][89abAB][0-9A-Fa-f]{2})\\u([dD][c-fC-F][0-9A-Fa-f]{2})"
    rb"|\\u([0-9A-Fa-f]{4})"
    rb"|\\x([0-9A-Fa-f]{2})"
    rb"|\\([\"'\\/bfnrt])"
    rb"|&#x([0-9A-Fa-f]{1,6});"
    rb"|&#([0-9]{1,7});"
    rb"|&(amp|lt|gt|quot|apos|sol|equals|plus|num);"
)
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_NAMED = {
    b"amp": b"&",
    b"lt": b"<",
    b"gt": b">",
    b"quot": b'"',
    b"apos": b"'",
    b"sol": b"/",
    b"equals": b"=",
    b"plus": b"+",
    b"num": b"#",
}
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_")

Spans = list[tuple[int, int]]


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every trace of `secrets` replaced by `[redacted]`; see the module for what counts as one."""
    forms = [form for secret in dict.fromkeys(secrets) if secret for form in _forms(secret)]
    if not forms:
        return text
    read = _read(text)
    if read.clear(forms):
        return text
    spans: Spans = []
    for view, folded, at in read.layers:
        for form, whole in forms:
            found = _Needle(form, whole=whole).find(folded, view)
            spans += found if at is None else [(at[a], at[b]) for a, b in found]
    return _cut(text.encode("utf-8", "surrogatepass"), spans) if spans else text


class _Text:
    """A text with its escapes undone layer by layer. Providers say the same to many keys, so some are remembered."""

    __slots__ = ("blocks", "layers")

    def __init__(self, text: str) -> None:
        view, at = text.encode("utf-8", "surrogatepass"), None
        self.layers: list[tuple[bytes, str, list[int] | None]] = [(view, _fold(view), None)]
        for _ in range(_LAYERS):
            undone = _unescape(view, at)
            if undone is None:
                break
            view, at = undone
            self.layers.append((view, _fold(view), at))
        # Any run of 12 in common holds one whole block of 6 that starts at a multiple of 6 of this text.
        self.blocks = tuple(
            {folded[i : i + _BLOCK] for _, folded, _ in self.layers for i in range(0, len(folded) - _BLOCK + 1, _BLOCK)}
        )

    def clear(self, forms: Iterable[tuple[str, bool]]) -> bool:
        """Tell that no form can be found, by a quick look; False says nothing."""
        long = []
        for form, _ in forms:
            if len(form) >= FRAGMENT:
                long.append(form)
            elif any(form in folded for _, folded, _ in self.layers):
                return False
        joined = "\0".join(long)
        for block in self.blocks:  # noqa: SIM110  # a plain loop: this is the hot path
            if block in joined:
                return False
        return True


_read = lru_cache(maxsize=128)(_Text)


def _cut(raw: bytes, spans: Spans) -> str:
    """Replace the union of spans, grown to whole characters, by the mask."""
    out: list[str] = []
    end = 0
    for a, b in sorted(spans):
        while a > end and raw[a] & 0xC0 == 0x80:  # a UTF-8 continuation byte
            a -= 1  # noqa: PLW2901  # the span grows in place
        while b < len(raw) and raw[b] & 0xC0 == 0x80:  # same
            b += 1  # noqa: PLW2901  # the span grows in place
        if a > end or not out:
            out.append(raw[end:a].decode("utf-8", "surrogatepass"))
            out.append(MASK)
        end = max(end, b)
    out.append(raw[end:].decode("utf-8", "surrogatepass"))
    return "".join(out)


def _unescape(view: bytes, at: list[int] | None) -> tuple[bytes, list[int]] | None:
    """Undo one layer of escapes; `at[i]` is where byte `i` begins in the original text. None when there are none."""
    out = bytearray()
    where: list[int] = []
    last = 0
    here = at or range(len(view) + 1)
    for m in _ESCAPE.finditer(view):
        out += view[last : m.start()]
        where += here[last : m.start()]
        plain = _plain(m)
        out += plain
        where += [here[m.start()]] * len(plain)
        last = m.end()
    if not last:
        return None
    out += view[last:]
    where += here[last:]
    return bytes(out), where


def _plain(m: re.Match[bytes]) -> bytes:
    """Return what one escape stands for, in UTF-8."""
    percent, high, low, code, byte, letter, hexadecimal, decimal, name = m.groups()
    if percent or byte:
        return bytes.fromhex((percent or byte).decode())
    if high:
        return bytes.fromhex((high + low).decode()).decode("utf-16-be").encode()
    if letter:
        return _LETTERS.get(letter, letter)
    if name:
        return _NAMED[name]
    number = int(decimal) if decimal else int(code or hexadecimal, 16)
    return chr(number).encode("utf-8", "surrogatepass") if number < 0x110000 else b"?"  # Unicode's end


def _fold(text: bytes) -> str:
    """One character a byte: `in` is several times faster on `str` than on `bytes`."""
    return text.translate(_FOLD).decode("latin-1")


class _Needle:
    """One folded form of a secret. `whole`: a hit takes the base64 value around it as well."""

    __slots__ = ("blocks", "form", "grams", "size", "whole")

    def __init__(self, form: str, *, whole: bool) -> None:
        self.form, self.whole = form, whole
        self.size = min(FRAGMENT, len(form))
        # Any run of 12 holds one whole block of 6 that starts at a multiple of 6: a quick look before the slow one.
        step = _BLOCK if len(form) >= FRAGMENT else len(form)
        self.blocks = tuple(form[i : i + step] for i in range(0, len(form) - step + 1, step))
        self.grams: frozenset[str] | None = None

    def find(self, text: str, view: bytes) -> Spans:
        """Return spans of `text`, which is `view` folded, that hold fragments."""
        for block in self.blocks:  # a plain loop: this is the hot path
            if block in text:
                break
        else:
            return []
        if self.grams is None:
            self.grams = frozenset(self.form[i : i + self.size] for i in range(len(self.form) - self.size + 1))
        size, grams = self.size, self.grams
        spans = [(i, i + size) for i in range(len(text) - size + 1) if text[i : i + size] in grams]
        return list(_grown(view, spans)) if self.whole else spans


def _grown(text: bytes, spans: Spans) -> Iterator[tuple[int, int]]:
    """Grow each span to the base64 value around it, walking every byte once."""
    end = -1
    for a, b in spans:
        if b <= end:
            continue
        start, floor = a, max(end, 0)
        while start > floor and text[start - 1] in _BASE64:
            start -= 1
        end = b
        while end < len(text) and text[end] in _BASE64:
            end += 1
        yield start, end


def _forms(secret: str) -> list[tuple[str, bool]]:
    """Return every form of a secret, folded: itself, its hex, its base64 at the three offsets (`whole`)."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = [(_fold(raw), False)]
    if len(raw) >= _SHORTEST_ENCODED:
        forms.append((raw.hex(), False))
    for shift in range(3):
        # Characters that also hold bits of a neighbour are left out: they differ from place to place.
        encoded = b64encode(b"\0" * shift + raw)
        tail = (shift + len(raw)) % 3
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[tail]]
        if len(inner) >= _SHORTEST_ENCODED:
            forms.append((_fold(inner), True))
    return forms


# ── excerpts ───────────────────────────────────────────────────────────────────────────────────────────

_FRESH = re.compile(
    r"(\"(?:[a-z_-]{0,24}token|secret|[a-z]{0,12}[_-]?secret|password|api[_-]?key|private[_-]?key|authorization)\""
    r"\s{0,4}:\s{0,4}\")([A-Za-z0-9._~+/=:-]{8,})(?=[\"\\]|$)",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9_+=-]{24,}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_.-]+")
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def excerpt(body: bytes, content_type: str, secrets: Iterable[str], limit: int = 300) -> str:
    """Return the beginning of a reply as one line of at most `limit` characters, fit for terminals and ledgers.

    `secrets` are redacted, and so is what looks like a token of its own (a minted one, say). Control, bidirectional
    and invisible characters are dropped; bytes that are no text show as `�`.
    """
    # Invisible characters go first: dropped afterwards they would join what was apart.
    text = redact(_shown(body[:_SCANNED], content_type), secrets)
    if len(body) > _SCANNED and not text.endswith(MASK):
        text = text[: -_SCANNED // 8]  # a short secret may have been cut in two at the very end
    text = _masked(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


@lru_cache(maxsize=128)
def _shown(body: bytes, content_type: str) -> str:
    return _visible(_decode(body, content_type))


@lru_cache(maxsize=128)
def _masked(text: str) -> str:
    return _TOKEN.sub(_token, _FRESH.sub(rf"\1{MASK}", text))


def _visible(text: str) -> str:
    """Turn blanks of any kind into single ones, drop what a terminal would obey or hide."""
    text = " ".join(text.split())
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in _UNPRINTABLE)


def _token(m: re.Match[str]) -> str:
    """Mask a long run that mixes digits, capitals and small letters; words, ids and digests in one case stay."""
    run = m.group()
    mixed = any(c.isdigit() for c in run) and any(c.isupper() for c in run) and any(c.islower() for c in run)
    return MASK if mixed else run


def _decode(body: bytes, content_type: str) -> str:
    """Read as UTF-16 or UTF-32 where a byte order mark or the type says so, else as UTF-8."""
    for mark, name in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if body.startswith(mark):
            return body.decode(name, "replace")
    said = content_type.lower()
    if "utf-16" in said:
        return body.decode("utf-16-be" if "utf-16be" in said else "utf-16-le", "replace")
    return body.decode("utf-8", "replace")
