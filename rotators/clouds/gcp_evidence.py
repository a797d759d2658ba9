"""What Google Cloud tells of a service-account key: its account's rights, its last log-in, its deeds, its maker."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from rotators.clouds.bounded import EVENTS, Gathering, listed
from rotators.clouds.google import project_of
from rotators.door import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rotators.clouds.google import Google
    from rotators.interface import Fact, KeyRef

_ACCOUNT = Route("GET", "/v1/projects/-/serviceAccounts/{email}")
_POLICY = Route("POST", "/v1/projects/{project}:getIamPolicy")
_ENTRIES = Route("POST", "/v2/entries:list")
_ACTIVITY = "serviceAccountKeyLastAuthentication"
_LAST = Route("GET", f"/v1/projects/{{project}}/locations/global/activityTypes/{_ACTIVITY}/activities:query")
_LOOK_BACK = timedelta(days=30)
_READERS = ("secretmanager.secretAccessor", "secretmanager.admin", "owner", "editor", "cloudkms.cryptoKeyDecrypter")


class Maker(StrEnum):
    """What the audit log says of who made a key."""

    OURS = "ours"
    THEIRS = "theirs"
    SILENT = "silent"


class _Account(Struct, frozen=True, rename="camel"):
    email: str = ""
    display_name: str = ""
    description: str = ""
    unique_id: str = ""
    disabled: bool = False


class _Binding(Struct, frozen=True):
    role: str
    members: tuple[str, ...] = ()


class _Policy(Struct, frozen=True):
    bindings: tuple[_Binding, ...] = ()


class _Authenticated(Struct, frozen=True, rename="camel"):
    last_authenticated_time: str = ""


class _Activity(Struct, frozen=True):
    activity: _Authenticated = _Authenticated()


class _Activities(Struct, frozen=True):
    activities: tuple[_Activity, ...] = ()


class _Request(Struct, frozen=True, rename="camel"):
    caller_ip: str = ""
    caller_supplied_user_agent: str = ""


class _Response(Struct, frozen=True):
    name: str = ""


class _Payload(Struct, frozen=True, rename="camel"):
    method_name: str = ""
    request_metadata: _Request = _Request()
    response: _Response = _Response()


class _Entry(Struct, frozen=True, rename="camel"):
    proto_payload: _Payload = _Payload()


class _Entries(Struct, frozen=True):
    entries: tuple[_Entry, ...] = ()


def _logged(way: Google, project: str, words: str, since: datetime) -> Sequence[_Payload]:
    """Return at most `EVENTS` audit entries that match, newest first."""
    stamp = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "resourceNames": [f"projects/{project}"],
        "filter": f'{words} AND timestamp>="{stamp}"',
        "orderBy": "timestamp desc",
        "pageSize": EVENTS,
    }
    service = way.service("logging", (_ENTRIES,))
    return [e.proto_payload for e in service.ask(_ENTRIES, _Entries, "read the audit log", json=body).entries]


def maker(way: Google, key: KeyRef, since: datetime, marker: str) -> Maker:
    """Ask the admin-activity log, which cannot be switched off, who made `key`: our calls carry `marker`.

    It lags by seconds. A log that may not be read is a `ProviderError`.
    """
    words = 'protoPayload.methodName="google.iam.admin.v1.CreateServiceAccountKey"'
    for entry in _logged(way, project_of(key.owner), words, since):
        if entry.response.name.endswith(f"/keys/{key.id}"):
            agent = entry.request_metadata.caller_supplied_user_agent.split()
            return Maker.OURS if f"lapse/{marker}" in agent else Maker.THEIRS
    return Maker.SILENT


def gather(way: Google, ref: KeyRef, since: datetime | None, project: str, others: list[str]) -> list[Fact]:
    """Collect what a responder asks first; each piece may fail on its own."""
    got = Gathering()
    start = since or datetime.now(UTC) - _LOOK_BACK
    got.add("owner", lambda: _owner(way, ref))
    got.add("other keys", lambda: listed(others) or "none")
    if project:
        got.add("roles in the project", lambda: listed(_roles(way, ref, project)) or "none in its own project")
        got.add("may read secrets", lambda: _secrets(way, ref, project))
        got.add("last log-in", lambda: _last(way, ref, project))
        got.add("did since the leak", lambda: _deeds(way, ref, project, start))
    return got.facts


def _owner(way: Google, ref: KeyRef) -> str:
    service = way.service("iam", (_ACCOUNT,))
    said = service.ask(_ACCOUNT, _Account, f"describe {ref.owner}", fill={"email": ref.owner})
    more = ", ".join(w for w in (said.display_name, said.description, "disabled" if said.disabled else "") if w)
    return f"{ref.owner}, id {said.unique_id}" + (f" ({more})" if more else "")


def _roles(way: Google, ref: KeyRef, project: str) -> list[str]:
    service = way.service("cloudresourcemanager", (_POLICY,))
    body = {"options": {"requestedPolicyVersion": 3}}
    said = service.ask(_POLICY, _Policy, "read the project's policy", fill={"project": project}, json=body)
    return [b.role for b in said.bindings if f"serviceAccount:{ref.owner}" in b.members]


def _secrets(way: Google, ref: KeyRef, project: str) -> str:
    found = [role for role in _roles(way, ref, project) if role.removeprefix("roles/") in _READERS]
    return f"all of project {project}, by {listed(found)}" if found else "no role of the project grants it"


def _last(way: Google, ref: KeyRef, project: str) -> str:
    service = way.service("policyanalyzer", (_LAST,))
    name = f"//iam.googleapis.com/projects/{project}/serviceAccounts/{ref.owner}/keys/{ref.id}"
    query = {"filter": f'activities.full_resource_name="{name}"'}
    said = service.ask(_LAST, _Activities, "say when the key last logged in", fill={"project": project}, query=query)
    times = [a.activity.last_authenticated_time for a in said.activities if a.activity.last_authenticated_time]
    return f"{max(times)} (whole days, and a day or two late)" if times else "not within the time that Google keeps"


def _deeds(way: Google, ref: KeyRef, project: str, since: datetime) -> str:
    name = f"//iam.googleapis.com/projects/{project}/serviceAccounts/{ref.owner}/keys/{ref.id}"
    found = _logged(way, project, f'protoPayload.authenticationInfo.serviceAccountKeyName="{name}"', since)
    if not found:
        return (
            f"the audit log shows nothing since {since:%Y-%m-%d %H:%M}Z (data access is logged only where switched on)"
        )
    deeds = Counter(e.method_name or "?" for e in found)
    places = sorted({e.request_metadata.caller_ip or "?" for e in found})
    return listed([f"{n} {deed}" for deed, n in deeds.most_common()]) + f"; from {listed(places)}"
