"""Real servers on loopback for the demonstration: OpenBao, MiniStack (an AWS that checks signatures), PostgreSQL.

Each starts on a free port, keeps what it writes in a given folder, and is stopped when its context ends, whatever
ended it. None is needed: `MissingError` says in a few words what is not installed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from lapse.sandbox.process import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATIENCE = 20.0
"""Seconds that a server may take to answer."""


_DEBIAN = Path("/usr/lib/postgresql")


class MissingError(Exception):
    """A server that is not installed, or did not come up; the text says which and why."""


class Server(Struct, frozen=True):
    """A running server: where it listens, and with what its administrator logs in."""

    port: int
    user: str
    password: str

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"


def program(name: str) -> str | None:
    """Return where a program is: beside this Python, on the path, or where Debian keeps PostgreSQL's."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    debian = sorted(_DEBIAN.glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(debian[0]) if debian else None)


@contextmanager
def openbao(folder: Path) -> Iterator[Server]:
    """Run OpenBao in memory, unsealed; `password` is its root token."""
    port, token = _free_port(), "root-of-the-sandbox"
    command = [_need("bao"), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={token}"]
    command.append(f"-dev-listen-address=127.0.0.1:{port}")
    server = Server(port, "root", token)
    with _running("OpenBao", command, folder, lambda: _answers(f"{server.url}/v1/sys/health")):
        yield server


@contextmanager
def ministack(folder: Path, key_id: str, secret: str) -> Iterator[Server]:
    """Run MiniStack with signatures checked; `key_id` and `secret` are made its root key."""
    port = _free_port()
    settings = {"AUTH": "true", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    settings |= {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
    server = Server(port, key_id, secret)
    with _running("MiniStack", [_need("ministack")], folder, lambda: _answers(f"{server.url}/"), settings):
        yield server


@contextmanager
def postgresql(folder: Path) -> Iterator[Server]:
    """Run PostgreSQL, every log-in by SCRAM; `user` is its superuser. As root, it runs as a system user."""
    initdb, postgres = _need("initdb"), _need("postgres")
    account = _account()
    port = _free_port()
    server = Server(port, "admin", "superuser-of-the-sandbox")
    secret = folder / "password"
    secret.write_text(server.password)
    if account is not None:
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
    init = [initdb, "-D", str(folder / "data"), "-U", server.user, "-A", "scram-sha-256", f"--pwfile={secret}"]
    done = subprocess.run(  # noqa: S603  # our own words
        [*init, "--no-sync", "-E", "UTF8", "--locale=C"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=folder,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode:
        raise MissingError(f"PostgreSQL's initdb failed: {done.stderr.decode(errors='replace').strip()[-200:]}")
    command = [postgres, "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    command += ["-c", "fsync=off", "-c", "shared_buffers=16MB"]
    with _running("PostgreSQL", command, folder, lambda: _logs_in(server), account=account):
        yield server


def _need(name: str) -> str:
    found = program(name)
    if found is None:
        raise MissingError(f"`{name}` is not installed")
    return found


def _account() -> pwd.struct_passwd | None:
    """Return whom to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise MissingError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")


@contextmanager
def _running(
    name: str,
    command: list[str],
    folder: Path,
    ready: Callable[[], bool],
    settings: Mapping[str, str] = {},
    account: pwd.struct_passwd | None = None,
) -> Iterator[None]:
    """Run `command` until the context ends, and wait until it answers."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TMPDIR": str(folder), **settings}
    log = folder.with_suffix(".log")
    with (
        log.open("wb") as out,
        running(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=env,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        ) as process,
    ):
        _wait(name, process, ready, log)
        yield


def _wait(name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()
    raise MissingError(f"{name} did not come up: {said[-1][:200] if said else 'it said nothing'}")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by the user's proxy
    try:
        with opener.open(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True


def _logs_in(server: Server) -> bool:
    import psycopg  # only where PostgreSQL is

    try:
        psycopg.connect(
            host="127.0.0.1", port=server.port, user=server.user, password=server.password, dbname="postgres"
        ).close()
    except psycopg.OperationalError:
        return False
    return True
