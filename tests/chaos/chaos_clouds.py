"""Google Cloud and Microsoft's clouds, by the simulators of `tests/rotators`; they live beside what is killed."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from chaos_world import Case, World
from sim_entra import Cloud
from sim_gcp import Gcp
from sim_web import Refused

from verifier.providers.azure import sign_storage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from typing import Self

    from sim_web import Asked


def _settings(slot: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {f"{slot}.{name}": value for name, value in settings.items()}


# ── Google ─────────────────────────────────────────────────────────────────────────────────────────────


class Google(Gcp):
    """Lists the public keys of an account as Google does: those that are not deleted."""

    def answer(self, asked: Asked) -> Any:
        start = "/service_accounts/v1/metadata/x509/"
        if asked.path.startswith(start):
            keys = self.accounts[asked.path.removeprefix(start)].keys.values()
            return {k.id: "-----BEGIN CERTIFICATE-----" for k in keys if k.dies is None or k.dies > self.now()}
        return super().answer(asked)

    def takes(self, file: str) -> bool:
        """Whether this key file gets a token now."""
        said = json.loads(file)
        account = self.accounts[said["client_email"]]
        key = account.keys.get(said["private_key_id"])
        return key is not None and not key.disabled and key.dies is None and not account.disabled


@dataclass
class ServiceKey(Case):
    """A key of an account of its own, with a colleague's beside it."""

    world: Any = None
    email: str = ""
    colleagues: tuple[str, ...] = ()

    def works(self, fields: Mapping[str, str]) -> bool:
        return bool(self.world.gcp.takes(fields["credentials_json"]))

    def old_works(self) -> bool:
        return bool(self.world.gcp.takes(self.parts["secret"]))

    def live(self) -> list[str]:
        keys = self.world.gcp.accounts[self.email].keys.values()
        return [k.id for k in keys if k.dies is None and k.id not in self.colleagues]

    def old_name(self) -> str:
        return str(json.loads(self.parts["secret"])["private_key_id"])

    def others(self) -> object:
        keys = self.world.gcp.accounts[self.email].keys
        return all(keys[k].dies is None and not keys[k].disabled for k in self.colleagues)

    def colleague(self) -> None:
        with self.world.gcp.lock:
            self.colleagues += (self.world.gcp.key(self.email)["private_key_id"],)


class GoogleWorld(World):
    playbook = "gcp-service-account-key"
    kind = "gcp_sa"
    imports = ("hvac", "requests", "pyrage", "google.auth", "google.oauth2.service_account", "google.auth.jwt",
               "google.auth.transport.requests", "pyreqwest.client")  # fmt: skip

    def enter(self, stack: ExitStack) -> Self:
        self.gcp = stack.enter_context(Google())
        self.admin = self.folder / "admin.json"
        self.admin.write_text(json.dumps(self.gcp.admin))
        return self

    def env(self) -> dict[str, str]:
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(self.admin)}

    def config(self) -> str:
        return f'[providers.gcp_sa]\nbase_url = "{self.gcp.url}"\n'

    def case(self, n: int) -> ServiceKey:
        email = f"sa-{n}-{token_hex(3)}@prod.iam.gserviceaccount.com"
        with self.gcp.lock:
            self.gcp.account(email)
            file = json.dumps(self.gcp.key(email))
        sets = _settings("issuer", self.gcp.settings(account=email))
        found = ServiceKey({"secret": file}, {"credentials_json": file}, sets, world=self, email=email)
        found.colleague()
        return found

    def __repr__(self) -> str:
        return "google"


# ── Microsoft ──────────────────────────────────────────────────────────────────────────────────────────


class Azure(Cloud):
    """The simulator, and the Blob service's own check of a shared key's signature."""

    def answer(self, asked: Asked) -> Any:
        if asked.query.get("comp") == "properties":
            return self._properties(asked)
        return super().answer(asked)

    def _properties(self, asked: Asked) -> Any:
        found = re.fullmatch(r"SharedKey ([a-z0-9]+):(.+)", asked.headers["authorization"])
        assert found is not None
        account, signature = found[1], found[2]
        owner = next(o for o in self.accounts if o.endswith(f"/{account}"))
        for value, _ in self.accounts[owner].values():
            if sign_storage(account, b64decode(value), asked.headers["x-ms-date"], asked.path) == signature:
                text = "<Logging><Version>1.0</Version></Logging>"
                raise Refused(200, f"<StorageServiceProperties>{text}</StorageServiceProperties>")
        raise Refused(
            403,
            "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>The MAC signature found in the HTTP "
            "request is not the same as any computed signature.</AuthenticationErrorDetail></Error>",
        )

    def serve(self, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        status, body, headers = super().serve(asked)
        return (
            (status, body, headers | {"content-type": "application/xml"})
            if isinstance(body, str)
            else (status, body, headers)
        )


class Microsoft(World):
    imports = ("hvac", "requests", "pyrage", "azure.identity", "azure.core.exceptions", "pyreqwest.client")

    def enter(self, stack: ExitStack) -> Self:
        self.cloud = stack.enter_context(Azure(self.folder))
        return self

    def env(self) -> dict[str, str]:
        return self.cloud.environment()


@dataclass
class AppSecret(Case):
    """A secret of an application of its own, with a colleague's beside it."""

    world: Any = None
    colleagues: tuple[str, ...] = ()

    def _texts(self) -> dict[str, str]:
        app = self.world.cloud.apps[self.parts["id"]]
        return {p.text: p.key_id for p in app.passwords if p.removed is None}

    def works(self, fields: Mapping[str, str]) -> bool:
        return fields["client_secret"] in self._texts()

    def old_works(self) -> bool:
        return self.parts["secret"] in self._texts()

    def live(self) -> list[str]:
        return [k for k in self._texts().values() if k not in self.colleagues]

    def old_name(self) -> str:
        return next(
            p.key_id for p in self.world.cloud.apps[self.parts["id"]].passwords if p.text == self.parts["secret"]
        )

    def others(self) -> object:
        return set(self.colleagues) <= set(self._texts().values())

    def colleague(self) -> None:
        with self.world.cloud.lock:
            made = self.world.cloud.password(self.parts["id"], text=f"~~{token_hex(12)}")
            self.colleagues += (made.key_id,)


class Entra(Microsoft):
    playbook = "azure-app-secret"
    kind = "azure_sp"

    def config(self) -> str:
        return f'[providers.azure_sp]\nbase_url = "{self.cloud.url}"\n'

    def case(self, n: int) -> AppSecret:
        with self.cloud.lock:
            app = self.cloud.app(f"app-{n}")
            secret = self.cloud.password(app, text=f"old{token_hex(16)}").text
        sets = _settings("issuer", self.cloud.settings()) | _settings("sessions.0", self.cloud.settings())
        parts = {"id": app, "secret": secret, "tenant": self.cloud.tenant}
        found = AppSecret(parts, {"client_id": app, "client_secret": secret}, sets, world=self)
        found.colleague()
        return found


@dataclass
class StorageKey(Case):
    """One of two slots leaked. The other slot's value is lent, so it must be the same from beginning to end."""

    world: Any = None
    owner: str = ""
    slot: str = ""

    def _values(self) -> dict[str, str]:
        return {name: value for name, (value, _) in self.world.cloud.accounts[self.owner].items()}

    def works(self, fields: Mapping[str, str]) -> bool:
        return fields["account_key"] in self._values().values()

    def old_works(self) -> bool:
        return self.parts["secret"] in self._values().values()

    def live(self) -> list[str]:
        return [v for v in self._values().values() if v != self._values()[self.slot] or v == self.parts["secret"]]

    def old_name(self) -> str:
        return self.parts["secret"]

    def others(self) -> object:
        return {n: v for n, v in self._values().items() if n != self.slot}


class Storage(Microsoft):
    playbook = "azure-storage-key"
    kind = "azure_storage"

    def config(self) -> str:
        return f'[providers.azure_storage]\nbase_url = "{self.cloud.url}"\n'

    def case(self, n: int) -> StorageKey:
        name = f"store{n}{token_hex(3)}"
        slot = "key1" if n % 2 else "key2"
        with self.cloud.lock:
            owner = self.cloud.account(name)
            secret = self.cloud.accounts[owner][slot][0]
            lent = next(v for n, (v, _) in self.cloud.accounts[owner].items() if n != slot)
        sets = _settings("issuer", self.cloud.settings())
        return StorageKey(
            {"account": name, "secret": secret}, {"account": name, "account_key": secret}, sets, made=lent,
            world=self, owner=owner, slot=slot,
        )  # fmt: skip
