"""Oracle Cloud API signing keys: a signed look at the key's own user.

Oracle says `NotAuthenticated` of a wrong key, of a wrong clock and of a tenancy that has no share in the region alike,
so nothing here says dead.
"""

from __future__ import annotations

import base64
import re
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule, ShapeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Oracle Cloud Infrastructure"
_DOCS = "https://docs.oracle.com/en-us/iaas/api/#/en/identity/20160918/User/GetUser"
_ERRORS = "https://docs.oracle.com/en-us/iaas/Content/API/References/apierrors.htm"
_OCID = r"ocid1\.%s\.[\w.-]{10,130}"
_REGION = re.compile(r"[a-z]{2,4}-[a-z]+-\d")
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{2}:){15}[0-9a-f]{2}", re.IGNORECASE)

KINDS: tuple[Kind, ...] = (
    Kind(
        id="oci",
        title="Oracle Cloud API signing key",
        category="cloud",
        docs="https://docs.oracle.com/en-us/iaas/Content/API/Concepts/apisigningkey.htm",
        console="https://cloud.oracle.com/identity/users",
        parts=("secret", "id", "tenant", "fingerprint", "region"),
        shape=(
            ShapeSpec(part="id", prefix=("ocid1.user.",), pattern=r"ocid1\.user\.[\w.-]{20,120}"),
            ShapeSpec(part="tenant", prefix=("ocid1.tenancy.",), pattern=r"ocid1\.tenancy\.[\w.-]{20,120}"),
        ),
        probe="code",
        limits=Limits(rate=2, burst=2, concurrency=2),
        identity=IdentitySpec(principal="name", account="id", organisation="compartmentId"),
        calls=(
            Call(
                kind="oci",
                method="GET",
                scheme="https",
                host="{host}",
                path="/20160918/users/{user}",
                reads="returns the user that the key belongs to",
                docs=_DOCS,
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=200,
                words={"id": "ocid1.user."},
                has=("compartmentId", "lifecycleState"),
                note="names its user",
                source=_DOCS,
            ),
            Rule(
                verdict="restricted",
                status=404,
                json={"code": "NotAuthorizedOrNotFound"},
                note="authenticated; it may not even look at its own user",
                source=_ERRORS,
            ),
            Rule(
                verdict="undecided",
                status=401,
                json={"code": "NotAuthenticated"},
                why=Doubt.AMBIGUOUS,
                note="refused: the key, the clock or the region",
                source="https://github.com/oracle/oci-cli/issues/514",
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"id":"ocid1.user.oc1..x","compartmentId":"ocid1.tenancy.oc1..x","name":"ci",'
                '"lifecycleState":"ACTIVE"}',
                constructed=True,
            ),
            Example(
                status=404,
                verdict="restricted",
                body='{"code":"NotAuthorizedOrNotFound","message":"***"}',
                constructed=True,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"code":"NotAuthenticated","message":"The required information to complete authentication was '
                'not provided or was incorrect."}',
                source="https://github.com/oracle/oci-cli/issues/514",
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body="<html>Access denied</html>",
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask the region that the configuration beside the key names."""
    parts = {name: value.reveal().strip() for name, value in credential.parts.items()}
    whole = (
        re.fullmatch(_OCID % "user", parts["id"])
        and re.fullmatch(_OCID % "tenancy", parts["tenant"])
        and _FINGERPRINT.fullmatch(parts["fingerprint"])
        and _REGION.fullmatch(parts["region"].lower())
    )
    if not whole:
        return Undecided(Doubt.INCOMPLETE, note="the user, tenancy, fingerprint or region was cut out badly")
    host = f"identity.{parts['region'].lower()}.oraclecloud.com"
    path = f"/20160918/users/{quote(parts['id'], safe='')}"
    headers = sign(parts, host, path, formatdate(usegmt=True))
    if headers is None:
        return Undecided(
            Doubt.INCOMPLETE, note="the private key cannot be read: it was cut out badly, or has a password"
        )
    url = (base_url or f"https://{host}").rstrip("/") + path
    request = Request(
        call=kind.calls[0],
        url=Secret(url),
        shown=url,
        headers={k: Secret(v) for k, v in headers.items()},
        carrier="authorization",
    )
    said, _ = await exchange(
        kind, request, door, (parts["secret"], headers["Authorization"].rpartition('signature="')[2])
    )
    return said


def sign(parts: Mapping[str, str], host: str, path: str, date: str) -> dict[str, str] | None:
    """Return the headers of a signed GET (HTTP signatures, RSA-SHA256); `None` when the key cannot be read."""
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415  # 60 ms; few keys need it
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415  # slow to import

    try:
        key = serialization.load_pem_private_key(parts["secret"].replace("\\n", "\n").encode(), None)
    except (ValueError, TypeError):
        return None
    if not isinstance(key, rsa.RSAPrivateKey):
        return None
    text = f"date: {date}\n(request-target): get {path}\nhost: {host}"
    signature = base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()
    who = f"{parts['tenant']}/{parts['id']}/{parts['fingerprint'].lower()}"
    return {
        "Date": date,
        "Authorization": (
            f'Signature version="1",keyId="{who}",algorithm="rsa-sha256",'
            f'headers="date (request-target) host",signature="{signature}"'
        ),
    }
