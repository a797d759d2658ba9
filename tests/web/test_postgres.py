"""The console on a ledger in PostgreSQL: every page, the API, search and report say what they say on a file."""

from __future__ import annotations

import io
import re
from contextlib import ExitStack
from difflib import unified_diff
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import pytest
from web_made import HOSTILE, RUN, SECRET, Browser, house_on, name_of

from lapse import keypages
from lapse.figures import figures
from lapse.keypages import Ask, Group, Sort, page
from lapse.names import names
from lapse.output import html
from lapse.web.app import application
from verifier.model import Privilege

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

    from lapse.web.house import House

KEY = f"/keys/{name_of(0)}"
PAGES = [
    "/", "/keys", "/keys?group=live&privilege=admin&public=1&provider=openai&sort=newest", "/keys?q=acme",
    "/keys?sort=oldest&limit=5", "/keys?limit=5&after=0-1", *(f"/keys/{name_of(n)}" for n in range(len(HOSTILE))),
    f"{KEY}/rotate?set.store.path=ci/one", "/runs", f"/runs/{RUN}", f"/runs/{RUN}/now", "/funnel", "/owners",
    "/providers", "/nightly", "/audit", "/audit?before=9",
]  # fmt: skip
CALLS = ("status", "keys", "keys?q=acme&limit=5", f"keys/{name_of(0)}", "runs?all=1", f"runs/{RUN}")

_OWN = (
    re.compile(r'(?<=name="csrf" value=")[^"]+|(?<=name="digest" value=")[^"]+'),
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?Z?)?"),
    re.compile(r"\bchart\d+"),
    re.compile(r"<code>[0-9a-f]{16,128}</code>"),  # hashes and signatures of the chain: times are in them
    re.compile(r"\b\d+ (?:min|h)\b"),
    re.compile(r"(?<=lapse_oldest_live_seconds )[\d.]+"),
)


def plain(text: str) -> list[str]:
    """Return a page's lines without what no two ledgers share: times, hashes, tokens."""
    for own in _OWN:
        text = own.sub("_", text)
    return text.splitlines()


def different(one: str, other: str) -> list[str]:
    """Return the lines in which two pages differ."""
    return list(unified_diff(plain(one), plain(other), "postgresql", "sqlite", n=0, lineterm=""))


@pytest.fixture
def twins(around: Path, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[House, House]]:
    """Make the same console twice: on a file, and on PostgreSQL."""
    who = f"{postgresql.admin['username']}:{postgresql.admin['password']}"
    place = f"{postgresql.host}:{postgresql.port}/postgres?sslmode=disable&schema=t{uuid4().hex[:12]}"
    monkeypatch.setenv("LAPSE_TEST_LEDGER", f"postgresql://{who}@{place}")
    with house_on(str(around / "ledger.db"), around) as file, house_on("env:LAPSE_TEST_LEDGER", around) as server:
        yield file, server


def test_every_page_and_call_says_the_same_on_postgresql(twins: tuple[House, House]) -> None:
    with ExitStack() as stack:
        tabs = [stack.enter_context(Browser(application(house), house)) for house in twins]
        tokens = [{"Authorization": f"Bearer {house.tokens.add('ann', 'admin')}"} for house in twins]
        for tab in tabs:
            tab.log_in()
            for kept in (tab.house.figures, tab.house.names, tab.house.changes, tab.house.metrics):
                assert kept.get(wait=60) is not None
        for path in PAGES:
            file, server = (tab.get(path) for tab in tabs)
            assert (file.status_code, server.status_code) == (200, 200), server.text
            assert different(server.text, file.text) == [], path
        for path in [f"/api/v1/{call}" for call in CALLS] + ["/metrics"]:
            file, server = (tab.get(path, headers=token) for tab, token in zip(tabs, tokens, strict=True))
            assert (file.status_code, server.status_code) == (200, 200), server.text
            assert different(server.text, file.text) == [], path
        for tab in tabs:
            assert f"{SECRET}0" in tab.submit(f"{KEY}/reveal", reason="incident 7").text
            assert tab.submit(f"/runs/{RUN}/approve", step="disable", confirm=RUN).status_code == 303
            assert tab.house.ledger.check().ok


def test_lists_searches_figures_and_the_report_are_the_same_on_postgresql(
    twins: tuple[House, House], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = [Ask(sort=sort, limit=5) for sort in Sort] + [Ask(group) for group in Group]
    asks += [Ask(privilege=p) for p in Privilege] + [Ask(public=True), Ask(provider="openai"), Ask(provider="none")]
    asks += [Ask(text=text) for text in (*HOSTILE, "acme", "openai-", twins[0].ledger.key(name_of(3)).short, "%", "_")]

    def listed(house: House) -> list[Any]:
        return [
            [(line.key.id, line.where) for line in page(house.ledger, house.db, ask, names(house.db)).lines]
            for ask in asks
        ]

    def counted(house: House) -> str:
        return msgspec.json.format(msgspec.json.encode(figures(house.ledger, house.db))).decode()

    def report(house: House) -> str:
        out = io.StringIO()
        html.write(house.ledger, out)
        return out.getvalue()

    file, server = twins
    assert any(listed(file))
    for few in (keypages.FEW, 1):  # as on small and on large ledgers
        monkeypatch.setattr(keypages, "FEW", few)
        monkeypatch.setattr(keypages, "MOST", few)
        assert listed(server) == listed(file)
    assert different(counted(server), counted(file)) == []
    assert different(report(server), report(file)) == []
