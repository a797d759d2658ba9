"""The JSON API for programs, under /api/v1: with a token (`lapse tokens add`), described by OpenAPI. And /metrics.

Its objects are those of json-v1, so that who reads `lapse report --format json` reads this as well. All calls read but
two: whoever holds a token of the role approver agrees to a step of a rotation, or takes that back, under its name.
"""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from lapse import __version__
from lapse.exits import Stop
from lapse.keypages import Ask, Group, Sort, page
from lapse.ledger import Status
from lapse.metrics import CONTENT_TYPE
from lapse.output import jsonv1
from lapse.output.jsonv1 import KeyLine, KeyReport
from lapse.rotation import said_plainly
from lapse.web.guard import BODY, body, need
from lapse.web.pages import AFTER, PLACES, find, house_of, packed, unpacked
from lapse.web.runs import found
from lapse.web.settings import Role
from verifier.model import Privilege

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from lapse.web.house import House
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


class Agree(Struct, frozen=True, forbid_unknown_fields=True):
    """What an approval says: the steps agreed to; none means the one that is waited for."""

    steps: tuple[str, ...] = ()


class StepOut(Struct, frozen=True):
    """A step that was agreed to: by whom, until when at most, and how many people are still missing."""

    step: str
    effect: str
    title: str
    approvers: tuple[str, ...]
    until: datetime
    missing: int


class Agreed(Struct, frozen=True):
    """The steps agreed to. `goes_on`: somebody goes on with the run."""

    run: str
    steps: tuple[StepOut, ...]
    goes_on: bool
    v: Literal[1] = 1


class Withdrawn(Struct, frozen=True):
    """The steps whose approval is taken back."""

    run: str
    steps: tuple[str, ...]
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
    q = _query(request, keys)
    asked = Ask(
        group=Group(q["group"]) if "group" in q else None,
        provider=q.get("provider", ""),
        privilege=Privilege(q["privilege"]) if "privilege" in q else None,
        public="public" in q,
        text=q.get("q", ""),
        sort=Sort(q.get("sort", Sort.URGENT)),
        after=unpacked(q.get("after", "")),
        limit=int(q.get("limit", "50")),
    )
    listed = page(house.ledger, house.db, asked, house.names.get(wait=5.0) if asked.text else None)
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
    names = log.runs() if _query(request, runs) else log.open_runs()
    return reply(RunsOut(tuple(_run(engine.state(r), entries=False) for r in names)))


def run(request: Request) -> Response:
    """Return one rotation with its journal."""
    need(request, Role.VIEWER)
    return reply(_run(found(house_of(request), request.path_params["run"]), entries=True))


async def approve(request: Request) -> Response:
    """Agree to steps of a rotation, under the token's name."""
    who = need(request, Role.APPROVER)
    if request.headers.get("content-type", "application/json").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON")
    try:
        agree = msgspec.json.decode(await body(request, BODY) or b"{}", type=Agree)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise HTTPException(400, 'send {"steps": ["NAME"]}, or {} for the step that is waited for') from None
    return await run_in_threadpool(_approve, house_of(request), request.path_params["run"], who.name, agree.steps)


def _approve(house: House, name: str, who: str, steps: tuple[str, ...]) -> Response:
    state = found(house, name)
    with _refused():
        approved = house.desk.engine.approve(state.run, who, steps)
    fresh = house.desk.engine.state(state.run)
    told = []
    for planned in approved:
        held = fresh.approvers(planned.name, fresh.last.at)
        told.append(
            StepOut(
                planned.name,
                planned.effect.value,
                planned.title,
                tuple(sorted(held)),
                max(held.values()),
                fresh.lacking(planned, fresh.last.at),
            )
        )
    goes_on = not any(t.missing for t in told) and house.executor.hand(fresh.run, fresh.turn)
    return reply(Agreed(fresh.run, tuple(told), goes_on))


def withdraw(request: Request) -> Response:
    """Take back every approval of the token's name for steps that are not done."""
    who = need(request, Role.APPROVER)
    house = house_of(request)
    state = found(house, request.path_params["run"])
    with _refused():
        return reply(Withdrawn(state.run, tuple(house.desk.engine.withdraw(state.run, who.name))))


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        with said_plainly():
            yield
    except Stop as e:
        raise HTTPException(409, str(e)) from None


def metrics(request: Request) -> Response:
    """Return the ledger's figures in Prometheus' text format."""
    need(request, Role.VIEWER)
    told = house_of(request).metrics.get(wait=20.0)
    if told is None:
        return Response("# the figures are being counted; ask again\n", 503, media_type="text/plain")
    return Response(told, headers={"Content-Type": CONTENT_TYPE})


def _run(s: RunState, *, entries: bool) -> RunOut:
    told = tuple(EntryOut(e.seq, e.at, e.step, e.what.value, e.text) for e in s.entries) if entries else ()
    end = s.end.value if s.end else None
    return RunOut(
        s.run, s.plan.short, s.plan.playbook, s.plan.mode.value, s.by, s.started, s.status.value, end, told
    )  # fmt: skip


def _query(request: Request, serve: Any) -> dict[str, str]:  # noqa: ANN401  # a route's function
    """Return what an address asks, as its description allows it; all else is 400."""
    allowed = next(c for c in CALLS if c.serve is serve).query
    for name, value in request.query_params.multi_items():
        if name not in allowed:
            raise HTTPException(400, f"{name[:40]} is nothing that this call knows: {', '.join(allowed)}")
        if not _fits(value, allowed[name]) or len(request.query_params.getlist(name)) > 1:
            raise HTTPException(400, f"{name}: not as /api/v1/openapi.json describes it")
    return dict(request.query_params)


def _fits(value: str, schema: dict[str, Any]) -> bool:
    if schema["type"] == "integer":
        return re.fullmatch("[0-9]{1,9}", value) is not None and schema["minimum"] <= int(value) <= schema["maximum"]
    return (
        value in schema.get("enum", (value,))
        and len(value) <= schema.get("maxLength", len(value))
        and re.fullmatch(schema.get("pattern", "(?s:.*)"), value, re.ASCII) is not None
    )


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
    post: bool = False
    takes: type[Struct] | None = None
    busy: bool = False


_TEXT = {"type": "string"}
CALLS = (
    Call("/api/v1/status", "The totals.", status, StatusOnly, busy=True),
    Call(
        "/api/v1/keys",
        "A page of keys, the most urgent first.",
        keys,
        KeysOut,
        {
            "group": {"type": "string", "enum": [g.value for g in Group]},
            "provider": {"type": "string", "maxLength": 100},
            "privilege": {"type": "string", "enum": [p.value for p in Privilege]},
            "public": {"type": "string", "enum": ["1"]},
            "q": {"type": "string", "maxLength": 200},
            "sort": {"type": "string", "enum": [s.value for s in Sort]},
            "after": {"type": "string", "pattern": f"^{AFTER}$"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 500},
        },
    ),
    Call("/api/v1/keys/{key}", "One key with its places.", key, KeyReport, missing=True),
    Call("/api/v1/runs", "Rotations under way.", runs, RunsOut, {"all": {"type": "string", "enum": ["1"]}}),
    Call("/api/v1/runs/{run}", "One rotation with its journal.", run, RunOut, missing=True),
    Call(
        "/api/v1/runs/{run}/approve",
        "Agree to steps of a rotation, under the token's name.",
        approve,
        Agreed,
        missing=True,
        post=True,
        takes=Agree,
    ),
    Call(
        "/api/v1/runs/{run}/withdraw",
        "Take back what was agreed to under the token's name.",
        withdraw,
        Withdrawn,
        missing=True,
        post=True,
    ),
)


def routes() -> list[Route]:
    """Return the routes."""
    made = [Route(c.path, c.serve, methods=["POST" if c.post else "GET"]) for c in CALLS]
    return [*made, Route("/api/v1/openapi.json", openapi), Route("/metrics", metrics)]


@cache
def document() -> bytes:
    """Return the OpenAPI 3.1 document."""
    forms = (*{c.gives for c in CALLS}, *{c.takes for c in CALLS if c.takes}, Wrong)
    _, components = msgspec.json.schema_components(forms, ref_template="#/components/schemas/{name}")
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Lapse", "version": __version__, "description": "Leaked keys and their verdicts."},
            "paths": {c.path: {"post" if c.post else "get": _described(c)} for c in CALLS},
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
    answers: dict[str, Any] = {"200": {"description": c.does, "content": _json(c.gives.__name__)}}
    for code, when, said in (
        ("400", bool(c.query or c.takes), "It cannot be understood."),
        ("401", True, "No token, or one that is not known."),
        ("403", True, "The token's role does not suffice."),
        ("404", c.missing, "There is no such thing."),
        ("409", c.post, "It cannot be done now: the sentence says why."),
        ("413", c.takes is not None, "Too large."),
        ("415", c.takes is not None, "Not JSON."),
        ("503", c.busy, "Not counted yet: ask again."),
    ):
        if when:
            answers[code] = {"description": said, "content": _json("Wrong")}
    told = {"summary": c.does, "operationId": c.serve.__name__, "parameters": parameters, "responses": answers}
    return told | ({"requestBody": {"content": _json(c.takes.__name__)}} if c.takes else {})


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
