"""The story of the demonstration: which made-up keys lie in which files of the image, and which of them still work."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping  # msgspec reads annotations at run time
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from lapse.sandbox import keys
from lapse.sandbox.image import Layer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lapse.sandbox.saas import State

NAME = "acme/api:1.2"
"""The image."""

GONE = "app/notebooks/train.env"
"""The file that the rebuilt image lacks: somebody removed it, and revoked nothing."""

Where: TypeAlias = Literal["image", "chat"]


class Planted(Struct, frozen=True):
    """One made-up key: its kind and parts, the file it lies in, and that file's lines for it."""

    kind: str
    path: str
    parts: Mapping[str, str]
    lines: tuple[str, ...]
    where: Where = "image"


_ENV, _PRODUCTION, _CI, _AWS = "app/.env", "app/config/production.env", "app/ci/deploy.env", "srv/.aws/credentials"
_FIXTURES = "app/tests/fixtures.env"
_REMOVED = ("app/ci", "srv/.aws")

_SAAS: tuple[tuple[str, str, str, State], ...] = (
    ("openai", "OPENAI_API_KEY", _ENV, "live"),
    ("anthropic", "ANTHROPIC_API_KEY", _ENV, "restricted"),
    ("stripe", "STRIPE_SECRET_KEY", _ENV, "restricted"),
    ("sendgrid", "SENDGRID_API_KEY", _ENV, "live"),
    ("slack_bot", "SLACK_BOT_TOKEN", _ENV, "live"),
    ("openai", "OPENAI_API_KEY_OLD", _ENV, "dead"),
    ("openai", "OPENAI_API_KEY", _PRODUCTION, "live"),
    ("sendgrid", "SENDGRID_API_KEY", _PRODUCTION, "live"),
    ("digitalocean", "DIGITALOCEAN_TOKEN", _PRODUCTION, "live"),
    ("newrelic", "NEW_RELIC_USER_KEY", _PRODUCTION, "live"),
    ("airtable", "AIRTABLE_TOKEN", _PRODUCTION, "live"),
    ("openrouter", "OPENROUTER_API_KEY", _PRODUCTION, "restricted"),
    ("groq", "GROQ_API_KEY", _PRODUCTION, "dead"),
    ("replicate", "REPLICATE_API_TOKEN", _PRODUCTION, "dead"),
    ("linear", "LINEAR_API_KEY", _PRODUCTION, "dead"),
    ("xai", "XAI_API_KEY", _PRODUCTION, "dead"),
    ("mistral", "MISTRAL_API_KEY", _PRODUCTION, "dead"),
    ("datadog_api", "DATADOG_API_KEY", _PRODUCTION, "dead"),
    ("github_pat", "GITHUB_TOKEN", _CI, "live"),
    ("npm", "NPM_TOKEN", _CI, "live"),
    ("gitlab_pat", "GITLAB_TOKEN", _CI, "dead"),
    ("vercel", "VERCEL_TOKEN", _CI, "dead"),
    ("sendgrid", "SENDGRID_API_KEY", _CI, "live"),
    ("huggingface", "HF_TOKEN", GONE, "live"),
    ("elevenlabs", "ELEVENLABS_API_KEY", GONE, "dead"),
)


def saas() -> list[tuple[Planted, State]]:
    """Return the keys of the providers that the simulator plays, with what it is to say of each."""
    found: list[tuple[Planted, State]] = []
    for kind, name, path, state in _SAAS:
        value = keys.make(kind, name)
        found.append((Planted(kind, path, {"secret": value}, (f"{name}={value}",)), state))
    return found


def aws(key_id: str, secret: str, profile: str = "default", path: str = _AWS, where: Where = "image") -> Planted:
    """Return an AWS key as it stands in a credentials file."""
    lines = (f"[{profile}]", f"aws_access_key_id = {key_id}", f"aws_secret_access_key = {secret}")
    return Planted("aws_akia", path, {"id": key_id, "secret": secret}, lines, where)


def vault(token: str, name: str) -> Planted:
    """Return an OpenBao token in the CI's variables."""
    return Planted("vault_token", _CI, {"secret": token, "host": "vault.acme.internal"}, (f"{name}={token}",))


def database(user: str, password: str, name: str, path: str = _ENV) -> Planted:
    """Return a PostgreSQL log-in as a connection string."""
    host = "orders-db.acme.internal"
    parts = {"username": user, "password": password, "host": host, "port": "5432", "database": "orders"}
    return Planted("postgres", path, parts, (f"{name}=postgresql://{user}:{password}@{host}:5432/orders",))


def bait() -> list[Planted]:
    """Return what must not be called: a canary's key id, and an example that its vendor publishes."""
    canary = keys.aws_id("052310077262", "canary")
    return [
        aws(canary, keys.aws_secret("canary"), "backup", "app/backup/credentials"),
        Planted("jwt", _FIXTURES, {"secret": (token := _jwt_io())}, (f"TEST_JWT={token}",)),
    ]


def _jwt_io() -> str:
    """Return the token that jwt.io shows to everybody, signed with the secret it shows, too."""

    def segment(data: bytes) -> str:
        return urlsafe_b64encode(data).decode().rstrip("=")

    claims = {"sub": "1234567890", "name": "John Doe", "iat": 1516239022}
    head = ".".join(
        segment(json.dumps(part, separators=(",", ":")).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    return f"{head}.{segment(hmac.digest(b'your-256-bit-secret', head.encode(), 'sha256'))}"


def layers(planted: Iterable[Planted], *, without: str = "") -> list[Layer]:
    """Return the image's layers; `without` names a file that was never copied in."""
    texts: dict[str, list[str]] = {}
    for key in planted:
        if key.where == "image" and key.path != without:
            texts.setdefault(key.path, []).extend(key.lines)
    files = {path: "\n".join(lines) + "\n" for path, lines in texts.items()}
    home = {path: text for path, text in files.items() if path.startswith("srv/")}
    app = {path: text for path, text in files.items() if path not in home}
    return [
        Layer("ADD rootfs.tar.gz /", {"etc/os-release": "ID=acme\n", "etc/passwd": "app:x:1000:1000::/srv:/bin/sh\n"}),
        Layer("COPY . /app", {"app/main.py": "print('hello')\n", **app}),
        Layer("COPY .aws /srv/.aws", home),
        Layer("RUN rm -rf /app/ci /srv/.aws", removed=_REMOVED),
    ]


def generic(planted: Iterable[Planted], where: Where) -> str:
    """Return the generic report of these keys: one JSON object a line."""
    lines = []
    for key in planted:
        if key.where != where:
            continue
        place = {"source": "docker", "image": NAME, "path": key.path}
        if where == "chat":
            place = {"source": "chat", "repository": "acme.slack.example", "path": key.path}
        known = {"provider": key.kind} if key.kind != "jwt" else {}
        lines.append(json.dumps({**known, "parts": dict(key.parts), "place": place}))
    return "\n".join(lines) + "\n"
