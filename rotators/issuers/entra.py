"""Entra application client secrets: many may live, none can be switched off, each has an id and a display name.

Graph never shows a secret again, only its first three characters (`hint`). Which of the secrets leaked is told by the
hint only when exactly one fits; else the playbook must name the `key_id`. The display name of what we make is the run's
marker, so an orphan is known for certain. Graph and the login replicas agree late: a new secret may be refused for
minutes, a removed one may work on.
https://learn.microsoft.com/en-us/graph/api/application-addpassword
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rotators.clouds import graph
from rotators.clouds.bounded import EVENTS, Gathering, listed
from rotators.clouds.microsoft import Microsoft
from rotators.clouds.rest import Nothing, RestError, done_if_gone
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.clouds.rest import Service
    from rotators.interface import Settings
    from verifier.model import Credential

_APPS, _PRINCIPALS = "applications", "servicePrincipals"
_DAYS = 90
_HINT = 3


class Entra:
    """Client secrets of one application.

    Settings: `key_id` (which secret leaked, where the hint does not tell), `days` until the new secret expires (90),
    `tenant`, and those of `clouds.microsoft` and of the door. `KeyRef.owner` is `applications/ID` or
    `servicePrincipals/ID`, by Graph's object id.
    """

    name = "entra"
    kinds = ("azure_sp",)
    style = Style.DISPLACE
    reversible = False
    propagation = timedelta(minutes=10)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("Application.Read.All",),
        "mint": ("Application.ReadWrite.OwnedBy",),
        "retire": ("Application.ReadWrite.OwnedBy",),
        "evidence": ("Application.Read.All", "AuditLog.Read.All"),
    }
    also_dies = "Nothing else dies: access tokens fetched with the secret live on for 60 to 90 minutes."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; a number of days that is none is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._way = Microsoft(settings)
        days = settings.get("days", str(_DAYS))
        if not days.isascii() or not days.isdigit() or not 1 <= int(days) <= 730:  # Entra's two years
            raise ProviderError(Trouble.REFUSED, f"days = {days!r} is not a number from 1 to 730")
        self._life = timedelta(days=int(days))

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Log in and read one application; Graph cannot tell beforehand whether a secret may be added."""
        self._graph.ask(graph.ANY, graph.Names, "list applications", query={"$top": "1", "$select": "id"})
        return [Fact("rights", "the admin may read applications; whether it may add secrets shows when it does")]

    def locate(self, old: Credential) -> KeyRef:
        """Find which secret of the application leaked: by `key_id`, or by the one hint that fits."""
        secret, app = old.parts["secret"].reveal(), old.parts["id"].reveal().strip()
        self._way.refuse_leaked(secret)
        holders = self._holders(app)
        every = [_ref(p, owner) for owner, holder in holders.items() for p in holder.password_credentials]
        if named := self._settings.get("key_id"):
            found = [ref for ref in every if ref.id == named]
            if not found:
                raise ProviderError(Trouble.GONE, f"application {app} has no secret {named}: it is removed already")
            return found[0]
        hints = {p.key_id: p.hint for holder in holders.values() for p in holder.password_credentials}
        fits = [ref for ref in every if hints[ref.id] is None or hints[ref.id] == secret[:_HINT]]
        if not fits:
            raise ProviderError(Trouble.GONE, f"no secret of application {app} begins like the leaked one: it is gone")
        if len(fits) > 1 or hints[fits[0].id] is None:
            names = listed([f"{ref.id} ({ref.label})" if ref.label else ref.id for ref in fits])
            reason = f"it cannot be told which secret of application {app} leaked: name one as `key_id`: {names}"
            raise ProviderError(Trouble.REFUSED, reason)
        return fits[0]

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the secrets of the same object."""
        return [_ref(p, ref.owner) for p in self._holder(ref.owner).password_credentials]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Add a secret whose display name is the marker."""
        kind, number = _parts(ref.owner)
        holder = self._holder(ref.owner)
        until = (datetime.now(UTC) + self._life).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"passwordCredential": {"displayName": marker, "endDateTime": until}}
        what = f"add a secret to {holder.display_name or ref.owner}"
        made = self._graph.ask(graph.ADD[kind], graph.Password, what, fill={"id": number}, json=body)
        parts = {"secret": made.secret_text or "", "id": holder.app_id, "tenant": self._way.tenant()}
        return Minted(_ref(made, ref.owner), {name: Secret(value) for name, value in parts.items()})

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List secrets whose display name is exactly the marker; `since` is not needed."""
        _ = since
        known = {*before, ref.id}
        return [key for key in self.siblings(ref) if key.label == marker and key.id not in known]

    def disable(self, ref: KeyRef) -> None:
        """Refuse: Entra cannot switch a secret off, only remove it."""
        raise ProviderError(Trouble.REFUSED, f"Entra cannot disable secret {ref.id}, only remove it for good")

    def enable(self, ref: KeyRef) -> None:
        """Refuse: a removed secret cannot come back."""
        raise ProviderError(Trouble.REFUSED, f"Entra cannot enable secret {ref.id}: a removed secret is gone")

    def retire(self, ref: KeyRef) -> None:
        """Remove exactly this secret; one that is not there is done."""
        if self.state(ref) is State.GONE:
            return
        kind, number = _parts(ref.owner)
        try:
            what = f"remove secret {ref.id}"
            self._graph.ask(graph.REMOVE[kind], Nothing, what, fill={"id": number}, json={"keyId": ref.id})
        except RestError as e:
            # Graph may have listed a secret that another replica has removed already.
            if e.trouble is Trouble.REFUSED and self.state(ref) is State.GONE:
                return
            done_if_gone(e)

    def state(self, ref: KeyRef) -> State:
        """Return what Graph says: an expired secret is `DISABLED`, one that is not listed is `GONE`."""
        try:
            found = [p for p in self._holder(ref.owner).password_credentials if p.key_id == ref.id]
        except RestError as e:
            done_if_gone(e)
            return State.GONE
        return _ref(found[0], ref.owner).state if found else State.GONE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:
        """Say whose the application is, what it may do, what other secrets it has, and who logged in with this one."""
        got = Gathering()
        kind, number = _parts(ref.owner)
        try:
            holder = self._holder(ref.owner)
        except ProviderError as e:
            return [Fact("application", f"not known: {e}")]
        app = holder.app_id
        got.facts.append(Fact("application", f"{holder.display_name or '?'} ({app})"))
        if kind == _APPS:
            got.add("owners", lambda: self._owners(number))
        others = [p for p in holder.password_credentials if p.key_id != ref.id]
        got.add(
            "other secrets", lambda: listed([f"{p.key_id} ({p.display_name or 'no name'})" for p in others]) or "none"
        )
        got.add("may do", lambda: self._roles(app))
        got.add("logged in since the leak", lambda: self._sign_ins(app, ref.id, since))
        return got.facts

    def _owners(self, number: str) -> str:
        said = self._graph.ask(graph.OWNERS, graph.Names, "list the owners", fill={"id": number})
        return listed([p.user_principal_name or p.display_name or p.id for p in said.value]) or "nobody"

    def _roles(self, app: str) -> str:
        said = self._graph.ask(graph.ROLES, graph.Roles, "list what the application may do", fill={"app": app})
        return (
            listed([f"{r.app_role_id} at {r.resource_display_name or '?'}" for r in said.value])
            or "no application right"
        )

    def _sign_ins(self, app: str, key: str, since: datetime | None) -> str:
        words = f"signInEventTypes/any(t: t eq 'servicePrincipal') and appId eq '{app}'"
        if since is not None:
            words += f" and createdDateTime ge {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        query = {"$filter": words, "$top": str(EVENTS)}
        said = self._graph.ask(graph.SIGN_INS, graph.SignIns, "read the sign-in log", query=query)
        with_it = [s for s in said.value if s.service_principal_credential_key_id == key]
        if not with_it:
            return f"nobody with this secret, of {len(said.value)} log-ins of the application"
        places = sorted({s.ip_address or "?" for s in with_it})
        to = sorted({s.resource_display_name or "?" for s in with_it})
        last = max(s.created_date_time for s in with_it)
        return f"{len(with_it)} with this secret, last {last}; from {listed(places)}; to {listed(to)}"

    @property
    def _graph(self) -> Service:
        return self._way.service("graph", graph.ROUTES)

    def _holder(self, owner: str) -> graph.Holder:
        kind, number = _parts(owner)
        return self._graph.ask(graph.OBJECT[kind], graph.Holder, f"read {owner}", fill={"id": number})

    def _holders(self, app: str) -> dict[str, graph.Holder]:
        """Return the application and its service principal: both may hold secrets, and either may be missing."""
        found = {}
        for kind, route in ((_APPS, graph.APP), (_PRINCIPALS, graph.PRINCIPAL)):
            try:
                holder = self._graph.ask(route, graph.Holder, f"find application {app}", fill={"app": app})
            except RestError as e:
                done_if_gone(e)
            else:
                found[f"{kind}/{holder.id}"] = holder
        if not found:
            raise ProviderError(Trouble.GONE, f"this tenant knows no application {app}: is the admin of the right one?")
        return found


def _parts(owner: str) -> tuple[str, str]:
    kind, _, number = owner.partition("/")
    if kind not in (_APPS, _PRINCIPALS) or not number:
        raise ProviderError(Trouble.REFUSED, f"{owner} is neither an application nor a service principal")
    return kind, number


def _ref(password: graph.Password, owner: str) -> KeyRef:
    over = password.end_date_time is not None and password.end_date_time <= datetime.now(UTC)
    state = State.DISABLED if over else State.ACTIVE
    return KeyRef(password.key_id, owner, state, password.start_date_time, label=password.display_name or "")


def make(settings: Settings) -> Entra:
    """Return the issuer for a playbook's slot."""
    return Entra(settings)
