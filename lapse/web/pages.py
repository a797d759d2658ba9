"""The pages. Each takes what it shows from the ledger and gives it to a template, which escapes everything."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, assert_never

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lapse.figures import PRIVILEGES
from lapse.history import events, jobs, scans
from lapse.keypages import Ask, Group, Sort, page
from lapse.ledger import EventKind, Gone, LedgerError, Noted, Seen, Told, Turn
from lapse.nightly.memory import Memory
from lapse.output import html, jsonv1
from lapse.output.storyline import gone, noted
from lapse.web.access import COOKIE, Person
from lapse.web.guard import LOOPBACK, client_of, form, need
from lapse.web.settings import Role
from playbooks.journal import Status, What, same
from playbooks.plan import Slot
from verifier.model import Dead, Live, Privilege
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from lapse.ledger import Found, Key, Story
    from lapse.web.house import House
    from playbooks.journal import RunState

PLACES = 200
"""Most places of one key on its page."""

GROUPS = {
    Group.REMOVED: "Removed, never revoked",
    Group.LIVE: "Live",
    Group.UNDECIDED: "Undecided",
    Group.UNCHECKED: "Not asked",
    Group.UNCONFIRMED: "Dead, not confirmed",
    Group.DEAD: "Proven dead",
}
TURNS = {
    Turn.FOUND_LIVE: "the first answer",
    Turn.FOUND_DEAD: "the first answer",
    Turn.DIED: "it was live before",
    Turn.REVIVED: "it was dead before",
}
SORTS = {Sort.URGENT: "Most urgent first", Sort.NEWEST: "Newest first", Sort.OLDEST: "Oldest first"}


def house_of(request: Request) -> House:
    """Return the console's parts."""
    house: House = request.app.state.house
    return house


def show(request: Request, name: str, status: int = 200, **more: Any) -> HTMLResponse:  # noqa: ANN401  # a template's
    """Return a page."""
    who = getattr(request.state, "person", None)
    template = html.environment().get_template(name)
    text = template.render(person=who, path=request.url.path, Role=Role, **more)
    return HTMLResponse(text, status)


# ── coming in ──────────────────────────────────────────────────────────────────────────────────────────


def login(request: Request) -> Response:
    """Let the bearer of a one-time link in; without one, say how to get in."""
    house = house_of(request)
    token = request.query_params.get("t", "")
    if not token:
        return show(request, "login.html", said="", oidc=bool(house.serve.oidc.issuer))
    if not house.limit.passes(client_of(request)):
        return show(request, "login.html", 429, said="Too many attempts. Wait a minute.", oidc=False)
    found = house.links.take(token)
    if found is None:
        said = "This link was used or is too old. Start lapse serve again for a new one."
        return show(request, "login.html", 403, said=said, oidc=bool(house.serve.oidc.issuer))
    _, cookie = house.sessions.begin(*found)
    reply = RedirectResponse("/", 303)
    set_cookie(request, reply, cookie)
    return reply


def set_cookie(request: Request, reply: Response, cookie: str) -> None:
    """Give a browser its session: not for scripts, not for other sites, only over TLS where there is TLS."""
    host = request.url.hostname or ""
    secure = request.url.scheme == "https" or host not in {h.strip("[]") for h in LOOPBACK}
    reply.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=secure, path="/")


async def logout(request: Request) -> Response:
    """End the session."""
    who, _ = await form(request, Role.VIEWER)
    house_of(request).sessions.end(who)
    reply = RedirectResponse("/login", 303)
    reply.delete_cookie(COOKIE, path="/")
    return reply


# ── looking ────────────────────────────────────────────────────────────────────────────────────────────


def now(request: Request) -> Response:
    """Show what is urgent: removed but never revoked, waiting for somebody, part-way, live."""
    who = need(request, Role.VIEWER)
    house = house_of(request)
    f = house.figures.get(wait=5.0)
    removed = page(house.ledger, house.db, Ask(Group.REMOVED, limit=15))
    live = page(house.ledger, house.db, Ask(Group.LIVE, limit=25))
    runs = open_runs(house)
    mine = [r for r in runs if awaits(r, who)]
    return show(
        request,
        "now.html",
        f=f,
        removed=removed.lines,
        live=[line for line in live.lines if not line.key.removed_from_source],
        mine=mine,
        waiting=[r for r in runs if r.status is Status.WAITING and r not in mine],
        others=[r for r in runs if r.status is not Status.WAITING],
        trouble=house.figures.trouble,
    )


def awaits(state: RunState, who: Person) -> bool:
    """Say whether a run waits for an approval that this very person can give."""
    waited = next((e for e in reversed(state.entries) if e.what is What.WAITING), None)
    if state.status is not Status.WAITING or waited is None or waited.data.get("on") != "approval":
        return False
    planned, now = state.plan.step(waited.step), datetime.now(UTC)
    given = {same(n) for n in state.approvers(planned.name, now)}
    own = planned.approvals > 1 and same(who.name) == same(state.by)
    return who.role >= Role.APPROVER and bool(state.lacking(planned, now)) and same(who.name) not in given and not own


def open_runs(house: House) -> list[RunState]:
    """Return the rotations under way."""
    engine = house.desk.engine
    return [engine.state(r) for r in house.ledger.rotations.open_runs()]


def keys(request: Request) -> Response:
    """Show a page of keys."""
    need(request, Role.VIEWER)
    house = house_of(request)
    ask = asked(request)
    names = house.names.get(wait=5.0) if ask.text else None
    found = page(house.ledger, house.db, ask, names)
    f = house.figures.get(wait=2.0)
    kinds = [p.provider for p in f.providers] if f else []
    query = {"group": ask.group or "", "provider": ask.provider, "q": ask.text, "sort": ask.sort}
    query |= {"privilege": ask.privilege or "", "public": "1" if ask.public else ""}
    return show(
        request,
        "keys.html",
        ask=ask,
        lines=found.lines,
        after=packed(found.after),
        first=ask.after is None,
        query={k: v for k, v in query.items() if v},
        groups=GROUPS,
        sorts=SORTS,
        kinds=sorted(kinds),
        privileges=PRIVILEGES,
        reading=bool(ask.text) and names is None,
        cut=found.cut,
    )


def asked(request: Request) -> Ask:
    """Read what a list of keys is narrowed to; what is nonsense is 400."""
    q = request.query_params
    try:
        return Ask(
            group=Group(q["group"]) if q.get("group") else None,
            provider=q.get("provider", "")[:100],
            privilege=Privilege(q["privilege"]) if q.get("privilege") else None,
            public=q.get("public", "") == "1",
            text=q.get("q", "")[:200],
            sort=Sort(q.get("sort") or Sort.URGENT),
            after=unpacked(q.get("after", "")),
            limit=min(max(int(q.get("limit") or 50), 1), 500),
        )
    except ValueError:
        raise HTTPException(400, "this list cannot be asked for: look at its address") from None


AFTER = r"[0-9]{1,4}-[0-9]{1,18}"
"""Where a page ends, as an address says it: rank and number of its last key."""


def packed(after: tuple[int, int] | None) -> str:
    """Return where a page ends, fit for an address."""
    return f"{after[0]}-{after[1]}" if after else ""


def unpacked(text: str) -> tuple[int, int] | None:
    """Return what was packed; nonsense is a ValueError."""
    if not text:
        return None
    if not re.fullmatch(AFTER, text, re.ASCII):
        raise ValueError(text)
    rank, _, number = text.partition("-")
    return int(rank), int(number)


class Milestone(Struct, frozen=True):
    """One station of a key's way, and when it came there."""

    name: str
    at: datetime | None
    kind: str = ""


class Event(Struct, frozen=True):
    """One line of a key's story."""

    at: datetime
    text: str
    kind: str = ""


def find(house: House, name: str) -> Key:
    """Return the key that a name means; 404 where none."""
    try:
        return house.ledger.key(house.ledger.resolve(name))
    except LedgerError as e:
        raise HTTPException(404, str(e)) from None


def one(request: Request) -> Response:
    """Show all that is known of one key."""
    need(request, Role.VIEWER)
    house = house_of(request)
    key = find(house, request.path_params["key"])
    return show(request, "key.html", **told(house, key), revealed=None, reason="")


def told(house: House, key: Key) -> dict[str, Any]:
    """Return what the page of one key shows."""
    found = tuple(islice(house.ledger.places(key.id), PLACES))
    story = house.ledger.story(key.id)
    raw = msgspec.json.format(jsonv1.encode(jsonv1.full(key, found)), indent=2).decode()
    runs = [house.desk.engine.state(r) for r in house.ledger.rotations.runs(key.id)]
    return {
        "key": key,
        "found": found,
        "identity": key.known.identity if isinstance(key.known, Live) else None,
        "evidence": key.last.evidence if key.last else None,
        "story": [event(e) for e in story],
        "milestones": milestones(key, found, runs),
        "runs": runs,
        "raw": raw,
    }


def milestones(key: Key, found: Sequence[Found], runs: Sequence[RunState]) -> list[Milestone]:
    """Return how far a key came: leaked, seen, live, contained, new key, deployed, disabled, dead."""
    leaked = min((f.seen_at for f in found if f.seen_at), default=None)
    done: dict[str, datetime] = {}
    for state in runs:
        for planned in state.plan.steps:
            entry = state.done(planned.name)
            if entry is not None and not state.undone(planned.name):
                done.setdefault(planned.action.value, entry.at)
                if planned.slot is Slot.CONTAIN:
                    done.setdefault("contained", entry.at)
    gone = max((f.removed_at for f in found if f.removed_at), default=None) if key.removed_from_source else None
    return [
        Milestone("Leaked", leaked),
        Milestone("Seen", key.first_seen),
        Milestone("Live", key.first_live, "live"),
        Milestone("Removed", gone),
        Milestone("Contained", done.get("contained")),
        Milestone("New key", done.get("mint") or done.get("apply") or done.get("enter")),
        Milestone("Deployed", done.get("push")),
        Milestone("Disabled", done.get("disable")),
        Milestone("Dead", key.confirmed_at if isinstance(key.known, Dead) else None, "dead"),
    ]


def event(e: Story) -> Event:
    """Return one event of a story in words."""
    match e:
        case Seen():
            return Event(e.at, f"{e.scanner} saw it in {plural(e.places, 'new place')} ({e.file})")
        case Gone():
            return Event(e.at, _up(gone(e)))
        case Told():
            said = jsonv1.word(e.verdict)
            why = getattr(e.verdict, "why", None) or getattr(e.verdict, "how", None)
            turn = f", {TURNS[e.turn]}" if e.turn else ""
            return Event(e.at, f"Answer: {said}{f' ({why})' if why else ''}{turn}", said)
        case Noted():
            if e.kind == EventKind.ROTATION:
                return Event(e.at, _up(e.text))
            return Event(e.at, _up(noted(e)))
        case _:
            assert_never(e)


def _up(text: str) -> str:
    return text[:1].upper() + text[1:]


async def reveal(request: Request) -> Response:
    """Show a secret once: to an admin, for a reason, on record before it is read."""
    who, fields = await form(request, Role.ADMIN)
    house = house_of(request)
    reason = fields.get("reason", "").strip()[:500]
    key = await run_in_threadpool(find, house, request.path_params["key"])
    if not reason:
        raise HTTPException(400, "say why: it is recorded in the ledger")

    def work() -> tuple[dict[str, str] | None, dict[str, Any]]:
        """Do the blocking part, in a thread of its own."""
        house.ledger.note(EventKind.REVEALED, reason, (key.id,), {"who": who.name, "where": "console"})
        due = next(iter(house.ledger.due(datetime.now(UTC), ids=(key.id,))), None)
        parts = {n: v.reveal() for n, v in due.credential.parts.items()} if due else None
        return parts, told(house, key)

    parts, shown = await run_in_threadpool(work)
    return show(request, "key.html", **shown, revealed=parts or {}, reason=reason)


def funnel(request: Request) -> Response:
    """Show how far keys come, and how long it takes."""
    need(request, Role.VIEWER)
    return show(request, "funnel.html", f=house_of(request).figures.get(wait=5.0))


def owners(request: Request) -> Response:
    """Show live keys by owner, and image namespaces that nobody owns."""
    need(request, Role.VIEWER)
    house = house_of(request)
    d = house.changes.get(wait=1.5)
    rules = bool(house.setup.config.owner)
    return show(request, "owners.html", d=d, trouble=house.changes.trouble, rules=rules)


def providers(request: Request) -> Response:
    """Show how the providers answer."""
    need(request, Role.VIEWER)
    house = house_of(request)
    return show(request, "providers.html", f=house.figures.get(wait=5.0))


def nightly(request: Request) -> Response:
    """Show the last runs and reports, and what changed."""
    need(request, Role.VIEWER)
    house = house_of(request)
    return show(
        request,
        "nightly.html",
        jobs=jobs(house.db),
        scans=scans(house.db),
        last=Memory.of(house.ledger.name).last,
        d=house.changes.get(wait=1.5),
        trouble=house.changes.trouble,
    )


def audit(request: Request) -> Response:
    """Show the chain of events and whether it is whole."""
    need(request, Role.VIEWER)
    house = house_of(request)
    try:
        before = int(request.query_params["before"]) if "before" in request.query_params else None
    except ValueError:
        raise HTTPException(400, "before is the number of an event") from None
    found = events(house.db, before)
    return show(
        request,
        "audit.html",
        events=found,
        head=house.ledger.head(),
        checked=house.checked,
        checking=house.checking,
        before=found[-1].seq if found and found[-1].seq > 1 else None,
    )


async def check(request: Request) -> Response:
    """Check the chain, in the background."""
    await form(request, Role.RESPONDER)
    house_of(request).check()
    return RedirectResponse("/audit", 303)
