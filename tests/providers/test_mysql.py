"""MySQL log-ins against a real MariaDB, and what only MySQL 8 does against a server that plays it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING

import pymysql
import pytest
import servers
from impostor import answering, listening
from pymysql import _auth as oracle
from servers import free_port
from support import credential, real_door

from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.providers import mysql as provider

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server

    from verifier.model import Verdict

KIND = provider.KINDS[0]
PASSWORD = "pässword of the test"
USERS = (
    "CREATE DATABASE shop",
    "CREATE USER app@'%' IDENTIFIED BY '{p}'",
    "GRANT ALL ON shop.* TO app@'%'",
    "CREATE USER poor@'%' IDENTIFIED BY '{p}'",
    "CREATE USER locked@'%' IDENTIFIED BY '{p}' ACCOUNT LOCK",
    "CREATE USER old@'%' IDENTIFIED BY '{p}' PASSWORD EXPIRE",
    "CREATE USER elsewhere@'192.0.2.1' IDENTIFIED BY '{p}'",
    "CREATE USER tls@'%' IDENTIFIED BY '{p}' REQUIRE SSL",
    "CREATE USER nopass@'%'",
)


@pytest.fixture(scope="module")
def users(mariadb: Server) -> Server:
    admin = mariadb.admin
    with (
        pymysql.connect(host="127.0.0.1", port=mariadb.port, user=admin["username"], password=admin["password"]) as db,
        db.cursor() as cursor,
    ):
        for statement in USERS:
            cursor.execute(statement.format(p=PASSWORD))
    return mariadb


async def ask(at: int, username: str, password: str = PASSWORD, database: str = "") -> Verdict:
    parts = {"username": username, "password": password, "host": "127.0.0.1", "port": str(at)}
    if database:
        parts["database"] = database
    async with real_door(KIND) as door:
        return await provider.probe(KIND, credential("mysql", **parts), door)


@pytest.mark.parametrize(("user", "database"), [("app", ""), ("app", "shop"), ("poor", ""), ("tls", ""), ("old", "")])
async def test_the_right_password_is_live(users: Server, user: str, database: str) -> None:
    verdict = await ask(users.port, user, database=database)
    assert isinstance(verdict, Live), verdict
    assert not verdict.restricted
    assert verdict.evidence.request == f"LOGIN mysql://127.0.0.1:{users.port}/{database}"
    assert PASSWORD not in repr(verdict)


@pytest.mark.parametrize("user", ["app", "nobody_of_that_name", "tls", "nopass"])
async def test_a_refused_password_is_dead(users: Server, user: str) -> None:
    verdict = await ask(users.port, user, "another")
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.REJECTED


async def test_a_locked_account_is_disabled(users: Server) -> None:
    verdict = await ask(users.port, "locked")
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.DISABLED


@pytest.mark.parametrize(("user", "database"), [("app", "no_such_database"), ("poor", "shop")])
async def test_what_comes_after_the_password_is_restricted(users: Server, user: str, database: str) -> None:
    verdict = await ask(users.port, user, database=database)
    assert isinstance(verdict, Live), verdict
    assert verdict.restricted


async def test_nothing_but_the_handshake_reaches_the_server(users: Server) -> None:
    log = users.folder / "general.log"
    before = len(log.read_text(errors="replace"))
    assert isinstance(await ask(users.port, "app"), Live)
    new = log.read_text(errors="replace")[before:]
    assert "Connect\tapp@" in new
    assert "Query" not in new


async def test_a_server_that_is_down_is_unreachable() -> None:
    verdict = await ask(free_port(), "app")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE


async def test_no_tls_no_problem_for_a_proof(users: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_SSL", 0)
    assert isinstance(await ask(users.port, "app"), Live)
    assert isinstance(await ask(users.port, "tls"), Dead), "MariaDB says 1045 for a missing TLS too: hence TLS first"


# ── MySQL 8, and servers that are none ─────────────────────────────────────────────────────────────────

SALT = bytes(range(33, 53))


def packet(seq: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([seq]) + body


def greeting(plugin: bytes = b"caching_sha2_password", flags: int = 0x0008_8200) -> bytes:
    low, high = flags & 0xFFFF, flags >> 16
    body = b"\x0a8.4.0\x00" + bytes(4) + SALT[:8] + b"\x00" + low.to_bytes(2, "little") + b"\xff\x02\x00"
    return packet(
        0, body + high.to_bytes(2, "little") + bytes([21]) + bytes(10) + SALT[8:] + b"\x00" + plugin + b"\x00"
    )


def error(code: int, message: bytes, seq: int = 2) -> bytes:
    return packet(seq, b"\xff" + code.to_bytes(2, "little") + b"#28000" + message)


OK = packet(3, b"\x00\x00\x00\x02\x00\x00\x00")


@pytest.mark.parametrize("plugin", ["mysql_native_password", "caching_sha2_password"])
def test_the_proofs_are_those_of_another_client(plugin: str) -> None:
    salt, password = os.urandom(20), os.urandom(12)
    theirs = {
        "mysql_native_password": oracle.scramble_native_password,
        "caching_sha2_password": oracle.scramble_caching_sha2,
    }
    assert provider.scramble(plugin, password, salt) == theirs[plugin](password, salt)


async def test_mysql_8_with_the_password_in_its_cache() -> None:
    got = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting())
        got.extend(await reader.read(4096))
        writer.write(packet(2, b"\x01\x03") + OK)

    async with listening(talk) as port:
        assert isinstance(await ask(port, "app", "sesame"), Live)
    assert oracle.scramble_caching_sha2(b"sesame", SALT) in got
    assert b"sesame" not in got


async def test_mysql_8_gets_the_password_itself_inside_tls_only(tmp_path: Path) -> None:
    servers.certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    got: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        """Talk by blocking sockets: asyncio would already have read the client's first TLS bytes."""
        plain, _ = listener.accept()
        with plain:
            plain.sendall(greeting(flags=0x0008_8A00))
            got.append(plain.recv(36))
            with context.wrap_socket(plain, server_side=True) as secure:
                got.append(secure.recv(4096))
                secure.sendall(packet(3, b"\x01\x04"))
                got.append(secure.recv(4096))
                secure.sendall(packet(5, OK[4:]))
                secure.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = asyncio.to_thread(serve, listener)
        verdict, _ = await asyncio.gather(ask(listener.getsockname()[1], "app", "sesame"), server)
    assert isinstance(verdict, Live)
    assert b"app" not in got[0], "not even the user's name goes out before TLS"
    assert b"app\x00" in got[1]
    assert got[2] == packet(4, b"sesame\x00")


@pytest.mark.parametrize(
    ("greet", "sends", "expected"),
    [
        (greeting(), (packet(2, b"\x01\x04"),), Doubt.REFUSED),
        (greeting(), (packet(2, b"\xfemysql_clear_password\x00"),), Doubt.REFUSED),
        (greeting(), (packet(2, b"\xfesha256_password\x00" + SALT),), Doubt.REFUSED),
        (greeting(), (packet(2, b"\xfeclient_ed25519\x00" + SALT),), Doubt.UNSUPPORTED),
        (greeting(), (packet(2, b"\xfemysql_native_password\x00" + SALT + b"\x00"), OK), "live"),
        (greeting(b"dialog"), (OK,), "live"),
        (greeting(), (error(1045, b"ProxySQL Error: Access denied for user 'app'@'x'"),), Doubt.AMBIGUOUS),
        (greeting(), (error(1045, b"Access denied for user 'app'@'x' (using password: NO)"),), Doubt.AMBIGUOUS),
        (greeting(), (error(1698, b"Access denied for user 'app'@'x'"),), Doubt.UNSUPPORTED),
        (greeting(), (error(4242, b"Something new"),), Doubt.AMBIGUOUS),
        (error(1130, b"Host is not allowed", 0), (), Doubt.BLOCKED),
        (packet(0, b"\xff\x10\x04Too many connections"), (), Doubt.UNREACHABLE),
        (packet(0, b"\x09old"), (), Doubt.AMBIGUOUS),
        (greeting(flags=0x8000), (), Doubt.UNSUPPORTED),
        (greeting(), (packet(2, b"\x42"),), Doubt.AMBIGUOUS),
        (greeting(), (packet(2, b"\x01\x03") * 12,), Doubt.AMBIGUOUS),
        (b"SSH-2.0-OpenSSH_9.2\r\n", (), Doubt.AMBIGUOUS),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", (), Doubt.AMBIGUOUS),
        (greeting(flags=0x0008_8A00), (b"no TLS here",), Doubt.UNREACHABLE),
    ],
)
async def test_what_a_played_server_says(greet: bytes, sends: tuple[bytes, ...], expected: Doubt | str) -> None:
    async with listening(answering(*sends, greet=greet)) as port:
        verdict = await ask(port, "app")
    if expected == "live":
        assert isinstance(verdict, Live), verdict
    else:
        assert isinstance(verdict, Undecided), verdict
        assert verdict.why is expected, verdict
