"""Plain HTTP to services of our own: object stores and issue trackers. The verifier's door is another one.

Proxies and certificates as everywhere: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MOST = 16 << 20
_CHUNK = 1 << 20
_LARGEST = 5 << 30
_TIMEOUT = urllib3.Timeout(connect=10, read=60)


class Trouble(Exception):  # noqa: N818  # as in the verifier: not an error of ours
    """A service that did not do what was asked: one sentence, never with a secret."""


class Answer(NamedTuple):
    """Status and at most 16 MiB of body."""

    status: int
    body: bytes


def get(url: str, headers: Mapping[str, str], target: Path | None = None) -> Answer:
    """GET `url`, into `target` if given. Anything but 200 is a `Trouble`; redirects are not followed."""
    return _send("GET", url, headers, None, target)


def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """POST JSON. Anything but 200 or 201 is a `Trouble`."""
    return _send("POST", url, {**headers, "content-type": "application/json"}, body, None)


def _send(method: str, url: str, headers: Mapping[str, str], body: bytes | None, target: Path | None) -> Answer:
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    try:
        with (
            _pool(parts.scheme, parts.hostname or "") as pool,
            pool.request(
                method, url, body=body, headers=dict(headers), timeout=_TIMEOUT, retries=False, redirect=False,
                preload_content=False,
            ) as reply,
        ):  # fmt: skip
            if reply.status not in {200, 201}:
                raise Trouble(f"{shown} answers {reply.status}")
            if target is None:
                return Answer(reply.status, reply.read(_MOST))
            with target.open("wb") as file:
                for chunk in reply.stream(_CHUNK):
                    file.write(chunk)
                    if file.tell() > _LARGEST:
                        raise Trouble(f"{shown} is larger than 5 GiB")
            return Answer(reply.status, b"")
    except (urllib3.exceptions.HTTPError, OSError) as e:
        raise Trouble(f"{shown} cannot be reached ({type(e).__name__})") from None


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    return urllib3.ProxyManager(proxy, ssl_context=context) if proxy else urllib3.PoolManager(ssl_context=context)
