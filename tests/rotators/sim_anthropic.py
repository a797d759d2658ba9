"""Anthropic's Admin API for keys: list by pages, read, set a status; no making, no deleting.

https://platform.claude.com/docs/en/api/admin/api_keys/list
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim_http import Asked, Reply

ADMIN = "sk-ant-" + "admin01-" + "a" * 40


def key(n: int) -> str:
    return "sk-ant-" + "api03-" + f"R{n}D" + "k" * 80 + f"ig{n}A"


@dataclass
class Anthropic:
    """`keys`: id to what the API shows. `page` is how many a page holds. `lag`: status changes show later."""

    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    page: int = 2

    def add(self, value: str, user: str = "user_1", name: str = "Developer Key") -> str:
        ident = f"apikey_{len(self.keys)}"
        self.keys[ident] = {
            "id": ident,
            "type": "api_key",
            "name": name,
            "created_at": "2024-10-30T23:58:27.427722Z",
            "created_by": {"id": user, "type": "user"},
            "partial_key_hint": f"{value[:16]}...{value[-4:]}",
            "status": "active",
            "workspace_id": None,
        }
        return ident

    def __call__(self, asked: Asked) -> Reply:
        if asked.headers.get("x-api-key") != ADMIN or asked.headers.get("anthropic-version") != "2023-06-01":
            return 401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
        if asked.path == "/v1/organizations/api_keys":
            ids = list(self.keys)
            start = ids.index(asked.query["after_id"]) + 1 if "after_id" in asked.query else 0
            rows = ids[start : start + min(self.page, int(asked.query.get("limit", "20")))]
            return 200, {
                "data": [self.keys[i] for i in rows],
                "has_more": start + len(rows) < len(ids),
                "first_id": rows[0] if rows else None,
                "last_id": rows[-1] if rows else None,
            }
        if (m := re.fullmatch(r"/v1/organizations/api_keys/(\w+)", asked.path)) and m[1] in self.keys:
            found = self.keys[m[1]]
            if asked.method == "POST":
                if found["status"] == "archived":
                    return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "archived"}}
                found["status"] = asked.json["status"]
            return 200, found
        return 404, {"type": "error", "error": {"type": "not_found_error", "message": "not found"}}
