"""The rotators' own way out: a small HTTP client for the calls that revoke and push, and for nothing else.

The verifier's door has no code path for PUT, PATCH and DELETE; this one has, and in return a `Door` knows one origin
and the short list of routes its owner wrote down. https only, one vetted address, no redirects, a bounded body, one
deadline. Nothing is retried here: whether a call may be repeated is for the step to know. A secret never reaches an
error: texts are built from the route as it was written, not from the URL as it was sent.

An instance of the user's own is named by the settings `base_url` (`https://host[:port][/prefix]`) and, where it has a
private address, `allow_private` (ranges, by comma); plain http is taken only to an address inside such a range.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from rotators.interface import ProviderError, Settings, Trouble
from verifier.egress.address import Network, RefusedError, allowed, authority, literal, local_name, vet
from verifier.egress.plumbing import Settings as Plumbing
from verifier.egress.plumbing import proxies, trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyreqwest.client import SyncClient

DEADLINE = 20.0
"""Seconds for one whole call."""
BODY_CAP = 4 * 1024 * 1024
"""Bytes of an answer that are read; a page of keys is far smaller, and a longer answer is refused."""

_FIELD = re.compile(r"\{([a-z_]+)\}")
_SEGMENT = re.compile(r"[^\x00-\x1f\x7f]{1,512}")
_HTTPS_PORT, _HTTP_PORT = 443, 80
_LONGEST_WAIT = timedelta(hours=1)


class Route(Struct, frozen=True):
    """One call its owner may make: `path` begins with `/` and may hold `{field}`s, each one segment of the path."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str

    def __str__(self) -> str:
        """Return it as it was written, without values."""
        return f"{self.method} {self.path}"


class Answer(Struct, frozen=True):
    """What came back: header names in lower case, the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Tell whether the status is one of success."""
        return 200 <= self.status < 300  # HTTP

    def json(self) -> Any:  # noqa: ANN401  # whatever JSON holds
        """Return the body read as JSON; what is none is `ProviderError(LATER)`: a proxy's page, most likely."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProviderError(
                Trouble.LATER, "the answer is not the provider's JSON; a proxy may have given it"
            ) from None

    def retry_after(self) -> timedelta | None:
        """Return how long it asks us to wait (`Retry-After`, seconds or a date), an hour at most."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return min(timedelta(seconds=int(text[:7])), _LONGEST_WAIT)
        try:
            wait = parsedate_to_datetime(text) - datetime.now(UTC)
        except (ValueError, TypeError):
            return None
        return min(max(wait, timedelta(0)), _LONGEST_WAIT)


class Door:
    """One origin and the routes that may be taken there."""

    def __init__(
        self,
        base: str,
        routes: Sequence[Route],
        settings: Settings,
        *,
        roots: Sequence[bytes] = (),
        identity: bytes = b"",
    ) -> None:
        """Take the fixed `base` (the setting `base_url` replaces it).

        `roots` are PEM certificates to trust besides the system's, `identity` our own certificate and its key (PEM).
        """
        self._routes = frozenset(routes)
        self._allow = _ranges(settings.get("allow_private", ""))
        base = settings.get("base_url") or base
        parts = urlsplit(base)
        self._tls = parts.scheme == "https"
        try:
            self.host, self.port = authority(parts.netloc, _HTTPS_PORT if self._tls else _HTTP_PORT)
        except RefusedError as e:
            raise ProviderError(Trouble.REFUSED, f"base_url: {e}") from None
        if parts.scheme not in ("https", "http") or parts.query or parts.fragment:
            raise ProviderError(Trouble.REFUSED, "base_url is not of the form https://host[:port][/path]")
        shown = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (_HTTPS_PORT if self._tls else _HTTP_PORT)
        self._base = f"{parts.scheme}://{shown}{'' if usual else f':{self.port}'}{parts.path.rstrip('/')}"
        self._ca = settings.get("ca_bundle") or None
        self._roots = tuple(roots)
        self._identity = identity

    def call(
        self,
        route: Route,
        *,
        fill: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        body: bytes | None = None,
    ) -> Answer:
        """Make one call. No usable answer is `ProviderError(LATER)`: it may have happened or not."""
        if route not in self._routes:
            raise ProviderError(Trouble.REFUSED, f"{route} is not a call that may be made here")
        url = self._base + _path(route, fill or {}) + (f"?{urlencode(query)}" if query else "")
        sent = {"accept": "application/json", **{k.lower(): v for k, v in (headers or {}).items()}}
        if json is not None:
            body = msgspec.json.encode(json)
            sent.setdefault("content-type", "application/json")
        return self._send(route, url, sent, body)

    def _send(self, route: Route, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        from pyreqwest.exceptions import PyreqwestError

        try:
            with self._client() as client:
                request = client.request(route.method, url).headers(dict(headers))
                if body is not None:
                    request = request.body_bytes(body)
                with request.build_streamed() as response:
                    read = response.body_reader.read(BODY_CAP + 1)
                    content = bytes(read) if read is not None else b""
                    answer = Answer(response.status, dict(_texts(response.headers)), content)
        except (PyreqwestError, ValueError):  # their texts quote the URL and header values: none may pass
            raise ProviderError(Trouble.LATER, f"{self.host} gave no usable answer to {route}") from None
        if len(answer.body) > BODY_CAP:
            raise ProviderError(Trouble.REFUSED, f"{self.host} answers {route} with more than any key list holds")
        if 300 <= answer.status < 400:  # HTTP
            raise ProviderError(Trouble.REFUSED, f"{self.host} answers {route} with a redirect, which is not followed")
        return answer

    def _client(self) -> SyncClient:
        """Return a client for this one call: names are not resolved behind our back, nor kept for later."""
        from pyreqwest.client import SyncClientBuilder  # 40 ms that the plan need not pay
        from pyreqwest.exceptions import PyreqwestError
        from pyreqwest.proxy import ProxyBuilder

        limit, scheme = timedelta(seconds=DEADLINE), "https" if self._tls else "http"
        try:
            way = proxies(Plumbing(), os.environ).of(scheme, self.host, self.port)
            roots = (*trust(Plumbing(ca_bundle=self._ca), os.environ).pems, *self._roots)
        except RefusedError as e:
            raise ProviderError(Trouble.REFUSED, str(e)) from None
        builder = SyncClientBuilder().no_proxy().follow_redirects(enable=False).referer(enable=False)
        builder = builder.timeout(limit).connect_timeout(limit / 2).user_agent("Lapse/0.1 (+secret rotation)")
        if way is not None and self._tls:
            self._vet_name()
            builder = builder.proxy(ProxyBuilder.all(way))
        else:
            address = self._address()
            if literal(self.host) is None:
                builder = builder.resolve(self.host, address, self.port)
        try:
            for pem in roots:
                builder = builder.add_root_certificate_pem(pem)
            return (builder.identity_pem(self._identity) if self._identity else builder).build()
        except (PyreqwestError, ValueError):
            reason = "a certificate to trust, or our own with its key, cannot be read"
            raise ProviderError(Trouble.DENIED, reason) from None

    def _address(self) -> str:
        """Resolve once and return the first address, if every one of them may be connected to."""
        known = literal(self.host)
        try:
            found = [str(known)] if known is not None else _resolve(self.host, self.port)
        except OSError:
            raise ProviderError(Trouble.LATER, f"{self.host} has no address (DNS)") from None
        for text in found:
            address = ip_address(text)
            if (why := vet(address, self._allow)) is not None:
                hint = "if it is yours, name its range in allow_private"
                raise ProviderError(Trouble.REFUSED, f"{self.host} has an address that is {why}; {hint}")
            if not self._tls and not allowed(address, self._allow):
                raise ProviderError(Trouble.REFUSED, f"{self.host} would be sent a key without TLS; use https")
        return found[0]

    def _vet_name(self) -> None:
        """Behind a proxy the address is the proxy's business: names that only mean something inside are refused."""
        if local_name(self.host) and not self._allow:
            raise ProviderError(Trouble.REFUSED, f"{self.host} is a local name; name its range in allow_private")


def refusal(answer: Answer, what: str, *, hint: str = "") -> ProviderError:
    """Return the error for an answer that is no success: `what` could not be done. Nothing of its body is quoted."""
    text = f"cannot {what}: HTTP {answer.status}{f'; {hint}' if hint else ''}"
    if answer.status in (408, 425, 429) or answer.status >= 500:  # HTTP
        return ProviderError(Trouble.LATER, text, answer.retry_after())
    troubles = {401: Trouble.DENIED, 403: Trouble.DENIED, 404: Trouble.GONE, 410: Trouble.GONE}
    troubles |= {409: Trouble.CONFLICT, 412: Trouble.CONFLICT}
    return ProviderError(troubles.get(answer.status, Trouble.REFUSED), text)


def admin_token(variables: Sequence[str], leaked: str = "") -> str:
    """Return the admin credential from the first of these variables that is set; it must not be the leaked one.

    None set, or the leaked credential itself, is `ProviderError(DENIED)`.
    """
    for name in variables:
        if (value := os.environ.get(name, "").strip()) != "":
            if leaked and value == leaked:
                raise ProviderError(
                    Trouble.DENIED, f"{name} holds the leaked key itself; a key never rotates itself: use another one"
                )
            return value
    raise ProviderError(Trouble.DENIED, f"no admin credential: set {' or '.join(variables)}")


def _path(route: Route, fill: Mapping[str, str]) -> str:
    """Fill in the route's fields; a value that could leave its segment is refused."""

    def one(match: re.Match[str]) -> str:
        value = fill.get(match.group(1), "")
        if not _SEGMENT.fullmatch(value) or value in (".", ".."):
            raise ProviderError(Trouble.REFUSED, f"{match.group(1)} is not something that {route} can name")
        return quote(value, safe="")

    return _FIELD.sub(one, route.path)


def _ranges(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise ProviderError(Trouble.REFUSED, "allow_private is not a list of ranges such as 10.1.0.0/16") from None


def _resolve(host: str, port: int) -> list[str]:
    return list(dict.fromkeys(str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def _texts(headers: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # pyreqwest's map, which may not decode
    """Header names and values; a value that is not text is left out."""
    for name in headers.keys():  # noqa: SIM118  # iterating decodes the values too
        try:
            yield name.lower(), headers[name]
        except ValueError:
            continue
