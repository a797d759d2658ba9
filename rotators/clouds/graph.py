"""Graph's applications, service principals and their secrets, as far as the rotators read them.

https://learn.microsoft.com/en-us/graph/api/resources/passwordcredential
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from rotators.door import Route

APP = Route("GET", "/v1.0/applications(appId='{app}')")
PRINCIPAL = Route("GET", "/v1.0/servicePrincipals(appId='{app}')")
OBJECT = {
    "applications": Route("GET", "/v1.0/applications/{id}"),
    "servicePrincipals": Route("GET", "/v1.0/servicePrincipals/{id}"),
}
ADD = {
    "applications": Route("POST", "/v1.0/applications/{id}/addPassword"),
    "servicePrincipals": Route("POST", "/v1.0/servicePrincipals/{id}/addPassword"),
}
REMOVE = {
    "applications": Route("POST", "/v1.0/applications/{id}/removePassword"),
    "servicePrincipals": Route("POST", "/v1.0/servicePrincipals/{id}/removePassword"),
}
ANY = Route("GET", "/v1.0/applications")
OWNERS = Route("GET", "/v1.0/applications/{id}/owners")
ROLES = Route("GET", "/v1.0/servicePrincipals(appId='{app}')/appRoleAssignments")
SIGN_INS = Route("GET", "/beta/auditLogs/signIns")
SWITCH = Route("PATCH", "/v1.0/servicePrincipals(appId='{app}')")
SIGN_OUT = Route("POST", "/v1.0/users/{user}/revokeSignInSessions")
ROUTES = (
    APP,
    PRINCIPAL,
    *OBJECT.values(),
    *ADD.values(),
    *REMOVE.values(),
    ANY,
    OWNERS,
    ROLES,
    SIGN_INS,
    SWITCH,
    SIGN_OUT,
)


class Password(Struct, frozen=True, rename="camel"):
    """A client secret: `hint` is its first three characters, `secret_text` is there only in addPassword's answer."""

    key_id: str
    display_name: str | None = None
    hint: str | None = None
    start_date_time: datetime | None = None
    end_date_time: datetime | None = None
    secret_text: str | None = None


class Holder(Struct, frozen=True, rename="camel"):
    """An application or a service principal."""

    id: str
    app_id: str = ""
    display_name: str | None = None
    account_enabled: bool = True
    password_credentials: tuple[Password, ...] = ()


class Named(Struct, frozen=True, rename="camel"):
    """A person or thing in a list."""

    id: str = ""
    display_name: str | None = None
    user_principal_name: str | None = None


class Names(Struct, frozen=True):
    """A page of them."""

    value: tuple[Named, ...] = ()


class Role(Struct, frozen=True, rename="camel"):
    """A right that an application was given at a resource."""

    resource_display_name: str | None = None
    app_role_id: str = ""


class Roles(Struct, frozen=True):
    """A page of them."""

    value: tuple[Role, ...] = ()


class SignIn(Struct, frozen=True, rename="camel"):
    """One log-in of a service principal; `service_principal_credential_key_id` says with which secret."""

    created_date_time: str = ""
    ip_address: str | None = None
    resource_display_name: str | None = None
    service_principal_credential_key_id: str | None = None


class SignIns(Struct, frozen=True):
    """A page of them."""

    value: tuple[SignIn, ...] = ()
