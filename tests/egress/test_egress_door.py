"""The door on real sockets: what leaves, what comes back, and what never does."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from noise import BEHAVIOURS, BODY_CAP, NOISE, NOWHERE, NoiseServer, RecordingProxy, canned, listening
from pki import Authority
from virtual import now, run

from verifier.egress import Egress, Exchange, Limits, RefusedError, Settings, passing, retry_after
from verifier.egress.transport import Answer, Failure, Pin
from verifier.exchange import Admitted, Call, Reply, Request, Trouble
from verifier.model import Doubt
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = (ip_network("127.0.0.0/8"),)
MARKED = "mark" + "Zq7" * 12
URL = "https://api.example.com/user"
OK = Answer(200, {}, b"", truncated=False)
FAST = Limits(rate=10_000.0, burst=1000, concurrency=64)
CALL = Call("kind", "GET", "https", "api.example.com", "/user", "reads")


def ask(url: str, call: Call = CALL, body: str | None = None, **headers: str) -> Request:
    given = {k.replace("_", "-"): Secret(v) for k, v in headers.items()}
    return Request(call, Secret(url), call.path, given, None if body is None else Secret(body))


def door(base: str | None = None, calls: tuple[Call, ...] = (CALL,), **given: Any) -> Egress:
    """Return a door that may talk to loopback and does not try again."""
    settings = {"allow_private": LOOPBACK, "retries": 0, "deadline": 2.0} | given.pop("settings", {})
    given.setdefault("limits", {"kind": FAST})
    given.setdefault("environ", {})
    if base is not None:
        given["overrides"] = {"kind": base}
    return Egress(calls, settings=Settings(**settings), **given)


def http(status: int, body: bytes = b"", *headers: str, reason: str = "x") -> bytes:
    head = [f"HTTP/1.1 {status} {reason}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def trouble(base: str, url: str | None = None, **given: Any) -> Trouble:
    async with door(base, **given) as out:
        answer = await out.send(ask(url or f"{base}/user"))
    assert isinstance(answer, Trouble), answer
    return answer


# ── replies ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_reply_and_what_was_sent() -> None:
    async with canned(http(200, b'{"id": 1}', "Content-Type: application/json", "X-A: 1", "x-a: 2")) as (port, seen):
        base = f"http://127.0.0.1:{port}"
        async with door(base) as out:
            reply = await out.send(ask(f"{base}/user?q=1", Authorization=f"Bearer {MARKED}"))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.host, reply.route) == (200, b'{"id": 1}', "127.0.0.1", "base")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-a"] == "1, 2"
    assert not reply.truncated
    head = seen[0].decode()
    assert head.startswith("GET /user?q=1 HTTP/1.1\r\n")
    assert f"authorization: bearer {MARKED.lower()}" in head.lower()
    assert "user-agent: lapse/0.1 (+secret verification; read-only)" in head.lower()
    assert "\r\naccept: application/json" in head.lower()
    assert head.lower().count("accept:") == 1


async def test_who_is_told_to_stop_stops_even_as_the_answer_arrives() -> None:
    """At instants of every kind: an answer that is on its way must not drown the word to stop."""
    async with canned(http(200, b"{}")) as (port, seen), door(f"http://127.0.0.1:{port}") as out:

        async def ceaseless() -> None:
            while True:
                await out.send(ask(f"http://127.0.0.1:{port}/user"))

        for n in range(80):
            crew = [asyncio.create_task(ceaseless()) for _ in range(12)]
            await asyncio.sleep(0.004 + n % 20 * 0.0002)
            for one in crew:
                one.cancel()
            _, deaf = await asyncio.wait(crew, timeout=5)
            for one in deaf:
                one.cancel()
            assert not deaf, f"{len(deaf)} of {len(crew)} went on asking, {len(seen)} requests in all"


async def test_headers_of_the_request_win() -> None:
    async with canned(http(200)) as (port, seen), door(f"http://127.0.0.1:{port}") as out:
        await out.send(ask(f"http://127.0.0.1:{port}/user", Accept="text/plain", User_Agent="other"))
    head = seen[0].decode().lower()
    assert "\r\naccept: text/plain\r\n" in head
    assert "\r\nuser-agent: other\r\n" in head
    assert "lapse" not in head


async def test_post_and_head() -> None:
    post = Call("kind", "POST", "https", "api.example.com", "/graphql", "asks for viewer")
    head = Call("kind", "HEAD", "https", "api.example.com", "/user", "reads")
    async with canned(http(200, b"{}"), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n") as (port, seen):
        base = f"http://127.0.0.1:{port}"
        async with door(base, (post, head)) as out:
            reply = await out.send(ask(f"{base}/graphql", post, '{"q":"é"}', Content_Type="application/json"))
            empty = await out.send(ask(f"{base}/user", head))
    assert isinstance(reply, Reply)
    assert seen[0].startswith(b"POST /graphql ")
    assert seen[0].endswith('{"q":"é"}'.encode())
    assert isinstance(empty, Reply)
    assert (empty.status, empty.body) == (200, b"")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with canned(http(status, b"", "Location: /user?again")) as (port, seen):
        async with door(f"http://127.0.0.1:{port}") as out:
            reply = await out.send(ask(f"http://127.0.0.1:{port}/user"))
        assert isinstance(reply, Reply)
        assert reply.status == status
        assert reply.headers["location"] == "/user?again"
        assert len(seen) == 1


async def test_every_stray_reply_arrives_as_itself() -> None:
    async with NoiseServer() as server:
        for stray in NOISE:
            base = server.base(stray.name)
            async with door(base) as out:
                reply = await out.send(ask(f"{base}/user"))
            assert isinstance(reply, Reply), stray.name
            said = stray.reply()
            kept = {k: v for k, v in reply.headers.items() if k not in {"content-length", "connection"}}
            assert (reply.status, reply.body, reply.truncated) == (said.status, said.body, said.truncated), stray.name
            assert kept == said.headers, stray.name


BEHAVES = {
    "truncated": "sent less than it announced",
    "mislabelled-gzip": "cannot be decoded",
    "cut-gzip": "sent less than it announced",
    "slow-drip": "in time",
    "slow-header": "in time",
    "silent": "in time",
    "reset": "reset the connection",
    "reset-in-body": "reset the connection",
    "closed": "closed the connection",
    "garbage": "not HTTP",
    "other-protocol": "not HTTP",
    "bad-chunk": "cannot be decoded",
    "endless-headers": "more headers",
}


@pytest.mark.parametrize("name", BEHAVES)
async def test_misbehaving_servers_are_unreachable(name: str) -> None:
    async with NoiseServer() as server:
        said = await trouble(server.base(name), settings={"deadline": 0.3})
    assert said.why is Doubt.UNREACHABLE
    assert said.note.startswith("127.0.0.1 ")
    assert BEHAVES[name] in said.note
    assert said.host == "127.0.0.1"


async def test_the_deadline_holds_on_a_warm_wire_too() -> None:
    async with NoiseServer() as server, door(server.base("silent"), settings={"deadline": 0.1}) as out:
        for _ in range(2):
            answer = await asyncio.wait_for(out.send(ask(f"{server.base('silent')}/user")), timeout=10)
            assert isinstance(answer, Trouble)
            assert "in time" in answer.note


@pytest.mark.parametrize("name", ["gigabyte", "gzip-bomb"])
async def test_only_64_kib_are_read(name: str) -> None:
    async with NoiseServer() as server, door(server.base(name)) as out:
        reply = await out.send(ask(f"{server.base(name)}/user"))
    assert isinstance(reply, Reply)
    assert reply.truncated
    assert len(reply.body) == BODY_CAP


async def test_exactly_64_kib_is_whole() -> None:
    async with canned(http(200, b"x" * BODY_CAP)) as (port, _), door(f"http://127.0.0.1:{port}") as out:
        reply = await out.send(ask(f"http://127.0.0.1:{port}/user"))
    assert isinstance(reply, Reply)
    assert not reply.truncated
    assert len(reply.body) == BODY_CAP


async def test_gzip_is_undone() -> None:
    body = gzip.compress(b'{"id": 1}')
    async with canned(http(200, body, "content-encoding: gzip")) as (port, _), door(f"http://127.0.0.1:{port}") as out:
        reply = await out.send(ask(f"http://127.0.0.1:{port}/user"))
    assert isinstance(reply, Reply)
    assert reply.body == b'{"id": 1}'


async def test_headers_that_are_no_text_are_left_out() -> None:
    async with NoiseServer() as server, door(server.base("binary-headers")) as out:
        reply = await out.send(ask(f"{server.base('binary-headers')}/user"))
    assert isinstance(reply, Reply)
    assert reply.headers == {"content-type": "application/json", "content-length": "2"}


def test_every_behaviour_is_tested() -> None:
    assert {*BEHAVES, "gigabyte", "gzip-bomb", "binary-headers"} == set(BEHAVIOURS)


@pytest.mark.parametrize(("base", "note"), [(NOWHERE[0], "no address"), (NOWHERE[1], "refused the connection")])
async def test_nobody_there(base: str, note: str) -> None:
    said = await trouble(base)
    assert said.why is Doubt.UNREACHABLE
    assert note in said.note


async def test_connections_are_kept() -> None:
    connections = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer.get_extra_info("peername"))
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(http(200, b"{}"))

    async with listening(serve) as port, door(f"http://127.0.0.1:{port}") as out:
        for _ in range(5):
            assert isinstance(await out.send(ask(f"http://127.0.0.1:{port}/user")), Reply)
    assert len(connections) == 1


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────

INSTANCE = Call("instance", "GET", "https", "{host}", "/user", "reads")
POST = Call("kind", "POST", "https", "api.example.com", "/user", "reads")


@pytest.mark.parametrize(
    ("request_", "note"),
    [
        (ask("https://api.example.com/other"), "path"),
        (ask("https://evil.example/user"), "scheme, host or port"),
        (ask("https://api.example.com/user", Call("kind", "GET", "https", "x.example", "/", "reads")), "manifest"),
        (ask("https://api.example.com/user", body="x"), "carries no body"),
        (ask("https://api.example.com/user", Host="evil.example"), "Host"),
        (ask("https://api.example.com/user", POST, "x", X_HTTP_Method_Override="DELETE"), "Override"),
        (ask("https://api.example.com/user", Transfer_Encoding="chunked"), "Transfer-Encoding"),
        (ask("https://127.0.0.1/user", INSTANCE), "loopback"),
        (ask("https://2130706433/user", INSTANCE), "loopback"),
        (ask("https://[::ffff:8.8.8.8]/user", INSTANCE), "IPv4-mapped"),
        (ask("https://169.254.169.254/user", INSTANCE), "link-local"),
        (ask("https://localhost/user", INSTANCE), "loopback"),
        (ask("https://private.example/user", INSTANCE), "private"),
        (ask("http://public.example/user", INSTANCE), "plain http"),
        (ask("https://xn--a.example/user", INSTANCE), "host name"),
    ],
)
async def test_refused_before_a_packet_leaves(request_: Request, note: str) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return {"localhost": ["127.0.0.1", "::1"], "private.example": ["10.0.0.1"], "public.example": ["1.1.1.1"]}[host]

    wires: list[Pin] = []
    out = Egress(
        [CALL, POST, INSTANCE],
        environ={},
        resolver=resolver,
        transport=Fake(lambda _: OK, wires),
    )
    answer = await out.send(request_)
    assert isinstance(answer, Trouble)
    assert answer.why is Doubt.REFUSED
    assert note in answer.note
    assert wires == []
    await out.aclose()


async def test_a_header_http_cannot_carry_is_refused_without_quoting_it() -> None:
    async with canned(http(200)) as (port, seen):
        base = f"http://127.0.0.1:{port}"
        async with door(base) as out:
            answer = await out.send(ask(f"{base}/user", Authorization=f"{MARKED}\r\nx: y"))
        assert isinstance(answer, Trouble)
        assert answer.why is Doubt.REFUSED
        assert MARKED not in answer.note
        assert seen == []


async def test_plain_http_to_an_allowed_range() -> None:
    async with canned(http(200)) as (port, _), door(None, (INSTANCE,)) as out:
        reply = await out.send(ask(f"http://127.0.0.1:{port}/user", INSTANCE))
    assert isinstance(reply, Reply)
    assert reply.route == "direct"


async def test_override_to_a_private_address_needs_the_range() -> None:
    said = await trouble("http://127.0.0.1:9", settings={"allow_private": ()})
    assert said.why is Doubt.REFUSED
    assert "egress.allow_private" in said.note


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(RefusedError, match="base_url"):
        door("nonsense")
    with pytest.raises(RefusedError, match="ca_bundle"):
        door(settings={"ca_bundle": "/nonexistent"})


# ── pinning ────────────────────────────────────────────────────────────────────────────────────────────


class Fake:
    """A transport that opens nothing."""

    def __init__(self, answer: Callable[[Pin], Answer | Failure], wires: list[Pin] | None = None) -> None:
        """Set up."""
        self.answer, self.wires, self.closed = answer, [] if wires is None else wires, 0
        self.deadlines: list[float | None] = []
        self.hold: asyncio.Event | None = None

    def wire(self, pin: Pin) -> FakeWire:
        self.wires.append(pin)
        return FakeWire(self, pin)


class FakeWire:
    def __init__(self, fake: Fake, pin: Pin) -> None:
        """Set up."""
        self.fake, self.pin = fake, pin

    async def exchange(self, *letter: Any) -> Answer | Failure:
        self.fake.deadlines.append(letter[-1])
        if self.fake.hold is not None:
            await self.fake.hold.wait()
        return self.fake.answer(self.pin)

    async def close(self) -> None:
        self.fake.closed += 1


def names(*rounds: list[str]) -> tuple[Callable[[str, int], Any], list[str]]:
    """Return a resolver that gives one answer after the other, the last for ever; and the names it was asked."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        await asyncio.sleep(0)
        return rounds[min(len(asked), len(rounds)) - 1]

    return resolver, asked


def test_resolved_once_a_minute_and_rebinding_changes_nothing() -> None:
    async def main() -> None:
        resolver, asked = names(["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1", "2.2.2.2"], ["2.2.2.2"])
        fake = Fake(lambda _: OK)
        settings = {"allow_private": ()}
        async with door(resolver=resolver, transport=fake, clock=now, settings=settings) as out:
            first = await asyncio.gather(*(out.send(ask(URL)) for _ in range(5)))
            assert all(isinstance(r, Reply) for r in first)
            assert asked == ["api.example.com"]
            assert fake.wires == [Pin("api.example.com", 443, "1.1.1.1")]
            await asyncio.sleep(61)
            rebound = await out.send(ask(URL))
            assert isinstance(rebound, Trouble)
            assert rebound.why is Doubt.REFUSED
            assert isinstance(await out.send(ask(URL)), Reply)
            assert len(fake.wires) == 1
            await asyncio.sleep(61)
            assert isinstance(await out.send(ask(URL)), Reply)
            assert fake.wires[1:] == [Pin("api.example.com", 443, "2.2.2.2")]
        assert fake.closed == 2

    run(main())


async def test_private_addresses_among_public_ones_are_left_out() -> None:
    resolver, _ = names(["64:ff9b::808:808", "10.0.0.1", "8.8.8.8"])
    fake = Fake(lambda _: OK)
    async with door(resolver=resolver, transport=fake) as out:
        await out.send(ask(URL))
    assert fake.wires == [Pin("api.example.com", 443, "8.8.8.8")]


async def test_the_next_address_is_tried_when_one_does_not_connect() -> None:
    resolver, asked = names(["1.1.1.1", "2.2.2.2"])
    fake = Fake(lambda pin: OK if pin.address == "2.2.2.2" else Failure("refused", connecting=True))
    async with door(resolver=resolver, transport=fake, settings={"retries": 1}, sleep=_no_sleep) as out:
        assert isinstance(await out.send(ask(URL)), Reply)
    assert [pin.address for pin in fake.wires] == ["1.1.1.1", "2.2.2.2"]
    assert len(asked) == 1
    assert fake.closed == 2


async def test_no_address_at_all() -> None:
    resolver, _ = names([])
    async with door(resolver=resolver, transport=Fake(lambda _: OK)) as out:
        answer = await out.send(ask(URL))
    assert isinstance(answer, Trouble)
    assert answer.why is Doubt.UNREACHABLE


def test_a_slow_resolver_counts_against_the_deadline() -> None:
    async def main() -> None:
        async def resolver(host: str, port: int) -> list[str]:
            await asyncio.sleep(1.5 if host == "api.example.com" else 60)
            return ["1.1.1.1"]

        fake = Fake(lambda _: OK)
        slow = Call("kind", "GET", "https", "slow.example", "/user", "reads")
        async with door(None, (CALL, slow), resolver=resolver, transport=fake, clock=now) as out:
            await out.send(ask(URL))
            assert fake.deadlines == [pytest.approx(0.5)]
            answer = await out.send(ask("https://slow.example/user", slow))
            assert isinstance(answer, Trouble)
            assert now() == pytest.approx(3.5)

    run(main())


async def test_idle_wires_are_closed_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.egress.door._MOST_WIRES", 2)
    resolver, _ = names(["1.1.1.1"])
    fake = Fake(lambda _: OK)
    async with door(None, (INSTANCE,), resolver=resolver, transport=fake, limits={"instance": FAST}) as out:
        fake.hold = asyncio.Event()
        busy = [asyncio.ensure_future(out.send(ask(f"https://busy{n}.example/user", INSTANCE))) for n in range(3)]
        await asyncio.sleep(0.01)
        assert fake.closed == 0
        fake.hold.set()
        await asyncio.gather(*busy)
        fake.hold = None
        await out.send(ask("https://one.example/user", INSTANCE))
        await asyncio.sleep(0)
        assert fake.closed == 1
    assert fake.closed == 4


async def test_a_busy_wire_is_closed_when_it_is_done() -> None:
    resolver, _ = names(["1.1.1.1", "2.2.2.2"])
    fake = Fake(lambda _: Failure("refused", connecting=True))
    async with door(resolver=resolver, transport=fake) as out:
        fake.hold = asyncio.Event()
        sends = [asyncio.ensure_future(out.send(ask(URL))) for _ in range(2)]
        await asyncio.sleep(0.01)
        fake.hold.set()
        await asyncio.gather(*sends)
        await asyncio.sleep(0)
        assert len(fake.wires) == 2
        assert fake.closed == 1


async def test_a_client_that_cannot_be_built_is_a_refusal() -> None:
    class Broken:
        def wire(self, _: Pin) -> FakeWire:
            raise ValueError

    resolver, _ = names(["1.1.1.1"])
    async with door(resolver=resolver, transport=Broken()) as out:
        answer = await out.send(ask(URL))
    assert isinstance(answer, Trouble)
    assert answer.why is Doubt.REFUSED
    assert "ca_bundle" in answer.note


# ── TLS ────────────────────────────────────────────────────────────────────────────────────────────────

TLS = Call("kind", "GET", "https", "{host}", "/user", "reads")


async def tls_send(
    port: int, name: str = "api.example.com", environ: dict[str, str] | None = None, **settings: Any
) -> Reply | Trouble:
    resolver, _ = names(["127.0.0.1"])
    async with door(None, (TLS,), resolver=resolver, settings=settings, environ=environ or {}) as out:
        return await out.send(ask(f"https://{name}:{port}/user", TLS))


async def test_pinned_tls_checks_the_name_and_says_which_way_it_went(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with canned(http(200), tls=authority.server("api.example.com")) as (port, _):
        by_config = await tls_send(port, ca_bundle=str(authority.path))
        by_variable = await tls_send(port, environ={"SSL_CERT_FILE": str(authority.path)})
        other_name = await tls_send(port, "other.example.com", ca_bundle=str(authority.path))
        unknown = await tls_send(port)
    for reply in (by_config, by_variable):
        assert isinstance(reply, Reply)
        assert (reply.status, reply.route, reply.host) == (200, "ca", "api.example.com")
    for answer, note in ((other_name, "for another name"), (unknown, "not signed by a trusted authority")):
        assert isinstance(answer, Trouble)
        assert answer.why is Doubt.UNREACHABLE
        assert f"certificate is {note}" in answer.note


@pytest.mark.parametrize(("days", "note"), [((-2, -1), "expired"), ((1, 2), "not valid yet")])
async def test_certificate_dates(tmp_path: Path, days: tuple[int, int], note: str) -> None:
    authority = Authority(tmp_path)
    async with canned(http(200), tls=authority.server("api.example.com", days)) as (port, seen):
        answer = await tls_send(port, ca_bundle=str(authority.path))
        assert isinstance(answer, Trouble)
        assert note in answer.note
        assert seen == []


async def test_certificate_of_an_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with canned(http(200), tls=authority.server("127.0.0.1")) as (port, _):
        assert isinstance(await tls_send(port, "127.0.0.1", ca_bundle=str(authority.path)), Reply)


async def test_plain_http_on_the_https_port() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(http(400, b"The plain HTTP request was sent to HTTPS port"))

    async with listening(serve) as port:
        answer = await tls_send(port)
    assert isinstance(answer, Trouble)
    assert answer.why is Doubt.UNREACHABLE
    assert "does not speak TLS" in answer.note


# ── proxies ────────────────────────────────────────────────────────────────────────────────────────────


async def test_https_through_a_proxy_by_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    resolver, asked = names(["127.0.0.1"])
    async with (
        canned(http(200), tls=authority.server("api.example.com")) as (port, seen),
        RecordingProxy(connect_to=("127.0.0.1", port)) as proxy,
        door(
            resolver=resolver,
            environ={"HTTPS_PROXY": proxy.url.replace("//", "//me:pw@")},
            settings={"ca_bundle": str(authority.path)},
        ) as out,
    ):
        reply = await out.send(ask(URL, Authorization=f"Bearer {MARKED}"))
    assert isinstance(reply, Reply)
    assert reply.route == "proxy"
    assert asked == [], "the proxy resolves"
    assert [(p.method, p.host, p.port) for p in proxy.seen] == [("CONNECT", "api.example.com", 443)]
    assert proxy.seen[0].headers["proxy-authorization"] == "Basic bWU6cHc="
    assert MARKED not in str(proxy.seen)
    assert b"proxy-authorization" not in seen[0].lower()


async def test_plain_http_through_a_proxy_that_strips() -> None:
    async with (
        canned(http(200, b"{}")) as (port, seen),
        RecordingProxy(strip=("Authorization",)) as proxy,
        door(f"http://127.0.0.1:{port}", settings={"proxy": proxy.url}) as out,
    ):
        reply = await out.send(
            ask(f"http://127.0.0.1:{port}/user?a=1", Authorization=f"Bearer {MARKED}", X_Other="kept")
        )
    assert isinstance(reply, Reply)
    assert reply.route == "base"
    assert [(p.method, p.host, p.port, p.path) for p in proxy.seen] == [("GET", "127.0.0.1", port, "/user?a=1")]
    assert MARKED in proxy.seen[0].headers["authorization"]
    assert b"authorization" not in seen[0].lower()
    assert b"x-other: kept" in seen[0].lower()


async def test_no_proxy_goes_direct() -> None:
    async with (
        canned(http(200)) as (port, _),
        RecordingProxy() as proxy,
        door(None, (INSTANCE,), environ={"http_proxy": proxy.url, "NO_PROXY": "127.0.0.0/8"}) as out,
    ):
        reply = await out.send(ask(f"http://127.0.0.1:{port}/user", INSTANCE))
    assert isinstance(reply, Reply)
    assert reply.route == "direct"
    assert proxy.seen == []


async def test_the_client_reads_no_proxy_variable_behind_our_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canned(http(200)) as (port, _), RecordingProxy() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with door(f"http://127.0.0.1:{port}", environ={}) as out:
            assert isinstance(await out.send(ask(f"http://127.0.0.1:{port}/user")), Reply)
        assert proxy.seen == []


@pytest.mark.parametrize(
    ("url", "note"),
    [
        ("https://169.254.169.254/user", "link-local"),
        ("https://0xa9fea9fe/user", "link-local"),
        ("https://10.0.0.1/user", "private"),
        ("https://metadata.google.internal/user", "inside a network"),
        ("https://localhost/user", "inside a network"),
        ("http://public.example/user", "plain http"),
    ],
)
async def test_a_proxy_is_not_asked_for_what_is_inside(url: str, note: str) -> None:
    async with RecordingProxy() as proxy, door(None, (INSTANCE,), settings={"proxy": proxy.url}) as out:
        answer = await out.send(ask(url, INSTANCE))
    assert isinstance(answer, Trouble)
    assert answer.why is Doubt.REFUSED
    assert note in answer.note
    assert proxy.seen == []


@pytest.mark.parametrize("base", [None, "http"])
async def test_a_proxy_that_wants_a_log_in_is_a_reply(base: str | None) -> None:
    async with RecordingProxy(refuse=407) as proxy, canned(http(200)) as (port, _):
        url = f"http://127.0.0.1:{port}" if base else None
        async with door(url, settings={"proxy": proxy.url}) as out:
            reply = await out.send(ask(f"{url}/user" if url else URL))
    assert isinstance(reply, Reply)
    assert reply.status == 407


async def test_a_proxy_that_refuses_or_is_not_there() -> None:
    async with RecordingProxy(refuse=403) as proxy, door(settings={"proxy": proxy.url}) as out:
        refused = await out.send(ask(URL))
    async with door(settings={"proxy": "http://127.0.0.1:1"}) as out:
        absent = await out.send(ask(URL))
    for answer in (refused, absent):
        assert isinstance(answer, Trouble)
        assert answer.why is Doubt.UNREACHABLE
    assert "proxy" in refused.note  # type: ignore[union-attr]  # asserted to be trouble the line before


# ── trying again ───────────────────────────────────────────────────────────────────────────────────────


async def _no_sleep(_: float) -> None:
    await asyncio.sleep(0)


class Script:
    """A transport that plays answers in order, with the times at which they were asked for."""

    def __init__(self, *answers: Answer | Failure) -> None:
        """Set up."""
        self.answers, self.at = answers, list[float]()

    def wire(self, _: Pin) -> Script:
        return self

    async def exchange(self, *_: object) -> Answer | Failure:
        self.at.append(now())
        await asyncio.sleep(0.001)
        return self.answers[min(len(self.at), len(self.answers)) - 1]

    async def close(self) -> None:
        pass


def busy(status: int = 503, **headers: str) -> Answer:
    return Answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, b"", truncated=False)


def play(
    *answers: Answer | Failure, decisive: Callable[[Reply], bool] | None = None, **given: Any
) -> tuple[Any, list[float]]:
    """Send once under a clock that jumps; the result and when each try began."""
    script = Script(*answers)

    async def main() -> Reply | Trouble:
        resolver, _ = names(["1.1.1.1"])
        settings = {"retries": 2} | given
        async with door(resolver=resolver, transport=script, clock=now, settings=settings) as out:
            request = Request(CALL, Secret(URL), "/user", decisive=decisive)
            return await out.send(request)

    return run(main()), script.at


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_passing_statuses_are_tried_twice_more(status: int) -> None:
    reply, at = play(busy(status))
    assert reply.status == status
    assert len(at) == 3


def test_full_jitter_between_tries() -> None:
    gaps = [b - a for _ in range(30) for a, b in pairwise(play(busy())[1])]
    assert 0 <= min(gaps) < max(gaps) <= 2.01
    assert len({round(g, 4) for g in gaps}) > 10


def test_the_second_try_may_succeed() -> None:
    reply, at = play(busy(), OK)
    assert reply.status == 200
    assert len(at) == 2


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 407])
def test_other_statuses_are_final(status: int) -> None:
    reply, at = play(busy(status))
    assert reply.status == status
    assert len(at) == 1


def test_unreachable_is_tried_again() -> None:
    answer, at = play(Failure("reset the connection"))
    assert answer.why is Doubt.UNREACHABLE
    assert len(at) == 3


def test_what_cannot_be_sent_is_not_tried_again() -> None:
    answer, at = play(Failure("cannot", unsent=True))
    assert answer.why is Doubt.REFUSED
    assert len(at) == 1


def test_words_that_decide_stop_the_tries() -> None:
    reply, at = play(busy(429, x="insufficient_quota"), decisive=lambda r: "x" in r.headers)
    assert reply.status == 429
    assert len(at) == 1
    reply, at = play(busy(429), decisive=lambda r: "x" in r.headers)
    assert len(at) == 3


def test_words_that_decide_are_no_throttling() -> None:
    async def main() -> None:
        resolver, _ = names(["1.1.1.1"])
        async with door(resolver=resolver, transport=Script(busy(429)), clock=now) as out:
            await out.send(Request(CALL, Secret(URL), "/user", decisive=lambda _: True))
            assert out._limiter("kind").rate == FAST.rate
            await out.send(ask(URL))
            assert out._limiter("kind").rate == FAST.rate / 2

    run(main())


def test_no_try_outlives_its_deadline_or_the_budget() -> None:
    async def main() -> None:
        resolver, _ = names(["1.1.1.1"])
        fake = Fake(lambda _: busy(503, retry_after="4"))
        settings = {"retries": 4, "deadline": 6.0}
        async with door(resolver=resolver, transport=fake, clock=now, settings=settings) as out:
            await out.send(ask(URL))
        assert fake.deadlines[1:] == pytest.approx([6, 6, 6, 4], abs=0.1)

    run(main())


def test_retry_after_is_honoured() -> None:
    reply, at = play(busy(429, retry_after="5"), OK)
    assert reply.status == 200
    assert at[1] - at[0] == pytest.approx(5, abs=0.1)


def test_retry_after_beyond_the_budget_returns_at_once() -> None:
    reply, at = play(busy(429, retry_after="3600"))
    assert (reply.status, reply.headers["retry-after"], len(at)) == (429, "3600", 1)


def test_the_budget_bounds_all_tries() -> None:
    reply, at = play(busy(503, retry_after="9"), retries=9)
    assert reply.status == 503
    assert len(at) == 3
    assert at[-1] < 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("7", 7),
        ("1.5", 1.5),
        ("0", 0),
        ("999999999", 86_400),
        ("-5", None),
        ("soon", None),
        ("²", None),
        ("1" * 5000, 86_400),
        (format_datetime(datetime(2030, 1, 1, 0, 1, tzinfo=UTC), usegmt=True), 60),
        ("Tue, 01 Jan 2030 00:01:00 -0000", 60),
        (format_datetime(datetime(2029, 1, 1, tzinfo=UTC), usegmt=True), 0),
        ("Tue, 01 Jan 9999 00:00:00 GMT", 86_400),
        ("Tue, 41 Jan 2030 00:00:00 GMT", None),
    ],
)
def test_retry_after_forms(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, datetime(2030, 1, 1, tzinfo=UTC)) == seconds


def test_retry_after_counts_from_now() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after({"retry-after": soon}) or 0) <= 30
    assert passing(Reply(503, {}, b"", "h"))
    assert not passing(Reply(401, {}, b"", "h"))


# ── manners ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_outage_opens_the_circuit_and_one_trial_closes_it() -> None:
    script = Script(*[Failure("reset the connection")] * 6, OK)

    async def main() -> None:
        resolver, _ = names(["1.1.1.1"])
        async with door(resolver=resolver, transport=script, clock=now) as out:
            for _ in range(5):
                assert "reset" in (await _trouble(out)).note
            told = await _trouble(out)
            assert "circuit open" in told.note
            assert told.why is Doubt.UNREACHABLE
            assert told.retry_after == pytest.approx(timedelta(seconds=5), abs=timedelta(seconds=0.1))
            assert len(script.at) == 5
            await asyncio.sleep(5)
            trial, other = await asyncio.gather(out.send(ask(URL)), out.send(ask(URL)))
            assert isinstance(trial, Trouble)
            assert isinstance(other, Trouble)
            assert "circuit open" in other.note
            assert len(script.at) == 6
            await asyncio.sleep(10)
            assert isinstance(await out.send(ask(URL)), Reply)
            assert isinstance(await out.send(ask(URL)), Reply)

    run(main())


async def _trouble(out: Egress) -> Trouble:
    answer = await out.send(ask(URL))
    assert isinstance(answer, Trouble)
    return answer


def test_a_blip_is_waited_out_and_an_outage_is_not() -> None:
    async def main(script: Script) -> tuple[list[Reply | Trouble], float]:
        resolver, _ = names(["1.1.1.1"])
        async with door(resolver=resolver, transport=script, clock=now, settings={"retries": 2}) as out:
            answers = [await out.send(ask(URL)) for _ in range(40)]
            return answers, now()

    blip, _ = run(main(Script(*[Failure("reset the connection")] * 5, OK)))
    assert [isinstance(a, Reply) for a in blip] == [False, *[True] * 39]
    outage, took = run(main(Script(Failure("reset the connection"))))
    assert all(isinstance(a, Trouble) and a.why is Doubt.UNREACHABLE for a in outage)
    assert took < 60


def test_a_cancelled_trial_leaves_room_for_the_next() -> None:
    script = Script(*[Failure("reset the connection")] * 5, OK)

    async def main() -> None:
        resolver, _ = names(["1.1.1.1"])
        async with door(resolver=resolver, transport=script, clock=now) as out:
            for _ in range(5):
                await _trouble(out)
            await asyncio.sleep(5)
            trial = asyncio.ensure_future(out.send(ask(URL)))
            await asyncio.sleep(0.0005)
            trial.cancel()
            await asyncio.gather(trial, return_exceptions=True)
            assert isinstance(await out.send(ask(URL)), Reply)

    run(main())


def test_a_pause_too_long_to_wait_is_told() -> None:
    async def main() -> None:
        resolver, _ = names(["1.1.1.1"])
        script = Script(busy(429, retry_after="3600"))
        async with door(resolver=resolver, transport=script, clock=now) as out:
            for _ in range(2):
                assert isinstance(await out.send(ask(URL)), Reply)
            answer = await _trouble(out)
            assert answer.why is Doubt.THROTTLED
            assert answer.retry_after is not None
            assert answer.retry_after > timedelta(seconds=20)
            assert len(script.at) == 2

    run(main())


def test_the_rate_of_the_spec_holds() -> None:
    async def main() -> None:
        resolver, _ = names(["1.1.1.1"])
        script = Script(OK)
        limits = {"kind": Limits(rate=2.0, burst=2, concurrency=1)}
        async with door(resolver=resolver, transport=script, clock=now, limits=limits) as out:
            await asyncio.gather(*(out.send(ask(URL)) for _ in range(6)))
        assert [t - script.at[0] for t in script.at] == pytest.approx([0, 0, 0.5, 1.0, 1.5, 2.0], abs=0.01)

    run(main())


# ── log-ins ────────────────────────────────────────────────────────────────────────────────────────────

LOGIN = Call("db", "LOGIN", "postgresql", "{host}", "", "handshake only")


def test_log_ins_are_admitted_pinned_and_paced() -> None:
    async def main() -> None:
        async def resolver(host: str, port: int) -> list[str]:
            if host == "nowhere.example":
                raise socket.gaierror
            return ["10.0.0.1", "8.8.8.8"] if host == "db.example" else ["10.0.0.1"]

        seen: list[Exchange] = []
        limits = {"db": Limits(rate=1.0, burst=1, concurrency=1)}
        out = Egress([LOGIN], environ={}, resolver=resolver, clock=now, limits=limits, observer=seen.append)
        assert await out.admit(LOGIN, "DB.example", 5432) == Admitted("db.example", "8.8.8.8", 5432)
        inside = await out.admit(LOGIN, "inside.example", 5432)
        assert now() == pytest.approx(1.0)
        nowhere = await out.admit(LOGIN, "nowhere.example", 5432)
        unlisted = await out.admit(CALL, "db.example", 5432)
        assert [t.why for t in (inside, nowhere, unlisted) if isinstance(t, Trouble)] == [
            Doubt.REFUSED,
            Doubt.UNREACHABLE,
            Doubt.REFUSED,
        ]
        assert [e.trouble for e in seen] == [None, Doubt.REFUSED, Doubt.UNREACHABLE]
        out._limiter("db").throttled(now(), 5.0)
        assert (await out.admit(LOGIN, "db.example", 5432)) == Admitted("db.example", "8.8.8.8", 5432)
        for _ in range(3):
            out._limiter("db").throttled(now() + 0.1, 3600.0)
        paused = await out.admit(LOGIN, "db.example", 5432)
        assert isinstance(paused, Trouble)
        assert paused.why is Doubt.THROTTLED

    run(main())


# ── what others see ────────────────────────────────────────────────────────────────────────────────────


SHORT_LIFE = """
import asyncio
from verifier.egress.transport import Pin, Reqwest

async def main():
    wire = Reqwest(user_agent="x", deadline=1.0).wire(Pin("127.0.0.1", 1, "127.0.0.1"))
    print((await wire.exchange("GET", "http://127.0.0.1:1/", {}, None, None)).note)
    await wire.close()

asyncio.run(main())
"""


def test_a_process_that_used_the_door_ends_well() -> None:
    """Without the rest before exit, some of these abort: the client's thread outlives `close` by a moment."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SHORT_LIFE]
    running = [subprocess.Popen(command, stdout=-1, stderr=-1, cwd=root) for _ in range(6)]  # our own
    ends = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert ends == [((b"refused the connection\n", b""), 0)] * 6


async def test_observer_hears_every_attempt() -> None:
    seen: list[Exchange] = []
    async with canned(http(503), http(200)) as (port, _):
        base = f"http://127.0.0.1:{port}"
        async with door(base, observer=seen.append, settings={"retries": 1}, sleep=_no_sleep) as out:
            await out.send(ask(f"{base}/user?key={MARKED}"))
    assert [(e.call, e.host, e.port, e.route, e.status, e.trouble, e.attempt) for e in seen] == [
        (CALL, "127.0.0.1", port, "base", 503, None, 1),
        (CALL, "127.0.0.1", port, "base", 200, None, 2),
    ]
    assert all(e.elapsed > 0 for e in seen)
    assert MARKED not in str(seen)


async def test_no_secret_is_logged_or_told_whatever_happens(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    logging.getLogger("pyreqwest").setLevel(0)
    asyncio.get_running_loop().set_debug(enabled=True)
    told = []
    async with NoiseServer() as server:
        for base in (*(server.base(name) for name in BEHAVIOURS), *NOWHERE, server.base("redirect 302")):
            async with door(base, settings={"deadline": 0.1}) as out:
                request = ask(f"{base}/user?key={MARKED}", Authorization=f"Bearer {MARKED}")
                told.append(str(await out.send(request)))
                told.append(repr(request))
    everything = "\n".join([*told, caplog.text, *(str(vars(r)) for r in caplog.records), *capfd.readouterr()])
    assert MARKED not in everything
    assert json.dumps(MARKED[:12])[1:-1] not in everything
