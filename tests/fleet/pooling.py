"""A pool in transaction mode, as PgBouncer's: a client has a session for one transaction, the next one for the next.

It answers clients' log-ins itself, and logs in as a user who is trusted.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

_SSL = 80877103
_READY = b"Z\x00\x00\x00\x05I"
_WELCOME = b"R" + struct.pack("!ii", 8, 0) + b"S\x00\x00\x00\x19client_encoding\x00UTF8\x00" + _READY
Session: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pool:
    """Sessions of one server, the one that was used last first."""

    def __init__(self, host: str, port: int, user: str, database: str) -> None:
        self._place, self._user, self._database = (host, port), user, database
        self._idle: list[Session] = []
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _session(self) -> Session:
        if self._idle:
            return self._idle.pop()
        reader, writer = await asyncio.open_connection(*self._place)
        self.writers.append(writer)
        words = f"user\0{self._user}\0database\0{self._database}\0\0".encode()
        writer.write(struct.pack("!ii", len(words) + 8, 196608) + words)
        while (await _message(reader))[:1] != b"Z":
            pass
        return reader, writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!i", await reader.readexactly(4))
                first = await reader.readexactly(length - 4)
                if struct.unpack("!i", first[:4])[0] != _SSL:
                    break
                writer.write(b"N")
            writer.write(_WELCOME)
            while (said := await _message(reader))[:1] != b"X":
                await self._transaction(said, reader, writer)
        writer.close()

    async def _transaction(self, said: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = await self._session()
        while True:
            session[1].write(said)
            while said[:1] not in b"QS":  # a query, or the end of what belongs together
                said = await _message(reader)
                session[1].write(said)
            while (answer := await _message(session[0]))[:1] != b"Z":
                writer.write(answer)
            writer.write(answer)
            if answer == _READY:
                self._idle.append(session)
                return
            said = await _message(reader)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


@contextmanager
def pooling(host: str, port: int, user: str, database: str) -> Iterator[str]:
    """Run a pool in a thread; give its URL."""
    loop, pool, over = asyncio.new_event_loop(), Pool(host, port, user, database), asyncio.Event()
    ready = threading.Event()

    async def run() -> None:
        server = await pool.listen()
        ready.set()
        await over.wait()
        server.close()
        for writer in pool.writers:
            writer.close()
        await asyncio.sleep(0.05)  # so that everybody sees the end of its stream

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"postgresql://anybody@127.0.0.1:{pool.port}/{database}?sslmode=disable"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
