"""The application: routes, error pages, and what is made once."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lapse.ledger import LedgerError
from lapse.web import api, hooks, oidc, pages, runs, start
from lapse.web.guard import LOOPBACK, Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request

    from lapse.web.house import House

TEND = 2.0
"""Seconds between two looks at the rotations under way."""


def application(house: House) -> Starlette:
    """Return the console of one ledger. The caller closes `house` afterwards."""
    get, post = ["GET"], ["POST"]
    routes = [
        Route("/login", pages.login, methods=get),
        Route("/login/oidc", oidc.begin, methods=get),
        Route("/login/oidc/done", oidc.done, methods=get),
        Route("/logout", pages.logout, methods=post),
        Route("/", pages.now, methods=get),
        Route("/keys", pages.keys, methods=get),
        Route("/keys/{key}", pages.one, methods=get),
        Route("/keys/{key}/reveal", pages.reveal, methods=post),
        Route("/keys/{key}/rotate", start.plan_page, methods=get),
        Route("/keys/{key}/rotate", start.begin, methods=post),
        Route("/runs", runs.all_runs, methods=get),
        Route("/runs/{run}", runs.run, methods=get),
        Route("/runs/{run}/now", runs.fragment, methods=get),
        Route("/runs/{run}/events", runs.stream, methods=get),
        Route("/runs/{run}/{verb}", runs.act, methods=post),
        Route("/funnel", pages.funnel, methods=get),
        Route("/owners", pages.owners, methods=get),
        Route("/providers", pages.providers, methods=get),
        Route("/nightly", pages.nightly, methods=get),
        Route("/audit", pages.audit, methods=get),
        Route("/audit/check", pages.check, methods=post),
        Route("/hooks/{sender}", hooks.receive, methods=post),
        Route("/healthz", healthy, methods=get),
        *api.routes(),
        Mount("/static", StaticFiles(directory=str(files("lapse.web").joinpath("static")))),
    ]
    hosts = LOOPBACK | {h.lower() for h in house.serve.hosts}
    made = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts, sessions=house.sessions, tokens=house.tokens)],
        exception_handlers={HTTPException: refused, LedgerError: refused, Exception: refused},
        lifespan=_lifespan,
    )
    made.state.house = house
    made.state.watch = runs.Watch(house)
    made.state.said = {}
    made.state.oidc = oidc.Oidc(house.serve.oidc)
    return made


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.house.figures.get()
    app.state.house.names.get()
    tending = asyncio.create_task(_tend(app.state.house))
    yield
    tending.cancel()


async def _tend(house: House) -> None:
    """Look every few seconds whether a rotation moves that nobody goes on with."""
    while True:
        with contextlib.suppress(Exception):  # a ledger that is busy for a moment is looked at again
            await run_in_threadpool(house.executor.tend)
        await asyncio.sleep(TEND)


def healthy(_: Request) -> Response:
    """Say that the console answers."""
    return PlainTextResponse("ok\n")


def refused(request: Request, error: Exception) -> Response:
    """Say in one sentence what went wrong; of what we did not foresee, nothing but its type."""
    headers: Mapping[str, str] | None = None
    if isinstance(error, HTTPException):
        code, said, headers = error.status_code, error.detail, error.headers
    elif isinstance(error, LedgerError):
        code, said = 503, str(error)
    else:
        code, said = 500, f"something broke ({type(error).__name__})"
    if request.url.path.startswith(("/api/", "/metrics", "/hooks/")):
        made: Response = api.reply(api.Wrong(said), code)
    else:
        made = pages.show(request, "error.html", code, code=code, said=said)
    made.headers.update(headers or {})  # such as Allow
    return made
