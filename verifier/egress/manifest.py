"""The list of permitted calls, compiled once, and the check that a request is on it.

A URL is compared as text, in an alphabet narrow enough that the HTTP client cannot read it differently: no
backslash, blank, control or non-ASCII character, no dot segment and no encoded slash in a filled field.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from verifier.egress.address import RefusedError, authority

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verifier.exchange import Call

_PORTS = {"https": 443, "http": 80}
_LONGEST_URL = 16_384
_FIELD = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_SEGMENT = r"([A-Za-z0-9._~%!$&'()*+,;=:@-]+)"
_VALUE = r"([A-Za-z0-9._~%!$'()*+,;=:@/?-]*)"
_QUERY = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:@/?\[\]-]*")
_LABELS = r"[A-Za-z0-9_.-]+"
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?=/|$)", re.IGNORECASE)
_SLASH = re.compile(r"%(?:2f|5c|00)", re.IGNORECASE)


class Target(NamedTuple):
    """Where a matched request goes. `base`: by a config override. `plain`: http where the manifest says https."""

    scheme: str
    host: str
    port: int
    base: bool = False
    plain: bool = False


class _Path:
    """One path template. Without a `?` of its own it lets any query through; with one, the query must match too."""

    __slots__ = ("_exact", "_path", "_query")

    def __init__(self, template: str) -> None:
        path, mark, query = (template if template.startswith("/") else f"/{template}").partition("?")
        if _DOTS.search(path) or "#" in template:
            raise RefusedError("a path template of the manifest has a dot segment or a fragment")
        self._exact = None if _FIELD.search(path) else path
        self._path = re.compile(_fill(path, _SEGMENT))
        self._query = re.compile(_fill(query, _VALUE)) if mark else _QUERY

    def fits(self, rest: str) -> bool:
        """Tell whether what follows the authority is this path, filled."""
        path, _, query = rest.partition("?")
        if self._exact is not None:
            return (path or "/") == self._exact and self._query.fullmatch(query) is not None
        match = self._path.fullmatch(path)
        if match is None or _DOTS.search(path) or any(_SLASH.search(field) for field in match.groups()):
            return False
        return self._query.fullmatch(query) is not None


def _fill(template: str, field: str) -> str:
    """Regular expression for a template: its text as it stands, each `{field}` by `field`."""
    return field.join(re.escape(text) for text in _FIELD.split(template))


class _Matcher:
    """One call of the manifest."""

    __slots__ = ("_host", "_path", "_prefix", "_target", "method", "scheme")

    def __init__(self, call: Call, base: str | None) -> None:
        self.method = call.method
        self.scheme: str = call.scheme
        self._prefix: str | None = None
        self._target: Target | None = None
        self._host: re.Pattern[str] | None = None
        path = call.path
        if base is not None:
            scheme, place, prefix = split(base)
            self._pin(scheme, place, Target(scheme, *authority(place, _PORTS.get(scheme, 0)), base=True))
            path = prefix.rstrip("/") + (path if path.startswith("/") else f"/{path}")
        elif not _FIELD.search(call.host):
            host, port = authority(call.host, _PORTS.get(call.scheme, 0))
            self._pin(call.scheme, call.host, Target(call.scheme, host, port, plain=call.scheme == "http"))
        elif not _FIELD.fullmatch(call.host):
            self._host = re.compile(_fill(call.host, _LABELS), re.IGNORECASE)
        self._path = _Path(path)

    def _pin(self, scheme: str, place: str, target: Target) -> None:
        self._prefix, self._target = f"{scheme}://{place}", target

    def match(self, url: str) -> Target:
        """Return where the URL goes. Raises `RefusedError` when it is not what the manifest says."""
        if len(url) > _LONGEST_URL:
            raise RefusedError("the URL is longer than 16 KiB")
        if self._prefix is not None and self._target is not None:
            rest = url[len(self._prefix) :]
            if not url.startswith(self._prefix):
                raise RefusedError("the URL's scheme, host or port is not the one on the manifest")
            target = self._target
        else:
            scheme, place, rest = split(url)
            if scheme != self.scheme and not (scheme == "http" and self.scheme == "https"):
                raise RefusedError("the URL's scheme is not the one on the manifest")
            if self._host is not None and not self._host.fullmatch(place):
                raise RefusedError("the URL's host is not one that the manifest describes")
            target = Target(scheme, *authority(place, _PORTS[scheme]), plain=scheme != self.scheme)
        if not self._path.fits(rest):
            raise RefusedError("the URL's path is not the one on the manifest")
        return target

    def admits(self, host: str, port: int) -> tuple[str, int]:
        """Canonical host and port of a wire-protocol login. Raises `RefusedError` when the manifest names others."""
        shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
        place = authority(f"{shown}:{port}", port)
        if self._target is not None and (self._target.host, self._target.port or port) != place:
            raise RefusedError("the host or port is not the one on the manifest")
        if self._host is not None and not self._host.fullmatch(place[0]):
            raise RefusedError("the host is not one that the manifest describes")
        return place


def split(url: str) -> tuple[str, str, str]:
    """Split an absolute URL into lower-case scheme, authority and the rest. Raises `RefusedError`."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        raise RefusedError("the URL has no scheme")
    end = min((i for i in (rest.find("/"), rest.find("?"), rest.find("#")) if i >= 0), default=len(rest))
    if "\\" in rest[:end]:
        raise RefusedError("the URL's host is not valid")
    return scheme.lower(), rest[:end], rest[end:]


class Manifest:
    """Every call that may leave, and nothing else."""

    def __init__(self, calls: Iterable[Call], overrides: Mapping[str, str]) -> None:
        """Take what may leave; a call is compiled when it is first made. Raises `RefusedError` for a bad `base_url`."""
        for kind, base in overrides.items():
            _check_base(kind, base)
        self._calls, self._overrides = frozenset(calls), overrides
        self._compiled: dict[Call, _Matcher] = {}

    def _matcher(self, call: Call) -> _Matcher:
        """Return what a URL of this call must be. Raises `RefusedError` where it is not on the manifest."""
        if call not in self._calls:
            raise RefusedError("the call is not on the manifest")
        matcher = self._compiled.get(call)
        if matcher is None:
            matcher = self._compiled[call] = _Matcher(call, self._overrides.get(call.kind))
        return matcher

    def match(self, call: Call, url: str) -> Target:
        """Return where an HTTP request of this call goes. Raises `RefusedError`."""
        matcher = self._matcher(call)
        if matcher.method == "LOGIN" or matcher.scheme not in _PORTS:
            raise RefusedError("the call is a log-in, not an HTTP request")
        return matcher.match(url)

    def admits(self, call: Call, host: str, port: int) -> tuple[str, int]:
        """Return the canonical host and port of a log-in of this call. Raises `RefusedError`."""
        matcher = self._matcher(call)
        if matcher.method != "LOGIN":
            raise RefusedError("the call is an HTTP request, not a log-in")
        return matcher.admits(host, port)


def _check_base(kind: str, base: str) -> None:
    """Refuse a base URL that could not be compared as text, naming the key."""
    key = f"providers.{kind}.base_url"
    try:
        scheme, place, rest = split(base)
        authority(place, _PORTS.get(scheme, 1))
        plain = place == place.lower() and base.startswith(scheme) and "?" not in rest and _Path(rest).fits(rest)
    except RefusedError as e:
        raise RefusedError(f"{key}: {e}") from None
    if not plain:
        raise RefusedError(f"{key} must be lower-case scheme and host, an optional port and path, and no query")
