"""End the sessions that an AWS access key opened, by denying everything to credentials issued before a moment.

`aws:TokenIssueTime` is there only for temporary credentials: sessions of GetSessionToken and GetFederationToken die,
the user's long-lived keys, the new one among them, go on. Sessions of roles that the key took on are under the role's
policies: they die when the role is named. `sts:GetCallerIdentity` still answers them; it cannot be denied.
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from rotators.clouds.aws import Aws, AwsError, aws
from rotators.clouds.aws_evidence import preflight
from rotators.interface import ProviderError, Trouble
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_iam import IAMClient

    from rotators.interface import Fact, KeyRef, Settings
    from rotators.step import Outcome
    from verifier.model import Credential

_ROLE_SESSION = timedelta(hours=12)
_SESSIONS, _EVERYTHING = "sessions", "everything"


class AwsDeny:
    """An inline policy on the key's user and on the roles named, under a name made from the credential's id.

    Settings: `scope` = `sessions` (the default) or `everything` (quarantine: the user may do nothing at all, also with
    a new key, until it is taken back), `roles` (comma-separated names; every older session of a role dies, also
    rightful ones).
    """

    name = "aws_deny"
    reversible = True
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "kill": ("iam:PutUserPolicy", "iam:PutRolePolicy"),
        "undo": ("iam:DeleteUserPolicy", "iam:DeleteRolePolicy"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; an unknown scope is `ProviderError(REFUSED)`."""
        self._aws = Aws(settings)
        self._scope = settings.get("scope", _SESSIONS)
        self._roles = [r.strip() for r in settings.get("roles", "").split(",") if r.strip()]
        if self._scope not in (_SESSIONS, _EVERYTHING):
            raise ProviderError(Trouble.REFUSED, f"scope = {self._scope!r} is neither sessions nor everything")
        self.stops_new = self._scope == _EVERYTHING

    def shut(self, old: Credential, ref: KeyRef) -> bool:
        """Say no: the policy bears this credential's name, so it is nobody else's."""
        _ = (old, ref)
        return False

    def lift(self, old: Credential, ref: KeyRef, killed: datetime, moment: datetime) -> Outcome:
        """Narrow the deny to sessions from before `moment`: keys go on, what the old one opened does not."""
        _ = killed
        with aws(f"narrow the deny on user {ref.owner}"):
            self._iam(old).put_user_policy(UserName=ref.owner, PolicyName=_name(old), PolicyDocument=_older(moment))
        return Done(f"user {ref.owner}: only sessions from before {_stamp(moment)} are denied", {"policy": _name(old)})

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:
        """Have IAM simulate the admin's rights; those on roles count only where roles are named."""
        _ = (old, ref)
        rights = {r for wanted in self.permissions.values() for r in wanted}
        return preflight(self._aws, sorted(r for r in rights if self._roles or "Role" not in r))

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        """Put the policy on the user and the roles. Repeating writes the same policy again.

        `possible_until` is put out where role sessions may live on: no role is named, or not known to be all.
        """
        iam = self._iam(old)
        policy = self._policy(moment)
        with aws(f"deny older sessions of user {ref.owner}"):
            iam.put_user_policy(UserName=ref.owner, PolicyName=_name(old), PolicyDocument=policy)
        for role in self._roles:
            with aws(f"deny older sessions of role {role}"):
                iam.put_role_policy(RoleName=role, PolicyName=_name(old), PolicyDocument=_older(moment))
        until = {} if self._roles else {"possible_until": (moment + _ROLE_SESSION).isoformat()}
        whom = f"user {ref.owner}" + "".join(f", role {r}" for r in self._roles)
        what = "everything" if self._scope == _EVERYTHING else f"sessions from before {_stamp(moment)}"
        return Done(f"{whom}: {what} denied", {"policy": _name(old), **until})

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:
        """Take our policy off again; what is not there is done."""
        iam = self._iam(old)
        try:
            with aws(f"take the deny off user {ref.owner}"):
                iam.delete_user_policy(UserName=ref.owner, PolicyName=_name(old))
        except AwsError as e:
            _unless_gone(e)
        for role in self._roles:
            try:
                with aws(f"take the deny off role {role}"):
                    iam.delete_role_policy(RoleName=role, PolicyName=_name(old))
            except AwsError as e:
                _unless_gone(e)
        return Done(f"policy {_name(old)} is off")

    def _iam(self, old: Credential) -> IAMClient:
        return cast("IAMClient", self._aws.client("iam", leaked=old.parts["id"].reveal().strip()))

    def _policy(self, moment: datetime) -> str:
        if self._scope == _SESSIONS:
            return _older(moment)
        return json.dumps({"Version": "2012-10-17", "Statement": [_DENY]})


_DENY = {"Effect": "Deny", "Action": "*", "Resource": "*"}


def _older(moment: datetime) -> str:
    condition = {"DateLessThan": {"aws:TokenIssueTime": _stamp(moment)}}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**_DENY, "Condition": condition}]})


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(old: Credential) -> str:
    """IAM's policy names take letters, digits and `+=,.@_-`; a credential id has only such."""
    return f"lapse-deny-{old.id}"[:128]


def _unless_gone(error: AwsError) -> None:
    if error.trouble is not Trouble.GONE:
        raise error


def make(settings: Settings) -> AwsDeny:
    """Return the session killer for a playbook's slot."""
    return AwsDeny(settings)
