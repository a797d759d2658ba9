"""A small OpenID provider on loopback, which can be made to lie, and a console's configuration that names it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from lapse.web.settings import OidcConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "LAPSE_TEST_OIDC"
"""The variable that holds the client secret."""


@cache
def own_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "k1"})


class Provider:
    """An OpenID provider. `lie` changes the claims of the next ID token; `sign` who signs it."""

    def __init__(self) -> None:
        self.key = own_key()
        self.lie: dict[str, Any] = {}
        self.sign: tuple[str, Any] = ("RS256", self.key)
        self.issuer = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def metadata(self) -> dict[str, str]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def consent(self, address: str) -> str:
        """Play the person who logs in: return the query that the browser comes back with."""
        query = {k: v[0] for k, v in parse_qs(urlsplit(address).query).items()}
        self.codes["c0de"] = query
        return f"code=c0de&state={query['state']}"

    def token(self, fields: dict[str, str]) -> dict[str, Any] | None:
        query = self.codes.pop(fields.get("code", ""), None)
        if query is None:
            return None
        challenge = urlsafe_b64encode(hashlib.sha256(fields["code_verifier"].encode()).digest()).decode().rstrip("=")
        if challenge != query["code_challenge"] or fields["redirect_uri"] != query["redirect_uri"]:
            return None
        claims = {
            "iss": self.issuer, "aud": "lapse", "sub": "u-1", "exp": int(time.time()) + 60, "nonce": query["nonce"],
            "email": "ann@example.com", "groups": ["engineering", "security"],
        }  # fmt: skip
        algorithm, key = self.sign
        claims |= self.lie
        signed = jwt.encode({"alg": algorithm, "kid": "k1"}, claims, key, algorithms=[algorithm])
        return {"access_token": "t", "token_type": "Bearer", "id_token": signed}

    def config(self) -> OidcConfig:
        return OidcConfig(
            self.issuer, "lapse", f"env:{SECRET}", roles={"security": "approver", "engineering": "viewer"}
        )


@contextmanager
def provider_at(host: str) -> Iterator[Provider]:
    """Run a provider; `host` is how it calls this machine: another name than the console's is another site."""
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self, value: object, code: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.endswith("openid-configuration"):
                self._reply(made.metadata())
            elif self.path.startswith("/authorize"):
                back = made.consent(self.path)
                self.send_response(302)
                self.send_header("Location", f"{made.codes['c0de']['redirect_uri']}?{back}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._reply({"keys": [made.key.as_dict(private=False)]})

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = {k: v[0] for k, v in parse_qs(text).items()}
            made.asked.append((self.headers.get("Authorization", ""), fields))
            said = made.token(fields)
            self._reply(said or {"error": "invalid_grant"}, 200 if said else 400)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.issuer = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
