"""What every page of the documentation is played in: two reports of made-up keys, and providers on loopback.

The reader's own things (a report, a provider on the internet) are these here; what the reader types is the same. The
configuration that points to the simulator is this user's own (XDG), or is put below a `lapse.toml` that a page writes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

from servers import free_port

from lapse.sandbox import keys

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.sandbox.saas import Saas, State

KEYS: tuple[tuple[str, str, str, State, str], ...] = (
    ("github_pat", "github-pat", "deploy/ci.env", "live", "ann@acme.example"),
    ("sendgrid", "sendgrid-api-token", "app/.env", "live", "ben@acme.example"),
    ("sendgrid", "sendgrid-api-token", "app/.env.old", "dead", "ben@acme.example"),
    ("openai", "openai-api-key", "notebooks/train.py", "restricted", "cleo@acme.example"),
    ("gitlab_pat", "gitlab-pat", "deploy/mirror.env", "dead", "ann@acme.example"),
    ("stripe", "stripe-access-token", "app/pay.env", "live", "ben@acme.example"),
)
"""Kind, gitleaks' rule, file, what the provider says of it, author."""

COMMIT = "4fa1" + "0c92" * 9


def build(folder: Path, saas: Saas) -> dict[str, str]:
    """Fill `folder` and return the environment in which its commands run."""
    home = folder / ".home"
    (home / ".config" / "lapse").mkdir(parents=True)
    (folder / "reports").mkdir()
    report = json.dumps(_gitleaks(saas), indent=1)
    (folder / "gitleaks.json").write_text(report)
    (folder / "reports" / "gitleaks.json").write_text(report)
    (folder / "chat.jsonl").write_text(_chat(saas))
    (home / ".config" / "lapse" / "config.toml").write_text(beneath("", saas))
    shim = home / "bin" / "lapse"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lapse.cli "$@"\n')
    shim.chmod(0o755)
    cache = f"/tmp/lapse-test-cache-{os.getuid()}"
    return {
        "PATH": f"{shim.parent}:{os.environ['PATH']}", "HOME": str(home), "XDG_CACHE_HOME": cache,
        "LANG": "C.UTF-8", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "LAPSE_SERVE_PORT": str(free_port()),
    }  # fmt: skip


def beneath(text: str, saas: Saas) -> str:
    """Return a page's configuration with the sandbox's put below it: providers on loopback, a short second look."""
    tables = {
        "verify": 'confirm_after = "300ms"\nretries = 0',
        "egress": 'allow_private = ["127.0.0.1/32"]',
    }
    tables |= {
        f"providers.{kind}": f'base_url = "{saas.base_url(kind)}"' for kind in {k[0] for k in KEYS} | {"slack_bot"}
    }
    for name, said in tables.items():
        if re.search(rf"^\[{re.escape(name)}\]$", text, re.MULTILINE):
            text = re.sub(rf"^\[{re.escape(name)}\]$", f"[{name}]\n{said}", text, flags=re.MULTILINE)
        else:
            text += f"\n[{name}]\n{said}\n"
    return text


def _gitleaks(saas: Saas) -> list[dict[str, object]]:
    rows = []
    for n, (kind, rule, path, state, author) in enumerate(KEYS, 1):
        secret = keys.make(kind, f"docs-{n}")
        saas.add(kind, secret, state)
        rows.append({
            "RuleID": rule, "Description": rule, "StartLine": n, "EndLine": n, "StartColumn": 1, "EndColumn": 2,
            "Match": f"KEY={secret}", "Secret": secret, "File": path, "SymlinkFile": "", "Commit": COMMIT,
            "Entropy": 4.5, "Author": author.partition("@")[0], "Email": author, "Date": "2026-11-02T10:00:00Z",
            "Message": "wip", "Tags": [], "Fingerprint": f"{COMMIT}:{path}:{rule}:{n}",
            "Link": f"https://github.com/acme/api/blob/{COMMIT}/{path}#L{n}",
        })  # fmt: skip
    return [*rows, {**rows[0], "File": "deploy/old/ci.env", "StartLine": 9, "Fingerprint": "again"}]


def _chat(saas: Saas) -> str:
    secret = keys.make("slack_bot", "docs-chat")
    saas.add("slack_bot", secret, "live")
    place = {"source": "chat", "repository": "acme.slack.example", "path": "#releases"}
    return json.dumps({"provider": "slack_bot", "parts": {"secret": secret}, "place": place}) + "\n"
