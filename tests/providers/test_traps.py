"""Traps that providers set for those who ask after keys, one line each, and the six rules behind them.

A line is a reply that some checker once read the wrong way: a live key buried, a stripped header taken for a death, a
dead key called live. The sources stand in the specs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from support import ToldDoor, credential, reply

from verifier.catalogue import load_catalogue
from verifier.model import Arrival, Dead, Live, Undecided
from verifier.probe import probe
from verifier.rules import Judge
from verifier.spec import Probe

if TYPE_CHECKING:
    from verifier.exchange import Reply
    from verifier.model import Verdict

CATALOGUE = load_catalogue()
SECRET = "s" * 44
HTML = "text/html"
TEXT = "text/plain"


def j(**value: object) -> str:
    return msgspec.json.encode(value).decode()


def claude(kind: str, message: str) -> str:
    return j(type="error", error={"type": kind, "message": message})


TRAPS: list[tuple[str, int, str, str, str]] = [
    # ── the status misleads: dead with 400, 403, 404, 200 (R5) ──
    ("anthropic", 400, claude("invalid_request_error", "This organization has been disabled."), "", "dead:disabled"),
    ("anthropic_oauth", 403, claude("permission_error", "OAuth token has been revoked"), "", "dead:revoked"),
    ("anthropic_oauth", 401, claude("authentication_error", "OAuth token has expired."), "", "dead:expired"),
    ("elevenlabs", 400, j(detail={"code": "invalid_api_key", "status": "invalid_api_key"}), "", "dead"),
    ("resend", 400, j(statusCode=400, name="validation_error", message="API key is invalid"), "", "dead"),
    ("rollbar", 403, j(err=1, message=f"access token not found: {SECRET}"), "", "dead"),
    ("databricks", 403, "Error 403 Invalid access token.\nHTTP ERROR 403", HTML, "dead"),
    ("slack_bot", 200, j(ok=False, error="token_revoked"), "", "dead:revoked"),
    ("slack_bot", 200, j(ok=False, error="account_inactive"), "", "dead"),
    ("alibaba", 404, j(Code="InvalidAccessKeyId.NotFound", Message="Specified access key is not found."), "", "dead"),
    ("figma", 401, j(status=401, err="Invalid token"), "", "dead"),
    ("figma", 403, j(status=403, err="Invalid token"), "", "dead"),
    ("vercel", 403, j(error={"code": "forbidden", "message": "Not authorized", "invalidToken": True}), "", "dead"),
    ("circleci", 401, "Invalid token provided.", TEXT, "dead"),
    # ── the status misleads: live with 401, 403 (R5) ──
    (
        "stripe",
        403,
        j(
            error={
                "type": "invalid_request_error",
                "message": "The provided key does not have "
                "the required permissions for this endpoint on account 'acct_x'.",
            }
        ),
        "",
        "restricted",
    ),
    (
        "linode",
        401,
        j(errors=[{"reason": "Your OAuth token is not authorized to use this endpoint."}]),
        "",
        "restricted",
    ),
    (
        "dropbox",
        401,
        j(error_summary="missing_scope/.", error={".tag": "missing_scope", "required_scope": "x"}),
        "",
        "restricted",
    ),
    (
        "elevenlabs",
        401,
        j(detail={"code": "quota_exceeded", "status": "quota_exceeded", "message": "x"}),
        "",
        "restricted",
    ),
    ("sendgrid", 401, j(errors=[{"message": "Maximum credits exceeded"}]), "", "restricted"),
    (
        "grafana_cloud",
        401,
        j(code="InvalidCredentials", message="invalid permission for this operation, required scope"),
        "",
        "restricted",
    ),
    (
        "salesforce",
        401,
        ('[{"message":"This session is not valid for use with the REST API","errorCode":"INVALID_SESSION_ID"}]'),
        "",
        "restricted",
    ),
    (
        "intercom",
        401,
        j(type="error.list", errors=[{"code": "unauthorized", "message": "Not authorized to access resource"}]),
        "",
        "restricted",
    ),
    ("openrouter", 403, j(error={"message": "Key limit exceeded", "code": 403}), "", "restricted"),
    (
        "figma",
        403,
        j(status=403, err="Invalid scope(s): x. This endpoint requires the file_read scope"),
        "",
        "restricted",
    ),
    ("vultr", 401, j(error="Your IP 203.0.113.7 is not authorized to use this API key", status=401), "", "restricted"),
    ("rollbar", 403, j(err=1, message="insufficient privileges"), "", "restricted"),
    ("wandb", 403, j(errors=[{"message": "permission denied"}]), "", "restricted"),
    (
        "deepseek",
        402,
        j(error={"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}),
        "",
        "restricted",
    ),
    ("ovh", 403, j(errorCode="NOT_GRANTED_CALL", message="This call has not been granted"), "", "restricted"),
    (
        "neon",
        400,
        j(code="", message="org_id is required, you can find it on your organization settings page"),
        "",
        "restricted",
    ),
    # ── no key arrived: never a death (R1, design rule 10) ──
    ("cerebras", 403, j(detail="Not authenticated"), "", "undecided:incomplete"),
    ("resend", 401, j(statusCode=401, name="missing_api_key", message="Missing API Key"), "", "undecided:incomplete"),
    ("twilio", 401, j(code=20003, message="No credentials provided", status=401), "", "undecided:incomplete"),
    ("xai", 401, j(error="Unauthenticated"), "", "undecided:incomplete"),
    (
        "vercel",
        403,
        j(error={"code": "forbidden", "message": "Not authorized", "missingToken": True}),
        "",
        "undecided:incomplete",
    ),
    ("okta", 403, j(errorCode="E0000005", errorSummary="Invalid session"), "", "undecided:incomplete"),
    ("openrouter", 401, j(error={"message": "No auth credentials found", "code": 401}), "", "undecided:incomplete"),
    ("sendgrid", 401, j(errors=[{"message": "Permission denied, wrong credentials"}]), "", "undecided:incomplete"),
    (
        "braintree",
        200,
        j(
            errors=[
                {"message": "Authentication credentials are missing.", "extensions": {"errorClass": "AUTHENTICATION"}}
            ]
        ),
        "",
        "undecided:incomplete",
    ),
    ("slack_bot", 200, j(ok=False, error="not_authed"), "", "undecided:incomplete"),
    (
        "intercom",
        401,
        j(type="error.list", errors=[{"code": "missing_authorization", "message": "x"}]),
        "",
        "undecided:incomplete",
    ),
    (
        "dropbox",
        400,
        'Must provide HTTP header "Authorization" or URL parameter "authorization".',
        TEXT,
        "undecided:incomplete",
    ),
    (
        "elasticsearch_key",
        401,
        j(
            error={
                "type": "security_exception",
                "reason": "missing authentication credentials for REST request [/_security/_authenticate]",
            },
            status=401,
        ),
        "",
        "undecided:incomplete",
    ),
    (
        "mongodb_atlas_sa",
        400,
        j(error="invalid_request", error_description="No Authorization header provided"),
        "",
        "undecided:incomplete",
    ),
    ("supabase_secret", 401, j(message="No API key found in request"), "", "undecided:incomplete"),
    # ── cut out badly, or another sort of key: not judged ──
    ("telegram", 404, j(ok=False, error_code=404, description="Not Found"), "", "undecided:incomplete"),
    ("opsgenie", 422, j(message="Key format is not valid!", took=0.0, requestId="r"), "", "undecided:incomplete"),
    (
        "confluent",
        401,
        j(
            errors=[
                {
                    "status": "401",
                    "detail": "invalid API key: make sure you're using a Cloud or Global "
                    "API Key, and not a Cluster API Key",
                }
            ]
        ),
        "",
        "undecided",
    ),
    ("circleci", 401, j(message="You must log in first."), "", "undecided"),
    ("ovh", 403, j(errorCode="INVALID_CREDENTIAL", message="This credential is not valid"), "", "undecided"),
    ("planetscale", 401, j(code="unauthorized", message="Requires authentication"), "", "undecided"),
    # ── a policy, an outage, a region, a gateway ──
    (
        "anthropic",
        401,
        claude("authentication_error", "OAuth authentication is currently not allowed for this organization."),
        "",
        "undecided",
    ),
    (
        "notion",
        401,
        j(
            object="error",
            status=401,
            code="unauthorized",
            message="This user's account is restricted from accessing the public API.",
        ),
        "",
        "undecided",
    ),
    ("fireworks", 500, j(error={"message": "Error listing deployed models"}), "", "undecided"),
    ("langsmith", 403, j(detail="Forbidden"), "", "undecided"),
    ("langsmith", 403, j(error="Forbidden"), "", "undecided"),
    ("dynatrace", 403, j(message="Forbidden"), "", "undecided"),
    ("travisci", 403, "access denied", TEXT, "undecided"),
    ("assemblyai", 401, j(error="Authentication error, API token missing/invalid"), "", "undecided"),
    ("jumpcloud", 302, "", HTML, "undecided:blocked"),
    ("azure_devops", 203, "<html>Sign in</html>", HTML, "undecided:blocked"),
    ("pagerduty", 401, "", "", "undecided"),
    ("sonarcloud", 401, "", "", "undecided"),
    (
        "databricks",
        403,
        j(error_code="PERMISSION_DENIED", message="Source IP address: 203.0.113.7 is blocked by Databricks IP ACL"),
        "",
        "undecided:blocked",
    ),
    ("upstash", 401, j(error="Unauthorized"), "", "undecided"),
    (
        "railway",
        200,
        j(errors=[{"message": "Not Authorized", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]),
        "",
        "undecided",
    ),
    ("gcp_adc", 400, j(error="invalid_grant", error_description="Bad Request"), "", "undecided"),
    # ── good news in a place for bad ──
    (
        "cloudflare_token",
        200,
        j(
            success=True,
            errors=[],
            messages=[{"code": 10000, "message": "This API Token is valid and active"}],
            result={"id": "a" * 32, "status": "active"},
        ),
        "",
        "live",
    ),
]


@pytest.mark.parametrize(
    ("kind", "status", "body", "mime", "expected"), TRAPS, ids=[f"{k}-{s}-{n}" for n, (k, s, *_) in enumerate(TRAPS)]
)
def test_trap(kind: str, status: int, body: str, mime: str, expected: str) -> None:
    ruling = Judge(CATALOGUE.kinds[kind])(reply(status, body, mime or "application/json"), SECRET)
    said = ruling.how or ruling.why
    assert ruling.verdict == expected.partition(":")[0], ruling
    assert expected.partition(":")[2] in {"", said}, ruling


# ── R1: where the answer to a wrong key is the answer to no key, a death is not proven by its own words ──
SAME_WORDS = [
    "netlify",
    "buildkite",
    "asana",
    "digitalocean",
    "deepgram",
    "perplexity",
    "launchdarkly",
    "pulumi",
    "terraform_cloud",
    "tailscale",
    "snyk",
    "square",
    "workos",
    "postmark",
    "adyen",
    "miro",
    "monday",
    "hubspot",
    "algolia",
    "opsgenie",
    "neon",
    "mailjet",
    "assemblyai",
    "mistral",
    "render",
    "datadog_api",
]


@pytest.mark.parametrize("kind", SAME_WORDS)
def test_no_death_there_claims_that_the_key_arrived(kind: str) -> None:
    for rule in CATALOGUE.kinds[kind].rule:
        if rule.verdict == "dead" and rule.how is None:
            assert rule.arrival is not Arrival.PROVEN, rule.note


# ── R2: addresses that answer 200 to anybody are not asked ──
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("elevenlabs", "/voices"),
        ("elevenlabs", "/v1/user"),
        ("terraform_cloud", "/ping"),
        ("slack_bot", "api.test"),
        ("nvidia", "/v1/models"),
        ("artifactory", "/api/system/ping"),
        ("fireworks", "/inference/v1/models"),
        ("datadog_api", "/api/v1/series"),
        ("supabase_secret", "/rest/v1/"),
        ("newrelic", "/v2/"),
    ],
)
def test_what_answers_everybody_is_not_asked(kind: str, path: str) -> None:
    assert all(not c.path.partition("?")[0].endswith(path) for c in CATALOGUE.kinds[kind].manifest())


# ── R3: bodies that carry the key ──
@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("rollbar", 403, '{"err":1,"message":"access token not found: %s"}'),
        (
            "gemini",
            403,
            (
                '{"error":{"code":403,"status":"PERMISSION_DENIED","message":"Permission denied: Consumer '
                '\'api_key:%s\' has been suspended.","details":[{"reason":"CONSUMER_SUSPENDED"}]}}'
            ),
        ),
        ("vault_token", 200, '{"data":{"id":"%s","accessor":"a","policies":["root"],"path":"auth/token/root"}}'),
    ],
)
async def test_a_body_that_carries_the_key_is_kept_without_it(kind: str, status: int, body: str) -> None:
    secret = "Zq7xK" * 9 if kind != "vault_token" else "hvs." + "Zq7xK" * 6
    door = ToldDoor(lambda _: reply(status, body % secret))
    found = CATALOGUE.kinds[kind]
    parts = {p: "vault.example.com" if p == "host" else secret for p in (*found.parts, *found.optional[:1])}
    verdict = await probe(CATALOGUE, credential(kind, **parts), door)
    assert door.requests
    assert verdict.evidence is not None, verdict
    assert secret not in verdict.evidence.excerpt
    assert "redacted" in verdict.evidence.excerpt


# ── R4: a typo in the address of a probe reads as "all keys dead" where the key is judged before the path ──
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("scaleway", "/instance/v1/zones/fr-par-1/servers"),
        ("doppler", "/v3/me"),
        ("tailscale", "/api/v2/tailnet/-/keys/{kid}"),
        ("replicate", "/v1/account"),
        ("huggingface", "/api/whoami-v2"),
    ],
)
def test_addresses_are_pinned_where_a_typo_would_bury_every_key(kind: str, path: str) -> None:
    asked = CATALOGUE.kinds[kind].probe
    assert isinstance(asked, Probe)
    assert asked.path.partition("?")[0] == path


# ── R6: outages have spoken words of death ──
@pytest.mark.parametrize("kind", ["openrouter", "dockerhub", "deepseek", "huggingface", "telegram", "shopify"])
def test_a_death_there_waits_for_another_day(kind: str) -> None:
    wait = CATALOGUE.kinds[kind].confirm_after
    assert wait is not None
    assert wait >= 86_400


# ── hosts and regions: dead takes all of them ──
async def ask(kind: str, answers: dict[str, Reply], default: Reply, **parts: str) -> Verdict:
    door = ToldDoor(lambda r: answers.get(r.url.reveal().split("/")[2], default))
    return await probe(CATALOGUE, credential(kind, **parts), door)


async def test_lark_and_feishu_are_two_clouds() -> None:
    dead = reply(200, j(code=10014, msg="app secret invalid"))
    live = reply(200, j(code=0, msg="ok", tenant_access_token="t-x", expire=7200))
    parts = {"secret": "s" * 32, "id": "cli_" + "a" * 16}
    assert isinstance(await ask("lark_app", {}, dead, **parts), Dead)
    assert isinstance(await ask("lark_app", {"open.feishu.cn": live}, dead, **parts), Live)
    unknown = reply(200, j(code=10003, msg="invalid param"))
    assert isinstance(await ask("lark_app", {"open.feishu.cn": unknown}, dead, **parts), Undecided)
