"""Azure Storage SAS addresses: what the address itself says first, then a HEAD on it, which carries no content.

The dates, rights and addresses stand in the query in clear; only the signature is secret. A signature from a rotated
account key is answered `AuthenticationFailed`, and so is one whose time is over or has not come.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from msgspec.structs import replace

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Arrival, Dead, Doubt, Evidence, How, Identity, Live, Privilege, Undecided
from verifier.secret import Secret
from verifier.spec import Example, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Microsoft Azure Storage SAS"
_DOCS = "https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas"
_CODES = "https://learn.microsoft.com/en-us/rest/api/storageservices/common-rest-api-error-codes"
_HEAD = "https://learn.microsoft.com/en-us/rest/api/storageservices/get-blob-properties"
_HOST = re.compile(r"[a-z0-9]{3,24}\.(?:blob|file|dfs)\.core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)")
_DEEPEST = 8
_PATHS = tuple("/" + "/".join("{" + c + "}" for c in "abcdefgh"[:n]) for n in range(1, _DEEPEST + 1))
_SKEW = timedelta(minutes=15)

KINDS: tuple[Kind, ...] = (
    Kind(
        id="azure_sas",
        title="Azure Storage SAS address",
        category="cloud",
        docs=_DOCS,
        console="https://portal.azure.com/#browse/Microsoft.Storage%2FStorageAccounts",
        parts=("secret",),
        shape=(
            ShapeSpec(
                prefix=("https://",),
                pattern=r"https://[^/?\s]+\.(?:blob|file|queue|table|dfs|web)\.core\.[a-z.]+/\S*[?&]sig=\S+",
            ),
        ),
        probe="code",
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=tuple(
            Call(
                kind="azure_sas",
                method="HEAD",
                scheme="https",
                host="{host}",
                path=path,
                reads="HEAD: the size and date of one blob, never its content",
                docs=_HEAD,
            )
            for path in _PATHS
        ),
        rule=(
            Rule(
                verdict="live",
                status=(200, 206),
                type="any",
                header={"x-ms-version": "20", "x-ms-request-id": "-", "etag": "0x"},
                note="opens what it names",
                source=_HEAD,
            ),
            Rule(
                verdict="restricted",
                status=404,
                type="any",
                header={
                    "x-ms-error-code": (
                        "BlobNotFound",
                        "ContainerNotFound",
                        "ResourceNotFound",
                        "ShareNotFound",
                        "PathNotFound",
                        "FilesystemNotFound",
                    )
                },
                note="let in; what it names is gone",
                source=_CODES,
            ),
            Rule(
                verdict="restricted",
                status=403,
                type="any",
                header={
                    "x-ms-error-code": (
                        "AuthorizationPermissionMismatch",
                        "AuthorizationSourceIPMismatch",
                        "AuthorizationProtocolMismatch",
                        "AuthorizationResourceTypeMismatch",
                        "AuthorizationServiceMismatch",
                    )
                },
                note="the signature stands; it opens something else, or from elsewhere",
                source=_CODES,
            ),
            Rule(
                verdict="dead",
                status=403,
                type="any",
                header={"x-ms-error-code": "AuthenticationFailed"},
                how=How.REVOKED,
                note="the signature does not stand any more: its key was rotated or its policy removed",
                source=_CODES,
            ),
            Rule(
                verdict="undecided",
                status=(400, 403, 409),
                type="any",
                header={"x-ms-error-code": ("AuthorizationFailure", "PublicAccessNotPermitted", "AccountIsDisabled")},
                why=Doubt.BLOCKED,
                note="a network rule or the account's state: the signature was not judged",
                source=_CODES,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                headers={
                    "x-ms-version": "2023-11-03",
                    "x-ms-request-id": "1-2",
                    "etag": '"0x8D"',
                    "content-type": "text/plain",
                },
                constructed=True,
            ),
            Example(status=404, verdict="restricted", headers={"x-ms-error-code": "BlobNotFound"}, constructed=True),
            Example(
                status=403,
                verdict="restricted",
                headers={"x-ms-error-code": "AuthorizationPermissionMismatch"},
                constructed=True,
            ),
            Example(
                status=403,
                verdict="dead",
                how=How.REVOKED,
                headers={"x-ms-error-code": "AuthenticationFailed"},
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.BLOCKED,
                headers={"x-ms-error-code": "AuthorizationFailure"},
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Read the address, then ask it."""
    address = credential.parts["secret"].reveal().strip()
    try:
        parts = urlsplit(address)
    except ValueError:
        return Undecided(Doubt.INCOMPLETE, note="the address was cut out badly")
    said = dict(parse_qsl(parts.query))
    doubt = _unfit(parts.hostname or "", parts.path, said)
    if doubt is not None:
        return doubt
    steps = parts.path.strip("/").count("/")
    place = (base_url or f"https://{parts.hostname}").rstrip("/")
    request = Request(
        call=kind.calls[steps],
        url=Secret(f"{place}{parts.path}?{parts.query}"),
        shown=f"{place}{parts.path}",
        headers={"x-ms-version": Secret("2021-08-06")},
        carrier="url",
    )
    verdict, _ = await exchange(kind, request, door, (address, said["sig"]))
    return replace(verdict, identity=identity(parts.hostname or "", said)) if isinstance(verdict, Live) else verdict


def _unfit(host: str, path: str, said: Mapping[str, str]) -> Dead | Undecided | None:
    """Return the verdict that needs no call, `None` when the address can be asked."""
    if not _HOST.fullmatch(host):
        return Undecided(Doubt.UNSUPPORTED, note="only blob, file and data-lake addresses can be looked at with HEAD")
    if not said.get("sig") or not path.strip("/"):
        return Undecided(Doubt.INCOMPLETE, note="the address has no signature, or names nothing in the account")
    if path.strip("/").count("/") >= _DEEPEST or "%2f" in path.lower():
        return Undecided(Doubt.UNSUPPORTED, note="the name lies deeper than the list of calls reaches")
    now = datetime.now(UTC)
    ends, begins = _time(said.get("se")), _time(said.get("st"))
    if ends is not None and ends + _SKEW < now:
        return _ended(ends, now)
    if begins is not None and begins - _SKEW > now:
        return Undecided(Doubt.AMBIGUOUS, note=f"its own date says that it begins on {begins:%Y-%m-%d}")
    if ends is None and "si" not in said:
        return Undecided(Doubt.INCOMPLETE, note="the address names neither its end nor a stored policy")
    return None


def _ended(ends: datetime, now: datetime) -> Dead:
    """Return the death that the signed end date proves by itself."""
    evidence = Evidence(
        request="offline",
        status=None,
        excerpt=f"se {ends:%Y-%m-%dT%H:%M:%SZ}",
        digest=sha256(b"").hexdigest(),
        spec="azure_sas@offline",
        at=now,
        host="",
        rule="the signed end date of the address has passed",
        arrival=Arrival.PROVEN,
        carrier="offline",
    )
    return Dead(evidence, How.EXPIRED)


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def identity(host: str, said: Mapping[str, str]) -> Identity:
    """Return what the address says of itself: account, rights, end."""
    rights = said.get("sp", "")
    strong = Privilege.WRITE if set(rights) & set("wcdaxu") else Privilege.READ if rights else Privilege.UNKNOWN
    scopes = tuple(f"{k}={said[k]}" for k in ("ss", "srt", "sr", "sp") if k in said)
    return Identity(account=host.partition(".")[0], scopes=scopes, expires=said.get("se"), privilege=strong)
