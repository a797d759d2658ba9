"""MongoDB log-ins against a server that plays hello and SCRAM as the specification has them.

The played server's SCRAM is its own (RFC 5802 from the server's side); the client's is also held against the test
vectors of RFC 5802 and RFC 7677.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import ssl
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import bson
import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest
import servers
from impostor import answering, listening
from servers import free_port
from support import ToldDoor, credential, in_turn, real_door

from verifier.egress.services import look_up
from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.providers import mongodb as provider
from verifier.scram import Scram, ScramError, prepared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from verifier.model import Verdict

KIND = provider.KINDS[0]
PASSWORD = "sésame of the test"


@dataclass
class Mongo:
    """Plays mongod. `users` maps `db.user` to password and mechanisms; `commands` is what it was asked."""

    users: dict[str, tuple[str, list[str]]]
    commands: list[str] = field(default_factory=list)
    refusal: tuple[int, str, str] = (18, "AuthenticationFailed", "Authentication failed.")
    lie: bool = False
    extra_round: bool = False

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state: dict[str, Any] = {}
        while True:
            head = await reader.readexactly(16)
            length, number = int.from_bytes(head[:4], "little"), head[4:8]
            body = await reader.readexactly(length - 16)
            command = bson.decode(body[5:])
            self.commands.append(next(iter(command)))
            answer = bytes(5) + bson.encode(self.reply(command, state))
            writer.write((len(answer) + 16).to_bytes(4, "little") + bytes(4) + number + b"\xdd\x07\x00\x00" + answer)
            await writer.drain()

    def reply(self, command: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        if "hello" in command:
            known = self.users.get(command["saslSupportedMechs"])
            return {"ok": 1.0, "maxWireVersion": 21} | ({"saslSupportedMechs": known[1]} if known else {})
        if "saslStart" in command:
            return self.start(command, state)
        return self.go_on(command, state)

    def start(self, command: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        bare = command["payload"].decode().removeprefix("n,,")
        name = bare.split(",")[0].removeprefix("n=").replace("=2C", ",").replace("=3D", "=")
        state["user"] = self.users.get(f"{command['$db']}.{name}")
        algorithm = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}[command["mechanism"]]
        if state["user"] is None or command["mechanism"] not in state["user"][1]:
            return self.refuse()
        password = state["user"][0]
        if algorithm == "sha1":
            password = hashlib.md5(f"{name}:mongo:{password}".encode()).hexdigest()  # noqa: S324  # as MongoDB has it
        salt = os.urandom(16)
        state["salted"] = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, 4096)
        state["algorithm"] = algorithm
        first = f"r={bare.split('r=')[1]}server,s={b64encode(salt).decode()},i=4096"
        state["signed"] = f"{bare},{first}"
        return {"ok": 1.0, "conversationId": 7, "done": False, "payload": first.encode()}

    def go_on(self, command: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        if not command["payload"]:
            return {"ok": 1.0, "conversationId": 7, "done": True, "payload": b""}
        plain, _, proof = command["payload"].decode().partition(",p=")
        signed = f"{state['signed']},{plain}".encode()
        algorithm = state["algorithm"]
        key = hmac.digest(state["salted"], b"Client Key", algorithm)
        signature = hmac.digest(hashlib.new(algorithm, key).digest(), signed, algorithm)
        if bytes(a ^ b for a, b in zip(b64decode(proof), signature, strict=True)) != key:
            return self.refuse()
        server = hmac.digest(hmac.digest(state["salted"], b"Server Key", algorithm), signed, algorithm)
        if self.lie:
            server = bytes(len(server))
        payload = b"v=" + b64encode(server)
        return {"ok": 1.0, "conversationId": 7, "done": not self.extra_round, "payload": payload}

    def refuse(self) -> dict[str, Any]:
        code, name, message = self.refusal
        return {"ok": 0.0, "code": code, "codeName": name, "errmsg": message}


def mongo(
    user: str = "admin.app", mechanisms: tuple[str, ...] = ("SCRAM-SHA-1", "SCRAM-SHA-256"), **more: Any
) -> Mongo:
    return Mongo({user: (PASSWORD, list(mechanisms))}, **more)


def tls_context(folder: Path) -> ssl.SSLContext:
    servers.certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


async def ask(at: int, password: str = PASSWORD, **more: str) -> Verdict:
    parts = {"username": "app", "password": password, "host": "127.0.0.1", "port": str(at)}
    async with real_door(KIND) as door:
        return await provider.probe(KIND, credential("mongodb_uri", **parts | more), door)


@pytest.mark.parametrize("mechanisms", [("SCRAM-SHA-1",), ("SCRAM-SHA-256",), ("SCRAM-SHA-1", "SCRAM-SHA-256")])
@pytest.mark.parametrize("extra_round", [False, True])
async def test_the_right_password_is_live(mechanisms: tuple[str, ...], extra_round: bool) -> None:
    server = mongo(mechanisms=mechanisms, extra_round=extra_round)
    async with listening(server.talk) as port:
        verdict = await ask(port)
    assert isinstance(verdict, Live), verdict
    assert verdict.evidence.request == f"LOGIN mongodb://127.0.0.1:{port}/"
    assert set(server.commands) == {"hello", "saslStart", "saslContinue"}


@pytest.mark.parametrize(("user", "password"), [("admin.app", "wrong"), ("admin.other", PASSWORD)])
async def test_a_refused_password_is_dead(user: str, password: str) -> None:
    async with listening(mongo(user).talk) as port:
        verdict = await ask(port, password)
    assert isinstance(verdict, Dead), verdict
    assert verdict.how is How.REJECTED


@pytest.mark.parametrize(
    ("user", "parts", "live"),
    [
        ("shop.app", {"database": "shop"}, True),
        ("admin.app", {"database": "shop"}, True),
        ("users.app", {"database": "shop", "options": "authSource=users&w=majority"}, True),
        ("admin.app", {"database": "shop", "options": "authSource=users"}, False),
    ],
)
async def test_the_user_is_looked_for_where_it_may_be(user: str, parts: dict[str, str], live: bool) -> None:
    async with listening(mongo(user).talk) as port:
        assert isinstance(await ask(port, **parts), Live if live else Dead)


async def test_atlas_has_words_of_its_own() -> None:
    async with listening(mongo(refusal=(8000, "AtlasError", "bad auth : authentication failed")).talk) as port:
        assert isinstance(await ask(port, "wrong"), Dead)
    async with listening(mongo(refusal=(8000, "AtlasError", "no SNI name sent")).talk) as port:
        assert isinstance(await ask(port, "wrong"), Undecided)


async def test_a_server_that_lies_about_the_password_is_not_believed() -> None:
    async with listening(mongo(lie=True).talk) as port:
        verdict = await ask(port)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize("mechanism", ["MONGODB-X509", "PLAIN"])
async def test_other_ways_in_are_unsupported(mechanism: str) -> None:
    async with listening(mongo().talk) as port:
        verdict = await ask(port, options=f"authMechanism={mechanism}")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNSUPPORTED


@pytest.mark.parametrize("options", ["", "tls=true"])
async def test_tls_is_found_and_used(options: str, tmp_path: Path) -> None:
    async with listening(mongo().talk, tls_context(tmp_path)) as port:
        assert isinstance(await ask(port, options=options), Live)


# ── mongodb+srv ────────────────────────────────────────────────────────────────────────────────────────


class Names(asyncio.DatagramProtocol):
    """A name server that knows service records only."""

    def __init__(self, records: dict[str, list[str]]) -> None:
        self.records = records

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = dns.message.from_wire(data)
        name = question.question[0].name
        answer = dns.message.make_response(question)
        found = self.records.get(name.to_text(omit_final_dot=True))
        if found:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *found))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def naming(records: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Names(records), local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    monkeypatch.setattr("verifier.egress.door.look_up", partial(look_up, resolver=resolver))
    yield
    transport.close()


async def loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


async def ask_srv(host: str) -> Verdict:
    found = credential("mongodb_uri", username="app", password=PASSWORD, host=host, scheme="mongodb+srv")
    async with real_door(KIND, resolver=loopback) as door:
        return await provider.probe(KIND, found, door)


async def test_service_records_lead_to_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(mongo().talk, tls_context(tmp_path)) as port:
        found = [f"1 0 {port} B.x.example.", f"0 9 {free_port()} a.x.example.", "0 0 1 a.elsewhere.example."]
        async with naming({"_mongodb._tcp.cluster.x.example": found}, monkeypatch):
            verdict = await ask_srv("Cluster.x.example.")
    assert isinstance(verdict, Live), verdict
    assert verdict.evidence.request == f"LOGIN mongodb://b.x.example:{port}/"


@pytest.mark.parametrize(
    ("records", "host", "why"),
    [
        ({}, "cluster.x.example", Doubt.UNREACHABLE),
        ({"_mongodb._tcp.cluster.x.example": ["0 0 1 metadata.example."]}, "cluster.x.example", Doubt.AMBIGUOUS),
        ({"_mongodb._tcp.cluster": ["0 0 1 a.cluster."]}, "cluster", Doubt.AMBIGUOUS),
        ({}, "no such host", Doubt.REFUSED),
    ],
)
async def test_service_records_that_lead_nowhere(
    records: dict[str, list[str]], host: str, why: Doubt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with naming(records, monkeypatch):
        verdict = await ask_srv(host)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


async def test_a_door_without_a_directory_cannot_tell() -> None:
    found = credential("mongodb_uri", username="app", password=PASSWORD, host="c.x.net", scheme="mongodb+srv")
    verdict = await provider.probe(KIND, found, ToldDoor(in_turn()))
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNSUPPORTED


async def test_the_config_can_name_another_server() -> None:
    async with listening(mongo().talk) as port:
        base = f"mongodb://127.0.0.1:{port}"
        async with real_door(KIND, base_url=base) as door:
            found = credential("mongodb_uri", username="app", password=PASSWORD, host="c.x.net")
            assert isinstance(await provider.probe(KIND, found, door, base_url=base), Live)


async def test_a_server_that_is_down_is_unreachable() -> None:
    verdict = await ask(free_port())
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNREACHABLE


def message(document: dict[str, Any] | bytes, to: int = 1, code: int = 2013) -> bytes:
    body = bytes(5) + bson.encode(document) if isinstance(document, dict) else document
    ints = (len(body) + 16, 9, to, code)
    return b"".join(n.to_bytes(4, "little") for n in ints) + body


@pytest.mark.parametrize(
    ("sends", "why"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), Doubt.AMBIGUOUS),
        ((message({"ok": 1}, code=1),), Doubt.AMBIGUOUS),
        ((message({"ok": 1}, to=5),), Doubt.AMBIGUOUS),
        ((message(b"\0\0\0\0\x01rest"),), Doubt.AMBIGUOUS),
        ((message(b"\0\0\0\0\0no bson"),), Doubt.AMBIGUOUS),
        ((message({"ok": 0, "code": 59, "codeName": "CommandNotFound"}),), Doubt.AMBIGUOUS),
        ((message({"ok": 1}), message({"ok": 1, "done": True, "payload": b"v=x"}, 2)), Doubt.AMBIGUOUS),
        ((message({"ok": 1}), message({"ok": 1, "done": False, "payload": "text"}, 2)), Doubt.AMBIGUOUS),
        ((message({"ok": 1}), message({"ok": 1, "done": False, "payload": b"r=x"}, 2)), Doubt.AMBIGUOUS),
        (
            (message({"ok": 1}), message({"ok": 0, "code": 334, "codeName": "MechanismUnavailable"}, 2)),
            Doubt.UNSUPPORTED,
        ),
    ],
)
async def test_what_a_played_server_says(sends: tuple[bytes, ...], why: Doubt) -> None:
    async with listening(answering(*sends)) as port:
        verdict = await ask(port)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


# ── SCRAM itself ───────────────────────────────────────────────────────────────────────────────────────


def test_the_vectors_of_rfc_5802_and_rfc_7677() -> None:
    scram = Scram("sha1", "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL")
    assert scram.first() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    final = scram.final(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    assert final.endswith(b",p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")
    scram.verify(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")
    scram = Scram("sha256", "user", "pencil", "rOprNGfwEbeRWgbNEkqO")
    final = scram.final(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@pytest.mark.parametrize(
    "challenge",
    [
        b"\xff",
        b"",
        b"r=nonce,s=AAAA,i=4096",
        b"r=other,s=AAAA,i=4096",
        b"r=nonce1,s=AAAA,i=0",
        b"r=nonce1,s=AAAA,i=99999999",
        b"r=nonce1,s=AAAA,i=x",
        b"r=nonce1,s=???,i=4096",
    ],
)
def test_a_bad_challenge_is_refused(challenge: bytes) -> None:
    with pytest.raises(ScramError):
        Scram("sha256", "", "pencil", "nonce").final(challenge)


def test_a_proof_before_the_challenge_is_refused() -> None:
    with pytest.raises(ScramError):
        Scram("sha256", "", "pencil").verify(b"v=")


@pytest.mark.parametrize(
    ("given", "expected"), [("abc", "abc"), ("\u2168", "IX"), ("a\u00ad", "a"), ("\u0007é", "\u0007é")]
)
def test_passwords_are_prepared(given: str, expected: str) -> None:
    assert prepared(given) == expected
