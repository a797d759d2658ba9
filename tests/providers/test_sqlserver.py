"""SQL Server log-ins against a small world that models the server, and against what is no such server."""

from __future__ import annotations

import contextlib
import ssl
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import servers
import sql_world
from hypothesis import given
from hypothesis import strategies as st
from impostor import answering, listening
from sql_world import Login, SqlServer, packet, prelogin
from support import credential, real_door, short

from verifier import tds, wire
from verifier.exchange import Admitted
from verifier.model import Doubt, Live, Undecided
from verifier.providers import sqlserver as provider
from verifier.wire import Account, WireError

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.model import Verdict

KIND = provider.KINDS[0]
GOOD = "sésame of app;{€}"
ALL = frozenset({"master", "shop"})
LOGINS = {
    "app": Login(GOOD, databases=ALL),
    "poor": Login(GOOD),
    "off": Login(GOOD, "disabled"),
    "old": Login(GOOD, "expired"),
    "new": Login(GOOD, "must change"),
    "shut": Login(GOOD, "locked"),
    "watched": Login(GOOD, "trigger"),
    "denied": Login(GOOD, "no right to connect", ALL),
    "entra": Login(GOOD, "entra"),
    "app@acme": Login(GOOD, databases=ALL),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tls")
    servers.certificate(found)
    return found


@pytest.fixture
def world(folder: Path) -> SqlServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.set_alpn_protocols(["tds/8.0"])
    return SqlServer(context, LOGINS, {"own": {"inmate": GOOD}})


async def ask(
    folder: Path | None, port: int, user: str = "app", password: str = GOOD, database: str = "shop", options: str = ""
) -> Verdict:
    parts = {"username": user, "password": password, "host": "localhost", "port": str(port)}
    parts |= {"database": database} if database else {}
    parts |= {"options": options} if options else {}
    bundle = None if folder is None else str(folder / "server.crt")
    async with real_door(KIND, ca_bundle=bundle) as door:
        return await provider.probe(KIND, credential("sqlserver", **parts), door)


async def test_the_right_password_is_live_and_no_query_follows(world: SqlServer, folder: Path) -> None:
    async with world.listening() as port:
        verdict = await ask(folder, port)
        await ask(folder, port)
    assert isinstance(verdict, Live), verdict
    assert not verdict.restricted
    assert verdict.identity is not None
    assert verdict.identity.principal == "app"
    assert verdict.evidence.request == f"LOGIN mssql://localhost:{port}/shop"
    assert "16.0.4135" in verdict.evidence.excerpt
    assert GOOD not in repr(verdict)
    assert world.heard == [("app", "shop", "Lapse")] * 2
    assert world.after == b""


@pytest.mark.parametrize(
    ("user", "password", "database", "expected"),
    [
        ("app", GOOD, "", "live"),
        ("app", "wrong", "shop", "dead rejected"),
        ("nobody", GOOD, "shop", "dead rejected"),
        ("app", "wrong", "", "incomplete"),
        ("nobody", GOOD, "", "incomplete"),
        ("inmate", GOOD, "own", "live"),
        ("inmate", "wrong", "own", "dead rejected"),
        ("inmate", GOOD, "", "incomplete"),
        ("app", GOOD, "lost", "restricted"),
        ("poor", GOOD, "shop", "restricted"),
        ("off", GOOD, "shop", "dead disabled"),
        ("off", "wrong", "shop", "dead rejected"),
        ("old", GOOD, "shop", "restricted"),
        ("new", GOOD, "shop", "restricted"),
        ("shut", GOOD, "shop", "blocked"),
        ("watched", GOOD, "shop", "restricted"),
        ("entra", GOOD, "shop", "ambiguous"),
        ("app@acme", GOOD, "shop", "live"),
    ],
)
async def test_what_the_server_thinks(
    world: SqlServer, folder: Path, user: str, password: str, database: str, expected: str
) -> None:
    async with world.listening() as port:
        assert short(await ask(folder, port, user, password, database)) == expected
    async with replace(world, honest=True).listening() as port:
        assert short(await ask(folder, port, user, password, database)) == expected


async def test_a_state_that_is_not_about_the_password_buries_nobody(world: SqlServer, folder: Path) -> None:
    async with replace(world, honest=True).listening() as port:
        assert short(await ask(folder, port, "denied")) == "restricted"
    async with replace(world, language="de").listening() as port:
        assert short(await ask(folder, port, password="wrong")) == "ambiguous"
    async with replace(world, firewall=True).listening() as port:
        assert short(await ask(folder, port)) == "blocked"


async def test_azures_gateway_looks_for_the_database_first(
    world: SqlServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "_GATEWAYS", ("localhost",))
    async with replace(world, gateway=True).listening() as port:
        assert short(await ask(folder, port, "app", "wrong", "lost")) == "ambiguous"
        assert short(await ask(folder, port, "app", "wrong")) == "ambiguous", "perhaps a log-in of another database"
        assert short(await ask(folder, port, "poor")) == "restricted", "916 is said of who is logged in"


async def test_an_acknowledgement_that_sends_us_on_judges_nothing(world: SqlServer, folder: Path) -> None:
    async with replace(world, route=("localhost", 1)).listening() as port:
        assert short(await ask(folder, port, "app", "wrong")) == "unsupported"


async def test_azures_gateway_is_followed_once_inside_its_own_domain(
    world: SqlServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "_GATEWAYS", ("localhost",))
    async with world.listening() as node, replace(world, route=("LOCALHOST", node)).listening() as port:
        live = await ask(folder, port)
        assert short(live) == "live"
        assert live.evidence is not None
        assert f":{node}/" in live.evidence.request
        assert short(await ask(folder, port, "app", "wrong")) == "ambiguous"
    async with replace(world, route=("elsewhere.test", 1)).listening() as port:
        assert short(await ask(folder, port)) == "unsupported"
    ring = replace(world)
    async with ring.listening() as port:
        ring.route = ("localhost", port)
        assert short(await ask(folder, port)) == "unsupported"


@pytest.mark.parametrize("encryption", [sql_world.OFF, sql_world.NOT_SUPPORTED])
async def test_no_password_goes_to_a_server_without_tls(world: SqlServer, folder: Path, encryption: int) -> None:
    server = replace(world, encryption=encryption)
    async with server.listening() as port:
        assert short(await ask(folder, port)) == "refused"
    assert server.heard == []
    assert server.plain == b""


async def test_on_the_open_internet_no_password_goes_to_whoever_has_anothers_certificate(
    world: SqlServer, folder: Path
) -> None:
    roots = ((folder / "server.crt").read_bytes(),)
    account = Account("app", GOOD, "shop", "", {})
    async with world.listening() as port:
        for strange in (Admitted("localhost", "127.0.0.1", port), Admitted("other.test", "127.0.0.1", port, roots)):
            with pytest.raises(ssl.SSLCertVerificationError):
                await provider.handshake(strange, account)
        assert world.heard == []
        told, _ = await provider.handshake(Admitted("localhost", "127.0.0.1", port, roots), account)
        assert told["authenticated"]
        trusting = Account("app", GOOD, "shop", "", {"trustservercertificate": "true"})
        told, _ = await provider.handshake(Admitted("localhost", "127.0.0.1", port), trusting)
        assert told["authenticated"]
        assert short(await ask(None, port)) == "live", "in a network that the config names"


async def test_strict_encryption_begins_in_tls(world: SqlServer, folder: Path) -> None:
    async with replace(world, strict=True).listening() as port:
        assert short(await ask(folder, port, options="encrypt=strict")) == "live"
        assert short(await ask(folder, port, "app", "wrong", options="encrypt=strict")) == "dead rejected"
        # here no option makes the client trust anybody
        assert short(await ask(None, port, options="encrypt=strict&trustservercertificate=true")) == "unreachable"


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"username": " "}, Doubt.INCOMPLETE),
        ({"username": "ACME\\app"}, Doubt.UNSUPPORTED),
        ({"host": "db.acme.test\\INST"}, Doubt.INCOMPLETE),
    ],
)
async def test_what_cannot_be_judged_is_not_asked(parts: dict[str, str], why: Doubt) -> None:
    whole = {"username": "app", "password": GOOD, "host": "localhost", "port": "1"} | parts
    async with real_door(KIND) as door:
        verdict = await provider.probe(KIND, credential("sqlserver", **whole), door)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why
    assert "unreachable" not in verdict.note


@pytest.mark.parametrize(
    ("user", "options", "why"),
    [
        ("app", "authentication=activedirectorypassword", "unsupported"),
        ("app", "integratedsecurity=true", "unsupported"),
        ("u" * 129, "", "incomplete"),
    ],
)
async def test_what_the_server_would_refuse_without_judging_is_not_sent(
    world: SqlServer, folder: Path, user: str, options: str, why: str
) -> None:
    async with world.listening() as port:
        assert short(await ask(folder, port, user, options=options)) == why
    assert world.heard == []


@pytest.mark.parametrize(
    ("greet", "sends", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", (), "ambiguous"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", (), "ambiguous"),
        (b"", (packet(4, b""),), "ambiguous"),
        (b"", (packet(4, b"\xff"),), "ambiguous"),
        (b"", (packet(4, b"\x01\x00\x63\x00\x01\xff"),), "ambiguous"),
        (b"", (packet(4, prelogin(1))[:4],), "unreachable"),
        (b"", (struct.pack(">BBHHBB", 4, 0, 4, 0, 0, 0),), "ambiguous"),
        (b"", ((struct.pack(">BBHHBB", 4, 0, 32_768, 0, 0, 0) + bytes(32_760)) * 3,), "ambiguous"),
        (b"", (packet(4, prelogin(1)), packet(0x12, b"no TLS here")), "unreachable"),
        (b"", (packet(4, prelogin(1)), packet(0x12, b"")), "unreachable"),
        (b"", (packet(4, prelogin(1)), packet(0x12, b"") * 40), "ambiguous"),
    ],
)
async def test_what_is_no_sql_server_gets_no_password(
    folder: Path, greet: bytes, sends: tuple[bytes, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "DEADLINE", 0.3)
    async with listening(answering(*sends, greet=greet)) as port:
        assert short(await ask(folder, port)) == expected


@pytest.mark.parametrize(
    "tokens",
    [
        sql_world.acknowledged("Adaptive Server") + sql_world.DONE,
        sql_world.DONE,
        b"",
        b"\x42",
        b"\xaa\xff\xff",
        b"\xaa\x08\x00" + bytes(6) + b"\x10\x00",
        b"\xad\x02\x00ab",
        b"\xae\x01\xff",
        sql_world.routing("x", 1).replace(b"x", b""),
        sql_world.error(3989, "New request is not allowed to start."),
        sql_world.error(18456, "Login failed for user 'other'."),
        sql_world.error(18456, "Login failed for user 'app'.", 58),
        b"\xe4\x01\x00\x00\x00x\xed\x00\x00" + sql_world.info(5701, "x"),
    ],
)
async def test_other_answers_bury_nobody_and_revive_nobody(
    world: SqlServer, folder: Path, tokens: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlServer, "judge", lambda *_: tokens)
    async with world.listening() as port:
        assert short(await ask(folder, port)) == "ambiguous"


async def test_a_server_that_hangs_up_in_the_middle_is_unreachable(
    world: SqlServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "DEADLINE", 0.3)
    monkeypatch.setattr(sql_world.Inside, "write", lambda self, _data: self.writer.write(b"\x17\x03"))
    async with world.listening() as port:
        assert short(await ask(folder, port)) == "unreachable"

    def goodbye(self: sql_world.Inside, data: bytes) -> None:
        self.tls.write(data[:4])
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            self.writer.write(self.out.read())

    monkeypatch.setattr(sql_world.Inside, "write", goodbye)
    async with world.listening() as port:
        assert short(await ask(folder, port)) == "unreachable"


@given(st.binary(max_size=300))
def test_an_answer_of_any_bytes_is_read_or_is_none(body: bytes) -> None:
    for read in (tds.read, tds.encryption):
        with contextlib.suppress(WireError):
            read(body)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100), st.text("abc\u20ac", max_size=100))
def test_the_server_reads_what_we_wrote(password: str, user: str) -> None:
    body = tds.login7(Account(user, password, "shop", "", {}), "h" * 200)
    assert sql_world.login7(body) == (user, password, "Lapse", "h" * 128, "shop")
