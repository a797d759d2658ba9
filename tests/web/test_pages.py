"""Every page on a ledger full of hostile text: nothing runs, nothing secret shows, the urgent comes first."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pytest
from web_made import HOSTILE, RUN, SECRET, Browser, evidence, finding, house_on, name_of, seen

from lapse.figures import Cell, figures
from lapse.keypages import Ask, Group, Sort, page
from lapse.ledger import Scan
from lapse.names import names
from lapse.web.app import application
from lapse.web.settings import Role
from playbooks.journal import What
from verifier.model import Doubt, KindID, Live, Undecided
from verifier.ports import Judged

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.web.house import House

KEYS = [f"/keys/{name_of(n)}" for n in range(len(HOSTILE))]
PAGES = [
    "/", "/keys", "/keys?group=live&sort=newest", "/runs", f"/runs/{RUN}", f"/runs/{RUN}/now", "/funnel", "/owners",
    "/providers", "/nightly", "/audit", "/login",
]  # fmt: skip
TAGS = frozenset(
    """html head meta title link script body a header nav ul li div span form input button main h1 h2 h3 p table thead
    tbody tr th td caption code dl dt dd ol time details summary pre figure figcaption svg rect text line label select
    option strong b kbd br noscript""".split()  # noqa: SIM905  # a list of sixty strings reads worse
)


def calm(text: str) -> None:
    """Assert that a page holds our own tags alone, and nothing that runs."""
    found = seen(text)
    for tag, attributes in found.tags:
        assert tag in TAGS, (tag, attributes)
        assert tag != "script" or attributes == {"src": "/static/app.js", "defer": ""}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", "a strict policy forbids it"
            if name in {"href", "src", "action", "formaction"}:
                assert re.match(r"[/#](?!/)", value), (tag, name, value)


@pytest.mark.parametrize("path", [*PAGES, *KEYS])
def test_hostile_text_is_only_text(browser: Browser, path: str) -> None:
    browser.log_in()
    for _ in range(2):  # the slow figures are there at the second look
        reply = browser.get(path)
        assert reply.status_code == 200, reply.text
    calm(reply.text)
    assert SECRET not in reply.text
    assert "\x1b" not in reply.text
    assert "\u202e" not in reply.text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_questions_are_only_text(browser: Browser, text: str) -> None:
    browser.log_in()
    for path in ("/keys", "/audit", "/login", "/runs/x", "/keys/x"):
        calm(browser.get(path, params={"q": text, "provider": text, "group": "", "t": text}).text)
        calm(browser.get(path, params={"group": text, "before": text, "after": text}).text)
    calm(browser.get(f"/keys/{quote(text, safe='')}").text)


def test_the_hostile_text_is_there_to_be_read(browser: Browser) -> None:
    browser.log_in()
    assert any(HOSTILE[0] in t for t in seen(browser.get(KEYS[0]).text).text)


def test_removed_but_never_revoked_comes_first(browser: Browser) -> None:
    browser.log_in()
    headings = re.findall(r"<h2>([^<]+)</h2>", browser.get("/").text)
    assert headings[:2] == ["Removed from source, never revoked", "Waiting for you"]
    browser.submit(f"/runs/{RUN}/approve", step="disable", confirm=RUN)
    browser.log_in(Role.RESPONDER, "rita")
    assert "Waiting for time or for others" in browser.get("/").text


def test_live_keys_are_counted_by_age_privilege_and_exposure(browser: Browser, house: House) -> None:
    f = figures(house.ledger, house.db)
    (age, row), *rest = f.risk
    assert age == "under a day"
    assert row == (Cell(5, 5, 0), Cell(), Cell(), Cell())
    assert all(cell == Cell() for _, cells in rest for cell in cells)
    page_ = browser.log_in().get("/").text
    for link, count in re.findall(r'href="(/keys\?group=live&amp;privilege=[^"]+)">(\d+)', page_):
        assert browser.get(unescape(link)).text.count('<th scope="row" class="key">') == int(count) == 5
    assert "No key fits" in browser.get("/keys?group=live&privilege=read").text
    assert browser.get("/keys?privilege=boss").status_code == 400


def test_every_page_is_there_before_the_first_report(around: Path) -> None:
    with house_on(str(around / "ledger.db"), around, filled=False) as house, Browser(application(house), house) as new:
        new.log_in()
        for path in PAGES:
            reply = new.get(path)
            assert reply.status_code == (404 if RUN in path else 200), path
            calm(reply.text)


def test_every_state_of_a_provider_has_its_word(house: House) -> None:
    open_ = "circuit open after a run of failures"
    told: dict[str, list[Any]] = {
        "answers": [Live(evidence("x"))],
        "throttled": [Live(evidence("x")), Live(evidence("x")), Undecided(Doubt.THROTTLED)],
        "failing": [Undecided(Doubt.UNREACHABLE), Undecided(Doubt.BLOCKED)],
        "some trouble": [Live(evidence("x")), Live(evidence("x")), Undecided(Doubt.BLOCKED)],
        "circuit open": [Live(evidence("x")), Undecided(Doubt.UNREACHABLE, note=open_)],
        "not asked": [None],
    }
    now, number = datetime.now(UTC), 100
    for word, verdicts in told.items():
        kind = KindID(word.replace(" ", "_"))
        for verdict in verdicts:
            number += 1
            found = msgspec.structs.replace(finding(number, "x"), provider=kind)
            house.ledger.ingest(Scan("s", "f", "gitleaks-json"), [(found, name_of(number), "x")])
            if verdict is not None:
                house.ledger.record([Judged(name_of(number), kind, verdict, now)])
    with Browser(application(house), house) as browser:
        text = browser.log_in().get("/providers").text
    words = dict(re.findall(r'href="/keys\?provider=(\w+)">.*?<td><span class="chip[^"]*">([^<]+)<', text, re.DOTALL))
    assert {word.replace(" ", "_"): word for word in told}.items() <= words.items()


def test_nights_and_open_circuits_are_figures(house: House) -> None:
    run = house.ledger.begin_run("nightly")
    note = "api.example: circuit open after a run of failures; next try in 9 s"
    judged = Judged(name_of(9), KindID("openai"), Undecided(Doubt.UNREACHABLE, note=note), datetime.now(UTC))
    house.ledger.record([judged], run)
    f = figures(house.ledger, house.db)
    assert (f.nights[-1].live, f.nights[-1].undecided, f.nights[-1].dead) == (5, 3, 2)
    assert sum(n.live for n in f.nights[:-1]) == 0
    assert [p.circuit for p in f.providers] == [1]
    assert (f.funnel.to_removed.count, f.funnel.to_replaced.count) == (1, 0)
    house.ledger.rotations.append(RUN, "", What.ENDED, "", {"how": "finished"})
    assert figures(house.ledger, house.db).funnel.to_replaced.count == 1


def test_pages_of_keys_lead_through_all_once(house: House) -> None:
    for sort in Sort:
        seen_ids, after = [], None
        while True:
            got = page(house.ledger, house.db, Ask(sort=sort, after=after, limit=5))
            seen_ids += [line.key.id for line in got.lines]
            after = got.after
            if after is None:
                break
        assert len(seen_ids) == len(set(seen_ids)) == len(HOSTILE)


@pytest.mark.parametrize(
    ("group", "count"),
    [("removed", 1), ("live", 5), ("undecided", 2), ("unchecked", 3), ("unconfirmed", 1), ("dead", 1)],
)
def test_groups_hold_what_they_say(house: House, group: str, count: int) -> None:
    got = page(house.ledger, house.db, Ask(Group(group)))
    assert len(got.lines) == count


def test_search_finds_by_id_image_and_account(house: House) -> None:
    def found(text: str) -> set[str]:
        return {line.key.id for line in page(house.ledger, house.db, Ask(text=text), names(house.db)).lines}

    assert found(house.ledger.key(name_of(3)).short) == {name_of(3)}
    assert found("acme/javascript:alert") == {name_of(3)}
    assert found("no such thing") == set()
    assert name_of(0) in found("<script>")
    assert found("%") <= {name_of(n) for n in range(len(HOSTILE)) if "%" in HOSTILE[n]}


def test_an_unknown_key_is_a_page_that_says_so(browser: Browser) -> None:
    reply = browser.log_in().get("/keys/aws-abcdef")
    assert reply.status_code == 404
    assert "Not found" in reply.text


def test_revealing_takes_an_admin_a_reason_and_is_on_record(browser: Browser, house: House) -> None:
    browser.log_in(Role.APPROVER)
    assert "Reveal" not in browser.get(KEYS[0]).text
    assert browser.submit(f"{KEYS[0]}/reveal", reason="x").status_code == 403
    browser.log_in(Role.ADMIN)
    assert browser.submit(f"{KEYS[0]}/reveal", reason=" ").status_code == 400
    assert not [e for e in house.ledger.story(name_of(0)) if getattr(e, "kind", "") == "revealed"]
    reply = browser.submit(f"{KEYS[0]}/reveal", reason="incident 7")
    assert f"{SECRET}0" in reply.text
    (told,) = [e for e in house.ledger.story(name_of(0)) if getattr(e, "kind", "") == "revealed"]
    assert (told.text, told.detail["who"]) == ("incident 7", "ann")  # type: ignore[union-attr]  # asserted to be there the line before
    assert SECRET not in browser.get(KEYS[0]).text


def test_the_chain_can_be_checked(browser: Browser, house: House) -> None:
    browser.log_in()
    assert browser.submit("/audit/check").status_code == 303
    for _ in range(200):
        if house.checked is not None:
            break
        time.sleep(0.05)
    assert "The chain is whole" in browser.get("/audit").text
