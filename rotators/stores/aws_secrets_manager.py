"""AWS Secrets Manager as a store: compare-and-set by staging label, the run's marker as a label beside it.

Versions are immutable and `AWSCURRENT` is on one at a time. We write a version without it, then move `AWSCURRENT` off
the version that we expected: if another one carries it by then, AWS refuses and readers never saw ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rotators.clouds.aws import AwsError
from rotators.clouds.aws_secrets import Versions
from rotators.interface import ProviderError, Stored, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Fact, Settings
    from verifier.secret import Secret


class AwsSecretsManager:
    """One secret, named by the setting `secret` (name or ARN); `format` is `json` or `plain`, see `clouds.fields`."""

    name = "aws_secrets_manager"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "current": ("secretsmanager:DescribeSecret",),
        "put": (
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
            "secretsmanager:CreateSecret",
            "secretsmanager:TagResource",
        ),
        "fetch": ("secretsmanager:GetSecretValue",),
        "restore": ("secretsmanager:UpdateSecretVersionStage", "secretsmanager:DeleteSecret"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._versions = Versions(settings)

    def preflight(self) -> Sequence[Fact]:
        """Have IAM simulate the admin's rights; `secretsmanager:DeleteSecret` is only for an undo, and left out."""
        wanted = {r for rights in self.permissions.values() for r in rights} - {"secretsmanager:DeleteSecret"}
        if self._versions.staged() is not None:
            wanted -= {"secretsmanager:CreateSecret", "secretsmanager:TagResource"}
        return self._versions.preflight(sorted(wanted))

    def current(self) -> Stored | None:
        """Return the AWSCURRENT version and the run whose label it carries."""
        return self._versions.staged()

    def put(self, fields: Mapping[str, Secret], expected: Stored | None, run: str) -> Stored:
        """Write a version and move AWSCURRENT to it from `expected`, else `ProviderError(CONFLICT)`.

        Fields that the expected version has and `fields` lacks are kept. A secret that is not there is created.
        """
        before = self._versions.staged()
        was = expected.version if expected is not None else None
        if (before.version if before else None) != was:
            raise self._versions.conflict()
        try:
            version = self._versions.write(fields, run, was)
        except AwsError as e:
            if e.code == "ResourceExistsException":  # created between our look and our write
                raise self._versions.conflict() from None
            raise
        now = self._versions.staged()
        if now is None or now.version != version:
            try:
                self._versions.move(version, was)
            except ProviderError as e:
                if e.trouble is Trouble.CONFLICT:
                    self._versions.drop_label(version, run)
                raise
        return Stored(version, run)

    def fetch(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read a version's fields, AWSCURRENT by default."""
        return self._versions.read(version)

    def restore(self, version: str | None, run: str) -> Stored:
        """Move AWSCURRENT back to `version`, if it is on a version of `run`; repeating is harmless.

        `None` schedules the deletion of the secret that this run created; AWS keeps it for seven days.
        """
        now = self._versions.staged()
        if version is None:
            if now is None:
                return Stored("", run)
            if now.run != run:
                raise self._versions.conflict()
            self._versions.delete()
            return Stored("", run)
        if now is not None and now.version == version:
            return now
        if now is None or now.run != run:
            raise self._versions.conflict()
        self._versions.move(version, now.version)
        return self._versions.staged() or Stored(version)


def make(settings: Settings) -> AwsSecretsManager:
    """Return the store for a playbook's slot."""
    return AwsSecretsManager(settings)
