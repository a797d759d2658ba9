"""Google Cloud service-account keys: ten an account, disabled and enabled at will, without a label.

An interrupted create is known by the list before it, its time, and the admin-activity log, which keeps our User-Agent
with the run's marker. Google cannot say that a key was never used, so without the log's word no key is an orphan.
https://cloud.google.com/iam/docs/keys-create-delete
"""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from rotators.clouds.gcp_evidence import Maker, gather, maker
from rotators.clouds.google import Google, key_file, lacking, project_of
from rotators.clouds.rest import Nothing, RestError, done_if_gone
from rotators.door import Route
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.clouds.rest import Service
    from rotators.interface import Settings
    from verifier.model import Credential

LIMIT = 10
SKEW = timedelta(seconds=60)
_KEYS = "/v1/projects/-/serviceAccounts/{email}/keys"
_LIST, _CREATE = Route("GET", _KEYS), Route("POST", _KEYS)
_GET, _DELETE = Route("GET", _KEYS + "/{key}"), Route("DELETE", _KEYS + "/{key}")
_DISABLE, _ENABLE = Route("POST", _KEYS + "/{key}:disable"), Route("POST", _KEYS + "/{key}:enable")
_TEST = Route("POST", "/v1/projects/-/serviceAccounts/{email}:testIamPermissions")
ROUTES = (_LIST, _CREATE, _GET, _DELETE, _DISABLE, _ENABLE, _TEST)
_LOG_LAG = timedelta(seconds=10)


class _Key(Struct, frozen=True, rename="camel"):
    name: str
    valid_after_time: datetime | None = None
    key_type: str = "USER_MANAGED"
    disabled: bool = False
    private_key_data: str = ""


class _Keys(Struct, frozen=True):
    keys: tuple[_Key, ...] = ()


class GcpIam:
    """Keys of service accounts.

    Settings: `orphans` = `log` (the default) or `snapshot` (any key made since is ours: only where nobody else makes
    keys of this account), those of `clouds.google` and of the door.
    """

    name = "gcp_iam"
    kinds = ("gcp_sa",)
    style = Style.DISPLACE
    reversible = True
    propagation = timedelta(seconds=60)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("iam.serviceAccountKeys.get",),
        "mint": ("iam.serviceAccountKeys.list", "iam.serviceAccountKeys.create", "logging.logEntries.list"),
        "disable": ("iam.serviceAccountKeys.disable",),
        "enable": ("iam.serviceAccountKeys.enable",),
        "retire": ("iam.serviceAccountKeys.delete",),
        "evidence": (
            "iam.serviceAccounts.get",
            "iam.serviceAccountKeys.list",
            "resourcemanager.projects.getIamPolicy",
            "logging.logEntries.list",
            "policyanalyzer.serviceAccountKeyLastAuthenticationActivities.query",
        ),
    }
    also_dies = "Nothing else dies: access tokens that the key has fetched live on for up to an hour."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings
        self._google = Google(settings)
        choice = settings.get("orphans", "log")
        if choice not in ("log", "snapshot"):
            raise ProviderError(Trouble.REFUSED, f"orphans = {choice!r} is neither log nor snapshot")
        self._by_snapshot = choice == "snapshot"

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:
        """Ask which rights the admin has on the account."""
        email = ref.owner
        needed = {right for step in ("locate", "mint", "disable", "retire") for right in self.permissions[step]}
        wanted = {right for right in needed if right.startswith("iam.")}
        if missing := lacking(self._iam(), _TEST, email, {"email": email}, wanted):
            reason = f"the admin lacks {', '.join(missing)} on {email}: grant roles/iam.serviceAccountKeyAdmin"
            raise ProviderError(Trouble.DENIED, reason)
        return [Fact("rights", f"the admin may do all that a rotation of {email}'s keys needs")]

    def locate(self, old: Credential) -> KeyRef:
        """Find exactly the key that the leaked file names, under the account that it names."""
        file = key_file(old)
        what = f"find key {file.private_key_id} of {file.client_email}"
        fill = {"email": file.client_email, "key": file.private_key_id}
        found = self._iam(file.private_key_id).ask(_GET, _Key, what, fill=fill)
        return _ref(found, file.client_email)

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the account's user-managed keys; Google's own are left out."""
        said = self._iam().ask(
            _LIST, _Keys, f"list the keys of {ref.owner}", fill={"email": ref.owner}, query={"keyTypes": "USER_MANAGED"}
        )
        return [_ref(key, ref.owner) for key in said.keys if key.key_type == "USER_MANAGED"]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Create a key of the same account; with ten there already it is `ProviderError(FULL)`."""
        full = f"{ref.owner} has {LIMIT} keys already, and disabled ones count: delete one that nobody uses"
        if len(self.siblings(ref)) >= LIMIT:
            raise ProviderError(Trouble.FULL, full)
        body = {"privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE", "keyAlgorithm": "KEY_ALG_RSA_2048"}
        try:
            made = self._iam(ref.id).ask(
                _CREATE, _Key, f"create a key for {ref.owner}", fill={"email": ref.owner}, json=body, agent=marker
            )
        except RestError as e:
            if e.code == "RESOURCE_EXHAUSTED" and "number of keys" in str(e):
                raise RestError(Trouble.FULL, full, e.status, e.code) from None
            if e.code == "FAILED_PRECONDITION":
                hint = "an organisation policy may forbid keys (iam.disableServiceAccountKeyCreation)"
                raise RestError(Trouble.REFUSED, f"{e}; {hint}", e.status, e.code) from None
            raise
        new = _ref(made, ref.owner)
        return Minted(new, {"secret": Secret(b64decode(made.private_key_data).decode())})

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List keys not in `before`, made since (less 60 s of clock skew), that the audit log proves to be ours.

        Where the log does not say yet it is `ProviderError(LATER)`, where it may not be read `DENIED`: nobody guesses.
        """
        known = {*before, ref.id}
        found = []
        for key in self.siblings(ref):
            if key.id in known or key.created is None or key.created < since - SKEW:
                continue
            if self._by_snapshot:
                found.append(key)
            elif self._ours(key, since - SKEW, marker):
                found.append(replace(key, label=marker))
        return found

    def _ours(self, key: KeyRef, since: datetime, marker: str) -> bool:
        look = f"key {key.id} of {key.owner} is new: delete it if nobody knows it, then go on"
        try:
            said = maker(self._google, key, since, marker)
        except ProviderError as e:
            if e.trouble is Trouble.LATER:
                raise
            raise ProviderError(e.trouble, f"{look} (the audit log cannot tell whose it is: {e})") from None
        if said is Maker.SILENT:
            raise ProviderError(Trouble.LATER, f"{look} (the audit log does not say yet whose it is)", _LOG_LAG)
        return said is Maker.OURS

    def disable(self, ref: KeyRef) -> None:
        """Disable the key; tokens that it fetched go on until they expire."""
        self._act(_DISABLE, ref, "disable")

    def enable(self, ref: KeyRef) -> None:
        """Enable the key again."""
        self._act(_ENABLE, ref, "enable")

    def retire(self, ref: KeyRef) -> None:
        """Delete exactly this key; one that is not there is done."""
        try:
            self._act(_DELETE, ref, "delete")
        except RestError as e:
            done_if_gone(e)

    def state(self, ref: KeyRef) -> State:
        """Return what Google says of the key."""
        try:
            what = f"find key {ref.id} of {ref.owner}"
            found = self._iam().ask(_GET, _Key, what, fill={"email": ref.owner, "key": ref.id})
        except RestError as e:
            done_if_gone(e)
            return State.GONE
        return State.DISABLED if found.disabled else State.ACTIVE

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:
        """Say whose the key is, what the account may do, when the key last logged in and what it did since."""
        others = [f"{k.id} ({k.state})" for k in self._others(ref)]
        return gather(self._google, ref, since, project_of(ref.owner), others)

    def _others(self, ref: KeyRef) -> Sequence[KeyRef]:
        try:
            return [k for k in self.siblings(ref) if k.id != ref.id]
        except ProviderError:
            return []

    def _act(self, route: Route, ref: KeyRef, verb: str) -> None:
        what = f"{verb} key {ref.id} of {ref.owner}"
        body: dict[str, str] | None = None if route.method == "DELETE" else {}
        self._iam(ref.id).ask(route, Nothing, what, fill={"email": ref.owner, "key": ref.id}, json=body)

    def _iam(self, leaked: str = "") -> Service:
        return self._google.service("iam", ROUTES, leaked=leaked)


def _ref(key: _Key, email: str) -> KeyRef:
    state = State.DISABLED if key.disabled else State.ACTIVE
    return KeyRef(key.name.rsplit("/", 1)[-1], email, state, key.valid_after_time)


def make(settings: Settings) -> GcpIam:
    """Return the issuer for a playbook's slot."""
    return GcpIam(settings)
