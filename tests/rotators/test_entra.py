"""Entra client secrets in a simulated Microsoft cloud, with real azure-identity logging in on both sides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from hands import ANY_KEY
from sim_entra import Cloud

from rotators.interface import Issuer, KeyRef, ProviderError, Quarantine, SessionKiller, State, Trouble
from rotators.issuers import entra
from rotators.sessions import entra_signins
from rotators.step import Done, Failed
from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUN = "lapse-run-1"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path) as world:
        for name, value in world.environment().items():
            monkeypatch.setenv(name, value)
        yield world


def leaked(cloud: Cloud, app: str, secret: str) -> Credential:
    parts = {"secret": Secret(secret), "id": Secret(app), "tenant": Secret(cloud.tenant)}
    return Credential(CredentialID("azure-" + "0" * 32), KindID("azure_sp"), parts)


def works(cloud: Cloud, app: str, secret: str) -> bool:
    """Log in as the rightful user of a secret would."""
    words = {"authority": cloud.authority, "disable_instance_discovery": True, "retry_total": 0}
    with ClientSecretCredential(cloud.tenant, app, secret, **words) as login:
        try:
            login.get_token("https://graph.microsoft.com/.default")
        except ClientAuthenticationError as e:
            if not any(code in str(e) for code in ("AADSTS7000215", "AADSTS7000222", "AADSTS7000112")):
                raise
            return False
    return True


def now() -> datetime:
    return datetime.now(UTC)


def issuer(cloud: Cloud, **settings: str) -> entra.Entra:
    return entra.make(cloud.settings(**settings))


def test_it_is_an_issuer(cloud: Cloud) -> None:
    assert isinstance(issuer(cloud), Issuer)
    for days in ("0", "731", "soon", "-1", "²"):
        with pytest.raises(ProviderError, match="from 1 to 730"):
            issuer(cloud, days=days)


@pytest.mark.parametrize("on_principal", [False, True])
def test_a_secret_is_rotated_and_dies(cloud: Cloud, on_principal: bool) -> None:  # a parameter
    app = cloud.app("web")
    old = cloud.password(app, text="old" + "x" * 30, on_principal=on_principal)
    other = cloud.password(app, "a colleague's", text="col" + "y" * 30)
    way = issuer(cloud, days="30")
    ref = way.locate(leaked(cloud, app, old.text))
    assert (ref.id, ref.label, ref.state, ref.never_used) == (old.key_id, "by hand", State.ACTIVE, None)
    assert ref.owner.startswith("servicePrincipals/" if on_principal else "applications/")
    new = way.mint(ref, RUN)
    parts = {k: v.reveal() for k, v in new.parts.items()}
    assert parts == {"secret": parts["secret"], "id": app, "tenant": cloud.tenant}
    assert (new.ref.label, new.ref.owner) == (RUN, ref.owner)
    assert works(cloud, app, parts["secret"])
    for _ in range(2):
        way.retire(ref)
    assert way.state(ref) is State.GONE
    assert not works(cloud, app, old.text)
    assert works(cloud, app, other.text)
    assert works(cloud, app, parts["secret"])
    with pytest.raises(ProviderError) as caught:
        way.locate(leaked(cloud, app, old.text))
    assert caught.value.trouble is Trouble.GONE


def test_which_secret_leaked_is_never_guessed(cloud: Cloud) -> None:
    app = cloud.app("web")
    one = cloud.password(app, "one", text="abc" + "1" * 30)
    two = cloud.password(app, "two", text="abc" + "2" * 30)
    cloud.password(app, "three", text="xyz" + "3" * 30)
    with pytest.raises(ProviderError, match="key_id") as caught:
        issuer(cloud).locate(leaked(cloud, app, two.text))
    assert caught.value.trouble is Trouble.REFUSED
    assert one.key_id in str(caught.value)
    assert two.key_id in str(caught.value)
    assert two.text not in str(caught.value)
    assert issuer(cloud, key_id=two.key_id).locate(leaked(cloud, app, two.text)).id == two.key_id
    with pytest.raises(ProviderError) as caught:
        issuer(cloud, key_id="not-there").locate(leaked(cloud, app, two.text))
    assert caught.value.trouble is Trouble.GONE


def test_a_secret_without_a_hint_may_be_the_one(cloud: Cloud) -> None:
    app = cloud.app("old")
    found = cloud.password(app, "", text="abc" + "1" * 30)
    found.hint = None
    with pytest.raises(ProviderError, match="cannot be told") as caught:
        issuer(cloud).locate(leaked(cloud, app, found.text))
    assert caught.value.trouble is Trouble.REFUSED


def test_an_unknown_application_is_gone(cloud: Cloud) -> None:
    with pytest.raises(ProviderError, match="knows no application") as caught:
        issuer(cloud).locate(leaked(cloud, "no-such-app", "s" * 30))
    assert caught.value.trouble is Trouble.GONE
    assert issuer(cloud).state(KeyRef("k", "applications/none")) is State.GONE
    issuer(cloud).retire(KeyRef("k", "applications/none"))
    with pytest.raises(ProviderError, match="neither an application"):
        issuer(cloud).state(KeyRef("k", "elsewhere"))


def test_orphans_carry_the_mark(cloud: Cloud) -> None:
    app = cloud.app("web")
    way = issuer(cloud)
    ref = way.locate(leaked(cloud, app, cloud.password(app).text))
    before, since = [k.id for k in way.siblings(ref)], now()
    cloud.password(app, "a colleague's, in the middle")
    cloud.password(app, RUN + "1")
    assert way.orphans(ref, before, since, RUN) == []
    lost = way.mint(ref, RUN)
    assert [k.id for k in way.orphans(ref, before, since, RUN)] == [lost.ref.id]
    assert way.orphans(ref, [*before, lost.ref.id], since, RUN) == []
    way.retire(lost.ref)
    assert way.orphans(ref, before, since, RUN) == []


def test_replicas_flap_and_agree_in_the_end(cloud: Cloud) -> None:
    app = cloud.app("web")
    old = cloud.password(app)
    way = issuer(cloud)
    ref = way.locate(leaked(cloud, app, old.text))
    cloud.lag = 300
    secret = way.mint(ref, RUN).parts["secret"].reveal()
    assert {works(cloud, app, secret) for _ in range(2)} == {True, False}
    way.retire(ref)
    assert way.state(ref) is State.GONE
    assert {works(cloud, app, old.text) for _ in range(2)} == {True, False}
    cloud.pass_time(301)
    assert {works(cloud, app, secret) for _ in range(2)} == {True}
    assert {works(cloud, app, old.text) for _ in range(2)} == {False}


def test_an_expired_secret_refuses(cloud: Cloud) -> None:
    app = cloud.app("web")
    old = cloud.password(app)
    ref = issuer(cloud).locate(leaked(cloud, app, old.text))
    old.ends = cloud.now() - 1
    assert issuer(cloud).state(ref) is State.DISABLED
    assert not works(cloud, app, old.text)
    for act in (issuer(cloud).disable, issuer(cloud).enable):
        with pytest.raises(ProviderError) as caught:
            act(ref)
        assert caught.value.trouble is Trouble.REFUSED


def test_a_secret_removed_meanwhile_is_removed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    app = cloud.app("web")
    old = cloud.password(app)
    way = issuer(cloud)
    ref = way.locate(leaked(cloud, app, old.text))
    plain = cloud.remove

    def remove(asked: object, kind: str, **words: str) -> object:
        old.removed = cloud.now()  # a colleague was faster
        return plain(asked, kind, **words)  # type: ignore[arg-type]  # keyword arguments of many types

    monkeypatch.setattr(cloud, "remove", remove)
    way.retire(ref)
    assert way.state(ref) is State.GONE


def test_trouble_is_told_apart(cloud: Cloud) -> None:
    app = cloud.app("web")
    way = issuer(cloud)
    assert "may read applications" in way.preflight(ANY_KEY)[0].text
    ref = way.locate(leaked(cloud, app, cloud.password(app).text))
    cloud.denied = {"Application.ReadWrite.OwnedBy"}
    for act in (lambda: way.mint(ref, RUN), lambda: way.retire(ref)):
        with pytest.raises(ProviderError, match="Insufficient privileges") as caught:
            act()
        assert caught.value.trouble is Trouble.DENIED
    cloud.denied = set()
    cloud.throttled = 1
    with pytest.raises(ProviderError) as caught:
        way.state(ref)
    assert (caught.value.trouble, caught.value.retry_after) == (Trouble.LATER, timedelta(seconds=7))
    cloud.broken = 1
    with pytest.raises(ProviderError) as caught:
        way.state(ref)
    assert caught.value.trouble is Trouble.LATER
    cloud.tokens.clear()
    with pytest.raises(ProviderError, match="log in again") as caught:
        way.state(ref)
    assert caught.value.trouble is Trouble.DENIED


def test_the_leaked_secret_never_rotates_itself(cloud: Cloud) -> None:
    old = leaked(cloud, cloud.admin, cloud.admin_secret)
    killer = entra_signins.make(cloud.settings())
    acts: tuple[Callable[[], object], ...] = (
        lambda: issuer(cloud).locate(old),
        lambda: killer.kill(old, KeyRef("k", "o"), now()),
    )
    for act in acts:
        with pytest.raises(ProviderError, match="the leaked secret itself") as caught:
            act()
        assert caught.value.trouble is Trouble.REFUSED


def test_no_login_and_a_dead_login(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = KeyRef("k", "applications/none")
    with monkeypatch.context() as patch:
        patch.setenv("AZURE_CLIENT_SECRET", "wrong")
        with pytest.raises(ProviderError, match="AADSTS7000215") as caught:
            issuer(cloud).state(ref)
        assert caught.value.trouble is Trouble.DENIED
    with monkeypatch.context() as patch:
        patch.delenv("AZURE_CLIENT_SECRET")
        with pytest.raises(ProviderError, match="there is no Azure admin login") as caught:
            issuer(cloud).state(ref)
        assert caught.value.trouble is Trouble.DENIED
    cloud.broken = 9
    with pytest.raises(ProviderError) as caught:
        issuer(cloud).state(ref)
    assert caught.value.trouble is Trouble.LATER


def test_the_tenant_is_read_from_the_token(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from rotators.clouds.microsoft import Microsoft, _tenant

    assert Microsoft({"tenant": "named"}).tenant() == "named"
    assert Microsoft({}).tenant() == cloud.tenant
    token = Microsoft({}).token("https://graph.microsoft.com/.default")
    way = Microsoft({})
    monkeypatch.setattr(way, "token", lambda _: token)
    monkeypatch.delenv("AZURE_TENANT_ID")
    assert way.tenant() == cloud.tenant
    assert _tenant("no token") == ""
    assert _tenant("a.!!!.b") == ""


def test_evidence(cloud: Cloud) -> None:
    app = cloud.app("web")
    old, other = cloud.password(app, text="old" + "x" * 30), cloud.password(app, "spare", text="spa" + "y" * 30)
    assert works(cloud, app, old.text)
    assert works(cloud, app, other.text)
    way = issuer(cloud)
    ref = way.locate(leaked(cloud, app, old.text))
    facts = {f.about: f.text for f in way.evidence(ref, now() - timedelta(hours=1))}
    assert facts["application"] == f"web ({app})"
    assert facts["owners"] == "ada@example.com"
    assert facts["other secrets"] == f"{other.key_id} (spare)"
    assert facts["may do"] == "mail-read at Microsoft Graph"
    assert facts["logged in since the leak"].startswith("1 with this secret, last ")
    assert "198.51.100.9" in facts["logged in since the leak"]
    later = {f.about: f.text for f in way.evidence(ref, now() + timedelta(hours=1))}
    assert later["logged in since the leak"].startswith("nobody with this secret, of 0 ")
    cloud.denied = {"AuditLog.Read.All"}
    assert "not known" in {f.about: f.text for f in way.evidence(ref, None)}["logged in since the leak"]
    cloud.denied = {"Application.Read.All"}
    assert "not known" in way.evidence(ref, None)[0].text


def test_the_principal_is_switched_off_and_on(cloud: Cloud) -> None:
    app = cloud.app("web")
    old = cloud.password(app)
    credential, ref = leaked(cloud, app, old.text), KeyRef(old.key_id, "applications/x")
    killer = entra_signins.make(cloud.settings(mode="service_principal"))
    assert isinstance(killer, SessionKiller)
    assert killer.reversible
    moment = now()
    assert isinstance(killer, Quarantine)
    assert killer.stops_new
    for was in (False, True):
        assert killer.shut(credential, ref) is was
        done = killer.kill(credential, ref, moment)
        assert isinstance(done, Done)
        assert done.output == {"possible_until": (moment + timedelta(minutes=90)).isoformat()}
        assert not works(cloud, app, old.text)
    for _ in range(2):
        assert isinstance(killer.lift(credential, ref, moment, moment), Done)
        assert works(cloud, app, old.text)
        assert not killer.shut(credential, ref)
    killer.kill(credential, ref, moment)
    for _ in range(2):
        assert isinstance(killer.undo(credential, ref), Done)
        assert works(cloud, app, old.text)


def test_by_default_the_new_secret_goes_on_working(cloud: Cloud) -> None:
    app = cloud.app("web")
    old = cloud.password(app)
    killer = entra_signins.make(cloud.settings())
    assert killer.reversible
    assert not killer.stops_new
    moment, ref = now(), KeyRef(old.key_id, "applications/x")
    done = killer.kill(leaked(cloud, app, old.text), ref, moment)
    assert isinstance(done, Done)
    assert done.output == {"possible_until": (moment + timedelta(minutes=90)).isoformat()}
    assert works(cloud, app, old.text)
    assert isinstance(killer.undo(leaked(cloud, app, old.text), ref), Done)


def test_users_are_signed_out_for_good(cloud: Cloud) -> None:
    app = cloud.app("web")
    credential, ref = leaked(cloud, app, "s" * 20), KeyRef("k", "applications/x")
    killer = entra_signins.make(cloud.settings(mode="users", users="ada@example.com, bob@example.com"))
    assert not killer.reversible
    done = killer.kill(credential, ref, now())
    assert isinstance(done, Done)
    assert cloud.signed_out == ["ada@example.com", "bob@example.com"]
    assert isinstance(killer.undo(credential, ref), Failed)
    for settings in ({"mode": "users"}, {"mode": "all"}):
        with pytest.raises(ProviderError) as caught:
            entra_signins.make(settings)
        assert caught.value.trouble is Trouble.REFUSED


def test_a_session_killer_tells_beforehand_what_it_can(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    app = cloud.app("web")
    old, ref = leaked(cloud, app, cloud.password(app).text), KeyRef("k", "applications/x")
    users = {"mode": "users", "users": "ada@example.com, bob@example.com"}
    switch = entra_signins.make(cloud.settings(mode="service_principal"))
    assert "no right is needed" in entra_signins.make(cloud.settings()).preflight(old, ref)[0].text
    assert "sign 2 users out" in entra_signins.make(cloud.settings(**users)).preflight(old, ref)[0].text
    assert "may read the principal" in switch.preflight(old, ref)[0].text
    with pytest.raises(ProviderError) as caught:
        switch.preflight(leaked(cloud, "00000000-0000-4000-8000-000000000000", "s"), ref)
    assert caught.value.trouble is Trouble.GONE
    cloud.denied = {"Application.Read.All"}
    with pytest.raises(ProviderError) as caught:
        switch.preflight(old, ref)
    assert caught.value.trouble is Trouble.DENIED
    assert cloud.signed_out == []
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    with pytest.raises(ProviderError, match="does not take the admin login"):
        entra_signins.make(cloud.settings(**users)).preflight(old, ref)
