"""OpenAI's Admin API for project keys, shaped by its OpenAPI: projects, service accounts, keys, masks, pages.

https://platform.openai.com/docs/api-reference/administration
"""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim_http import Asked, Reply

ADMIN = "sk-" + "admin-" + "a" * 40


def mask(value: str) -> str:
    return f"{value[:11]}***{value[-4:]}"


@dataclass
class Key:
    id: str
    value: str
    name: str
    owner: str
    created_at: int
    last_used_at: int | None = None
    expires_at: int | None = None


@dataclass
class OpenAi:
    """`projects`: id to keys. `page` is how many keys a page holds at most."""

    projects: dict[str, list[Key]] = field(default_factory=dict)
    page: int = 2
    numbers: Any = field(default_factory=itertools.count)

    def add(self, project: str, owner: str, name: str = "old") -> Key:
        n = next(self.numbers)
        value = "sk-" + ("proj-" if owner.startswith("user") else "svcacct-") + f"{n:03d}" + "k" * 40 + f"{n:04d}"
        key = Key(f"key_{n}", value, name, owner, int(time.time()))
        self.projects.setdefault(project, []).append(key)
        return key

    def works(self, value: str) -> bool:
        return any(k.value == value for keys in self.projects.values() for k in keys)

    def __call__(self, asked: Asked) -> Reply:
        if asked.bearer != ADMIN:
            return 401, {"error": {"message": f"Incorrect API key provided: {asked.bearer}", "code": "invalid_api_key"}}
        if asked.path == "/v1/organization/projects":
            rows = [self._project(p) for p in self.projects]
            return 200, {"object": "list", "data": rows, "has_more": False}
        if m := re.fullmatch(r"/v1/organization/projects/(\w+)/service_accounts/(\w+)/api_keys", asked.path):
            body = asked.json
            key = self.add(m[1], m[2], body.get("name", ""))
            if seconds := body.get("expires_in_seconds"):
                key.expires_at = key.created_at + seconds
            return 200, {
                "object": "organization.project.service_account.api_key",
                "id": key.id,
                "name": key.name,
                "created_at": key.created_at,
                "value": key.value,
                "expires_at": key.expires_at,
            }
        if m := re.fullmatch(r"/v1/organization/projects/(\w+)/api_keys(?:/(\w+))?", asked.path):
            return self._keys(asked, m[1], m[2])
        return 404, {"error": {"message": "Unknown request URL"}}

    def _keys(self, asked: Asked, project: str, one: str | None) -> Reply:
        keys = self.projects.get(project, [])
        if one is None:
            ids = [k.id for k in keys]
            start = ids.index(asked.query["after"]) + 1 if asked.query.get("after") else 0
            rows = keys[start : start + min(self.page, int(asked.query.get("limit", "20")))]
            more = start + len(rows) < len(keys)
            data = [self._shown(k) for k in rows]
            return 200, {"object": "list", "data": data, "has_more": more, "last_id": data[-1]["id"] if data else None}
        for key in keys:
            if key.id == one:
                if asked.method == "DELETE":
                    keys.remove(key)
                    return 200, {"object": "organization.project.api_key.deleted", "id": one, "deleted": True}
                return 200, self._shown(key)
        return 404, {"error": {"message": "No such key"}}

    @staticmethod
    def _project(project: str) -> dict[str, Any]:
        return {"id": project, "object": "organization.project", "name": project, "created_at": 1, "status": "active"}

    @staticmethod
    def _shown(key: Key) -> dict[str, Any]:
        kind = "user" if key.owner.startswith("user") else "service_account"
        who = {"id": key.owner, "name": key.owner, "created_at": 1, "role": "member", "email": "a@example.com"}
        return {
            "object": "organization.project.api_key",
            "id": key.id,
            "name": key.name,
            "created_at": key.created_at,
            "last_used_at": key.last_used_at,
            "expires_at": key.expires_at,
            "redacted_value": mask(key.value),
            "owner": {"type": kind, kind: who},
            "owner_project_access": "active",
        }
