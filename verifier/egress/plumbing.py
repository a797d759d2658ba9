"""Standard plumbing: which proxy, which certificates, from config or the usual variables."""

from __future__ import annotations

import os
import re
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from verifier.egress.address import Network, RefusedError, authority, literal

if TYPE_CHECKING:
    from collections.abc import Mapping

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]+-----END (?:TRUSTED )?CERTIFICATE-----")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/local/etc/openssl/cert.pem",
    "/opt/homebrew/etc/ca-certificates/cert.pem",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
)
_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})


class Settings(Struct, frozen=True):
    """The `[egress]` table of the config. Times are seconds; `None` leaves the choice to the environment.

    `deadline` bounds one whole call, `budget` all tries of one request; `retries` counts tries after the first;
    `contact` goes into the User-Agent; `known_hosts` is a file of SSH host keys as OpenSSH keeps them.
    """

    allow_private: tuple[Network, ...] = ()
    proxy: str | None = None
    no_proxy: str | None = None
    ca_bundle: str | None = None
    deadline: float = 10.0
    retries: int = 2
    budget: float = 20.0
    contact: str = ""
    known_hosts: str | None = None

    @property
    def user_agent(self) -> str:
        """Who we are, for the provider's logs."""
        return f"Lapse/0.1 (+secret verification; read-only{f'; {self.contact}' if self.contact else ''})"


class Bypass:
    """`NO_PROXY`: `*`, names, `.suffix`, `*.suffix`, addresses, CIDR ranges, each perhaps with `:port`."""

    def __init__(self, text: str) -> None:
        """Read the list, separated by commas or blanks; what cannot be read matches nothing."""
        self._all = False
        self._names: list[tuple[str, int | None]] = []
        self._networks: list[tuple[Network, int | None]] = []
        for entry in re.split(r"[,\s]+", text.lower()):
            if entry == "*":
                self._all = True
            elif entry:
                self._add(entry)

    def _add(self, entry: str) -> None:
        name, port = entry, None
        if (m := re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d{1,5})", entry)) is not None:
            name, port = m.group(1), int(m.group(2))
        try:
            self._networks.append((ip_network(name.strip("[]"), strict=False), port))
        except ValueError:
            self._names.append((name.lstrip("*").lstrip("."), port))

    def covers(self, host: str, port: int) -> bool:
        """Tell whether `host` (canonical) is asked without the proxy."""
        address = literal(host)
        if address is not None:
            return self._all or any(address in net and p in {None, port} for net, p in self._networks)
        return self._all or any(
            (host == name or host.endswith(f".{name}")) and p in {None, port} for name, p in self._names if name
        )


class Proxies(Struct, frozen=True):
    """Which proxy a call takes. The URLs may hold a password: they are never shown."""

    https: str | None
    http: str | None
    bypass: Bypass

    def of(self, scheme: str, host: str, port: int) -> str | None:
        """Return the URL of the proxy for this target, None for a direct way."""
        url = self.https if scheme == "https" else self.http
        return None if url is None or self.bypass.covers(host, port) else url


def proxies(settings: Settings, environ: Mapping[str, str]) -> Proxies:
    """Choose proxies: the config's for everything, else `HTTPS_PROXY`, `http_proxy`, `ALL_PROXY` in either case.

    `HTTP_PROXY` in capitals is ignored where a CGI server may have made it from a request's header.
    Raises `RefusedError` for a proxy URL that cannot be used.
    """
    everything = _env(environ, "all_proxy")
    plain = environ.get("http_proxy") or ("" if "REQUEST_METHOD" in environ else environ.get("HTTP_PROXY")) or ""
    bypass = settings.no_proxy if settings.no_proxy is not None else _env(environ, "no_proxy")
    if settings.proxy is not None:
        one = _proxy_url("egress.proxy", settings.proxy)
        return Proxies(one, one, Bypass(bypass))
    return Proxies(
        _proxy_url("HTTPS_PROXY", _env(environ, "https_proxy") or everything),
        _proxy_url("http_proxy", plain or everything),
        Bypass(bypass),
    )


def _env(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _proxy_url(key: str, text: str) -> str | None:
    """Check a proxy's URL; a bare `host:port` means http. The sentence never quotes it: it may hold a password."""
    if not text.strip():
        return None
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    scheme, _, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if scheme.lower() not in _PROXY_SCHEMES:
        raise RefusedError(f"{key}: its scheme is none of http, https, socks5, socks5h")
    try:
        authority(place, 1080)
    except RefusedError as e:
        raise RefusedError(f"{key} is not a proxy URL like http://proxy.example:3128: {e}") from None
    return url


class Trust(Struct, frozen=True):
    """Certificates trusted besides the system's. `custom`: somebody's own authority may sit in the middle."""

    pems: tuple[bytes, ...] = ()
    custom: bool = False


def trust(settings: Settings, environ: Mapping[str, str]) -> Trust:
    """Load `ca_bundle`, else `SSL_CERT_FILE` and `SSL_CERT_DIR`; the system's own bundles count as none.

    Raises `RefusedError`, naming the key, when a bundle cannot be read or holds no certificate.
    """
    if settings.ca_bundle is not None:
        named = [("egress.ca_bundle", settings.ca_bundle)]
    else:
        named = [("SSL_CERT_FILE", environ.get("SSL_CERT_FILE", ""))]
        named += [("SSL_CERT_DIR", part) for part in environ.get("SSL_CERT_DIR", "").split(os.pathsep)]
    defaults = ssl.get_default_verify_paths()
    system = {os.path.realpath(p) for p in (*_SYSTEM_BUNDLES, defaults.openssl_cafile, defaults.openssl_capath) if p}
    pems: dict[bytes, None] = {}
    for key, text in named:
        if text and os.path.realpath(text) not in system:
            pems |= dict.fromkeys(_certificates(key, Path(text)))
    return Trust(tuple(pems), custom=bool(pems))


def host_keys(settings: Settings) -> str:
    """Return the text of `known_hosts`. Raises `RefusedError`, naming the key, when it cannot be read."""
    if settings.known_hosts is None:
        return ""
    try:
        return Path(settings.known_hosts).read_text("utf-8")
    except OSError as e:
        note = f"egress.known_hosts: cannot read {settings.known_hosts} ({e.strerror}); name a file of SSH host keys"
        raise RefusedError(note) from None
    except UnicodeDecodeError:
        raise RefusedError(
            f"egress.known_hosts: {settings.known_hosts} is no text; name a file of SSH host keys"
        ) from None


def _certificates(key: str, path: Path) -> list[bytes]:
    """Every certificate of a PEM file, or of the files in a directory."""
    try:
        files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        found = [pem for file in files for pem in _PEM.findall(file.read_bytes())]
    except OSError as e:
        raise RefusedError(f"{key}: cannot read {path} ({e.strerror}); name a PEM file or directory") from None
    if not found:
        raise RefusedError(f"{key}: {path} holds no PEM certificate; name a file with BEGIN CERTIFICATE lines")
    return found
