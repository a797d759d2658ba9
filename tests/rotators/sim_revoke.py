"""Providers whose keys end themselves, as their documents describe them: state, asynchronous ends, limits.

`live` holds the keys that work; an asynchronous revocation lands in `pending` and happens at `settle()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim_http import Asked, Reply

_CAP = 1000


@dataclass
class Providers:
    """All of them on one origin: their paths don't overlap."""

    live: set[str] = field(default_factory=set)
    pending: list[str] = field(default_factory=list)
    calls: int = 0
    hourly: int = 60
    mailed: list[str] = field(default_factory=list)
    heroku: list[dict[str, object]] = field(default_factory=list)

    def settle(self) -> None:
        self.live -= set(self.pending)
        self.pending.clear()

    def __call__(self, asked: Asked) -> Reply:
        routes: dict[tuple[str, str], Callable[[Asked], Reply]] = {
            ("POST", "/credentials/revoke"): self._github,
            ("DELETE", "/installation/token"): lambda a: self._own(a.bearer, 204, 401),
            ("DELETE", "/api/v4/personal_access_tokens/self"): lambda a: self._own(
                a.headers["private-token"], 204, 401
            ),
            ("DELETE", "/api/v4/runners"): lambda a: self._own(a.form["token"], 204, 403),
            ("POST", "/api/auth.revoke"): self._slack,
            ("POST", "/api/credentials/revoke"): self._accepts,
            ("GET", "/oauth/authorizations"): self._heroku_list,
            ("POST", "/v3/auth/revoke"): lambda a: self._own(a.json["token"], 200, 404),
            ("POST", "/v1/oauth/revoke"): lambda a: self._own(a.form["token"], 200, 401),
            ("DELETE", "/v3/user/tokens/current"): lambda a: self._own(a.bearer, 200, 403),
            ("DELETE", "/api/v1/tokens/current"): lambda a: self._own(a.headers["authorization"], 204, 403),
            ("DELETE", "/v2/access-token"): lambda a: self._own(a.bearer, 204, 401),
            ("POST", "/revoke_auth_token"): lambda a: self._own(a.json["auth_token"], 200, 401),
            ("POST", "/revoke"): lambda a: self._own(a.form["token"], 200, 400),
            ("DELETE", "/tokens/self"): lambda a: self._own(a.headers["fastly-key"], 204, 401),
            ("DELETE", "/api/v1/api-tokens/current"): lambda a: self._own(
                a.headers["authorization"].removeprefix("SSWS "), 204, 401
            ),
            ("POST", "/services/oauth2/revoke"): lambda a: self._own(a.form["token"], 200, 400),
            ("POST", "/2/auth/token/revoke"): lambda a: self._own(a.bearer, 200, 401),
        }
        if (known := routes.get((asked.method, asked.path))) is not None:
            return known(asked)
        if asked.path.startswith("/oauth/authorizations/"):
            return self._heroku_delete(asked)
        if asked.path.startswith("/v3/api_keys/"):
            key = asked.bearer
            return self._own(key, 204, 404) if key.split(".")[1] == asked.path.rpartition("/")[2] else (403, {})
        if asked.path.startswith("/api/v10/webhooks/"):
            hook = asked.path.removeprefix("/api/v10/webhooks/")
            return self._own(f"https://discord.com/api/webhooks/{hook}", 204, 404)
        return 404, {"message": "Not Found"}

    def _own(self, key: str, done: int, dead: int) -> Reply:
        if key not in self.live:
            return dead, {"error": "no such token"}
        self.live.discard(key)
        return done, {}

    def _github(self, asked: Asked) -> Reply:
        self.calls += 1
        if "authorization" in asked.headers:
            return 403, {"message": "This endpoint must be called without authentication"}
        keys = asked.json["credentials"]
        if self.calls > self.hourly or len(keys) > _CAP:
            return 422, {"message": "Validation Failed"}
        self.mailed += [k for k in keys if k in self.live]
        self.pending += [k for k in keys if not k.startswith("gh" + "s_")]
        return 202, {}

    def _accepts(self, asked: Asked) -> Reply:
        self.pending += asked.json["credentials"]
        return 202, None

    def _slack(self, asked: Asked) -> Reply:
        if asked.bearer not in self.live:
            return 200, {"ok": False, "error": "token_revoked"}
        self.live.discard(asked.bearer)
        return 200, {"ok": True, "revoked": True}

    def _heroku_list(self, asked: Asked) -> Reply:
        return (200, self.heroku) if asked.bearer in self.live else (401, {"id": "unauthorized"})

    def _heroku_delete(self, asked: Asked) -> Reply:
        ident = asked.path.rpartition("/")[2]
        for row in self.heroku:
            if row["id"] == ident:
                self.heroku.remove(row)
                self.live.discard(str(dict(row["access_token"])["token"]))  # type: ignore[call-overload]  # a JSON document of anything
                return 200, row
        return 404, {"id": "not_found"}
