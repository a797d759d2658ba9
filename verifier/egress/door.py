"""The one way out: every request and every log-in of the verifier passes here, or does not happen."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, Self

from msgspec import Struct

from verifier.egress.address import RefusedError, Resolver, allowed, literal, local_name, resolve, vet
from verifier.egress.breaker import Breaker
from verifier.egress.limiter import Clock, HasLimits, Limiter, Limits, Sleep
from verifier.egress.manifest import Manifest, Target
from verifier.egress.plumbing import Settings, host_keys, proxies, trust
from verifier.egress.retry import again, passing, retry_after
from verifier.egress.services import look_up
from verifier.egress.transport import Answer, Pin, Reqwest, Transport, Wire, reads_as
from verifier.exchange import Admitted, Call, Reply, Request, Trouble
from verifier.model import Doubt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from types import TracebackType

    from verifier.secret import Secret

_KEEP_PIN = 60.0
_MOST_WIRES = 256
_THROTTLED = 429
_SHORTEST_CALL = 0.05
_FORBIDDEN_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "proxy-authorization",
        "proxy-connection",
        # These make a PUT or a DELETE of a POST on the other side.
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    }
)


class Exchange(Struct, frozen=True, gc=False):
    """What an observer is told of one attempt: nothing secret. `elapsed` in seconds; `attempt` counts from 1.

    `status` is None when there was no reply, `trouble` None when there was one (or a log-in was admitted).
    """

    call: Call
    host: str
    port: int
    route: str
    status: int | None
    trouble: Doubt | None
    elapsed: float
    attempt: int = 1


class _Pinned:
    """A wire with the addresses that were vetted for it; an idle one may be closed."""

    __slots__ = ("addresses", "busy", "expires", "retired", "route", "used", "wire")

    def __init__(self, wire: Wire, addresses: list[str], expires: float, route: str) -> None:
        self.wire, self.addresses, self.expires, self.route = wire, addresses, expires, route
        self.busy = 0
        self.used = 0.0
        self.retired = False


class Egress:
    """Implements `Door`. One per run and event loop; close it (`aclose`, or `async with`) before the loop ends.

    `limits` by kind id (missing ones get `Limits()`); `overrides` maps a kind id to the `base_url` its calls go to
    instead; `observer` hears of every attempt. Raises `RefusedError`, a sentence that names the config key, for
    settings that cannot be used.
    """

    def __init__(  # noqa: PLR0913  # everything that touches the world can be handed in
        self,
        calls: Collection[Call],
        *,
        settings: Settings | None = None,
        limits: Mapping[str, HasLimits] | None = None,
        overrides: Mapping[str, str] | None = None,
        observer: Callable[[Exchange], None] | None = None,
        environ: Mapping[str, str] | None = None,
        transport: Transport | None = None,
        resolver: Resolver = resolve,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Compile the manifest and read the environment; opens nothing yet."""
        environ = os.environ if environ is None else environ
        self._settings = settings = settings or Settings()
        self._manifest = Manifest(calls, overrides or {})
        self._proxies = proxies(settings, environ)
        own = trust(settings, environ)
        self._roots = own.pems
        self._host_keys = host_keys(settings)
        self._direct_route = "ca" if own.custom else "direct"
        self._transport = transport or Reqwest(
            user_agent=settings.user_agent, deadline=settings.deadline, roots=own.pems
        )
        self._limits = limits or {}
        self._observer = observer
        self._resolver, self._clock, self._sleep = resolver, clock, sleep
        self._limiters: dict[str, Limiter] = {}
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._pins: dict[Target, _Pinned] = {}
        self._opening: dict[Target, asyncio.Lock] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Return the door itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        pins, self._pins = list(self._pins.values()), {}
        await asyncio.gather(*(pin.wire.close() for pin in pins), *self._closing)

    # ── HTTP ───────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: Request) -> Reply | Trouble:
        """Send a request whose call is on the manifest; passing troubles are tried again inside the budget."""
        url = request.url.reveal()
        try:
            target = self._manifest.match(request.call, url)
            letter = _Letter(request, target, url, _headers(request.headers), _body(request.call, request.body))
        except RefusedError as e:
            return Trouble(Doubt.REFUSED, f"{request.call.kind}: {e}")
        first, elapsed = await self._attempt(letter, 1, None)
        if not self._settings.retries or not _worth(request, first):
            return first
        tries = 1

        async def attempt(left: float) -> Reply | Trouble:
            """Try once more, within what is left."""
            nonlocal tries
            tries += 1
            return (await self._attempt(letter, tries, left))[0]

        return await again(
            first,
            attempt,
            worth=lambda result: _worth(request, result),
            retries=self._settings.retries,
            left=self._settings.budget - elapsed,
            clock=self._clock,
            sleep=self._sleep,
        )

    async def _attempt(self, letter: _Letter, number: int, left: float | None) -> tuple[Reply | Trouble, float]:
        """Make one call when circuit and limiter let it; return its result and how long it took."""
        kind, host = letter.request.call.kind, letter.target.host
        breaker = self._breakers.get((kind, host))
        if breaker is not None and (wait := breaker.blocked()):
            note = f"{host}: circuit open after a run of failures; next try in {wait:.0f} s"
            return Trouble(Doubt.UNREACHABLE, note, host, timedelta(seconds=wait)), 0.0
        limiter = self._limiter(kind)
        settled = False
        try:
            if away := await limiter.enter():
                return _paused(host, away), 0.0
            started = self._clock()
            try:
                result = await self._call(letter, started, left)
            finally:
                limiter.leave()
            settled = self._learn(letter.request, host, limiter, started, result)
        finally:
            if breaker is not None and not settled:
                breaker.abandon()
        elapsed = self._clock() - started
        self._tell(letter.request.call, letter.target, result, elapsed, number)
        return result, elapsed

    def _learn(self, request: Request, host: str, limiter: Limiter, started: float, result: Reply | Trouble) -> bool:
        """Let limiter and breaker hear of a result; tell whether it said anything about the host."""
        key = (request.call.kind, host)
        if isinstance(result, Trouble):
            if result.why is not Doubt.UNREACHABLE:
                return False
            breaker = self._breakers.get(key)
            if breaker is None:
                breaker = self._breakers[key] = Breaker(self._clock)
            breaker.failed()
            return True
        if self._breakers:
            self._breakers.pop(key, None)
        if result.status == _THROTTLED and _worth(request, result):
            limiter.throttled(started, retry_after(result.headers))
        else:
            limiter.welcome(started)
        return True

    async def _call(self, letter: _Letter, started: float, left: float | None) -> Reply | Trouble:
        """Find the pinned wire of the target and make the call."""
        target, host = letter.target, letter.target.host
        pin = self._pins.get(target)
        if pin is None or pin.expires < started:
            try:
                pin = await self._open(target, pin)
            except RefusedError as e:
                return Trouble(Doubt.REFUSED, f"{host} {e}", host)
            except OSError:
                return Trouble(Doubt.UNREACHABLE, f"{host} has no address (DNS)", host)
            spent = self._clock() - started
            left = max(_SHORTEST_CALL, min(left or self._settings.deadline, self._settings.deadline - spent))
        elif left is not None:
            left = max(_SHORTEST_CALL, min(left, self._settings.deadline))
        pin.busy += 1
        pin.used = started
        try:
            answer = await pin.wire.exchange(letter.request.call.method, letter.url, letter.headers, letter.body, left)
        finally:
            pin.busy -= 1
            if pin.retired and not pin.busy:
                self._close(pin)
        if isinstance(answer, Answer):
            return Reply(answer.status, answer.headers, answer.body, host, pin.route, answer.truncated)
        if answer.connecting and len(pin.addresses) > 1 and self._pins.get(target) is pin:
            first, *rest = pin.addresses
            self._pins[target] = self._pin(target, [*rest, first], pin.expires)
            self._retire(pin)
        return Trouble(Doubt.REFUSED if answer.unsent else Doubt.UNREACHABLE, f"{host} {answer.note}", host)

    # ── pins ───────────────────────────────────────────────────────────────────────────────────────────

    async def _open(self, target: Target, stale: _Pinned | None) -> _Pinned:
        """Resolve and vet the target, and return its wire. Raises `RefusedError`, `OSError`."""
        lock = self._opening.setdefault(target, asyncio.Lock())
        async with lock:
            try:
                pin = self._pins.get(target)
                if pin is not None and pin is not stale and pin.expires >= self._clock():
                    return pin
                addresses = await self._vetted(target)
                expires = self._clock() + _KEEP_PIN
                if pin is not None and (not addresses or pin.addresses[0] in addresses):
                    pin.expires = expires
                    return pin
                if pin is not None:
                    self._retire(pin)
                elif len(self._pins) >= _MOST_WIRES:
                    self._evict()
                pin = self._pins[target] = self._pin(target, addresses, expires)
                return pin
            finally:
                self._opening.pop(target, None)

    def _pin(self, target: Target, addresses: list[str], expires: float) -> _Pinned:
        proxy = self._proxies.of(target.scheme, target.host, target.port)
        route = "base" if target.base else "proxy" if proxy else self._direct_route
        try:
            wire = self._transport.wire(Pin(target.host, target.port, addresses[0] if addresses else None, proxy))
        except ValueError:
            note = "cannot be asked: this machine has no usable CA certificates; set egress.ca_bundle"
            raise RefusedError(note) from None
        return _Pinned(wire, addresses, expires, route)

    async def _vetted(self, target: Target) -> list[str]:
        """Addresses that may be connected to, best first; none where a proxy resolves. Raises as `_resolve` does."""
        if reads_as(target.host) != target.host:
            raise RefusedError("is not a host name")
        if self._proxies.of(target.scheme, target.host, target.port) is not None and literal(target.host) is None:
            if target.plain:
                raise RefusedError("is asked over plain http through a proxy; https, or a base_url, is needed")
            if local_name(target.host) and not target.base:
                raise RefusedError("is a name inside a network; a proxy is asked for it only by a base_url")
            return []
        return await self._resolve(target.host, target.port, plain=target.plain)

    async def _resolve(self, host: str, port: int, *, plain: bool) -> list[str]:
        """Resolve once, keep what passes. Raises `RefusedError` when nothing does, `OSError` when there is nothing."""
        allow = self._settings.allow_private
        address = literal(host)
        if address is not None:
            found = [str(address)]
        else:
            async with asyncio.timeout(self._settings.deadline):
                found = await self._resolver(host, port)
        why = ""
        good = []
        for text in found:
            candidate = ip_address(text)
            if (no := vet(candidate, allow)) is not None:
                why = why or f"is at {text}, which is {no}; name the range in egress.allow_private to allow it"
            elif plain and not allowed(candidate, allow):
                why = "is asked over plain http, which only a range named in egress.allow_private may be"
            else:
                good.append(text)
        if why and not good:
            raise RefusedError(why)
        if not good:
            raise OSError
        return good

    def _evict(self) -> None:
        """Close the wire that has been idle the longest; none when all are busy."""
        idle = [(pin.used, target) for target, pin in self._pins.items() if not pin.busy]
        if idle:
            self._retire(self._pins.pop(min(idle)[1]))

    def _retire(self, pin: _Pinned) -> None:
        pin.retired = True
        if not pin.busy:
            self._close(pin)

    def _close(self, pin: _Pinned) -> None:
        task = asyncio.ensure_future(pin.wire.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # ── log-ins ────────────────────────────────────────────────────────────────────────────────────────

    async def admit(self, call: Call, host: str, port: int) -> Admitted | Trouble:
        """Vet and pin a host for a log-in. Counts against the kind's rate, not its concurrency."""
        try:
            place = self._manifest.admits(call, host, port)
        except RefusedError as e:
            return Trouble(Doubt.REFUSED, f"{call.kind}: {e}")
        if away := await self._limiter(call.kind).turn():
            return _paused(place[0], away)
        started = self._clock()
        target = Target(call.scheme, *place)
        result: Admitted | Trouble
        try:
            address = (await self._resolve(*place, plain=False))[0]
            own = allowed(ip_address(address), self._settings.allow_private)
            result = Admitted(place[0], address, place[1], self._roots, self._host_keys, own)
        except RefusedError as e:
            result = Trouble(Doubt.REFUSED, f"{place[0]} {e}", place[0])
        except OSError:
            result = Trouble(Doubt.UNREACHABLE, f"{place[0]} has no address (DNS)", place[0])
        self._tell(call, target, result, self._clock() - started, 1)
        return result

    async def services(self, call: Call, name: str) -> tuple[tuple[str, int], ...] | Trouble:
        """Look up host and port of the servers behind a service name; each must still pass `admit`."""
        try:
            host, _ = self._manifest.admits(call, name, 1)
        except RefusedError as e:
            return Trouble(Doubt.REFUSED, f"{call.kind}: {e}")
        try:
            return tuple(await look_up(host))
        except OSError:
            return Trouble(Doubt.UNREACHABLE, f"{host} has no service record (DNS)", host)

    # ── helpers ────────────────────────────────────────────────────────────────────────────────────────

    def drain(self, kinds: Iterable[str]) -> None:
        """Begin at these kinds without a burst: another process may have been asking there until this moment."""
        for kind in kinds:
            self._limiter(kind).drain()

    def _limiter(self, kind: str) -> Limiter:
        limiter = self._limiters.get(kind)
        if limiter is None:
            limits = self._limits.get(kind) or Limits()
            limiter = Limiter(limits, patience=self._settings.budget, clock=self._clock, sleep=self._sleep)
            self._limiters[kind] = limiter
        return limiter

    def _tell(
        self, call: Call, target: Target, result: Reply | Admitted | Trouble, elapsed: float, attempt: int
    ) -> None:
        if self._observer is None:
            return
        status = result.status if isinstance(result, Reply) else None
        route = result.route if isinstance(result, Reply) else "base" if target.base else self._direct_route
        trouble = result.why if isinstance(result, Trouble) else None
        self._observer(Exchange(call, target.host, target.port, route, status, trouble, elapsed, attempt))


class _Letter(NamedTuple):
    """A request that passed the manifest, unwrapped. Lives in local variables only; never shown."""

    request: Request
    target: Target
    url: str
    headers: dict[str, str]
    body: bytes | None


def _worth(request: Request, result: Reply | Trouble) -> bool:
    """Tell whether another try may end differently."""
    if isinstance(result, Trouble):
        # An open circuit too: a blip of seconds is waited out inside the budget, so that no key misses its turn for it.
        return result.why is Doubt.UNREACHABLE
    return passing(result) and not (request.decisive is not None and request.decisive(result))


def _paused(host: str, away: float) -> Trouble:
    note = f"{host} asked for a pause; next try in {away:.0f} s"
    return Trouble(Doubt.THROTTLED, note, host, timedelta(seconds=away))


def _headers(given: Mapping[str, Secret]) -> dict[str, str]:
    """Unwrap the headers. Raises `RefusedError` for one that would change whom or what the request asks."""
    headers = {name: value.reveal() for name, value in given.items()}
    for name in headers:
        if name.lower() in _FORBIDDEN_HEADERS:
            raise RefusedError(f"the header {name} is not one that a request may set")
    return headers


def _body(call: Call, body: Secret | None) -> bytes | None:
    """Unwrap the body. Raises `RefusedError` where the method has none."""
    if body is None:
        return None
    if call.method != "POST":
        raise RefusedError(f"a {call.method} carries no body")
    return body.reveal().encode("utf-8", "surrogateescape")  # bytes that are no text come escaped so
