"""A small SSH server on loopback: asyncssh's, with users, passwords, keys, and ways of being difficult."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class SshHost:
    """The world. `mood` is what is special about it; `heard` lists user and method of every proof it was shown."""

    passwords: dict[str, str] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    """User to fingerprints of public keys."""
    mood: str = ""
    greeting: str = ""
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    heard: list[tuple[str, str]] = field(default_factory=list)
    sessions: list[str | None] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def known(self, port: int, host: str = "127.0.0.1") -> str:
        """Return the line of this host in a file of known hosts."""
        return f"[{host}]:{port} {self.host_key.export_public_key().decode()}"

    @property
    def fingerprint(self) -> str:
        return self.host_key.get_fingerprint()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Be there; yields the port."""

        async def session(process: asyncssh.SSHServerProcess[str]) -> None:
            self.sessions.append(process.command)
            process.stderr.write(self.greeting)
            process.exit(1)

        server = await asyncssh.create_server(
            lambda: _Server(self),
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            process_factory=session,
            **({"kex_algs": ["diffie-hellman-group14-sha1"]} if self.mood == "old" else {}),
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await server.wait_closed()


class _Server(asyncssh.SSHServer):
    def __init__(self, world: SshHost) -> None:
        self.world = world
        self.tries = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.conn = conn

    def begin_auth(self, username: str) -> bool:
        self.world.versions.append(self.conn.get_extra_info("client_version"))
        return self.world.mood != "open"

    def password_auth_supported(self) -> bool:
        if self.world.mood == "second factor":
            return not self.tries  # what a client sees after a partial success
        return bool(self.world.passwords) and self.world.mood != "questions"

    def public_key_auth_supported(self) -> bool:
        return bool(self.world.keys)

    def kbdint_auth_supported(self) -> bool:
        return self.world.mood in {"questions", "second factor"}

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> asyncssh.KbdIntChallenge:
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: asyncssh.KbdIntResponse) -> bool:
        self.world.heard.append((username, "questions"))
        return list(responses) == [self.world.passwords.get(username)]

    def validate_password(self, username: str, password: str) -> bool:
        self.tries += 1
        self.world.heard.append((username, "password"))
        right = self.world.passwords.get(username) == password
        if self.world.mood == "must change" and right:
            raise asyncssh.PasswordChangeRequired("Your password has expired.")
        if self.world.mood == "tired":
            self.conn.disconnect(asyncssh.DISC_PROTOCOL_ERROR, "Too many authentication failures")
        return right and self.world.mood != "second factor"

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self.world.heard.append((username, "key"))
        return key.get_fingerprint() in self.world.keys.get(username, ())
