"""Redis log-ins against the real server, in clear and in TLS."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import servers
from impostor import answering, listening
from presence import started
from support import credential, real_door

from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.providers import redis as provider

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

    from verifier.model import Verdict

KIND = provider.KINDS[0]


@pytest.fixture(scope="module")
def users(redis: Server) -> Server:
    lines = [
        f"AUTH {redis.admin['password']}",
        "ACL SETUSER app on >sesame-of-app ~* +@all",
        "ACL SETUSER mute on >sesame-of-mute ~* -@all",
        "ACL SETUSER off off >sesame-of-off ~* +@all",
    ]
    with socket.create_connection((redis.host, redis.port), timeout=5) as s:
        for line in lines:
            s.sendall(line.encode() + b"\r\n")
            assert s.recv(100).startswith(b"+OK")
    return redis


@pytest.fixture(scope="module")
def tls() -> Iterator[Server]:
    def start(folder: Path) -> servers.Running:
        return servers.redis(folder, tls=True)

    with started(start) as server:
        yield server


@pytest.fixture(scope="module")
def unlocked() -> Iterator[Server]:
    with started(lambda folder: servers.redis(folder, "")) as server:
        yield server


async def ask(port: int, password: str, username: str = "", scheme: str = "redis") -> Verdict:
    parts = {"password": password, "host": "127.0.0.1", "port": str(port), "scheme": scheme}
    if username:
        parts["username"] = username
    async with real_door(KIND) as door:
        return await provider.probe(KIND, credential("redis", **parts), door)


@pytest.mark.parametrize("username", ["", "default"])
async def test_the_right_password_is_live(users: Server, username: str) -> None:
    verdict = await ask(users.port, users.admin["password"], username)
    assert isinstance(verdict, Live), verdict
    assert not verdict.restricted
    assert verdict.evidence.request == f"LOGIN redis://127.0.0.1:{users.port}/"


async def test_a_named_user_is_live(users: Server) -> None:
    assert isinstance(await ask(users.port, "sesame-of-app", "app"), Live)


async def test_a_user_who_may_do_nothing_is_restricted(users: Server) -> None:
    verdict = await ask(users.port, "sesame-of-mute", "mute")
    assert isinstance(verdict, Live), verdict
    assert verdict.restricted


@pytest.mark.parametrize(
    ("username", "password"), [("", "wrong"), ("app", "wrong"), ("nobody", "wrong"), ("off", "sesame-of-off")]
)
async def test_a_refused_password_is_dead(users: Server, username: str, password: str) -> None:
    verdict = await ask(users.port, password, username)
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.REJECTED


@pytest.mark.parametrize("username", ["", "default"])
async def test_a_server_without_a_password_judges_none(unlocked: Server, username: str) -> None:
    verdict = await ask(unlocked.port, "anything", username)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize("scheme", ["redis", "rediss", ""])
async def test_tls_is_found_and_used(tls: Server, scheme: str) -> None:
    assert isinstance(await ask(tls.port, tls.admin["password"], scheme=scheme), Live)
    assert isinstance(await ask(tls.port, "wrong", scheme=scheme), Dead)


async def test_rediss_never_falls_back_to_clear(users: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.wire.DEADLINE", 0.3)
    verdict = await ask(users.port, users.admin["password"], scheme="rediss")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE


async def test_a_sentinel_judges_no_password(users: Server) -> None:
    verdict = await ask(users.port, "wrong", scheme="redis+sentinel")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE


async def test_no_password_is_sent_before_redis_has_answered() -> None:
    got = bytearray()

    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK POP3 ready\r\n")
        while data := await reader.read(4096):
            got.extend(data)
            writer.write(b"+OK\r\n")

    async with listening(mail) as port:
        verdict = await ask(port, "sesame-of-test")
    assert isinstance(verdict, Undecided), verdict
    assert b"sesame" not in got


@pytest.mark.parametrize(
    ("sends", "why"),
    [
        ((b"-DENIED Redis is running in protected mode because\r\n",), Doubt.BLOCKED),
        ((b"-NOAUTH Authentication required.\r\n", b"-ERR unknown command `AUTH`\r\n"), Doubt.AMBIGUOUS),
        ((b"-NOAUTH Authentication required.\r\n", b"+OK\r\n", b"-ERR what\r\n"), Doubt.AMBIGUOUS),
        ((b"-NOAUTH Authentication required.\r\n", b"x" * 70_000), Doubt.AMBIGUOUS),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), Doubt.UNREACHABLE),
        ((), Doubt.UNREACHABLE),
    ],
)
async def test_what_a_played_server_says(sends: tuple[bytes, ...], why: Doubt) -> None:
    async with listening(answering(*sends)) as port:
        verdict = await ask(port, "sesame")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict
