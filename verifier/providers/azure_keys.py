"""Azure Service Bus and Event Hubs policies, App Configuration keys: shared keys that sign a look at their own house.

A Service Bus policy may belong to one queue only. Asked after the whole namespace, such a key is answered as a wrong
one is: dead is said of the namespace's own root policy alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from binascii import Error as Base64Error
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from msgspec.structs import replace

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Dead, Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Microsoft Azure shared keys"
_SB = "https://learn.microsoft.com/en-us/rest/api/servicebus/queues/list-by-namespace"
_SAS = "https://learn.microsoft.com/en-us/azure/service-bus-messaging/service-bus-sas"
_AC = "https://learn.microsoft.com/en-us/azure/azure-app-configuration/rest-api-authentication-hmac"
_QUEUES = "/$Resources/Queues"
_KEYS = "/keys"
_BUS = re.compile(r"[a-z0-9-]{6,50}\.servicebus\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)")
_CONFIG = re.compile(r"[a-z0-9-]{5,50}\.azconfig\.(?:io|azure\.us|azure\.cn)")
_ROOT = "RootManageSharedAccessKey"
_VALID = 600
_XML = {"content-type": "application/xml; charset=utf-8"}
_ATOM = {"content-type": "application/atom+xml;type=feed;charset=utf-8"}
_CHALLENGE = 'HMAC-SHA256 error="invalid_token" error_description="%s", Bearer'


def _detail(text: str) -> str:
    return f"<Error><Code>401</Code><Detail>{text} TrackingId:t, SystemTracker:s</Detail></Error>"


_SERVICE_BUS = Kind(
    id="azure_sb",
    title="Azure Service Bus or Event Hubs key",
    category="cloud",
    docs=_SAS,
    console="https://portal.azure.com/#browse/Microsoft.ServiceBus%2Fnamespaces",
    parts=("secret", "host", "id"),
    optional=("database",),
    shape=(ShapeSpec(pattern="[A-Za-z0-9+/]{43}=", context="rule"),),
    probe="code",
    limits=Limits(rate=2, burst=2, concurrency=2),
    calls=(
        Call(
            kind="azure_sb",
            method="GET",
            scheme="https",
            host="{host}",
            path=_QUEUES,
            reads="lists the name of one queue of the namespace",
            docs=_SB,
        ),
    ),
    rule=(
        Rule(
            verdict="live",
            status=200,
            type="xml",
            text="/$resources/queues",
            note="lists the queues of its namespace",
            source=_SB,
        ),
        Rule(
            verdict="restricted",
            status=(401, 403),
            type="xml",
            text="claim(s) are required to perform this operation",
            note="authenticated; this policy may not list queues",
            confidence=Confidence.OBSERVED,
            source="https://github.com/Azure/azure-service-bus/issues/354",
        ),
        Rule(
            verdict="dead",
            status=401,
            type="xml",
            text=(
                "InvalidSignature: The token has an invalid signature",
                "40103: Invalid authorization token signature",
            ),
            how=How.REVOKED,
            note="this key does not sign for the namespace any more",
            confidence=Confidence.OBSERVED,
            source="https://github.com/sandrinodimattia/RedDog/issues/4",
        ),
        Rule(
            verdict="undecided",
            status=401,
            type="xml",
            text="claim is empty",
            why=Doubt.AMBIGUOUS,
            note="a policy that may only send hears this, and so does a wrong key",
            source="https://github.com/paolosalvatori/ServiceBusExplorer/issues/78",
        ),
    ),
    example=(
        Example(
            status=200,
            verdict="live",
            headers=_ATOM,
            body='<feed xmlns="http://www.w3.org/2005/Atom"><title type="text">Queues</title>'
            "<id>https://ns.servicebus.windows.net/$Resources/Queues?$top=1</id></feed>",
            constructed=True,
        ),
        Example(
            status=401,
            verdict="restricted",
            headers=_XML,
            body=_detail("Unauthorized access. 'Manage,EntityRead' claim(s) are required to perform this operation."),
            constructed=True,
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.REVOKED,
            headers=_XML,
            body=_detail("InvalidSignature: The token has an invalid signature."),
            source="https://github.com/sandrinodimattia/RedDog/issues/4",
        ),
        Example(
            status=401,
            verdict="undecided",
            why=Doubt.AMBIGUOUS,
            headers=_XML,
            body=_detail("claim is empty."),
            source="https://github.com/paolosalvatori/ServiceBusExplorer/issues/78",
        ),
    ),
)
_APP_CONFIG = Kind(
    id="azure_app_config",
    title="Azure App Configuration key",
    category="cloud",
    docs=_AC,
    console="https://portal.azure.com/#browse/Microsoft.AppConfiguration%2FconfigurationStores",
    parts=("secret", "host", "id"),
    shape=(ShapeSpec(pattern="[A-Za-z0-9+/]{36,100}={0,2}", context="rule"),),
    probe="code",
    limits=Limits(rate=2, burst=2, concurrency=2),
    aliases={
        "betterleaks": ("azure-app-configuration-connection-string",),
        "kingfisher": ("betterleaks.azure-app-configuration-connection-string",),
        "trufflehog": ("AzureAppConfigConnectionString",),
    },
    calls=(
        Call(
            kind="azure_app_config",
            method="HEAD",
            scheme="https",
            host="{host}",
            path=_KEYS,
            reads="HEAD: whether the list of names could be read, without reading it",
            docs="https://learn.microsoft.com/en-us/azure/azure-app-configuration/rest-api-keys",
        ),
    ),
    rule=(
        Rule(
            verdict="live",
            status=200,
            type="any",
            header={"sync-token": "=", "content-type": "application/vnd.microsoft.appconfig"},
            note="may read its store",
            source=_AC,
        ),
        Rule(
            verdict="dead",
            status=401,
            type="any",
            header={"www-authenticate": 'error_description="Invalid Credential"'},
            how=How.DELETED,
            arrival=None,
            note="the store has no key of this id",
            source=_AC,
        ),
        Rule(
            verdict="dead",
            status=401,
            type="any",
            header={"www-authenticate": 'error_description="Invalid Signature"'},
            how=How.REVOKED,
            note="the store's key of this id has another secret now",
            source=_AC,
        ),
        Rule(
            verdict="undecided",
            status=401,
            type="any",
            header={"www-authenticate": "HMAC-SHA256"},
            why=Doubt.AMBIGUOUS,
            note="refused: our clock, the name of the host, or access by keys is switched off",
            source=_AC,
        ),
    ),
    example=(
        Example(
            status=200,
            verdict="live",
            headers={
                "sync-token": "zAJw6V16=MDoxMw==;sn=13",
                "content-type": "application/vnd.microsoft.appconfig.keyset+json; charset=utf-8",
            },
            constructed=True,
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.DELETED,
            headers={"www-authenticate": _CHALLENGE % "Invalid Credential"},
            source=_AC,
        ),
        Example(
            status=401,
            verdict="dead",
            how=How.REVOKED,
            headers={"www-authenticate": _CHALLENGE % "Invalid Signature"},
            source=_AC,
        ),
        Example(
            status=401,
            verdict="undecided",
            why=Doubt.AMBIGUOUS,
            headers={"www-authenticate": _CHALLENGE % "The access token has expired"},
            source=_AC,
        ),
    ),
)
KINDS: tuple[Kind, ...] = (_SERVICE_BUS, _APP_CONFIG)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask the namespace, or the store, that the connection string names."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    host = re.sub(r"^[a-z]+://", "", parts["host"].lower()).partition("/")[0]
    wanted = _BUS if kind.id == "azure_sb" else _CONFIG
    if not wanted.fullmatch(host):
        return Undecided(Doubt.INCOMPLETE, note="the host is none of the service's own")
    base = (base_url or f"https://{host}").rstrip("/")
    if kind.id == "azure_sb":
        return await _bus(kind, base, host, parts, door)
    try:
        key = base64.b64decode(parts["secret"], validate=True)
    except Base64Error:
        return Undecided(Doubt.INCOMPLETE, note="the key was cut out badly")
    query = f"{_KEYS}?api-version=1.0"
    headers = sign_store(host, query, parts["id"], key, formatdate(usegmt=True))
    signature = headers["Authorization"].rpartition("Signature=")[2]
    said, _ = await exchange(kind, _request(kind, base + query, headers), door, (parts["secret"], signature))
    return said


async def _bus(kind: Kind, base: str, host: str, parts: dict[str, str], door: Door) -> Verdict:
    token = sign_bus(f"https://{host}/", parts["id"], parts["secret"], int(time.time()) + _VALID)
    url = f"{base}{_QUEUES}?api-version=2017-04&$top=1"
    said, _ = await exchange(kind, _request(kind, url, {"Authorization": token}), door, (parts["secret"], token))
    if isinstance(said, Dead) and parts["id"] != _ROOT:
        note = "refused for the namespace, but the policy may belong to one queue or hub of it"
        return Undecided(Doubt.AMBIGUOUS, replace(said.evidence), note=note)
    return said


def _request(kind: Kind, url: str, headers: dict[str, str]) -> Request:
    return Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="authorization",
    )


def sign_bus(resource: str, name: str, key: str, expires: int) -> str:
    """Return a shared access signature for `resource`; the key signs as the text it is, not decoded."""
    target = quote_plus(resource)
    digest = hmac.digest(key.encode(), f"{target}\n{expires}".encode(), "sha256")
    signature = quote_plus(base64.b64encode(digest).decode())
    return f"SharedAccessSignature sr={target}&sig={signature}&se={expires}&skn={quote(name, safe='')}"


def sign_store(host: str, query: str, name: str, key: bytes, date: str) -> dict[str, str]:
    """Return the headers of a signed HEAD without a body."""
    content = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    text = f"HEAD\n{query}\n{date};{host};{content}"
    signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
    signed = "x-ms-date;host;x-ms-content-sha256"
    return {
        "x-ms-date": date,
        "x-ms-content-sha256": content,
        "Authorization": f"HMAC-SHA256 Credential={name}&SignedHeaders={signed}&Signature={signature}",
    }
