"""The JSON API: with a token, as its own description says, and never a secret. And hooks: genuine, durable, once."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from web_made import HOSTILE, RUN, SECRET, name_of

from lapse.web.hooks import spool
from lapse.web.settings import Role
from playbooks.journal import What

if TYPE_CHECKING:
    from web_made import Browser

    from lapse.web.house import House


@pytest.fixture
def bearer(house: House) -> dict[str, str]:
    return {"Authorization": f"Bearer {house.tokens.add('ci', 'viewer')}"}


def test_every_call_answers_as_described(browser: Browser, bearer: dict[str, str]) -> None:
    document: dict[str, Any] = browser.get("/api/v1/openapi.json", headers=bearer).json()
    assert document["openapi"].startswith("3.1")
    filled = {"{key}": name_of(0), "{run}": RUN}
    for path, item in ((p, i) for p, i in document["paths"].items() if "get" in i):
        address = path
        for name, value in filled.items():
            address = address.replace(name, value)
        reply = browser.get(address, headers=bearer)
        assert reply.status_code == 200, reply.text
        assert SECRET not in reply.text
        form = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(reply.json(), {**form, "components": document["components"]})


def test_wrong_questions_are_400_and_404_in_json(browser: Browser, bearer: dict[str, str]) -> None:
    for query in ("group=x", "sort=x", "after=x", "after=!!", "limit=x"):
        reply = browser.get(f"/api/v1/keys?{query}", headers=bearer)
        assert (reply.status_code, "error" in reply.json()) == (400, True), query
    assert browser.get("/api/v1/keys/aws-ffff", headers=bearer).status_code == 404
    assert browser.get("/api/v1/runs/r-none", headers=bearer).status_code == 404


def test_pages_of_the_api_lead_through_all(browser: Browser, bearer: dict[str, str]) -> None:
    seen, after = [], ""
    while True:
        reply = browser.get(f"/api/v1/keys?limit=5{after}", headers=bearer).json()
        seen += [k["id"] for k in reply["keys"]]
        if reply["next"] is None:
            break
        after = f"&after={reply['next']}"
    assert len(seen) == len(set(seen)) == len(HOSTILE)


def test_a_session_is_no_token_and_a_token_no_session(browser: Browser, bearer: dict[str, str]) -> None:
    browser.log_in()
    assert browser.get("/api/v1/keys").status_code == 401
    browser.cookies.clear()
    assert browser.get("/", headers=bearer).status_code == 303
    assert browser.get("/api/v1/keys", headers={"Authorization": "Bearer nonsense"}).status_code == 401


# ── approvals and figures ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ann(house: House) -> dict[str, str]:
    return {"Authorization": f"Bearer {house.tokens.add('ann', 'approver')}"}


def test_an_approval_bears_the_tokens_name(browser: Browser, house: House, ann: dict[str, str]) -> None:
    reply = browser.post(f"/api/v1/runs/{RUN}/approve", json={}, headers=ann)
    told = reply.json()
    assert (reply.status_code, told["run"], told["goes_on"]) == (200, RUN, False)
    assert [(s["step"], s["approvers"], s["missing"]) for s in told["steps"]] == [("disable", ["ann"], 0)]
    assert [e.data["who"] for e in house.ledger.rotations.entries(RUN) if e.what is What.APPROVED] == ["ann"]
    taken = browser.post(f"/api/v1/runs/{RUN}/withdraw", headers=ann)
    assert taken.json()["steps"] == ["disable"]
    assert "approved nothing" in browser.post(f"/api/v1/runs/{RUN}/withdraw", headers=ann).json()["error"]


def test_one_person_counts_once_by_token_and_by_session(browser: Browser, ann: dict[str, str]) -> None:
    browser.log_in(Role.APPROVER, "Ann")
    browser.submit(f"/runs/{RUN}/approve", step="delete", confirm=RUN)
    reply = browser.post(f"/api/v1/runs/{RUN}/approve", json={"steps": ["delete"]}, headers=ann)
    assert reply.status_code == 409
    assert "somebody else" in reply.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"[]", "application/json", 400),
        (b'{"step": "disable"}', "application/json", 400),
        (b'{"steps": ["mint"]}', "application/json", 409),
        (b"steps=disable", "application/x-www-form-urlencoded", 415),
        (b'{"steps": ["' + b"x" * 70_000 + b'"]}', "application/json", 413),
    ],
    ids=["list", "unknown", "not asked", "form", "large"],
)
def test_an_approval_that_says_nonsense_is_none(
    browser: Browser, house: House, ann: dict[str, str], content: bytes, kind: str, code: int
) -> None:
    reply = browser.post(f"/api/v1/runs/{RUN}/approve", content=content, headers={**ann, "Content-Type": kind})
    assert (reply.status_code, "error" in reply.json()) == (code, True)
    assert not [e for e in house.ledger.rotations.entries(RUN) if e.what is What.APPROVED]


def test_a_viewers_token_agrees_to_nothing(browser: Browser, bearer: dict[str, str]) -> None:
    for verb in ("approve", "withdraw"):
        assert browser.post(f"/api/v1/runs/{RUN}/{verb}", json={}, headers=bearer).status_code == 403


def test_prometheus_reads_the_figures_with_a_token(browser: Browser, bearer: dict[str, str]) -> None:
    reply = browser.get("/metrics", headers=bearer)
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'lapse_keys{verdict="live"} 5.0' in reply.text
    assert "lapse_removed_never_revoked 1.0" in reply.text
    browser.log_in()
    assert browser.get("/metrics").status_code == 401


# ── hooks ──────────────────────────────────────────────────────────────────────────────────────────────

BODY = json.dumps({"alert": HOSTILE[0]}).encode()
KEY = ("hook" * 8).encode()


def _signed(sender: str, body: bytes = BODY, key: bytes = KEY) -> dict[str, str]:
    digest = hmac.new(key, body, hashlib.sha256).hexdigest()
    return {
        "github": {"X-Hub-Signature-256": f"sha256={digest}"},
        "gitlab": {"X-Gitlab-Token": key.decode()},
        "trufflehog": {"X-TruffleHog-Signature": digest},
        "generic": {"X-Lapse-Signature": digest},
    }[sender]


@pytest.mark.parametrize("sender", ["github", "gitlab", "trufflehog", "generic"])
def test_a_genuine_delivery_is_kept_once(browser: Browser, house: House, sender: str) -> None:
    for _ in range(2):
        assert browser.post(f"/hooks/{sender}", content=BODY, headers=_signed(sender)).status_code == 202
    (file,) = spool(house).iterdir()
    assert file.read_bytes() == BODY
    assert file.stat().st_mode & 0o077 == 0


def test_a_delivery_that_can_be_read_is_in_the_ledger_at_once_and_not_twice(browser: Browser, house: House) -> None:
    place = {"source": "git", "repository": "acme/hooked", "path": ".env", "line": 3}
    secret = "SG." + "h" * 22 + "." + "k" * 43
    body = json.dumps({"provider": "sendgrid", "parts": {"secret": secret}, "place": place}).encode()
    before = house.ledger.status().findings
    for _ in range(2):
        assert browser.post("/hooks/generic", content=body, headers=_signed("generic", body)).status_code == 202
        assert list(spool(house).iterdir()) == []
        assert house.ledger.status().findings == before + 1


@pytest.mark.parametrize("sender", ["github", "gitlab", "trufflehog", "generic"])
def test_a_forged_delivery_leaves_nothing(browser: Browser, house: House, sender: str) -> None:
    for headers in ({}, _signed(sender, key=b"other")):
        assert browser.post(f"/hooks/{sender}", content=BODY, headers=headers).status_code == 401
    if sender != "gitlab":
        assert browser.post(f"/hooks/{sender}", content=BODY + b" ", headers=_signed(sender)).status_code == 401
    assert not spool(house).exists()


def test_an_unknown_hook_is_not_found(browser: Browser) -> None:
    assert browser.post("/hooks/nobody", content=BODY).status_code == 404
