"""AWS IAM user access keys (`AKIA…`): two a user, reversible, without a label.

CreateAccessKey has no name, tag or idempotency token, so an interrupted mint is known by the list before it, its time
and never having been used, and by CloudTrail: our calls carry the run's marker in their User-Agent. While CloudTrail
may still be late nothing is decided; what it says is by somebody else is nobody's orphan (docs/adr/010).
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from msgspec.structs import replace

from rotators.clouds.aws import Aws, AwsError, aws
from rotators.clouds.aws_evidence import Maker, gather, maker, preflight
from rotators.interface import KeyRef, Minted, ProviderError, State, Style, Trouble
from verifier.egress.address import loopback
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import AccessKeyLastUsedTypeDef

    from rotators.interface import Fact, Settings
    from verifier.model import Credential

LIMIT = 2
SKEW = timedelta(seconds=60)
_STOP, _MAKE_ROOM = "stop", "delete_inactive_unused"
_BY_TRAIL, _YOUNG = "proven", "young"
TRAIL = timedelta(minutes=15)
"""How late CloudTrail may be, says AWS: "within 15 minutes of an API call, on average about 5"."""


class AwsIam:
    """Access keys of IAM users.

    Settings: `user` (whose key it is, where the admin may not ask), `if_full` = `stop` or `delete_inactive_unused`
    (with two keys, one that is inactive and was never used, other than the leaked one, may be deleted, in a step of its
    own), `orphans` = `proven` (only what CloudTrail says we made is an orphan) or `young` (CloudTrail is not waited
    for), and those of `rotators.clouds.aws`.
    """

    name = "aws_iam"
    kinds = ("aws_akia",)
    style = Style.DISPLACE
    reversible = True
    propagation = timedelta(seconds=30)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("iam:GetAccessKeyLastUsed", "iam:ListAccessKeys"),
        "mint": ("iam:ListAccessKeys", "iam:CreateAccessKey", "iam:DeleteAccessKey"),
        "disable": ("iam:UpdateAccessKey",),
        "enable": ("iam:UpdateAccessKey",),
        "retire": ("iam:DeleteAccessKey",),
        "evidence": (
            "iam:GetUser",
            "iam:ListUserPolicies",
            "iam:GetUserPolicy",
            "iam:ListAttachedUserPolicies",
            "iam:GetPolicy",
            "iam:GetPolicyVersion",
            "iam:ListGroupsForUser",
            "cloudtrail:LookupEvents",
        ),
    }
    also_dies = "Nothing else dies: sessions that the key opened live on (up to 36 hours) and need a deny of their own."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; an unknown choice is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._aws = Aws(settings)
        for name, choices in (("if_full", (_STOP, _MAKE_ROOM)), ("orphans", ("", _BY_TRAIL, _YOUNG))):
            if (value := settings.get(name, choices[0])) not in choices:
                raise ProviderError(
                    Trouble.REFUSED, f"{name} = {value!r} is not one of {', '.join(filter(None, choices))}"
                )
        self.makes_room = settings.get("if_full") == _MAKE_ROOM

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """Name the admin, and ask IAM whether it may do what a rotation does."""
        wanted = sorted({p for step in ("locate", "mint", "disable", "retire") for p in self.permissions[step]})
        return preflight(self._aws, wanted)

    def locate(self, old: Credential) -> KeyRef:
        """Find the user who has exactly this access key id."""
        key = old.parts["id"].reveal().strip()
        iam = self._iam(key)
        user = self._settings.get("user") or self._owner(iam, key)
        for ref in self._keys(iam, user):
            if ref.id == key:
                return ref
        raise ProviderError(Trouble.GONE, f"user {user} has no access key {key}: it is deleted already")

    def _owner(self, iam: IAMClient, key: str) -> str:
        try:
            with aws(f"say whose key {key} is"):
                user = iam.get_access_key_last_used(AccessKeyId=key).get("UserName", "")
        except AwsError as e:
            if e.code != "AccessDenied":
                raise
            hint = "the admin may not ask, or the key is deleted or of another account; name its `user` if you know it"
            raise AwsError(Trouble.DENIED, f"IAM does not say whose key {key} is: {hint}", e.code) from None
        if not user:
            raise ProviderError(Trouble.GONE, f"IAM knows no user with access key {key}")
        return user

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the user's keys with state, age and last use."""
        return self._keys(self._iam(), ref.owner)

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Create a key for the same user; with two there it is `ProviderError(FULL)`: nothing is deleted here."""
        if len(self.siblings(ref)) >= LIMIT:
            raise ProviderError(Trouble.FULL, self._full(ref.owner))
        iam = self._iam(ref.id, mark=marker)
        try:
            with aws(f"create an access key for {ref.owner}"):
                made = iam.create_access_key(UserName=ref.owner)["AccessKey"]
        except AwsError as e:
            if e.trouble is Trouble.FULL:
                raise AwsError(Trouble.FULL, self._full(ref.owner), e.code) from None
            raise
        key = KeyRef(made["AccessKeyId"], ref.owner, State.ACTIVE, made.get("CreateDate"), never_used=True)
        return Minted(key, {"id": Secret(made["AccessKeyId"]), "secret": Secret(made["SecretAccessKey"])})

    @staticmethod
    def _full(user: str) -> str:
        return f"user {user} has {LIMIT} access keys already, and inactive ones count: delete one that nobody uses"

    def room(self, ref: KeyRef) -> KeyRef | None:
        """Return the key that could go for a new one: inactive, never used, not the leaked one, if told so."""
        keys = self.siblings(ref)
        if len(keys) < LIMIT:
            return None
        spare = [k for k in keys if k.id != ref.id and k.state is State.DISABLED and k.never_used is True]
        if not self.makes_room or not spare:
            raise ProviderError(Trouble.FULL, f"{self._full(ref.owner)} ({', '.join(k.id for k in keys)})")
        return spare[0]

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List keys not in `before`, made since (less 60 s of clock skew), never used, not made by others.

        One that CloudTrail proves to be ours has the marker as its label. While CloudTrail may still be late about a
        key it is `ProviderError(LATER)`.
        """
        known = {*before, ref.id}
        young = [
            key
            for key in self.siblings(ref)
            if key.id not in known
            and key.never_used is True
            and key.created is not None
            and key.created >= since - SKEW
        ]
        choice = self._settings.get("orphans", "")
        proof = choice == _BY_TRAIL
        said = [(key, maker(self._aws, key, since - SKEW, marker)) for key in young]
        silent = [key for key, by in said if by is Maker.SILENT and key.created is not None]
        if silent and choice != _YOUNG and not self._sandbox():
            over = max(key.created for key in silent if key.created is not None) + TRAIL
            if (wait := over - datetime.now(UTC)) > timedelta(0):
                names = ", ".join(key.id for key in silent)
                reason = f"CloudTrail does not say yet who made {names}; nothing is deleted on a guess"
                raise ProviderError(Trouble.LATER, reason, min(wait, timedelta(minutes=3)))
        return [
            replace(key, label=marker) if by is Maker.OURS else key
            for key, by in said
            if by is Maker.OURS or (by is Maker.SILENT and not proof)
        ]

    def _sandbox(self) -> bool:
        """Say whether this is no AWS but a simulator on this machine, whose CloudTrail is never late."""
        return loopback(str(self._iam().meta.endpoint_url))

    def disable(self, ref: KeyRef) -> None:
        """Set the key inactive. One that is gone is `ProviderError(GONE)`: somebody else was here."""
        self._set(ref, "Inactive")

    def enable(self, ref: KeyRef) -> None:
        """Set the key active again."""
        self._set(ref, "Active")

    def _set(self, ref: KeyRef, status: str) -> None:
        with aws(f"set access key {ref.id} {status.lower()}"):
            self._iam(ref.id).update_access_key(
                UserName=ref.owner,
                AccessKeyId=ref.id,
                Status="Active" if status == "Active" else "Inactive",
            )

    def retire(self, ref: KeyRef) -> None:
        """Delete exactly this key; one that is not there is done."""
        try:
            with aws(f"delete access key {ref.id}"):
                self._iam(ref.id).delete_access_key(UserName=ref.owner, AccessKeyId=ref.id)
        except AwsError as e:
            if e.trouble is not Trouble.GONE:
                raise

    def state(self, ref: KeyRef) -> State:
        """Return what the user's list of keys says of it."""
        try:
            with aws(f"list the access keys of {ref.owner}"):
                pages = list(self._iam().get_paginator("list_access_keys").paginate(UserName=ref.owner))
        except AwsError as e:
            if e.trouble is Trouble.GONE:
                return State.GONE
            raise
        states = {k["AccessKeyId"]: k["Status"] for page in pages for k in page["AccessKeyMetadata"]}
        if ref.id not in states:
            return State.GONE
        return State.ACTIVE if states[ref.id] == "Active" else State.DISABLED

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:
        """Say whose the key is, what it may do and read, where it was last used, and what CloudTrail saw of it."""
        return gather(self._aws, ref, since)

    def _iam(self, leaked: str = "", mark: str = "") -> IAMClient:
        return cast("IAMClient", self._aws.client("iam", leaked=leaked, mark=mark))

    def _keys(self, iam: IAMClient, user: str) -> list[KeyRef]:
        found = []
        with aws(f"list the access keys of {user}"):
            for page in iam.get_paginator("list_access_keys").paginate(UserName=user):
                for key in page["AccessKeyMetadata"]:
                    used = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
                    found.append(
                        KeyRef(
                            key["AccessKeyId"],
                            user,
                            State.ACTIVE if key["Status"] == "Active" else State.DISABLED,
                            key.get("CreateDate"),
                            used.get("LastUsedDate"),
                            never_used=_never(used),
                        )
                    )
        return found


def _never(used: AccessKeyLastUsedTypeDef) -> bool:
    """IAM says `N/A` and gives no date for a key that was not used since 2015."""
    return used.get("LastUsedDate") is None and used.get("ServiceName", "N/A") == "N/A"


def make(settings: Settings) -> AwsIam:
    """Return the issuer for a playbook's slot."""
    return AwsIam(settings)
