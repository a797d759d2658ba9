"""A small whole world behind the door: one vendor that knows its keys, and the troubles that come between."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from test_rules import SPEC

from verifier.catalogue import Catalogue
from verifier.exchange import Admitted, Call, Reply, Request, Trouble
from verifier.model import Credential, CredentialID, Dead, Doubt, KindID, Live, Verdict
from verifier.ports import Due, Fallen, Judged
from verifier.secret import Secret
from verifier.specfile import parse
from verifier.verify import Alarm, Event, Terms, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CATALOGUE = Catalogue(parse(SPEC, "acme", "acme.toml").kind)
NOW = datetime.now(UTC)


class Weather(StrEnum):
    FINE = "fine"
    OUTAGE = "outage"
    STRIPPED = "stripped"
    PORTAL = "portal"
    DOWN = "down"


class World:
    """Implements `Door`. `live` is what the vendor knows; `calls` what it was asked."""

    def __init__(self, *, live: frozenset[str] | set[str] = frozenset(), route: str = "direct") -> None:
        self.live, self.route = set(live), route
        self.weather = Weather.FINE
        self.calls: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.most_at_once = 0

    async def send(self, request: Request) -> Reply | Trouble:
        """Answer as the vendor would, in this weather."""
        key = request.headers["Authorization"].reveal().removeprefix("Bearer ")
        self.calls[key] += 1
        match self.weather:
            case Weather.DOWN:
                return Trouble(Doubt.UNREACHABLE, "connection refused")
            case Weather.PORTAL:
                return Reply(200, {"content-type": "text/html"}, b"<html>log in", "api.acme.test", self.route)
            case Weather.STRIPPED:
                return self._json(401, {"error": {"code": "missing_key"}})
            case Weather.OUTAGE:
                return self._json(401, {"error": {"code": "key_revoked"}})
            case Weather.FINE:
                if key in self.live:
                    return self._json(200, {"active": True, "user": {"login": f"user of {key[-4:]}"}})
                return self._json(401, {"error": {"code": "key_revoked"}})

    def _json(self, status: int, body: object) -> Reply:
        raw = msgspec.json.encode(body)
        return Reply(status, {"content-type": "application/json"}, raw, "api.acme.test", self.route)

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        """Refuse: no wire protocol here."""
        return Trouble(Doubt.REFUSED, f"{call.kind} {host}:{port}")


def key(n: int) -> str:
    return f"acme_{n:08}"


def due(n: int, last: Verdict | None = None, **known: datetime) -> Due:
    credential = Credential(CredentialID(f"acme-{n:032x}"), KindID("acme"), {"secret": Secret(key(n))})
    return Due(credential, last, known.get("last_live"), known.get("dead_since"))


async def run(
    world: World, items: list[Due], terms: Terms, fallen: Iterable[Fallen] = ()
) -> tuple[dict[str, list[Verdict]], list[Alarm]]:
    """Run to the end; return each key's verdicts in order, and the alarms."""
    said: dict[str, list[Verdict]] = {}
    alarms: list[Alarm] = []
    async for batch in verify({"acme": iter(items)}, CATALOGUE, world, terms, fallen=fallen):
        for event in batch:
            _sort(event, said, alarms)
    return said, alarms


def _sort(event: Event, said: dict[str, list[Verdict]], alarms: list[Alarm]) -> None:
    match event:
        case Judged():
            said.setdefault(event.id, []).append(event.verdict)
        case Alarm():
            alarms.append(event)


def confirmed(said: dict[str, list[Verdict]]) -> list[str]:
    return [k for k, vs in said.items() if any(isinstance(v, Dead) and v.confirmed for v in vs)]


def lives(said: dict[str, list[Verdict]]) -> Iterator[str]:
    return (k for k, vs in said.items() if isinstance(vs[-1], Live))
