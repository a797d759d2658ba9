"""A container registry and its token service, as docker meets them: distribution, Harbor, GitLab, Quay and Amazon."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import msgspec

from verifier.exchange import Reply

if TYPE_CHECKING:
    from verifier.exchange import Request

API = {"docker-distribution-api-version": "registry/2.0"}


def errors(code: str, message: str = "authentication required") -> str:
    return msgspec.json.encode({"errors": [{"code": code, "message": message, "detail": None}]}).decode()


@dataclass
class Registry:
    """The world. `realm` is where its token service stands; empty, it takes the log-in itself."""

    users: dict[str, str]
    host: str = "registry.acme.test"
    realm: str = "https://registry.acme.test/service/token"
    service: str = "harbor-registry"
    anonymous: bool = False
    """Give everybody a token, which opens what is public."""
    lenient: bool = False
    """Let `/v2/` be read with anybody's token."""
    named: bool = True
    refusal: tuple[int, str] = (401, errors("UNAUTHORIZED"))
    header: bool = True
    scheme: str = "Bearer"
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Host and user of every log-in that was brought."""

    def __call__(self, request: Request) -> Reply:
        url = urlsplit(request.url.reveal())
        assert request.body is None
        if url.path == "/v2/" and url.netloc == self.host:
            return self.api(request)
        assert f"{url.scheme}://{url.netloc}{url.path}".rstrip("/") == self.realm.rstrip("/")
        query = dict(parse_qsl(url.query))
        assert query["service"] == self.service
        assert "scope" not in query, "no repository is asked for"
        return self.token(request, query)

    def reply(self, status: int, body: str, **headers: str) -> Reply:
        own = API if self.header else {}
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return Reply(status, {"content-type": "application/json", **own, **more}, body.encode(), self.host)

    def user(self, request: Request) -> str | None:
        """Return who logs in rightly; None for nobody, "" for a wrong password."""
        header = request.headers.get("Authorization")
        if header is None or not header.reveal().startswith("Basic "):
            return None
        user, _, password = b64decode(header.reveal().removeprefix("Basic ")).decode().partition(":")
        self.heard.append((urlsplit(request.url.reveal()).netloc, user))
        return user if self.users.get(user) == password else ""

    def api(self, request: Request) -> Reply:
        header = request.headers.get("Authorization")
        if self.realm:
            way = f'{self.scheme} realm="{self.realm}",service="{self.service}"'
            held = header.reveal().removeprefix("Bearer ") if header is not None else ""
            good = held.startswith("ey") and (self.lenient or ".public." not in held)
        else:
            way, good = 'Basic realm="Registry Realm"', bool(self.user(request))
        if good:
            return self.reply(200, "{}")
        status, body = self.refusal if header is not None else (401, errors("UNAUTHORIZED"))
        return self.reply(status, body, www_authenticate=way)

    def token(self, request: Request, query: dict[str, str]) -> Reply:
        user = self.user(request)
        if user == "" or (user is None and not self.anonymous):
            return self.reply(*self.refusal)
        if user is not None:
            assert query["account"] == user
        claims = msgspec.json.encode({"sub": (user or "") if self.named else "", "iss": "registry"})
        middle = urlsafe_b64encode(claims).rstrip(b"=").decode()
        head = urlsafe_b64encode(b'{"alg":"RS256"}').rstrip(b"=").decode()
        # nobody's token says so in its signature here, where a real one has no access
        token = f"{head}.{middle}.{'s' if user else 'public.'}{'x' * 20}"
        return self.reply(200, msgspec.json.encode({"token": token, "expires_in": 300}).decode())
