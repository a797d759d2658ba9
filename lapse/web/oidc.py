"""Log-in for teams: OpenID Connect, authorization code with PKCE. Who may do what is told by a claim (`groups`).

The provider's words count only as a signed ID token for us, with our nonce, not too old, from a log-in that this very
browser began. The session's cookie is `Strict`, so the last step is a page of ours that leads on.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec import Struct
from starlette.responses import RedirectResponse, Response

from lapse.exits import Stop
from lapse.references import resolve
from lapse.web.guard import LOOPBACK, client_of
from lapse.web.pages import house_of, set_cookie, show
from lapse.web.settings import OidcConfig, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

BINDING = "lapse_login"
SECONDS = 600.0
OPEN_MOST = 1_000
TIMEOUT = 10.0
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures only: neither `none` nor one made with a shared secret."""


class Begun(Struct, frozen=True):
    """A log-in under way: which browser began it, and what must come back."""

    binding: str
    nonce: str
    verifier: str
    until: float


class Denied(Exception):  # noqa: N818  # reads as what happened
    """Somebody may not come in; the text is one sentence for them."""


class Oidc:
    """The log-ins under way at one provider."""

    def __init__(self, config: OidcConfig) -> None:
        """Take the provider; nothing is asked yet."""
        self._config = config
        self._begun: dict[str, Begun] = {}

    def _client(self, redirect: str) -> AsyncOAuth2Client:
        secret = resolve(self._config.client_secret, "serve.oidc.client_secret").reveal()
        return AsyncOAuth2Client(
            self._config.client_id,
            secret,
            scope=" ".join(self._config.scopes),
            redirect_uri=redirect,
            code_challenge_method="S256",
            timeout=TIMEOUT,
            follow_redirects=False,
        )

    async def begin(self, redirect: str) -> tuple[str, str]:
        """Return the provider's address for this log-in, and what binds it to the browser."""
        now = time.monotonic()
        self._begun = {k: v for k, v in self._begun.items() if v.until > now}
        if len(self._begun) >= OPEN_MOST:
            raise Denied("too many log-ins are under way; wait a minute")
        state, made = (
            secrets.token_urlsafe(32),
            Begun(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), now + SECONDS),
        )
        async with self._client(redirect) as client:
            place = (await self._metadata(client))["authorization_endpoint"]
            address, _ = client.create_authorization_url(
                place, state=state, nonce=made.nonce, code_verifier=made.verifier
            )
        self._begun[state] = made
        return str(address), made.binding

    async def end(self, redirect: str, binding: str, query: Mapping[str, str]) -> tuple[str, Role]:
        """Return who came back, and their role; `Denied` for all else. Each log-in ends once."""
        begun = self._begun.pop(query.get("state", ""), None)
        if begun is None or begun.until < time.monotonic():
            raise Denied("this log-in is too old or was not begun here; begin again")
        if not secrets.compare_digest(begun.binding.encode(), binding.encode()):
            raise Denied("this log-in was begun in another browser; begin again")
        if "code" not in query:
            raise Denied("your organisation's log-in did not let you in")
        async with self._client(redirect) as client:
            metadata = await self._metadata(client)
            token = await client.fetch_token(
                metadata["token_endpoint"], code=query["code"], code_verifier=begun.verifier
            )
            keys = KeySet.import_key_set(
                (await client.request("GET", metadata["jwks_uri"], withhold_token=True)).json()
            )
        claims = self._claims(str(token.get("id_token", "")), keys, begun.nonce)
        return self._person(claims)

    async def _metadata(self, client: AsyncOAuth2Client) -> dict[str, Any]:
        issuer = self._config.issuer.rstrip("/")
        reply = await client.request("GET", f"{issuer}/.well-known/openid-configuration", withhold_token=True)
        found: dict[str, Any] = reply.json()
        if str(found.get("issuer", "")).rstrip("/") != issuer:
            raise Denied("the log-in provider says that it is another one; see serve.oidc.issuer")
        return found

    def _claims(self, token: str, keys: KeySet, nonce: str) -> dict[str, Any]:
        read = jwt.decode(token, keys, algorithms=ALGORITHMS)
        checks = jwt.JWTClaimsRegistry(
            leeway=60,
            iss={"essential": True, "values": [self._config.issuer, self._config.issuer.rstrip("/")]},
            aud={"essential": True, "value": self._config.client_id},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
        )
        checks.validate(read.claims)
        return read.claims

    def _person(self, claims: Mapping[str, Any]) -> tuple[str, Role]:
        held = claims.get(self._config.claim) or ()
        groups = {held} if isinstance(held, str) else {str(g) for g in held}
        roles = [Role.named(role) for group, role in self._config.roles.items() if group in groups]
        if not roles:
            raise Denied("none of your groups has a role here; ask whoever runs this console")
        verified = claims.get("email") if claims.get("email_verified", True) else None
        return str(verified or claims["sub"])[:200], max(roles)


def redirect_of(request: Request) -> str:
    """Return where the provider sends people back to: over TLS, unless that is this machine."""
    scheme = "http" if (urlsplit(str(request.url)).hostname or "") in {h.strip("[]") for h in LOOPBACK} else "https"
    return f"{scheme}://{request.url.netloc}/login/oidc/done"


async def begin(request: Request) -> Response:
    """Send somebody to the provider."""
    house = house_of(request)
    if not house.serve.oidc.issuer:
        return show(request, "login.html", 404, said="No organisation's log-in is configured.", oidc=False)
    if not house.limit.passes(client_of(request)):
        return show(request, "login.html", 429, said="Too many attempts. Wait a minute.", oidc=False)
    redirect = redirect_of(request)
    try:
        address, binding = await request.app.state.oidc.begin(redirect)
    except Exception as e:  # noqa: BLE001  # whatever the provider's trouble is
        return _refused(request, e)
    reply = RedirectResponse(address, 303)
    secure = redirect.startswith("https")
    reply.set_cookie(BINDING, binding, max_age=int(SECONDS), httponly=True, samesite="lax", secure=secure)
    return reply


async def done(request: Request) -> Response:
    """Let in whoever comes back from the provider."""
    house, redirect = house_of(request), redirect_of(request)
    try:
        name, role = await request.app.state.oidc.end(redirect, request.cookies.get(BINDING, ""), request.query_params)
    except Exception as e:  # noqa: BLE001  # whatever the provider's trouble is
        return _refused(request, e)
    _, cookie = house.sessions.begin(name, role)
    reply = show(request, "welcome.html", who=name)
    set_cookie(request, reply, cookie)
    reply.delete_cookie(BINDING)
    return reply


def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, Denied | Stop):
        said = str(error)
    elif isinstance(error, OAuthError | JoseError):
        said = "the log-in provider's answer is not to be trusted, or was refused"
    else:
        said = f"the log-in provider cannot be reached or understood ({type(error).__name__})"
    return show(request, "login.html", 403, said=said[:1].upper() + said[1:] + ".", oidc=True)
