"""Official OpenAPI documents as referee: the call we make is in them, with our way in and the fields we read.

`referee.json` holds what `referee_extract.py` drew from the documents; which document, of which package and version,
stands beside each kind.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from referee_extract import FACTS, fits, read

from verifier.catalogue import load_catalogue
from verifier.spec import Probe

if TYPE_CHECKING:
    from verifier.spec import Kind

CATALOGUE = load_catalogue()
RULED: dict[str, dict[str, Any]] = json.loads(FACTS.read_text("utf-8"))
NOT_DOCUMENTED: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        [("adafruit", p) for p in ("user.id", "user.username", "profile", "profile.plan.name")],
        "the service wraps the user; the flat form of the document has a rule of its own",
    ),
    ("bitbucket", "account_id"): "of Atlassian accounts, younger than the document",
    ("hetzner", "meta.pagination"): "on every list of the API by the vendor's page on pagination",
    **dict.fromkeys(
        [("netlify", p) for p in ("id", "email", "full_name", "login_providers")],
        "the document calls the answer a list of one, the service sends the one",
    ),
    ("notion", "bot.owner.user.person.email"): "of the bot that a token is; the document describes people",
    ("notion", "bot.workspace_name"): "as above",
    ("postman", "user.teamName"): "tells the organisation only where it is there",
    ("slack_app", "app_id"): "of app-level tokens; the document describes bots and users",
    ("slack_app", "app_name"): "as above",
    ("vercel", "user.uid"): "of older accounts, by a rule of its own",
    ("vercel", "user.defaultTeamId"): "tells the organisation only where it is there",
}
"""Kind and path of fields that the vendor sends and its document leaves out, and why we read them all the same."""


def ways(asked: Probe) -> set[str]:
    """Our ways in, as the facts name them; several where the document may name them either way."""
    found = set()
    if asked.bearer:
        found |= {"bearer", "header authorization"}
    if asked.basic:
        found |= {"basic", "header authorization"}
    for name, value in asked.headers.items():
        if "{" in value:
            found |= {f"header {name.lower()}"} | ({"bearer"} if name.lower() == "authorization" else set())
    if "{" in asked.path.partition("?")[2]:
        found |= {f"query {p.partition('=')[0].lower()}" for p in asked.path.partition("?")[2].split("&")}
    return found


def known(path: str, fields: list[str]) -> bool:
    """Whether the document has this field, an open table above it, or says nothing below its parent."""
    name = re.sub(r"\[(?:\d+|\*)\]", "[]", path)
    if name in fields or any(f.endswith(".*") and name.startswith(f[:-1]) for f in fields):
        return True
    parent = re.sub(r"(?:\.[^.\[]+|\[\])$", "", name)
    return parent in fields and not any(f.startswith((f"{parent}.", f"{parent}[]")) for f in fields)


@pytest.mark.parametrize("kind", [CATALOGUE.kinds[k] for k in RULED if k in CATALOGUE.kinds], ids=lambda k: k.id)
def test_the_document_knows_the_call(kind: Kind) -> None:
    ruled, asked = RULED[kind.id], kind.probe
    assert isinstance(asked, Probe), f"{kind.id} is asked by code now: draw the facts anew"
    assert asked.method == ruled["method"]
    assert fits(ruled["path"], asked.path), ruled["document"]
    if ruled["auth"] and asked.carrier != "body":
        assert ways(asked) & set(ruled["auth"]), f"{ruled['document']} takes {ruled['auth']}"


@pytest.mark.parametrize("kind", [CATALOGUE.kinds[k] for k in RULED if RULED[k]["fields"]], ids=lambda k: k.id)
def test_the_document_has_the_fields_that_we_read(kind: Kind) -> None:
    missing = [p for p in read(kind) if not known(p, RULED[kind.id]["fields"]) and (kind.id, p) not in NOT_DOCUMENTED]
    assert missing == [], RULED[kind.id]["document"]


def test_exceptions_are_still_needed() -> None:
    for (kind, path), why in NOT_DOCUMENTED.items():
        assert path in read(CATALOGUE.kinds[kind]), f"{kind} does not read {path} any more"
        assert not known(path, RULED[kind]["fields"]), f"{kind}: the document has {path} now"
        assert why


def test_the_great_ones_have_a_referee() -> None:
    assert {"github_pat", "github_fg_pat", "openai", "anthropic", "stripe", "slack_bot", "digitalocean"} <= set(RULED)
    assert len(RULED) >= 30


def test_a_field_or_way_in_that_is_not_there_is_seen() -> None:
    fields = ["login", "plan", "plan.name", "list[].id", "open.*", "bare"]
    assert known("plan.name", fields)
    assert known("list[0].id", fields)
    assert known("open.anything", fields)
    assert known("bare.anything", fields)
    assert not known("plan.space", fields)
    assert not known("logn", fields)
    assert not fits("/v1/account", "/v1/accounts")
    assert fits("/v1/keys/{id}", "/v1/keys/{key}?x=1")
    assert not fits("/v1/keys/me", "/v1/keys/{key}")
    asked = CATALOGUE.kinds["github_pat"].probe
    assert isinstance(asked, Probe)
    assert not ways(asked) & {"basic", "header x-api-key"}
