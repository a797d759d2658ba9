"""What goes through the one door and what comes back: calls, requests, replies, troubles.

Types only. `verifier.egress` is the door; specs build the calls; rules read the replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from verifier.model import Doubt
from verifier.secret import Secret

Method: TypeAlias = Literal["GET", "HEAD", "POST"]
Scheme: TypeAlias = Literal[
    "https", "http", "postgresql", "mysql", "redis", "mongodb", "mssql", "amqp", "ldap", "ftp", "ssh", "smtp", "imap"
]


class Call(Struct, frozen=True):
    """One entry of the manifest: a call the verifier may make, and why it only reads.

    `host` is a literal host, or `{host}` where the finding or the config names the instance; `path` a template
    (`/v1/{account}/keys`) whose fields never contain `/`, `?` or `#` once filled. `method` is `LOGIN` for wire
    protocols: the handshake and nothing after it. `reads` says why the call changes nothing; `docs` links to the
    vendor.
    """

    kind: str
    method: Literal["GET", "HEAD", "POST", "LOGIN"]
    scheme: Scheme
    host: str
    path: str
    reads: str
    docs: str = ""


class Request(Struct, frozen=True):
    """One HTTP request, built from a `Call`. `url` and header values may hold the secret, `shown` never does.

    `scrub` lists every secret string that the reply might echo; the rules redact them before anything is stored.
    `carrier` says where the secret travels: a lower-case header name, `url` or `body`.
    `decisive` tells a 429 or 5xx whose words decide (and which is therefore not asked again) from a passing one.
    `signed_for` is the host the credential was named for, when an override (`base_url`) sends it elsewhere.
    """

    call: Call
    url: Secret
    shown: str
    headers: Mapping[str, Secret] = {}
    body: Secret | None = None
    carrier: str = ""
    route: str = "direct"
    decisive: Callable[[Reply], bool] | None = None


class Reply(Struct, frozen=True):
    """A complete answer. Header names are lower case; `body` at most 64 KiB, decompressed; `truncated` when more came.

    `route` is `direct`, `proxy`, `ca` (custom CA in play) or `base` (a config override); `host` the host asked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    host: str
    route: str = "direct"
    truncated: bool = False


class Trouble(Struct, frozen=True):
    """No usable answer: why, one sentence for people (never with a secret), and when to try again."""

    why: Doubt
    note: str
    host: str = ""
    retry_after: timedelta | None = None


class Admitted(Struct, frozen=True):
    """A host that passed the door's address check: connect to `address` (an IP) only, TLS name `host`.

    `roots` are certificates (PEM) of the config's own authorities, trusted besides the public ones; `known_hosts` is
    the text of the config's file of SSH host keys. `own`: the address lies in a network that the config names as one
    that may be reached (`egress.allow_private`), and not on the open internet.
    """

    host: str
    address: str
    port: int
    roots: tuple[bytes, ...] = ()
    known_hosts: str = ""
    own: bool = False


class Door(Protocol):
    """The one way out. Every provider gets one; nothing in `verifier` opens a socket by itself."""

    async def send(self, request: Request) -> Reply | Trouble:
        """Send a request whose call is on the manifest.

        Anything else is `Trouble(REFUSED)`. Never raises for the network's sake.
        """
        ...

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        """Vet and pin a host for a wire protocol (database handshake).

        The caller then connects to `address` and nothing else.
        """
        ...


@runtime_checkable
class Directory(Protocol):
    """What a door may know besides: the servers behind a service name (DNS SRV), such as `_mongodb._tcp.HOST`."""

    async def services(self, call: Call, name: str) -> tuple[tuple[str, int], ...] | Trouble:
        """Return host and port of each server, best first. They are names only: each must pass `Door.admit`."""
        ...
