"""What can be settled about a key without a call: tripwires, published examples, placeholders, checksums, dates.

Nothing here opens a socket. A key that fails a check of form is `Undecided(incomplete)`, not dead: dead takes the
provider's words. Only an end date that the issuer itself wrote into the credential makes it `Dead(expired)`.
"""

from __future__ import annotations

from datetime import datetime  # msgspec reads annotations at run time
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from verifier.model import Arrival, Dead, Doubt, Evidence, How, Undecided, Verdict
from verifier.offline import aws, checksums, examples, jwt

if TYPE_CHECKING:
    from verifier.model import Credential, Parts
    from verifier.spec import Kind

JWT_KINDS = frozenset({"jwt", "kubernetes_sa", "supabase_secret"})
"""Kinds whose token, where it is a JSON Web Token, ends at its `exp`; a spec says so for others with `jwt = true`."""

CANARY = "canary: calling it would alert its owner"
"""The note of a verdict on a trip-wire."""

PEM_KINDS = frozenset({"private_key_tls", "github_app_key", "ssh_key"})

_SECRETS = ("secret", "password", "token")


class Known(Struct, frozen=True):
    """What is known offline: a verdict that makes a call needless or forbidden, and whose account the key is of."""

    verdict: Verdict | None = None
    account: str | None = None


def check(
    kind: Kind | None, credential: Credential, now: datetime, canary_accounts: frozenset[str] = frozenset()
) -> Known:
    """Return what is known of `credential` without a call. `kind` is its spec, if there is one."""
    parts = credential.parts
    key = parts.get("id")
    account = aws.account_id(key.reveal()) if key is not None and credential.provider.startswith("aws_") else None
    bound = kind is not None and kind.jwt
    verdict = offline(credential.provider, parts, now, canary_accounts, jwt_bound=bound)
    if verdict is None and kind is None and credential.candidates:
        names = ", ".join(credential.candidates[:6]) + (", …" if len(credential.candidates) > 6 else "")
        verdict = Undecided(
            Doubt.AMBIGUOUS, note=f"its shape alone does not tell whose key it is (perhaps {names}); nobody was asked"
        )
    return Known(verdict, account)


def offline(
    kind: str,
    parts: Parts,
    now: datetime,
    canary_accounts: frozenset[str] = frozenset(),
    *,
    jwt_bound: bool = False,
) -> Verdict | None:
    """Return the verdict that needs no call, `None` when the provider must be asked.

    `canary_accounts` adds AWS account ids to the shipped ones. The checks that forbid a call go first. `jwt_bound`
    says that this kind of token ends at the `exp` it carries.
    """
    at = _Stamp(kind, now)
    return (
        _canary(parts, canary_accounts, at)
        or _example(parts, at)
        or _placeholder(parts, at)
        or _checksum(kind, parts, at)
        or (_expiry(parts, at) if jwt_bound or kind in JWT_KINDS else None)
        or (_pem(parts, at) if kind in PEM_KINDS else None)
    )


class _Stamp(Struct, frozen=True):
    kind: str
    now: datetime

    def evidence(self, rule: str, excerpt: str = "") -> Evidence:
        return Evidence(
            request="offline",
            status=None,
            excerpt=excerpt,
            digest=sha256(b"").hexdigest(),
            spec=f"{self.kind}@offline",
            at=self.now,
            host="",
            rule=rule,
            arrival=Arrival.PROVEN,
            carrier="offline",
        )

    def undecided(self, why: Doubt, note: str) -> Undecided:
        return Undecided(why, self.evidence(note), note=note)


def _canary(parts: Parts, more: frozenset[str], at: _Stamp) -> Undecided | None:
    for name in ("id", "secret"):
        part = parts.get(name)
        account = aws.account_id(part.reveal()) if part is not None else None
        if account is not None and aws.is_canary(account, more):
            return at.undecided(Doubt.REFUSED, CANARY)
    return None


def _example(parts: Parts, at: _Stamp) -> Undecided | None:
    for part in parts.values():
        source = examples.published(part.reveal())
        if source is not None:
            return at.undecided(Doubt.REFUSED, f"published example key ({source})")
    return None


def _placeholder(parts: Parts, at: _Stamp) -> Undecided | None:
    for name in (*_SECRETS, "id", "host"):
        part = parts.get(name)
        if part is not None and examples.placeholder(part.reveal(), name):
            return at.undecided(Doubt.INCOMPLETE, f"the {name} is a placeholder, not a value")
    return None


def _checksum(kind: str, parts: Parts, at: _Stamp) -> Undecided | None:
    name = checksums.BY_KIND.get(kind)
    secret = parts.get("secret")
    if name is None or secret is None or checksums.fits(name, secret.reveal()) is not False:
        return None
    return at.undecided(Doubt.INCOMPLETE, "the checksum does not fit: a truncated or made-up token")


def _expiry(parts: Parts, at: _Stamp) -> Dead | None:
    secret = parts.get("secret")
    end = jwt.expiry(secret.reveal()) if secret is not None else None
    if end is None or end + jwt.SKEW > at.now:
        return None
    return Dead(at.evidence("the token's own exp has passed", f"exp {end:%Y-%m-%dT%H:%M:%SZ}"), How.EXPIRED)


def _pem(parts: Parts, at: _Stamp) -> Dead | Undecided | None:
    if not any("-----BEGIN" in p.reveal() for p in parts.values()):
        return None
    from verifier.offline import x509  # noqa: PLC0415  # cryptography takes 60 ms to import; few keys need it

    found = x509.read(parts)
    if isinstance(found, x509.Unreadable):
        return at.undecided(Doubt.INCOMPLETE, found.note)
    end = found.ends
    if end is None or end + jwt.SKEW > at.now:
        return None
    return Dead(
        at.evidence("the certificate's own end date has passed", f"notAfter {end:%Y-%m-%dT%H:%M:%SZ}"), How.EXPIRED
    )
