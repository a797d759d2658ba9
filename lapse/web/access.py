"""Who is there and what they may do: log-in links, sessions, forms that only we can have made, tokens for programs.

Sessions live in this process and end with it. A cookie holds a random name and its signature; what it stands for never
leaves. Tokens for programs are kept as hashes in a file of mode 0600.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from lapse.exits import Stop
from lapse.web.settings import Role, RoleName

if TYPE_CHECKING:
    from pathlib import Path

COOKIE = "lapse_session"
LINK_SECONDS = 600.0
ATTEMPTS, PER_SECONDS = 10, 60.0
PREFIX = "lapse_"

Clock = Callable[[], float]


class Person(Struct, frozen=True):
    """Somebody, or some program, that is logged in."""

    name: str
    role: Role
    csrf: str = ""
    session: str = ""


class Sessions:
    """Who is logged in. `clock` counts seconds."""

    def __init__(self, lifetime: float, idle: float, clock: Clock = time.monotonic) -> None:
        """Take how long a session lasts at most, and how long without a request."""
        self._key = secrets.token_bytes(32)
        self._lifetime, self._idle, self._clock = lifetime, idle, clock
        self._held: dict[str, tuple[Person, float, float]] = {}
        self._lock = Lock()

    def begin(self, name: str, role: Role) -> tuple[Person, str]:
        """Return a new session and the value of its cookie."""
        session = secrets.token_urlsafe(32)
        person = Person(name, role, secrets.token_urlsafe(32), session)
        now = self._clock()
        with self._lock:
            self._held = {k: v for k, v in self._held.items() if not self._over(v, now)}
            self._held[session] = (person, now, now)
        return person, f"{session}.{self._signed(session)}"

    def find(self, cookie: str) -> Person | None:
        """Return who a cookie belongs to; None where it is forged, too old or unknown."""
        session, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signed(session).encode()):
            return None
        now = self._clock()
        with self._lock:
            held = self._held.get(session)
            if held is None or self._over(held, now):
                self._held.pop(session, None)
                return None
            self._held[session] = (held[0], held[1], now)
        return held[0]

    def end(self, person: Person) -> None:
        """Forget a session."""
        with self._lock:
            self._held.pop(person.session, None)

    def _over(self, held: tuple[Person, float, float], now: float) -> bool:
        return now - held[1] > self._lifetime or now - held[2] > self._idle

    def _signed(self, session: str) -> str:
        return hmac.new(self._key, session.encode(), hashlib.sha256).hexdigest()


class Links:
    """Log-in links that work once, within ten minutes."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Begin with none."""
        self._clock = clock
        self._open: dict[str, tuple[str, Role, float]] = {}
        self._lock = Lock()

    def make(self, name: str, role: Role) -> str:
        """Return the token of a new link for this person."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._open[_hash(token)] = (name, role, self._clock() + LINK_SECONDS)
        return token

    def take(self, token: str) -> tuple[str, Role] | None:
        """Return whom a token lets in, and use it up."""
        with self._lock:
            found = self._open.pop(_hash(token), None)
        return (found[0], found[1]) if found and self._clock() <= found[2] else None


class Limit:
    """At most so many attempts a minute from one address."""

    def __init__(self, attempts: int = ATTEMPTS, seconds: float = PER_SECONDS, clock: Clock = time.monotonic) -> None:
        """Take the limit."""
        self._attempts, self._seconds, self._clock = attempts, seconds, clock
        self._seen: dict[str, deque[float]] = {}
        self._lock = Lock()

    def passes(self, who: str) -> bool:
        """Count an attempt, and say whether it is within the limit."""
        now = self._clock()
        with self._lock:
            if len(self._seen) > 10_000:  # an attacker with many addresses costs no memory
                self._seen.clear()
            times = self._seen.setdefault(who, deque())
            while times and now - times[0] > self._seconds:
                times.popleft()
            if len(times) >= self._attempts:
                return False
            times.append(now)
            return True


class Token(Struct, frozen=True):
    """A token of a program, without the token. `hash` is SHA-256: the token itself is 256 random bits."""

    name: str
    role: RoleName
    hash: str
    made: datetime
    expires: datetime | None = None


class Tokens:
    """The file of tokens. Read anew when it changed, so that a revoked token ends at once."""

    def __init__(self, path: Path) -> None:
        """Take the path; no file is no tokens."""
        self._path = path
        self._mark: tuple[int, int] | None = None
        self._held: tuple[Token, ...] = ()

    def all(self) -> tuple[Token, ...]:
        """Return all tokens."""
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        mark = (stat.st_mtime_ns, stat.st_size)
        if mark != self._mark:
            try:
                self._held = msgspec.json.decode(self._path.read_bytes(), type=tuple[Token, ...])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                said = f"{self._path} is no file of tokens; restore it, or remove it and make the tokens anew"
                raise Stop(said) from None
            self._mark = mark
        return self._held

    def add(self, name: str, role: RoleName, expires: datetime | None = None) -> str:
        """Make a token and return it: the only time that anybody sees it. A name that exists is replaced."""
        token = PREFIX + secrets.token_urlsafe(32)
        kept = [t for t in self.all() if t.name != name]
        self._save((*kept, Token(name, role, _hash(token), datetime.now(UTC), expires)))
        return token

    def revoke(self, name: str) -> bool:
        """Forget a token; False where none has the name."""
        kept = tuple(t for t in self.all() if t.name != name)
        found = len(kept) != len(self.all())
        if found:
            self._save(kept)
        return found

    def find(self, token: str) -> Person | None:
        """Return whom a token stands for: its name is whose approvals it gives, so that one person counts once."""
        digest, now = _hash(token), datetime.now(UTC)
        for t in self.all():
            if hmac.compare_digest(t.hash, digest) and (t.expires is None or t.expires > now):
                return Person(t.name, Role.named(t.role))
        return None

    def _save(self, tokens: tuple[Token, ...]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._path.with_suffix(f".{os.getpid()}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(tokens))
        part.replace(self._path)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
