"""The direct way out, byte by byte: framing, keeping connections, and what a server may not get away with."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise import BODY_CAP, canned, listening

from verifier.egress.http1 import Direct, _Chunks, _framed, _Head, _head, _Reader
from verifier.egress.transport import Answer, Failure, Pin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from verifier.egress.transport import Wire

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def wire(port: int) -> Wire:
    return Direct(user_agent="t", deadline=2.0).wire(Pin("127.0.0.1", port, "127.0.0.1", scheme="http"))


async def get(out: Wire, method: str = "GET", target: str = "/user", **headers: str) -> Answer | Failure:
    return await out.exchange(method, f"http://127.0.0.1{target}", headers, None, None)


def taken(raw: bytes, *, bare: bool = False, cut: int = 7) -> tuple[Answer | Failure | None, bool]:
    """Read one reply in pieces of `cut` bytes; also say whether the connection would be kept."""
    top, _, rest = raw.partition(b"\r\n\r\n")
    head = _head(top)
    if isinstance(head, Failure):
        return head, False
    reader = _framed(head, bare=bare)
    if isinstance(reader, Failure):
        return reader, False
    said = reader.feed(b"")
    for start in range(0, len(rest), cut):
        if said is not None:
            return said, False
        said = reader.feed(rest[start : start + cut])
    return (reader.eof() if said is None else said), reader.keep


@given(
    body=st.binary(max_size=300),
    sizes=st.lists(st.integers(1, 40), max_size=8),
    cut=st.integers(1, 50),
    packed=st.booleans(),
)
def test_any_body_in_any_chunks_in_any_pieces(body: bytes, sizes: list[int], cut: int, *, packed: bool) -> None:
    coded, rest = b"", gzip.compress(body) if packed else body
    for size in sizes:
        if part := rest[:size]:
            coded += b"%x;a=b\r\n%s\r\n" % (len(part), part)
        rest = rest[size:]
    if rest:
        coded += b"%X\r\n%s\r\n" % (len(rest), rest)
    coding = b"content-encoding: gzip\r\n" if packed else b""
    raw = b"HTTP/1.1 200 OK\r\n" + coding + b"transfer-encoding: chunked\r\n\r\n" + coded + b"0\r\nx: y\r\n\r\n"
    said, keep = taken(raw, cut=cut)
    assert isinstance(said, Answer)
    assert (said.body, said.truncated, keep) == (body, False, True)
    whole, _ = taken(raw[:-3], cut=cut)
    assert isinstance(whole, Failure), "the end was not there"


@given(st.binary(max_size=60), st.integers(1, 9))
def test_no_chunks_are_no_crash(junk: bytes, cut: int) -> None:
    chunks = _Chunks()
    for start in range(0, len(junk), cut):
        if chunks.feed(junk[start : start + cut]) is None:
            return


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 101 Switching",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded: c",
        b"HTTP/1.1 200 OK\r\nspace : c",
        b"HTTP/1.1 200 OK\r\na: b\rc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
    ],
)
def test_what_is_not_plain_http_is_never_guessed_at(head: bytes) -> None:
    said, _ = taken(head + b"\r\n\r\n{}")
    assert isinstance(said, Failure)
    assert "not HTTP" in said.note


@pytest.mark.parametrize(
    ("raw", "bare", "body", "keep"),
    [
        (OK, False, b"{}", True),
        (OK + b"more", False, b"{}", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", False, b"{}", False),
        (b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 2\r\n\r\n{}", False, b"{}", False),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", False, b"to the end", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", True, b"", True),
        (b"HTTP/1.1 204 None\r\n\r\n", False, b"", True),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n", False, b"", True),
    ],
)
def test_where_a_body_ends(raw: bytes, body: bytes, *, bare: bool, keep: bool) -> None:
    said, kept = taken(raw, bare=bare)
    assert isinstance(said, Answer)
    assert (said.body, kept) == (body, keep)


def test_an_encoding_nobody_asked_for_is_not_a_body() -> None:
    said, _ = taken(b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}")
    assert isinstance(said, Failure)
    assert "decoded" in said.note


def test_no_more_than_the_cap_is_unpacked() -> None:
    head = _Head(200, keep=True)
    head.lengths, head.encoding = "", "gzip"
    reader = _framed(head, bare=False)
    assert isinstance(reader, _Reader)
    said = reader.feed(gzip.compress(b"\0" * 50_000_000))
    assert isinstance(said, Answer)
    assert (len(said.body), said.truncated) == (BODY_CAP, True)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_of(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    if request.param == "asyncio":
        return asyncio.run  # type: ignore[return-value]  # a coroutine is what it gets
    uvloop = pytest.importorskip("uvloop")
    return uvloop.run  # type: ignore[no-any-return]


def test_many_at_once_over_few_connections(loop_of: Callable[[Awaitable[None]], None]) -> None:
    """A line that went idle may carry the next request before the last one's task runs again."""

    async def main() -> None:
        async with canned(OK) as (port, seen):
            out = wire(port)
            left = iter(range(300))

            async def worker() -> None:
                for n in left:
                    said = await get(out, target=f"/{n}")
                    assert isinstance(said, Answer), said

            await asyncio.wait_for(asyncio.gather(*(worker() for _ in range(8))), 10)
            await out.close()
            assert len(seen) == 300

    loop_of(main())


def test_a_connection_closed_while_idle_is_made_anew(loop_of: Callable[[Awaitable[None]], None]) -> None:
    methods: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            methods.append(head.partition(b" ")[0])
            if turn:
                return  # a kept connection dies at the second request, unanswered
            writer.write(OK)

    async def main() -> None:
        async with listening(serve) as port:
            out = wire(port)
            assert isinstance(await get(out), Answer)
            assert isinstance(await get(out), Answer), "a GET goes out again on a new connection"
            lost = await get(out, "POST")
            assert isinstance(lost, Failure), "a POST does not: it may have been read"
            await out.close()

    loop_of(main())
    assert methods == [b"GET", b"GET", b"GET", b"POST"]


def test_a_reply_to_nobody_costs_the_connection(loop_of: Callable[[Awaitable[None]], None]) -> None:
    """What comes after the one reply never answers the next request."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    async def main() -> None:
        async with listening(serve) as port:
            out = wire(port)
            for _ in range(2):
                said = await get(out)
                assert isinstance(said, Answer)
                assert said.body == b"{}"
                await asyncio.sleep(0.05)
            await out.close()

    loop_of(main())
    assert connections == 2


def test_who_is_cancelled_leaves_no_reply_behind(loop_of: Callable[[Awaitable[None]], None]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            name = head.split(b" ")[1]
            await asyncio.sleep(0.1 if name == b"/slow" else 0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name))

    async def main() -> None:
        async with listening(serve) as port:
            out = wire(port)
            slow = asyncio.ensure_future(get(out, target="/slow"))
            await asyncio.sleep(0.03)
            slow.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await slow
            said = await get(out, target="/quick")
            assert isinstance(said, Answer)
            assert said.body == b"/quick"
            await out.close()

    loop_of(main())


async def test_an_answer_before_the_answer_is_passed_over() -> None:
    async with canned(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK) as (port, _):
        out = wire(port)
        said = await get(out)
        await out.close()
    assert isinstance(said, Answer)
    assert said.status == 200


@pytest.mark.parametrize("bad", [{"X-A": "1\r\nX-B: 2"}, {"X A": "1"}, {"X-A": "\0"}])
async def test_no_header_smuggles_another(bad: dict[str, str]) -> None:
    said = await get(wire(1), **bad)
    assert isinstance(said, Failure)
    assert said.unsent


async def test_no_url_smuggles_a_line() -> None:
    async with canned(OK) as (port, seen):
        out = wire(port)
        assert isinstance(await get(out, target="/a\r\nX: y"), Failure)
        assert isinstance(await get(out, target="/ü b#c"), Answer)
        await out.close()
    assert seen[0].startswith(b"GET /%C3%BC%20b HTTP/1.1\r\n")


def test_a_name_without_an_address_is_never_resolved() -> None:
    with pytest.raises(ValueError, match="never resolved"):
        Direct(user_agent="t", deadline=1.0).wire(Pin("api.example.com", 443))
