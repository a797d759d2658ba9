"""Starting a rotation in the browser: the plan first, then a typed confirmation of just that plan.

Only what the playbook leaves open can be said here, and only plain words: a reference (`env:`, `file:`) would make the
console read what its user may not, and which code acts is the config's to say.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from lapse.exits import Stop
from lapse.references import REFERENCE
from lapse.rotation import ANY, said_plainly
from lapse.web.guard import form, need
from lapse.web.pages import find, house_of, show
from lapse.web.settings import Role
from playbooks.plan import Mode, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from lapse.ledger import Key
    from lapse.web.house import House

LONGEST = 200
"""Most characters of one setting."""

_SET = "set."


class Wanted(Struct, frozen=True):
    """What somebody asks for: mode, playbook (empty: the one that fits) and the settings that it leaves open."""

    mode: Mode
    playbook: str
    sets: dict[str, str]

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Wanted:
        """Read a form or an address; what is nonsense is a `Stop`."""
        mode = fields.get("mode") or Mode.GRACEFUL.value
        if mode not in {m.value for m in Mode}:
            raise Stop("a rotation is graceful or an emergency")
        sets = {n.removeprefix(_SET): v.strip() for n, v in fields.items() if n.startswith(_SET) and v.strip()}
        for name, value in sets.items():
            if len(value) > LONGEST or not value.isprintable():
                raise Stop(f"the setting {name[:LONGEST]} takes up to {LONGEST} printable characters")
            if REFERENCE.fullmatch(value):
                raise Stop(f"the setting {name[:LONGEST]} is a reference: give that in [rotate.set] of the config")
        return cls(Mode(mode), fields.get("playbook", "")[:LONGEST], sets)


class Shown(Struct, frozen=True):
    """A plan as its page shows it; `open` are the settings still to be said, `digest` is of this very plan."""

    plan: Plan
    open: tuple[str, ...]
    asked: tuple[str, ...]
    digest: str


def fitting(house: House, key: Key) -> list[str]:
    """Return the playbooks that can be chosen for a key, those made for its kind first."""
    books = house.desk.books.values()
    return [b.id for b in books if key.provider in b.kinds] + [b.id for b in books if ANY in b.kinds]


def planned(house: House, name: str, wanted: Wanted) -> Shown:
    """Return the plan for a key; whatever is in the way is a `Stop`. Nothing is asked of anybody."""
    desk = house.desk
    key = desk.key(name)
    books = fitting(house, key)
    if wanted.playbook and wanted.playbook not in books:
        raise Stop("this playbook is not for this kind of key")
    book = wanted.playbook or (books[0] if books else None)
    with said_plainly():
        bare = desk.plan(key, wanted.mode, book, {})
        asked = tuple(bare.open_settings())
        for setting in wanted.sets:
            if setting not in asked:
                raise Stop(f"this playbook leaves no setting {setting} open")
            if setting.endswith(".use"):
                raise Stop(
                    f"the setting {setting} says which code acts: that is said in [rotate.set] of the config, not here"
                )
        made = desk.plan(key, wanted.mode, book, wanted.sets) if wanted.sets else bare
    digest = hashlib.sha256(msgspec.json.encode(made)).hexdigest()[:32]
    return Shown(made, tuple(made.open_settings()), asked, digest)


def plan_page(request: Request) -> Response:
    """Show the plan for a key: nothing is done."""
    need(request, Role.RESPONDER)
    house = house_of(request)
    key = find(house, request.path_params["key"])
    try:
        wanted = Wanted.of(dict(request.query_params))
        shown = planned(house, key.id, wanted)
    except Stop as e:
        return _page(request, key, None, None, str(e), 409)
    return _page(request, key, wanted, shown)


def _page(
    request: Request, key: Key, wanted: Wanted | None, shown: Shown | None, said: str = "", status: int = 200
) -> Response:
    house = house_of(request)
    more = {"key": key, "wanted": wanted, "shown": shown, "said": said, "books": fitting(house, key), "modes": Mode}
    return show(request, "rotate.html", status, **more)


async def begin(request: Request) -> Response:
    """Start the rotation that was shown, under the name of who is logged in."""
    who, fields = await form(request, Role.RESPONDER)
    house = house_of(request)
    key = await run_in_threadpool(find, house, request.path_params["key"])

    def work() -> Response:
        """Do the blocking part, in a thread of its own."""
        try:
            wanted = Wanted.of(fields)
            shown = planned(house, key.id, wanted)
        except Stop as e:
            return _page(request, key, None, None, str(e), 409)
        if shown.digest != fields.get("digest", ""):
            return _page(
                request, key, wanted, shown, "The plan has changed meanwhile; nothing was done. Look again.", 409
            )
        if fields.get("confirm", "").strip() != key.short:
            return _page(request, key, wanted, shown, f"Nothing was done: type {key.short} to confirm.", 400)
        name = f"r-{secrets.token_hex(3)}"
        try:
            with said_plainly():
                house.desk.world(shown.plan)  # whoever is missing is missed before anything is on record
                turn = house.desk.engine.start(name, shown.plan, who.name)
        except Stop as e:
            return _page(request, key, wanted, shown, str(e), 409)
        went = house.executor.hand(name, turn)
        said = "Started; this page follows it." if went else f"Recorded; `lapse resume {name}` goes on with it."
        request.app.state.said[who.session] = said
        return RedirectResponse(f"/runs/{name}", 303)

    return await run_in_threadpool(work)
