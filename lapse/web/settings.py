"""`[serve]`: where the console listens, who may do what, and which hooks it takes."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from msgspec import Struct

from lapse.sections import Duration

RoleName = Literal["viewer", "responder", "approver", "admin"]


class Role(IntEnum):
    """What somebody may do; each may do what the ones before it may.

    A viewer looks. A responder starts rotations and goes on with them, checks the chain. An approver agrees, declines
    and takes back. An admin may see a secret, with a reason, on record.
    """

    VIEWER = 1
    RESPONDER = 2
    APPROVER = 3
    ADMIN = 4

    @classmethod
    def named(cls, name: RoleName) -> Role:
        """Return the role of this name."""
        return cls[name.upper()]


class OidcConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[serve.oidc]`: log-in for teams. `client_secret` is a reference; `claim` holds the groups that `roles` names."""

    issuer: str = ""
    client_id: str = ""
    client_secret: str = ""
    claim: str = "groups"
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    roles: dict[str, RoleName] = {}

    def __post_init__(self) -> None:
        """Refuse half a provider."""
        if self.issuer and not (self.client_id and self.client_secret and self.roles):
            raise ValueError('needs client_id, client_secret (a reference) and roles = {"GROUP" = "viewer"}')


class ServeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[serve]`: the console.

    `host` other than loopback needs `[serve.oidc]`, TLS in front of it, and its name in `hosts`. `session` ends a
    log-in whatever happens, `idle` when nothing does. `hooks` maps GitHub, GitLab, TruffleHog or generic to the
    reference of their secret. With `execute` the console starts a process beside it that goes on with rotations; false
    where another machine does that.
    """

    host: str = "127.0.0.1"
    port: int = 8017
    hosts: tuple[str, ...] = ()
    session: Duration = Duration("8h")
    idle: Duration = Duration("1h")
    local_role: RoleName = "admin"
    execute: bool = True
    hooks: dict[Literal["github", "gitlab", "trufflehog", "generic"], str] = {}
    oidc: OidcConfig = OidcConfig()
