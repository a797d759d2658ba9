"""End what a leaked Entra secret opened, as far as Entra can: that is little, and the record says until when.

Access tokens fetched with a client secret cannot be revoked; they live for 60 to 90 minutes. Switching the service
principal off stops every secret of the application, *the new one too*, until it is switched on again: that is for the
first hour of an emergency, and never the default. Signing users out does not touch application-only tokens and cannot
be undone.
https://learn.microsoft.com/en-us/graph/api/user-revokesigninsessions
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rotators.clouds import graph
from rotators.clouds.microsoft import Microsoft
from rotators.clouds.rest import Nothing
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done, Failed
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rotators.clouds.rest import Service
    from rotators.interface import KeyRef, Settings
    from rotators.step import Outcome
    from verifier.model import Credential

_TOKENS = timedelta(minutes=90)
_EXPIRE, _PRINCIPAL, _USERS = "expire", "service_principal", "users"


class EntraSignIns:
    """Settings: `mode` and, for `users`, the setting `users` with names or ids by comma.

    `expire` (the default) changes nothing and says until when tokens may live, `service_principal` switches the
    principal off until `undo`, `users` signs users out for good.
    """

    name = "entra_signins"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "kill": ("Application.ReadWrite.OwnedBy", "User.RevokeSessions.All"),
        "undo": ("Application.ReadWrite.OwnedBy",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; an unknown mode or no users are `ProviderError(REFUSED)`."""
        self._way = Microsoft(settings)
        self._mode = settings.get("mode", _EXPIRE)
        self._users = [u.strip() for u in settings.get("users", "").split(",") if u.strip()]
        if self._mode not in (_EXPIRE, _PRINCIPAL, _USERS):
            raise ProviderError(Trouble.REFUSED, f"mode = {self._mode!r} is not expire, service_principal or users")
        if self._mode == _USERS and not self._users:
            raise ProviderError(Trouble.REFUSED, "mode = users needs `users`: whom to sign out")
        self.reversible = self._mode != _USERS
        self.stops_new = self._mode == _PRINCIPAL

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:
        """Log in and find the principal, where it is to be switched; Graph cannot tell whether it lets itself be."""
        _ = ref
        self._way.refuse_leaked(old.parts["secret"].reveal())
        if self._mode == _EXPIRE:
            return [Fact("sessions", "tokens run out by themselves: no right is needed")]
        if self._mode == _USERS:
            self._way.log_in("graph")
            who = plural(len(self._users), "user")
            return [Fact("sessions", f"the admin is logged in; whether it may sign {who} out shows when it does")]
        app = _app(old)
        self._graph.ask(graph.PRINCIPAL, graph.Holder, f"find the principal of {app}", fill={"app": app})
        said = f"the admin may read the principal of {app}; whether it may switch it off shows when it does"
        return [Fact("sessions", said)]

    def shut(self, old: Credential, ref: KeyRef) -> bool:
        """Say whether the principal is off."""
        _ = ref
        app = _app(old)
        said = self._graph.ask(graph.PRINCIPAL, graph.Holder, f"find the principal of {app}", fill={"app": app})
        return not said.account_enabled

    def lift(self, old: Credential, ref: KeyRef, killed: datetime, moment: datetime) -> Outcome:
        """Switch the principal on: tokens fetched before were never held by its being off, so there is no waiting."""
        _ = (killed, moment)
        return self.undo(old, ref)

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        """Wait for tokens to expire, switch the principal off, or sign the users out; repeating is harmless.

        `possible_until` is when the last access token from before `moment` is over.
        """
        _ = ref
        self._way.refuse_leaked(old.parts["secret"].reveal())
        until = {"possible_until": (moment + _TOKENS).isoformat()}
        if self._mode == _EXPIRE:
            return Done("tokens fetched with the secret run out by themselves", until)
        if self._mode == _USERS:
            for user in self._users:
                self._graph.ask(graph.SIGN_OUT, Nothing, f"sign {user} out", fill={"user": user}, json={})
            return Done(f"{len(self._users)} users are signed out", until)
        app = _app(old)
        said = self._graph.ask(graph.PRINCIPAL, graph.Holder, f"find the principal of {app}", fill={"app": app})
        if said.account_enabled:
            self._switch(app, on=False)
        return Done(f"the principal of application {app} is off", until)

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:
        """Switch the principal on again; users cannot be signed in again."""
        _ = ref
        if self._mode == _USERS:
            return Failed("signing out cannot be taken back", "the users log in again")
        if self._mode == _EXPIRE:
            return Done("nothing was changed")
        self._switch(_app(old), on=True)
        return Done(f"the principal of application {_app(old)} is on again")

    def _switch(self, app: str, *, on: bool) -> None:
        what = f"switch the principal of {app} {'on' if on else 'off'}"
        self._graph.ask(graph.SWITCH, Nothing, what, fill={"app": app}, json={"accountEnabled": on})

    @property
    def _graph(self) -> Service:
        return self._way.service("graph", graph.ROUTES)


def _app(old: Credential) -> str:
    return old.parts["id"].reveal().strip()


def make(settings: Settings) -> EntraSignIns:
    """Return the session killer for a playbook's slot."""
    return EntraSignIns(settings)
