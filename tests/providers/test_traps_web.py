"""Traps of code hosts, messaging, payment and cloud services: where a hasty probe would bury a live key.

A door that answers from a table stands in for the network; what was asked is part of each check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from verifier.catalogue import load_catalogue
from verifier.exchange import Reply, Request, Trouble
from verifier.model import Credential, CredentialID, Dead, Doubt, KindID, Live, Undecided
from verifier.probe import probe
from verifier.secret import Secret

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Call
    from verifier.model import Verdict

CATALOGUE = load_catalogue()
REFUSED = {
    "slack_bot": (200, '{"ok":false,"error":"invalid_auth"}'),
    "digitalocean": (401, '{"id":"Unauthorized","message":"Unable to authenticate you"}'),
    "shopify": (401, '{"errors":"[API] Invalid API key or access token (unrecognized login or wrong password)"}'),
    "twilio": (
        401,
        '{"code":20003,"message":"Authenticate","more_info":"https://www.twilio.com/docs/errors/20003","status":401}',
    ),
    "tailscale": (401, '{"message":"API token invalid"}'),
    "gitlab_pat": (401, '{"message":"401 Unauthorized"}'),
    "sentry": (401, '{"detail":"Invalid token"}'),
    "datadog_api": (403, '{"errors":["Forbidden"]}'),
    "github_pat": (401, '{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest"}'),
    "github_enterprise": (401, '{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest"}'),
}


class Counter:
    """A door that answers every host from one reply, or a host of its own from `hosts`, and notes what it was asked."""

    def __init__(self, status: int, body: str, hosts: dict[str, tuple[int, str]] | None = None) -> None:
        self.default = (status, body)
        self.hosts = hosts or {}
        self.asked: list[str] = []

    async def send(self, request: Request) -> Reply | Trouble:
        url = request.url.reveal()
        host = url.split("/")[2]
        self.asked.append(url)
        status, body = self.hosts.get(host, self.default)
        return Reply(status, {"content-type": "application/json"}, body.encode(), host)

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        return Trouble(Doubt.REFUSED, f"no {call.method} to {host}:{port} here")


def key(kind: str, **parts: str) -> Credential:
    return Credential(CredentialID(f"{kind}-1"), KindID(kind), {n: Secret(v) for n, v in parts.items()})


async def ask(door: Counter, kind: str, base_url: str | None = None, **parts: str) -> Verdict:
    return await probe(CATALOGUE, key(kind, **parts), door, base_url)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("slack_bot", {"secret": "xox" + "c-" + "1" * 40}),  # a browser session: needs its cookie
        ("slack_bot", {"secret": "xox" + "e-1-" + "M" * 60}),  # a refresh token
        ("digitalocean", {"secret": "dor_v1_" + "a" * 64}),  # a refresh token
        ("shopify", {"secret": "shp" + "ss_" + "a" * 32, "host": "example.myshopify.com"}),  # signs, opens nothing
        ("twilio", {"secret": "a" * 32, "id": "SK" + "0" * 32}),  # a standard API key may not read the account
        ("tailscale", {"secret": "tskey-" + "auth-k123456CNTRL-" + "a" * 32}),  # registers devices
        ("github_enterprise", {"secret": "ghp_" + "a" * 36, "host": "github.com"}),  # not an instance of its own
        ("npm", {"secret": "npm_" + "a" * 36}),  # no registry known
        (
            "zendesk",
            {"secret": "a" * 40, "username": "a@example.com", "host": "help.example.com"},
        ),  # somebody's own name
    ],
)
async def test_another_sort_of_key_is_not_asked_after(kind: str, parts: dict[str, str]) -> None:
    door = Counter(*REFUSED.get(kind, (401, "{}")))
    verdict = await ask(door, kind, **parts)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    assert door.asked == []


@pytest.mark.parametrize(
    ("kind", "secret"),
    [("slack_bot", "xox" + "b-" + "1" * 40), ("digitalocean", "dop_v1_" + "a" * 64), ("github_pat", "ghp_" + "a" * 36)],
)
async def test_its_own_sort_is_judged(kind: str, secret: str) -> None:
    door = Counter(*REFUSED[kind])
    assert isinstance(await ask(door, kind, secret=secret), Dead)
    assert len(door.asked) == 1


async def test_a_refusal_by_the_vendor_s_own_host_says_nothing_of_an_unknown_instance() -> None:
    for kind, secret in (("gitlab_pat", "glpat-" + "a" * 20), ("sentry", "sntryu_" + "a" * 64)):
        verdict = await ask(Counter(*REFUSED[kind]), kind, secret=secret)
        assert isinstance(verdict, Undecided), kind
        assert verdict.why is Doubt.INCOMPLETE
        door = Counter(*REFUSED[kind])
        assert isinstance(await ask(door, kind, secret=secret, host="git.example.com"), Dead)
        assert {u.split("/")[2] for u in door.asked} == {"git.example.com"}


async def test_enterprise_server_is_asked_by_its_own_path() -> None:
    door = Counter(*REFUSED["github_enterprise"])
    verdict = await ask(door, "github_enterprise", secret="ghp_" + "a" * 36, host="https://git.example.com/")
    assert isinstance(verdict, Dead)
    assert door.asked == ["https://git.example.com/api/v3/user"]


async def test_data_residency_host_is_asked_beside_github_com() -> None:
    live = (200, '{"login":"octocat","id":1,"node_id":"x","type":"User"}')
    door = Counter(*REFUSED["github_pat"], hosts={"api.octocorp.ghe.com": live})
    verdict = await ask(door, "github_pat", secret="ghp_" + "a" * 36, host="octocorp.ghe.com")
    assert isinstance(verdict, Live)
    assert door.asked[-1] == "https://api.octocorp.ghe.com/user"


async def test_one_of_nine_datadog_sites_keeps_a_key_alive() -> None:
    secret = "0" * 32
    door = Counter(*REFUSED["datadog_api"])
    assert isinstance(await ask(door, "datadog_api", secret=secret), Dead)
    assert len({u.split("/")[2] for u in door.asked}) == 9
    door = Counter(*REFUSED["datadog_api"], hosts={"api.us5.datadoghq.com": (200, '{"valid":true}')})
    assert isinstance(await ask(door, "datadog_api", secret=secret), Live)
    door = Counter(*REFUSED["datadog_api"], hosts={"api.us5.datadoghq.com": (502, "")})
    assert isinstance(await ask(door, "datadog_api", secret=secret), Undecided)


async def test_npm_asks_the_registry_that_the_finding_or_the_config_names() -> None:
    door = Counter(200, '{"username":"octocat"}')
    verdict = await ask(door, "npm", secret="npm_" + "a" * 36, host="npm.example.com")
    assert isinstance(verdict, Live)
    assert verdict.identity is not None
    assert verdict.identity.principal == "octocat"
    await ask(door, "npm", "https://registry.example.com", secret="npm_" + "a" * 36)
    assert door.asked == ["https://npm.example.com/-/whoami", "https://registry.example.com/-/whoami"]


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        # Live keys of another sort hear these very words (the sources stand in the specs).
        ("mailgun", 401, '{"message":"Invalid private key"}'),
        ("postmark", 401, '{"ErrorCode":10,"Message":"Request does not contain a valid Server token."}'),
        ("cloudflare_token", 401, '{"success":false,"errors":[{"code":1000,"message":"Invalid API Token"}]}'),
        ("flyio", 200, '{"errors":[{"message":"x","extensions":{"code":"UNAUTHORIZED"}}]}'),
        ("terraform_cloud", 404, '{"errors":[{"status":"404","title":"not found"}]}'),
        ("circleci", 401, '{"message":"You must log in first."}'),
        ("vault_token", 403, '{"errors":["permission denied"]}'),
        ("razorpay", 401, '{"error":{"code":"BAD_REQUEST_ERROR","description":"Authentication failed"}}'),
        (
            "hubspot",
            401,
            '{"message":"Authentication credentials not found. This API","category":"INVALID_AUTHENTICATION"}',
        ),
    ],
)
def test_words_that_live_keys_hear_too_bury_nobody(kind: str, status: int, body: str) -> None:
    reply = Reply(status, {"content-type": "application/json"}, body.encode(), "example.test")
    assert CATALOGUE.judge(CATALOGUE.kinds[kind])(reply, "s" * 40).verdict == "undecided"


def test_webhooks_are_read_or_left_alone() -> None:
    assert CATALOGUE.kinds["slack_webhook"].probe == "none"
    assert CATALOGUE.kinds["teams_webhook"].probe == "none"
    assert {c.method for c in CATALOGUE.kinds["discord_webhook"].manifest()} == {"GET"}


def test_keys_that_a_look_would_spend_are_left_alone() -> None:
    for kind in (
        "github_refresh",
        "digitalocean_refresh",
        "slack_refresh",
        "vault_approle",
        "zoom_s2s",
        "gitlab_trigger",
    ):
        assert CATALOGUE.kinds[kind].probe == "none", kind
        assert CATALOGUE.kinds[kind].reason
