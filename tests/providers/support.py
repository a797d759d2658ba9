"""What the tests of Python providers share: credentials made at run time, the real door on loopback, a told door."""

from __future__ import annotations

from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING

from verifier.egress import Egress, Settings
from verifier.egress.address import resolve
from verifier.egress.manifest import Manifest
from verifier.exchange import Admitted, Call, Reply, Request, Trouble
from verifier.model import Credential, CredentialID, Dead, Doubt, KindID, Live, Undecided
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from verifier.egress import Exchange
    from verifier.egress.address import Resolver
    from verifier.model import Verdict
    from verifier.spec import Kind


def credential(kind: str, **parts: str) -> Credential:
    """Return a credential of these parts."""
    return Credential(CredentialID(f"test-{'0' * 32}"), KindID(kind), {k: Secret(v) for k, v in parts.items()})


@asynccontextmanager
async def real_door(
    *kinds: Kind,
    base_url: str | None = None,
    seen: list[Exchange] | None = None,
    private: bool = True,
    resolver: Resolver = resolve,
    ca_bundle: str | None = None,
    known_hosts: str | None = None,
) -> AsyncIterator[Egress]:
    """Open the product's own door, which lets loopback through only when `private`."""
    settings = Settings(
        allow_private=(ip_network("127.0.0.0/8"),) if private else (),
        deadline=10.0,
        budget=10.0,
        retries=0,
        ca_bundle=ca_bundle,
        known_hosts=known_hosts,
    )
    overrides = {k.id: base_url for k in kinds} if base_url else {}
    calls = [call for kind in kinds for call in kind.manifest()]
    observer = seen.append if seen is not None else None
    async with Egress(
        calls, settings=settings, overrides=overrides, environ={}, observer=observer, resolver=resolver
    ) as door:
        yield door


class ToldDoor:
    """A door that answers what it is told and keeps what it was asked: a simulator of providers out of reach."""

    def __init__(self, answer: Callable[[Request], Reply | Trouble]) -> None:
        """Answer every request by `answer`."""
        self.answer = answer
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Reply | Trouble:
        self.requests.append(request)
        url = request.url.reveal()
        if not url.startswith("http://127.0.0.1"):  # a test of base_url
            Manifest([request.call], {}).match(request.call, url)  # what the real door would refuse raises here
        return self.answer(request)

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:  # as `Door` has it
        return Trouble(Doubt.REFUSED, "not a door for log-ins", host)


def short(verdict: Verdict) -> str:
    """Return a verdict in a word or two."""
    match verdict:
        case Live():
            return "restricted" if verdict.restricted else "live"
        case Dead():
            return f"dead {verdict.how}"
        case Undecided():
            return str(verdict.why)


def reply(status: int, body: str, type_: str = "application/json", host: str = "x.test", **headers: str) -> Reply:
    """Return a reply as the door hands it over."""
    return Reply(status, {"content-type": type_, **headers}, body.encode(), host)


def in_turn(*answers: Reply | Trouble) -> Callable[[Request], Reply | Trouble]:
    """Return an answerer that gives these one after another."""
    rest: Iterator[Reply | Trouble] = iter(answers)
    return lambda _request: next(rest)
