"""SMTP and IMAP log-ins against servers that play their part."""

from __future__ import annotations

import ssl
import sys
from base64 import b64decode
from functools import partial
from typing import TYPE_CHECKING

import pytest
import servers
from impostor import answering, listening
from support import credential, real_door

from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.providers import mail

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from impostor import Talk

    from verifier.model import Verdict

GOOD, BAD = "sesame-of-app", "wrong"
BUNDLE = ""
KINDS = {k.id: k for k in mail.KINDS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tls")
    servers.certificate(found)
    return found


@pytest.fixture(autouse=True)
def _trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "BUNDLE", str(folder / "server.crt"))


@pytest.fixture(scope="module")
def tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


async def ask(
    kind: str, port: int, password: str, scheme: str = "", username: str = "app", host: str = "localhost"
) -> Verdict:
    parts = {"username": username, "password": password, "host": host, "port": str(port)}
    if scheme:
        parts["scheme"] = scheme
    async with real_door(KINDS[kind], ca_bundle=BUNDLE or None) as door:
        return await mail.probe(KINDS[kind], credential(kind, **parts), door)


async def post(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    tls: ssl.SSLContext | None = None,
    ways: str = "PLAIN LOGIN",
    refusal: str = "535 5.7.8 Error: authentication failed",
    begin: bytes = b"334 ",
    got: bytearray | None = None,
) -> None:
    """Play a mail server that knows `app` with `GOOD`; in TLS from the start where the socket is."""
    secure = writer.get_extra_info("ssl_object") is not None
    writer.write(b"220 mail.acme.test ESMTP\r\n")
    asked: list[bytes] = []
    while line := await reader.readline():
        if got is not None:
            got.extend(line)
        if line.startswith(b"EHLO"):
            offers = f"AUTH {ways}" if secure else ("STARTTLS" if tls else "PIPELINING")
            writer.write(f"250-mail.acme.test\r\n250-SIZE 1\r\n250 {offers}\r\n".encode())
        elif line == b"STARTTLS\r\n" and tls:
            writer.write(b"220 Go\r\n")
            await writer.drain()
            await writer.start_tls(tls)
            secure = True
        elif line.startswith(b"AUTH"):
            asked = [line]
            writer.write(begin + b"\r\n")
        elif line == b"QUIT\r\n":
            return
        else:
            asked.append(b64decode(line))
            if asked[0].startswith(b"AUTH LOGIN") and len(asked) == 2:
                writer.write(b"334 UGFzc3dvcmQ6\r\n")
            else:
                good = asked[-1] in {b"\0app\0" + GOOD.encode(), GOOD.encode()}
                writer.write(b"235 2.7.0 Accepted\r\n" if good else refusal.encode() + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("ways", ["PLAIN LOGIN", "LOGIN"])
async def test_smtp_is_asked_inside_starttls_and_sends_no_mail(tls: ssl.SSLContext, ways: str) -> None:
    got = bytearray()
    async with listening(partial(post, tls=tls, ways=ways, got=got)) as port:
        live = await ask("smtp", port, GOOD)
        dead = await ask("smtp", port, BAD, "smtp")
    assert isinstance(live, Live), live
    assert live.identity is not None
    assert live.identity.principal == "app"
    assert isinstance(dead, Dead), dead
    assert dead.how is How.REJECTED
    assert dead.evidence.request == f"LOGIN smtp://localhost:{port}/"
    assert b"MAIL" not in got
    assert b"RCPT" not in got


async def test_smtps_begins_in_tls(tls: ssl.SSLContext) -> None:
    async with listening(post, tls) as port:
        assert isinstance(await ask("smtp", port, GOOD, "smtps"), Live)
        assert isinstance(await ask("smtp", port, BAD, "smtps"), Dead)


async def test_no_password_goes_to_a_mail_server_without_tls() -> None:
    got = bytearray()
    async with listening(partial(post, got=got)) as port:
        verdict = await ask("smtp", port, GOOD)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNSUPPORTED
    assert got.startswith(b"EHLO")
    assert b"AUTH" not in got


@pytest.mark.parametrize(("bundle", "host"), [(False, "localhost"), (True, "127.0.0.1")])
@pytest.mark.parametrize("kind", ["smtp", "imap"])
async def test_no_password_goes_to_whoever_has_anothers_certificate(
    tls: ssl.SSLContext, kind: str, host: str, *, bundle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not bundle:
        monkeypatch.setattr(sys.modules[__name__], "BUNDLE", "")
    got = bytearray()
    play = partial(post, tls=tls, got=got) if kind == "smtp" else partial(box, tls=tls, got=got)
    async with listening(play) as port:
        verdict = await ask(kind, port, GOOD, kind, host=host)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.UNREACHABLE
    assert "certificate" in verdict.note
    assert b"AUTH" not in got
    assert b"LOGIN" not in got


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ("535 Incorrect authentication data", Doubt.AMBIGUOUS),
        ("534-5.7.9 Application-specific password required.\r\n534 5.7.9 see there", Doubt.UNSUPPORTED),
        ("534-5.7.14 <x> Please log in via\r\n534-5.7.14 your web browser and\r\n534 5.7.14 then", Doubt.UNSUPPORTED),
        ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled", Doubt.UNSUPPORTED),
        ("535 5.7.8 Error: authentication failed: too many failures", Doubt.BLOCKED),
        ("535 5.7.8 No", Doubt.AMBIGUOUS),
        ("535 authentication failed", Doubt.AMBIGUOUS),
        ("535 5.7.3 Authentication unsuccessful", Doubt.AMBIGUOUS),
        ("550 authentication failed", Doubt.AMBIGUOUS),
        ("454 4.7.0 Temporary authentication failure", Doubt.BLOCKED),
        ("454 4.7.0 backend", Doubt.UNREACHABLE),
    ],
)
async def test_other_refusals_of_smtp_bury_nobody(tls: ssl.SSLContext, refusal: str, why: Doubt) -> None:
    async with listening(partial(post, tls=tls, refusal=refusal)) as port:
        verdict = await ask("smtp", port, BAD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


async def test_a_refusal_before_the_password_judges_none(tls: ssl.SSLContext) -> None:
    async with listening(partial(post, tls=tls, begin=b"535 5.7.8 authentication failed")) as port:
        verdict = await ask("smtp", port, BAD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


async def test_smtp_without_log_in_by_password_is_left_alone(tls: ssl.SSLContext) -> None:
    async with listening(partial(post, tls=tls, ways="XOAUTH2")) as port:
        verdict = await ask("smtp", port, GOOD)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNSUPPORTED


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (answering(greet=b"554 5.7.1 no\r\n"), Doubt.BLOCKED),
        (answering(greet=b"SSH-2.0-OpenSSH_9.2\r\n"), Doubt.AMBIGUOUS),
        (answering(greet=b"250 x\r\n"), Doubt.AMBIGUOUS),
        (answering(greet=b"220-x\r\n" * 200), Doubt.AMBIGUOUS),
        (answering(b"502 no\r\n", greet=b"220 x\r\n"), Doubt.AMBIGUOUS),
        (answering(b"250-x\r\n250 STARTTLS\r\n", b"454 no\r\n", greet=b"220 x\r\n"), Doubt.UNREACHABLE),
    ],
    ids=range(6),
)
async def test_what_is_no_mail_server_is_no_verdict(talk: Talk, why: Doubt) -> None:
    async with listening(talk) as port:
        verdict = await ask("smtp", port, GOOD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


# ── IMAP ──


async def box(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tls: ssl.SSLContext | None = None,
    refusal: str = "NO [AUTHENTICATIONFAILED] Authentication failed.",
    begin: bytes = b"+ OK",
    got: bytearray | None = None,
) -> None:
    """Play a mailbox that knows `app` with `GOOD`."""
    writer.write(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
    while line := await reader.readline():
        if got is not None:
            got.extend(line)
        if line == b"a1 STARTTLS\r\n":
            writer.write(b"a1 OK begin\r\n" if tls else b"a1 BAD unknown\r\n")
            await writer.drain()
            if tls:
                await writer.start_tls(tls)
        elif line.endswith(b"}\r\n"):
            writer.write(b"* OK wait\r\n" + begin + b"\r\n")
        elif line.startswith(b"a3"):
            return
        else:
            good = line == GOOD.encode() + b"\r\n"
            writer.write(b"* CAPABILITY IMAP4rev1\r\n" + b"a2 " + (b"OK Logged in" if good else refusal.encode()))
            writer.write(b"\r\n")
        await writer.drain()


async def test_imap_is_asked_inside_tls_and_opens_no_mailbox(tls: ssl.SSLContext) -> None:
    got = bytearray()
    for scheme, context in (("imap", None), ("imaps", tls)):
        async with listening(partial(box, tls=tls, got=got), context) as port:
            live = await ask("imap", port, GOOD, scheme)
            dead = await ask("imap", port, BAD, scheme)
        assert isinstance(live, Live), live
        assert isinstance(dead, Dead), dead
    assert b"SELECT" not in got
    assert b"EXAMINE" not in got


async def test_no_password_goes_to_a_mailbox_without_tls() -> None:
    got = bytearray()
    async with listening(partial(box, got=got)) as port:
        verdict = await ask("imap", port, GOOD, "imap")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.UNSUPPORTED
    assert got == b"a1 STARTTLS\r\n"


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ("NO [ALERT] Application-specific password required", Doubt.UNSUPPORTED),
        ("NO [UNAVAILABLE] Internal error", Doubt.UNREACHABLE),
        ("NO [PRIVACYREQUIRED] No", Doubt.UNSUPPORTED),
        ("NO [AUTHENTICATIONFAILED] No", Doubt.AMBIGUOUS),
        ("NO [ALERT] Authentication failed", Doubt.AMBIGUOUS),
        ("NO Authentication failed", Doubt.AMBIGUOUS),
        ("NO LOGIN failed, too many attempts", Doubt.BLOCKED),
        ("BAD Authentication failed", Doubt.AMBIGUOUS),
        ("PREAUTH", Doubt.AMBIGUOUS),
    ],
)
async def test_other_refusals_of_imap_bury_nobody(tls: ssl.SSLContext, refusal: str, why: Doubt) -> None:
    async with listening(partial(box, refusal=refusal), tls) as port:
        verdict = await ask("imap", port, BAD, "imaps")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


async def test_a_refusal_of_imap_before_the_password_judges_none(tls: ssl.SSLContext) -> None:
    async with listening(partial(box, begin=b"a2 NO [AUTHENTICATIONFAILED] Authentication failed."), tls) as port:
        verdict = await ask("imap", port, BAD, "imaps")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS


@pytest.mark.parametrize(
    ("greet", "why"),
    [
        (b"* BYE busy\r\n", Doubt.BLOCKED),
        (b"* PREAUTH hello\r\n", Doubt.AMBIGUOUS),
        (b"220 x\r\n", Doubt.AMBIGUOUS),
        (b"* OK x\r\n" + b"* x\r\n" * 200, Doubt.AMBIGUOUS),
    ],
    ids=range(4),
)
async def test_what_is_no_mailbox_is_no_verdict(greet: bytes, why: Doubt) -> None:
    async with listening(answering(greet=greet)) as port:
        verdict = await ask("imap", port, GOOD, "imap")
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


@pytest.mark.parametrize("kind", ["smtp", "imap"])
async def test_a_log_in_without_a_name_is_not_asked(kind: str) -> None:
    verdict = await ask(kind, 1, GOOD, username=" ")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE


async def test_a_line_break_in_a_mail_password_is_no_command(tls: ssl.SSLContext) -> None:
    got = bytearray()
    async with listening(partial(post, tls=tls, got=got)) as port:
        await ask("smtp", port, "x\r\nMAIL FROM:<a@b.test>")
    assert b"MAIL" not in got


@pytest.mark.parametrize("kind", ["smtp", "imap"])
def test_a_first_refusal_is_no_death(kind: str) -> None:
    assert KINDS[kind].by_address
