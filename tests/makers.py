"""Makes token-shaped strings at run time, so that no file here holds anything a scanner would report.

`make(kind)` gives a value for any kind with a shape, with its checksum right; the named makers give the rest. All
draw from a seed: the same call gives the same string. Nothing made here was ever issued by anybody.
"""

from __future__ import annotations

import json
import re
import string
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from re import _parser  # type: ignore[attr-defined]  # private to CPython, and the only reader of patterns
from typing import Any
from zlib import crc32

from verifier.offline.checksums import BASE36, BASE62, in_base, little_base64, little_hex
from verifier.shapes import Shape, shipped_shapes

ALNUM = string.ascii_letters + string.digits
BASE32 = string.ascii_uppercase + "234567"
_ASCII = [chr(n) for n in range(33, 127)]


def draw(alphabet: str, n: int, seed: object = 0) -> str:
    """Return `n` characters of `alphabet`."""
    rng = Random(f"{alphabet}{n}{seed}")  # noqa: S311  # must be the same every time
    return "".join(rng.choice(alphabet) for _ in range(n))


def hexes(n: int, seed: object = 0) -> str:
    """Return `n` lower-case hex digits."""
    return draw("0123456789abcdef", n, seed)


def github(prefix: str = "ghp_", seed: object = 0) -> str:
    """Return a GitHub token of the classic form with a right checksum (`ghr_` tokens are longer)."""
    body = draw(ALNUM, 70 if prefix == "ghr_" else 30, f"{prefix}{seed}")
    return prefix + body + in_base(crc32(body.encode()), BASE62, 6)


def github_fine_grained(seed: object = 0) -> str:
    """Return a fine-grained GitHub token."""
    return "github_" + "pat_" + draw(ALNUM, 22, seed) + "_" + draw(ALNUM, 59, seed)


def npm(seed: object = 0) -> str:
    """Return an npm token with a right checksum."""
    body = draw(ALNUM, 30, f"npm{seed}")
    return "npm" + "_" + body + in_base(crc32(body.encode()), BASE62, 6)


def vercel(prefix: str = "vcp_", seed: object = 0) -> str:
    """Return a Vercel token with a right checksum."""
    body = draw(ALNUM, 50, f"vercel{seed}")
    return prefix + body + in_base(crc32(body.encode()), BASE62, 6)


def gitlab(seed: object = 0) -> str:
    """Return a GitLab personal access token of the old form."""
    return "glpat" + "-" + draw(ALNUM + "_-", 20, f"gitlab{seed}")


def gitlab_routable(seed: object = 0) -> str:
    """Return a GitLab personal access token of the routable form with a right checksum."""
    payload = draw(ALNUM + "_-", 44, f"routable{seed}")
    head = "glpat" + f"-{payload}.01." + in_base(len(payload), BASE36, 2)
    return head + in_base(crc32(head.encode()), BASE36, 7)


def grafana(seed: object = 0) -> str:
    """Return a Grafana service-account token with a right checksum."""
    head = "glsa" + "_" + draw(ALNUM, 32, f"grafana{seed}")
    return f"{head}_{little_hex(head)}"


def confluent(seed: object = 0) -> str:
    """Return a Confluent Cloud secret of the new form with a right checksum."""
    head = "cflt" + draw(ALNUM + "+/", 54, seed)
    return head + little_base64(head)


def aws_id(account: str = "123456789012", prefix: str = "AKIA", seed: object = 0) -> str:
    """Return an access key id from which `account` can be read."""
    rng = Random(f"{account}{seed}")  # noqa: S311  # must be the same every time
    number = int(account) << 7 | rng.getrandbits(7) | 1 << 47
    ten = number << 2
    chars = "".join(BASE32[ten >> shift & 31] for shift in range(45, -1, -5))
    return prefix + chars + draw(BASE32, 6, f"{account}{seed}")


def aws_secret(seed: object = 0) -> str:
    """Return something like an AWS secret access key."""
    return draw(ALNUM + "+/", 38, f"aws{seed}") + "/Z"


def jwt(claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, seed: object = 0) -> str:
    """Return a JSON Web Token with a made-up signature."""

    def segment(data: dict[str, Any]) -> str:
        return urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    head = segment(header or {"alg": "HS256", "typ": "JWT"})
    return f"{head}.{segment(claims or {'sub': 'someone'})}.{draw(ALNUM + '-_', 43, seed)}"


@cache
def private_key() -> str:
    """Return a fresh P-256 private key in PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def gcp_service_account(email: str = "robot@project.iam.gserviceaccount.com") -> str:
    """Return a Google service-account file."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": hexes(40),
            "private_key": private_key(),
            "client_email": email,
            "token_uri": "https://oauth2.googleapis.com/token",
        },
        indent=2,
    )


def certificate(
    ends: datetime | None = None,
    *,
    issuer: tuple[Any, Any] | None = None,
    key: Any = None,
    extensions: tuple[Any, ...] = (),
    serial: int | None = None,
) -> tuple[Any, Any]:
    """Return (certificate, private key), signed by `issuer` (such a pair) or by itself; it runs ten days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    ends = ends or datetime.now(UTC) + timedelta(days=5)
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"host-{serial or 'ca'}.example")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=10))
        .not_valid_after(ends)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(thing: Any) -> str:
    """Return a certificate or a private key in PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if hasattr(thing, "private_bytes"):
        return thing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return thing.public_bytes(Encoding.PEM).decode()


# ── anything with a shape ──────────────────────────────────────────────────────────────────────────────

_RIGHT = {
    "github_pat": lambda s: github("ghp_", s),
    "github_oauth": lambda s: github("gho_", s),
    "github_app_user": lambda s: github("ghu_", s),
    "github_installation": lambda s: github("ghs_", s),
    "github_refresh": lambda s: github("ghr_", s),
    "npm": npm,
    "vercel": lambda s: vercel("vcp_", s),
    "gitlab_pat": gitlab,
    "grafana_sa": grafana,
    "confluent": confluent,
    "jwt": lambda s: jwt(seed=s),
}


def make(kind: str, part: str = "secret", seed: object = 0) -> str:
    """Return a value of the first shape that names `part` of `kind`, its checksum right. `KeyError` without a shape."""
    if part == "secret" and kind in _RIGHT:
        return _RIGHT[kind](seed)
    for shape in shipped_shapes():
        if shape.kind == kind and shape.part == part:
            return of_shape(shape, seed)
    raise KeyError(kind, part)


def of_shape(shape: Shape, seed: object = 0) -> str:
    """Return a string that matches `shape` as a whole."""
    rng = Random(f"{shape.kind}{shape.pattern}{seed}")  # noqa: S311  # must be the same every time
    form = re.compile(shape.pattern, re.ASCII)
    for _ in range(50):
        text = _walk(_parser.parse(shape.pattern, re.ASCII), rng)
        if form.fullmatch(text):
            return text
    raise AssertionError(shape)


def _walk(tree: Any, rng: Random) -> str:
    out = ""
    for op, arg in tree:
        match op.name:
            case "LITERAL":
                out += chr(arg)
            case "IN":
                out += rng.choice([c for c in _ASCII if _in(c, arg)])
            case "NOT_LITERAL":
                out += rng.choice([c for c in _ASCII if c != chr(arg)])
            case "MAX_REPEAT":
                low, high, inner = arg
                top = min(int(high), int(low) + 6)
                out += "".join(_walk(inner, rng) for _ in range(rng.randint(int(low), top)))
            case "SUBPATTERN":
                out += _walk(arg[-1], rng)
            case "BRANCH":
                out += _walk(rng.choice(arg[1]), rng)
            case "ASSERT_NOT" | "AT":
                pass
            case other:
                raise NotImplementedError(other)
    return out


def _in(char: str, members: Any) -> bool:
    inside = False
    negated = False
    for op, arg in members:
        match op.name:
            case "NEGATE":
                negated = True
            case "LITERAL":
                inside |= chr(arg) == char
            case "RANGE":
                inside |= arg[0] <= ord(char) <= arg[1]
            case "CATEGORY":
                inside |= bool(re.match(_CATEGORIES[arg.name], char, re.ASCII))
    return inside is not negated


_CATEGORIES = {
    "CATEGORY_WORD": r"\w",
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_SPACE": r"\s",
}
