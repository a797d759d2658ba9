"""LDAP, FTP and RabbitMQ log-ins against servers that play their part, in clear and in TLS.

What the real ones say (OpenLDAP 2.5, vsftpd 3.0, RabbitMQ 3.10) was looked at by hand and is what is played here.
"""

from __future__ import annotations

import ssl
import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest
import servers
from impostor import answering, listening
from support import credential, real_door

from verifier.exchange import Admitted
from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.providers import ldap, rabbitmq, sftp_ftp
from verifier.wire import Account

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path
    from types import ModuleType

    from impostor import Talk

    from verifier.model import Verdict

GOOD, BAD = "sesame-of-app", "wrong"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("tls")
    servers.certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


async def ask(module: ModuleType, port: int, password: str, scheme: str = "", username: str = "app") -> Verdict:
    kind = module.KINDS[0]
    parts = {"username": username, "password": password, "host": "127.0.0.1", "port": str(port)}
    if scheme:
        parts["scheme"] = scheme
    async with real_door(kind) as door:
        verdict: Verdict = await module.probe(kind, credential(kind.id, **parts), door)
    return verdict


# ── LDAP ──


def tlv(tag: int, value: bytes) -> bytes:
    return bytes([tag, 0x81, len(value)]) + value if len(value) > 127 else bytes([tag, len(value)]) + value


def answer(number: int, tag: int, code: int, text: str = "") -> bytes:
    body = tlv(10, bytes([code])) + tlv(4, b"") + tlv(4, text.encode())
    return tlv(0x30, tlv(2, bytes([number])) + tlv(tag, body))


async def directory(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tls: ssl.SSLContext | None = None,
    text: str = "",
    got: bytearray | None = None,
) -> None:
    """Play a directory that knows `app` with `GOOD`; `tls` is what StartTLS leads to, None when it is refused."""
    while data := await reader.read(4096):
        if got is not None:
            got.extend(data)
        if b"1.3.6.1.4.1.1466.20037" in data:
            writer.write(answer(1, 0x78, 0 if tls else 2))
            await writer.drain()
            if tls:
                await writer.start_tls(tls)
        elif data[5:6] == b"\x60" or data[6:7] == b"\x60":
            writer.write(answer(2, 0x61, 0 if GOOD.encode() in data else 49, "" if GOOD.encode() in data else text))
            await writer.drain()


async def test_ldap_is_asked_inside_starttls(tls: ssl.SSLContext) -> None:
    async with listening(partial(directory, tls=tls)) as port:
        live = await ask(ldap, port, GOOD, "ldap")
        dead = await ask(ldap, port, BAD)
    assert isinstance(live, Live), live
    assert live.identity is not None
    assert live.identity.principal == "app"
    assert isinstance(dead, Dead), dead
    assert dead.how is How.REJECTED


async def test_ldaps_begins_in_tls(tls: ssl.SSLContext) -> None:
    async with listening(directory, tls) as port:
        assert isinstance(await ask(ldap, port, GOOD, "ldaps"), Live)
        assert isinstance(await ask(ldap, port, BAD, "ldaps"), Dead)


async def test_no_password_goes_to_a_directory_without_tls() -> None:
    got = bytearray()
    async with listening(partial(directory, got=got)) as port:
        verdict = await ask(ldap, port, GOOD, "ldap")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.UNSUPPORTED
    assert b"sesame" not in got


@pytest.mark.parametrize(
    ("data", "expected"),
    [("52e", How.REJECTED), ("533", How.DISABLED), ("775", Doubt.AMBIGUOUS), ("532", Doubt.AMBIGUOUS)],
)
async def test_active_directory_says_more(tls: ssl.SSLContext, data: str, expected: How | Doubt) -> None:
    text = f"80090308: LdapErr: DSID-0C0904, comment: AcceptSecurityContext error, data {data}, v4563" + " " * 80
    async with listening(partial(directory, tls=tls, text=text)) as port:
        verdict = await ask(ldap, port, BAD, "ldap")
    assert (verdict.how if isinstance(verdict, Dead) else getattr(verdict, "why", None)) is expected, verdict


@pytest.mark.parametrize(
    "sends",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x30\x85\x01\x01\x01\x01\x01",
        b"\x30\x03\x02\x01\x01",
        b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
        b"\x30\x84\x7f\xff\xff\xff",
        b"\x30\x80",
    ],
)
async def test_what_is_no_answer_of_ldap_is_no_verdict(sends: bytes) -> None:
    async with listening(answering(sends)) as port:
        verdict = await ask(ldap, port, GOOD, "ldap")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS, verdict


@pytest.mark.parametrize("module", [ldap, sftp_ftp])
async def test_on_the_open_internet_no_password_goes_to_whoever_has_anothers_certificate(
    tls: ssl.SSLContext, module: ModuleType
) -> None:
    got = bytearray()
    play = directory if module is ldap else files
    account = Account("app", GOOD, "", "", {})
    async with listening(partial(play, tls=tls, got=got)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await module.handshake(Admitted("localhost", "127.0.0.1", port), account)
    assert b"sesame" not in got


async def test_an_anonymous_bind_judges_no_password() -> None:
    verdict = await ask(ldap, 1, GOOD, username=" ")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE


# ── FTP ──


async def files(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tls: ssl.SSLContext | None = None,
    refusal: str = "530 Login incorrect.",
    after_user: bytes = b"331 Password please",
    got: bytearray | None = None,
) -> None:
    """Play a file server that knows `app` with `GOOD`."""
    writer.write(b"220-Welcome\r\n to this server\r\n220 ready\r\n")
    while line := await reader.readline():
        if got is not None:
            got.extend(line)
        if line == b"AUTH TLS\r\n":
            writer.write(b"234 Proceed\r\n" if tls else b"502 Not known\r\n")
            await writer.drain()
            if tls:
                await writer.start_tls(tls)
        elif line.startswith(b"USER"):
            writer.write(after_user + b"\r\n")
        elif line.startswith(b"PASS"):
            writer.write(b"230 Login successful.\r\n" if GOOD.encode() in line else f"{refusal}\r\n".encode())
        await writer.drain()


async def test_ftp_is_asked_inside_auth_tls(tls: ssl.SSLContext) -> None:
    async with listening(partial(files, tls=tls)) as port:
        assert isinstance(await ask(sftp_ftp, port, GOOD, "ftp"), Live)
        dead = await ask(sftp_ftp, port, BAD)
    assert isinstance(dead, Dead), dead
    assert dead.evidence.request == f"LOGIN ftp://127.0.0.1:{port}/"


async def test_no_password_goes_to_a_file_server_without_tls() -> None:
    got = bytearray()
    async with listening(partial(files, got=got)) as port:
        verdict = await ask(sftp_ftp, port, GOOD, "ftp")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNSUPPORTED
    assert b"sesame" not in got


async def test_ftp_that_lets_everybody_in_judges_nothing(tls: ssl.SSLContext) -> None:
    async with listening(partial(files, tls=tls, after_user=b"230 Come in")) as port:
        verdict = await ask(sftp_ftp, port, GOOD)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize("refusal", ["530 Too many connections from your address.", "421 Go away", "532 Need account"])
async def test_other_refusals_of_ftp_bury_nobody(tls: ssl.SSLContext, refusal: str) -> None:
    async with listening(partial(files, tls=tls, refusal=refusal)) as port:
        verdict = await ask(sftp_ftp, port, BAD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.BLOCKED


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (answering(greet=b"421 busy\r\n"), Doubt.BLOCKED),
        (answering(greet=b"SSH-2.0-OpenSSH_9.2\r\n"), Doubt.AMBIGUOUS),
        (answering(greet=b"554 no\r\n"), Doubt.AMBIGUOUS),
        (answering(greet=b"220-x\r\n" * 200), Doubt.AMBIGUOUS),
    ],
)
async def test_what_is_no_file_server_is_no_verdict(talk: Talk, why: Doubt) -> None:
    async with listening(talk) as port:
        verdict = await ask(sftp_ftp, port, GOOD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"username": "Anonymous"}, Doubt.INCOMPLETE),
    ],
)
async def test_ftp_leaves_alone_what_it_cannot_judge(parts: dict[str, str], why: Doubt) -> None:
    verdict = await ask(sftp_ftp, 1, GOOD, **parts)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why


async def test_a_line_break_in_a_password_is_never_sent() -> None:
    got = bytearray()
    async with listening(partial(files, got=got)) as port:
        verdict = await ask(sftp_ftp, port, "x\r\nDELE all")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    assert got == b""


# ── RabbitMQ ──


def frame(klass: int, method: int, arguments: bytes = b"") -> bytes:
    payload = struct.pack(">HH", klass, method) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


def start(mechanisms: bytes = b"AMQPLAIN PLAIN") -> bytes:
    locales = struct.pack(">I", 5) + b"en_US"
    return frame(10, 10, b"\x00\x09" + struct.pack(">I", 0) + struct.pack(">I", len(mechanisms)) + mechanisms + locales)


def close(code: int, text: str) -> bytes:
    return frame(10, 50, struct.pack(">HB", code, len(text)) + text.encode() + b"\x00\x00\x00\x00")


REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."


async def broker(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: bytes = close(403, REFUSED)
) -> None:
    """Play a broker that knows `app` with `GOOD`."""
    assert await reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"
    writer.write(start())
    data = await reader.read(4096)
    assert b"authentication_failure_close" in data
    writer.write(
        frame(10, 30, b"\x07\xff\x00\x02\x00\x00\x00\x3c") if b"\x00app\x00" + GOOD.encode() in data else refusal
    )
    await writer.drain()


async def test_rabbitmq_in_clear_and_in_tls(tls: ssl.SSLContext) -> None:
    for scheme, context in (("amqp", None), ("amqps", tls)):
        async with listening(broker, context) as port:
            live = await ask(rabbitmq, port, GOOD, scheme)
            dead = await ask(rabbitmq, port, BAD, scheme)
        assert isinstance(live, Live), live
        assert isinstance(dead, Dead), dead
        assert dead.how is How.REJECTED


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (close(403, f"{REFUSED[:70]}: user 'guest' can only connect via localhost"), Doubt.BLOCKED),
        (close(320, "CONNECTION_FORCED"), Doubt.AMBIGUOUS),
        (frame(10, 20, b"\x00\x00\x00\x00"), Doubt.AMBIGUOUS),
        (frame(20, 10), Doubt.AMBIGUOUS),
        (b"", Doubt.UNREACHABLE),
    ],
)
async def test_other_answers_of_rabbitmq_bury_nobody(refusal: bytes, why: Doubt) -> None:
    async with listening(partial(broker, refusal=refusal)) as port:
        verdict = await ask(rabbitmq, port, BAD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


@pytest.mark.parametrize(
    ("sends", "why"),
    [
        (b"AMQP\x00\x01\x00\x00", Doubt.AMBIGUOUS),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Doubt.AMBIGUOUS),
        (start(b"EXTERNAL"), Doubt.UNSUPPORTED),
        (frame(10, 10, b"\x00"), Doubt.UNSUPPORTED),
        (frame(10, 30), Doubt.AMBIGUOUS),
        (start()[:-1] + b"\x00", Doubt.AMBIGUOUS),
    ],
)
async def test_what_is_no_broker_gets_no_password(sends: bytes, why: Doubt) -> None:
    got = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(sends)
        await writer.drain()
        got.extend(await reader.read(4096))

    async with listening(talk) as port:
        verdict = await ask(rabbitmq, port, GOOD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict
    assert got == b""


async def test_a_broker_log_in_without_a_user_is_not_asked() -> None:
    verdict = await ask(rabbitmq, 1, GOOD, username="")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
