"""The Google Cloud admin's login (Application Default Credentials) and the services that the rotators call.

`GOOGLE_APPLICATION_CREDENTIALS`, `gcloud auth application-default login` or an attached service account log in.
Endpoints are gcloud's own variables, `CLOUDSDK_API_ENDPOINT_OVERRIDES_IAM` and so on, or the settings `iam_endpoint`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from rotators.clouds.rest import Service
from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rotators.door import Route
    from verifier.model import Credential

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOGIN = "log in again (`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS)"


class KeyFile(Struct, frozen=True):
    """The fields of a service-account key file that name the key."""

    client_email: str
    private_key_id: str
    project_id: str = ""


def key_file(old: Credential) -> KeyFile:
    """Read which key of which account a leaked key file holds; one that does not say is `ProviderError(REFUSED)`."""
    try:
        found = msgspec.json.decode(old.parts["secret"].reveal().encode("utf-8", "replace"), type=KeyFile)
    except (msgspec.DecodeError, msgspec.ValidationError):
        reason = "the key file names no client_email and private_key_id: it cannot be told which key it is"
        raise ProviderError(Trouble.REFUSED, reason) from None
    if not found.client_email or not found.private_key_id:
        raise ProviderError(Trouble.REFUSED, "the key file's client_email or private_key_id is empty")
    return found


def project_of(email: str) -> str:
    """Return the project that an account's address names, empty for one that names none."""
    domain = email.partition("@")[2]
    return domain.removesuffix(".iam.gserviceaccount.com") if domain.endswith(".iam.gserviceaccount.com") else ""


class _Granted(Struct, frozen=True):
    permissions: tuple[str, ...] = ()


def lacking(service: Service, route: Route, where: str, fill: Mapping[str, str], wanted: Iterable[str]) -> list[str]:
    """Ask a `:testIamPermissions` which of the rights that are `wanted` the admin does not have on `where`."""
    names = sorted(set(wanted))
    said = service.ask(
        route, _Granted, f"say what the admin may do with {where}", fill=fill, json={"permissions": names}
    )
    return sorted(set(names) - set(said.permissions))


class Google:
    """One slot's way to Google Cloud."""

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; nobody is asked yet."""
        self._settings = settings
        self._token = ""

    def service(self, name: str, routes: Sequence[Route], *, leaked: str = "") -> Service:
        """Return the service `name` (`iam`, `logging`, …); `leaked` is the key id that must not be the admin's own."""
        variable = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name.upper()}"
        base = self._settings.get(f"{name}_endpoint") or os.environ.get(variable) or f"https://{name}.googleapis.com"
        return Service(f"Google ({name})", base, routes, self._settings, lambda: self.token(leaked))

    def token(self, leaked: str = "") -> str:
        """Return an access token of the admin; no login is `ProviderError(DENIED)`, the leaked key is `REFUSED`."""
        import google.auth  # 0.2 s, and only where Google is called
        import requests
        from google.auth import exceptions as e
        from google.auth.transport.requests import Request

        try:
            found, _ = google.auth.default(scopes=[_SCOPE])
            signer = getattr(found, "signer", None)
            if leaked and getattr(signer, "key_id", None) == leaked:
                reason = "the Google admin login is the leaked key itself: log in as somebody else"
                raise ProviderError(Trouble.REFUSED, reason)
            if not self._token:
                with requests.Session() as session:
                    found.refresh(Request(session))  # type: ignore[no-untyped-call]  # google-auth publishes no types here
                self._token = str(found.token)
        except e.TransportError:
            raise ProviderError(Trouble.LATER, "Google's token endpoint cannot be reached") from None
        except e.DefaultCredentialsError:
            raise ProviderError(Trouble.DENIED, f"no Google admin login; {_LOGIN}") from None
        except e.GoogleAuthError as error:
            if error.retryable:
                raise ProviderError(Trouble.LATER, "Google's token endpoint asks to come back later") from None
            raise ProviderError(Trouble.DENIED, f"Google does not take the admin login; {_LOGIN}") from None
        return self._token
