"""`lapse ingest github:OWNER/REPO`, `github:ORG`, `gitlab:GROUP/PROJECT`: findings pulled from an API, page by page."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from lapse.exits import Exit, Stop
from lapse.output.console import say
from lapse.references import resolve
from verifier.egress import Egress
from verifier.exchange import Trouble
from verifier.ingest import pull as api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lapse.commands.ingest import Intake
    from lapse.commands.setup import Setup
    from verifier.model import Claim, Skipped
    from verifier.secret import Secret

_NAMED = re.compile(r"(github|gitlab):([A-Za-z0-9_.\-/]+)")


def pulls(name: str) -> bool:
    """Whether an argument names an API and not a file."""
    return _NAMED.fullmatch(name) is not None


def pull(setup: Setup, intake: Intake, name: str, *, partial: bool) -> None:
    """Pull everything that the API has and read it in; what was not pulled is unknown, not gone."""
    from lapse.commands.ingest import Batch  # it imports this module

    named = _NAMED.fullmatch(name)
    if named is None:
        raise Stop(f"{name} is no source; write github:OWNER/REPO, github:ORG or gitlab:GROUP/PROJECT", Exit.USAGE)
    host, what = named.groups()
    try:
        rows, trouble = asyncio.run(_all(setup, host, what))
    except ValueError as e:
        raise Stop(f"{name}: {e}", Exit.USAGE) from None
    if trouble is not None:
        say(f"lapse: {name}: {trouble.note}; what was not pulled is unknown")
        intake.failed += 1
    origin = f"git:{name}"
    format_name = api.GITHUB if host == "github" else api.GITLAB
    intake.take(Batch(name, format_name, host, None, origin), rows, lambda: trouble is None and not partial)


async def _all(setup: Setup, host: str, what: str) -> tuple[list[Claim | Skipped], Trouble | None]:
    config = setup.config.sources.github if host == "github" else setup.config.sources.gitlab
    token = resolve(config.token, f"sources.{host}.token")
    kind = api.GITHUB if host == "github" else api.GITLAB
    standard = api.GITHUB_BASE if host == "github" else api.GITLAB_BASE
    base = config.base_url.rstrip("/") or standard
    overrides = {} if base == standard else {kind: base}
    async with Egress(api.CALLS, settings=setup.settings(), overrides=overrides) as door:
        rows: list[Claim | Skipped] = []
        async for item in _rows(door, token, host, what, base):
            if isinstance(item, Trouble):
                return rows, item
            rows.append(item)
    return rows, None


def _rows(door: Egress, token: Secret, host: str, what: str, base: str) -> AsyncIterator[api.Pulled]:
    if host == "gitlab":
        return api.gitlab_findings(door, token, what, base=base, with_extract=True)
    owner, _, repo = what.partition("/")
    return api.github_alerts(door, token, owner, repo or None, base=base)
