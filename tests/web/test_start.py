"""Starting a rotation in the browser: no plan unseen, no setting that reads or runs what its user may not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from web_made import HOSTILE, RUN, name_of, seen

from lapse.web.settings import Role
from playbooks.journal import What

if TYPE_CHECKING:
    from web_made import Browser

    from lapse.web.house import House

PAGE = f"/keys/{name_of(0)}/rotate"


def started(house: House) -> int:
    return len(house.ledger.rotations.runs()) - 1


def digest(text: str) -> str:
    found = re.search(r'name="digest" value="([0-9a-f]{32})"', text)
    assert found
    return found.group(1)


def test_looking_at_a_plan_does_nothing(browser: Browser, house: House) -> None:
    before = house.seq()
    page = browser.log_in(Role.RESPONDER).get(PAGE).text
    assert "Still to be said before it can start: store.path" in page
    assert "Start this plan" not in page
    assert "cannot be taken back" in page
    assert house.seq() == before


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("mode=x", "graceful or an emergency"),
        ("playbook=aws-access-key", "not for this kind of key"),
        ("set.store.path=env:HOME", "is a reference"),
        ("set.store.path=file:/etc/passwd", "is a reference"),
        ("set.store.path=a%0Ab", "printable"),
        ("set.store.path=" + "a" * 201, "up to 200"),
        ("set.store.use=command", "no setting store.use open"),
        ("set.issuer.base_url=http://127.0.0.1", "no setting issuer.base_url open"),
    ],
    ids=["mode", "playbook", "env", "file", "control", "long", "code", "issuer"],
)
def test_only_plain_words_for_what_is_open(browser: Browser, query: str, words: str) -> None:
    reply = browser.log_in().get(f"{PAGE}?{query}")
    assert reply.status_code == 409
    assert words in " ".join(seen(reply.text).text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_settings_are_only_text(browser: Browser, text: str) -> None:
    reply = browser.log_in().get(PAGE, params={"set.store.path": text, f"set.{text}": "1", "playbook": text})
    assert not [t for t, attributes in seen(reply.text).tags if t in {"img", "iframe", "a"} and "onerror" in attributes]
    assert "<script>alert" not in reply.text


def test_what_may_not_be_rotated_says_why(browser: Browser, house: House) -> None:
    reply = browser.log_in().get(f"/keys/{name_of(1)}/rotate")
    assert reply.status_code == 409
    assert "nobody knows whose" in reply.text.lower()


def test_a_viewer_starts_nothing(browser: Browser) -> None:
    browser.log_in(Role.VIEWER)
    assert browser.get(PAGE).status_code == 403
    assert browser.submit(PAGE, confirm="x").status_code == 403


def test_only_the_plan_that_was_shown_is_started(browser: Browser, house: House) -> None:
    browser.log_in(Role.RESPONDER)
    house.ledger.rotations.append(RUN, "", What.ENDED, "", {"how": "undone"})  # the key is free again
    shown = browser.get(f"{PAGE}?set.store.path=ci/one").text
    short = house.ledger.key(name_of(0)).short
    fields = {"set.store.path": "ci/one", "mode": "graceful", "confirm": short, "digest": digest(shown)}
    wrong = browser.submit(PAGE, **{**fields, "set.store.path": "ci/other"})
    assert (wrong.status_code, "The plan has changed" in wrong.text) == (409, True)
    assert browser.submit(PAGE, **{**fields, "mode": "emergency"}).status_code == 409
    assert browser.submit(PAGE, **{**fields, "digest": ""}).status_code == 409
    untyped = browser.submit(PAGE, **{**fields, "confirm": "yes"})
    assert (untyped.status_code, f"type {short} to confirm" in untyped.text) == (400, True)
    assert started(house) == 0
