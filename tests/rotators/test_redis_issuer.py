"""Redis ACL passwords and sessions, on a real server."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import redis as lib
from hands import ANY_KEY, credential

from rotators.interface import Issuer, ProviderError, State, Trouble
from rotators.issuers.redis_acl import make
from rotators.sessions.database_sessions import make as sessions
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

OLD = "leaked-" + "r" * 20
NOW = datetime.now(UTC)


@pytest.fixture
def db(redis: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    password = redis.admin["password"]
    monkeypatch.setenv("LAPSE_REDIS_ADMIN", f"redis://default:{password}@{redis.host}:{redis.port}/0")
    with lib.Redis(host=redis.host, port=redis.port, password=password, protocol=2, decode_responses=True) as client:
        client.execute_command("ACL", "SETUSER", "rota", "reset", "on", f">{OLD}", "~*", "+@all", "-@admin")
        yield client
        for user in client.execute_command("ACL", "USERS"):
            if user != "default":
                client.execute_command("ACL", "DELUSER", user)


def works(server: Server, password: str) -> bool:
    with lib.Redis(host=server.host, port=server.port, username="rota", password=password, protocol=2) as client:
        try:
            return bool(client.ping())
        except lib.AuthenticationError:
            return False


def leaked(password: str = OLD) -> Any:
    return credential("redis", username="rota", password=password)


def test_two_live_at_once_and_then_the_old_one_dies(db: Any, redis: Server) -> None:
    issuer = make({})
    assert isinstance(issuer, Issuer)
    about = {f.about: f.text for f in issuer.preflight(ANY_KEY)}
    assert "memory only" in about["kept"]
    ref = issuer.locate(leaked())
    assert ref.id == "rota#" + hashlib.sha256(OLD.encode()).hexdigest()[:4]
    before = [k.id for k in issuer.siblings(ref)]
    new = issuer.mint(ref, "run-1")
    password = new.parts["password"].reveal()
    assert works(redis, OLD)
    assert works(redis, password)
    db.execute_command("ACL", "SETUSER", "rota", ">a-colleague")
    assert [k.id for k in issuer.orphans(ref, before, NOW, "run-1")] == [new.ref.id]
    assert issuer.orphans(ref, before, NOW, "run-2") == []

    issuer.disable(ref)
    issuer.disable(ref)
    assert issuer.state(ref) is State.DISABLED
    assert issuer.locate(leaked()).state is State.DISABLED
    assert not works(redis, OLD)
    assert works(redis, password)
    assert ref.id in [k.id for k in issuer.siblings(ref)]
    issuer.enable(ref)
    issuer.enable(ref)
    assert issuer.state(ref) is State.ACTIVE
    assert works(redis, OLD)

    issuer.disable(ref)
    issuer.retire(ref)
    issuer.retire(ref)
    assert issuer.state(ref) is State.GONE
    assert not works(redis, OLD)
    assert works(redis, password)
    assert works(redis, "a-colleague")
    with pytest.raises(ProviderError) as e:
        issuer.enable(ref)
    assert e.value.trouble is Trouble.GONE
    with pytest.raises(ProviderError, match="was removed"):
        issuer.locate(leaked())


def test_an_orphan_is_retired_with_its_note(db: Any, redis: Server) -> None:
    issuer = make({})
    ref = issuer.locate(leaked())
    lost = issuer.mint(ref, "run-1")  # the process dies here, before it is stored
    (orphan,) = issuer.orphans(ref, [ref.id], NOW, "run-1")
    issuer.retire(orphan)
    assert not works(redis, lost.parts["password"].reveal())
    assert works(redis, OLD)
    assert issuer.orphans(ref, [ref.id], NOW, "run-1") == []
    assert db.execute_command("ACL", "USERS") == ["default", "rota"]


def test_the_note_can_do_nothing(db: Any, redis: Server) -> None:
    issuer = make({})
    new = issuer.mint(issuer.locate(leaked()), "run-1")
    with (
        lib.Redis(
            host=redis.host,
            port=redis.port,
            username="lapse-new:rota:run-1",
            password=new.parts["password"].reveal(),
            protocol=2,
        ) as client,
        pytest.raises(lib.AuthenticationError),
    ):
        client.ping()


def test_sessions_outlive_the_password_until_ended(db: Any, redis: Server) -> None:
    issuer = make({})
    ref = issuer.locate(leaked())
    with lib.Redis(host=redis.host, port=redis.port, username="rota", password=OLD, protocol=2) as held:
        held.ping()
        issuer.retire(ref)
        held.ping()
        facts = {f.about: f.text for f in issuer.evidence(ref, None)}
        assert "127.0.0.1" in facts["connected now"]
        assert "+@all" in facts["rights"]
        ids = [c for c in db.client_list() if c["user"] == "rota"]
        done = sessions({"database": "redis"}).kill(leaked(), ref, datetime.now(UTC))
        assert isinstance(done, Done)
        assert done.output == {"killed": str(len(ids))}
        assert [c for c in db.client_list() if c["user"] == "rota"] == []


def test_refusals(db: Any, redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = make({})
    with pytest.raises(ProviderError, match="no user"):
        issuer.locate(credential("redis", username="nobody", password="x"))
    db.execute_command("ACL", "SETUSER", "rota", "nopass")
    with pytest.raises(ProviderError, match="nopass"):
        issuer.locate(leaked())
    admin = redis.admin["password"]
    with pytest.raises(ProviderError, match="uses the leaked password itself"):
        issuer.locate(credential("redis", username="default", password=admin))
    db.execute_command("ACL", "SETUSER", "rota", "reset", "on", f">{OLD}", "~*", "+@all", "-@admin", "-@dangerous")
    monkeypatch.setenv("LAPSE_REDIS_ADMIN", f"redis://rota:{OLD}@{redis.host}:{redis.port}/0")
    with pytest.raises(ProviderError) as e:
        issuer.preflight(ANY_KEY)
    assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("LAPSE_REDIS_ADMIN", f"redis://rota:wrong@{redis.host}:{redis.port}/0")
    with pytest.raises(ProviderError) as e:
        issuer.preflight(ANY_KEY)
    assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("LAPSE_REDIS_ADMIN", "redis://default:x@127.0.0.1:1/0")
    with pytest.raises(ProviderError) as e:
        issuer.preflight(ANY_KEY)
    assert e.value.trouble is Trouble.LATER


def test_whether_sessions_can_be_ended_is_told_beforehand(
    db: Any, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = sessions({"database": "redis"})
    assert "may end connections of rota" in killer.preflight(leaked(), ANY_KEY)[0].text
    rules = ("on", ">h", "+acl|whoami", "+acl|dryrun", "+time", "+client|list", "+ping", "+hello")
    db.execute_command("ACL", "SETUSER", "helper", "reset", *rules)
    monkeypatch.setenv("LAPSE_REDIS_ADMIN", f"redis://helper:h@{redis.host}:{redis.port}/0")
    with pytest.raises(ProviderError, match="Redis user helper may not call CLIENT KILL") as e:
        killer.preflight(leaked(), ANY_KEY)
    assert e.value.trouble is Trouble.DENIED
