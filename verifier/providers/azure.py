"""Microsoft Azure: Entra client secrets, storage account keys, Cosmos DB keys.

The token request is four form fields and is built here: azure-identity asks through a client of its own, caches the
token and hides the reply that has to be judged. Sovereign clouds are separate worlds with hosts of their own.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode, urlsafe_b64decode
from binascii import Error as Base64Error
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec.structs import replace

from verifier.asking import exchange, sweep
from verifier.exchange import Call, Request
from verifier.model import Arrival, Doubt, How, Identity, Live, Privilege, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.exchange import Door, Reply
    from verifier.model import Credential, Verdict

TITLE = "Microsoft Azure"
_GRANT = "https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow"
_AADSTS = "https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes"
_PROPERTIES = "https://learn.microsoft.com/en-us/rest/api/storageservices/get-blob-service-properties"
_STORAGE = "https://learn.microsoft.com/en-us/rest/api/storageservices/common-rest-api-error-codes"
_COSMOS = "https://learn.microsoft.com/en-us/rest/api/cosmos-db/access-control-on-cosmosdb-resources"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{2,120}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_STORAGE_VERSION = "2021-08-06"
_COSMOS_VERSION = "2018-12-31"
_XML = {"content-type": "application/xml"}
_ELSEWHERE = frozenset({90002, 900023})

CLOUDS: tuple[tuple[str, str], ...] = (
    ("login.microsoftonline.com", "https://graph.microsoft.com/.default"),
    ("login.microsoftonline.us", "https://graph.microsoft.us/.default"),
    ("login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn/.default"),
)
"""Entra's hosts (public, US government, China) and the resource a token is asked for."""
BLOBS: tuple[str, ...] = ("blob.core.windows.net", "blob.core.usgovcloudapi.net", "blob.core.chinacloudapi.cn")
COSMOS: tuple[str, ...] = ("documents.azure.com", "documents.azure.us", "documents.azure.cn")


def _said(code: int, error: str, text: str) -> str:
    description = f"AADSTS{code}: {text} Trace ID: XXXX Correlation ID: XXXX Timestamp: 2026-01-01 00:00:00Z"
    return msgspec.json.encode({"error": error, "error_description": description, "error_codes": [code]}).decode()


def _aadsts(verdict: Any, codes: int | tuple[int, ...], note: str, **more: Any) -> Rule:  # noqa: ANN401  # as Rule takes
    return Rule(
        verdict=verdict,
        status=(400, 401, 403),
        json={"error_codes[*]": codes},
        has=("error", "error_description"),
        note=note,
        source=more.pop("source", _AADSTS),
        **more,
    )


def _storage_error(code: str, message: str, detail: str = "") -> str:
    more = f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>" if detail else ""
    return f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'


_FAILED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly "
    "including the signature."
)
_SP = Kind(
    id="azure_sp",
    title="Entra application client secret",
    category="cloud",
    docs="https://learn.microsoft.com/en-us/entra/identity-platform/how-to-add-credentials",
    console="https://entra.microsoft.com/#view/Microsoft_AAD_RegisteredApps/ApplicationsListBlade",
    parts=("secret", "id", "tenant"),
    probe="code",
    limits=Limits(rate=5, burst=5, concurrency=4),
    calls=tuple(
        Call(
            kind="azure_sp",
            method="POST",
            scheme="https",
            host=host,
            path="/{tenant}/oauth2/v2.0/token",
            reads="mints an access token that is dropped; the client-credentials grant is a POST by RFC 6749",
            docs=_GRANT,
        )
        for host, _ in CLOUDS
    ),
    rule=(
        Rule(
            verdict="live",
            status=200,
            json={"token_type": "Bearer"},
            has=("access_token", "expires_in"),
            note="the secret was taken for a token",
            source=_GRANT,
        ),
        _aadsts(
            "restricted",
            (53003, 530035, 65001, 50105, 501051, 50158),
            "authenticated, then stopped by conditional access, consent or assignment",
        ),
        _aadsts(
            "dead",
            7000222,
            "the client secret has expired",
            how=How.EXPIRED,
            arrival=Arrival.PROVEN,
        ),
        _aadsts(
            "dead",
            (7000112, 7000113),
            "the application is disabled",
            how=How.DISABLED,
            arrival=Arrival.PROVEN,
        ),
        _aadsts(
            "dead",
            7000215,
            "this string is not a valid secret of the application (it may be the secret's id)",
            how=How.REJECTED,
            arrival=Arrival.PROVEN,
        ),
        Rule(
            verdict="dead",
            status=(400, 401),
            json={"error_codes[*]": 50012},
            words={"error_description": "Invalid client secret"},
            how=How.REJECTED,
            arrival=Arrival.PROVEN,
            note="this string is not a valid secret of the application",
            source=_AADSTS,
        ),
        _aadsts(
            "undecided",
            (700016, 90002, 900023, 7000216, 7000218, 900144),
            "the application or tenant is not the secret's own, or no secret arrived: the secret was not judged",
            why=Doubt.INCOMPLETE,
        ),
        _aadsts("undecided", (90033, 90100, 50196), "Entra asks to come back later", why=Doubt.THROTTLED),
    ),
    example=(
        Example(
            status=200,
            verdict="live",
            body='{"token_type":"Bearer","expires_in":3599,"access_token":"{secret}"}',
            constructed=True,
        ),
        Example(
            status=400,
            verdict="restricted",
            body=_said(53003, "interaction_required", "Access has been blocked by Conditional Access policies."),
            source="https://github.com/MartinIngesen/MSOLSpray/issues/5",
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.EXPIRED,
            body=_said(7000222, "invalid_client", "The provided client secret keys are expired."),
            source="https://github.com/Azure-Samples/ms-identity-python-webapp/issues/67",
        ),
        Example(
            status=400,
            verdict="dead",
            how=How.DISABLED,
            body=_said(7000112, "unauthorized_client", "Application is disabled."),
            constructed=True,
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.REJECTED,
            body=_said(7000215, "invalid_client", "Invalid client secret provided."),
            source="https://github.com/Azure/sap-automation/issues/418",
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.REJECTED,
            body='{"error":"invalid_client","error_codes":[70002,50012],"error_description":"AADSTS70002: Error '
            'validating credentials. AADSTS50012: Invalid client secret is provided."}',
            constructed=True,
        ),
        Example(
            status=400,
            verdict="undecided",
            why=Doubt.INCOMPLETE,
            body=_said(700016, "unauthorized_client", "Application was not found in the directory 'My Tenant ID'."),
            source="https://github.com/12Knocksinna/Office365itpros/issues/23",
        ),
        Example(
            status=400,
            verdict="undecided",
            why=Doubt.THROTTLED,
            body=_said(90033, "temporarily_unavailable", "A transient error has occurred. Please try again."),
            constructed=True,
        ),
        Example(
            status=401,
            verdict="undecided",
            why=Doubt.AMBIGUOUS,
            body=_said(700027, "invalid_client", "Client assertion failed signature validation."),
            constructed=True,
        ),
    ),
)
_KEY = Kind(
    id="azure_storage",
    title="Azure Storage account key",
    category="cloud",
    docs="https://learn.microsoft.com/en-us/azure/storage/common/storage-account-keys-manage",
    parts=("secret", "account"),
    optional=("host",),
    shape=(
        ShapeSpec(pattern=r"[A-Za-z0-9+/]{86}==", context="rule"),
        ShapeSpec(pattern=r"[a-z0-9]{3,24}", part="account", context="rule"),
    ),
    probe="code",
    limits=Limits(rate=10, burst=10, concurrency=8),
    calls=tuple(
        Call(
            kind="azure_storage",
            method="GET",
            scheme="https",
            host="{account}." + suffix,
            path="/?restype=service&comp=properties",
            reads="reads the service's settings (logging, CORS); unlike a listing it names no container or blob",
            docs=_PROPERTIES,
        )
        for suffix in BLOBS
    ),
    rule=(
        Rule(
            verdict="live",
            status=200,
            type="xml",
            text="<StorageServiceProperties>",
            note="the service's settings were read",
            source=_PROPERTIES,
        ),
        Rule(
            verdict="undecided",
            status=403,
            type="xml",
            text=("Request date header too old", "date in the request header"),
            why=Doubt.AMBIGUOUS,
            note="our clock differs from Azure's: set it and ask again",
            confidence=Confidence.OBSERVED,
        ),
        Rule(
            verdict="dead",
            status=403,
            type="xml",
            text="The MAC signature found in the HTTP request",
            how=How.REJECTED,
            arrival=Arrival.PROVEN,
            note="the signature fits neither of the account's keys",
            confidence=Confidence.OBSERVED,
            source="https://github.com/Azure/blobporter/issues/110",
        ),
        Rule(
            verdict="undecided",
            status=403,
            type="xml",
            text=(
                "<Code>KeyBasedAuthenticationNotPermitted</Code>",
                "<Code>AuthorizationFailure</Code>",
                "<Code>IpAuthorizationSourceMismatch</Code>",
                "<Code>AuthorizationSourceIPMismatch</Code>",
                "<Code>AccountIsDisabled</Code>",
            ),
            why=Doubt.BLOCKED,
            note="the account takes no keys now, or not from here: the key was not judged",
            source=_STORAGE,
        ),
        Rule(
            verdict="restricted",
            status=403,
            type="xml",
            text="<Code>AuthorizationPermissionMismatch</Code>",
            note="authenticated, but not allowed this",
            source=_STORAGE,
        ),
        Rule(
            verdict="undecided",
            status=(400, 401),
            type="xml",
            text=("<Code>NoAuthenticationInformation</Code>", "<Code>InvalidAuthenticationInfo</Code>"),
            why=Doubt.INCOMPLETE,
            note="no signature arrived",
            source=_STORAGE,
        ),
    ),
    example=(
        Example(
            status=200,
            verdict="live",
            headers=_XML,
            body='<?xml version="1.0" encoding="utf-8"?><StorageServiceProperties><Logging><Version>1.0</Version>'
            "</Logging></StorageServiceProperties>",
            source=_PROPERTIES,
        ),
        Example(
            status=403,
            verdict="dead",
            how=How.REJECTED,
            headers=_XML,
            body=_storage_error(
                "AuthenticationFailed",
                _FAILED,
                "The MAC signature found in the HTTP request 'XXXX' is not the same as any computed signature.",
            ),
            source="https://github.com/Azure/blobporter/issues/110",
        ),
        Example(
            status=403,
            verdict="undecided",
            why=Doubt.AMBIGUOUS,
            headers=_XML,
            body=_storage_error("AuthenticationFailed", _FAILED, "Request date header too old: 'Mon, 01 Jan 2024'"),
            constructed=True,
        ),
        Example(
            status=403,
            verdict="undecided",
            why=Doubt.BLOCKED,
            headers=_XML,
            body=_storage_error("KeyBasedAuthenticationNotPermitted", "Key based authentication is not permitted"),
            constructed=True,
        ),
        Example(
            status=403,
            verdict="restricted",
            headers=_XML,
            body=_storage_error("AuthorizationPermissionMismatch", "This request is not authorized"),
            constructed=True,
        ),
        Example(
            status=401,
            verdict="undecided",
            why=Doubt.INCOMPLETE,
            headers=_XML,
            body=_storage_error("NoAuthenticationInformation", "Server failed to authenticate the request."),
            constructed=True,
        ),
    ),
)
_DB = Kind(
    id="azure_cosmos",
    title="Azure Cosmos DB account key",
    category="db",
    docs="https://learn.microsoft.com/en-us/azure/cosmos-db/secure-access-to-data",
    parts=("secret", "host"),
    shape=(ShapeSpec(pattern=r"[A-Za-z0-9+/]{86}==", context="rule"),),
    probe="code",
    limits=Limits(rate=5, burst=5, concurrency=4),
    calls=tuple(
        Call(
            kind="azure_cosmos",
            method="GET",
            scheme="https",
            host="{account}." + suffix,
            path="/",
            reads="reads the account's own properties (regions, consistency); names no database",
            docs=_COSMOS,
        )
        for suffix in COSMOS
    ),
    rule=(
        Rule(
            verdict="live",
            status=200,
            has=("userConsistencyPolicy", "writableLocations"),
            note="the account's properties were read",
            source=_COSMOS,
        ),
        Rule(
            verdict="dead",
            status=401,
            json={"code": "Unauthorized"},
            words={"message": "The input authorization token can't serve the request"},
            how=How.REJECTED,
            arrival=Arrival.PROVEN,
            note="the signature fits none of the account's keys",
            source="https://learn.microsoft.com/en-us/azure/cosmos-db/nosql/troubleshoot-unauthorized",
        ),
        Rule(
            verdict="undecided",
            status=401,
            json={"code": "Unauthorized"},
            words={"message": ("Required Header authorization is missing", "Local Authorization is disabled")},
            why=Doubt.BLOCKED,
            note="the account takes no keys, or none arrived: the key was not judged",
        ),
        Rule(
            verdict="undecided",
            status=403,
            json={"code": "Forbidden"},
            why=Doubt.BLOCKED,
            note="the account's firewall, a wrong clock, or keys switched off: the key was not judged",
        ),
    ),
    identity=IdentitySpec(account="id"),
    example=(
        Example(
            status=200,
            verdict="live",
            body='{"id":"shop","writableLocations":[{"name":"West Europe"}],'
            '"userConsistencyPolicy":{"defaultConsistencyLevel":"Session"}}',
            constructed=True,
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.REJECTED,
            body='{"code":"Unauthorized","message":"The input authorization token can\'t serve the request. The wrong '
            'key is being used or the expected payload is not built as per the protocol."}',
            source="https://learn.microsoft.com/en-us/azure/cosmos-db/nosql/troubleshoot-unauthorized",
        ),
        Example(
            status=401,
            verdict="undecided",
            why=Doubt.BLOCKED,
            body='{"code":"Unauthorized","message":"Local Authorization is disabled. Use an AAD token."}',
            constructed=True,
        ),
        Example(
            status=403,
            verdict="undecided",
            why=Doubt.BLOCKED,
            body='{"code":"Forbidden","message":"Request originated from IP 192.0.2.1 through public internet."}',
            constructed=True,
        ),
        Example(
            status=401,
            verdict="undecided",
            why=Doubt.AMBIGUOUS,
            body='{"code":"Unauthorized","message":"something new"}',
            constructed=True,
        ),
    ),
)
KINDS: tuple[Kind, ...] = (_SP, _KEY, _DB)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask Azure, in the cloud that the parts name or in each that may hold the key."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    base = base_url.rstrip("/") if base_url else None
    if kind.id == "azure_sp":
        return await _principal(kind, parts, door, base)
    key = _key(parts["secret"])
    if key is None:
        return Undecided(Doubt.INCOMPLETE, note="the account key is not base64: it was cut out badly")
    if kind.id == "azure_storage":
        return await _storage(kind, parts, key, door, base)
    return await _cosmos(kind, parts, key, door, base)


# ── Entra ──────────────────────────────────────────────────────────────────────────────────────────────


async def _principal(kind: Kind, parts: Mapping[str, str], door: Door, base: str | None) -> Verdict:
    """Ask the public cloud first; the others only where a cloud does not know the tenant."""
    if not _TENANT.fullmatch(parts["tenant"]) or ".." in parts["tenant"]:
        return Undecided(Doubt.INCOMPLETE, note="the tenant is neither an id nor a domain name")
    result: Verdict = Undecided(Doubt.INCOMPLETE)
    for call, (host, scope) in zip(kind.calls, CLOUDS, strict=True):
        url = f"{base or f'https://{host}'}/{parts['tenant']}/oauth2/v2.0/token"
        form = {"grant_type": "client_credentials", "scope": scope}
        form |= {"client_id": parts["id"], "client_secret": parts["secret"]}
        request = Request(
            call=call,
            url=Secret(url),
            shown=url,
            headers={"Content-Type": Secret("application/x-www-form-urlencoded")},
            body=Secret(urlencode(form, errors="replace")),
            carrier="body",
        )
        result, reply = await exchange(kind, request, door, (parts["secret"],))
        if isinstance(result, Live) and not result.restricted and reply is not None:
            return replace(result, identity=claims(reply))
        if base is not None or reply is None or not _elsewhere(reply):
            break
    return result


def _elsewhere(reply: Reply) -> bool:
    """Whether Entra says that the tenant is not in this cloud."""
    codes = _json(reply.body).get("error_codes")
    return isinstance(codes, list) and any(code in _ELSEWHERE for code in codes)


def claims(reply: Reply) -> Identity | None:
    """Read whom a minted token speaks for; the token itself is dropped. `None` when it is no JWT."""
    middle = str(_json(reply.body).get("access_token", "")).split(".")[1:2]
    if not middle:
        return None
    try:
        said = _json(urlsafe_b64decode(middle[0] + "=" * (-len(middle[0]) % 4)))
    except ValueError:
        return None
    roles = said.get("roles")
    scopes = tuple(str(r)[:200] for r in roles) if isinstance(roles, list) else ()
    admin = any(r.endswith(("RoleManagement.ReadWrite.Directory", "Application.ReadWrite.All")) for r in scopes)
    write = any("Write" in r or "Send" in r or "FullControl" in r for r in scopes)
    privilege = Privilege.ADMIN if admin else Privilege.WRITE if write else Privilege.READ if scopes else None
    return Identity(
        principal=_text(said, "app_displayname") or _text(said, "appid"),
        account=_text(said, "appid"),
        organisation=_text(said, "tid"),
        scopes=scopes,
        privilege=privilege or Privilege.UNKNOWN,
    )


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    return value[:200] if isinstance(value, str) and value else None


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ── account keys ───────────────────────────────────────────────────────────────────────────────────────


def _key(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True) or None
    except (Base64Error, ValueError):
        return None


def _now() -> str:
    return format_datetime(datetime.now(UTC), usegmt=True)


async def _storage(kind: Kind, parts: Mapping[str, str], key: bytes, door: Door, base: str | None) -> Verdict:
    account = parts["account"].lower()
    if not _ACCOUNT.fullmatch(account):
        return Undecided(Doubt.INCOMPLETE, note="the account is not the name of a storage account")
    if base is not None:
        return await _blob(kind, kind.calls[0], base, account, key, door)
    host = parts.get("host", "").lower()
    clouds = [(c, s) for c, s in zip(kind.calls, BLOBS, strict=True) if host.endswith(s.removeprefix("blob."))]
    if host and not clouds:
        return Undecided(Doubt.UNSUPPORTED, note="the endpoint is in none of the Azure clouds that we know")
    clouds = clouds or list(zip(kind.calls, BLOBS, strict=True))
    asks = (partial(_blob, kind, call, f"https://{account}.{suffix}", account, key, door) for call, suffix in clouds)
    return await sweep(asks, passed_over=_nowhere)


def _nowhere(said: Undecided) -> bool:
    """Whether the account's name does not exist in a cloud: it cannot hold the key then."""
    return said.why is Doubt.UNREACHABLE and said.note.endswith("has no address (DNS)")


async def _blob(kind: Kind, call: Call, base: str, account: str, key: bytes, door: Door) -> Verdict:
    date = _now()
    signature = sign_storage(account, key, date, f"{urlsplit(base).path}/")
    url = f"{base}/?restype=service&comp=properties"
    headers = {"x-ms-date": date, "x-ms-version": _STORAGE_VERSION}
    headers["Authorization"] = f"SharedKey {account}:{signature}"
    said, _ = await exchange(kind, _request(call, url, headers), door, (b64encode(key).decode(), signature))
    return said


def _request(call: Call, url: str, headers: Mapping[str, str]) -> Request:
    hidden = {name: Secret(value) for name, value in headers.items()}
    return Request(call=call, url=Secret(url), shown=url, headers=hidden, carrier="authorization")


def sign_storage(account: str, key: bytes, date: str, path: str = "/") -> str:
    """Return the Shared Key signature of Get Blob Service Properties at `date`; an emulator's `path` is longer."""
    text = "\n".join(("GET", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{_STORAGE_VERSION}", f"/{account}{path}"))
    return _mac(key, f"{text}\ncomp:properties\nrestype:service")


async def _cosmos(kind: Kind, parts: Mapping[str, str], key: bytes, door: Door, base: str | None) -> Verdict:
    host = re.sub(r"^https?://", "", parts["host"].lower()).partition("/")[0].partition(":")[0]
    calls = zip(kind.calls, COSMOS, strict=True)
    found = next((c for c, suffix in calls if re.fullmatch(rf"[a-z0-9-]+\.{re.escape(suffix)}", host)), None)
    if found is None and base is None:
        return Undecided(Doubt.INCOMPLETE, note="the host is no Cosmos DB account")
    date = _now()
    signature = sign_cosmos(key, date)
    headers = {"x-ms-date": date, "x-ms-version": _COSMOS_VERSION}
    headers["Authorization"] = quote(f"type=master&ver=1.0&sig={signature}", safe="")
    request = _request(found or kind.calls[0], f"{base or f'https://{host}'}/", headers)
    said, _ = await exchange(kind, request, door, (b64encode(key).decode(), signature, quote(signature, safe="")))
    return said


def sign_cosmos(key: bytes, date: str) -> str:
    """Return the master-key signature of reading the account at `date`."""
    return _mac(key, f"get\n\n\n{date.lower()}\n\n")


def _mac(key: bytes, text: str) -> str:
    return b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
