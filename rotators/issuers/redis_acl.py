"""Passwords of Redis and Valkey ACL users: several live at once, so the new one comes before the old one goes.

Redis stores SHA-256 of each password and takes it as such (`#hash`, `!hash`), so no password is ever sent. It keeps no
names, times or uses; what an interrupted mint of ours left is known by a *note*: a user that can do nothing
(`lapse-new:USER:MARK`, off), made in the same transaction and holding the same hash. A disabled password waits in such
a user too (`lapse-off:USER`). A key's id is the user and the first hex digits of the hash: enough to tell the
passwords of one user apart, too few to guess one by.
https://redis.io/docs/latest/commands/acl-setuser/
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.clouds.bounded import Gathering, listed
from rotators.databases import Dsn, new_password, part, password_of, redis_admin
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.databases import Redis
    from rotators.interface import Settings
    from verifier.model import Credential

SHOWN = 4
"""Hex digits of the hash in a key's id."""


class RedisAcl:
    """ACL passwords. Settings: `admin_dsn_env`, `length` (see `rotators.databases`)."""

    name = "redis_acl"
    kinds = ("redis",)
    style = Style.DISPLACE
    reversible = True
    propagation = timedelta(seconds=1)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("+acl|getuser",),
        "mint": ("+acl|setuser", "+acl|save or +config|rewrite"),
        "orphans": ("+acl|list",),
        "disable": ("+acl|setuser",),
        "enable": ("+acl|setuser",),
        "retire": ("+acl|setuser", "+acl|deluser"),
        "evidence": ("+acl|getuser", "+client|list"),
    }
    also_dies = "Nothing else dies: connections that the password opened live on until ended (database_sessions)."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Log in, see that the admin may change ACLs, and say whether changes outlive a restart."""
        with redis_admin(self._settings) as db:
            me = str(db.execute_command("ACL", "WHOAMI"))
            db.execute_command("ACL", "DRYRUN", me, "ACL", "SETUSER", "x")
            kept = self._save(db)
        return [Fact("admin", f"Redis user {me}"), Fact("kept", kept)]

    @staticmethod
    def _save(db: Redis) -> str:
        """Write ACLs to where the server keeps them; say so when it keeps them nowhere."""
        import redis as lib

        for words, said in ((("ACL", "SAVE"), "in the server's ACL file"), (("CONFIG", "REWRITE"), "in redis.conf")):
            try:
                db.execute_command(*words)
            except lib.ResponseError:
                continue
            return said
        return "in memory only: a restart brings the old passwords back, write them into its configuration"

    def locate(self, old: Credential) -> KeyRef:
        """Find exactly this password at its user."""
        user, password = part(old, "username") or "default", password_of(old)
        dsn = Dsn(self._settings, "LAPSE_REDIS_ADMIN")
        if dsn.password == password:
            raise ProviderError(Trouble.DENIED, "the admin log-in uses the leaked password itself: use another one")
        with redis_admin(self._settings) as db:
            about = self._user(db, user)
            if about is None:
                raise ProviderError(Trouble.GONE, f"Redis has no user {user}")
            if "nopass" in about["flags"]:
                raise ProviderError(Trouble.REFUSED, f"Redis user {user} takes any password (nopass): close it first")
            digest = hashlib.sha256(password.encode()).hexdigest()
            parked = self._user(db, _parked(user)) or {"passwords": []}
            if digest not in {*about["passwords"], *parked["passwords"]}:
                raise ProviderError(Trouble.GONE, f"Redis user {user} does not have this password: it was removed")
            return self._ref(user, digest, about)

    @staticmethod
    def _ref(user: str, digest: str, about: Mapping[str, Any], label: str = "") -> KeyRef:
        lives = digest in about["passwords"] and "on" in about["flags"]
        return KeyRef(f"{user}#{digest[:SHOWN]}", user, State.ACTIVE if lives else State.DISABLED, label=label)

    @staticmethod
    def _user(db: Redis, user: str) -> dict[str, list[str]] | None:
        """Return a user's flags and password hashes, None when there is none."""
        said: Any = db.execute_command("ACL", "GETUSER", user)
        if not said:
            return None
        if isinstance(said, list):
            said = dict(zip(said[::2], said[1::2], strict=True))
        return {"flags": list(said["flags"]), "passwords": [p.lstrip("#") for p in said["passwords"]]}

    def _digest(self, db: Redis, ref: KeyRef, *users: str) -> str | None:
        """Return the one hash at these users that the id stands for; two that look alike are `REFUSED`."""
        short = ref.id.rpartition("#")[2]
        found = {
            p
            for u in users
            if (about := self._user(db, u)) is not None
            for p in about["passwords"]
            if p[:SHOWN] == short
        }
        if len(found) > 1:
            raise ProviderError(Trouble.REFUSED, f"two passwords of {ref.owner} look alike; remove one by hand")
        return next(iter(found), None)

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the user's passwords, disabled ones too."""
        with redis_admin(self._settings) as db:
            about = self._user(db, ref.owner)
            if about is None:
                return []
            parked = self._user(db, _parked(ref.owner)) or {"passwords": []}
            return [self._ref(ref.owner, p, about) for p in dict.fromkeys([*about["passwords"], *parked["passwords"]])]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Give the user a second password, with a note of whose it is in the same transaction."""
        value = new_password(self._settings)
        digest = hashlib.sha256(value.encode()).hexdigest()
        with redis_admin(self._settings) as db:
            if self._user(db, ref.owner) is None:
                raise ProviderError(Trouble.GONE, f"Redis has no user {ref.owner}")
            with db.pipeline(transaction=True) as both:
                both.execute_command("ACL", "SETUSER", _note(ref.owner, marker), "reset", "off", f"#{digest}")
                both.execute_command("ACL", "SETUSER", ref.owner, f"#{digest}")
                both.execute()
            self._save(db)
        new = KeyRef(f"{ref.owner}#{digest[:SHOWN]}", ref.owner, never_used=True, label=marker)
        return Minted(new, {"username": Secret(ref.owner), "password": Secret(value)})

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:  # noqa: ARG002  # the contract's arguments
        """List what the note of this marker holds; nobody else writes one."""
        with redis_admin(self._settings) as db:
            about, note = self._user(db, ref.owner), self._user(db, _note(ref.owner, marker))
            if about is None or note is None:
                return []
            found = [self._ref(ref.owner, p, about, marker) for p in note["passwords"] if p in about["passwords"]]
        return [key for key in found if key.id not in {*before, ref.id}]

    def disable(self, ref: KeyRef) -> None:
        """Take the password from the user and keep its hash aside."""
        self._move(ref, ref.owner, _parked(ref.owner), "off")

    def enable(self, ref: KeyRef) -> None:
        """Give the password back."""
        self._move(ref, _parked(ref.owner), ref.owner)

    def _move(self, ref: KeyRef, source: str, target: str, *more: str) -> None:
        with redis_admin(self._settings) as db:
            digest = self._digest(db, ref, source)
            if digest is None:
                if self._digest(db, ref, target) is None:
                    raise ProviderError(Trouble.GONE, f"Redis user {ref.owner} does not have this password any more")
                return
            with db.pipeline(transaction=True) as both:
                both.execute_command("ACL", "SETUSER", target, *more, f"#{digest}")
                both.execute_command("ACL", "SETUSER", source, f"!{digest}")
                both.execute()
            self._save(db)

    def retire(self, ref: KeyRef) -> None:
        """Remove exactly this password, wherever it lies, and the notes that are of no more use."""
        with redis_admin(self._settings) as db:
            for user in (ref.owner, _parked(ref.owner)):
                digest = self._digest(db, ref, user)
                if digest is not None:
                    db.execute_command("ACL", "SETUSER", user, f"!{digest}")
            for user in db.execute_command("ACL", "USERS"):
                ours = user.startswith(_note(ref.owner, "")) or user == _parked(ref.owner)
                if ours and self._spent(db, str(user), ref):
                    db.execute_command("ACL", "DELUSER", user)
            self._save(db)

    def _spent(self, db: Redis, note: str, ref: KeyRef) -> bool:
        """Tell whether a note holds nothing, or only what was just removed or is not the user's any more."""
        about, owner = self._user(db, note), self._user(db, ref.owner)
        held = set(about["passwords"]) if about else set()
        if note == _parked(ref.owner):
            return not held
        return not held & set(owner["passwords"] if owner else ())

    def state(self, ref: KeyRef) -> State:
        """Say where the password lies."""
        with redis_admin(self._settings) as db:
            about = self._user(db, ref.owner)
            if about is not None and self._digest(db, ref, ref.owner) is not None:
                return State.ACTIVE if "on" in about["flags"] else State.DISABLED
            return State.GONE if self._digest(db, ref, _parked(ref.owner)) is None else State.DISABLED

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # no history is kept
        """Say what the user may do and from where it is connected now."""
        gathering = Gathering()
        with redis_admin(self._settings) as db:

            def rights() -> str:
                said: Any = db.execute_command("ACL", "GETUSER", ref.owner)
                said = dict(zip(said[::2], said[1::2], strict=True)) if isinstance(said, list) else said
                return f"{said['commands']}; keys {said['keys']}; channels {said['channels']}"

            def sessions() -> str:
                return listed([f"{c['addr']} for {c['age']} s" for c in db.client_list() if c.get("user") == ref.owner])

            gathering.add("rights", rights)
            gathering.add("connected now", sessions)
            gathering.add("passwords", lambda: str(len(self.siblings(ref))))
        return gathering.facts


def _note(user: str, marker: str) -> str:
    return f"lapse-new:{user}:{marker}"


def _parked(user: str) -> str:
    return f"lapse-off:{user}"


def make(settings: Settings) -> RedisAcl:
    """Return the issuer for a playbook's slot."""
    return RedisAcl(settings)
