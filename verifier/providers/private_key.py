"""Private keys of certificates: the issuer is asked whether the certificate still stands, the key is never used.

A key alone says nothing about who trusts it; with its certificate beside it, the issuer's OCSP responder or revocation
list does. Only public facts leave (serial number, hashes of the issuer), over plain http as these services have it;
the answers are signed by the issuer and count for nothing otherwise. A key without a certificate may be SSH's, whose
older form is the same: GitHub and GitLab are asked whether they know it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from verifier.exchange import Call, Reply, Request, Trouble
from verifier.model import Arrival, Doubt, How, Identity, Live, Undecided
from verifier.probe import verdict
from verifier.rules import Judge
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.ssh import KEY_ACCEPTED, anywhere, forge_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.x509 import Certificate

    from verifier.exchange import Door
    from verifier.model import Credential, Verdict
    from verifier.offline.x509 import Answer

    Said: TypeAlias = Mapping[str, str]

TITLE = "Private keys of certificates"
_OCSP = "https://www.rfc-editor.org/rfc/rfc6960"
_CRL = "https://www.rfc-editor.org/rfc/rfc5280"
_DEEPEST = 4
_PATHS = tuple("/" + "/".join("{" + c + "}" for c in "abcd"[:n]) for n in range(_DEEPEST + 1))

KINDS: tuple[Kind, ...] = (
    Kind(
        id="private_key_tls",
        title="Private key",
        category="generic",
        docs=_CRL,
        parts=("secret",),
        optional=("certificate",),
        probe="code",
        limits=Limits(rate=5, burst=5, concurrency=4),
        calls=(
            *(
                Call(
                    kind="private_key_tls",
                    method="POST",
                    scheme="http",
                    host="{host}",
                    path=path,
                    reads="asks the issuer about a serial number; OCSP takes the question by POST",
                    docs=_OCSP,
                )
                for path in _PATHS
            ),
            *(
                Call(
                    kind="private_key_tls",
                    method="GET",
                    scheme="http",
                    host="{host}",
                    path=path,
                    reads="reads the issuer's public revocation list or certificate",
                    docs=_CRL,
                )
                for path in _PATHS
            ),
            *forge_calls("private_key_tls"),
        ),
        rule=(
            KEY_ACCEPTED,
            Rule(
                verdict="live",
                status=0,
                json={"status": "good"},
                has=("by",),
                note="the issuer says, signed, that the certificate of this key stands",
                source=_OCSP,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"status": "revoked", "by": ("ocsp", "crl")},
                how=How.REVOKED,
                arrival=Arrival.PROVEN,
                note="the issuer says, signed, that the certificate of this key is revoked",
                source=_OCSP,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"status": "unknown"},
                why=Doubt.AMBIGUOUS,
                note="the issuer's responder does not know the certificate",
            ),
        ),
        identity=IdentitySpec(principal=("account", "user")),
        example=(
            Example(
                status=0,
                verdict="live",
                body='{"asked":"publickey","answer":"accepted","fingerprint":"SHA256:xxxx","user":"git"}',
                constructed=True,
            ),
            Example(status=0, verdict="live", body='{"by":"ocsp","status":"good"}', constructed=True),
            Example(
                status=0,
                verdict="dead",
                how=How.REVOKED,
                body='{"by":"crl","status":"revoked","revoked_at":"2026-01-01T00:00:00Z"}',
                constructed=True,
            ),
            Example(
                status=0,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"by":"ocsp","status":"unknown"}',
                constructed=True,
            ),
            Example(status=0, verdict="undecided", why=Doubt.AMBIGUOUS, body='{"status":"good"}', constructed=True),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask the issuer: its OCSP responders first, then its revocation lists."""
    from verifier.offline import x509  # noqa: PLC0415  # cryptography takes 60 ms to import; few keys need it

    text = "\n".join(p.reveal() for p in credential.parts.values() if "-----BEGIN" in p.reveal())
    key = x509.private_key(text)
    if isinstance(key, x509.Unreadable):
        return Undecided(Doubt.INCOMPLETE, note=key.note)
    certs = x509.certificates(text)
    leaf = next((c for c in certs if key is not None and x509.spki(c.public_key()) == x509.spki(key)), None)
    if leaf is None:
        known = await anywhere(kind, credential, door) if key is not None and base_url is None else None
        if isinstance(known, Live):
            return known
        return Undecided(Doubt.INCOMPLETE, note="a private key alone does not say who trusts it: add its certificate")
    asker = _Asker(kind, door, base_url)
    issuer = next((c for c in certs if _issued(leaf, c)), None) or await asker.issuer(leaf, x509.issuer_urls(leaf))
    if issuer is None:
        return asker.failed("the certificate of the issuer is neither beside the key nor where it should lie")

    def ocsp(body: bytes) -> Said | str:
        """Read a responder's answer."""
        return _said("ocsp", x509.read_ocsp(body, leaf, issuer, datetime.now(UTC)))

    def crl(body: bytes) -> Said | str:
        """Read a revocation list."""
        return _said("crl", x509.read_crl(body, leaf, issuer, datetime.now(UTC)))

    question = x509.ocsp_request(leaf, issuer)
    asks = [(url, question, ocsp) for url in x509.ocsp_urls(leaf)] + [(url, None, crl) for url in x509.crl_urls(leaf)]
    for url, body, read in asks:
        said = await asker.ask(url, body, read)
        if isinstance(said, Live):
            return replace(said, identity=identity(leaf))
        if said is not None:
            return said
    return asker.failed("the certificate names nobody who could be asked whether it stands")


def _said(by: str, answer: Answer) -> Said | str:
    """Turn an answer into what the rules read; a sentence when it is no answer."""
    from verifier.offline import x509  # noqa: PLC0415  # as above

    if isinstance(answer, x509.Unreadable):
        return answer.note
    said = {"by": by, "status": answer.status.value}
    if answer.revoked_at is not None:
        said["revoked_at"] = f"{answer.revoked_at:%Y-%m-%dT%H:%M:%SZ}"
    return said


def _issued(leaf: Certificate, other: Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(other)
    except Exception:  # noqa: BLE001  # cryptography raises half a dozen kinds for keys that do not fit
        return False
    return True


class _Asker:
    """Asks the issuer's services, and keeps why nothing came of it."""

    def __init__(self, kind: Kind, door: Door, base_url: str | None) -> None:
        self._kind, self._door = kind, door
        self._base = base_url.rstrip("/") if base_url else None
        self._doubt: Undecided | None = None

    def failed(self, otherwise: str) -> Undecided:
        return self._doubt or Undecided(Doubt.UNSUPPORTED, note=otherwise)

    async def issuer(self, leaf: Certificate, urls: list[str]) -> Certificate | None:
        """Fetch the issuer's certificate from where `leaf` says it lies."""
        from cryptography import x509  # noqa: PLC0415  # as above

        for url in urls:
            found = await self._send("GET", url, None)
            if found is None:
                continue
            body = found[1].body
            try:
                pem = body.startswith(b"-----")
                cert = x509.load_pem_x509_certificate(body) if pem else x509.load_der_x509_certificate(body)
            except ValueError:
                self._note(Doubt.AMBIGUOUS, "the issuer's certificate cannot be read where it should lie")
                continue
            if _issued(leaf, cert):
                return cert
            self._note(Doubt.AMBIGUOUS, "another certificate lies where the issuer's should")
        return None

    async def ask(self, url: str, question: bytes | None, read: Callable[[bytes], Said | str]) -> Verdict | None:
        """Ask one service; `None`, with the reason kept, when it settles nothing."""
        found = await self._send("GET" if question is None else "POST", url, question)
        if found is None:
            return None
        request, reply = found
        said = read(reply.body)
        if isinstance(said, str):
            self._note(Doubt.AMBIGUOUS, said)
            return None
        shown = Reply(0, {"content-type": "application/json"}, msgspec.json.encode(said), reply.host, reply.route)
        ruled = verdict(self._kind, Judge(self._kind)(shown), shown, request, ())
        if isinstance(ruled, Undecided):
            self._doubt = self._doubt or ruled
            return None
        proof = replace(ruled.evidence, status=reply.status, digest=sha256(reply.body).hexdigest())
        return replace(ruled, evidence=proof)

    async def _send(self, method: str, url: str, body: bytes | None) -> tuple[Request, Reply] | None:
        parts = urlsplit(url)
        path = parts.path or "/"
        depth = len([p for p in path.split("/") if p])
        call = next(
            (c for c in self._kind.calls if c.method == method and c.path == _PATHS[min(depth, _DEEPEST)]), None
        )
        if call is None or depth > _DEEPEST or parts.scheme != "http":
            self._note(Doubt.UNSUPPORTED, "the issuer's services lie at an address that is not on the manifest")
            return None
        where = f"{self._base or f'http://{parts.netloc.lower()}'}{path}"
        request = Request(
            call=call,
            url=Secret(where + (f"?{parts.query}" if parts.query else "")),
            shown=where,
            headers={"Content-Type": Secret("application/ocsp-request")} if body is not None else {},
            body=None if body is None else Secret(body.decode("utf-8", "surrogateescape")),
            carrier="offline",
        )
        answer = await self._door.send(request)
        if isinstance(answer, Trouble):
            self._doubt = self._doubt or Undecided(answer.why, retry_after=answer.retry_after, note=answer.note)
            return None
        if answer.status != 200 or answer.truncated:
            long = "is longer than we read" if answer.truncated else f"came with status {answer.status}"
            self._note(Doubt.AMBIGUOUS, f"the issuer's answer {long}")
            return None
        return request, answer

    def _note(self, why: Doubt, note: str) -> None:
        self._doubt = self._doubt or Undecided(why, note=note)


def identity(leaf: Certificate) -> Identity:
    """Return whom a certificate names: its first host names or its subject, its organisation, its end."""
    from cryptography import x509  # noqa: PLC0415  # as above
    from cryptography.x509.oid import NameOID  # noqa: PLC0415  # slow to import

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(n) for n in names.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        hosts = []
    organisations = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Identity(
        principal=", ".join(hosts[:5])[:200] or leaf.subject.rfc4514_string()[:200] or None,
        organisation=str(organisations[0].value)[:200] if organisations else None,
        expires=f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    )
