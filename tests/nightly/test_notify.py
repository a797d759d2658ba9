"""Who is told what, and that nobody is told twice."""

from __future__ import annotations

import json
import threading
import warnings
from base64 import b64decode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from rows import row, sendgrid

from lapse.commands.setup import Setup
from lapse.config import load
from lapse.exits import Exit, Stop
from lapse.nightly.night import Nightly, Plan
from lapse.notify import tracker
from lapse.sections import TicketConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from night import Folder

    from lapse.nightly.night import Night
    from lapse.sandbox.saas import Saas


class Got(NamedTuple):
    """One request to the listener."""

    path: str
    headers: dict[str, str]
    body: Any


class Listener(ThreadingHTTPServer):
    """A service on loopback that takes everything, or refuses with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Got] = []
        self.status = 201

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.got.append(Got(self.path, headers, json.loads(body)))
        answer = b'{"key":"SEC-7","html_url":"https://tracker.test/7"}'
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's own name
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as server:
        yield server


@contextmanager
def listening() -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def told(folder: Folder, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Return a folder whose news go to the listener by a real Apprise address."""
    monkeypatch.setenv("NEWS", f"json://{listener.address}/news")
    folder.also('[notify]\nurls = ["env:NEWS"]')
    return folder


def test_the_same_key_and_state_is_told_once(told: Folder, listener: Listener, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    told.report([row(1)])
    assert told.night(Exit.LIVE)["told"] == 1
    assert told.night(Exit.LIVE)["told"] == 0
    assert [g.path for g in listener.got] == ["/news"], "no news, no message"
    saas.add("sendgrid", sendgrid(1), "dead")
    assert told.night(Exit.OK)["told"] == 1
    assert "PROVEN DEAD" in listener.got[1].body["message"]
    (key,) = told.ledger().keys()
    notes = [e.detail["told"] for e in told.ledger().story(key.id) if hasattr(e, "detail") and "told" in e.detail]
    assert notes == ["live", "died"]


def test_a_revived_key_is_told_again(told: Folder, listener: Listener, saas: Saas) -> None:
    told.also('[nightly]\ndead_again = "0s"\ndead_later = "0s"')
    told.report([row(1)])
    for state in ("live", "dead", "live", "dead", "live"):
        saas.add("sendgrid", sendgrid(1), state)  # type: ignore[arg-type]  # a State
        told.night()
    heads = [g.body["message"].splitlines() for g in listener.got]
    assert len(heads) == 5
    assert heads[2][0].startswith("ALARM: ")
    assert any(line.startswith("BACK FROM THE DEAD") for line in heads[4])


def test_what_was_not_taken_is_told_the_next_night(told: Folder, listener: Listener, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    told.report([row(1)])
    listener.status = 500
    failed = told.night(Exit.BROKE)
    assert failed["told"] == 0
    assert failed["failed"] == ["env:NEWS did not take the message"]
    assert listener.address not in failed["said"], "an address is a secret"
    listener.status = 200
    assert told.night(Exit.LIVE)["told"] == 1


def test_no_secret_is_told(told: Folder, listener: Listener, saas: Saas) -> None:
    for n in range(30):
        saas.add("sendgrid", sendgrid(n), "live")
    told.report(row(n) for n in range(30))
    told.night(Exit.LIVE)
    text = json.dumps([g.body for g in listener.got])
    assert "sendgrid-" in text
    assert not any(sendgrid(n)[5:20] in text for n in range(30))
    assert "and 10 more" in text, "a digest has an end"


class Box:
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str, bool]] = []

    def __call__(self, address: str, title: str, body: str, *, urgent: bool) -> bool:
        self.got.append((address, title, body, urgent))
        return True


def night(folder: Folder, box: Box) -> Night:
    setup = Setup(load(folder.config))
    with setup.ledger() as ledger:
        return Nightly(setup, ledger, Plan(quiet=True), send=box).run()


def test_owners_hear_of_their_own_keys_and_the_urgent_of_public_ones(
    folder: Folder, saas: Saas, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL", "PAGER", "PAY"):
        monkeypatch.setenv(name, name)
    folder.also('[notify]\nurls = ["env:ALL"]\nurgent = ["env:PAGER"]')
    folder.also('[[owner]]\nname = "pay"\nrepositories = ["acme/pay"]\nnotify = ["env:PAY"]')
    for n in range(3):
        saas.add("sendgrid", sendgrid(n), "live")
    folder.report([row(0), row(1, repository="acme/pay"), row(2, visibility="public")])
    box = Box()
    night(folder, box)
    count = {address: body.count("- sendgrid-") for address, _, body, _ in box.got}
    assert count == {"ALL": 3, "PAGER": 1, "PAY": 1}
    assert [urgent for address, _, _, urgent in box.got if address == "PAY"] == [False]


def test_without_a_digest_each_key_has_its_message(folder: Folder, saas: Saas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL", "ALL")
    folder.also('[notify]\nurls = ["env:ALL"]\ndigest = false')
    for n in range(3):
        saas.add("sendgrid", sendgrid(n), "live")
    folder.report(row(n) for n in range(3))
    box = Box()
    night(folder, box)
    assert len(box.got) == 3


def test_policy_that_says_nothing_is_quiet(folder: Folder, saas: Saas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL", "ALL")
    folder.also('[notify]\nurls = ["env:ALL"]\n[[policy]]\naction = "nothing"')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    box = Box()
    night(folder, box)
    assert box.got == []


def test_a_missing_secret_is_found_before_the_night(folder: Folder, saas: Saas) -> None:
    folder.also('[notify]\nurls = ["env:LAPSE_NO_SUCH_THING"]')
    folder.report([row(1)])
    with pytest.raises(Stop, match="LAPSE_NO_SUCH_THING is not set"):
        folder.night()
    assert saas.asked == []


@pytest.mark.parametrize("kind", ["jira", "github"])
def test_a_ticket_is_opened_once(
    folder: Folder, listener: Listener, saas: Saas, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TRACKER", "hush")
    folder.also('[[policy]]\naction = "ticket"')
    where = f'base_url = "http://{listener.address}"\nproject = "acme/sec"\nuser = "bot"\ntoken = "env:TRACKER"'
    folder.also(f'[notify.ticket]\nkind = "{kind}"\n{where}')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    first, second = folder.night(Exit.LIVE), folder.night(Exit.LIVE)
    assert len(listener.got) == 1
    got = listener.got[0]
    if kind == "jira":
        assert got.path == "/rest/api/2/issue"
        assert b64decode(got.headers["authorization"].removeprefix("Basic ")) == b"bot:hush"
        assert got.body["fields"]["project"] == {"key": "acme/sec"}
        said = f"ticket opened: http://{listener.address}/browse/SEC-7"
    else:
        assert got.path == "/repos/acme/sec/issues"
        assert got.headers["authorization"] == "Bearer hush"
        assert got.body["labels"] == ["lapse"]
        said = "ticket opened: https://tracker.test/7"
    assert sendgrid(1)[5:20] not in json.dumps(got.body)
    assert [(a["said"], a["again"]) for a in first["acted"]] == [(said, False)]
    assert [a["again"] for a in second["acted"]] == [True]


def test_a_tracker_that_refuses_is_told_and_tried_again(
    folder: Folder, listener: Listener, saas: Saas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKER", "hush")
    folder.also('[[policy]]\naction = "ticket"')
    where = f'base_url = "http://{listener.address}"\nproject = "a/b"\ntoken = "env:TRACKER"'
    folder.also(f'[notify.ticket]\nkind = "github"\n{where}')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    listener.status = 403
    assert "answers 403" in folder.night(Exit.BROKE)["failed"][0]
    listener.status = 201
    assert folder.night(Exit.LIVE)["acted"][0]["said"].startswith("ticket opened")


@pytest.mark.parametrize(
    ("service", "address"),
    [
        ("Slack", f"slack://T{'1' * 8}/B{'1' * 8}/{'x' * 24}/"),
        ("Teams by a workflow", f"workflows://prod.westeurope.logic.azure.com/{'a' * 32}/{'b' * 43}/"),
        ("mail", "mailtos://bot:hush@mail.example.com?to=sec@example.com"),
        ("PagerDuty", f"pagerduty://{'i' * 20}@{'a' * 20}"),
        ("Opsgenie", f"opsgenie://{'0' * 8}-{'1' * 4}-{'2' * 4}-{'3' * 4}-{'4' * 12}/"),
        ("a web hook", "jsons://hooks.example.com/news"),
    ],
)
def test_services_are_known_by_their_addresses(service: str, address: str) -> None:
    """Whether they take a message only they can say; that an address of theirs is one, we can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Apprise's own modules
        import apprise

        assert apprise.Apprise().add(address), service


def test_a_token_never_travels_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER", "hush")
    with pytest.raises(Stop, match="never travels in the clear"):
        tracker(TicketConfig("jira", "http://jira.example.com", "SEC", "bot", "env:TRACKER"))


def test_a_rotation_is_proposed_once_and_recorded(folder: Folder, saas: Saas) -> None:
    """Ours by the scope: the simulator's live SendGrid key tells no account, so the ledger is told."""
    from lapse.ledger import Ownership  # this test only

    folder.also('[[policy]]\nname = "r"\naction = "rotate"\nplaybook = "sendgrid-key"')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    held = folder.night(Exit.LIVE)["acted"]
    assert held[0]["action"] == "notify"
    with folder.ledger() as ledger:
        (key,) = ledger.keys()
        ledger.mark([key.id], owner=Ownership.OURS)
    first, second = folder.night(Exit.LIVE)["acted"], folder.night(Exit.LIVE)["acted"]
    command = f"lapse rotate {key.short} --playbook sendgrid-key --mode graceful"
    assert first[0]["said"].startswith(f"rotation proposed: {command}; not opened: there is no playbook sendgrid-key")
    assert second[0]["again"]
