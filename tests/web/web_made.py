"""What the console's tests stand on: hostile text, a ledger full of it, a rotation that waits, a small browser."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from starlette.testclient import TestClient

from lapse.commands.serve import _bound
from lapse.commands.setup import Setup
from lapse.config import load
from lapse.ledger import Ownership, Scan, open_ledger
from lapse.web.app import application
from lapse.web.house import House
from lapse.web.settings import Role
from playbooks.journal import What
from playbooks.plan import Action, Mode, Plan, Planned, Slot
from rotators.step import Effect
from verifier.model import (
    CredentialID,
    Dead,
    Doubt,
    Evidence,
    Finding,
    How,
    Identity,
    Image,
    KindID,
    LayerFate,
    Live,
    Place,
    Privilege,
    SourceKind,
    Undecided,
    Visibility,
)
from verifier.ports import Judged
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from httpx import Response
    from starlette.applications import Starlette

    from lapse.ledger import Ledger

SEALING = "ab" * 32
SECRET = "planted" + "s3cr3t" * 4
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "javascript:alert(document.cookie)",
    "</title></style></textarea><svg onload=alert(1)>",
    "{{7*7}}{% raw %}${7*7}#{7*7}",
    "--><!--<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href=data:text/html,<script>alert(1)</script>>x</a>",
    "<math><mi xlink:href=javascript:alert(1)>x",
    "\x1b[31m\u202egnp.exe\u2028\x00",
    "<form action=//evil.example><input name=csrf>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#x3c;b&#x3e;",
)
RUN = "r-00c0de"


def name_of(n: int) -> CredentialID:
    return CredentialID(f"openai-{blake2b(n.to_bytes(4, 'big'), digest_size=16).hexdigest()}")


def finding(n: int, text: str, *, image: bool = False) -> Finding:
    held = Image(f"api{text}", "docker.io", f"ns{text}", "1.0", None, "sha256:" + "a" * 64, LayerFate.REMOVED_LATER)
    place = Place(
        SourceKind.DOCKER if image else SourceKind.GIT,
        repository=None if image else f"acme/{text}",
        image=held if image else None,
        path=f"src/{text}",
        line=n + 1,
        revision=text,
        author=text,
        visibility=Visibility.PUBLIC,
        url=f"javascript:alert(1)//{text}",
    )
    return Finding(KindID("openai"), {"secret": Secret(f"{SECRET}{n}")}, place, f"gitleaks{text}", text)


def evidence(text: str) -> Evidence:
    return Evidence(f"GET https://{text}/", 200, text, "0" * 64, "openai@0", datetime.now(UTC), text, text)


def fill(ledger: Ledger) -> None:
    """Put a dozen keys in, all text hostile: live, gone and live, undecided, dead, refused once, not asked."""
    for n, text in enumerate(HOSTILE):
        rows = [(finding(n, text, image=n % 2 == 0), name_of(n), text)]
        ledger.ingest(Scan(f"gitleaks{text}", text, "gitleaks-json", origin=f"git:{n}", complete=True), rows)
    ledger.ingest(Scan(f"gitleaks{HOSTILE[1]}", "gone", "gitleaks-json", origin="git:1", complete=True), [])
    run = ledger.begin_run("nightly")
    at = datetime.now(UTC)
    for n, text in enumerate(HOSTILE[:9]):
        who = Identity(text, text, text, (text,), text, text, Privilege.ADMIN)
        verdict: Any = Live(evidence(text), who, restricted=n == 2)
        if n in {3, 4}:
            verdict = Dead(evidence(text), How.REVOKED, confirmed=n == 3)
        elif n in {5, 6}:
            verdict = Undecided(Doubt.THROTTLED, evidence(text), None, text)
        ledger.record([Judged(name_of(n), KindID("openai"), verdict, at)], run)
    ledger.end_run(run)
    ledger.mark([name_of(0)], owner=Ownership.OURS)


def plan() -> Plan:
    text = HOSTILE[0]
    steps = (
        Planned("snapshot", Slot.EVIDENCE, Action.SNAPSHOT, f"Look first {text}", Effect.READS),
        Planned("mint", Slot.CREATE, Action.MINT, f"Make a key {text}", Effect.ADDS, undo=f"delete it {text}"),
        Planned(
            "disable", Slot.RETIRE, Action.DISABLE, f"Stop it {text}", Effect.CHANGES, undo="enable it", approvals=1
        ),
        Planned("delete", Slot.RETIRE, Action.DELETE, f"Delete it {text}", Effect.DESTROYS, approvals=2),
    )
    return Plan(
        "sim-playbook", "0" * 12, f"Try {text}", Mode.GRACEFUL, name_of(0), "openai-000000", KindID("openai"), None,
        None, None, (), (), {}, steps, 3600.0, None, f"also {text}",
    )  # fmt: skip


def rotation(ledger: Ledger) -> None:
    """Record a rotation that two steps of are done, and that waits for an approval."""
    log = ledger.rotations
    text = HOSTILE[1]
    log.start(RUN, name_of(0), f"started {text}", {"plan": msgspec.json.encode(plan()).decode(), "by": f"bob {text}"})
    for step in ("snapshot", "mint"):
        log.append(RUN, step, What.INTENT, text)
        log.append(RUN, step, What.DONE, f"done {text}")
    log.append(RUN, "disable", What.WAITING, f"one person must agree {text}", {"on": "approval"})


@contextmanager
def house_on(url: str, folder: Path, *, filled: bool = True) -> Iterator[House]:
    """Make a console's parts, on a ledger with sealed secrets at this address; a new one is filled, unless not."""
    hooks = "\n".join(f'{n} = "env:LAPSE_TEST_HOOK"' for n in ("github", "gitlab", "trufflehog", "generic"))
    text = f'[ledger]\nurl = "{url}"\nkey = "env:LAPSE_TEST_SEAL"\n[serve]\nexecute = false\n'
    text += f"[serve.hooks]\n{hooks}\n"
    text += '[[owner]]\nname = "payments"\nimages = ["docker.io/acme/*"]\n'
    (folder / "lapse.toml").write_text(text)
    setup = Setup(load(folder / "lapse.toml"))
    with open_ledger(setup.config.ledger_url, setup.config.ledger.key) as ledger:
        if filled:
            fill(ledger)
            rotation(ledger)
        made = House(setup, ledger, setup.config.serve, "ann")
        try:
            yield made
        finally:
            made.close()


@contextmanager
def served(house: House) -> Iterator[str]:
    """Serve a console on a port of its own; give its address."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # as serve does: a cut stream is no error
    with _bound("127.0.0.1", 0) as listener:
        server = uvicorn.Server(
            uvicorn.Config(application(house), log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


class Browser(TestClient):
    """Speaks to the console as a browser would."""

    def __init__(self, app: Starlette, house: House) -> None:
        super().__init__(app, base_url="http://127.0.0.1:8017", follow_redirects=False)
        self.house = house
        self.made = app

    def log_in(self, role: Role = Role.ADMIN, name: str = "ann") -> Browser:
        token = self.house.links.make(name, role)
        reply = self.get(f"/login?t={token}")
        assert reply.status_code == 303, reply.text
        return self

    def csrf(self, path: str = "/") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(path).text)
        assert found
        return found.group(1)

    def submit(self, path: str, **fields: str) -> Response:
        return self.post(path, data={"csrf": self.csrf(), **fields})


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(text: str) -> Seen:
    made = Seen()
    made.feed(text)
    return made
