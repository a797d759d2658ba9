"""Speaks to a console on another machine, with a token of one's own: `lapse approve RUN --server URL`."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path  # noqa: TC003  # callers' types
from typing import TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3

from lapse.exits import Exit, Stop
from lapse.references import resolve
from lapse.web.api import Agree, Agreed, Withdrawn, Wrong

T = TypeVar("T")
_MOST = 1 << 20
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_CODES = {401: Exit.NO_RIGHTS, 403: Exit.NO_RIGHTS}


class Server:
    """A console at `url`: https, or http on this very machine. `token` is a file of mode 0600 that holds the token."""

    def __init__(self, url: str, token: Path) -> None:
        """Read the token; a URL without TLS, and a token that others can read, are a `Stop`."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Stop(f"--server {url}: write https://CONSOLE", Exit.USAGE)
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise Stop(f"--server {url}: without TLS anybody on the way reads the token; write https://", Exit.USAGE)
        self._url, self._host, self._scheme = url.rstrip("/"), parts.hostname, parts.scheme
        self._token = resolve(f"file:{token}", "--token-file")

    def approve(self, run: str, steps: tuple[str, ...]) -> Agreed:
        """Agree to steps of a run, under the token's name."""
        return self._post(f"/api/v1/runs/{quote(run, safe='')}/approve", msgspec.json.encode(Agree(steps)), Agreed)

    def withdraw(self, run: str) -> Withdrawn:
        """Take back what was agreed to under the token's name."""
        return self._post(f"/api/v1/runs/{quote(run, safe='')}/withdraw", b"{}", Withdrawn)

    def _post(self, path: str, body: bytes, form: type[T]) -> T:
        headers = {"Authorization": f"Bearer {self._token.reveal()}", "Content-Type": "application/json"}
        try:
            with (
                self._pool() as pool,
                pool.request(
                    "POST", self._url + path, body=body, headers=headers, timeout=_TIMEOUT, retries=False,
                    redirect=False, preload_content=False,
                ) as reply,
            ):  # fmt: skip
                status, told = reply.status, reply.read(_MOST)
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise Stop(f"{self._url} cannot be reached ({type(e).__name__})") from None
        try:
            if status == 200:
                return msgspec.json.decode(told, type=form)
            said = msgspec.json.decode(told, type=Wrong).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Stop(f"{self._url} answers {status}, and not as a console of Lapse does") from None
        raise Stop(f"{self._url} says: {said}", _CODES.get(status, Exit.USAGE))

    def _pool(self) -> urllib3.PoolManager:
        context = ssl.create_default_context()  # with SSL_CERT_FILE
        proxy = None if proxy_bypass(self._host) else getproxies().get(self._scheme)
        return urllib3.ProxyManager(proxy, ssl_context=context) if proxy else urllib3.PoolManager(ssl_context=context)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
