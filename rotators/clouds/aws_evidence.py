"""What AWS can tell about an access key: its owner's rights, its use, who made it. Bounded in time and number."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, cast

from rotators.clouds.aws import AwsError, aws, role_of
from rotators.clouds.bounded import EVENTS, Gathering, listed
from rotators.interface import Fact, ProviderError, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mypy_boto3_cloudtrail import CloudTrailClient
    from mypy_boto3_cloudtrail.type_defs import EventTypeDef
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sts import STSClient

    from rotators.clouds.aws import Aws
    from rotators.interface import KeyRef

_READS = ("secretsmanager:getsecretvalue", "ssm:getparameter", "ssm:getparameters", "kms:decrypt")
_OPENS_SESSIONS = ("AssumeRole", "GetSessionToken", "GetFederationToken")
_POLICIES = 20
_LOOK_BACK = timedelta(days=90)


class Maker(StrEnum):
    """What CloudTrail says of who made a key."""

    OURS = "ours"
    THEIRS = "theirs"
    SILENT = "silent"


def preflight(way: Aws, actions: Sequence[str]) -> list[Fact]:
    """Name the admin and simulate its rights.

    A right that is surely missing is `ProviderError(DENIED)`; where the simulation itself is not allowed, that is said.
    """
    sts = cast("STSClient", way.client("sts"))
    with aws("say who the admin is"):
        arn = sts.get_caller_identity()["Arn"]
    facts = [Fact("admin", arn)]
    if arn.endswith(":root"):
        return [*facts, Fact("rights", "the account's root may do everything")]
    iam = cast("IAMClient", way.client("iam"))
    try:
        with aws("simulate the admin's rights"):
            role = role_of(arn)
            source = iam.get_role(RoleName=role)["Role"]["Arn"] if role else arn
            said = iam.simulate_principal_policy(PolicySourceArn=source, ActionNames=list(actions))
    except AwsError as e:
        return [*facts, Fact("rights", f"not checked beforehand: {e}")]
    missing = sorted(r["EvalActionName"] for r in said["EvaluationResults"] if r["EvalDecision"] != "allowed")
    if missing:
        raise ProviderError(Trouble.DENIED, f"{arn} lacks {', '.join(missing)}: allow it, or use another admin")
    return [*facts, Fact("rights", f"IAM's simulation allows {', '.join(actions)}")]


def maker(way: Aws, key: KeyRef, since: datetime, marker: str) -> Maker:
    """Ask CloudTrail who made `key`: our calls carry `marker` in their User-Agent. It may lag by 15 minutes."""
    trail = cast("CloudTrailClient", way.client("cloudtrail", quick=True, home=True))
    try:
        with aws("look up who made the key"):
            for event in _events(trail, "EventName", "CreateAccessKey", since):
                made = (event.get("responseElements") or {}).get("accessKey") or {}
                if made.get("accessKeyId") == key.id:
                    return Maker.OURS if f"lapse/{marker}" in str(event.get("userAgent", "")).split() else Maker.THEIRS
    except AwsError:
        return Maker.SILENT
    return Maker.SILENT


def gather(way: Aws, ref: KeyRef, since: datetime | None) -> list[Fact]:
    """Collect what a responder asks first; each piece may fail on its own."""
    iam = cast("IAMClient", way.client("iam", quick=True))
    got = Gathering()
    user = ref.owner
    got.add("owner", lambda: _owner(iam, user))
    got.add("last used", lambda: _last_used(iam, ref.id))
    got.add("other keys", lambda: _others(iam, ref))
    got.add("groups", lambda: listed(_groups(iam, user)) or "none")
    got.add("policies", lambda: listed(_policies(iam, user)) or "none of the user's own")
    got.add("may read secrets", lambda: _secrets(iam, user))
    trail = cast("CloudTrailClient", way.client("cloudtrail", quick=True))
    start = since or datetime.now(UTC) - _LOOK_BACK
    got.add("did since the leak", lambda: _deeds(trail, ref.id, start))
    return got.facts


def _owner(iam: IAMClient, user: str) -> str:
    with aws(f"describe user {user}"):
        got = iam.get_user(UserName=user)["User"]
    tags = ", ".join(f"{t['Key']}={t['Value']}" for t in got.get("Tags", []))
    return f"{got['Arn']}, since {got['CreateDate']:%Y-%m-%d}" + (f" ({tags})" if tags else "")


def _last_used(iam: IAMClient, key: str) -> str:
    with aws("say when the key was last used"):
        used = iam.get_access_key_last_used(AccessKeyId=key)["AccessKeyLastUsed"]
    date = used.get("LastUsedDate")
    if date is None:
        return "never, as far as IAM knows"
    return f"{date.isoformat()} for {used.get('ServiceName', '?')} in {used.get('Region', '?')}"


def _others(iam: IAMClient, ref: KeyRef) -> str:
    with aws("list the user's keys"):
        keys = iam.list_access_keys(UserName=ref.owner)["AccessKeyMetadata"]
    return listed([f"{k['AccessKeyId']} ({k['Status']})" for k in keys if k["AccessKeyId"] != ref.id]) or "none"


def _groups(iam: IAMClient, user: str) -> list[str]:
    with aws("list the user's groups"):
        return [g["GroupName"] for g in iam.list_groups_for_user(UserName=user)["Groups"]]


def _policies(iam: IAMClient, user: str) -> list[str]:
    with aws("list the user's policies"):
        attached = iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]
        inline = iam.list_user_policies(UserName=user)["PolicyNames"]
    return [*(p["PolicyArn"] for p in attached), *(f"{name} (inline)" for name in inline)]


def _documents(iam: IAMClient, user: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the user's and the groups' policies by name; a bounded number of them."""
    arns = [p["PolicyArn"] for p in iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]]
    for name in iam.list_user_policies(UserName=user)["PolicyNames"][:_POLICIES]:
        yield name, _document(iam.get_user_policy(UserName=user, PolicyName=name)["PolicyDocument"])
    for group in _groups(iam, user)[:_POLICIES]:
        arns += [p["PolicyArn"] for p in iam.list_attached_group_policies(GroupName=group)["AttachedPolicies"]]
        for name in iam.list_group_policies(GroupName=group)["PolicyNames"][:_POLICIES]:
            yield (
                f"{group}/{name}",
                _document(iam.get_group_policy(GroupName=group, PolicyName=name)["PolicyDocument"]),
            )
    for arn in arns[:_POLICIES]:
        version = iam.get_policy(PolicyArn=arn)["Policy"].get("DefaultVersionId", "v1")
        found = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
        yield arn.rsplit("/", 1)[-1], _document(found.get("Document", {}))


def _document(raw: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(raw) if isinstance(raw, str) else raw)


def _secrets(iam: IAMClient, user: str) -> str:
    with aws("read the user's policies"):
        found = [f"{where} by {name}" for name, policy in _documents(iam, user) for where in readable(policy)]
    return listed(found) or "no policy of the user's names a secret"


def readable(policy: Mapping[str, Any]) -> list[str]:
    """Return the resources whose secrets a policy lets its holder read, as written (`*` is everything)."""
    statements = policy.get("Statement", [])
    found = []
    for statement in statements if isinstance(statements, list) else [statements]:
        actions = _many(statement.get("Action"))
        if statement.get("Effect") == "Allow" and any(fnmatchcase(r, a.lower()) for a in actions for r in _READS):
            found += _many(statement.get("Resource"))
    return found


def _many(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _events(
    trail: CloudTrailClient, by: Literal["AccessKeyId", "EventName"], value: str, since: datetime
) -> Iterator[Mapping[str, Any]]:
    """Yield what CloudTrail kept of at most `EVENTS` events, newest first."""
    said = trail.lookup_events(
        LookupAttributes=[{"AttributeKey": by, "AttributeValue": value}], StartTime=since, MaxResults=EVENTS
    )
    for event in said["Events"]:
        yield _detail(event)


def _detail(event: EventTypeDef) -> Mapping[str, Any]:
    try:
        detail = json.loads(event.get("CloudTrailEvent", "{}"))
    except ValueError:
        detail = {}
    return {"eventName": event.get("EventName", "?"), **detail}


def _deeds(trail: CloudTrailClient, key: str, since: datetime) -> str:
    with aws("look up what the key did"):
        events = list(_events(trail, "AccessKeyId", key, since))
    if not events:
        return f"CloudTrail shows nothing in this region since {since:%Y-%m-%d %H:%M}Z (data events are not in it)"
    names = Counter(str(e["eventName"]) for e in events)
    places = sorted({str(e.get("sourceIPAddress", "?")) for e in events})
    roles = sorted(
        {str((e.get("requestParameters") or {}).get("roleArn", "?")) for e in events if e["eventName"] == "AssumeRole"}
    )
    text = listed([f"{n} {name}" for name, n in names.most_common()]) + f"; from {listed(places)}"
    if len(events) >= EVENTS:
        text = f"the newest {EVENTS}: {text}"
    if roles:
        text += f"; roles it took on, whose sessions outlive the key: {listed(roles)}"
    if opened := [n for n in _OPENS_SESSIONS[1:] if n in names]:
        text += f"; sessions it opened: {listed(opened)}"
    return text
