"""Real servers on loopback for the tests: each starts on a free port, keeps its data in a given folder, and stops.

`missing` names what is not installed. Servers that refuse to run as root are started as a system user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Running: TypeAlias = AbstractContextManager["Server"]
BAO_TOKEN = "root-of-the-test"
_PATIENCE = 30.0
_MINISTACK = (1, 5)
_SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/sbin", "/usr/local/sbin")


@dataclass(frozen=True)
class Server:
    """A running server. `admin` holds what its test may log in with; `log` is where it writes."""

    host: str
    port: int
    pid: int
    folder: Path
    admin: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """`http://host:port`, for the HTTP ones."""
        return f"http://{self.host}:{self.port}"


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def find(*names: str) -> str | None:
    """Return the first of these programs that is there: beside this Python, on the path, or where Debian hides it."""
    for name in names:
        beside = Path(sys.executable).parent / name
        if beside.exists():
            return str(beside)
        if found := shutil.which(name):
            return found
        for pattern in _SYSTEM_FOLDERS:
            root, star, rest = pattern.partition("*")
            places = sorted(Path(root).glob(f"*{rest}"), reverse=True) if star else [Path(root)]
            for place in places:
                if (place / name).exists():
                    return str(place / name)
    return None


class MissingError(Exception):
    """A server's program is not installed."""


def _need(*names: str) -> str:
    found = find(*names)
    if found is None:
        raise MissingError(f"{names[0]} is not installed")
    return found


def _as_user(*names: str) -> tuple[list[str], str | None]:
    """Return the words that run a program as a system user, and that user; nothing for who is not root."""
    if os.geteuid() != 0:
        return [], None
    for name in (*names, "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            ids = ["--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--clear-groups"]
            return [_need("setpriv"), *ids, "--"], name
    raise MissingError("no system user to run the server as")


def _give(folder: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(folder, user)


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(f"the server did not come up ({process.args!r}):\n{tail}")


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # loopback
            return True
    except urllib.error.HTTPError:
        return True


@contextlib.contextmanager
def _running(
    command: list[str],
    port: int,
    folder: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    admin: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # our own words
            command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **(env or {})}
        )
        try:
            _until(ready, process, log)
            yield Server("127.0.0.1", port, process.pid, folder, admin or {})
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@contextlib.contextmanager
def openbao(folder: Path) -> Iterator[Server]:
    """Run OpenBao in memory, unsealed, with `BAO_TOKEN` as root token."""
    port = free_port()
    command = [_need("bao"), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={BAO_TOKEN}"]
    command += [f"-dev-listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}/v1/sys/health"
    env = {"HOME": str(folder)}
    with _running(command, port, folder, lambda: _answers(url), env, {"token": BAO_TOKEN}) as server:
        yield server


@contextlib.contextmanager
def ministack(folder: Path) -> Iterator[Server]:
    """Run an AWS simulator that checks signatures; the root key is `test` / `test`."""
    command = [_need("ministack")]
    found = tuple(int(n) for n in version("ministack").split(".")[:2])
    if found < _MINISTACK:
        raise MissingError(f"ministack {found[0]}.{found[1]} checks no signatures, 1.5 does; it is not installed")
    port = free_port()
    env = {
        "AUTH": "true",
        "CLOUDTRAIL_RECORDING": "1",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "HOME": str(folder),
    }
    admin = {"id": "test", "secret": "test"}
    with _running(command, port, folder, lambda: _answers(f"http://127.0.0.1:{port}/"), env, admin) as s:
        yield s


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[Server]:
    """Run PostgreSQL with TLS on (self-signed) and SCRAM for everybody on loopback; `admin` is the superuser.

    Users `md5user` and `clearuser` log in by MD5 and in clear text, `trusted` without a password,
    `walled` is turned away by pg_hba.conf.
    """
    initdb, server = _need("initdb"), _need("postgres")
    words, user = _as_user("postgres")
    folder.mkdir(exist_ok=True)
    _give(folder, user)
    password, data = "made-up-superuser-password", folder / "data"
    secret = folder / "pw"
    secret.write_text(password)
    certificate(folder)
    for file in (secret, folder / "server.key", folder / "server.crt"):
        file.chmod(0o600)
        if user:
            shutil.chown(file, user)
    init = [*words, initdb, "-D", str(data), "-U", "admin", "-A", "scram-sha-256", f"--pwfile={secret}"]
    init += ["--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(init, check=True, capture_output=True, cwd=folder)
    (data / "pg_hba.conf").write_text(
        "host all walled all reject\n"
        "host all trusted all trust\n"
        "host all md5user all md5\n"
        "host all clearuser all password\n"
        "host all all all scram-sha-256\n"
    )
    port = free_port()
    command = [*words, server, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    for setting in (
        "fsync=off",
        "ssl=on",
        f"ssl_cert_file={folder}/server.crt",
        f"ssl_key_file={folder}/server.key",
        "logging_collector=off",
        "shared_buffers=16MB",
        "log_connections=on",
        "log_statement=all",
    ):
        command += ["-c", setting]
    admin = {"username": "admin", "password": password}
    import psycopg  # only where there is a server

    def ready() -> bool:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="admin", password=password, dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    with _running(command, port, folder, ready, None, admin) as running:
        yield running


@contextlib.contextmanager
def mariadb(folder: Path) -> Iterator[Server]:
    """Run MariaDB with TLS on (self-signed); `admin` may do everything, over its port."""
    install, server = _need("mariadb-install-db", "mysql_install_db"), _need("mariadbd", "mysqld")
    words, user = _as_user("mysql")
    folder.mkdir(exist_ok=True)
    _give(folder, user)
    data, password = folder / "data", "made-up-admin-password"
    certificate(folder)
    if user:
        for name in ("server.key", "server.crt"):
            shutil.chown(folder / name, user)
    init = [
        *words,
        install,
        "--no-defaults",
        f"--datadir={data}",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]
    subprocess.run(init, check=True, capture_output=True, cwd=folder)
    first = folder / "init.sql"
    statements = (  # one a line
        "DELETE FROM mysql.global_priv WHERE User=''",
        "FLUSH PRIVILEGES",
        f"CREATE USER 'admin'@'%' IDENTIFIED BY '{password}'",
        "GRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION",
    )
    first.write_text("".join(f"{s};\n" for s in statements))
    if user:
        shutil.chown(first, user)
    port = free_port()
    command = [*words, server, "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"]
    command += [f"--socket={folder}/s", f"--pid-file={folder}/pid", "--skip-name-resolve", f"--init-file={first}"]
    command += [f"--ssl-cert={folder}/server.crt", f"--ssl-key={folder}/server.key", "--innodb-buffer-pool-size=16M"]
    command += ["--general-log=1", f"--general-log-file={folder}/general.log", "--max-connect-errors=100000"]
    admin = {"username": "admin", "password": password}
    import pymysql

    def ready() -> bool:
        try:
            pymysql.connect(host="127.0.0.1", port=port, user="admin", password=password).close()
        except pymysql.OperationalError:
            return False
        return True

    with _running(command, port, folder, ready, None, admin) as running:
        yield running


@contextlib.contextmanager
def redis(folder: Path, password: str = "made-up-redis-password", *, tls: bool = False) -> Iterator[Server]:
    """Run Redis. `password` is the default user's, empty for an open server; with `tls` it speaks TLS only."""
    port = free_port()
    command = [_need("redis-server"), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    if password:
        command += ["--requirepass", password]
    if tls:
        certificate(folder)
        command += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        command += ["--tls-cert-file", f"{folder}/server.crt", "--tls-key-file", f"{folder}/server.key"]
        command += ["--tls-ca-cert-file", f"{folder}/server.crt"]
    else:
        command += ["--port", str(port)]
    with _running(command, port, folder, lambda: _listens(port), None, {"password": password}) as server:
        yield server


def certificate(folder: Path) -> None:
    """Write a self-signed `server.key` and `server.crt` for localhost."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    (folder / "server.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
