"""A small Google Cloud by its documents: accounts, keys, tokens, audit log, policy, Secret Manager.

Real google-auth signs for it. State is what counts: a disabled account refuses tokens fetched before, a deleted key may
work on for `lag` seconds, ten keys are the limit, the audit log may be late, any call can be throttled.
"""

# every call is answered by a method of one shape
from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sim_web import Asked, Refused, World

TOKEN_LIFE = 3600
LIMIT = 10
ADMIN = "admin@tools.iam.gserviceaccount.com"


def no(status: int, word: str, message: str) -> Refused:
    """Refuse as Google's APIs do."""
    return Refused(status, {"error": {"code": status, "message": message, "status": word}})


def stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _pair(n: int) -> tuple[str, Any]:
    """Key pairs are costly: those of number `n` are made once."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode(), key.public_key()


@dataclass
class Key:
    id: str
    public: Any
    created: float
    type: str = "USER_MANAGED"
    disabled: bool = False
    dies: float | None = None


@dataclass
class Account:
    email: str
    keys: dict[str, Key] = field(default_factory=dict)
    disabled: bool = False
    used: dict[str, float] = field(default_factory=dict)


@dataclass
class Kept:
    """A secret of Secret Manager."""

    annotations: dict[str, str] = field(default_factory=dict)
    etag: str = field(default_factory=lambda: uuid4().hex)
    versions: list[dict[str, str]] = field(default_factory=list)


class Gcp(World):
    """The world. `lag` seconds a deleted key still works; `log_lag` seconds the audit log is late."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, tuple[str, str, float]] = {}
        self.entries: list[tuple[float, dict[str, Any]]] = []
        self.policy: dict[str, list[dict[str, Any]]] = {}
        self.denied: set[str] = set()
        self.secrets: dict[str, Kept] = {}
        self.lag = self.log_lag = 0.0
        self.keys_forbidden = False
        self.url = f"http://127.0.0.1:{self.listen()}"
        self.account(ADMIN)
        self.admin = self.key(ADMIN)

    # what a test does by hand

    def account(self, email: str) -> Account:
        return self.accounts.setdefault(email, Account(email))

    def key(self, email: str, *, agent: str = "console") -> dict[str, str]:
        """Make a key as a colleague would, and return its file."""
        made = Asked("POST", "", {}, {"user-agent": agent}, b"{}")
        data = self._create(self.accounts[email], made)["privateKeyData"]
        return dict(json.loads(b64decode(data)))

    def settings(self, **more: str) -> dict[str, str]:
        """Return the settings that lead a slot here."""
        services = ("iam", "logging", "cloudresourcemanager", "policyanalyzer", "secretmanager")
        return {f"{name}_endpoint": self.url for name in services} | {"allow_private": "127.0.0.1/32", **more}

    def valid(self, token: str) -> bool:
        """Tell whether Google's APIs take this access token now."""
        email, _, until = self.tokens.get(token, ("", "", 0.0))
        return until > self.now() and email in self.accounts and not self.accounts[email].disabled

    # the API

    def answer(self, asked: Asked) -> Any:
        if asked.path == "/token":
            return self._token(asked.form())
        if asked.path.startswith("/service_accounts/v1/metadata/x509/"):
            return dict.fromkeys(self.accounts[asked.path.rsplit("/", 1)[-1]].keys, "certificate")
        caller = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.valid(caller):
            raise no(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        who, key_id, _ = self.tokens[caller]
        for pattern, act, right in _ROUTES:
            found = re.fullmatch(pattern, f"{asked.method} {asked.path}")
            if found:
                if right in self.denied:
                    raise no(
                        403, "PERMISSION_DENIED", f"Permission '{right}' denied on resource (or it may not exist)."
                    )
                self._write_down(act, who, key_id, asked)
                return getattr(self, act)(asked, **found.groupdict())
        raise no(404, "NOT_FOUND", f"no such method: {asked.method} {asked.path}")

    def _token(self, form: dict[str, str]) -> Any:
        bad = Refused(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        key_id = jwt.get_unverified_header(form["assertion"]).get("kid", "")
        owner = next((a for a in self.accounts.values() if key_id in a.keys), None)
        key = owner.keys[key_id] if owner else None
        if owner is None or key is None or key.disabled or (key.dies is not None and key.dies <= self.now()):
            raise bad
        try:
            jwt.decode(form["assertion"], key.public, algorithms=["RS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            raise bad from None
        if owner.disabled:
            raise Refused(400, {"error": "invalid_grant", "error_description": "Account disabled"})
        token = "ya29." + uuid4().hex
        owner.used[key_id] = self.now()
        self.tokens[token] = (owner.email, key_id, self.now() + TOKEN_LIFE)
        return {"access_token": token, "expires_in": TOKEN_LIFE - 1, "token_type": "Bearer"}

    def _write_down(self, act: str, who: str, key_id: str, asked: Asked) -> None:
        if act != "create":
            name = f"//iam.googleapis.com/projects/{_project(who)}/serviceAccounts/{who}/keys/{key_id}"
            self._log(act, who, asked, {"authenticationInfo": {"principalEmail": who, "serviceAccountKeyName": name}})

    def _log(self, method: str, who: str, asked: Asked, more: dict[str, Any]) -> None:
        request = {"callerIp": "198.51.100.7", "callerSuppliedUserAgent": asked.headers.get("user-agent", "")}
        payload = {"methodName": method, "requestMetadata": request, **more}
        self.entries.append((self.now(), payload))

    def _account(self, email: str) -> Account:
        if email not in self.accounts:
            raise no(404, "NOT_FOUND", f"Unknown service account {email}")
        return self.accounts[email]

    def _key(self, email: str, key: str) -> Key:
        found = self._account(email).keys.get(key)
        if found is None or found.dies is not None:
            raise no(404, "NOT_FOUND", f"Service account key {key} does not exist.")
        return found

    def describe(self, asked: Asked, email: str) -> Any:
        found = self._account(email)
        return {"email": email, "uniqueId": "1", "displayName": "build", "disabled": found.disabled}

    def switch(self, asked: Asked, email: str, verb: str) -> Any:
        self._account(email).disabled = verb == "disable"
        return {}

    def test(self, asked: Asked, email: str) -> Any:
        self._account(email)
        return {"permissions": [p for p in asked.json()["permissions"] if p not in self.denied]}

    def test_secret(self, asked: Asked, project: str, secret: str) -> Any:
        there = f"projects/{project}/secrets/{secret}" in self.secrets  # else none, and not a 404: so its documents
        return {"permissions": [p for p in asked.json()["permissions"] if there and p not in self.denied]}

    def test_project(self, asked: Asked, project: str) -> Any:
        return {"permissions": [p for p in asked.json()["permissions"] if p not in self.denied]}

    def list(self, asked: Asked, email: str) -> Any:
        keys = [k for k in self._account(email).keys.values() if k.dies is None]
        wanted = asked.query.get("keyTypes")
        return {"keys": [self._shown(email, k) for k in keys if wanted in (None, k.type)]}

    def get(self, asked: Asked, email: str, key: str) -> Any:
        return self._shown(email, self._key(email, key))

    def create(self, asked: Asked, email: str) -> Any:
        return self._create(self._account(email), asked)

    def _create(self, account: Account, asked: Asked) -> Any:
        if self.keys_forbidden:
            raise no(400, "FAILED_PRECONDITION", "Key creation is not allowed on this service account.")
        if sum(k.dies is None and k.type == "USER_MANAGED" for k in account.keys.values()) >= LIMIT:
            raise no(429, "RESOURCE_EXHAUSTED", "Maximum number of keys on account reached.")
        pem, public = _pair(len(account.keys) % 4 + (0 if account.email == ADMIN else 10))
        key = Key(uuid4().hex, public, self.now())
        account.keys[key.id] = key
        file = {
            "type": "service_account",
            "project_id": _project(account.email),
            "private_key_id": key.id,
            "private_key": pem,
            "client_email": account.email,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        shown = self._shown(account.email, key)
        method = "google.iam.admin.v1.CreateServiceAccountKey"
        self._log(method, "someone", asked, {"response": {"name": shown["name"]}})
        return {**shown, "privateKeyData": b64encode(json.dumps(file).encode()).decode()}

    def delete(self, asked: Asked, email: str, key: str) -> Any:
        self._key(email, key).dies = self.now() + self.lag
        return {}

    def toggle(self, asked: Asked, email: str, key: str, verb: str) -> Any:
        self._key(email, key).disabled = verb == "disable"
        return {}

    def _shown(self, email: str, key: Key) -> dict[str, Any]:
        name = f"projects/{_project(email)}/serviceAccounts/{email}/keys/{key.id}"
        shown = {"name": name, "validAfterTime": stamp(key.created), "keyType": key.type}
        return {**shown, "disabled": True} if key.disabled else shown

    def bindings(self, asked: Asked, project: str) -> Any:
        return {"bindings": self.policy.get(project, [])}

    def last(self, asked: Asked, project: str) -> Any:
        name = asked.query["filter"].split('"')[1]
        key_id, email = name.rsplit("/", 1)[-1], name.split("/")[6]
        used = self.accounts[email].used.get(key_id)
        activity = {"fullResourceName": name, "activity": {"lastAuthenticatedTime": stamp(used)}} if used else None
        return {"activities": [activity]} if activity else {}

    def logged(self, asked: Asked) -> Any:
        words = asked.json()["filter"]
        method = re.search(r'methodName="([^"]+)"', words)
        key = re.search(r'serviceAccountKeyName="([^"]+)"', words)
        since = re.search(r'timestamp>="([^"]+)"', words)
        found = []
        for when, payload in reversed(self.entries):
            info = payload.get("authenticationInfo", {})
            if when > self.now() - self.log_lag or (since and stamp(when) < since[1]):
                continue
            if (method and payload["methodName"] != method[1]) or (key and info.get("serviceAccountKeyName") != key[1]):
                continue
            found.append({"protoPayload": payload, "timestamp": stamp(when)})
        return {"entries": found[: asked.json()["pageSize"]]} if found else {}

    # Secret Manager

    def _kept(self, project: str, secret: str) -> Kept:
        name = f"projects/{project}/secrets/{secret}"
        if name not in self.secrets:
            raise no(404, "NOT_FOUND", f"Secret [{name}] not found.")
        return self.secrets[name]

    def new_secret(self, asked: Asked, project: str) -> Any:
        name = f"projects/{project}/secrets/{asked.query['secretId']}"
        if name in self.secrets:
            raise no(409, "ALREADY_EXISTS", f"Secret [{name}] already exists.")
        self.secrets[name] = Kept(dict(asked.json().get("annotations", {})))
        return {"name": name, "etag": self.secrets[name].etag}

    def secret(self, asked: Asked, project: str, secret: str) -> Any:
        found = self._kept(project, secret)
        return {"name": "s", "etag": found.etag, "annotations": found.annotations}

    def mark(self, asked: Asked, project: str, secret: str) -> Any:
        found, body = self._kept(project, secret), asked.json()
        if body.get("etag", found.etag) != found.etag:
            raise no(400, "FAILED_PRECONDITION", "The etag provided in the request does not match the resource's.")
        found.annotations, found.etag = dict(body["annotations"]), uuid4().hex
        return {"name": "s", "etag": found.etag}

    def add(self, asked: Asked, project: str, secret: str) -> Any:
        found = self._kept(project, secret)
        found.versions.append({"state": "ENABLED", "data": asked.json()["payload"]["data"]})
        return self.version(asked, project, secret, str(len(found.versions)))

    def _version(self, project: str, secret: str, version: str) -> tuple[int, dict[str, str]]:
        found = self._kept(project, secret)
        number = len(found.versions) if version == "latest" else int(version)
        if not 1 <= number <= len(found.versions):
            raise no(404, "NOT_FOUND", f"Secret Version [{version}] not found.")
        return number, found.versions[number - 1]

    def version(self, asked: Asked, project: str, secret: str, version: str) -> Any:
        number, found = self._version(project, secret, version)
        return {"name": f"projects/1/secrets/{secret}/versions/{number}", "state": found["state"]}

    def access(self, asked: Asked, project: str, secret: str, version: str) -> Any:
        number, found = self._version(project, secret, version)
        if found["state"] != "ENABLED":
            raise no(400, "FAILED_PRECONDITION", f"Secret Version [{number}] is in {found['state']} state.")
        return {"name": f"projects/1/secrets/{secret}/versions/{number}", "payload": {"data": found["data"]}}

    def off(self, asked: Asked, project: str, secret: str, version: str) -> Any:
        self._version(project, secret, version)[1]["state"] = "DISABLED"
        return self.version(asked, project, secret, version)


def _project(email: str) -> str:
    return email.partition("@")[2].partition(".")[0]


_SA = r"/v1/projects/-/serviceAccounts/(?P<email>[^/:]+)"
_K = _SA + r"/keys/(?P<key>[^/:]+)"
_S = r"/v1/projects/(?P<project>[^/]+)/secrets"
_V = _S + r"/(?P<secret>[^/:]+)/versions/(?P<version>[^/:]+)"
_ROUTES = (
    (f"GET {_SA}", "describe", "iam.serviceAccounts.get"),
    (f"POST {_SA}:(?P<verb>disable|enable)", "switch", "iam.serviceAccounts.disable"),
    (f"POST {_SA}:testIamPermissions", "test", ""),
    (r"POST /v1/projects/(?P<project>[^/:]+):testIamPermissions", "test_project", "resourcemanager.off"),
    (f"POST {_S}/(?P<secret>[^/:]+):testIamPermissions", "test_secret", ""),
    (f"GET {_SA}/keys", "list", "iam.serviceAccountKeys.list"),
    (f"POST {_SA}/keys", "create", "iam.serviceAccountKeys.create"),
    (f"GET {_K}", "get", "iam.serviceAccountKeys.get"),
    (f"DELETE {_K}", "delete", "iam.serviceAccountKeys.delete"),
    (f"POST {_K}:(?P<verb>disable|enable)", "toggle", "iam.serviceAccountKeys.disable"),
    (r"POST /v1/projects/(?P<project>[^/:]+):getIamPolicy", "bindings", "resourcemanager.projects.getIamPolicy"),
    (
        r"GET /v1/projects/(?P<project>[^/]+)/locations/global/activityTypes/[^/]+/activities:query",
        "last",
        "policyanalyzer",
    ),
    (r"POST /v2/entries:list", "logged", "logging.logEntries.list"),
    (f"POST {_S}", "new_secret", "secretmanager.secrets.create"),
    (f"GET {_S}/(?P<secret>[^/:]+)", "secret", "secretmanager.secrets.get"),
    (f"PATCH {_S}/(?P<secret>[^/:]+)", "mark", "secretmanager.secrets.update"),
    (f"POST {_S}/(?P<secret>[^/:]+):addVersion", "add", "secretmanager.versions.add"),
    (f"GET {_V}", "version", "secretmanager.versions.get"),
    (f"GET {_V}:access", "access", "secretmanager.versions.access"),
    (f"POST {_V}:disable", "off", "secretmanager.versions.disable"),
)
