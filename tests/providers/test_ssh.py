"""SSH log-ins against a real server (asyncssh's) that is known, unknown, or another than the one that is known."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import asyncssh
import pytest
from impostor import answering, listening
from servers import free_port
from ssh_world import SshHost
from support import credential, real_door, short

from verifier import ssh, wire
from verifier.egress import RefusedError, Settings
from verifier.egress.plumbing import host_keys
from verifier.model import Dead, Doubt, How, Live, Undecided
from verifier.providers import private_key, sftp_ftp
from verifier.providers import ssh as provider

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from impostor import Talk

    from verifier.model import Verdict

GOOD, BAD = "sesame-of-app-é", "wrong"
KINDS = {k.id: k for k in (*provider.KINDS, *sftp_ftp.KINDS)}


class Pair(NamedTuple):
    pem: str
    fingerprint: str


def pair(algorithm: str = "ssh-ed25519", passphrase: str | None = None) -> Pair:
    made = asyncssh.generate_private_key(algorithm)
    form = "openssh" if passphrase is None else "pkcs8-pem"
    return Pair(made.export_private_key(form, passphrase).decode(), made.get_fingerprint())


@pytest.fixture(scope="module")
def ours() -> Pair:
    return pair()


@pytest.fixture
def host(ours: Pair) -> SshHost:
    return SshHost({"app": GOOD}, {"app": {ours.fingerprint}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def put(file: Path, text: str) -> None:
    file.write_text(text)


async def ask(kind: str, port: int, file: Path | None = None, **parts: str) -> Verdict:
    given = {"username": "app", "host": "127.0.0.1", "port": str(port)} | parts
    module = sftp_ftp if kind == "sftp_ftp" else provider
    async with real_door(KINDS[kind], known_hosts=str(file) if file else None) as door:
        return await module.probe(KINDS[kind], credential(kind, **{n: v for n, v in given.items() if v}), door)


# ── passwords ──


@pytest.mark.parametrize("kind", ["ssh_password", "sftp_ftp"])
async def test_a_password_at_a_known_server(
    host: SshHost, file: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scheme = {"scheme": "sftp"} if kind == "sftp_ftp" else {}
    async with host.listening() as port:
        put(file, host.known(port))
        live = await ask(kind, port, file, password=GOOD, **scheme)
        dead = await ask(kind, port, file, password=BAD, **scheme)
    assert isinstance(live, Live), live
    assert live.identity is not None
    assert live.identity.principal == "app"
    assert live.evidence.request == f"LOGIN ssh://127.0.0.1:{port}/"
    assert '"host_key":"known"' in live.evidence.excerpt
    assert isinstance(dead, Dead), dead
    assert dead.how is How.REJECTED
    assert KINDS[kind].by_address, "Dead only for a log-in that this server took from us before"
    assert host.heard == [("app", "password")] * 2, "one try each, and no other way tried with it"
    assert host.sessions == []
    assert host.versions[0] == "SSH-2.0-Lapse"
    assert GOOD not in caplog.text
    assert GOOD not in repr(live)


@pytest.mark.parametrize(("password", "expected"), [(GOOD, "live"), (BAD, "dead rejected")])
async def test_a_server_that_asks_by_questions_gets_one_answer(
    host: SshHost, file: Path, password: str, expected: str
) -> None:
    host.mood = "questions"
    async with host.listening() as port:
        put(file, host.known(port))
        assert short(await ask("ssh_password", port, file, password=password)) == expected
    assert host.heard == [("app", "questions")]


async def test_no_password_goes_to_a_server_that_nobody_knows(host: SshHost, file: Path) -> None:
    async with host.listening() as port:
        verdict = await ask("ssh_password", port, None, password=GOOD)
        put(file, "other.test " + host.host_key.export_public_key().decode())
        second = await ask("ssh_password", port, file, password=GOOD)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    assert host.fingerprint in verdict.note
    assert short(second) == "incomplete"
    assert host.heard == []


@pytest.mark.parametrize("kind", ["ssh_password", "ssh_key"])
async def test_nothing_goes_to_another_than_the_server_that_is_known(
    host: SshHost, file: Path, ours: Pair, kind: str
) -> None:
    other = SshHost()
    async with host.listening() as port:
        for line in (other.known(port), f"@revoked * {host.known(port).partition(' ')[2]}"):
            put(file, line)
            verdict = await ask(kind, port, file, password=GOOD, secret=ours.pem)
            assert isinstance(verdict, Undecided)
            assert verdict.why is Doubt.UNREACHABLE
            assert "host key" in verdict.note
    assert host.heard == []


@pytest.mark.parametrize(
    ("mood", "password", "expected"),
    [
        ("must change", GOOD, "restricted"),
        ("must change", BAD, "dead rejected"),
        ("second factor", GOOD, "ambiguous"),
        ("tired", BAD, "ambiguous"),
        ("open", GOOD, "ambiguous"),
        ("old", GOOD, "unsupported"),
    ],
)
async def test_what_else_a_server_does(host: SshHost, file: Path, mood: str, password: str, expected: str) -> None:
    host.mood = mood
    async with host.listening() as port:
        put(file, host.known(port))
        assert short(await ask("ssh_password", port, file, password=password)) == expected


async def test_a_server_without_passwords_is_not_tried(host: SshHost, file: Path) -> None:
    host.passwords.clear()
    async with host.listening() as port:
        put(file, host.known(port))
        assert short(await ask("ssh_password", port, file, password=GOOD)) == "unsupported"


async def test_a_certificate_of_the_hosts_authority_is_enough(file: Path) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    host = SshHost({"app": GOOD})
    certificate = authority.generate_host_certificate(host.host_key, "h", principals=["127.0.0.1"])
    server = await asyncssh.create_server(
        asyncssh.SSHServer, "127.0.0.1", 0, server_host_keys=[(host.host_key, certificate)]
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        put(file, f"@cert-authority * {authority.export_public_key().decode()}")
        # this server takes no passwords, which it says only to whom it has proven itself
        assert short(await ask("ssh_password", port, file, password=GOOD)) == "unsupported"


# ── keys ──


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
async def test_a_key_at_a_server_that_is_named_and_known(host: SshHost, file: Path, algorithm: str) -> None:
    mine = pair(algorithm)
    host.keys = {"app": {mine.fingerprint}}
    async with host.listening() as port:
        put(file, host.known(port))
        live = await ask("ssh_key", port, file, secret=mine.pem)
        host.keys = {"app": {"SHA256:another"}}
        dead = await ask("ssh_key", port, file, secret=mine.pem)
    assert isinstance(live, Live), live
    assert isinstance(dead, Dead), dead
    assert KINDS["ssh_key"].by_address
    assert host.sessions == []
    assert mine.pem.splitlines()[1] not in repr(live)


async def test_a_key_may_be_offered_to_a_server_that_nobody_knows_but_its_refusal_counts_for_nothing(
    host: SshHost, ours: Pair
) -> None:
    async with host.listening() as port:
        live = await ask("ssh_key", port, secret=ours.pem)
        refused = await ask("ssh_key", port, secret=pair().pem)
    assert isinstance(live, Live), live
    assert '"host_key":"unknown"' in live.evidence.excerpt.replace(" ", "")
    assert isinstance(refused, Undecided)
    assert refused.why is Doubt.INCOMPLETE
    assert refused.evidence is not None


def test_to_be_asked_again_without_an_answer_in_between_is_no_refusal() -> None:
    attempt = ssh._Attempt(None, None)
    attempt.relay = ssh._Relay()
    assert attempt.once("publickey")
    assert not attempt.once("publickey"), "no signature that both sides know: the key was never shown"
    assert attempt.answer == "neither"
    attempt.relay.heard += 1
    assert not attempt.once("publickey")
    assert attempt.answer == "refused"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (pair(passphrase="x" * 8).pem, Doubt.INCOMPLETE),
        ("-----BEGIN " + "OPENSSH PRIVATE KEY-----\nAAAA\n", Doubt.INCOMPLETE),
        ("no key", Doubt.INCOMPLETE),
    ],
    ids=["locked", "cut off", "no key"],
)
async def test_a_key_that_cannot_be_read_is_not_tried(host: SshHost, secret: str, why: Doubt) -> None:
    async with host.listening() as port:
        verdict = await ask("ssh_key", port, secret=secret)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why
    assert host.heard == []


# ── forges ──


async def at_forges(
    monkeypatch: pytest.MonkeyPatch,
    github: SshHost | None,
    gitlab: SshHost | None,
    secret: str,
    module: ModuleType = provider,
    **parts: str,
) -> Verdict:
    """Ask as if these two were GitHub and GitLab, their keys pinned."""
    async with (github or SshHost()).listening() as first, (gitlab or SshHost()).listening() as second:
        ports = {"github.com": first if github else free_port(), "gitlab.com": second if gitlab else free_port()}
        pins = {"github.com": github, "gitlab.com": gitlab}
        forges = tuple(
            f._replace(pins=frozenset({h.fingerprint} if (h := pins[f.host]) else {"SHA256:x"})) for f in ssh.FORGES
        )
        monkeypatch.setattr(ssh, "FORGES", forges)

        async def resolver(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        # the manifest says which host; the port is SSH's own, which a test cannot listen on
        real = wire.asyncio.open_connection

        async def connect(address: str | None = None, port: int | None = None, **more: object) -> object:
            return await real(address, current[-1] if port == ssh.PORT else port, **more)  # type: ignore[arg-type]  # handed on as they came

        current: list[int] = []
        resolved = resolver

        async def watched(host: str, port: int) -> list[str]:
            current.append(ports[host])
            return await resolved(host, port)

        monkeypatch.setattr(wire.asyncio, "open_connection", connect)
        kind = module.KINDS[-1]
        async with real_door(kind, resolver=watched) as door:
            verdict: Verdict = await module.probe(kind, credential(kind.id, secret=secret, **parts), door)
        return verdict


async def test_github_says_whose_key_it_is(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    line = "Hi acme/shop! You've successfully authenticated, but GitHub does not provide shell access.\n"
    github = SshHost(keys={"git": {ours.fingerprint}}, greeting=line)
    verdict = await at_forges(monkeypatch, github, None, ours.pem)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "acme/shop"
    assert verdict.evidence.request.startswith("LOGIN ssh://github.com:22/")
    assert github.sessions == [None], "a session, and no command in it"


async def test_gitlab_is_asked_where_github_refuses(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    github = SshHost(keys={"git": {"SHA256:another"}})
    gitlab = SshHost(keys={"git": {ours.fingerprint}}, greeting="Welcome to GitLab, @acme-bot!\n")
    verdict = await at_forges(monkeypatch, github, gitlab, ours.pem)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "acme-bot"


async def test_a_bare_key_of_the_older_form_is_asked_at_the_forges_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = asyncssh.generate_private_key("ssh-rsa")
    pem = made.export_private_key("pkcs1-pem").decode()
    github = SshHost(keys={"git": {made.get_fingerprint()}}, greeting="Hi acme-bot! You've successfully authenticated.")
    live = await at_forges(monkeypatch, github, None, pem, private_key)
    assert isinstance(live, Live), live
    assert live.identity is not None
    assert live.identity.principal == "acme-bot"
    other = SshHost(keys={"git": {"SHA256:a"}})
    verdict = await at_forges(monkeypatch, other, other, pem, private_key)
    assert isinstance(verdict, Undecided)
    assert "add its certificate" in verdict.note
    assert verdict.why is Doubt.INCOMPLETE


async def test_a_key_that_no_forge_knows_may_open_something_else(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    verdict = await at_forges(
        monkeypatch, SshHost(keys={"git": {"SHA256:a"}}), SshHost(keys={"git": {"SHA256:b"}}), ours.pem
    )
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.INCOMPLETE
    assert verdict.evidence is not None


async def test_a_forge_that_did_not_answer_leaves_the_key_due(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    for answers in ((SshHost(keys={"git": {"SHA256:a"}}), None), (None, SshHost(keys={"git": {"SHA256:a"}}))):
        verdict = await at_forges(monkeypatch, *answers, ours.pem)
        assert isinstance(verdict, Undecided), verdict
        assert verdict.why is Doubt.UNREACHABLE


async def test_a_named_forge_that_refuses_is_believed(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    verdict = await at_forges(monkeypatch, SshHost(keys={"git": {"SHA256:a"}}), None, ours.pem, host="GitHub.com")
    assert isinstance(verdict, Dead), verdict


async def test_nothing_goes_to_somebody_who_says_he_is_github(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    impostor = SshHost(keys={"git": {ours.fingerprint}})
    monkeypatch.setattr(SshHost, "fingerprint", "SHA256:of the real one")
    verdict = await at_forges(monkeypatch, impostor, impostor, ours.pem)
    assert short(verdict) == "unreachable"
    assert impostor.heard == []


async def test_a_greeting_that_never_comes_changes_nothing(monkeypatch: pytest.MonkeyPatch, ours: Pair) -> None:
    monkeypatch.setattr(ssh, "_GREETING_TIME", 0.0)
    github = SshHost(keys={"git": {ours.fingerprint}}, greeting="Hi nobody!\n")
    verdict = await at_forges(monkeypatch, github, None, ours.pem)
    assert isinstance(verdict, Live), verdict
    assert verdict.identity is not None
    assert verdict.identity.principal == "git"


# ── what is not asked, and what is no server ──


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("ssh_password", {"password": GOOD, "username": " "}),
        ("sftp_ftp", {"password": GOOD, "username": " ", "scheme": "sftp://"}),
        ("sftp_ftp", {"password": GOOD, "username": " "}),
        ("ssh_key", {"secret": "x", "username": ""}),
    ],
)
async def test_what_cannot_be_asked_is_incomplete(kind: str, parts: dict[str, str]) -> None:
    assert short(await ask(kind, 22, **parts)) == "incomplete"


async def test_a_name_that_ssh_cannot_carry_is_incomplete(host: SshHost, file: Path) -> None:
    async with host.listening() as port:
        put(file, host.known(port))
        assert short(await ask("ssh_password", port, file, password=GOOD, username="a\u0007b")) == "incomplete"


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (answering(greet=b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 9000), Doubt.AMBIGUOUS),
        (answering(greet=b"220 ftp.acme.test\r\n" * 1500), Doubt.AMBIGUOUS),
        (answering(greet=b"SSH-2.0-x\r\n" + b"\xff" * 100), Doubt.AMBIGUOUS),
        (answering(greet=(b"." * 4000 + b"\n") * 40), Doubt.AMBIGUOUS),
        (answering(b"", greet=b"SSH-1.5-old\r\n"), Doubt.AMBIGUOUS),
    ],
    ids=["http", "ftp", "noise", "flood", "version 1"],
)
async def test_what_is_no_ssh_server_is_no_verdict(talk: Talk, why: Doubt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "DEADLINE", 3.0)
    async with listening(talk) as port:
        verdict = await ask("ssh_password", port, password=GOOD)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


async def test_a_server_that_hangs_up_is_unreachable() -> None:
    async def talk(*_: object) -> None:
        return

    async with listening(talk) as port:
        assert short(await ask("ssh_password", port, password=GOOD)) == "unreachable"


async def test_a_server_that_lets_nobody_connect_is_blocked(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise asyncssh.DisconnectError(asyncssh.DISC_TOO_MANY_CONNECTIONS, "full")

    monkeypatch.setattr(asyncssh, "connect", refuse)
    async with host.listening() as port:
        assert short(await ask("ssh_password", port, password=GOOD)) == "blocked"


# ── the file of known hosts ──


async def test_a_bad_line_in_the_file_is_told(host: SshHost, file: Path) -> None:
    put(file, "nonsense\n")
    async with host.listening() as port:
        verdict = await ask("ssh_password", port, file, password=GOOD)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.REFUSED
    assert "egress.known_hosts" in verdict.note


def test_a_file_that_cannot_be_read_is_told(file: Path) -> None:
    with pytest.raises(RefusedError, match=r"egress\.known_hosts: cannot read"):
        host_keys(Settings(known_hosts=str(file)))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(RefusedError, match=r"egress\.known_hosts: .* is no text"):
        host_keys(Settings(known_hosts=str(file)))
