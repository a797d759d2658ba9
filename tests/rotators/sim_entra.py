"""A small Microsoft cloud by its documents: Entra's log-in and Graph, Resource Manager's storage accounts, Key Vault.

Real azure-identity logs in, over TLS. The log-in has two replicas that take turns and hear of a new or removed secret
`lag` seconds late, so an answer flaps; Graph shows a secret's text once; regenerating a slot kills its value at once.
"""

# every call is answered by a method of one shape
from __future__ import annotations

import json
import re
import ssl
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_bytes, token_urlsafe
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from servers import certificate
from sim_web import Asked, Refused, World

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_LIFE = 3600


def no(status: int, code: str, message: str = "") -> Refused:
    """Refuse as Graph, Resource Manager and Key Vault do."""
    return Refused(status, {"error": {"code": code, "message": message or code}})


def aadsts(status: int, code: int, error: str, text: str) -> Refused:
    """Refuse as the log-in does."""
    return Refused(status, {"error": error, "error_codes": [code], "error_description": f"AADSTS{code}: {text}"})


def stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Password:
    key_id: str
    text: str
    name: str
    made: float
    ends: float
    hint: str | None = None
    removed: float | None = None


@dataclass
class Holder:
    """An application or a service principal."""

    id: str
    app_id: str
    name: str
    passwords: list[Password] = field(default_factory=list)
    enabled: bool = True


@dataclass
class Version:
    version: str
    value: str
    tags: dict[str, str]
    created: int


class Cloud(World):
    """The world. Log in at `authority` (TLS, certificate in `ca`), call everything else at `url`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca = folder / "server.crt"
        tls.load_cert_chain(self.ca, folder / "server.key")
        self.tenant = str(uuid4())
        self.lag = 0.0
        self.turn = 0
        self.denied: set[str] = set()
        self.tokens: dict[str, tuple[str, float]] = {}
        self.apps: dict[str, Holder] = {}
        self.principals: dict[str, Holder] = {}
        self.sign_ins: list[dict[str, Any]] = []
        self.signed_out: list[str] = []
        self.accounts: dict[str, dict[str, tuple[str, float]]] = {}
        self.page = 50
        self.vault: dict[str, list[Version]] = {}
        self.rights: list[dict[str, list[str]]] = [{"actions": ["*"], "notActions": []}]
        self.deleted: set[str] = set()
        self.authority = f"https://localhost:{self.listen(tls)}"
        self.url = f"http://127.0.0.1:{self.listen()}"
        self.admin = self.app("admin")
        self.admin_secret = self.password(self.admin).text

    # what a test does by hand

    def app(self, name: str) -> str:
        """Register an application with its service principal; return the application id."""
        app = str(uuid4())
        self.apps[app] = Holder(str(uuid4()), app, name)
        self.principals[app] = Holder(str(uuid4()), app, name)
        return app

    def password(self, app: str, name: str = "by hand", text: str = "", *, on_principal: bool = False) -> Password:
        """Add a secret as a colleague would; it counts as old."""
        holder = (self.principals if on_principal else self.apps)[app]
        text = text or token_urlsafe(30)
        made = Password(str(uuid4()), text, name, self.now() - 86400, self.now() + 86400, text[:3])
        holder.passwords.append(made)
        return made

    def account(self, name: str) -> str:
        """Make a storage account; return its resource id."""
        slots = {slot: (b64encode(token_bytes(64)).decode(), self.now() - 86400) for slot in ("key1", "key2")}
        owner = f"/subscriptions/sub-1/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/{name}"
        self.accounts[owner] = slots
        return owner

    def environment(self) -> dict[str, str]:
        """Return the variables by which azure-identity logs in here."""
        return {
            "AZURE_AUTHORITY_HOST": self.authority,
            "AZURE_TENANT_ID": self.tenant,
            "AZURE_CLIENT_ID": self.admin,
            "AZURE_CLIENT_SECRET": self.admin_secret,
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "REQUESTS_CA_BUNDLE": str(self.ca),
        }

    def settings(self, **more: str) -> dict[str, str]:
        """Return the settings that lead a slot here."""
        base = {"graph_endpoint": self.url, "arm_endpoint": self.url, "vault_endpoint": self.url}
        return {**base, "allow_private": "127.0.0.1/32", **more}

    # the log-in

    def answer(self, asked: Asked) -> Any:
        base = f"{self.authority}/{self.tenant}"
        if asked.path.endswith("/.well-known/openid-configuration"):
            end = {n: f"{base}/oauth2/v2.0/{n.partition('_')[0]}" for n in ("token_endpoint", "authorize_endpoint")}
            end["authorization_endpoint"] = end.pop("authorize_endpoint")
            return {"issuer": f"{base}/v2.0", "tenant_region_scope": "NA", **end}
        if asked.path.endswith("/oauth2/v2.0/token"):
            return self._log_in(asked.form())
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        _, until = self.tokens.get(token, ("", 0.0))
        if until <= self.now():
            raise no(401, "InvalidAuthenticationToken", "Access token is empty or has expired.")
        for pattern, act, right in _ROUTES:
            found = re.fullmatch(pattern, f"{asked.method} {asked.path}")
            if found:
                if right in self.denied:
                    raise no(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
                return getattr(self, act)(asked, **found.groupdict())
        raise no(404, "NotFound", f"{asked.method} {asked.path}")

    def _log_in(self, form: dict[str, str]) -> Any:
        app = form.get("client_id", "")
        if app not in self.apps and app not in self.principals:
            raise aadsts(400, 700016, "unauthorized_client", "Application was not found in the directory.")
        principal = self.principals[app]
        if not principal.enabled:
            raise aadsts(401, 7000112, "unauthorized_client", "Application is disabled.")
        self.turn += 1
        behind = self.lag if self.turn % 2 else 0.0
        then = self.now() - behind
        holders = [h for h in (self.apps.get(app), principal) if h is not None]
        for password in (p for h in holders for p in h.passwords if p.text == form.get("client_secret")):
            if password.made <= then and (password.removed is None or password.removed > then):
                if password.ends <= self.now():
                    raise aadsts(401, 7000222, "invalid_client", "The provided client secret keys are expired.")
                return self._token(app, password.key_id)
        raise aadsts(401, 7000215, "invalid_client", "Invalid client secret provided.")

    def _token(self, app: str, key_id: str) -> Any:
        claims = urlsafe_b64encode(json.dumps({"tid": self.tenant, "jti": str(uuid4())}).encode()).decode().rstrip("=")
        token = f"h.{claims}.s"
        self.tokens[token] = (app, self.now() + TOKEN_LIFE)
        self.sign_ins.append(
            {
                "createdDateTime": stamp(self.now()),
                "ipAddress": "198.51.100.9",
                "resourceDisplayName": "Microsoft Graph",
                "servicePrincipalCredentialKeyId": key_id,
                "app": app,
            }
        )
        return {"token_type": "Bearer", "expires_in": TOKEN_LIFE - 1, "access_token": token}

    # Graph

    def _holder(self, kind: str, words: dict[str, str]) -> Holder:
        holders = self.apps if kind == "applications" else self.principals
        for holder in holders.values():
            if holder.app_id == words.get("app") or holder.id == words.get("id"):
                return holder
        raise no(404, "Request_ResourceNotFound", "Resource does not exist.")

    def read(self, asked: Asked, kind: str, **words: str) -> Any:
        holder = self._holder(kind, words)
        shown = {"id": holder.id, "appId": holder.app_id, "displayName": holder.name}
        more = {"accountEnabled": holder.enabled} if kind == "servicePrincipals" else {}
        return {**shown, **more, "passwordCredentials": [self._shown(p) for p in holder.passwords if p.removed is None]}

    def _shown(self, p: Password) -> dict[str, Any]:
        times = {"startDateTime": stamp(p.made), "endDateTime": stamp(p.ends)}
        return {"keyId": p.key_id, "displayName": p.name, "hint": p.hint, "secretText": None, **times}

    def add(self, asked: Asked, kind: str, **words: str) -> Any:
        wanted = asked.json()["passwordCredential"]
        ends = datetime.fromisoformat(wanted["endDateTime"]).timestamp()
        text = token_urlsafe(30)
        made = Password(str(uuid4()), text, wanted["displayName"], self.now(), ends, text[:3])
        self._holder(kind, words).passwords.append(made)
        return {**self._shown(made), "secretText": text}

    def remove(self, asked: Asked, kind: str, **words: str) -> Any:
        for password in self._holder(kind, words).passwords:
            if password.key_id == asked.json()["keyId"] and password.removed is None:
                password.removed = self.now()
                return None
        raise no(400, "Request_BadRequest", "No password credential found with keyId.")

    def some(self, asked: Asked) -> Any:
        return {"value": [{"id": h.id} for h in self.apps.values()][:1]}

    def owners(self, asked: Asked, **words: str) -> Any:
        return {"value": [{"id": "1", "userPrincipalName": "ada@example.com"}]}

    def roles(self, asked: Asked, **words: str) -> Any:
        return {"value": [{"resourceDisplayName": "Microsoft Graph", "appRoleId": "mail-read"}]}

    def signs(self, asked: Asked) -> Any:
        app = asked.query["$filter"].split("appId eq '")[1].split("'")[0]
        since = re.search(r"createdDateTime ge (\S+)", asked.query["$filter"])
        found = [s for s in self.sign_ins if s["app"] == app and (since is None or s["createdDateTime"] >= since[1])]
        return {"value": found[-int(asked.query["$top"]) :]}

    def switch(self, asked: Asked, **words: str) -> Any:
        self._holder("servicePrincipals", words).enabled = asked.json()["accountEnabled"]

    def sign_out(self, asked: Asked, user: str) -> Any:
        self.signed_out.append(user)
        return {"value": True}

    # Resource Manager

    def subscriptions(self, asked: Asked) -> Any:
        owners = {owner.split("/")[2] for owner in self.accounts}
        return {"value": [{"subscriptionId": s} for s in sorted({"sub-0", *owners})]}

    def listed(self, asked: Asked, sub: str) -> Any:
        every = [o for o in self.accounts if o.split("/")[2] == sub]
        start = int(asked.query.get("$skiptoken", "0"))
        shown = [{"id": o, "name": o.rsplit("/", 1)[-1], "location": "westeurope"} for o in every]
        more = {"nextLink": f"{self.url}/x?%24skiptoken={start + self.page}"} if len(every) > start + self.page else {}
        return {"value": shown[start : start + self.page], **more}

    def _slots(self, path: str) -> dict[str, tuple[str, float]]:
        if path not in self.accounts:
            raise no(404, "ResourceNotFound", "The storage account was not found.")
        return self.accounts[path]

    def about(self, asked: Asked, path: str) -> Any:
        self._slots(path)
        properties = {"publicNetworkAccess": "Enabled", "allowSharedKeyAccess": True}
        return {"id": path, "location": "westeurope", "tags": {"team": "web"}, "properties": properties}

    def keys(self, asked: Asked, path: str) -> Any:
        slots = self._slots(path).items()
        return {"keys": [{"keyName": n, "value": v, "creationTime": stamp(t)} for n, (v, t) in slots]}

    def may(self, asked: Asked, path: str) -> Any:
        self._slots(path)
        return {"value": self.rights}

    def regenerate(self, asked: Asked, path: str) -> Any:
        self._slots(path)[asked.json()["keyName"]] = (b64encode(token_bytes(64)).decode(), self.now())
        return self.keys(asked, path)

    # Key Vault

    def _secret(self, name: str, v: Version, *, value: bool = True) -> dict[str, Any]:
        shown = {"id": f"{self.url}/secrets/{name}/{v.version}", "tags": v.tags}
        shown["attributes"] = {"created": v.created, "enabled": True}
        return {**shown, "value": v.value} if value else shown

    def _kept(self, name: str) -> list[Version]:
        if not self.vault.get(name):
            raise no(404, "SecretNotFound", f"A secret with name {name} was not found in this key vault.")
        return self.vault[name]

    def secret(self, asked: Asked, name: str) -> Any:
        return self._secret(name, self._kept(name)[-1])

    def version(self, asked: Asked, name: str, version: str) -> Any:
        for found in self._kept(name):
            if found.version == version:
                return self._secret(name, found)
        raise no(404, "SecretNotFound", f"version {version}")

    def versions(self, asked: Asked, name: str) -> Any:
        every, start = self._kept(name), int(asked.query.get("$skiptoken", "0"))
        more = {"nextLink": f"{self.url}/x?api-version=7.4&$skiptoken={start + self.page}"}
        shown = [self._secret(name, v, value=False) for v in every[start : start + self.page]]
        return {"value": shown, **(more if len(every) > start + self.page else {"nextLink": None})}

    def set(self, asked: Asked, name: str) -> Any:
        if name in self.deleted:
            raise no(409, "Conflict", "Secret is currently in a deleted but recoverable state.")
        said = asked.json()
        made = Version(uuid4().hex, said["value"], said.get("tags", {}), int(self.now()))
        self.vault.setdefault(name, []).append(made)
        return self._secret(name, made)

    def drop(self, asked: Asked, name: str) -> Any:
        shown = self.secret(asked, name)
        del self.vault[name]
        self.deleted.add(name)
        return shown


_KIND = r"/v1.0/(?P<kind>applications|servicePrincipals)"
_BY_APP = r"\(appId='(?P<app>[^']+)'\)"
_BY_ID = r"/(?P<id>[^/]+)"
_STORAGE = r"(?P<path>/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Storage/storageAccounts/[^/]+)"
_ROUTES = (
    (r"GET /v1.0/applications", "some", "Application.Read.All"),
    (f"GET {_KIND}{_BY_APP}", "read", "Application.Read.All"),
    (f"GET {_KIND}{_BY_ID}", "read", "Application.Read.All"),
    (f"POST {_KIND}{_BY_ID}/addPassword", "add", "Application.ReadWrite.OwnedBy"),
    (f"POST {_KIND}{_BY_ID}/removePassword", "remove", "Application.ReadWrite.OwnedBy"),
    (f"GET /v1.0/applications{_BY_ID}/owners", "owners", "Application.Read.All"),
    (rf"GET /v1.0/servicePrincipals{_BY_APP}/appRoleAssignments", "roles", "Application.Read.All"),
    (r"GET /beta/auditLogs/signIns", "signs", "AuditLog.Read.All"),
    (rf"PATCH /v1.0/servicePrincipals{_BY_APP}", "switch", "Application.ReadWrite.OwnedBy"),
    (r"POST /v1.0/users/(?P<user>[^/]+)/revokeSignInSessions", "sign_out", "User.RevokeSessions.All"),
    (r"GET /subscriptions", "subscriptions", "arm"),
    (r"GET /subscriptions/(?P<sub>[^/]+)/providers/Microsoft.Storage/storageAccounts", "listed", "arm"),
    (f"GET {_STORAGE}", "about", "arm.read"),
    (f"POST {_STORAGE}/listKeys", "keys", "arm.keys"),
    (f"GET {_STORAGE}/providers/Microsoft.Authorization/permissions", "may", "arm.permissions"),
    (f"POST {_STORAGE}/regenerateKey", "regenerate", "arm.regenerate"),
    (r"GET /secrets/(?P<name>[^/]+)", "secret", "vault"),
    (r"PUT /secrets/(?P<name>[^/]+)", "set", "vault.set"),
    (r"DELETE /secrets/(?P<name>[^/]+)", "drop", "vault.delete"),
    (r"GET /secrets/(?P<name>[^/]+)/versions", "versions", "vault.list"),
    (r"GET /secrets/(?P<name>[^/]+)/(?P<version>[^/]+)", "version", "vault"),
)
