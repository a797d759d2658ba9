"""A JWT role of Vault or OpenBao: CI logs in with the token that its own platform signs, and keeps no key at all.

Replaces a static token or an AppRole's secret id. What is made: the auth method where `mount` has none yet, a policy of
our own (its comment carries the run's mark), and the role, which takes tokens of one issuer, for one audience, with the
claims that are named. Somebody else's role, policy or method of the same name is never written over.

Nobody here can sign such a token. With `jwt_file` or `jwt_env` the check logs in with one and logs out again; without,
it waits until Vault has seen a log-in by this role (an alias of the mount names it, or a token that lives).
https://developer.hashicorp.com/vault/api-docs/auth/jwt
https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-hashicorp-vault
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from rotators.bao import Bao, bao, moment, strings
from rotators.interface import Fact, Presence, ProviderError, Trouble
from rotators.roles import changed, delete, kept, mark, marked, mounted, named, read, refused, same, seconds, write
from rotators.step import Done, Failed, Outcome, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.interface import Settings
    from verifier.model import Credential

GITHUB = "https://token.actions.githubusercontent.com"
_WHOSE = ("repository", "repository_id", "repository_owner", "repository_owner_id", "sub", "job_workflow_ref")
_CLAIM = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(\S.*)")
_GRANT = re.compile(r"((?:create|read|update|patch|delete|list|scan)(?:\+[a-z]+)*) ([A-Za-z0-9_+*./{}=-]+)")
_MOST = 2000


class _Former(Struct, frozen=True):
    """What a snapshot holds: role and policy, each as it was."""

    role: dict[str, Any] | None = None
    policy: str | None = None


class VaultJwtRole:
    """Settings: `role`, `audience`, `claims` (`repository=acme/app, ref=refs/heads/main`), `issuer` (GitHub's),
    `grants` (`read secret/data/ci/*, list secret/metadata/ci`) and `policies` (names, which must be there), `mount`
    (`jwt`), `user_claim` (`sub`), `ttl` (15m), `jwks` (else the issuer's own discovery), `keys_file` (PEM, else), and
    `jwt_file`/`jwt_env` for the check; those of `rotators.bao`.
    """  # noqa: D205  # a list of settings

    name = "vault_jwt_role"
    reversible = True
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "setup": (
            "read sys/auth",
            "sudo, create sys/auth/MOUNT (where it is not there yet)",
            "create, read, update, delete auth/MOUNT/role/ROLE",
            "create, read, update, delete sys/policies/acl/lapse-ROLE",
        ),
        "check": ("list identity/entity-alias/id", "sudo auth/token/accessors, update auth/token/lookup-accessor"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a missing or impossible one is `ProviderError(REFUSED)`."""
        self._settings, self._bao = settings, Bao(settings)
        self._mount, self._role = mounted(settings, "jwt"), named(settings, "role", self.name)
        self._policy = f"lapse-{self._role}"
        self._issuer = (settings.get("issuer") or GITHUB).rstrip("/")
        self._ttl = seconds(settings, "ttl", "15m")
        self._audience = settings.get("audience", "")
        self._claims = _claims(settings.get("claims", ""))
        self._rules = _rules(settings.get("grants", ""))
        self._policies = [p.strip() for p in settings.get("policies", "").split(",") if p.strip()]
        if not self._audience:
            raise ProviderError(Trouble.REFUSED, "vault_jwt_role needs the `audience` that tokens must be made for")
        if not self._claims:
            raise ProviderError(
                Trouble.REFUSED, "vault_jwt_role needs `claims`: without any, everybody's CI may log in"
            )
        if self._issuer == GITHUB and not set(self._claims) & set(_WHOSE):
            raise ProviderError(Trouble.REFUSED, "claims names no repository: any on GitHub could log in")
        if not self._rules and not self._policies:
            raise ProviderError(Trouble.REFUSED, "say what the log-in may do: `grants` or `policies`")
        if "root" in self._policies:
            raise ProviderError(Trouble.REFUSED, "no CI log-in gets the policy root")
        self._path = f"auth/{self._mount}/role/{self._role}"
        self._policy_path = f"sys/policies/acl/{self._policy}"

    def about(self) -> str:
        """Name the role and whom it lets in."""
        who = ", ".join(f"{k}={v}" for k, v in self._claims.items())
        return f"JWT role {self._role} of auth/{self._mount} for {who} of {self._issuer}"

    def displaces(self, old: Credential) -> bool:  # noqa: ARG002  # whatever the key
        """Say no: the static key goes on until it is retired."""
        return False

    def preflight(self, old: Credential) -> Sequence[Fact]:
        """Ask for the rights, that the method is free or of this issuer, and that the policies named are there."""
        _ = old
        wanted: dict[str, tuple[str, ...]] = {
            "sys/auth": ("read",),
            self._path: ("create", "read", "update", "delete"),
            self._policy_path: ("create", "read", "update", "delete"),
        }
        if not self._tokens():
            wanted |= {"auth/token/accessors": ("sudo",), "auth/token/lookup-accessor": ("update",)}
        if (method := self._method()) is None:
            wanted |= {f"sys/auth/{self._mount}": ("create", "sudo"), f"auth/{self._mount}/config": ("create",)}
        facts = self._bao.preflight(wanted)
        self._fits(method)
        for name in self._policies:
            if read(self._bao.client(), f"sys/policies/acl/{name}") is None:
                raise ProviderError(Trouble.GONE, f"Vault has no policy {name}")
        how = "seen to work with the token given" if self._tokens() else "to be seen working by a run of CI"
        return [*facts, Fact("new way", f"{self.about()}, {how}")]

    def present(self, old: Credential, run: str) -> Presence:
        """Compare role and policy with those wanted; the policy's comment says whose both are."""
        _ = old
        role, policy = self._held()
        by = marked(policy or "")
        if role is None and policy is None:
            return Presence.ABSENT
        if policy is None or not by or (role is not None and self._policy not in (role.get("token_policies") or ())):
            return Presence.OTHERS
        if by != run:
            return Presence.EARLIER
        if role is None:
            return Presence.ABSENT  # the set-up stopped between policy and role
        return Presence.OURS if same(role, self._wanted()) and policy == self._text(run) else Presence.OTHERS

    def snapshot(self) -> str:
        """Return role and policy as they are."""
        role, policy = self._held()
        return "" if role is None and policy is None else kept(msgspec.to_builtins(_Former(role, policy)))

    def setup(self, old: Credential, run: str) -> Outcome:
        """Switch the method on where it is not, and write policy and role."""
        match self.present(old, run):
            case Presence.OTHERS:
                return refused(f"role {self._role} of auth/{self._mount}, or policy {self._policy},")
            case Presence.OURS:
                pass
            case Presence.ABSENT | Presence.EARLIER:
                self._switch_on(run)
                self._make(run)
        return Done(f"{self.about()} is there", {"role": self._role, "mount": self._mount, "policy": self._policy})

    def check(self, old: Credential, run: str, since: datetime) -> Outcome:
        """Log in with the token given and out again; without one, look whether CI has logged in."""
        if self.present(old, run) is not Presence.OURS:
            return Failed(f"{self._path} is not as this rotation made it", "see who changed it, then `lapse resume`")
        if token := self._tokens():
            return self._log_in(token)
        if (seen := self._seen(since)) is not None:
            return Done(f"{seen} has logged in by role {self._role}", {"seen": seen})
        return Waiting("person", instructions=(
            f"let CI log in once by role {self._role} at auth/{self._mount} (audience {self._audience}), "
            f"then `lapse resume {run.removeprefix('lapse-')}`"
        ))  # fmt: skip

    def undo(self, old: Credential, run: str, former: str) -> Outcome:
        """Remove role and policy, and the method if it was made for them; or write their former selves."""
        _ = old
        client = self._bao.client()
        role, policy = self._held()
        if marked(policy or "") == run:
            was = msgspec.json.decode(former or "{}", type=_Former)
            if role is not None and not same(role, self._wanted()) and role != was.role:
                return changed(self._path)
            if was.role is None:
                delete(client, self._path)
            else:
                write(client, self._path, {n: v for n, v in was.role.items() if v is not None})
            if was.policy is None:
                delete(client, self._policy_path)
            else:
                write(client, self._policy_path, {"policy": was.policy})
        method = self._method()
        if method is not None and marked(str(method.get("description"))) == run and not self._roles():
            delete(client, f"sys/auth/{self._mount}")
        return Done(f"{self._path} is as before")

    def _make(self, run: str) -> None:
        """Write the two so that a crash between them leaves what can be told: the policy's mark says whose both are."""
        client, (held, _) = self._bao.client(), self._held()
        pair: list[tuple[str, dict[str, Any]]] = [
            (self._policy_path, {"policy": self._text(run)}),
            (self._path, self._wanted()),
        ]
        for path, data in pair if held is None else reversed(pair):
            write(client, path, data)

    # ── pieces ─────────────────────────────────────────────────────────────────────────────────────────

    def _held(self) -> tuple[dict[str, Any] | None, str | None]:
        client = self._bao.client()
        role = read(client, self._path)
        policy = read(client, self._policy_path)
        return role, None if policy is None else str(policy.get("policy", ""))

    def _method(self) -> dict[str, Any] | None:
        found = (read(self._bao.client(), "sys/auth") or {}).get(f"{self._mount}/")
        return dict(found) if isinstance(found, dict) else None

    def _fits(self, method: Mapping[str, Any] | None) -> None:
        """Refuse a mount of another sort, or one that trusts another issuer."""
        if method is None:
            return
        if method.get("type") not in {"jwt", "oidc"}:
            raise ProviderError(
                Trouble.REFUSED, f"auth/{self._mount} is of type {method.get('type')}: name another mount"
            )
        config = read(self._bao.client(), f"auth/{self._mount}/config")
        trusts = (config or {}).get("bound_issuer") or (config or {}).get("oidc_discovery_url") or ""
        if config is not None and trusts.rstrip("/") != self._issuer:
            hint = "name another with --set replace.mount=NAME"
            raise ProviderError(Trouble.REFUSED, f"auth/{self._mount} trusts {trusts or 'no issuer by name'}: {hint}")

    def _switch_on(self, run: str) -> None:
        client, method = self._bao.client(), self._method()
        self._fits(method)
        if method is None:
            write(client, f"sys/auth/{self._mount}", {"type": "jwt", "description": f"by Lapse, {mark(run)}"})
        if read(client, f"auth/{self._mount}/config") is None:
            write(client, f"auth/{self._mount}/config", {"bound_issuer": self._issuer, **self._keys()})

    def _keys(self) -> dict[str, object]:
        if file := self._settings.get("keys_file"):
            try:
                return {"jwt_validation_pubkeys": [Path(file).expanduser().read_text()]}
            except OSError as e:
                raise ProviderError(Trouble.REFUSED, f"cannot read keys_file = {file}: {e.strerror}") from None
        jwks = self._settings.get("jwks")
        return {"jwks_url": jwks} if jwks else {"oidc_discovery_url": self._issuer}

    def _wanted(self) -> dict[str, Any]:
        return {
            "role_type": "jwt",
            "user_claim": self._settings.get("user_claim") or "sub",
            "bound_audiences": [self._audience],
            "bound_claims": dict(self._claims),
            "bound_claims_type": "string",
            "token_policies": [self._policy, *self._policies],
            "token_ttl": self._ttl,
            "token_max_ttl": self._ttl,
        }

    def _text(self, run: str) -> str:
        return f"# by Lapse, {mark(run)}\n{self._rules}"

    def _tokens(self) -> str:
        if file := self._settings.get("jwt_file"):
            try:
                return Path(file).expanduser().read_text().strip()
            except OSError as e:
                raise ProviderError(Trouble.DENIED, f"cannot read jwt_file = {file}: {e.strerror}") from None
        variable = self._settings.get("jwt_env", "")
        return os.environ.get(variable, "").strip() if variable else ""

    def _log_in(self, token: str) -> Outcome:
        client = self._bao.client()
        try:
            with bao(f"log in by role {self._role}", token):
                said = client.adapter.post(f"/v1/auth/{self._mount}/login", json={"role": self._role, "jwt": token})
        except ProviderError as e:
            if e.trouble is Trouble.LATER:
                raise
            return Failed(str(e), "give a token that CI made just now, or leave jwt_file and jwt_env out")
        auth = said["auth"]
        with bao("log out again"):
            client.auth.token.revoke_accessor(auth["accessor"])
        lacking = {self._policy, *self._policies} - set(auth.get("token_policies") or ())
        if lacking:
            return Failed(f"the log-in by role {self._role} lacks {', '.join(sorted(lacking))}", "look at the role")
        return Done(f"logged in by role {self._role} with the token given, and out again")

    def _seen(self, since: datetime) -> str | None:
        """Return who has logged in by the role since it was set up; aliases stay when their tokens have ended."""
        client = self._bao.client()
        accessor = (self._method() or {}).get("accessor")
        try:
            with bao("list who has logged in"):
                found = client.adapter.list("/v1/identity/entity-alias/id")["data"]["key_info"]
        except ProviderError as e:
            if e.trouble not in {Trouble.GONE, Trouble.DENIED}:
                raise
            found = {}
        for name, about in found.items():
            if about.get("mount_accessor") == accessor and strings(about.get("metadata")).get("role") == self._role:
                alias = read(client, f"identity/entity-alias/id/{name}") or {}
                touched = moment(alias.get("last_update_time"))
                if touched is not None and touched >= since:
                    return str(about.get("name"))
        return self._living(since)

    def _living(self, since: datetime) -> str | None:
        client = self._bao.client()
        with bao("list the accessors of tokens"):
            accessors = client.auth.token.list_accessors()["data"]["keys"]
        for accessor in accessors[:_MOST]:
            try:
                with bao(f"look up token {accessor}"):
                    about = client.auth.token.lookup_accessor(accessor)["data"]
            except ProviderError as e:
                if e.trouble is not Trouble.GONE:
                    raise
                continue
            made = moment(about.get("creation_time"))
            mine = (
                about.get("path") == f"auth/{self._mount}/login"
                and strings(about.get("meta")).get("role") == self._role
            )
            if mine and made is not None and made >= since.replace(microsecond=0):
                return str(about.get("display_name"))
        return None

    def _roles(self) -> list[str]:
        client = self._bao.client()
        try:
            with bao(f"list the roles of auth/{self._mount}"):
                return [str(n) for n in client.adapter.list(f"/v1/auth/{self._mount}/role")["data"]["keys"]]
        except ProviderError as e:
            if e.trouble is Trouble.GONE:  # an empty list is a 404
                return []
            raise


def _claims(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in filter(None, (one.strip() for one in text.split(","))):
        said = _CLAIM.fullmatch(item)
        if said is None or said.group(1) in found or "*" in said.group(2):
            raise ProviderError(Trouble.REFUSED, f"claims: {item!r} is not of the form name=value, without *")
        found[said.group(1)] = said.group(2)
    return found


def _rules(text: str) -> str:
    """Return the policy for grants such as `read+list secret/data/ci/*`."""
    rules = ""
    for item in filter(None, (one.strip() for one in text.split(","))):
        said = _GRANT.fullmatch(item)
        if said is None:
            raise ProviderError(Trouble.REFUSED, f"grants: {item!r} is not of the form `read secret/data/ci/*`")
        can = ", ".join(f'"{word}"' for word in said.group(1).split("+"))
        rules += f'path "{said.group(2)}" {{ capabilities = [{can}] }}\n'
    return rules


def make(settings: Settings) -> VaultJwtRole:
    """Return the successor for a playbook's slot."""
    return VaultJwtRole(settings)
