"""Gives what a scanner reports beside a secret the part names that the kind of key uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.classify.names import PARTS, own, part_of
from verifier.model import GENERIC, KindID
from verifier.secret import Secret
from verifier.shapes import Needs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.classify.aliases import Aliases
    from verifier.classify.index import ShapeIndex

RAW2 = "rawv2"
"""Companion under which a TruffleHog row brings its id and secret in one string, joined by `:` or by nothing."""

AWS = frozenset({"aws_akia", "aws_asia"})
"""Long-lived and temporary AWS keys: the id tells which, and their other parts look alike."""


class Namer:
    """Knows which parts each kind has (`allowed`) and finds the one that a reported piece is."""

    def __init__(self, index: ShapeIndex, needs: Mapping[str, Needs], aliases: Aliases) -> None:
        """Take shapes, parts of each kind, and rule names: a companion may be called by its own rule."""
        self._index, self._needs, self._aliases = index, needs, aliases
        self.allowed = {k: frozenset((*n.parts, *n.optional)) for k, n in needs.items()}

    def add(self, scanner: str, companions: Mapping[str, Secret], kind: KindID, parts: dict[str, Secret]) -> None:
        """Add to `parts` what was reported beside the secret.

        Of a known kind only the parts it declares: a stray one would make two keys of one.
        """
        allowed = self.allowed.get(kind)
        for name, companion in companions.items():
            text = companion.reveal()
            if not text or name.lower() == RAW2:
                continue
            part = self._part(scanner, name, kind, text, parts)
            if part in parts:
                if parts[part].reveal() == text:
                    continue
                part = self._index.part(kind, text) or self._gap(kind, parts) or own(name)
            if part not in parts and (allowed is None or part in allowed):
                parts[part] = companion
        if kind != GENERIC:
            for name, companion in companions.items():
                if name.lower() == RAW2:
                    self._unjoin(kind, companion.reveal(), parts)

    def _part(self, scanner: str, name: str, kind: KindID, text: str, parts: Mapping[str, Secret]) -> str:
        if name in PARTS:
            return self.called(name, kind, parts)
        mine = own(name)
        if mine in self.allowed.get(kind, ()) and mine not in parts:
            return mine
        by_shape = self._shape_part(kind, text)
        if by_shape is not None and by_shape not in parts:
            return by_shape
        known = part_of(name)
        if known is not None:
            return self.called(known, kind, parts)
        alias = self._aliases.get(scanner, name)
        if alias is not None and kind in alias.kinds and alias.captures in PARTS:
            return self.called(alias.captures, kind, parts)
        return mine

    def _shape_part(self, kind: KindID, text: str) -> str | None:
        """Return the part of `kind` that `text` looks like; the two kinds of AWS key share their shapes."""
        part = self._index.part(kind, text)
        if part is None and kind in AWS:
            part = self._index.part("aws_asia" if kind == "aws_akia" else "aws_akia", text)
        return part

    def tidy(self, kind: KindID, parts: dict[str, Secret]) -> None:
        """Write the host plainly: one key reported with `https://Host/` and with `host` is one key."""
        said = parts["host"].reveal()
        host = said.strip().lower()
        if "://" in host:
            host = host.partition("://")[2].rpartition("@")[2]
        host = host.partition("/")[0]
        if host.count(":") == 1 and "password" in self.allowed.get(kind, ()):
            host, _, port = host.partition(":")
            parts.setdefault("port", Secret(port))
        if host and host != said:
            parts["host"] = Secret(host)

    def _gap(self, kind: KindID, parts: Mapping[str, Secret]) -> str | None:
        """Return the only part that `kind` still needs, `None` when it needs several or none."""
        missing = [p for p in self._needs.get(kind, Needs()).parts if p not in parts]
        return missing[0] if len(missing) == 1 else None

    def called(self, part: str, kind: KindID, parts: Mapping[str, Secret]) -> str:
        """Return the name under which `kind` keeps `part`: secret and password, id and username trade places."""
        allowed = self.allowed.get(kind)
        if allowed is None or part in allowed:
            return part
        for a, b in (("password", "secret"), ("secret", "password"), ("username", "id"), ("id", "username"),
                     ("account", "id"), ("account", "host"), ("host", "account"), ("id", "account")):  # fmt: skip
            if part == a and b in allowed and b not in parts:
                return b
        return part

    def _unjoin(self, kind: KindID, both: str, parts: dict[str, Secret]) -> None:
        """Find the other half in TruffleHog's RawV2, which begins or ends with the half that is known already."""
        need = self._needs.get(kind, Needs())
        missing = [p for p in need.parts if p not in parts]
        if not missing:
            return
        known = [v.reveal() for n, v in parts.items() if n in {"secret", "id", "token", "password", "username"}]
        for text in sorted(known, key=len, reverse=True):
            if both.startswith(text):
                both = both[len(text) :]
            elif both.endswith(text):
                both = both[: -len(text)]
        pieces = [p for p in both.strip(":").split(":") if p] if len(missing) > 1 else [both.strip(":")]
        if len(pieces) > len(missing):
            return  # a colon inside one of them: cut there, a piece would be a wrong one
        for piece in pieces:
            fit = self._index.part(kind, piece)
            part = fit if fit in missing else missing[0] if missing else None
            if part is not None and piece:
                parts[part] = Secret(piece)
                missing.remove(part)
