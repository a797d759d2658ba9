"""One REST service of a cloud: a door with the admin's token, typed answers, the cloud's own words on trouble."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct

from rotators.door import Door
from rotators.interface import ProviderError, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rotators.door import Answer, Route
    from rotators.interface import Settings

T = TypeVar("T")
_TROUBLE = {
    401: Trouble.DENIED,
    403: Trouble.DENIED,
    404: Trouble.GONE,
    408: Trouble.LATER,
    409: Trouble.CONFLICT,
    410: Trouble.GONE,
    412: Trouble.CONFLICT,
    429: Trouble.LATER,
}
_AGAIN = frozenset({"Directory_ConcurrencyViolation", "ConcurrencyViolation"})
_SERVER_ERROR = 500


class Nothing(Struct, frozen=True):
    """An answer whose body does not matter."""


class _Said(Struct, frozen=True):
    code: int | str = ""
    message: str = ""
    status: str = ""


class _Error(Struct, frozen=True):
    error: _Said


class RestError(ProviderError):
    """A cloud said no: `status` is HTTP's, `code` the cloud's own word (`FAILED_PRECONDITION`, …)."""

    def __init__(
        self, trouble: Trouble, message: str, status: int, code: str, retry_after: timedelta | None = None
    ) -> None:
        """Take what a `ProviderError` takes, the status and the cloud's word."""
        super().__init__(trouble, message, retry_after)
        self.status = status
        self.code = code


class Service:
    """Calls of one service by the routes it was given."""

    def __init__(
        self, name: str, base: str, routes: Sequence[Route], settings: Settings, token: Callable[[], str]
    ) -> None:
        """Take the service's name for people, its base URL, routes, the slot's settings and where tokens come from."""
        self._name = name
        self._door = Door(base, routes, {**settings, "base_url": ""})
        self._token = token

    def ask(
        self,
        route: Route,
        into: type[T],
        what: str,
        *,
        fill: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        json: object = None,
        agent: str = "",
    ) -> T:
        """Make one call and read the answer as `into`; a refusal is a `RestError` that says `what` was not done.

        `agent` goes into the User-Agent, which audit logs keep.
        """
        headers = {"authorization": f"Bearer {self._token()}"}
        if agent:
            headers["user-agent"] = f"lapse/{agent}"
        answer = self._door.call(route, fill=fill, query=query, json=json, headers=headers)
        if not answer.good:
            raise self._refusal(answer, what)
        try:
            return msgspec.json.decode(answer.body or b"{}", type=into)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
            reason = f"{self._name} answers with something else than it should when asked to {what}"
            raise ProviderError(Trouble.LATER, reason) from None

    def _refusal(self, answer: Answer, what: str) -> RestError:
        try:
            said = msgspec.json.decode(answer.body, type=_Error).error
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
            said = _Said()
        code = said.status or str(said.code) or f"HTTP {answer.status}"
        usual = Trouble.LATER if answer.status >= _SERVER_ERROR or code in _AGAIN else Trouble.REFUSED
        trouble = usual if code in _AGAIN else _TROUBLE.get(answer.status, usual)
        text = " ".join(said.message.split())[:200]
        remedy = "; log in again as the admin" if answer.status == 401 else ""  # HTTP
        message = f"{self._name} would not {what}: {code}{': ' if text else ''}{text}{remedy}"
        wait = (answer.retry_after() or timedelta(seconds=5)) if trouble is Trouble.LATER else None
        return RestError(trouble, message, answer.status, code, wait)


def done_if_gone(error: ProviderError) -> None:
    """Raise the error again, unless what was to go is gone already."""
    if error.trouble is not Trouble.GONE:
        raise error


def next_page(link: str | None) -> str:
    """Return the `$skiptoken` of an Azure `nextLink`, empty on the last page. The link itself is never followed."""
    return dict(parse_qsl(urlsplit(link or "").query)).get("$skiptoken", "")
