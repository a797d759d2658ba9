"""Rows of generic reports with made-up keys."""

from __future__ import annotations

from typing import Any


def sendgrid(n: int) -> str:
    """Return a made-up SendGrid key."""
    return f"SG.{n:022d}.{'k' * 10}{n:033d}"


def digitalocean(n: int) -> str:
    """Return a made-up DigitalOcean token."""
    return f"dop_v1_{n:064x}"


def row(n: int, path: str = "app.env", kind: str = "sendgrid", **place: Any) -> dict[str, Any]:
    """Return one line of the generic report."""
    secret = sendgrid(n) if kind == "sendgrid" else digitalocean(n)
    held = {"source": "git", "repository": "acme/app", "path": path, "line": n + 1, **place}
    return {"provider": kind, "parts": {"secret": secret}, "place": held}
