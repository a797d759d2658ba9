"""PostgreSQL log-ins against the real server."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from impostor import answering, listening
from servers import free_port
from support import credential, real_door

from verifier.model import Arrival, Dead, Doubt, How, Live, Undecided
from verifier.providers import postgresql as provider

if TYPE_CHECKING:
    from servers import Server

    from verifier.model import Verdict

KIND = provider.KINDS[0]
PASSWORD = "pässword of the test"
USERS = """
CREATE ROLE scram LOGIN PASSWORD '{p}';
CREATE ROLE locked NOLOGIN PASSWORD '{p}';
CREATE ROLE expired LOGIN PASSWORD '{p}' VALID UNTIL '2001-01-01';
CREATE ROLE trusted LOGIN;
CREATE ROLE walled LOGIN PASSWORD '{p}';
CREATE ROLE outside LOGIN PASSWORD '{p}';
CREATE ROLE full LOGIN PASSWORD '{p}' CONNECTION LIMIT 0;
SET password_encryption = 'md5';
CREATE ROLE md5user LOGIN PASSWORD '{p}';
CREATE ROLE clearuser LOGIN PASSWORD '{p}';
CREATE DATABASE closed;
REVOKE CONNECT ON DATABASE closed FROM PUBLIC;
"""


@pytest.fixture(scope="module")
def users(postgresql: Server) -> Server:
    with psycopg.connect(
        host="127.0.0.1",
        port=postgresql.port,
        user=postgresql.admin["username"],
        password=postgresql.admin["password"],
        dbname="postgres",
        autocommit=True,
    ) as db:
        for statement in USERS.format(p=PASSWORD).strip().split(";\n"):
            db.execute(statement.encode())
    return postgresql


async def ask(
    at: int, username: str, password: str = PASSWORD, database: str = "postgres", more: dict[str, str] | None = None
) -> Verdict:
    parts = {"username": username, "password": password, "host": "127.0.0.1", "port": str(at), "database": database}
    async with real_door(KIND) as door:
        return await provider.probe(KIND, credential("postgres", **parts | (more or {})), door)


@pytest.mark.parametrize("user", ["scram", "md5user", "clearuser"])
async def test_the_right_password_is_live(users: Server, user: str) -> None:
    verdict = await ask(users.port, user)
    assert isinstance(verdict, Live), verdict
    assert not verdict.restricted
    assert verdict.evidence.request == f"LOGIN postgresql://127.0.0.1:{users.port}/postgres"
    assert verdict.evidence.carrier == "wire"
    assert verdict.evidence.status is None
    assert verdict.evidence.arrival is Arrival.PROVEN
    assert PASSWORD not in repr(verdict)
    assert verdict.identity is not None
    assert verdict.identity.principal == user


@pytest.mark.parametrize("user", ["scram", "md5user", "clearuser", "nobody_of_that_name", "expired"])
async def test_a_refused_password_is_dead(users: Server, user: str) -> None:
    verdict = await ask(users.port, user, PASSWORD if user == "expired" else "another")
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.REJECTED
    assert verdict.evidence.arrival is Arrival.PROVEN


async def test_a_role_that_may_not_log_in_is_disabled_only_with_its_password(users: Server) -> None:
    right, wrong = await ask(users.port, "locked"), await ask(users.port, "locked", "another")
    assert isinstance(right, Dead)
    assert right.how is How.DISABLED
    assert isinstance(wrong, Dead)
    assert wrong.how is How.REJECTED


@pytest.mark.parametrize(
    ("user", "database"), [("scram", "no_such_database"), ("outside", "closed"), ("full", "postgres")]
)
async def test_what_comes_after_the_password_is_restricted(users: Server, user: str, database: str) -> None:
    verdict = await ask(users.port, user, database=database)
    assert isinstance(verdict, Live), verdict
    assert verdict.restricted


async def test_a_server_that_asks_for_no_password_judges_none(users: Server) -> None:
    verdict = await ask(users.port, "trusted", "anything")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.AMBIGUOUS


async def test_access_rules_are_not_a_verdict(users: Server) -> None:
    verdict = await ask(users.port, "walled")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.BLOCKED


async def test_nothing_but_the_handshake_reaches_the_server(users: Server) -> None:
    log = users.folder.parent / f"{users.folder.name}.log"
    before = len(log.read_text())
    assert isinstance(await ask(users.port, "scram"), Live)
    assert not re.search("statement:|parse|execute", log.read_text()[before:])


async def test_a_server_that_is_down_is_unreachable() -> None:
    verdict = await ask(free_port(), "scram")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE


async def test_a_host_that_is_not_allowed_gets_no_packet() -> None:
    met = asyncio.Event()
    async with await asyncio.start_server(lambda _r, _w: met.set(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        parts = {"username": "u", "password": "p", "host": "127.0.0.1", "port": str(port)}
        async with real_door(KIND, private=False) as door:
            verdict = await provider.probe(KIND, credential("postgres", **parts), door)
        await asyncio.sleep(0.05)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.REFUSED
    assert not met.is_set()


async def test_the_config_can_name_another_server(users: Server) -> None:
    base = f"postgresql://127.0.0.1:{users.port}"
    async with real_door(KIND, base_url=base) as door:
        asked = credential("postgres", username="scram", password=PASSWORD, host="db.example.com", database="postgres")
        verdict = await provider.probe(KIND, asked, door, base_url=base)
        assert isinstance(verdict, Live)
        assert verdict.evidence.route == "base"


async def test_of_several_hosts_the_first_that_answers_is_asked(users: Server) -> None:
    verdict = await ask(users.port, "scram", more={"host": f"127.0.0.1:{free_port()},127.0.0.1:{users.port}"})
    assert isinstance(verdict, Live)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"host": "no such host"}, Doubt.INCOMPLETE),
        ({"port": "many"}, Doubt.INCOMPLETE),
        ({"port": "70000"}, Doubt.INCOMPLETE),
        ({"password": "nul\x00"}, Doubt.INCOMPLETE),
        ({"password": "half \udc80"}, Doubt.INCOMPLETE),
        ({"host": "name.invalid"}, Doubt.UNREACHABLE),
    ],
)
async def test_parts_that_cannot_be_used(parts: dict[str, str], why: Doubt) -> None:
    verdict = await ask(5432, "u", more=parts)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why


# ── servers that are none ──────────────────────────────────────────────────────────────────────────────


def _m(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("sends", "why"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), Doubt.AMBIGUOUS),
        ((), Doubt.UNREACHABLE),
        ((b"N", b"HTTP/1.1 400 Bad"), Doubt.AMBIGUOUS),
        ((b"N", _m(b"R", (3).to_bytes(4, "big"))), Doubt.REFUSED),
        ((b"N", _m(b"R", (7).to_bytes(4, "big"))), Doubt.UNSUPPORTED),
        ((b"N", _m(b"R", (10).to_bytes(4, "big") + b"SCRAM-SHA-256\0\0"), _m(b"R", bytes(4))), Doubt.AMBIGUOUS),
        (
            (
                b"N",
                _m(b"R", (10).to_bytes(4, "big") + b"SCRAM-SHA-256\0\0"),
                _m(b"R", (11).to_bytes(4, "big") + b"r=x"),
            ),
            Doubt.AMBIGUOUS,
        ),
        ((b"N", b"Q\x00\x00\x00\x01"), Doubt.AMBIGUOUS),
        ((b"N", _m(b"E", b"SFATAL\0C08P01\0Mno such user\0\0")), Doubt.AMBIGUOUS),
        ((b"N", _m(b"E", b"SFATAL\0C28P01\0Mpassword\0\0")), Doubt.AMBIGUOUS),
        ((b"N", _m(b"E", b"SFATAL\0C57P03\0Mstarting\0\0")), Doubt.UNREACHABLE),
        ((_m(b"E", b"SFATAL\0C0A000\0Mold\0\0"),), Doubt.AMBIGUOUS),
        ((b"S", b"no TLS here"), Doubt.UNREACHABLE),
    ],
)
async def test_a_strange_server_is_never_a_verdict(sends: tuple[bytes, ...], why: Doubt) -> None:
    async with listening(answering(*sends)) as port:
        verdict = await ask(port, "u")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why


async def test_a_server_that_says_nothing_runs_into_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.wire.DEADLINE", 0.1)

    async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silence) as port:
        verdict = await ask(port, "u")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE
