"""A small SQL Server on loopback: log-ins, users of one database, TLS inside its own packets, and Azure's gateway.

Written from [MS-TDS] and Microsoft's pages on error 18456, apart from the code it tests; python-tds 1.17 and its
pyOpenSSL, an independent client, was let in, refused and cut off by it as a real server does (looked at by hand).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OFF, ON, NOT_SUPPORTED, REQUIRED = range(4)


@dataclass
class Login:
    """A log-in of the whole server. `trouble` is what is the matter with it besides the password."""

    password: str
    trouble: str = ""
    databases: frozenset[str] = frozenset({"master"})


@dataclass
class SqlServer:
    """The world: who may come in and where, how it encrypts, and what it heard."""

    certificate: ssl.SSLContext
    logins: dict[str, Login] = field(default_factory=dict)
    contained: dict[str, dict[str, str]] = field(default_factory=dict)
    databases: frozenset[str] = frozenset({"master", "shop"})
    encryption: int = ON
    honest: bool = False
    """Tell the true state, as the error log has it; by default the client is told 1."""
    gateway: bool = False
    """Look for the database first, as Azure does."""
    firewall: bool = False
    route: tuple[str, int] | None = None
    language: str = "en"
    strict: bool = False
    heard: list[tuple[str, str, str]] = field(default_factory=list)
    """User, database and program of each LOGIN7."""
    after: bytes = b""
    """What came after the log-in."""
    plain: bytes = b""
    """What came outside of TLS."""

    # ── what the server thinks ──

    def judge(self, user: str, password: str, database: str) -> bytes:
        """Return the tokens of the answer."""
        if self.route is not None:
            return routing(*self.route) + acknowledged() + DONE
        if self.firewall:
            return error(40615, f"Cannot open server 'acme' requested by the login. Client is not allowed ('{user}').")
        target = database or "master"
        if self.gateway and target not in self.databases | set(self.contained):
            return error(4060, f'Cannot open database "{target}" requested by the login. The login failed.', 1, 11)
        if target in self.contained and user in self.contained[target]:
            good = self.contained[target][user] == password
            return self.welcome(target) if good else self.failed(user, 65)
        login = self.logins.get(user)
        if login is None:
            return self.failed(user, 5)
        if login.password != password:
            return self.failed(user, 7 if login.trouble == "disabled" else 8)
        return self.trouble(user, login) or self.place(user, login, target)

    def trouble(self, user: str, login: Login) -> bytes:
        said = {
            "disabled": (18470, f"Login failed for user '{user}'. Reason: The account is disabled."),
            "expired": (18487, f"Login failed for user '{user}'.  Reason: The password of the account has expired."),
            "must change": (18488, f"Login failed for user '{user}'.  Reason: The password must be changed."),
            "locked": (18486, f"Login failed for user '{user}' because the account is currently locked out."),
            "trigger": (17892, f"Logon failed for login '{user}' due to trigger execution."),
            "entra": (18456, f"Login failed for user '{user}'. Reason: Azure Active Directory only authentication."),
        }
        if login.trouble == "no right to connect":
            return self.failed(user, 12)
        number, text = said.get(login.trouble, (0, ""))
        return error(number, text) if number else b""

    def place(self, user: str, login: Login, target: str) -> bytes:
        if target not in self.databases:
            cannot = f'Cannot open database "{target}" requested by the login. The login failed.'
            return error(4060, cannot, 1, 11, done=False) + self.failed(user, 38)
        if target not in login.databases:
            principal = f'The server principal "{user}" is not able to access the database "{target}".'
            cannot = f'Cannot open database "{target}" requested by the login. The login failed.'
            return error(916, principal, done=False) + error(4060, cannot, 1, 11, done=False) + self.failed(user, 38)
        return self.welcome(target)

    def failed(self, user: str, state: int) -> bytes:
        words = {"en": f"Login failed for user '{user}'.", "de": f"Fehler bei der Anmeldung für den Benutzer '{user}'."}
        return error(18456, words[self.language], state if self.honest else 1)

    def welcome(self, database: str) -> bytes:
        return (
            changed(1, database, "master")
            + info(5701, f"Changed database context to '{database}'.")
            + (changed(4, "4096", "4096") + acknowledged() + features() + DONE)
        )

    # ── how it talks ──

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await message(reader)
        assert said[0] == 0x12
        assert b"\xff" in said[1]
        answer = self.encryption
        writer.write(packet(0x04, prelogin(answer)))
        if self.strict:
            login = await message(reader)
            writer.write(packet(0x04, self.answer(login)))
        elif answer in {ON, REQUIRED}:
            inside = Inside(self.certificate, reader, writer)
            await inside.shake()
            login = await inside.message()
            inside.write(packet(0x04, self.answer(login)))
        else:
            self.plain += await reader.read(65_536)
            return
        await writer.drain()
        self.after += await reader.read(4096)

    def answer(self, login: tuple[int, bytes]) -> bytes:
        kind, body = login
        assert kind == 0x10
        user, password, program, server, database = login7(body)
        self.heard.append((user, database, program))
        assert server
        return self.judge(user, password, database)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Be there; yields the port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                await self.serve(reader, writer)
            writer.close()

        tls = self.certificate if self.strict else None
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
            yield int(server.sockets[0].getsockname()[1])


class Inside:
    """The server's side of TLS in packets."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.into, self.out, server_side=True)

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            flight = self.out.read()
            # a real server cuts long flights into several packets of one message
            for at in range(0, len(flight), 700):
                last = at + 700 >= len(flight)
                self.writer.write(packet(0x12, flight[at : at + 700], 1 if last else 0))
            if done:
                return
            kind, body = await message(self.reader)
            assert kind == 0x12
            self.into.write(body)

    async def read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            try:
                found += self.tls.read(count - len(found))
            except ssl.SSLWantReadError:
                raw = await self.reader.read(65_536)
                if not raw:
                    raise EOFError from None
                self.into.write(raw)
        return found

    async def message(self) -> tuple[int, bytes]:
        kind, status, length = struct.unpack(">BBH4x", await self.read(8))
        assert status & 1
        return kind, await self.read(length - 8)

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), 50):  # many small records
            self.tls.write(data[at : at + 50])
        self.writer.write(self.out.read())


# ── bytes ──


async def message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    body = b""
    while True:
        kind, status, length = struct.unpack(">BBH4x", await reader.readexactly(8))
        body += await reader.readexactly(length - 8)
        if status & 1:
            return kind, body


def packet(kind: int, body: bytes, status: int = 1) -> bytes:
    return struct.pack(">BBHHBB", kind, status, 8 + len(body), 51, 1, 0) + body


def prelogin(encryption: int) -> bytes:
    version, at = bytes((16, 0, 16, 39, 0, 0)), 11
    return struct.pack(">BHHBHHB", 0, at, 6, 1, at + 6, 1, 0xFF) + version + bytes([encryption])


def login7(body: bytes) -> tuple[str, str, str, str, str]:
    """Return user, password, program, server and database."""
    length, version = struct.unpack_from("<II", body)
    assert length == len(body)
    assert version == 0x74000004

    def text(n: int) -> bytes:
        at, count = struct.unpack_from("<HH", body, 36 + 4 * n)
        return body[at : at + 2 * count]

    clear = bytes(((b ^ 0xA5) << 4 | (b ^ 0xA5) >> 4) & 0xFF for b in text(2))
    parts = [text(1), clear, text(3), text(4), text(8)]
    user, password, program, server, database = (p.decode("utf-16-le") for p in parts)
    return user, password, program, server, database


def _us(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("utf-16-le")


def _b(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")


DONE = b"\xfd" + bytes(12)
FAILED = b"\xfd\x02\x00" + bytes(10)


def error(number: int, text: str, state: int = 1, severity: int = 14, *, done: bool = True) -> bytes:
    body = struct.pack("<iBB", number, state, severity) + _us(text) + _b("acme") + _b("") + struct.pack("<I", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body + (FAILED if done else b"")


def info(number: int, text: str) -> bytes:
    body = struct.pack("<iBB", number, 2, 0) + _us(text) + _b("acme") + _b("") + struct.pack("<I", 1)
    return b"\xab" + struct.pack("<H", len(body)) + body


def changed(kind: int, new: str, old: str) -> bytes:
    body = bytes([kind]) + _b(new) + _b(old)
    return b"\xe3" + struct.pack("<H", len(body)) + body


def routing(host: str, port: int) -> bytes:
    value = struct.pack("<BH", 0, port) + _us(host)
    body = b"\x14" + struct.pack("<H", len(value)) + value + b"\x00\x00"
    return b"\xe3" + struct.pack("<H", len(body)) + body


def acknowledged(program: str = "Microsoft SQL Server\0\0") -> bytes:
    body = b"\x01" + struct.pack(">I", 0x74000004) + _b(program) + bytes((16, 0, 16, 39))
    return b"\xad" + struct.pack("<H", len(body)) + body


def features() -> bytes:
    return b"\xae\x0a" + struct.pack("<I", 1) + b"\x01\xff"
