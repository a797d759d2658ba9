"""Keys that end themselves, against a simulator of every provider in the file."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import makers
import pytest
from hands import ANY_KEY, credential
from sim_http import Sim
from sim_revoke import Providers

from rotators.interface import Issuer, KeyRef, ProviderError, SelfRevoker, State, Trouble
from rotators.issuers.self_revoke import make, revokers
from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
KEYS = {
    "github_pat": makers.github("ghp_"),
    "github_fg_pat": makers.github_fine_grained(),
    "github_oauth": makers.github("gho_"),
    "github_app_user": makers.github("ghu_"),
    "github_refresh": makers.github("ghr_"),
    "github_installation": makers.github("ghs_"),
    "gitlab_pat": "glpat" + "-" + makers.draw(ALNUM, 20),
    "gitlab_runner": "glrt" + "-" + makers.draw(ALNUM, 20),
    "slack_bot": "xoxb" + "-1-2-" + makers.draw(ALNUM, 24),
    "slack_app": "xapp" + "-1-A1-2-" + makers.draw(HEX, 64),
    "huggingface": "hf" + "_" + makers.draw(string.ascii_letters, 34),
    "heroku": "HRKU" + "-" + makers.draw(ALNUM + "-_", 60),
    "doppler": "dp" + ".pt." + makers.draw(ALNUM, 43),
    "digitalocean": "dop" + "_v1_" + makers.draw(HEX, 64),
    "vercel": makers.vercel(),
    "vercel_other": makers.vercel("vca_"),
    "cratesio": "cio" + makers.draw(ALNUM, 32),
    "buildkite": "bkua" + "_" + makers.draw(HEX, 40),
    "perplexity": "pplx" + "-" + makers.draw(ALNUM, 48),
    "google_oauth_access": "ya29" + "." + makers.draw(ALNUM, 100),
    "fastly": makers.draw(ALNUM, 32),
    "okta": "00" + makers.draw(ALNUM, 40),
    "salesforce": "00D" + makers.draw(ALNUM, 12) + "!" + makers.draw(ALNUM, 80),
    "dropbox": "sl" + "." + makers.draw(ALNUM, 60),
    "sendgrid": "SG" + "." + makers.draw(ALNUM, 22) + "." + makers.draw(ALNUM, 43),
    "discord_webhook": "https://discord.com/api/webhooks/" + "1" * 18 + "/" + makers.draw(ALNUM, 68),
}


@pytest.fixture
def world() -> Iterator[tuple[Providers, Sim]]:
    world = Providers(live=set(KEYS.values()))
    world.heroku = [
        {"id": "someone-else", "access_token": {"token": "another"}},
        {"id": "ours", "access_token": {"token": KEYS["heroku"]}},
    ]
    with Sim(world) as sim:
        yield world, sim


def test_the_file_names_kinds_that_exist_and_https_origins() -> None:
    known = {str(kind.id) for kind in load_catalogue()}
    assert set(revokers()) == set(KEYS)
    assert set(revokers()) <= known
    for entry in revokers().values():
        assert entry.base.startswith("https://") or (not entry.base and entry.hosts)
        assert entry.docs.startswith("https://")
        assert "{secret" not in entry.path
        assert "?" not in entry.path


@pytest.mark.parametrize("kind", KEYS)
def test_each_ends_exactly_its_key_and_may_be_repeated(kind: str, world: tuple[Providers, Sim]) -> None:
    providers, sim = world
    issuer = make({**sim.settings, "kind": kind})
    assert isinstance(issuer, Issuer)
    assert isinstance(issuer, SelfRevoker)
    old = credential(kind, secret=KEYS[kind])
    ref = issuer.locate(old)
    assert KEYS[kind] not in repr(ref)
    issuer.retire(ref)
    providers.settle()
    assert set(KEYS.values()) - providers.live == {KEYS[kind]}
    issuer.revoke(old)
    providers.settle()
    assert set(KEYS.values()) - providers.live == {KEYS[kind]}
    assert issuer.state(ref) is State.ACTIVE  # only a probe says that it is dead
    assert issuer.consequence(old) == issuer.also_dies
    assert "cannot be undone" in {f.about: f.text for f in issuer.preflight(ANY_KEY)}["consequence"]


@pytest.mark.parametrize("kind", [k for k in KEYS if k not in ("dropbox", "gitlab_pat", "vercel", "vercel_other")])
def test_what_looks_like_another_key_is_never_sent(kind: str, world: tuple[Providers, Sim]) -> None:
    _, sim = world
    with pytest.raises(ProviderError, match="nothing was sent"):
        make(sim.settings).revoke(credential(kind, secret="AKIA" + "X" * 16))
    assert sim.asked == []


def test_github_is_never_logged_in_to_and_takes_a_thousand_a_call(
    world: tuple[Providers, Sim], monkeypatch: pytest.MonkeyPatch
) -> None:
    providers, sim = world
    monkeypatch.setenv("GITHUB_TOKEN", "an-admin's")
    many = [credential("github_pat", secret=makers.github(seed=n)) for n in range(2001)]
    make(sim.settings).revoke_all(many)
    assert [len(a.json["credentials"]) for a in sim.asked] == [1000, 1000, 1]
    assert all("authorization" not in a.headers for a in sim.asked)
    assert len(providers.pending) == 2001


def test_202_is_not_an_end_and_the_plan_says_so(world: tuple[Providers, Sim]) -> None:
    providers, sim = world
    old = credential("github_pat", secret=KEYS["github_pat"])
    issuer = make(sim.settings)
    issuer.revoke(old)
    assert KEYS["github_pat"] in providers.live
    assert providers.mailed == [KEYS["github_pat"]]
    assert "owner is mailed" in issuer.consequence(old)
    assert "proves nothing" in issuer.consequence(old)
    assert "uninstalls the app" in issuer.consequence(credential("slack_bot", secret=KEYS["slack_bot"]))


def test_limits_and_outages_ask_to_come_back(world: tuple[Providers, Sim]) -> None:
    providers, sim = world
    providers.hourly = 0
    issuer = make(sim.settings)
    with pytest.raises(ProviderError) as e:
        issuer.revoke(credential("github_pat", secret=KEYS["github_pat"]))
    assert (e.value.trouble, e.value.retry_after) == (Trouble.LATER, timedelta(hours=1))
    for reply, trouble in (
        ((503, {}, {"retry-after": "9"}), Trouble.LATER),
        ((429, {}), Trouble.LATER),
        ((500, {}), Trouble.LATER),
        ((400, {}), Trouble.REFUSED),
        ((302, {}, {"location": "https://elsewhere.example"}), Trouble.REFUSED),
    ):
        sim.fail = [reply]  # type: ignore[list-item]  # one reply of any form
        with pytest.raises(ProviderError) as e:
            issuer.revoke(credential("buildkite", secret=KEYS["buildkite"]))
        assert e.value.trouble is trouble
        assert KEYS["buildkite"] not in str(e.value)


def test_slack_says_200_to_everything(world: tuple[Providers, Sim]) -> None:
    _, sim = world
    issuer, old = make(sim.settings), credential("slack_bot", secret=KEYS["slack_bot"])
    for body, trouble in (
        ({"ok": False, "error": "ratelimited"}, Trouble.LATER),
        ({"ok": False, "error": "not_allowed_token_type"}, Trouble.REFUSED),
        (b"<html>", Trouble.LATER),
    ):
        sim.fail = [(200, body)]
        with pytest.raises(ProviderError) as e:
            issuer.revoke(old)
        assert e.value.trouble is trouble
    for error in ("token_revoked", "invalid_auth"):
        sim.fail = [(200, {"ok": False, "error": error})]
        issuer.revoke(old)


def test_heroku_deletes_what_equals_and_nothing_else(world: tuple[Providers, Sim]) -> None:
    providers, sim = world
    issuer, old = make(sim.settings), credential("heroku", secret=KEYS["heroku"])
    providers.heroku = [{"id": "first", "access_token": {"token": "another"}}, {"id": "odd", "access_token": None}]
    with pytest.raises(ProviderError, match="lists 0 keys that equal"):
        issuer.revoke(old)
    providers.heroku = [{"id": i, "access_token": {"token": KEYS["heroku"]}} for i in ("a", "b")]
    with pytest.raises(ProviderError, match="lists 2 keys that equal"):
        issuer.revoke(old)
    assert [a.method for a in sim.asked] == ["GET", "GET"]
    sim.fail = [(500, {})]
    with pytest.raises(ProviderError) as e:
        issuer.revoke(old)
    assert e.value.trouble is Trouble.LATER


def test_hosts_are_the_vendors_or_named_by_us() -> None:
    issuer = make({})
    for kind, host, said in (
        ("gitlab_pat", "git.acme.example", "set base_url"),
        ("okta", "evil.example", "set base_url to yours"),
        ("okta", "acme.okta.com.evil.example", "set base_url to yours"),
        ("salesforce", "", "set base_url to yours"),
    ):
        parts = {"secret": KEYS[kind], **({"host": host} if host else {})}
        with pytest.raises(ProviderError, match=said) as e:
            issuer.revoke(credential(kind, **parts))
        assert e.value.trouble is Trouble.REFUSED
    assert issuer._base(revokers()["okta"], credential("okta", secret="x", host="https://acme.okta.com/")) == (
        "https://acme.okta.com"
    )
    assert issuer._base(revokers()["gitlab_pat"], credential("gitlab_pat", secret="x")) == "https://gitlab.com"


def test_what_it_cannot_do_it_says() -> None:
    issuer, ref = make({}), KeyRef("x", "GitHub")
    for call in (
        lambda: issuer.mint(ref, "m"),
        lambda: issuer.disable(ref),
        lambda: issuer.enable(ref),
        lambda: issuer.retire(ref),
        lambda: issuer.locate(credential("aws_akia", secret="x")),
        lambda: make({"kind": "aws_akia"}),
    ):
        with pytest.raises(ProviderError) as e:
            call()
        assert e.value.trouble is Trouble.REFUSED
    assert issuer.orphans(ref, [], datetime.now(UTC), "m") == []
    assert issuer.siblings(ref) == [ref]
    assert issuer.preflight(ANY_KEY) == []
    assert "see the verdict" in issuer.evidence(ref, None)[0].text
