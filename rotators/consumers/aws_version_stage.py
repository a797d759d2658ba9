"""A Secrets Manager secret that others read by a staging label: give them the new version under that label.

Unlike the store this has no expected version: the label goes to the run's version from wherever it is. What carried
it stays in the secret (as `AWSPREVIOUS`, for `AWSCURRENT`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rotators.clouds.aws_secrets import CURRENT, Versions
from rotators.interface import Fact
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Settings
    from rotators.step import Outcome
    from verifier.secret import Secret


class AwsVersionStage:
    """The setting `secret` names the secret, `stage` the label that its readers ask for (`AWSCURRENT` by default)."""

    name = "aws_version_stage"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "push": (
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        ),
        "pushed": ("secretsmanager:DescribeSecret",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._versions = Versions(settings, settings.get("stage", CURRENT))

    def preflight(self) -> Sequence[Fact]:
        """See whether the secret is there and the label on it, and have IAM simulate the admin's rights."""
        facts = self._versions.preflight(self.permissions["push"])
        now = self._versions.staged()
        there = f"is on version {now.version}" if now is not None else "is on no version yet"
        return [*facts, Fact("consumer", f"{self._versions.stage} of secret {self._versions.name} {there}")]

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        """Write a version and put the label on it; if the label is on this run's version already, nothing is done."""
        before = self._versions.staged()
        if before is not None and before.run == run:
            return Done("was there already", {"version": before.version})
        was = before.version if before is not None else None
        version = self._versions.write(fields, run, was)
        now = self._versions.staged()
        if now is None or now.version != version:
            self._versions.move(version, was)
        return Done(f"{self._versions.stage} is on the new version", {"version": version, "former": was or ""})

    def pushed(self, run: str) -> bool | None:
        """Tell whether the label is on this run's version."""
        now = self._versions.staged()
        return now is not None and now.run == run


def make(settings: Settings) -> AwsVersionStage:
    """Return the consumer for a playbook's slot."""
    return AwsVersionStage(settings)
