"""Service-account keys in a simulated Google Cloud, with real google-auth logging in on both sides."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import google.auth.exceptions
import pytest
import requests
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from sim_gcp import ADMIN, LIMIT, Gcp

from rotators.interface import Issuer, KeyRef, ProviderError, Quarantine, SessionKiller, State, Trouble
from rotators.issuers.gcp_iam import GcpIam, make
from rotators.sessions import gcp_disable
from rotators.step import Done, Waiting
from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

RUN = "lapse-run-1"


@pytest.fixture
def gcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gcp]:
    with Gcp() as world:
        log_in(monkeypatch, tmp_path, world.admin)
        yield world


def log_in(patch: pytest.MonkeyPatch, folder: Path, file: Mapping[str, str]) -> None:
    path = folder / f"{uuid4().hex}.json"
    path.write_text(json.dumps(file))
    patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))


def leaked(file: Mapping[str, str]) -> Credential:
    return Credential(CredentialID("gcp-" + "0" * 32), KindID("gcp_sa"), {"secret": Secret(json.dumps(file))})


def account(gcp: Gcp) -> str:
    email = f"sa-{uuid4().hex[:8]}@prod.iam.gserviceaccount.com"
    gcp.account(email)
    return email


def fetch(file: Mapping[str, str]) -> str | None:
    """Fetch an access token with a key as its rightful user would."""
    found = service_account.Credentials.from_service_account_info(file, scopes=["s"])  # type: ignore[no-untyped-call]  # google-auth publishes no types here
    with requests.Session() as session:
        try:
            found.refresh(Request(session))
        except google.auth.exceptions.RefreshError:
            return None
    return str(found.token)


def now() -> datetime:
    return datetime.now(UTC)


def issuer(gcp: Gcp, **settings: str) -> GcpIam:
    return make(gcp.settings(**settings))


def test_it_is_an_issuer(gcp: Gcp) -> None:
    assert isinstance(issuer(gcp), Issuer)
    with pytest.raises(ProviderError, match="neither log nor snapshot"):
        issuer(gcp, orphans="guess")


def test_a_key_is_rotated_and_dies(gcp: Gcp) -> None:
    email = account(gcp)
    old, colleague = gcp.key(email), gcp.key(email)
    way = issuer(gcp)
    ref = way.locate(leaked(old))
    assert (ref.id, ref.owner, ref.state, ref.never_used) == (old["private_key_id"], email, State.ACTIVE, None)
    assert ref.created is not None
    new = way.mint(ref, RUN)
    made = json.loads(new.parts["secret"].reveal())
    assert made["private_key_id"] == new.ref.id
    assert made["client_email"] == email
    assert fetch(made) is not None
    for _ in range(2):
        way.disable(ref)
    assert way.state(ref) is State.DISABLED
    assert fetch(old) is None
    for _ in range(2):
        way.enable(ref)
    assert way.state(ref) is State.ACTIVE
    assert fetch(old) is not None
    for _ in range(2):
        way.retire(ref)
    assert way.state(ref) is State.GONE
    assert fetch(old) is None
    assert fetch(colleague) is not None
    assert fetch(made) is not None
    assert {k.id for k in way.siblings(ref)} == {colleague["private_key_id"], new.ref.id}
    for act in (lambda: way.locate(leaked(old)), lambda: way.disable(ref), lambda: way.enable(ref)):
        with pytest.raises(ProviderError) as caught:
            act()
        assert caught.value.trouble is Trouble.GONE


def test_a_deleted_key_may_work_on_for_a_while(gcp: Gcp) -> None:
    email = account(gcp)
    old = gcp.key(email)
    way = issuer(gcp)
    ref = way.locate(leaked(old))
    gcp.lag = 1200
    way.retire(ref)
    assert way.state(ref) is State.GONE
    assert fetch(old) is not None
    gcp.pass_time(1201)
    assert fetch(old) is None


@pytest.mark.parametrize(
    "text", ["not json", "{}", '{"client_email":"","private_key_id":"x"}', '{"client_email":"a@b"}']
)
def test_a_key_file_that_names_no_key_is_refused(gcp: Gcp, text: str) -> None:
    old = Credential(CredentialID("gcp-" + "0" * 32), KindID("gcp_sa"), {"secret": Secret(text)})
    with pytest.raises(ProviderError) as caught:
        issuer(gcp).locate(old)
    assert caught.value.trouble is Trouble.REFUSED


def test_ten_keys_leave_no_room(gcp: Gcp) -> None:
    email = account(gcp)
    files = [gcp.key(email) for _ in range(LIMIT)]
    way = issuer(gcp)
    ref = way.locate(leaked(files[0]))
    with pytest.raises(ProviderError, match="has 10 keys already") as caught:
        way.mint(ref, RUN)
    assert caught.value.trouble is Trouble.FULL
    assert len(way.siblings(ref)) == LIMIT


def test_a_tenth_key_made_meanwhile_leaves_no_room_either(gcp: Gcp, monkeypatch: pytest.MonkeyPatch) -> None:
    email = account(gcp)
    files = [gcp.key(email) for _ in range(LIMIT)]
    way = issuer(gcp)
    ref = way.locate(leaked(files[0]))
    monkeypatch.setattr(GcpIam, "siblings", lambda *_: [])
    with pytest.raises(ProviderError, match="has 10 keys already") as caught:
        way.mint(ref, RUN)
    assert caught.value.trouble is Trouble.FULL


def test_an_organisation_may_forbid_keys(gcp: Gcp) -> None:
    way = issuer(gcp)
    ref = way.locate(leaked(gcp.key(account(gcp))))
    gcp.keys_forbidden = True
    with pytest.raises(ProviderError, match="disableServiceAccountKeyCreation") as caught:
        way.mint(ref, RUN)
    assert caught.value.trouble is Trouble.REFUSED


def test_orphans_are_those_that_the_log_calls_ours(gcp: Gcp) -> None:
    email = account(gcp)
    way = issuer(gcp)
    ref = way.locate(leaked(gcp.key(email)))
    before, since = [k.id for k in way.siblings(ref)], now()
    gcp.key(email)  # a colleague's, in the middle
    assert way.orphans(ref, before, since, RUN) == []
    lost = way.mint(ref, RUN)
    assert [(k.id, k.label) for k in way.orphans(ref, before, since, RUN)] == [(lost.ref.id, RUN)]
    assert way.orphans(ref, before, since, "lapse-run-11") == []
    way.mint(ref, RUN + "1")  # another run's, whose mark begins like ours
    assert [k.id for k in way.orphans(ref, before, since, RUN)] == [lost.ref.id]
    assert way.orphans(ref, before, since + timedelta(minutes=5), RUN) == []
    assert way.orphans(ref, [*before, lost.ref.id], since, RUN) == []
    assert len(issuer(gcp, orphans="snapshot").orphans(ref, before, since, RUN)) == 3


def test_nobody_guesses_while_the_log_is_late_or_closed(gcp: Gcp) -> None:
    email = account(gcp)
    way = issuer(gcp)
    ref = way.locate(leaked(gcp.key(email)))
    before, since = [ref.id], now()
    way.mint(ref, RUN)
    gcp.log_lag = 30
    with pytest.raises(ProviderError, match="does not say yet") as caught:
        way.orphans(ref, before, since, RUN)
    assert caught.value.trouble is Trouble.LATER
    gcp.denied = {"logging.logEntries.list"}
    with pytest.raises(ProviderError, match="delete it if nobody knows it") as caught:
        way.orphans(ref, before, since, RUN)
    assert caught.value.trouble is Trouble.DENIED
    assert way.orphans(ref, [k.id for k in way.siblings(ref)], since, RUN) == []
    gcp.throttled = 2
    with pytest.raises(ProviderError) as caught:
        way.orphans(ref, before, since, RUN)
    assert caught.value.trouble is Trouble.LATER


def test_trouble_is_told_apart(gcp: Gcp) -> None:
    way = issuer(gcp)
    ref = way.locate(leaked(gcp.key(account(gcp))))
    gcp.throttled = 1
    with pytest.raises(ProviderError) as caught:
        way.disable(ref)
    assert caught.value.trouble is Trouble.LATER
    assert caught.value.retry_after == timedelta(seconds=7)
    gcp.broken = 1
    with pytest.raises(ProviderError) as caught:
        way.disable(ref)
    assert caught.value.trouble is Trouble.LATER
    gcp.denied = {"iam.serviceAccountKeys.delete"}
    with pytest.raises(ProviderError, match=r"iam\.serviceAccountKeys\.delete") as caught:
        way.retire(ref)
    assert caught.value.trouble is Trouble.DENIED
    gcp.tokens.clear()
    with pytest.raises(ProviderError, match="log in again") as caught:
        way.state(ref)
    assert caught.value.trouble is Trouble.DENIED
    with pytest.raises(ProviderError) as caught:
        make({**gcp.settings(), "iam_endpoint": "http://127.0.0.1:1"}).state(ref)
    assert caught.value.trouble is Trouble.LATER


def test_preflight_asks_for_rights(gcp: Gcp) -> None:
    ref = KeyRef("k", account(gcp))
    assert "may do all" in issuer(gcp).preflight(ref)[0].text
    gcp.denied = {"iam.serviceAccountKeys.create"}
    with pytest.raises(ProviderError, match=r"lacks iam\.serviceAccountKeys\.create") as caught:
        issuer(gcp).preflight(ref)
    assert caught.value.trouble is Trouble.DENIED


def test_the_leaked_key_never_rotates_itself(gcp: Gcp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = gcp.key(account(gcp))
    ref = issuer(gcp).locate(leaked(old))
    log_in(monkeypatch, tmp_path, old)
    way, killer = issuer(gcp), gcp_disable.make(gcp.settings())
    acts: tuple[Callable[[], object], ...] = (
        lambda: way.locate(leaked(old)),
        lambda: way.mint(ref, RUN),
        lambda: way.disable(ref),
        lambda: way.retire(ref),
        lambda: killer.kill(leaked(old), ref, now()),
    )
    for act in acts:
        with pytest.raises(ProviderError, match="the leaked key itself") as caught:
            act()
        assert caught.value.trouble is Trouble.REFUSED


def test_no_login_and_a_dead_login(gcp: Gcp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ref = KeyRef("k", "a@prod.iam.gserviceaccount.com")
    dead = gcp.key(ADMIN)
    gcp.accounts[ADMIN].keys[dead["private_key_id"]].disabled = True
    log_in(monkeypatch, tmp_path, dead)
    with pytest.raises(ProviderError, match="does not take the admin login") as caught:
        issuer(gcp).state(ref)
    assert caught.value.trouble is Trouble.DENIED
    log_in(monkeypatch, tmp_path, {**gcp.admin, "token_uri": "http://127.0.0.1:1/token"})
    with pytest.raises(ProviderError, match="cannot be reached") as caught:
        issuer(gcp).state(ref)
    assert caught.value.trouble is Trouble.LATER
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(ProviderError, match="no Google admin login") as caught:
        issuer(gcp).preflight(ref)
    assert caught.value.trouble is Trouble.DENIED


def test_evidence(gcp: Gcp) -> None:
    email = account(gcp)
    old, other = gcp.key(email), gcp.key(email)
    role = "roles/secretmanager.secretAccessor"
    gcp.policy["prod"] = [
        {"role": role, "members": [f"serviceAccount:{email}"]},
        {"role": "roles/owner", "members": ["user:boss@example.com"]},
    ]
    token = fetch(old)
    requests.get(
        f"{gcp.url}/v1/projects/-/serviceAccounts/{email}", headers={"authorization": f"Bearer {token}"}, timeout=5
    )
    way = issuer(gcp)
    ref = way.locate(leaked(old))
    facts = {f.about: f.text for f in way.evidence(ref, now() - timedelta(hours=1))}
    assert facts["owner"] == f"{email}, id 1 (build)"
    assert facts["other keys"] == f"{other['private_key_id']} (active)"
    assert facts["roles in the project"] == role
    assert facts["may read secrets"] == f"all of project prod, by {role}"
    assert str(now().year) in facts["last log-in"]
    assert facts["did since the leak"] == "1 describe; from 198.51.100.7"
    gcp.denied = {"logging.logEntries.list", "iam.serviceAccountKeys.list", "policyanalyzer"}
    facts = {f.about: f.text for f in way.evidence(ref, None)}
    assert "not known" in facts["did since the leak"]
    assert "not known" in facts["last log-in"]
    quiet = {
        f.about: f.text for f in issuer(gcp).evidence(KeyRef("k", "12-compute@developer.gserviceaccount.com"), None)
    }
    assert set(quiet) == {"owner", "other keys"}


def test_tokens_die_with_the_account_and_come_back(gcp: Gcp) -> None:
    email = account(gcp)
    old = gcp.key(email)
    ref = issuer(gcp).locate(leaked(old))
    token = fetch(old)
    assert token is not None
    issuer(gcp).retire(ref)
    assert gcp.valid(token)  # it outlives its key
    killer = gcp_disable.make(gcp.settings())
    assert isinstance(killer, SessionKiller)
    moment = now()
    done = killer.kill(leaked(old), ref, moment)
    assert isinstance(done, Done)
    assert done.output == {"possible_until": (moment + timedelta(hours=1)).isoformat()}
    assert not gcp.valid(token)
    assert isinstance(killer.kill(leaked(old), ref, moment), Done)
    for _ in range(2):
        assert isinstance(killer.undo(leaked(old), ref), Done)
    assert gcp.valid(token)
    gcp.pass_time(3601)
    assert not gcp.valid(token)


def test_an_account_is_enabled_for_the_new_key_when_old_tokens_are_over(gcp: Gcp) -> None:
    email = account(gcp)
    old = gcp.key(email)
    ref, token, moment = issuer(gcp).locate(leaked(old)), fetch(old), now()
    assert token is not None
    killer = gcp_disable.make(gcp.settings())
    assert isinstance(killer, Quarantine)
    assert killer.stops_new
    assert not killer.shut(leaked(old), ref)
    killer.kill(leaked(old), ref, moment)
    assert killer.shut(leaked(old), ref)
    issuer(gcp).retire(ref)
    said = killer.lift(leaked(old), ref, moment, now())
    assert isinstance(said, Waiting)
    assert said.until == moment + timedelta(hours=1)
    assert not gcp.valid(token)
    for _ in range(2):
        assert isinstance(killer.lift(leaked(old), ref, moment - timedelta(hours=1), now()), Done)
    assert not killer.shut(leaked(old), ref)
    killer.kill(leaked(old), ref, moment)
    assert isinstance(gcp_disable.make(gcp.settings(lift="now")).lift(leaked(old), ref, moment, now()), Done)
    with pytest.raises(ProviderError, match="neither over nor now"):
        gcp_disable.make(gcp.settings(lift="soon"))


def test_an_answer_that_is_not_googles_is_no_answer(gcp: Gcp, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = issuer(gcp).locate(leaked(gcp.key(account(gcp))))
    for said in ({"hello": "portal"}, [1]):
        monkeypatch.setattr(gcp, "get", lambda *_, **__: said)  # noqa: B023  # called within the turn
        with pytest.raises(ProviderError, match="something else than it should") as caught:
            issuer(gcp).state(ref)
        assert caught.value.trouble is Trouble.LATER


def test_a_session_killer_asks_for_its_rights_beforehand(gcp: Gcp) -> None:
    old = gcp.key(account(gcp))
    ref, killer = issuer(gcp).locate(leaked(old)), gcp_disable.make(gcp.settings())
    assert "may disable and enable" in killer.preflight(leaked(old), ref)[0].text
    gcp.denied = {"iam.serviceAccounts.enable"}  # it could be stopped, and not be let go again
    with pytest.raises(ProviderError, match=r"lacks iam\.serviceAccounts\.enable on ") as caught:
        killer.preflight(leaked(old), ref)
    assert caught.value.trouble is Trouble.DENIED
    assert not gcp.accounts[ref.owner].disabled
