"""The JSON API for programs, under /api/v1: reads only, with a token (`lapse tokens add`), described by OpenAPI.

Its objects are those of json-v1, so that who reads `lapse report --format json` reads this as well.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.routing import Route

from lapse import __version__
from lapse.figures import Group, Sort, page
from lapse.ledger import Status
from lapse.output import jsonv1
from lapse.output.jsonv1 import KeyLine, KeyReport
from lapse.web.guard import need
from lapse.web.pages import PLACES, asked, find, house_of, packed
from lapse.web.runs import found
from lapse.web.settings import Role

if TYPE_CHECKING:
    from starlette.requests import Request

    from playbooks.journal import RunState


class KeysOut(Struct, frozen=True):
    """A page of keys; `next` is the `after` of the next page, null at the end."""

    keys: tuple[KeyLine, ...]
    next: str | None
    v: Literal[1] = 1


class StatusOnly(Struct, frozen=True):
    """The totals; `at` is when they were counted."""

    at: datetime
    status: Status
    v: Literal[1] = 1


class EntryOut(Struct, frozen=True):
    """One entry of a rotation's journal."""

    seq: int
    at: datetime
    step: str
    what: str
    text: str


class RunOut(Struct, frozen=True):
    """A rotation: where it stands, and its journal."""

    run: str
    key: str
    playbook: str
    mode: str
    by: str
    started: datetime
    status: Literal["running", "waiting", "stopped", "ended"]
    end: str | None
    entries: tuple[EntryOut, ...]
    v: Literal[1] = 1


class RunsOut(Struct, frozen=True):
    """Rotations, oldest first, without their journals' entries."""

    runs: tuple[RunOut, ...]
    v: Literal[1] = 1


class Wrong(Struct, frozen=True):
    """What was wrong with a request, in one sentence."""

    error: str


def status(request: Request) -> Response:
    """Return the totals."""
    need(request, Role.VIEWER)
    house = house_of(request)
    f = house.figures.get(wait=10.0)
    if f is None:
        return reply(Wrong("the figures are being counted; ask again"), 503)
    return reply(StatusOnly(f.at, f.status))


def keys(request: Request) -> Response:
    """Return a page of keys."""
    need(request, Role.VIEWER)
    house = house_of(request)
    listed = page(house.ledger, house.db, asked(request))
    return reply(KeysOut(tuple(jsonv1.line(x.key) for x in listed.lines), packed(listed.after) or None))


def key(request: Request) -> Response:
    """Return one key with its places."""
    need(request, Role.VIEWER)
    house = house_of(request)
    one = find(house, request.path_params["key"])
    return reply(jsonv1.full(one, tuple(islice(house.ledger.places(one.id), PLACES))))


def runs(request: Request) -> Response:
    """Return the rotations under way, or all with `?all=1`."""
    need(request, Role.VIEWER)
    log, engine = house_of(request).ledger.rotations, house_of(request).desk.engine
    names = log.runs() if request.query_params.get("all") == "1" else log.open_runs()
    return reply(RunsOut(tuple(_run(engine.state(r), entries=False) for r in names)))


def run(request: Request) -> Response:
    """Return one rotation with its journal."""
    need(request, Role.VIEWER)
    return reply(_run(found(house_of(request), request.path_params["run"]), entries=True))


def _run(s: RunState, *, entries: bool) -> RunOut:
    told = tuple(EntryOut(e.seq, e.at, e.step, e.what.value, e.text) for e in s.entries) if entries else ()
    end = s.end.value if s.end else None
    return RunOut(
        s.run, s.plan.short, s.plan.playbook, s.plan.mode.value, s.by, s.started, s.status.value, end, told
    )  # fmt: skip


def openapi(request: Request) -> Response:
    """Return the description of this API."""
    need(request, Role.VIEWER)
    return Response(document(), media_type="application/json")


def reply(value: Struct, code: int = 200) -> Response:
    """Return a JSON reply."""
    return Response(msgspec.json.encode(value), code, media_type="application/json")


class Call(Struct, frozen=True):
    """One call of the API: for the router and for the description alike."""

    path: str
    does: str
    serve: Any
    gives: type[Struct]
    query: dict[str, dict[str, Any]] = {}
    missing: bool = False


_TEXT = {"type": "string"}
CALLS = (
    Call("/api/v1/status", "The totals.", status, StatusOnly),
    Call(
        "/api/v1/keys",
        "A page of keys, the most urgent first.",
        keys,
        KeysOut,
        {
            "group": {"type": "string", "enum": [g.value for g in Group]},
            "provider": _TEXT,
            "q": _TEXT,
            "sort": {"type": "string", "enum": [s.value for s in Sort]},
            "after": _TEXT,
            "limit": {"type": "integer", "minimum": 1, "maximum": 500},
        },
    ),
    Call("/api/v1/keys/{key}", "One key with its places.", key, KeyReport, missing=True),
    Call("/api/v1/runs", "Rotations under way.", runs, RunsOut, {"all": {"type": "string", "enum": ["1"]}}),
    Call("/api/v1/runs/{run}", "One rotation with its journal.", run, RunOut, missing=True),
)


def routes() -> list[Route]:
    """Return the routes."""
    return [*(Route(c.path, c.serve) for c in CALLS), Route("/api/v1/openapi.json", openapi)]


@cache
def document() -> bytes:
    """Return the OpenAPI 3.1 document."""
    forms = (*{c.gives for c in CALLS}, Wrong)
    _, components = msgspec.json.schema_components(forms, ref_template="#/components/schemas/{name}")
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Lapse", "version": __version__, "description": "Leaked keys and their verdicts."},
            "paths": {c.path: {"get": _described(c)} for c in CALLS},
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}],
        }
    )


def _described(c: Call) -> dict[str, Any]:
    inside = [p[1:-1] for p in c.path.split("/") if p.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": _TEXT} for n in inside]
    parameters += [{"name": n, "in": "query", "schema": s} for n, s in c.query.items()]
    wrong = {"description": "Wrong", "content": _json("Wrong")}
    answers: dict[str, Any] = {"200": {"description": c.does, "content": _json(c.gives.__name__)}}
    answers |= {"400": wrong} if c.query else {}
    answers |= {"404": wrong} if c.missing else {}
    answers["401"] = {"description": "No token, or one that is not known."}
    return {"summary": c.does, "operationId": c.serve.__name__, "parameters": parameters, "responses": answers}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
