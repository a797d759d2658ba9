"""JSON Web Tokens: whether the issuer they name signed them, by the keys that it publishes. The token goes nowhere.

A right signature is not life: only the service that a token is for knows whether it was withdrawn. A wrong one is not
death: it says that this text was never the issuer's, cut out badly or made up. So nothing here says live or dead; the
only death is the token's own end, which is read without asking (an end that somebody changed spoils the signature, so
that nobody takes the text either way). What is learnt stands in the note: who signed it, and until when it is good.
"""

from __future__ import annotations

import warnings
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from verifier.exchange import Call, Reply, Request, Trouble
from verifier.model import Doubt, Undecided
from verifier.offline.jwt import expiry, header, payload
from verifier.probe import verdict
from verifier.rules import Ruling
from verifier.secret import Secret
from verifier.spec import Kind, Limits, ShapeSpec

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "JSON Web Tokens"
_DOCS = "https://www.rfc-editor.org/rfc/rfc7519"
_DISCOVERY = "https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig"
_WELL_KNOWN = "/.well-known/openid-configuration"
_DEEPEST, _DEEPEST_KEYS = 4, 6
_FAMILY = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
_MOST_KEYS = 8
_LONGEST_MODULUS = 1400
"""Letters of a modulus of 8192 bits: a longer one is there to cost us time."""


def _path(depth: int) -> str:
    return "".join("/{" + name + "}" for name in "abcdef"[:depth])


KINDS: tuple[Kind, ...] = (
    Kind(
        id="jwt",
        title="JSON Web Token of an unknown issuer",
        category="generic",
        docs=_DOCS,
        shape=(ShapeSpec(prefix=("eyJ",), pattern=r"eyJ[\w-]{6,}\.eyJ[\w-]{6,}\.[\w-]{16,}"),),
        jwt=True,
        probe="code",
        reason="a signature tells who made a token, not whether it still stands; its end is read without asking",
        limits=Limits(rate=2, burst=2, concurrency=2),
        calls=(
            *(
                Call(
                    kind="jwt",
                    method="GET",
                    scheme="https",
                    host="{host}",
                    path=_path(depth) + _WELL_KNOWN,
                    reads="reads what an issuer publishes of itself; the token is not sent",
                    docs=_DISCOVERY,
                )
                for depth in range(_DEEPEST + 1)
            ),
            *(
                Call(
                    kind="jwt",
                    method="GET",
                    scheme="https",
                    host="{host}",
                    path=_path(depth),
                    reads="reads the issuer's public keys; the token is not sent",
                    docs="https://www.rfc-editor.org/rfc/rfc7517",
                )
                for depth in range(1, _DEEPEST_KEYS + 1)
            ),
        ),
    ),
)


class Signature(StrEnum):
    """What an issuer's keys say about a token."""

    RIGHT = "right"
    WRONG = "wrong"
    GONE = "gone"
    """The key that it names is not among them (any more)."""


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Look who signed the token."""
    token = credential.parts["secret"].reveal().strip()
    head, claims = header(token), payload(token)
    if head is None or claims is None:
        return Undecided(Doubt.INCOMPLETE, note="this is no JSON Web Token: it was cut out badly")
    issuer, algorithm = str(claims.get("iss", "")), str(head.get("alg", ""))
    if not issuer.startswith("https://"):
        note = "it does not name an issuer that could be asked; only the service that it is for knows it"
        return Undecided(Doubt.UNSUPPORTED, note=note)
    if algorithm not in _ALGORITHMS:
        note = "it is signed in a way that only its issuer can check"
        return Undecided(Doubt.UNSUPPORTED, note=note)
    reader = _Reader(kind, door, base_url)
    found = await reader.get(issuer.rstrip("/") + _WELL_KNOWN)
    if isinstance(found, Undecided):
        return found
    told = found[2]
    if told.get("issuer") != issuer or not isinstance(told.get("jwks_uri"), str):
        return Undecided(Doubt.AMBIGUOUS, note="what stands at the issuer's address does not speak for the issuer")
    keys = await reader.get(told["jwks_uri"])
    if isinstance(keys, Undecided):
        return keys
    request, reply, published = keys
    if not isinstance(published.get("keys"), list):
        return Undecided(Doubt.AMBIGUOUS, note="what stands where the issuer's keys should be is no set of keys")
    seen = signature(token, head, published["keys"])
    end = expiry(token)
    until = f"{end:%Y-%m-%dT%H:%M:%SZ}" if end is not None else ""
    shown = {"issuer": issuer, "signature": seen.value, "algorithm": algorithm} | ({"expires": until} if until else {})
    kept = msgspec.structs.replace(reply, headers={"content-type": "application/json"}, body=msgspec.json.encode(shown))
    why, note = _meaning(seen, urlsplit(issuer).hostname or "", until)
    return verdict(kind, Ruling("undecided", note, why=why), kept, request, (token,))


def _meaning(seen: Signature, host: str, until: str) -> tuple[Doubt, str]:
    match seen:
        case Signature.RIGHT:
            good = f"is good until {until}" if until else "does not end by itself"
            note = f"{host} signed it and it {good}; only the service that it is for knows whether it was withdrawn"
            return Doubt.AMBIGUOUS, note
        case Signature.GONE:
            note = f"{host} does not publish the key that it names: probably it is of the past, or of another issuer"
            return Doubt.AMBIGUOUS, note
        case Signature.WRONG:
            return Doubt.INCOMPLETE, f"its signature is not one of {host}'s: it was cut out badly, or made up"


class _Reader:
    """Reads what issuers publish."""

    def __init__(self, kind: Kind, door: Door, base_url: str | None) -> None:
        self._kind, self._door, self._base = kind, door, base_url

    async def get(self, url: str) -> tuple[Request, Reply, dict[str, Any]] | Undecided:
        """Return a JSON object, or why there is none."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return Undecided(Doubt.INCOMPLETE, note="the issuer that it names is no address")
        path = "/" + parts.path.strip("/")
        calls = {
            c.path.count("{"): c for c in self._kind.calls if c.path.endswith(_WELL_KNOWN) == path.endswith(_WELL_KNOWN)
        }
        call = calls.get(path.removesuffix(_WELL_KNOWN).count("/"))
        if call is None or parts.scheme != "https" or "@" in parts.netloc:
            return Undecided(Doubt.UNSUPPORTED, note="the issuer's address is none that is asked")
        place = (self._base or f"https://{parts.netloc.lower()}").rstrip("/") + path
        where = place + (f"?{parts.query}" if parts.query else "")
        request = Request(call=call, url=Secret(where), shown=place, carrier="offline")
        answer = await self._door.send(request)
        if isinstance(answer, Trouble):
            return Undecided(answer.why, retry_after=answer.retry_after, note=answer.note)
        try:
            data = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            data = None
        if answer.status != 200 or answer.truncated or not isinstance(data, dict):
            note = f"nothing that could be read stands where the issuer should describe itself (status {answer.status})"
            return Undecided(Doubt.AMBIGUOUS, note=note)
        return request, answer, data


def signature(token: str, head: dict[str, Any], keys: list[Any]) -> Signature:
    """Compare a token with the keys of its issuer that could have signed it."""
    from joserfc import jwk, jws  # noqa: PLC0415  # slow to import; only where such a token is met
    from joserfc.errors import JoseError  # noqa: PLC0415  # same

    algorithm, kid = str(head.get("alg")), head.get("kid")
    fit = [k for k in keys if isinstance(k, dict) and k.get("kty") == _FAMILY[algorithm[:2]]]
    named = [k for k in fit if k.get("kid") == kid] if kid is not None else fit
    known = [k for k in named if len(str(k.get("n", ""))) <= _LONGEST_MODULUS][:_MOST_KEYS]
    if not known:
        return Signature.GONE
    for one in known:
        public = {n: v for n, v in one.items() if n in {"kty", "n", "e", "crv", "x", "y"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joserfc has opinions on names of algorithms that issuers still use
            try:
                jws.deserialize_compact(token, jwk.import_key(public), algorithms=[algorithm])
            except (JoseError, ValueError, TypeError, KeyError):
                continue
            return Signature.RIGHT
    return Signature.WRONG
