"""The Azure admin's login (`DefaultAzureCredential`) and the services that the rotators call.

`AZURE_TENANT_ID`/`AZURE_CLIENT_ID`/`AZURE_CLIENT_SECRET`, a managed identity, `az login`, … log in.
`AZURE_AUTHORITY_HOST` names another cloud's login host, the settings `graph_endpoint`, `arm_endpoint` (with
`graph_scope`, `arm_scope`, `vault_scope`) its services.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from rotators.clouds.rest import Service
from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rotators.door import Route

_LOGIN = "log in again (`az login`, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET)"
_PUBLIC = ("login.microsoftonline.com", "login.microsoftonline.us", "login.chinacloudapi.cn")
_BASES = {"graph": "https://graph.microsoft.com", "arm": "https://management.azure.com"}
_SCOPES = {
    "graph": "https://graph.microsoft.com/.default",
    "arm": "https://management.azure.com/.default",
    "vault": "https://vault.azure.net/.default",
}
_MARGIN = 120
_SOON = timedelta(seconds=10)
_UNREACHED = re.compile(
    r"Authentication failed: .*(Failed to establish|timed out|Connection (reset|aborted)|HTTP Error: (429|5\d\d))"
)


class _Claims(Struct, frozen=True):
    tid: str = ""


class Microsoft:
    """One slot's way to Graph, Resource Manager and Key Vault."""

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; nobody is asked yet."""
        self._settings = settings
        self._tokens: dict[str, tuple[str, float]] = {}

    def service(self, name: str, routes: Sequence[Route], *, base: str = "") -> Service:
        """Return the service `graph`, `arm` or `vault`; the last needs its `base`."""
        base = self._settings.get(f"{name}_endpoint") or base or _BASES[name]
        scope = self._settings.get(f"{name}_scope") or _SCOPES[name]
        return Service(f"Azure ({name})", base, routes, self._settings, lambda: self.token(scope))

    def log_in(self, name: str) -> None:
        """Fetch a token for a service and ask it nothing; no login is `ProviderError(DENIED)`."""
        self.token(self._settings.get(f"{name}_scope") or _SCOPES[name])

    def refuse_leaked(self, secret: str) -> None:
        """Refuse an admin login by the leaked secret itself."""
        own = os.environ.get("AZURE_CLIENT_SECRET", "")
        if own and hmac.compare_digest(own.encode(), secret.encode()):
            reason = "the Azure admin login is the leaked secret itself (AZURE_CLIENT_SECRET): log in as somebody else"
            raise ProviderError(Trouble.REFUSED, reason)

    def token(self, scope: str) -> str:
        """Return an access token of the admin; no login is `ProviderError(DENIED)`, nobody there is `LATER`."""
        known = self._tokens.get(scope)
        if known is not None and known[1] > time.time() + _MARGIN:
            return known[0]
        from azure.core.exceptions import AzureError, ClientAuthenticationError  # 0.4 s, only here
        from azure.identity import DefaultAzureCredential

        host = os.environ.get("AZURE_AUTHORITY_HOST", _PUBLIC[0]).removeprefix("https://").strip("/")
        words: dict[str, bool] = {} if host in _PUBLIC else {"disable_instance_discovery": True}
        try:
            with DefaultAzureCredential(retry_total=2, **words) as login:
                said = login.get_token(scope)
        except ClientAuthenticationError as e:  # also what the chain makes of a login host that does not answer
            if _UNREACHED.search(str(e)):
                raise ProviderError(Trouble.LATER, "Azure's login cannot be reached", _SOON) from None
            refused = re.search(r"AADSTS\d+", str(e))
            reason = (
                f"Azure does not take the admin login ({refused[0]})" if refused else "there is no Azure admin login"
            )
            raise ProviderError(Trouble.DENIED, f"{reason}; {_LOGIN}") from None
        except AzureError:
            raise ProviderError(Trouble.LATER, "Azure's login cannot be reached", _SOON) from None
        self._tokens[scope] = (said.token, float(said.expires_on))
        return said.token

    def tenant(self) -> str:
        """Return the tenant: the setting `tenant`, `AZURE_TENANT_ID`, or what the admin's token says."""
        named = self._settings.get("tenant") or os.environ.get("AZURE_TENANT_ID")
        return named or _tenant(self.token(self._settings.get("graph_scope") or _SCOPES["graph"]))


def _tenant(token: str) -> str:
    """Read the `tid` of a token that was just fetched; nothing is trusted on its account."""
    from base64 import urlsafe_b64decode

    middle = [*token.split("."), "", ""][1]
    try:
        return msgspec.json.decode(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)), type=_Claims).tid
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
        return ""
