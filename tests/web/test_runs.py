"""What a person says to a rotation in the console is recorded as the command line records it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from web_made import RUN, served

from lapse.web.access import COOKIE
from lapse.web.runs import Watch
from lapse.web.settings import Role
from playbooks.journal import What

if TYPE_CHECKING:
    from web_made import Browser

    from lapse.web.house import House


def _said(house: House, what: What) -> list[str]:
    return [e.step for e in house.ledger.rotations.entries(RUN) if e.what is what]


def test_an_approval_is_typed_recorded_and_told(browser: Browser, house: House) -> None:
    browser.log_in(Role.APPROVER)
    wrong = browser.submit(f"/runs/{RUN}/approve", step="disable", confirm="yes")
    assert wrong.status_code == 400
    assert f"type {RUN} to confirm" in wrong.text
    assert _said(house, What.APPROVED) == []
    assert browser.submit(f"/runs/{RUN}/approve", step="disable", confirm=RUN).status_code == 303
    assert _said(house, What.APPROVED) == ["disable"]
    page = browser.get(f"/runs/{RUN}").text
    assert f"`lapse resume {RUN}` does" in page
    assert "Agreed: ann" in page
    assert "Recorded" not in browser.get(f"/runs/{RUN}").text, "told once"


def test_two_people_are_two_people(browser: Browser, house: House) -> None:
    browser.log_in(Role.APPROVER)
    browser.submit(f"/runs/{RUN}/approve", step="delete", confirm=RUN)
    again = browser.submit(f"/runs/{RUN}/approve", step="delete", confirm=RUN)
    assert again.status_code == 409
    assert "somebody else" in again.text
    browser.log_in(Role.APPROVER, "carol")
    browser.submit(f"/runs/{RUN}/approve", step="delete", confirm=RUN)
    assert _said(house, What.APPROVED) == ["delete", "delete"]


def test_an_approval_can_be_withdrawn(browser: Browser, house: House) -> None:
    browser.log_in(Role.APPROVER)
    browser.submit(f"/runs/{RUN}/approve", step="disable", confirm=RUN)
    assert browser.submit(f"/runs/{RUN}/withdraw").status_code == 303
    assert _said(house, What.WITHDRAWN) == ["disable"]


def test_declining_takes_the_run_back_with_a_reason(browser: Browser, house: House) -> None:
    browser.log_in(Role.APPROVER)
    assert browser.submit(f"/runs/{RUN}/decline", confirm="", reason="no").status_code == 400
    assert browser.submit(f"/runs/{RUN}/decline", confirm=RUN, reason="wrong window").status_code == 303
    assert _said(house, What.UNDO) == [""]
    assert "wrong window" in browser.get("/audit").text


def test_an_unknown_run_and_an_unknown_verb_are_not_found(browser: Browser) -> None:
    browser.log_in()
    assert browser.get("/runs/r-none").status_code == 404
    assert browser.submit(f"/runs/{RUN}/explode").status_code == 404


async def test_many_watch_one_run_by_one_reader(house: House) -> None:
    watch = Watch(house)
    async with watch.of(RUN) as first, watch.of(RUN) as second:
        assert first is second
        seen = await asyncio.wait_for(first.after(-1, 30), 30)
        told = asyncio.gather(*(first.after(seen, 5) for _ in range(50)))
        await asyncio.sleep(0)
        await asyncio.to_thread(house.ledger.rotations.append, RUN, "disable", What.INTENT, "goes on")
        assert len(set(await asyncio.wait_for(told, 30))) == 1
        task = first.task
    assert task is not None
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_fifty_people_follow_a_run_to_its_end(house: House) -> None:
    log, ready = house.ledger.rotations, asyncio.Semaphore(0)
    before = log.entries(RUN)[-1].seq

    async def follow(port: int, cookie: str) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /runs/{RUN}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {COOKIE}={cookie}\r\n\r\n"
        writer.write(head.encode())
        told: list[str] = []
        while "over" not in told:
            line = (await reader.readline()).decode().strip()
            assert line or not reader.at_eof(), told
            if line.startswith("data: "):
                told.append(line.removeprefix("data: "))
                ready.release()
        writer.close()
        return told

    with served(house) as address:
        port = int(address.rpartition(":")[2])
        viewers = [
            asyncio.create_task(follow(port, house.sessions.begin(f"viewer {n}", Role.VIEWER)[1])) for n in range(50)
        ]
        async with asyncio.timeout(30):
            for _ in viewers:
                await ready.acquire()
            await asyncio.to_thread(log.append, RUN, "", What.ENDED, "all is done", {"how": "finished"})
            told = await asyncio.gather(*viewers)
    assert told == [[str(before), str(before + 1), "over"]] * 50
