"""Which hosts and addresses may be asked: host syntax, the table of refused ranges, resolving once.

The ranges are those of the IANA special-purpose registries for IPv4 and IPv6, plus the two metadata addresses
that clouds put into ordinary-looking space. A range is let through only where the config names it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses (text, in order of preference). Raises `OSError` when there are none."""


class RefusedError(Exception):
    """The door says no; the message is one sentence for people and holds no secret."""


_SPECIAL: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud's metadata service"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "an IPv4-mapped form"),
    ("64:ff9b::/96", "a NAT64 form"),
    ("64:ff9b:1::/48", "a NAT64 form"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)
_RANGES = tuple((ip_network(text), why) for text, why in _SPECIAL)
_GLOBAL_V6 = IPv6Network("2000::/3")

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_HOST = 253
_LAST_PORT = 65535

_METADATA_NAMES = frozenset({"metadata", "instance-data", "localhost", "kubernetes", "host.docker.internal"})
_LOCAL_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".home.arpa", ".svc")


def special(address: Address) -> str | None:
    """Say what is special about an address (`private`, `loopback`, …), None for an ordinary public one."""
    for network, why in _RANGES:
        if address in network:
            return why
    return "reserved" if isinstance(address, IPv6Address) and address not in _GLOBAL_V6 else None


def allowed(address: Address, allow: Iterable[Network]) -> bool:
    """Tell whether the config names a range that holds this address, in exactly this form."""
    return any(address in network for network in allow)


def vet(address: Address, allow: Iterable[Network]) -> str | None:
    """Say why an address is refused; None when it may be connected to."""
    why = special(address)
    return None if why is None or allowed(address, allow) else why


def literal(host: str) -> Address | None:
    """Read a canonical host (see `canonical`) as an address, None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def canonical(host: str) -> str:
    """Lower-case name, dotted IPv4 or IPv6 without brackets; every odd spelling of an address becomes plain.

    Decimal, octal and hex forms (`2130706433`, `0177.1`, `0x7f.1`) are read as browsers read them, so what is
    vetted here is what the HTTP client would connect to. Raises `RefusedError` for anything else.
    """
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(IPv6Address(host[1:-1].replace("%", " ")))  # no zones: they name our own interfaces
        except ValueError:
            raise RefusedError("the host is not a valid IPv6 address") from None
    if not host.isascii():
        raise RefusedError("the host has non-ASCII letters; write it in its xn-- form")
    host = host.lower()
    labels = host.split(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise RefusedError("the host is not a valid host name")
    return _ipv4(labels) if _NUMBER.fullmatch(labels[-1]) else host


def _ipv4(labels: list[str]) -> str:
    """Read 1 to 4 decimal, octal or hex numbers as one IPv4 address; the last fills what is left."""
    try:
        numbers = [_number(label) for label in labels]
    except ValueError:
        numbers = []
    *head, last = numbers or [-1]
    if not (0 <= last < 256 ** max(0, 5 - len(numbers))) or any(n > 255 for n in head):  # IPv4
        raise RefusedError("the host ends in a number but is not a valid IPv4 address")
    return str(IPv4Address(sum(n << (8 * (3 - i)) for i, n in enumerate(head)) + last))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if len(label) > 1 and label.startswith("0") else 10)


def authority(text: str, default_port: int) -> tuple[str, int]:
    """Split `host`, `host:port`, `[v6]:port` into a canonical host and a port. Raises `RefusedError`."""
    if "@" in text:
        raise RefusedError("the address names a user; credentials do not belong there")
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    elif not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _LAST_PORT):
        raise RefusedError("the port is not a number from 1 to 65535")
    return canonical(host), int(port) if port else default_port


def loopback(url: str) -> bool:
    """Tell whether a URL names this very machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def local_name(host: str) -> bool:
    """Tell a name that only means something inside a network, the metadata services' among them.

    Asked where a proxy resolves and the address itself cannot be vetted.
    """
    return "." not in host or host in _METADATA_NAMES or host.endswith(_LOCAL_SUFFIXES)


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver once. Raises `OSError` (`socket.gaierror`) when the name has no address."""
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as e:
        raise socket.gaierror(str(type(e))) from None
    return list(dict.fromkeys(str(row[4][0]) for row in rows))
