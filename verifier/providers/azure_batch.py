"""Azure Batch account keys: a signed look at one image that Batch supports, which says nothing of the account.

Nothing says dead: `AuthenticationFailed` is said of a key that was changed, of a clock that differs, and of a live key
where access by keys is switched off or bound to a network.
"""

from __future__ import annotations

import base64
import hmac
import re
from email.utils import formatdate
from typing import TYPE_CHECKING

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Confidence, Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Microsoft Azure Batch"
_DOCS = "https://learn.microsoft.com/en-us/rest/api/batchservice/authenticate-requests-to-the-azure-batch-service"
_READS = "https://learn.microsoft.com/en-us/rest/api/batchservice/account/list-supported-images"
_PATH = "/supportedimages"
_QUERY: tuple[tuple[str, str], ...] = (("api-version", "2020-09-01.12.0"), ("maxresults", "1"))
_HOST = re.compile(r"([a-z0-9]{3,24})\.[a-z0-9]{3,40}\.batch\.(?:azure\.com|usgovcloudapi\.net|chinacloudapi\.cn)")
_KEY_BYTES = 64
_UNSET = "\n" * 11  # Content-Encoding to Range: this call sends none of the eleven headers that a signature covers

KINDS: tuple[Kind, ...] = (
    Kind(
        id="azure_batch",
        title="Azure Batch account key",
        category="cloud",
        docs=_DOCS,
        console="https://portal.azure.com/#browse/Microsoft.Batch%2FbatchAccounts",
        parts=("secret", "host"),
        shape=(ShapeSpec(pattern="[A-Za-z0-9+/]{86}==", context="rule"),),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        aliases={"trufflehog": ("AzureBatch",)},
        calls=(
            Call(
                kind="azure_batch",
                method="GET",
                scheme="https",
                host="{host}",
                path=_PATH,
                reads="names one machine image that Batch supports; no pool, job or task is read",
                docs=_READS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                has=("value[0].nodeAgentSKUId", "value[0].imageReference"),
                note="signs for its account",
                confidence=Confidence.UNCONFIRMED,
                source=_READS,
            ),
            Rule(
                verdict="undecided",
                status=(401, 403),
                json={"code": "AuthenticationFailed"},
                why=Doubt.AMBIGUOUS,
                note="refused: another key by now, access by keys is switched off, or our clock differs",
                source=_DOCS,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"odata.metadata":"https://acme.eastus.batch.azure.com/$metadata#supportedimages","value":[{'
                '"nodeAgentSKUId":"batch.node.ubuntu 18.04","osType":"linux","verificationType":"verified",'
                '"imageReference":{"publisher":"canonical","offer":"ubuntuserver","sku":"18.04-lts",'
                '"version":"latest"}}]}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"odata.metadata":"https://acme.eastus.batch.azure.com/$metadata#Microsoft.Azure.Batch.Protocol.'
                'Entities.Container.errors/@Element","code":"AuthenticationFailed","message":{"lang":"en-US",'
                '"value":"Server failed to authenticate the request."}}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"AccountIsDisabled","message":{"lang":"en-US","value":"The account is disabled."}}',
                constructed=True,
            ),
            Example(status=503, verdict="undecided", why=Doubt.UNREACHABLE, body="", constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask the account that the host names for one supported image."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    host = re.sub(r"^https?://", "", parts["host"].lower()).partition("/")[0]
    named = _HOST.fullmatch(host)
    if named is None:
        return Undecided(Doubt.INCOMPLETE, note="the host is none of Azure Batch's")
    try:
        key = base64.b64decode(parts["secret"], validate=True)
    except ValueError:  # no base64, or not even ASCII
        key = b""
    if len(key) != _KEY_BYTES:
        return Undecided(Doubt.INCOMPLETE, note="the key was cut out badly")
    base = (base_url or f"https://{host}").rstrip("/")
    date = formatdate(usegmt=True)
    signature = sign(key, named.group(1), date, _PATH, _QUERY)
    url = f"{base}{_PATH}?" + "&".join(f"{name}={value}" for name, value in _QUERY)
    request = Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={"ocp-date": Secret(date), "Authorization": Secret(f"SharedKey {named.group(1)}:{signature}")},
        carrier="authorization",
    )
    said, _ = await exchange(kind, request, door, (parts["secret"], signature))
    return said


def sign(key: bytes, account: str, date: str, path: str, query: tuple[tuple[str, str], ...]) -> str:
    """Return the signature of a GET that carries `ocp-date` and nothing else: HMAC-SHA256, in base64."""
    resource = f"/{account}{path}".lower() + "".join(f"\n{name}:{value}" for name, value in sorted(query))
    text = f"GET\n{_UNSET}ocp-date:{date}\n{resource}"
    return base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
