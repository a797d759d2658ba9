"""What every request passes: the host check, who it is, what a reply may do in a browser.

Nothing is served to a host name that we were not told of: else a page elsewhere could reach us by a name of its own
(DNS rebinding).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from lapse.web.access import COOKIE, Person, Sessions, Tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from lapse.web.settings import Role

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
BODY = 64 * 1024
"""Most bytes of a form."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
OPEN = ("/login", "/static/", "/healthz", "/hooks/")
"""Paths that need nobody logged in. Hooks prove themselves by a signature."""

PROGRAMS = ("/api/", "/metrics")
"""Paths for programs: a token lets in, and nothing else does."""


class Guard:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], sessions: Sessions, tokens: Tokens) -> None:
        """Take the application, the names it is known by, and who may come in."""
        self._app, self._hosts, self._sessions, self._tokens = app, hosts, sessions, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                message["headers"] = headers.raw
            await send(message)

        request = Request(scope, receive)
        if not self._known(request.headers.get("host", "")):
            said = "this name is not one of ours: add it to [serve] hosts\n"
            await PlainTextResponse(said, 421)(scope, receive, guarded)
            return
        path = request.url.path
        person = self._who(request, path)
        scope.setdefault("state", {})["person"] = person
        if person is None and not path.startswith(OPEN):
            if path.startswith(PROGRAMS):
                lacking = {"error": "a token is needed: Authorization: Bearer TOKEN"}
                await JSONResponse(lacking, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, guarded)
            else:
                await RedirectResponse("/login", 303)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        return name.lower() in self._hosts

    def _who(self, request: Request, path: str) -> Person | None:
        if path.startswith(PROGRAMS):
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            return self._tokens.find(token.strip()) if scheme.lower() == "bearer" else None
        return self._sessions.find(request.cookies.get(COOKIE, ""))


def person(request: Request) -> Person:
    """Return who asks; the guard has let nobody else through."""
    found: Any = request.state.person
    if not isinstance(found, Person):
        raise HTTPException(403, "nobody is logged in")
    return found


def need(request: Request, role: Role) -> Person:
    """Return who asks, if they may: 403 otherwise."""
    found = person(request)
    if found.role < role:
        raise HTTPException(403, f"this takes the role {role.name.lower()}; {found.name} is {found.role.name.lower()}")
    return found


async def form(request: Request, role: Role) -> tuple[Person, dict[str, str]]:
    """Return who sent a form and what it says: only from a page of ours, by its token, origin and size."""
    found = need(request, role)
    if not _same_origin(request.headers, request.url.netloc):
        raise HTTPException(403, "this form came from another site")
    fields = dict(parse_qsl((await body(request, BODY)).decode("utf-8", "replace"), keep_blank_values=True))
    if not found.csrf or not hmac.compare_digest(fields.pop("csrf", "").encode(), found.csrf.encode()):
        raise HTTPException(403, "this form is too old: load the page again")
    return found, fields


def client_of(request: Request) -> str:
    """Return the address that a log-in comes from: behind a proxy on this machine, the one that the proxy names.

    It is told apart for the limit alone. Whoever is on this machine may claim any.
    """
    peer = request.client.host if request.client else ""
    if peer in {"127.0.0.1", "::1"}:
        peer = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip() or peer
    return peer


async def body(request: Request, most: int) -> bytes:
    """Return a request's body; more than `most` bytes is 413."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(413, "too large")
        parts.append(part)
    return b"".join(parts)


def _same_origin(headers: Headers, netloc: str) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == netloc
